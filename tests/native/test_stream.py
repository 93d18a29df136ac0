"""The stream between the two nodes: what is applied side by side, what survives a broken connection, what is measured."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safekit.replication import Connected, DataPlaneError, PeerLost, PrimaryLost
from tests.native.pair import Pair, beside, encrypt, free_port, in_mirror, in_thread, opened
from tests.native.trees import assert_equal


def heavy_writer(path: Path, seed: int, stop: threading.Event) -> None:
    """Large and small writes, truncations and syncs on one file, over and over at the same places."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not stop.is_set():
            size, offset = rng.choice((4096, 100, 1 << 20, 300_000)), rng.randrange(0, 3 << 20)
            os.pwrite(fd, rng.randbytes(64) * (size // 64 + 1), offset)
            if rng.random() < 0.2:
                os.ftruncate(fd, rng.randrange(4 << 20))
            if rng.random() < 0.1:
                os.fsync(fd)
            if rng.random() < 0.1:
                os.utime(fd, ns=(1, rng.randrange(1 << 40)))
    finally:
        os.close(fd)


def renamer(folder: Path, seed: int, stop: threading.Event) -> None:
    """Files that are made, written, renamed over each other and removed while others are written."""
    rng = random.Random(seed)
    while not stop.is_set():
        one, other = folder / f"n{rng.randrange(5)}", folder / f"n{rng.randrange(5)}"
        one.write_bytes(rng.randbytes(rng.choice((10, 5000, 200_000))))
        os.rename(one, other)
        if rng.random() < 0.3:
            os.unlink(other)


async def run_all(works: list[Callable[[threading.Event], None]], seconds: float) -> None:
    stop = threading.Event()
    tasks = [beside(lambda work=work: work(stop)) for work in works]  # type: ignore[misc]
    await in_thread(lambda: time.sleep(seconds))
    stop.set()
    for task in tasks:
        await task


async def test_files_that_are_applied_side_by_side_end_as_each_was_written(mirrored: Pair) -> None:
    data = mirrored.a.data
    for name in ("x", "y"):
        (data / name).mkdir()
    works: list[Callable[[threading.Event], None]] = [
        *[lambda stop, i=i: heavy_writer(data / f"heavy{i}", i, stop) for i in range(3)],  # type: ignore[misc]
        lambda stop: heavy_writer(data / "heavy0", 99, stop),
        lambda stop: renamer(data / "x", 7, stop),
        lambda stop: renamer(data / "y", 8, stop),
    ]
    await run_all(works, 4.0)
    assert (await mirrored.a.plane.status()).peer == "mirror", mirrored.a.events
    await mirrored.a.plane.handover()
    assert_equal(mirrored.a.data, mirrored.b.data)


async def test_a_secondary_that_is_told_to_stop_under_load_stops_at_once(mirrored: Pair) -> None:
    stop = threading.Event()
    works = [beside(lambda i=i: heavy_writer(mirrored.a.data / f"f{i}", i, stop)) for i in range(3)]  # type: ignore[misc]
    await mirrored.a.until(lambda status: status.applied > 200)
    began = time.monotonic()
    await mirrored.b.plane.idle()
    assert time.monotonic() - began < 10
    await mirrored.a.told(PeerLost)
    await mirrored.a.plane.alone(generation="3")
    stop.set()
    for work in works:
        await work


async def test_the_data_plane_counts_what_it_sends_and_how_long_it_takes(mirrored: Pair) -> None:
    def write() -> None:
        with open(mirrored.a.data / "file", "wb", buffering=0) as file:
            for _ in range(200):
                file.write(bytes(4096))
            os.fsync(file.fileno())

    await in_thread(write)
    await mirrored.a.until(lambda status: status.pending == 0)
    primary, secondary = await mirrored.a.plane.stats(), await mirrored.b.plane.stats()
    assert int(primary["rep_bytes"]) > 200 * 4096 and int(primary["sent_bytes"]) > 200 * 4096
    assert int(secondary["received_bytes"]) > 200 * 4096
    assert int(primary["netout_bandwidth_bytes"]) > 0 and int(secondary["netin_bandwidth_bytes"]) > 0
    assert 0 < int(primary["wire_p50_us"]) <= int(primary["wire_p99_us"])
    assert sum(int(count) for count in str(primary["wire_histogram"]).split(",")) > 200
    assert sum(int(count) for count in str(secondary["apply_histogram"]).split(",")) > 200
    assert int(secondary["sync_p50_us"]) > 0 and int(primary["queue_count"]) == 0


async def test_more_files_than_half_of_the_descriptors_are_no_trouble_for_the_secondary(mirrored: Pair) -> None:
    def write() -> None:
        for number in range(2000):
            (mirrored.a.data / f"file{number}").write_bytes(b"x")

    pid = mirrored.b.process.pid
    assert pid is not None
    before = len(os.listdir(f"/proc/{pid}/fd"))
    await in_thread(write)
    assert len(os.listdir(f"/proc/{pid}/fd")) - before < 2500
    assert (await mirrored.a.plane.status()).peer == "mirror"


class Cable:
    """A connection's way through this process, so that it can be cut and plugged in again."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.carried = 0
        self.seen = bytearray()
        self.breaks: list[int] = []
        """After how many bytes each of the next connections breaks."""
        self._to = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._frozen = asyncio.Event()
        self._frozen.set()

    async def plug(self) -> None:
        """Connections are carried from now on."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        end = self.carried + self.breaks.pop(0) if self.breaks else None
        await asyncio.gather(self._copy(reader, back, end), self._copy(there, writer, end))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, end: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._frozen.wait()
                if end is not None and self.carried + len(data) > end:
                    self.cut()
                    break
                self.carried += len(data)
                self.seen += data[: max(0, 1_000_000 - len(self.seen))]
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
        self._writers.discard(writer)

    def cut(self) -> None:
        """Every connection breaks in the middle of whatever it carries; another one can be made."""
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    def freeze(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        self._frozen.clear()

    async def unplug(self) -> None:
        """Nothing is carried any more, and connecting is refused."""
        if self._server is not None:
            self._server.close()
            self.cut()
            await self._server.wait_closed()
            self._server = None


@contextlib.asynccontextmanager
async def over_a_cable(pair: Pair, *, mirror: bool = True) -> AsyncIterator[tuple[Cable, Connected]]:
    """A pair that is connected through a cable."""
    await pair.serve()
    cable = Cable(pair.port)
    await cable.plug()
    try:
        connected = await pair.a.plane.connect("127.0.0.1", cable.port, generation="2")
        if mirror:
            await in_mirror(pair.a)
        yield cable, connected
    finally:
        await cable.unplug()


async def test_a_broken_connection_is_made_again_and_nothing_is_synchronised_anew(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary)) as pair, over_a_cable(pair) as (cable, _):
        data, stop = pair.a.data, threading.Event()
        await in_thread((data / "x").mkdir)
        works: list[Callable[[threading.Event], None]] = [
            *[lambda stop, i=i: heavy_writer(data / f"heavy{i}", i, stop) for i in range(3)],  # type: ignore[misc]
            lambda stop: renamer(data / "x", 7, stop),
        ]
        tasks = [beside(lambda work=work: work(stop)) for work in works]  # type: ignore[misc]
        for _ in range(8):
            applied = (await pair.a.plane.status()).applied
            await pair.a.until(lambda status, goal=applied + 50: status.applied > goal)  # type: ignore[misc]
            cable.cut()
        stop.set()
        for task in tasks:
            await task
        assert not [event for event in pair.a.events if isinstance(event, PeerLost)]
        assert not [event for event in pair.b.events if isinstance(event, PrimaryLost)]
        assert int((await pair.a.plane.stats())["resumed_count"]) >= 4
        assert (await pair.a.plane.status()).peer == "mirror"
        await pair.a.plane.handover()
        assert_equal(pair.a.data, pair.b.data)


@pytest.mark.parametrize("encryption", ["on", "off"])
async def test_a_connection_that_breaks_while_it_is_made_again_is_made_once_more(
    tmp_path: Path, binary: Path, encryption: str
) -> None:
    pair = Pair(tmp_path, binary)
    encrypt(pair, encryption)
    async with opened(pair), over_a_cable(pair) as (cable, _):
        cable.breaks = [0, 100, 200, 400]  # in the greeting, in what begins the encryption, in the proofs
        cable.cut()
        write = beside(lambda: (pair.a.data / "file").write_bytes(b"written meanwhile"))
        await pair.a.until(lambda status: not cable.breaks and status.pending == 0)
        await write
        assert not [event for event in pair.a.events if isinstance(event, PeerLost)]
        assert not [event for event in pair.b.events if isinstance(event, PrimaryLost)]
        assert (await pair.a.plane.status()).peer == "mirror"
        await pair.a.plane.handover()
        assert_equal(pair.a.data, pair.b.data)


async def test_a_resynchronisation_goes_on_over_a_connection_that_was_made_again(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary)) as pair:
        rng = random.Random(1)
        for number in range(60):
            content = rng.randbytes(700_000)
            (pair.a.data / f"file{number}").write_bytes(content)
            (pair.b.data / f"file{number}").write_bytes(content[: rng.randrange(700_000)] + b"other")
        async with over_a_cable(pair, mirror=False) as (cable, connected):
            assert not connected.incremental
            before, cuts = cable.carried, 0
            async with asyncio.timeout(60):
                while cuts < 6 and (await pair.a.plane.status()).peer == "resync":
                    if cable.carried < before + 3_000_000:
                        await asyncio.sleep(0.005)
                        continue
                    before, cuts = cable.carried, cuts + 1
                    cable.cut()
            assert cuts
            await in_mirror(pair.a)
            assert not [event for event in pair.a.events if isinstance(event, PeerLost)]
            await pair.a.plane.handover()
            assert_equal(pair.a.data, pair.b.data)


async def test_a_secondary_that_cannot_be_reached_again_is_lost_at_once(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary)) as pair, over_a_cable(pair) as (cable, _):
        began = time.monotonic()
        await cable.unplug()
        await pair.a.told(PeerLost)
        assert time.monotonic() - began < 1.5
        await pair.b.told(PrimaryLost)
        await pair.a.plane.alone(generation="3")


