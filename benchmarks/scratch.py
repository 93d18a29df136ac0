"""The folder that a benchmark works in, and its end: whatever happens, no process, no mount and no file of it is left.

Everything that a benchmark starts names its folder in its arguments: so what belongs to it is found by that name, also
after a benchmark that was killed before it could clear up (`remains`)."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

WORKLOADS = frozenset({"fio", "bound", "files", "pgbench", "psql", "initdb", "cp"})
"""Programs that do the work that is measured; their end is an error of the measurement, and nothing else."""
SERVERS = frozenset({"safekit-rfs", "glusterfs", "glusterfsd", "postgres", "pg_ctl"})

_PREFIX = "safekit-bench-"
_PATIENCE_S = 5.0
_YOUNG_S = 60.0
"""A folder is made first and held then."""


@contextlib.asynccontextmanager
async def scratch(where: Path) -> AsyncIterator[Path]:
    """A new folder on the disk below `where` that every user may enter; cleared afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=where))
    folder.chmod(0o755)
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        await asyncio.shield(asyncio.to_thread(clear, folder))
        os.close(held)


def remains(where: Path) -> list[Path]:
    """Folders of benchmarks that ended without clearing up: nobody holds them, and the process that made them is gone,
    or its number is another's by now."""
    found = []
    for folder in where.glob(f"{_PREFIX}*-*"):
        maker = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not maker.isdigit() or _is_held(folder):
            continue
        if not Path(f"/proc/{maker}").exists() or time.time() - folder.stat().st_mtime > _YOUNG_S:
            found.append(folder)
    return found


def _is_held(folder: Path) -> bool:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return True  # its maker clears it up at this moment
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def clear(folder: Path) -> None:
    """Ends the processes that work in a folder, unmounts what is mounted below it, removes it."""
    end_programs(folder, WORKLOADS | SERVERS)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False, capture_output=True)


def end_programs(folder: Path, names: frozenset[str]) -> None:
    """Ends the programs of these names that have a folder in their arguments: by request, and then by force."""
    begin, wanted = time.monotonic(), signal.SIGTERM
    while found := _at_work_in(folder, names):
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, wanted)
        passed = time.monotonic() - begin
        if passed > 2 * _PATIENCE_S:
            return
        if passed > _PATIENCE_S:
            wanted = signal.SIGKILL
        time.sleep(0.05)


async def working(folder: Path, work: Callable[[], Result]) -> Result:
    """Work in a thread, whose programs name `folder`. When it is cancelled they are ended, and the work has come to its
    end, with what it does about that, before anything below the folder is taken away."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            await asyncio.to_thread(end_programs, folder, WORKLOADS)
            await asyncio.wait([task], timeout=0.5)
        task.exception()
        raise


def _at_work_in(folder: Path, names: frozenset[str]) -> list[int]:
    mark = f"{folder}".encode()
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        words = _arguments(int(process)).split(b"\0")
        if Path(os.fsdecode(words[0])).name in names and any(_is_below(word, mark) for word in words[1:]):
            found.append(int(process))
    return found


def _is_below(word: bytes, mark: bytes) -> bool:
    at = word.find(mark)
    return at >= 0 and word[at + len(mark) : at + len(mark) + 1] in (b"", b"/", b"'")


def _arguments(process: int) -> bytes:
    """Nothing for one that is gone or a zombie."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
