"""In mirror nothing is answered before the peer has it; out of mirror nothing is lost and nothing fails."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from safekit.replication import (
    DataPlaneError,
    InMirror,
    PeerLost,
    PrimaryLost,
    Published,
    ResyncEnded,
    ResyncStarted,
)
from tests.native.pair import Pair, beside, in_mirror, in_thread, opened
from tests.native.trees import assert_equal

MAKES_FILES = """umask 022; echo plain > plain
umask 777; echo none > none
umask 000; echo all > all
umask 077; mkdir folder; echo inside > folder/inside
"""


class Writer:
    """An application that appends numbered records, and knows which ones were acknowledged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.acknowledged = 0
        self.error: OSError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with open(self.path, "ab", buffering=0) as file:
                while not self._stop.is_set():
                    file.write(b"%015d\n" % self.acknowledged)
                    self.acknowledged += 1
        except OSError as error:
            self.error = error

    def stop(self) -> None:
        """Waits for the record that is being written."""
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def reached(self, more: int) -> None:
        """Waits until so many more records were acknowledged."""
        goal, limit = self.acknowledged + more, time.monotonic() + 30
        while self.acknowledged < goal:
            assert time.monotonic() < limit and self.error is None, self.error
            time.sleep(0.002)


def records(path: Path) -> int:
    """How many records are whole and in order."""
    content = path.read_bytes()
    lines = content[: len(content) // 16 * 16]
    count = len(lines) // 16
    assert lines == b"".join(b"%015d\n" % i for i in range(count))
    return count


async def test_every_acknowledged_write_is_on_the_secondary(mirrored: Pair) -> None:
    def write_and_look() -> None:
        with open(mirrored.a.data / "f", "wb", buffering=0) as file:
            for i in range(200):
                file.write(b"%015d\n" % i)
                assert records(mirrored.b.data / "f") == i + 1

    await in_thread(write_and_look)


async def test_the_secondary_is_told_when_the_record_may_be_both(mirrored: Pair) -> None:
    await mirrored.b.told(ResyncEnded)
    await mirrored.a.told(InMirror)
    await mirrored.a.plane.publish(generation="generation 7 = both")
    assert (await mirrored.b.told(Published)).generation == "generation 7 = both"
    assert (await mirrored.b.plane.status()).published == "generation 7 = both"
    assert (await mirrored.a.plane.status()).published == "generation 7 = both"


async def test_the_copy_of_a_secondary_is_read_only(mirrored: Pair) -> None:
    with pytest.raises(OSError, match="Read-only file system"):
        (mirrored.b.data / "f").write_text("beside us")
    await mirrored.b.plane.idle()
    (mirrored.b.data / "f").write_text("an ordinary directory again")


async def test_a_killed_secondary_costs_no_error_and_comes_back_with_what_it_missed(mirrored: Pair) -> None:
    (mirrored.a.data / "untouched").write_bytes(os.urandom(3 << 20))
    writer = Writer(mirrored.a.data / "log")
    await in_thread(lambda: writer.reached(50))
    await mirrored.b.kill()
    lost = await mirrored.a.told(PeerLost)
    assert lost.held
    status = await mirrored.a.until(lambda status: status.held > 0)
    assert status.peer == "lost"

    # Held: neither acknowledged nor failed, however long the answer of the register takes.
    before = writer.acknowledged
    await asyncio.sleep(0.5)
    assert writer.acknowledged == before and writer.error is None
    assert records(mirrored.b.data / "log") >= before

    await mirrored.a.plane.alone(generation="3")
    await in_thread(lambda: writer.reached(50))
    await mirrored.b.restart()
    await mirrored.listen(mirrored.b)
    connected = await mirrored.connect()
    assert connected.incremental, connected.reason
    assert (await mirrored.b.told(ResyncStarted)).incremental
    await in_mirror(mirrored.a)
    await in_thread(lambda: writer.reached(50))
    await in_thread(writer.stop)
    assert writer.error is None
    assert records(mirrored.b.data / "log") == writer.acknowledged
    await mirrored.a.plane.handover()
    assert_equal(mirrored.a.data, mirrored.b.data)


async def test_reads_go_on_while_answers_are_held(mirrored: Pair) -> None:
    await in_thread(lambda: (mirrored.a.data / "f").write_text("content"))
    await mirrored.b.kill()
    await mirrored.a.told(PeerLost)
    held = [beside(lambda i=i: (mirrored.a.data / f"g{i}").write_text("x")) for i in range(4)]  # type: ignore[misc]
    await mirrored.a.until(lambda status: status.held > 0)
    assert await asyncio.wait_for(in_thread(lambda: (mirrored.a.data / "f").read_text()), 5) == "content"
    assert not any(one.done() for one in held)
    await mirrored.a.plane.alone(generation="3")
    await asyncio.wait_for(asyncio.gather(*held), 10)


async def test_a_new_mirror_answers_what_was_held(mirrored: Pair) -> None:
    await mirrored.b.kill()
    await mirrored.a.told(PeerLost)
    held = beside(lambda: (mirrored.a.data / "f").write_text("held"))
    await mirrored.a.until(lambda status: status.held > 0)
    await mirrored.b.restart()
    await mirrored.listen(mirrored.b)
    assert (await mirrored.connect()).incremental
    await asyncio.wait_for(held, 10)
    assert (mirrored.b.data / "f").read_text() == "held"


async def test_a_forced_end_fails_what_was_held_and_never_acknowledges_it(mirrored: Pair) -> None:
    await mirrored.b.kill()
    await mirrored.a.told(PeerLost)
    held = beside(lambda: (mirrored.a.data / "f").write_text("held"))
    await mirrored.a.until(lambda status: status.held > 0)
    with pytest.raises(DataPlaneError) as refused:
        await mirrored.a.plane.idle()
    assert refused.value.code == "held"
    await mirrored.a.plane.idle(force=True)
    with pytest.raises(OSError):
        await asyncio.wait_for(held, 10)
    assert not (await mirrored.a.plane.status()).exact


async def test_a_frozen_secondary_is_noticed_within_the_limit(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary, ack_timeout=1.0)) as pair:
        await pair.serve()
        await pair.mirror()
        pid = pair.b.worker
        os.kill(pid, 19)
        try:
            begun = time.monotonic()
            held = beside(lambda: (pair.a.data / "f").write_text("x"))
            await pair.a.told(PeerLost)
            assert time.monotonic() - begun < 4
            await pair.a.plane.alone(generation="3")
            await asyncio.wait_for(held, 5)
        finally:
            os.kill(pid, 18)