async def test_a_silent_secondary_costs_an_application_no_more_than_the_limit(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary, ack_timeout=2.0)) as pair, over_a_cable(pair) as (cable, _):
        await in_thread(lambda: (pair.a.data / "file").write_bytes(b"before"))
        cable.freeze()
        began = time.monotonic()
        write = beside(lambda: (pair.a.data / "file").write_bytes(b"after"))
        await pair.a.told(PeerLost)
        await pair.a.plane.alone(generation="3")
        await write
        assert time.monotonic() - began < 2.5


@pytest.mark.parametrize("redials", [False, True])
async def test_a_secondary_that_is_known_to_be_gone_is_not_waited_for(
    tmp_path: Path, binary: Path, redials: bool
) -> None:
    async with opened(Pair(tmp_path, binary, ack_timeout=600.0)) as pair, over_a_cable(pair) as (cable, _):
        cable.freeze()
        if redials:
            cable.cut()
        write = beside(lambda: (pair.a.data / "file").write_bytes(b"not acknowledged by the other one"))
        await pair.a.until(lambda status: status.pending > 0)
        await pair.a.plane.alone(generation="3", leave=True)
        await asyncio.wait_for(write, 20)
        assert not (await pair.a.told(PeerLost)).held
        await pair.b.kill()
        await pair.b.restart()
        await pair.listen(pair.b)
        await pair.mirror()
        await pair.a.plane.handover()
        assert_equal(pair.a.data, pair.b.data)


