"""What is changed in the ordinary directory of a stopped node, or through what was opened before, is noticed and made right."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from safekit.replication import PeerLost, Warned
from tests.native.pair import Pair, Side, beside, in_mirror, in_thread, opened
from tests.native.trees import assert_equal


async def filled(pair: Pair) -> None:
    """Some of everything, in mirror."""

    def work() -> None:
        for folder in ("d", "d/deep", "e"):
            (pair.a.data / folder).mkdir()
        for i in range(300):
            (pair.a.data / "d" / f"f{i}").write_bytes(b"%d" % i * 100)
        (pair.a.data / "big").write_bytes(os.urandom(3_000_000))
        os.link(pair.a.data / "big", pair.a.data / "e" / "link")
        os.symlink("big", pair.a.data / "sym")

    await in_thread(work)


def edit(data: Path) -> None:
    """What an administrator does in a directory while nothing serves it; the times of what is written are set back."""
    stamp = (data / "big").stat()
    with open(data / "big", "r+b") as file:
        file.seek(2_000_000)
        file.write(b"by hand")
    os.utime(data / "big", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (data / "d" / "new").write_text("new")
    os.unlink(data / "d" / "f1")
    os.rename(data / "d" / "f2", data / "d" / "deep" / "moved")
    os.chmod(data / "d" / "f3", 0o600)
    os.rename(data / "d" / "deep", data / "deep")
    os.unlink(data / "sym")
    os.symlink("elsewhere", data / "sym")
    os.setxattr(data / "d" / "f4", "user.k", b"v")


def warned(side: Side) -> list[str]:
    """Codes of the warnings so far."""
    return [event.code for event in side.events if isinstance(event, Warned)]


async def secondary_away(pair: Pair) -> None:
    """Stopped in order; the primary goes on alone."""
    await pair.b.plane.idle()
    await pair.a.told(PeerLost)
    await pair.a.plane.alone(generation="3")


async def test_what_was_changed_on_a_stopped_primary_is_replicated(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await filled(mirrored)
    await secondary_away(mirrored)
    await a.plane.idle()
    edit(a.data)
    await a.plane.primary(generation="4")
    assert warned(a) == ["changed_beside"]
    await mirrored.listen(b)
    await mirrored.connect()
    await in_mirror(a)
    await a.plane.handover()
    assert_equal(a.data, b.data)
    assert (b.data / "big").read_bytes()[2_000_000:2_000_007] == b"by hand"


async def test_what_was_changed_on_a_stopped_secondary_is_made_equal_without_comparing_everything(
    mirrored: Pair,
) -> None:
    a, b = mirrored.a, mirrored.b
    await filled(mirrored)
    await secondary_away(mirrored)
    with open(b.data / "d" / "f7", "r+b") as file:
        file.write(b"by hand")
    (b.data / "d" / "own").write_text("x")
    await in_thread(lambda: (a.data / "d" / "f9").write_bytes(b"meanwhile"))
    await mirrored.listen(b)
    assert "changed_beside" in warned(b)
    connected = await mirrored.connect()
    assert connected.incremental, connected.reason
    status = await a.until(lambda status: status.peer == "mirror")
    assert status.files_done < 20
    await a.plane.handover()
    assert_equal(a.data, b.data)


def edit_as_soon_as_possible(folder: Path) -> None:
    """Every file, from the instant at which the directory is everybody's again."""
    paths = sorted(folder.iterdir())
    ending = time.monotonic() + 20
    while paths:
        assert time.monotonic() < ending, f"{paths[0]} is not writable"
        with contextlib.suppress(OSError), open(paths[0], "r+b") as file:
            file.write(b"by hand")  # one change of each: some kernels stamp a second one more finely
            del paths[0]


async def test_what_is_changed_at_the_very_moment_of_the_stop_is_seen(tmp_path: Path, binary: Path) -> None:
    pair = Pair(tmp_path, binary)
    folders = [pair.a.data / f"d{number}" for number in range(4)]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:  # where no disk delays what comes after the moment
        pair.b.process = type(pair.b.process)(replace(pair.b.settings, state_dir=Path(memory)), systemd=False)
        async with opened(pair):
            await pair.serve()
            await pair.mirror()
            for folder in folders:
                folder.mkdir()
                await in_thread(lambda folder=folder: [(folder / f"f{i}").write_text("equal") for i in range(100)])  # type: ignore[misc]
            for folder in folders:
                edit = beside(lambda name=folder.name: edit_as_soon_as_possible(pair.b.data / name))  # type: ignore[misc]
                await secondary_away(pair)
                await edit
                await pair.listen(pair.b)
                await pair.connect()
                await in_mirror(pair.a)
            await pair.a.plane.handover()
            assert_equal(pair.a.data, pair.b.data)


async def test_a_node_that_nobody_touched_has_nothing_to_say(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await filled(mirrored)
    for _ in range(2):
        await secondary_away(mirrored)
        await in_thread(lambda: (a.data / "d" / "f9").write_bytes(b"meanwhile"))
        await mirrored.listen(b)
        assert (await mirrored.connect()).incremental
        assert (await a.until(lambda status: status.peer == "mirror")).files_done < 10
    await a.plane.handover()
    await b.plane.primary(generation="5")
    await mirrored.listen(a)
    assert (await mirrored.connect(b)).incremental
    await in_mirror(b)
    await b.plane.idle()
    await a.plane.idle()
    await a.plane.primary(generation="6")
    assert not warned(a) and not warned(b)
    assert (await a.plane.status()).dirty == 0


async def test_another_directory_in_its_place_is_compared_whole(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await filled(mirrored)
    await secondary_away(mirrored)
    shutil.copytree(b.data, b.folder / "restored", symlinks=True)
    shutil.rmtree(b.data)
    os.rename(b.folder / "restored", b.data)
    (b.data / "d" / "f5").write_text("of another day")
    await mirrored.listen(b)
    assert "changed_beside" in warned(b)
    assert not (await mirrored.connect()).incremental
    await in_mirror(a)
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_who_had_a_file_open_before_is_named(pair: Pair) -> None:
    (pair.a.data / "file").write_text("x")
    (pair.a.data / "read").write_text("x")
    with open(pair.a.data / "file", "r+b"), open(pair.a.data / "read", "rb"):
        await pair.a.plane.primary(generation="1")
        told = await pair.a.told(Warned)
        assert told.code == "open_beside"
        assert f"process {os.getpid()} " in told.message and "/data/file" in told.message
    assert not warned(pair.a)
