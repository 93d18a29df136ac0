"""A killed worker or supervisor is followed by another: applications wait, see no error, and lose nothing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safekit.replication import DataPlaneError, DataPlaneGone, PeerLost, Status
from tests.native.chaos import Background, Chaos
from tests.native.pair import Pair, Side, in_mirror, in_thread
from tests.native.trees import Entry, assert_equal, read_tree

KILLS = int(os.environ.get("SAFEKIT_RFS_KILLS", "30"))
SEED = int(os.environ.get("SAFEKIT_RFS_KILL_SEED", "1"))


@pytest.fixture(autouse=True)
def supervised() -> None:
    if "thread" in os.environ.get("SAFEKIT_RFS_SANITIZE", ""):
        pytest.skip("a program under the thread sanitizer has no supervisor: its runtime cannot be cloned")


async def status_of(side: Side) -> Status:
    """Also from a worker that only begins."""
    for _ in range(500):
        try:
            return await side.plane.status()
        except (DataPlaneError, DataPlaneGone):
            await asyncio.sleep(0.01)
    raise AssertionError("nobody answers any more")


async def kill_worker(side: Side) -> float:
    """Seconds until the next one answers."""
    worker = (await status_of(side)).pid
    os.kill(worker, signal.SIGKILL)
    begun = time.monotonic()
    while (await status_of(side)).pid == worker:
        await asyncio.sleep(0.001)
    return time.monotonic() - begun


def timeless(root: Path) -> dict[str, Entry]:
    """A tree without what depends on when it was made."""
    return {name: replace(entry, mtime_ns=0) for name, entry in read_tree(root).items()}


class Compared:
    """The same requests, one after the other, to the mount and to a plain directory; every answer must be the same."""

    def __init__(self, mount: Path, plain: Path, seed: int) -> None:
        plain.mkdir()
        self.real, self.model = Chaos(mount, seed), Chaos(plain, seed)
        self.steps = 0
        self.stopping = False

    def run(self) -> None:
        while not self.stopping:
            real, model = self.real.step(), self.model.step()
            assert (self.steps, self.real.last, real) == (self.steps, self.model.last, model)
            self.steps += 1
        self.real.close()
        self.model.close()


async def killed_under_load(pair: Pair, plain: Path, kill: Callable[[], object], times: int) -> None:
    """Kills while applications work, and compares what they saw and what is left."""
    compared = Compared(pair.a.data / "compared", plain, SEED)
    (pair.a.data / "compared").mkdir()
    (pair.a.data / "crowd").mkdir()
    crowd = Background(pair.a.data / "crowd", SEED * 100, threads=3)
    work = asyncio.ensure_future(in_thread(compared.run))
    pauses = random.Random(SEED)
    for _ in range(times):
        steps = compared.steps
        result = kill()
        if asyncio.iscoroutine(result):
            await result
        await asyncio.sleep(pauses.uniform(0.0, 0.15))
        async with asyncio.timeout(20):
            while compared.steps == steps and not work.done():
                await asyncio.sleep(0.005)
        assert not work.done(), work.exception()
    compared.stopping = True
    await asyncio.wait_for(work, 30)
    await in_thread(crowd.stop)
    ours, theirs = timeless(pair.a.data / "compared"), timeless(plain)
    assert ours.keys() == theirs.keys()
    assert {name: (ours[name], theirs[name]) for name in ours if name != "." and ours[name] != theirs[name]} == {}


async def test_a_killed_worker_is_followed_by_another_and_no_application_sees_it(pair: Pair, tmp_path: Path) -> None:
    await pair.a.plane.primary(generation="1")
    waits: list[float] = []

    async def kill() -> None:
        waits.append(await kill_worker(pair.a))

    await killed_under_load(pair, tmp_path / "plain", kill, KILLS)
    print(f"{KILLS} kills, the next worker answered within {max(waits) * 1000:.0f} ms")
    assert sorted(waits)[len(waits) // 2] < 0.5
    status = await pair.a.plane.status()
    assert (status.role, status.peer) == ("primary", "none")
    await pair.listen(pair.b)
    await pair.mirror()
    await pair.a.plane.handover()
    assert_equal(pair.a.data, pair.b.data)


async def test_a_killed_supervisor_is_replaced_and_its_heir_lends_its_place_to_the_next_program(
    pair: Pair, tmp_path: Path
) -> None:
    await pair.a.plane.primary(generation="1")
    supervisor, turn = pair.a.supervisor, 0

    async def kill() -> None:
        nonlocal supervisor, turn
        turn += 1
        worker = (await status_of(pair.a)).pid
        os.kill(supervisor, signal.SIGKILL)
        supervisor = await replaced(worker, supervisor)
        if turn % 2:
            await kill_worker(pair.a)
            supervisor = parent_of((await status_of(pair.a)).pid)

    await killed_under_load(pair, tmp_path / "plain", kill, KILLS // 3)
    os.kill((await status_of(pair.a)).pid, 0)
    await pair.a.plane.exit()
    async with asyncio.timeout(20):
        while pair.a.settings.control.exists():
            await asyncio.sleep(0.02)


async def test_another_program_goes_on_in_place_and_no_application_sees_it(pair: Pair, tmp_path: Path) -> None:
    await pair.a.plane.primary(generation="1")

    async def reload() -> None:
        worker = (await status_of(pair.a)).pid
        os.kill(pair.a.supervisor, signal.SIGHUP)
        async with asyncio.timeout(20):
            while (await status_of(pair.a)).pid == worker:
                await asyncio.sleep(0.001)
        assert parent_of((await status_of(pair.a)).pid) == pair.a.supervisor

    await killed_under_load(pair, tmp_path / "plain", reload, KILLS // 3)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


async def replaced(worker: int, supervisor: int) -> int:
    """The clone of the worker that watches it from now on."""
    for _ in range(500):
        for task in Path(f"/proc/{worker}/task").iterdir():
            for child in (task / "children").read_text().split():
                if int(child) != supervisor:
                    return int(child)
        await asyncio.sleep(0.01)
    raise AssertionError("nobody watches the worker")


async def test_a_primary_whose_worker_dies_in_a_mirror_holds_answers_until_it_may_go_alone(
    mirrored: Pair, tmp_path: Path
) -> None:
    async def kill() -> None:
        await kill_worker(mirrored.a)
        assert (await mirrored.a.told(PeerLost)).held
        status = await status_of(mirrored.a)
        assert (status.role, status.peer) == ("primary", "lost")
        await mirrored.a.plane.alone(generation="alone")
        await mirrored.b.until(lambda status: status.peer == "listening")
        connected = await mirrored.connect()
        assert connected.incremental, connected.reason
        await in_mirror(mirrored.a)

    await killed_under_load(mirrored, tmp_path / "plain", kill, max(3, KILLS // 6))
    assert (await mirrored.a.plane.status()).peer == "mirror"
    await mirrored.a.plane.handover()
    assert_equal(mirrored.a.data, mirrored.b.data)


async def test_a_killed_worker_in_a_resynchronisation_loses_nothing(pair: Pair) -> None:
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    crowd = Background(pair.a.data, SEED * 7, threads=3, big=True)
    for turn in range(max(3, KILLS // 6)):
        await pair.connect()
        await asyncio.sleep(0.02 * turn)
        held = (await status_of(pair.a)).peer == "mirror"
        await kill_worker(pair.a)
        lost = await pair.a.told(PeerLost)
        if held or lost.held:
            await pair.a.plane.alone(generation=f"alone {turn}")
        await pair.b.until(lambda status: status.peer == "listening")
    await pair.mirror()
    await in_thread(crowd.stop)
    await pair.a.plane.handover()
    assert_equal(pair.a.data, pair.b.data)
