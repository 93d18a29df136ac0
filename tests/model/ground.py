"""Where sequences run: a pair of data planes and a plain directory of the same file system, used for many sequences.

The data planes are driven by a loop in a thread of its own, so that a request which has to wait for an answer of the controller
gets one. The trees below the mounts are seen through bind mounts that were there before them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safekit.replication import Connected, DataPlaneError, DataPlaneGone, Status
from tests.native.pair import Pair, Side, in_mirror

Result = TypeVar("Result")
NEVER_ANSWERED_S = 90.0


@dataclass(frozen=True)
class Trees:
    """Where one sequence lives: through the mount, below it on both sides, and in the plain directory."""

    mount: Path
    primary: Path
    secondary: Path
    plain: Path


class Ground:
    """A mirror of `a` and `b` (in either role) beside a plain directory."""

    def __init__(self, folder: Path, binary: Path) -> None:
        self.folder, self.binary = folder, binary
        self.plain = folder / "plain"
        self.plain.mkdir()
        self.begun = 0
        self._generation = 0
        self._built = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._watch: asyncio.TimerHandle | None = None
        self._granting: asyncio.Task[None] | None = None
        self._granted: Side | None = None
        self.build()

    def do(self, work: Coroutine[Any, Any, Result], seconds: float = 120.0) -> Result:
        """Runs a coroutine beside the caller."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    # ---- its life ----

    def build(self) -> None:
        """A new pair in mirror."""
        self._built += 1
        self.home = self.folder / f"pair{self._built}"
        self.do(self._build())
        self.doubted: Trees | None = None
        """Where a sequence failed."""

    async def _build(self) -> None:
        self.pair = Pair(self.home, self.binary)
        for side in (self.pair.a, self.pair.b):
            below = side.folder.with_name(f"below-{side.folder.name}")
            below.mkdir()
            subprocess.run(["mount", "--bind", side.folder, below], check=True)
            subprocess.run(["mount", "--make-private", below], check=True)
        self.primary, self.secondary = self.pair.a, self.pair.b
        await self.pair.start()
        await self.primary.plane.primary(generation=self._next())
        await self._rejoin(full=False)
        await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        """So much that a resync takes its time."""
        for i in range(20):
            folder = self.primary.data / "ballast" / f"d{i}" / "deep"
            folder.mkdir(parents=True)
            for j in range(20):
                (folder / f"f{j}").write_bytes(bytes([i + 1, j + 1]) * 8000)

    def close(self) -> None:
        """Leaves nothing behind."""
        self._close_pair()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _close_pair(self) -> None:
        self.do(self._stop_granting())
        self.do(self.pair.close(), 300)
        for side in (self.pair.a, self.pair.b):
            subprocess.run(["umount", "-l", side.folder.with_name(f"below-{side.folder.name}")], check=True)
        shutil.rmtree(self.home, ignore_errors=True)

    # ---- sequences ----

    def begin(self) -> Trees:
        """An empty directory of its own on the mount and on the plain file system."""
        if self.doubted is not None and not self._recovered(self.doubted):
            self._close_pair()
            self.build()
        self.doubted = None
        self.begun += 1
        name = f"s{self.begun}"
        os.mkdir(self.primary.data / name)
        os.mkdir(self.plain / name)
        for folder in (self.primary.data / name, self.plain / name):
            os.chmod(folder, 0o777)
        self._loop.call_soon_threadsafe(self._arm)
        return self.trees(name)

    def _recovered(self, trees: Trees) -> bool:
        """Whether the pair that a failed sequence leaves is as good as new."""
        with contextlib.suppress(Exception):
            self.end(trees)
            return self.mirrored() and not any(tree.exists() for tree in (trees.primary, trees.secondary))
        return False

    def trees(self, name: str) -> Trees:
        """The four places of a sequence, as the roles are now."""
        return Trees(
            self.primary.data / name, below(self.primary) / name, below(self.secondary) / name, self.plain / name
        )

    def end(self, trees: Trees) -> None:
        """Removes it everywhere."""
        self._loop.call_soon_threadsafe(self._disarm)
        shutil.rmtree(os.fsencode(trees.mount))
        shutil.rmtree(os.fsencode(trees.plain))

    def _arm(self) -> None:
        self._disarm()
        self._watch = self._loop.call_later(NEVER_ANSWERED_S, self._give_up)

    def _disarm(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = None

    def _give_up(self) -> None:
        """A request was never answered: the mount goes, so that it ends with an error and the sequence fails."""
        self._loop.create_task(self.primary.plane.idle(force=True))

    # ---- faults ----

    def mirrored(self) -> bool:
        """Whether the pair is a mirror, once a resync that runs is over."""
        return self.do(self.primary.until(lambda status: status.peer != "resync")).peer == "mirror"

    def lose_secondary(self, *, killed: bool) -> None:
        """Dead or stopped; the primary goes on alone."""
        self.do(self._lose_secondary(killed))

    async def _lose_secondary(self, killed: bool) -> None:
        """In the middle of a resync, or in mirror."""
        side = self.secondary
        if killed:
            await side.kill()
        else:
            await side.plane.idle()
        await self.primary.until(lambda status: status.peer == "none" and status.held == 0)
        if killed:
            await side.restart()

    def rejoin(self, *, full: bool, waits: bool = True) -> Connected:
        """The secondary comes back and is resynchronised, which is waited for or not."""
        return self.do(self._rejoin(full, waits))

    async def _rejoin(self, full: bool, waits: bool = True) -> Connected:
        await self._stop_granting()
        self._granted = self.primary
        self._granting = asyncio.create_task(self._grant(self.primary))
        await self.secondary.plane.secondary("127.0.0.1", self.pair.port, generation="0")
        connected = await self.primary.plane.connect("127.0.0.1", self.pair.port, generation=self._next(), full=full)
        if waits:
            await in_mirror(self.primary)
        return connected

    def swap(self) -> None:
        """The secondary becomes the primary, in order. Nobody may have a file open."""
        self.do(self._swap())

    async def _swap(self) -> None:
        await in_mirror(self.primary)
        await self.primary.plane.handover()
        self.primary, self.secondary = self.secondary, self.primary
        await self.primary.plane.primary(generation=self._next())
        await self._rejoin(full=False)

    def take_over(self) -> None:
        """The primary is killed, the secondary serves, and the killed one comes back. Nobody may have a file open."""
        self.do(self._take_over())

    async def _take_over(self) -> None:
        await in_mirror(self.primary)
        await self._stop_granting()
        await self.primary.kill()
        await self.secondary.until(lambda status: status.peer != "mirror")
        self.primary, self.secondary = self.secondary, self.primary
        await self.primary.plane.primary(generation=self._next())
        await self.secondary.restart()
        await self._rejoin(full=False)

    def kill_worker(self) -> None:
        """The process behind the mount is killed; another one follows it, and the mirror comes back. Files stay open."""
        self.do(self._kill_worker())

    async def _kill_worker(self) -> None:
        plane, worker = self.primary.plane, self.primary.worker
        if worker == self.primary.supervisor:
            return  # under the thread sanitizer nobody follows
        connected = (await plane.status()).peer in ("mirror", "resync")
        os.kill(worker, signal.SIGKILL)
        async with asyncio.timeout(30):
            while (status := await self._status()).pid == worker:
                await asyncio.sleep(0.005)
            while connected and status.peer != "mirror":
                if status.peer in ("none", "lost"):
                    with contextlib.suppress(DataPlaneError, DataPlaneGone):
                        await plane.connect("127.0.0.1", self.pair.port, generation=self._next())
                await asyncio.sleep(0.005)
                status = await self._status()

    async def _status(self) -> Status:
        """Also of a worker that only begins."""
        while True:
            try:
                return await self.primary.plane.status()
            except (DataPlaneError, DataPlaneGone):
                await asyncio.sleep(0.005)

    async def _grant(self, side: Side) -> None:
        """The controller: whoever lost its secondary goes on alone."""
        while self._granted is side:
            with contextlib.suppress(DataPlaneError, DataPlaneGone):
                if (await side.plane.status()).peer == "lost":
                    await side.plane.alone(generation=self._next())
            await asyncio.sleep(0.02)

    async def _stop_granting(self) -> None:
        self._granted = None
        if self._granting is not None:
            await self._granting
        self._granting = None

    def _next(self) -> str:
        self._generation += 1
        return f"generation {self._generation}"


def below(side: Side) -> Path:
    """The tree that a side's mount hides."""
    return side.folder.with_name(f"below-{side.folder.name}") / "data"
