"""Small JSON files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any


class UnreadableFile(Exception):
    """The file is there and is not what we wrote."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


def write_json(path: Path, value: object, *, durable: bool, mode: int = 0o600) -> None:
    """Replace `path` by `value` as JSON. `durable`: on disk, name included, before this returns. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        content = json.dumps(value, separators=(",", ":")).encode()
        if os.write(descriptor, content) != len(content):  # a disk that fills up may take a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None if there is no file. Raises UnreadableFile."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UnreadableFile(path, str(error)) from error
