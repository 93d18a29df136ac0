"""A resynchronisation makes two different trees equal, whatever was there, and says how far it is."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from safekit.replication import (
    DataPlaneError,
    DataPlaneProcess,
    InMirror,
    PeerLost,
    PrimaryLost,
    ResyncEnded,
    ResyncStarted,
)
from tests.native.moments import await_another_moment
from tests.native.pair import Pair, Side, encrypt, in_mirror, in_thread, opened
from tests.native.test_dirty import PUNCH_KEEP, alone
from tests.native.test_posix import fallocated
from tests.native.trees import assert_equal


async def test_what_was_on_the_secondary_makes_no_difference(pair: Pair) -> None:
    ours, theirs = pair.a.data, pair.b.data
    big = os.urandom(5_000_000)
    (ours / "big").write_bytes(big)
    (theirs / "big").write_bytes(big[:2_000_000] + b"changed" + big[2_000_007:] + b"and longer")
    (ours / "kind").mkdir()
    (theirs / "kind").write_text("was a file")
    (ours / "file").write_text("a file")
    (theirs / "file").mkdir()
    (theirs / "file" / "below").write_text("x")
    os.symlink("here", ours / "link")
    os.symlink("elsewhere", theirs / "link")
    (ours / "one").write_text("linked")
    os.link(ours / "one", ours / "kind" / "two")
    (theirs / "one").write_text("not linked")
    (theirs / "only").write_text("secondary")
    (theirs / "other").write_text("linked only there")
    os.link(theirs / "other", theirs / "attributes")
    (ours / "attributes").write_text("x")
    os.setxattr(ours / "attributes", "user.mine", b"1")
    os.setxattr(theirs / "attributes", "user.theirs", b"2")
    os.chown(ours / "attributes", 7, 8)
    os.chmod(ours / "attributes", 0o6750)
    with open(ours / "sparse", "wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
    (theirs / "sparse").write_bytes(b"x" * 3_000_000)
    os.mkfifo(ours / "fifo")
    (ours / "name with\nodd %=bytes").write_text("x")
    os.utime(ours, ns=(1, 1234567890123456789))

    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    connected = await pair.connect()
    assert not connected.incremental and connected.reason
    assert not (await pair.b.told(ResyncStarted)).incremental
    await pair.a.told(InMirror)
    await pair.b.told(ResyncEnded)
    assert_equal(ours, theirs)
    assert (theirs / "sparse").stat().st_blocks < 100
    status = await pair.b.plane.status()
    assert status.exact and not status.inconsistent


async def test_a_zone_that_is_equal_is_not_written_again(pair: Pair) -> None:
    content = os.urandom(8 << 20)
    for side in (pair.a, pair.b):
        (side.data / "big").write_bytes(content)
    with open(pair.a.data / "big", "r+b") as file:
        file.seek(3 << 20)
        file.write(b"changed")
    fragments = _written_bytes(pair.b)
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    await pair.mirror()
    assert_equal(pair.a.data, pair.b.data)
    assert _written_bytes(pair.b) - fragments < 3 << 20


async def test_where_everything_differs_the_secondary_is_not_asked(pair: Pair) -> None:
    content = os.urandom(1 << 20) * 128
    (pair.a.data / "new").write_bytes(content)
    (pair.b.data / "new").write_bytes(b"another")
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    before = _count_of(pair.b, "rchar")
    await pair.mirror()
    assert_equal(pair.a.data, pair.b.data)
    # at most as many questions as may be open before the first answer, and one for every sixteen pieces
    assert _count_of(pair.b, "rchar") - before < 80 << 20


async def test_the_file_system_is_asked_for_holes_as_often_as_there_are_extents_not_pieces(pair: Pair) -> None:
    size, piece, hole = 64 << 20, 128 << 10, 1 << 20
    content = os.urandom(size)
    for side in (pair.a, pair.b):
        (side.data / "whole").write_bytes(content)
        with open(side.data / "holes", "wb") as file:
            for at in range(0, 16 << 20, 2 * hole):
                os.pwrite(file.fileno(), content[at : at + hole], at)
    with open(pair.b.data / "whole", "r+b") as file:
        for at in range(0, size, 8 * piece):
            os.pwrite(file.fileno(), b"changed", at)
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    await pair.mirror()
    assert_equal(pair.a.data, pair.b.data)
    assert (pair.b.data / "holes").stat().st_blocks * 512 < 10 << 20
    for side in (pair.a, pair.b):
        # Some for every extent and hole, again where an answer goes back; two for every piece would be more than 1,000.
        assert int((await side.plane.stats())["hole_searches_count"]) < 100


async def test_a_hole_that_is_made_while_a_file_is_copied_is_one_on_the_other_side(pair: Pair) -> None:
    size = 96 << 20
    content = os.urandom(size)
    for side in (pair.a, pair.b):
        (side.data / "file").write_bytes(content)
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    await pair.connect()
    with open(pair.a.data / "file", "r+b") as file:
        await in_thread(lambda: [fallocated(file.fileno(), PUNCH_KEEP, at, 1 << 20) for at in range(0, size, 2 << 20)])
    await in_mirror(pair.a)
    assert_equal(pair.a.data, pair.b.data)
    assert (pair.b.data / "file").stat().st_blocks * 512 < size // 2 + (1 << 20)


async def test_what_is_made_in_a_directory_that_changed_meanwhile_inherits_the_same_on_both_sides(
    mirrored: Pair,
) -> None:
    a, b = mirrored.a, mirrored.b
    folders = [a.data / f"d{i}" for i in range(8)]

    def before() -> None:
        for folder in folders:
            folder.mkdir()
            (folder / "large").write_bytes(bytes(24 << 20))

    await in_thread(before)
    await b.plane.idle()
    assert (await a.told(PeerLost)).held
    await a.plane.alone(generation="3")

    def meanwhile() -> None:
        for folder in folders:
            (folder / "large").write_bytes(os.urandom(24 << 20))
            os.chown(folder, 0, 1)
            folder.chmod(0o2775)

    await in_thread(meanwhile)
    await mirrored.listen(b)
    await mirrored.connect()
    await in_thread(lambda: [(folder / "new").write_text("new") for folder in reversed(folders)])
    await in_thread(lambda: [(folder / "below").mkdir() for folder in folders])
    await in_mirror(a)
    assert (b.data / "d0" / "new").stat().st_gid == 1
    assert_equal(a.data, b.data)


async def test_what_follows_something_different_is_compared_again(pair: Pair) -> None:
    content = os.urandom(96 << 20)
    (pair.a.data / "file").write_bytes(content)
    (pair.b.data / "file").write_bytes(os.urandom(32 << 20) + content[32 << 20 :])
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    before = _written_bytes(pair.b)
    await pair.mirror()
    assert_equal(pair.a.data, pair.b.data)
    assert _written_bytes(pair.b) - before < 64 << 20


async def test_only_what_changed_is_compared_after_a_clean_stop_of_the_secondary(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b

    def before() -> None:
        (a.data / "d" / "deep").mkdir(parents=True)
        for i in range(300):
            (a.data / "d" / f"f{i}").write_bytes(b"%d" % i)

    await in_thread(before)
    await b.plane.idle()
    assert (await a.told(PeerLost)).held
    await a.plane.alone(generation="3")

    def meanwhile() -> None:
        (a.data / "d" / "f7").write_text("seven")
        os.rename(a.data / "d" / "deep", a.data / "d" / "moved")
        (a.data / "d" / "moved" / "new").write_text("new")
        os.unlink(a.data / "d" / "f8")
        os.chmod(a.data / "d" / "f9", 0o600)
        os.link(a.data / "d" / "f10", a.data / "d" / "f10-too")
        os.symlink("f11", a.data / "d" / "link")

    await in_thread(meanwhile)
    assert 0 < (await a.plane.status()).dirty < 15
    await mirrored.listen(b)
    assert (await mirrored.connect()).incremental
    status = await a.until(lambda status: status.peer == "mirror")
    assert status.files_done < 10 and status.dirty == 0
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_the_dirty_set_outlives_a_clean_stop_of_the_primary(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await b.plane.idle()
    await a.told(PeerLost)
    await a.plane.alone(generation="3")
    await in_thread(lambda: (a.data / "changed").write_text("while alone"))
    await a.process.stop()
    await a.restart()
    await a.plane.primary(generation="4")
    assert (await a.plane.status()).dirty >= 2
    await mirrored.listen(b)
    connected = await mirrored.connect()
    assert connected.incremental, connected.reason
    await in_mirror(a)
    assert (b.data / "changed").read_text() == "while alone"


async def test_a_primary_that_was_killed_while_alone_copies_what_it_changed(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await b.plane.idle()
    await a.told(PeerLost)
    await a.plane.alone(generation="3")
    await in_thread(lambda: (a.data / "changed").write_text("while alone"))
    await a.kill()
    await a.restart()
    await a.plane.primary(generation="4")
    await mirrored.listen(b)
    connected = await mirrored.connect()
    assert connected.incremental, connected.reason
    await in_mirror(a)
    assert (b.data / "changed").read_text() == "while alone"
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_a_copy_that_may_have_lost_something_is_compared_whole(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await b.plane.idle()
    await a.told(PeerLost)
    await a.plane.alone(generation="3")
    await b.plane.secondary("127.0.0.1", mirrored.port, generation="0", clean=False)
    connected = await mirrored.connect()
    assert not connected.incremental and "lost" in connected.reason


async def test_an_unfinished_resync_is_never_started_from(pair: Pair) -> None:
    for i in range(40):
        (pair.a.data / f"f{i}").write_bytes(os.urandom(3_000_000))
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    await pair.connect()
    await pair.b.told(ResyncStarted)
    await pair.b.kill()
    assert not (await pair.a.told(PeerLost)).held  # nobody waited for this secondary
    await in_thread(lambda: (pair.a.data / "f0").write_text("the primary goes on"))
    await pair.b.restart()
    assert (await pair.b.plane.status()).inconsistent
    with pytest.raises(DataPlaneError) as refused:
        await pair.b.plane.primary(generation="2")
    assert refused.value.code == "inconsistent"
    await pair.listen(pair.b)
    assert not (await pair.connect()).incremental
    await in_mirror(pair.a)
    assert not (await pair.b.plane.status()).inconsistent
    await pair.a.plane.handover()
    assert_equal(pair.a.data, pair.b.data)


@pytest.mark.parametrize("encryption", ["on", "off"])
async def test_a_wrong_key_is_refused_by_both_sides(tmp_path: Path, binary: Path, encryption: str) -> None:
    pair = Pair(tmp_path, binary)
    encrypt(pair, encryption)
    async with opened(pair):
        pair.b.key.write_bytes(b"another key, also long enough")
        (pair.b.data / "f").write_text("untouched")
        await pair.serve()
        with pytest.raises(DataPlaneError) as refused:
            await pair.connect()
        assert refused.value.code == "key"
        assert (await pair.a.plane.status()).peer == "none"
        assert (await pair.b.plane.status()).peer == "listening"
        assert not (await pair.b.plane.status()).inconsistent
        assert (pair.b.data / "f").read_text() == "untouched"


async def test_different_directories_are_refused(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary)) as pair:
        pair.b.process = DataPlaneProcess(
            type(pair.b.settings)(**{**vars(pair.b.settings), "names": ("/somewhere/else",)}), systemd=False
        )
        await pair.serve()
        with pytest.raises(DataPlaneError) as refused:
            await pair.connect()
        assert refused.value.code == "directories"
        assert "/somewhere/else" in refused.value.message and "/data" in refused.value.message


async def test_a_stranger_on_the_port_gets_nothing_and_stops_nothing(pair: Pair) -> None:
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    for rubbish in (b"GET / HTTP/1.0\r\n\r\n" * 5, bytes(100)):
        subprocess.run(
            [
                "python3",
                "-c",
                f"import socket; s = socket.create_connection(('127.0.0.1', {pair.port})); s.sendall({rubbish!r})",
            ],
            check=True,
        )
    await pair.mirror()


async def test_a_port_in_use_is_named(pair: Pair) -> None:
    await pair.listen(pair.b)
    with pytest.raises(DataPlaneError) as refused:
        await pair.listen(pair.a)
    assert refused.value.code == "port" and str(pair.port) in refused.value.message
    assert (await pair.a.plane.status()).role == "idle"
    (pair.a.data / "f").write_text("not protected any more")


async def test_progress_counts_files_and_bytes(pair: Pair) -> None:
    for i in range(20):
        (pair.a.data / f"f{i}").write_bytes(hashlib.sha256(b"%d" % i).digest() * 1000)
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    await pair.mirror()
    status = await pair.a.plane.status()
    assert (status.files_done, status.files_total) == (20, 20)
    assert status.bytes_done == status.bytes_total == 20 * 32_000


async def test_a_second_start_is_refused_while_the_first_lives(pair: Pair) -> None:
    settings = pair.a.settings
    second = subprocess.run(
        [str(settings.binary), *settings.arguments()], capture_output=True, text=True, check=False, timeout=10
    )
    assert second.returncode == 1 and "another safekit-rfs" in second.stderr
    assert (await pair.a.plane.status()).role == "idle"


async def test_losing_the_primary_is_told(mirrored: Pair) -> None:
    await mirrored.a.plane.disconnect()
    assert not (await mirrored.b.told(PrimaryLost)).handover
    assert (await mirrored.b.plane.status()).exact


def _count_of(side: Side, name: str) -> int:
    """Of /proc/PID/io: bytes that were read from files, or written to them."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{side.worker}/io").read_text().splitlines())
    return int(fields[name])


