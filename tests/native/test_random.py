"""Random requests of seeded applications: the mount answers as the file system below, and both copies end equal bit for bit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from safekit.replication import PeerLost
from tests.native.chaos import Background, Chaos
from tests.native.pair import Pair, in_mirror, in_thread
from tests.native.trees import Entry, assert_equal, read_tree

SEEDS = [int(seed) for seed in os.environ.get("SAFEKIT_RFS_SEEDS", "1,2").split(",")]


def timeless(root: Path) -> dict[str, Entry]:
    """A tree without what depends on when it was made."""
    return {name: replace(entry, mtime_ns=0) for name, entry in read_tree(root).items()}


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_mount_answers_as_a_plain_directory(mirrored: Pair, tmp_path: Path, seed: int) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()

    def work() -> None:
        real, model = Chaos(mirrored.a.data, seed), Chaos(plain, seed)
        for step in range(600):
            assert (step, real.step()) == (step, model.step())
        real.close()
        model.close()

    await in_thread(work)
    assert (await mirrored.a.plane.status()).peer == "mirror", mirrored.a.events
    await mirrored.a.plane.handover()
    assert_equal(mirrored.a.data, mirrored.b.data)
    ours, theirs = timeless(mirrored.a.data), timeless(plain)
    assert ours.keys() == theirs.keys()
    assert {name: (ours[name], theirs[name]) for name in ours if name != "." and ours[name] != theirs[name]} == {}


@pytest.mark.parametrize("seed", SEEDS)
async def test_several_applications_at_once_end_in_equal_copies(mirrored: Pair, seed: int) -> None:
    work = Background(mirrored.a.data, seed * 100, threads=4)
    await mirrored.a.until(lambda status: status.applied > 1500)
    await in_thread(work.stop)
    assert (await mirrored.a.plane.status()).peer == "mirror", mirrored.a.events
    await mirrored.a.plane.handover()
    assert_equal(mirrored.a.data, mirrored.b.data)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_full_resync_under_load_ends_in_equal_copies(pair: Pair, seed: int) -> None:
    prepare(pair.a.data, seed * 1000)
    prepare(pair.b.data, seed * 2000)
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    work = Background(pair.a.data, seed * 100, threads=3, big=True)
    assert not (await pair.connect()).incremental
    await in_mirror(pair.a)
    await in_thread(work.stop)
    assert (await pair.a.plane.status()).peer == "mirror", pair.a.events
    await pair.a.plane.handover()
    assert_equal(pair.a.data, pair.b.data)


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_incremental_resync_under_load_ends_in_equal_copies(mirrored: Pair, seed: int) -> None:
    a, b = mirrored.a, mirrored.b
    work = Background(a.data, seed * 100, threads=3)
    for turn in range(3):
        applied = (await a.plane.status()).applied
        await a.until(lambda status, goal=applied + 300: status.applied > goal)  # type: ignore[misc]
        await b.kill()
        await a.told(PeerLost)
        await a.plane.alone(generation=f"alone {turn}")
        goal = work.steps + 300
        await a.until(lambda status, goal=goal: work.steps > goal)  # type: ignore[misc]
        await b.restart()
        await mirrored.listen(b)
        connected = await mirrored.connect()
        assert connected.incremental, connected.reason
        await in_mirror(a)
    await in_thread(work.stop)
    assert (await a.plane.status()).peer == "mirror", a.events
    await a.plane.handover()
    assert_equal(a.data, b.data)


def prepare(root: Path, seed: int) -> None:
    """A tree with a history."""
    chaos = Chaos(root, seed, big=True)
    for _ in range(500):
        chaos.step()
    chaos.close()
