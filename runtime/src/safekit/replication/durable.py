"""What of a copy is on disk: makes it durable without a word to the mount over it, and reads its mark of an unfinished resync.

A mount of ours may hold writes until its peer or `alone` answers; a sync that went through it would wait for them. So the
file system below is synced through the folder that the directory stands in.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path


def sync_below(directories: Iterable[Path]) -> None:
    """Sync the file system below each directory; blocks until its disk has everything. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    for folder in {path.resolve().parent for path in directories}:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if library.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(folder))
        finally:
            os.close(descriptor)


def copy_is_inconsistent(state_dir: Path) -> bool:
    """Whether the data plane marked this copy: a resynchronisation onto it began and did not end."""
    try:
        lines = (state_dir / "rfs.state").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return False
    return "inconsistent=1" in lines