def _written_bytes(side: Side) -> int:
    return _count_of(side, "wchar")


async def test_the_record_of_the_data_plane_may_not_lie_in_what_it_serves(pair: Pair) -> None:
    arguments = pair.a.settings.arguments()
    arguments[arguments.index("--state-dir") + 1] = str(pair.a.data)
    refused = subprocess.run(
        [str(pair.a.settings.binary), *arguments], capture_output=True, text=True, check=False, timeout=10
    )
    assert refused.returncode == 2 and "--state-dir" in refused.stderr and "must not lie in" in refused.stderr


async def test_zeros_that_were_written_are_no_hole_on_the_other_side(pair: Pair) -> None:
    (pair.a.data / "file").write_bytes(bytes(65_536))
    with open(pair.b.data / "file", "wb") as file:
        file.truncate(65_536)
    for name, size in (("sparse", 65_536), ("small", 9_000)):
        with open(pair.a.data / name, "wb") as file:
            file.truncate(size)
            file.seek(4_096)
            file.write(b"an island")
        (pair.b.data / name).write_bytes(bytes(size))
        with open(pair.b.data / f"{name} too", "wb") as file:
            file.truncate(size)
        (pair.a.data / f"{name} too").write_bytes((pair.a.data / name).read_bytes())
    os.sync()
    await pair.a.plane.primary(generation="1")
    await pair.listen(pair.b)
    await pair.mirror()
    assert_equal(pair.a.data, pair.b.data)
    for path in sorted(pair.a.data.iterdir()):
        assert (path.name, data_of(path)) == (path.name, data_of(pair.b.data / path.name))


