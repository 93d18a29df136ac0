"""The null request on a replicated directory (spec §3.6 `checktime`): does the mount still answer?

A request to a file system that hangs cannot be taken back, so each is asked by a thread of its own, which a daemon that
ends does not wait for; while one hangs no other is begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path


def _statfs(directory: Path) -> object:
    return os.statvfs(directory)


async def answers(directory: Path, within: float, ask: Callable[[Path], object] = _statfs) -> bool:
    """Whether `directory` answers within so many seconds. An error is an answer: the file system works."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def work() -> None:
        with contextlib.suppress(OSError):
            ask(directory)
        with contextlib.suppress(RuntimeError):  # the daemon has ended meanwhile
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name=f"null request {directory}", daemon=True).start()
    try:
        async with asyncio.timeout(within):
            await done.wait()
    except TimeoutError:
        return False
    return True