async def test_a_killed_controller_changes_nothing(mirrored: Pair) -> None:
    writer = Writer(mirrored.a.data / "log")
    reader, stream = await asyncio.open_unix_connection(str(mirrored.a.settings.control))
    stream.write(b"subscribe\n")
    await reader.readline()
    await in_thread(lambda: writer.reached(20))
    stream.transport.abort()
    await in_thread(lambda: writer.reached(50))
    await in_thread(writer.stop)
    assert writer.error is None
    assert (await mirrored.a.plane.status()).peer == "mirror"
    assert records(mirrored.b.data / "log") == writer.acknowledged


async def test_a_handover_leaves_two_equal_clean_copies_and_the_next_resync_is_short(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    await in_thread(lambda: (a.data / "f").write_bytes(os.urandom(100_000)))
    await a.plane.handover()
    assert (await b.told(PrimaryLost)).handover
    status = await a.plane.status()
    assert (status.role, status.clean, status.exact) == ("idle", True, True)
    assert_equal(a.data, b.data)

    # The other way round.
    await b.plane.primary(generation="3")
    await in_thread(lambda: (b.data / "g").write_text("made by the new primary"))
    await mirrored.listen(a)
    connected = await mirrored.connect(b)
    assert connected.incremental, connected.reason
    await in_mirror(b)
    assert (a.data / "g").read_text() == "made by the new primary"
    await b.plane.handover()
    assert_equal(a.data, b.data)


async def test_a_handover_waits_for_applications_and_goes_on_serving_when_they_stay(mirrored: Pair) -> None:
    with open(mirrored.a.data / "f", "w") as file:
        with pytest.raises(DataPlaneError) as refused:
            await mirrored.a.plane.handover(timeout=0.3)
        assert refused.value.code == "busy"
        await in_thread(lambda: (file.write("still served"), file.flush()))
    assert (mirrored.b.data / "f").read_text() == "still served"
    assert (await mirrored.a.plane.status()).peer == "mirror"


async def test_a_killed_primary_has_acknowledged_nothing_that_the_secondary_lacks(mirrored: Pair) -> None:
    writer = Writer(mirrored.a.data / "log")
    await in_thread(lambda: writer.reached(200))
    await mirrored.a.kill()
    await in_thread(writer.stop)
    assert writer.error is not None
    assert records(mirrored.b.data / "log") >= writer.acknowledged
    await mirrored.b.told(PrimaryLost)

    # The survivor serves; the killed one removes its stale mount, and its log names what it may have that nobody else has.
    await mirrored.b.plane.primary(generation="3")
    await in_thread(lambda: (mirrored.b.data / "after").write_text("after"))
    await mirrored.a.restart()
    assert not (await mirrored.a.plane.status()).exact
    assert os.path.isdir(mirrored.a.data)
    await mirrored.listen(mirrored.a)
    connected = await mirrored.connect(mirrored.b)
    assert connected.incremental, connected.reason
    await in_mirror(mirrored.b)
    await mirrored.b.plane.handover()
    assert_equal(mirrored.a.data, mirrored.b.data)


async def test_an_error_on_the_secondary_never_reaches_the_application(mirrored: Pair) -> None:
    await in_thread(lambda: (mirrored.a.data / "f").write_text("x"))
    # Somebody changes the copy of the secondary beside us: the next unlink cannot be applied there.
    mount = mirrored.b.folder / "beside"
    mount.mkdir()
    subprocess.run(["mount", "--bind", mirrored.b.folder, mount], check=True)
    try:
        os.unlink(mount / "data" / "f")
    finally:
        subprocess.run(["umount", mount], check=True)
    unlinking = beside(lambda: os.unlink(mirrored.a.data / "f"))
    lost = await mirrored.a.told(PeerLost)
    assert "unlink" in lost.reason and lost.held
    await mirrored.a.plane.alone(generation="3")
    await asyncio.wait_for(unlinking, 5)
    # In doubt: everything is compared.
    await mirrored.b.told(PrimaryLost)
    assert not (await mirrored.connect()).incremental
    await in_mirror(mirrored.a)
    await mirrored.a.plane.handover()
    assert_equal(mirrored.a.data, mirrored.b.data)


async def test_fsync_is_durable_on_both_sides_before_it_is_answered(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary, durability="none")) as pair:
        await pair.serve()
        await pair.mirror()

        def work() -> None:
            fd = os.open(pair.a.data / "f", os.O_CREAT | os.O_RDWR)
            for i in range(20):
                os.pwrite(fd, b"%d" % i, i * 4096)
                os.fsync(fd)
            os.close(fd)
            fd = os.open(pair.a.data / "g", os.O_CREAT | os.O_WRONLY | os.O_DSYNC)
            assert os.write(fd, b"x" * 5000) == 5000
            os.close(fd)
            folder = os.open(pair.a.data, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

        await in_thread(work)
        assert (pair.b.data / "g").read_bytes() == b"x" * 5000
        status = await pair.a.plane.status()
        assert status.pending == 0


async def test_a_database_runs_through_the_mirror_and_its_copy_is_whole(mirrored: Pair) -> None:
    def work(mode: str) -> None:
        with sqlite3.connect(mirrored.a.data / f"{mode}.db", isolation_level=None) as base:
            base.execute(f"pragma journal_mode={mode}")
            base.execute("create table t(a integer primary key, b text)")
            for i in range(60):
                base.execute("insert into t values(?, ?)", (i, "x" * 300))
            assert base.execute("pragma integrity_check").fetchone()[0] == "ok"
        base.close()

    await in_thread(lambda: (work("wal"), work("delete")))
    await mirrored.a.plane.handover()
    assert_equal(mirrored.a.data, mirrored.b.data)
    for mode in ("wal", "delete"):
        with sqlite3.connect(f"file:{mirrored.b.data / f'{mode}.db'}?immutable=1", uri=True) as copy:
            assert copy.execute("select count(*) from t").fetchone()[0] == 60
            assert copy.execute("pragma integrity_check").fetchone()[0] == "ok"
        copy.close()


async def test_several_directories_are_one_module(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary, names=("/data", "/with space/etc"))) as pair:
        (pair.a.directories[1] / "before").write_text("before")
        await pair.serve()
        await pair.mirror()
        await in_thread(lambda: [(d / "f").write_text(str(i)) for i, d in enumerate(pair.a.directories)])
        await pair.a.plane.handover()
        for one, other in zip(pair.a.directories, pair.b.directories, strict=True):
            assert_equal(one, other)
        assert (pair.b.directories[1] / "before").read_text() == "before"