@pytest.mark.parametrize("hot", [False, True])
async def test_after_a_backup_and_its_restoration_only_what_changed_since_is_copied(pair: Pair, hot: bool) -> None:
    a, b = pair.a, pair.b
    for i in range(100):
        (a.data / f"f{i}").write_bytes(os.urandom(50_000))
    await_another_moment()
    if hot:
        await a.plane.primary(generation="1")
    await a.plane.external("prim", "monday")
    await in_thread(lambda: (a.data / "f1").write_bytes(b"written while the backup is made"))
    subprocess.run(["cp", "-a", f"{a.data}/.", b.data], check=True)
    await_another_moment()
    await b.plane.external("second", "monday")
    if hot:
        await in_thread(lambda: (a.data / "f2").write_bytes(b"written after it was made"))
    else:
        (a.data / "f2").write_bytes(b"written before the module starts")
        (b.data / "f3").write_bytes(b"written beside the module")
        await a.plane.primary(generation="1")
    await pair.listen(b)
    connected = await pair.connect()
    assert connected.incremental, connected.reason
    await in_mirror(a)
    assert (await a.plane.status()).files_done < 50
    await a.plane.handover()
    assert_equal(a.data, b.data)


async def test_a_backup_of_another_day_is_not_taken_for_the_same(pair: Pair) -> None:
    a, b = pair.a, pair.b
    (a.data / "f").write_text("a")
    await a.plane.external("prim", "monday")
    await b.plane.external("second", "tuesday")
    await a.plane.primary(generation="1")
    await pair.listen(b)
    assert not (await pair.connect()).incremental
    with pytest.raises(DataPlaneError) as refused:
        await a.plane.external("prim", "x" * 25)
    assert refused.value.code == "value"


def data_of(path: Path) -> list[tuple[int, int]]:
    """Where a file has data: (from, to)."""
    found, at = [], 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, at))
    return found


async def test_a_resynchronisation_of_what_changed_says_of_how_many_bytes(mirrored: Pair) -> None:
    data = mirrored.a.data
    zone = 128 << 10
    await in_thread(lambda: (data / "large").write_bytes(bytes(4 << 20)))
    await alone(mirrored)

    def change() -> None:
        with open(data / "large", "r+b") as file:
            for number in (3, 7, 21):
                file.seek(number * zone + 5)
                file.write(b"changed")
        (data / "new").write_bytes(os.urandom(300_000))

    await in_thread(change)
    await mirrored.listen(mirrored.b)
    connected = await mirrored.connect()
    assert connected.incremental
    await in_mirror(mirrored.a)
    status = await mirrored.a.plane.status()
    assert 3 * zone + 300_000 <= status.bytes_done == status.bytes_total < 1 << 20
    await mirrored.a.plane.handover()
    assert_equal(data, mirrored.b.data)
