"""After a crash, of the process or of the machine, the logs name what may differ: no more is compared, nothing is missed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from safekit.replication import PeerLost, PrimaryLost
from tests.native.chaos import Background
from tests.native.moments import await_another_moment
from tests.native.pair import Pair, Side, in_mirror, in_thread
from tests.native.test_dirty import give
from tests.native.trees import assert_equal

CLOCK_GRACE_S = 0.05
"""What was changed so shortly before the mirror counts as changed after it: clocks move in steps, and may be set."""


async def crash(side: Side, *, power: bool) -> None:
    """The end of a process, or of its machine as the process sees it when it comes back: another boot."""
    await side.kill()
    if power:
        give(side, "--boot-id", f"boot {id(object())} {len(side.settings.arguments())}")
    await side.restart()


async def takes_over(pair: Pair, survivor: Side, crashed: Side) -> None:
    """The survivor serves, the crashed one becomes its secondary; only what the logs name is compared."""
    await survivor.plane.primary(generation="next")
    await pair.listen(crashed)
    connected = await pair.connect(survivor)
    assert connected.incremental, connected.reason


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
async def test_primaries_that_crash_in_turn_under_load_rejoin_by_their_log(
    mirrored: Pair, seed: int, power: bool
) -> None:
    first, second = mirrored.a, mirrored.b
    for turn in range(4):
        work = Background(first.data, seed * 1000 + turn * 10, threads=3)
        applied = (await first.plane.status()).applied
        await first.until(lambda status, goal=applied + 400: status.applied > goal)  # type: ignore[misc]
        await first.kill()
        await in_thread(work.stop)
        await second.told(PrimaryLost)
        if power:
            give(first, "--boot-id", f"boot {turn}")
        await first.restart()
        await takes_over(mirrored, second, first)
        work = Background(second.data, seed * 1000 + turn * 10 + 5, threads=2)
        await in_mirror(second)
        await in_thread(work.stop)
        assert (await second.plane.status()).peer == "mirror", second.events
        first, second = second, first
    await first.plane.handover()
    assert_equal(first.data, second.data)


async def test_what_a_primary_lost_with_its_memory_comes_back_from_its_secondary(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b

    def before() -> None:
        for folder, files in (("quiet", 300), ("changes", 10)):
            (a.data / folder).mkdir()
            for i in range(files):
                (a.data / folder / f"f{i}").write_bytes(os.urandom(20_000))
        (a.data / "table").write_bytes(os.urandom(30_000_000))
        (a.data / "d").mkdir()

    await in_thread(before)
    give(a, "--boot-id", "one")
    # A new mirror: nothing of the past is in doubt.
    await a.plane.handover()
    await a.process.stop()
    await a.restart()
    await a.plane.primary(generation="3")
    await mirrored.mirror()

    def recent() -> None:
        with open(a.data / "table", "r+b") as file:
            os.pwrite(file.fileno(), b"acknowledged", 17_000_000)
        (a.data / "d" / "new").write_bytes(b"n" * 50_000)
        (a.data / "d" / "sub").mkdir()
        (a.data / "d" / "sub" / "deep").write_bytes(b"d" * 50_000)
        os.chmod(a.data / "changes" / "f7", 0o600)
        os.unlink(a.data / "changes" / "f8")
        os.rename(a.data / "changes" / "f9", a.data / "changes" / "renamed")

    await in_thread(recent)
    await crash(a, power=True)
    # What the power took: here the disk has none of it, half of it, or worse.
    with open(a.data / "table", "r+b") as file:
        os.pwrite(file.fileno(), b"never synced", 17_000_000)
    (a.data / "d" / "new").write_bytes(b"n" * 49_000 + b"garbage" * 100)
    (a.data / "d" / "sub" / "deep").write_bytes(b"")
    os.chmod(a.data / "changes" / "f7", 0o644)
    (a.data / "changes" / "f8").write_bytes(b"back again")
    os.rename(a.data / "changes" / "renamed", a.data / "changes" / "f9")
    (a.data / "d" / "unacknowledged").write_bytes(b"x")

    await takes_over(mirrored, b, a)
    await in_mirror(b)
    assert (await b.plane.status()).files_done < 30
    await b.plane.handover()
    assert_equal(a.data, b.data)
    assert not (a.data / "d" / "unacknowledged").exists()


async def test_after_a_loss_of_power_what_is_older_than_the_mirror_is_not_compared(pair: Pair) -> None:
    a, b = pair.a, pair.b
    for folder in ("one", "two"):
        (a.data / folder).mkdir()
        for number in range(200):
            (a.data / folder / f"f{number}").write_bytes(b"the same on both nodes")
    subprocess.run(
        ["cp", "-a", f"{a.data}/.", b.data], check=True
    )  # with its times: the first mirror changes nothing here
    await_another_moment(CLOCK_GRACE_S)
    await a.plane.primary(generation="1")
    await pair.listen(b)
    await pair.mirror()
    # In the folder that holds the others: what is new in it is in doubt, and theirs is not.
    await in_thread(lambda: [(a.data / f"hot{i}").write_bytes(os.urandom(50_000)) for i in range(20)])
    await crash(a, power=True)
    for number in range(20):
        (a.data / f"hot{number}").write_bytes(b"what the power left")
    await takes_over(pair, b, a)
    await in_mirror(b)
    assert (await b.plane.status()).files_done < 30
    await b.plane.handover()
    assert_equal(a.data, b.data)


async def test_what_a_secondary_lost_with_its_memory_is_sent_again(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await in_thread(lambda: [(a.data / f"f{i}").write_bytes(os.urandom(5000)) for i in range(200)])
    await b.plane.idle()
    await a.told(PeerLost)
    await a.plane.alone(generation="3")
    await mirrored.listen(b)
    await mirrored.mirror()
    await in_thread(lambda: (a.data / "f5").write_bytes(b"acknowledged"))
    await b.kill()
    give(b, "--boot-id", "another")
    await a.told(PeerLost)
    await a.plane.alone(generation="4")
    await in_thread(lambda: (a.data / "f6").write_bytes(b"alone"))
    await b.restart()
    assert not (await b.plane.status()).exact
    await b.plane.idle()  # what protected the killed secondary goes
    (b.data / "f5").write_bytes(b"what was there before")
    await mirrored.listen(b)
    connected = await mirrored.connect()
    assert connected.incremental, connected.reason
    await in_mirror(a)
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_when_both_lost_their_memory_the_former_primary_is_the_source_by_both_logs(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await in_thread(lambda: (a.data / "old").write_bytes(os.urandom(2_000_000)))

    def recent() -> None:
        with open(a.data / "old", "r+b") as file:
            os.pwrite(file.fileno(), b"changed", 1_000_000)
        (a.data / "new").write_bytes(b"n" * 30_000)

    await in_thread(recent)
    await a.kill()
    await b.kill()
    give(a, "--boot-id", "after")
    give(b, "--boot-id", "after")
    await a.restart()
    await b.restart()
    await b.plane.idle()
    (b.data / "new").write_bytes(b"n" * 10 + b"lost" * 5)
    with open(b.data / "old", "r+b") as file:
        os.pwrite(file.fileno(), b"1234567", 1_000_000)
    await a.plane.primary(generation="3")
    await mirrored.listen(b)
    connected = await mirrored.connect()
    assert connected.incremental, connected.reason
    await in_mirror(a)
    assert (b.data / "new").read_bytes() == b"n" * 30_000
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_a_hot_zone_costs_no_record(mirrored: Pair) -> None:
    a = mirrored.a
    log = a.folder / "state" / "rfs.activity"

    def work(count: int) -> None:
        with open(a.data / "file", "r+b", buffering=0) as file:
            for i in range(count):
                os.pwrite(file.fileno(), b"x" * 512, (i * 7919) % 4_000_000)

    await in_thread(lambda: (a.data / "file").write_bytes(b""))
    await in_thread(lambda: work(10))
    before = log.stat().st_size
    await in_thread(lambda: work(3000))
    assert log.stat().st_size <= before


def cuts(size: int) -> list[int]:
    """Where a log is cut: at every byte of its beginning and of its end, and in between at 60 places."""
    ends = {*range(min(size, 60)), *range(max(0, size - 40), size)}
    return sorted(ends | {size * part // 60 for part in range(60)})


@pytest.mark.parametrize("name", ["rfs.activity", "rfs.dirty"])
async def test_a_log_that_was_cut_anywhere_can_be_read(mirrored: Pair, tmp_path: Path, name: str) -> None:
    a = mirrored.a
    if name == "rfs.dirty":
        await mirrored.b.plane.idle()
        await a.told(PeerLost)
        await a.plane.alone(generation="3")

    def work() -> None:
        (a.data / "d").mkdir()
        for i in range(3):
            (a.data / "d" / f"f{i}").write_bytes(b"x" * 300_000)

    await in_thread(work)
    await a.kill()
    state = a.folder / "state"
    whole = (state / name).read_bytes()
    kept = {path.name: path.read_bytes() for path in state.iterdir()}
    trial, control = tmp_path / "trial", tmp_path / "sock"
    arguments = a.settings.arguments()
    arguments[arguments.index("--state-dir") + 1] = str(trial)
    arguments[arguments.index("--control") + 1] = str(control)

    def start(cut: int) -> str:
        shutil.rmtree(trial, ignore_errors=True)
        trial.mkdir()
        for file, content in kept.items():
            (trial / file).write_bytes(content[:cut] if file == name else content)
        process = subprocess.Popen([str(a.settings.binary), *arguments], stderr=subprocess.DEVNULL)
        try:
            while not control.exists() and process.poll() is None:
                os.sched_yield()
        finally:
            process.terminate()
            assert process.wait(20) == 0, f"cut at {cut} of {len(whole)}"
        return (trial / "rfs.state").read_text()

    await in_thread(lambda: [start(cut) for cut in cuts(len(whole))])
    assert "logged=1" in await in_thread(lambda: start(len(whole)))
    # All that was changed since the mirror is still hot: of the two logs the first is enough.
    assert ("logged=0" if name == "rfs.activity" else "logged=1") in await in_thread(lambda: start(20))