async def test_more_new_files_than_the_secondary_keeps_open_arrive(pair: Pair) -> None:
    await pair.serve()
    resource.prlimit(pair.b.worker, resource.RLIMIT_NOFILE, (300, 300))
    await pair.mirror()

    def make() -> None:
        for i in range(20):
            (pair.a.data / f"d{i}").mkdir()
            for j in range(30):
                (pair.a.data / f"d{i}" / f"{j}").write_bytes(bytes([i, j]) * 100)
        for i in range(20):  # what has lost its number is written, moved and removed by its name
            (pair.a.data / f"d{i}" / "1").write_bytes(b"again")
            (pair.a.data / f"d{i}" / "2").rename(pair.a.data / f"moved{i}")
            (pair.a.data / f"moved{i}").chmod(0o640)
            (pair.a.data / f"d{i}" / "3").unlink()

    await in_thread(make)
    assert (await pair.a.plane.status()).peer == "mirror"
    await pair.a.plane.handover()
    await in_thread(lambda: assert_equal(pair.a.data, pair.b.data))


async def test_a_new_file_has_its_owner_mode_and_content_on_both_sides(pair: Pair) -> None:
    await pair.serve()
    await pair.mirror()

    def make() -> None:
        shared = pair.a.data / "shared"
        shared.mkdir()
        os.chown(shared, 0, 1234)
        os.chmod(shared, 0o2777)
        made = subprocess.run(
            ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-ec", MAKES_FILES],
            cwd=shared,
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stderr
        for name, mode in {"plain": 0o644, "none": 0o000, "all": 0o666, "folder": 0o2700}.items():
            st = os.stat(shared / name)
            assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (1000, 1234, mode), name
        assert (pair.b.data / "shared" / "folder" / "inside").read_text() == "inside\n"

    await in_thread(make)
    await pair.a.plane.handover()
    await in_thread(lambda: assert_equal(pair.a.data, pair.b.data))


async def test_creates_that_are_refused_leave_nothing_open(mirrored: Pair) -> None:
    a, count = mirrored.a, 300
    folders = [a.data / str(number) for number in range(count)]  # a directory has one create at a time
    for folder in folders:
        folder.mkdir()
    await mirrored.b.kill()
    await a.told(PeerLost)
    with ThreadPoolExecutor(count) as threads:
        held = [threads.submit((folder / "new").write_bytes, b"") for folder in folders]
        await a.until(lambda status: status.held == count)
        await a.plane.idle(force=True)
        refused = await in_thread(lambda: [one.exception() for one in held])
    assert all(isinstance(error, OSError) for error in refused)
    opened_still = [entry for entry in Path(f"/proc/{a.worker}/fd").iterdir() if os.readlink(entry).endswith("/new")]
    assert not opened_still