async def test_another_primary_with_the_key_takes_the_place_of_one_that_vanished(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary)) as pair, over_a_cable(pair) as (cable, _):
        cable.freeze()
        await pair.a.kill()
        await pair.a.restart()
        await pair.a.plane.primary(generation="5")
        await pair.connect(pair.a)
        await in_mirror(pair.a)


async def test_what_travels_is_encrypted_unless_it_was_switched_off(tmp_path: Path, binary: Path) -> None:
    secret = b"nobody else may read this " * 200
    for encryption in ("on", "off"):
        async with opened(Pair(tmp_path / encryption, binary)) as pair:
            encrypt(pair, encryption)
            async with over_a_cable(pair) as (cable, _):
                cable.seen = bytearray()
                await in_thread(lambda pair=pair: (pair.a.data / "file").write_bytes(secret))  # type: ignore[misc]
                await pair.a.plane.handover()
                assert_equal(pair.a.data, pair.b.data)
                assert (secret[:100] in bytes(cable.seen)) == (encryption == "off")


@pytest.mark.parametrize("encryption", ["on", "off"])
async def test_a_connection_that_breaks_while_the_nodes_greet_is_no_refusal_of_the_key(
    tmp_path: Path, binary: Path, encryption: str
) -> None:
    pair = Pair(tmp_path, binary)
    encrypt(pair, encryption)
    async with opened(pair):
        await pair.serve()
        cable = Cable(pair.port)
        await cable.plug()
        for carried in (0, 100) if encryption == "off" else (0, 100, 250, 400):
            cable.breaks = [carried]
            with pytest.raises(DataPlaneError) as refused:
                await pair.a.plane.connect("127.0.0.1", cable.port, generation="2")
            assert (refused.value.code == "unreachable") is (encryption == "on" or carried == 0), refused.value
        await cable.unplug()


async def test_nodes_of_which_one_encrypts_are_told_so(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary)) as pair:
        pair.b.process = type(pair.b.process)(replace(pair.b.settings, options=("--encryption", "off")), systemd=False)
        await pair.serve()
        with pytest.raises(DataPlaneError, match="encrypted on this node and not on the other"):
            await pair.connect()


async def test_the_end_of_a_primary_does_not_wait_for_what_nobody_will_grant(mirrored: Pair) -> None:
    a, b = mirrored.a, mirrored.b
    (path := a.data / "mapped").write_bytes(bytes(1 << 20))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        await b.kill()
        await a.told(PeerLost)
        held = beside(lambda: (a.data / "other").write_bytes(b"never acknowledged"))
        await a.until(lambda status: status.held > 0)
        mapped[:4096] = b"x" * 4096
        pid = a.process.pid
        assert pid is not None
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        with pytest.raises(OSError):
            await held
        await asyncio.wait_for(a.process.ended(), 20)
        assert time.monotonic() - began < 15
