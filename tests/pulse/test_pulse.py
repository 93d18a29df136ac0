"""`safekit-pulse` as it runs on a node: real processes on loopback addresses, killed as the world kills them (spec
§4.4, §5.2).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safekit.membership import (
    ChannelError,
    Connected,
    Disconnected,
    GroupState,
    HeartbeatState,
    LeaseAsks,
    LeaseEnded,
    LinkDown,
    LinkTrouble,
    LinkUp,
    MemberPayload,
    PayloadTooLarge,
    PeerAlive,
    PeerDaemon,
    PeerLost,
    PeerPayload,
    Pulse,
    PulseError,
    PulseEvent,
    Refused,
    ViewChanged,
)
from safekit.membership.beat import NOTICE, Beat, decode, encode, encode_payload
from safekit.membership.channels import PROMISE
from safekit.membership.sealed import Incarnation, Opened, Opener, Sealer
from tests.pulse.nodes import KEY, LIMIT_S, LONG_S, SOURCES, PulseNode, farm, free_port, mirror

ADDRESSES = {"n1": "127.0.0.11", "n2": "127.0.0.12", "n3": "127.0.0.13"}
Nodes = Callable[..., PulseNode]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Nodes]:
    """Makes nodes, and takes them away."""
    made: list[PulseNode] = []

    def make(name: str) -> PulseNode:
        made.append(PulseNode(name, tmp_path / name))
        return made[-1]

    yield make
    for one in made:
        await one.stop()


@pytest.fixture
def port() -> int:
    return free_port()


Pair = tuple[PulseNode, PulseNode]


@pytest.fixture
async def pair(node: Nodes, port: int) -> Pair:
    """A mirror whose nodes hear each other."""
    n1, n2 = node("n1"), node("n2")
    n1.start_pulse()
    n2.start_pulse()
    await asyncio.gather(n1.connect(), n2.connect())
    await n1.set(mirror("n1", "n2", ADDRESSES, port), payload={"state": "PRIM"})
    await n2.set(mirror("n2", "n1", ADDRESSES, port), payload={"state": "SECOND"})
    await n1.heard(PeerPayload("mirror:db", "n2", {"state": "SECOND"}))
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "PRIM"}))
    return n1, n2


def heartbeats(node: PulseNode) -> HeartbeatState:
    state = node.client.state("mirror:db")
    assert isinstance(state, HeartbeatState)
    return state


# --- mirror ---------------------------------------------------------------------------------------------------


async def test_peers_find_each_other_and_who_is_silent_is_lost(node: Nodes, port: int) -> None:
    n1, n2 = node("n1"), node("n2")
    await n1.start(mirror("n1", "n2", ADDRESSES, port), payload={"state": "PRIM"})
    await n2.start(mirror("n2", "n1", ADDRESSES, port, timeout=1.5))
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "PRIM"}))
    assert PeerAlive("mirror:db", "n1") in n2.told
    n1.kill_pulse()
    await n2.until(lambda: heartbeats(n2).alive is False)
    assert PeerLost("mirror:db", "n1") in n2.told
    state = heartbeats(n2)
    assert (state.links, state.payload) == ({"default": False}, {"state": "PRIM"})


async def test_what_is_published_waits_for_no_pulse(node: Nodes, port: int) -> None:
    n1, n2 = node("n1"), node("n2")
    await n1.start(mirror("n1", "n2", ADDRESSES, port, pulse=3600, timeout=7200))
    await n2.start(mirror("n2", "n1", ADDRESSES, port, pulse=3600, timeout=7200))
    for number in range(10):
        await n1.client.publish("mirror:db", {"state": "WAIT", "number": number})
        await n2.heard(PeerPayload("mirror:db", "n1", {"state": "WAIT", "number": number}))


async def leased(node: Nodes, port: int, timeout: float, length: float) -> Pair:
    """n1 needs a lease, and n2 promises to act on no silence but one that it is told of."""
    n1, n2 = node("n1"), node("n2")
    await n1.start(mirror("n1", "n2", ADDRESSES, port, timeout=timeout), payload={"state": "PRIM"})
    await n2.start(mirror("n2", "n1", ADDRESSES, port, timeout=timeout), payload={"state": "SECOND"})
    await n2.heard(PeerAlive("mirror:db", "n1"))
    promise = {"state": "SECOND", PROMISE: heartbeats(n2).losses + 1}
    await n2.client.publish("mirror:db", promise)
    await n1.heard(PeerPayload("mirror:db", "n2", promise))
    await n1.client.lease("mirror:db", length, True)
    return n1, n2


async def test_a_lease_lasts_as_long_as_a_secondary_that_promises_answers(node: Nodes, port: int) -> None:
    n1, n2 = await leased(node, port, timeout=10.0, length=10.0)
    await asyncio.sleep(7.0)  # what is not renewed has run out after 6.25 s
    assert n1.count(LeaseEnded) == 0, n1.told
    n2.kill_pulse()
    await n1.until(lambda: n1.count(LeaseEnded) == 1)
    kinds = [type(event) for event in n1.told]
    assert LeaseAsks in kinds[: kinds.index(LeaseEnded)], "the witness is asked first"
    assert PeerLost not in kinds[: kinds.index(LeaseEnded)], "who could be passed over gives up before silence counts"


async def test_a_lease_outlives_a_kill_of_the_pulse_while_the_other_node_answers(node: Nodes, port: int) -> None:
    n1, _ = await leased(node, port, timeout=90.0, length=60.0)
    n1.kill_pulse()
    n1.start_pulse()
    await n1.until(lambda: n1.count(Disconnected) == 1 and n1.client.connected)
    await asyncio.sleep(8.5)  # what the next life does not see renewed has run out after 7.5 s
    assert n1.count(LeaseEnded) == 0, n1.told


async def watched(node: Nodes, tmp_path: Path, port: int) -> tuple[PulseNode, PulseNode, Path]:
    """As `leased`; a file takes the place of the watchdog of n1, and has everything that was written to it."""
    device, named = tmp_path / "watchdog0", tmp_path / "n1" / "var" / "watchdog"
    device.touch()
    named.parent.mkdir(parents=True)
    named.write_text(f"{device}\n")
    return *await leased(node, port, timeout=6.0, length=6.0), device


async def fed(device: Path, more: int = 1, limit: float = 30.0) -> None:
    """Wait until it was fed so often from now on."""
    wanted = device.read_bytes().count(b"\0") + more
    async with asyncio.timeout(limit):
        while device.read_bytes().count(b"\0") < wanted:
            await asyncio.sleep(0.05)


async def test_the_watchdog_is_fed_while_the_other_node_answers_and_not_after_the_lease(
    node: Nodes, tmp_path: Path, port: int
) -> None:
    n1, n2, device = await watched(node, tmp_path, port)
    await fed(device, 3)
    n2.kill_pulse()
    await n1.until(lambda: n1.count(LeaseEnded) == 1, limit=30.0)
    hungry = device.read_bytes()
    await asyncio.sleep(1.0)
    assert device.read_bytes() == hungry and set(hungry) == {0}
    await n1.client.lease("mirror:db", 6.0, False)
    async with asyncio.timeout(30):
        while device.read_bytes() != hungry + b"V":
            await asyncio.sleep(0.05)


async def test_the_watchdog_outlives_a_kill_of_the_pulse_and_is_closed_at_its_end(
    node: Nodes, tmp_path: Path, port: int
) -> None:
    n1, _, device = await watched(node, tmp_path, port)
    await fed(device)
    n1.kill_pulse()
    assert b"V" not in device.read_bytes()
    n1.start_pulse()
    await fed(device, 3)
    await n1.stop()
    assert device.read_bytes().count(b"V") == 1 and device.read_bytes().endswith(b"V")


async def test_removed_channel_is_lost_at_once_and_marked_as_left(pair: Pair) -> None:
    n1, n2 = pair
    await n1.client.remove_channel("mirror:db")
    await n2.heard(PeerLost("mirror:db", "n1", left=True), limit=LONG_S)


async def test_killed_daemon_does_not_stop_the_beats(node: Nodes, port: int) -> None:
    n1, n2 = node("n1"), node("n2")
    n1.start_pulse()
    await n2.start(mirror("n2", "n1", ADDRESSES, port), payload={"state": "SECOND"})
    arguments = [str(n1.folder / "run" / "pulse.sock"), "n1", ADDRESSES["n1"], "n2", ADDRESSES["n2"], str(port)]
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.pulse.small_daemon",
        *arguments,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": SOURCES},
        cwd=Path(__file__).parents[2],
    )
    assert daemon.stdout is not None
    assert await asyncio.wait_for(daemon.stdout.readline(), LIMIT_S) == b"ready\n"
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "PRIM"}))
    n2.told.clear()
    daemon.send_signal(signal.SIGKILL)
    await daemon.wait()
    await n2.until(lambda: n2.count(PeerDaemon) == 1)
    assert n2.count(PeerLost) == n2.count(LinkDown) == 0

    await n1.connect()
    await n1.client.set_channel(mirror("n1", "n2", ADDRESSES, port))
    assert PeerPayload("mirror:db", "n2", {"state": "SECOND"}) in n1.told, "the new daemon is told what is known"
    assert PeerAlive("mirror:db", "n2") in n1.told
    await n2.heard(PeerDaemon("mirror:db", "n1", None))
    assert n2.count(PeerPayload) == 0, "the last payload was carried on all the time"


async def test_killed_pulse_comes_back_before_anybody_notices(pair: Pair) -> None:
    n1, n2 = pair
    n1.kill_pulse()
    n1.start_pulse()
    await n1.until(lambda: n1.count(Connected) == 2)
    await n1.client.publish("mirror:db", {"state": "ALONE"})
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "ALONE"}))
    await n2.client.publish("mirror:db", {"state": "WAIT"})
    await n1.heard(PeerPayload("mirror:db", "n2", {"state": "WAIT"}))
    for one in pair:
        assert one.count(PeerLost) == one.count(LinkDown) == one.count(Refused) == 0
        assert (one.count(PeerAlive), one.count(PeerPayload)) == (1, 2), "no event twice"
    assert n1.count(Disconnected) == 1


async def test_killed_pulse_resumes_without_any_daemon(node: Nodes, port: int) -> None:
    n1, peer = node("n1"), Forger(port, ADDRESSES["n1"])
    try:
        await n1.start(mirror("n1", "n2", ADDRESSES, port), payload={"state": "ALONE"})
        earlier, _ = await peer.beat(lambda _, beat: beat.payload == encode_payload({"state": "ALONE"}))
        await n1.client.close()
        await peer.beat(lambda _, beat: beat.absent_s is not None and beat.absent_s >= 2)
        n1.kill_pulse()
        n1.start_pulse()
        life, first = await peer.beat(lambda life, _: life > earlier)
        _, later = await peer.beat(lambda then, beat: then == life and beat.absent_s is not None and beat.absent_s >= 2)
        assert first.payload == later.payload == encode_payload({"state": "ALONE"})
    finally:
        peer.close()


async def test_payload_published_while_the_pulse_is_away_goes_out_when_it_is_back(pair: Pair) -> None:
    n1, n2 = pair
    n1.kill_pulse()
    await n1.until(lambda: n1.count(Disconnected) == 1)
    await n1.client.publish("mirror:db", {"state": "ALONE"})
    n1.start_pulse()
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "ALONE"}))


async def test_channel_with_other_times_does_not_disturb_the_peer(pair: Pair, port: int) -> None:
    n1, n2 = pair
    await n1.client.set_channel(mirror("n1", "n2", ADDRESSES, port, pulse=0.05, timeout=2 * LONG_S))
    await n1.client.publish("mirror:db", {"state": "WAIT"})
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "WAIT"}))
    await n2.client.publish("mirror:db", {"state": "ALONE"})
    await n1.heard(PeerPayload("mirror:db", "n2", {"state": "ALONE"}))
    assert n1.count(PeerLost) == n2.count(PeerLost) == n2.count(Refused) == 0


async def test_channels_that_the_configuration_no_longer_has_are_removed(pair: Pair) -> None:
    n1, n2 = pair
    await n1.client.close()
    successor = PulseNode("n1", n1.folder)
    await successor.connect()
    await successor.client.keep_channels({"cluster"})
    await n2.heard(PeerLost("mirror:db", "n1", left=True))
    await successor.client.close()


async def test_payload_that_does_not_fit_is_refused_and_the_last_one_stays(pair: Pair) -> None:
    n1, n2 = pair
    with pytest.raises(PayloadTooLarge, match="expected at most"):
        await n1.client.publish("mirror:db", {"noise": os.urandom(2000).hex()})
    await n1.client.publish("mirror:db", {"state": "ALONE"})
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "ALONE"}))
    assert [one.payload for one in n2.told if isinstance(one, PeerPayload)] == [{"state": "PRIM"}, {"state": "ALONE"}]


async def test_files_that_hold_keys_are_private(pair: Pair) -> None:
    for path in ("pulse.sock", "pulse.json"):
        assert stat.S_IMODE((pair[0].folder / "run" / path).stat().st_mode) == 0o600


# --- what comes from outside ----------------------------------------------------------------------------------


async def test_other_key_is_refused_and_reported_once(node: Nodes, port: int) -> None:
    n1, n2 = node("n1"), node("n2")
    await n1.start(mirror("n1", "n2", ADDRESSES, port, timeout=1.5), payload={"state": "PRIM"})
    await n2.start(replace(mirror("n2", "n1", ADDRESSES, port), key=b"x" * 32), payload={"state": "SECOND"})
    await n1.heard(Refused("mirror:db", ADDRESSES["n2"], "key differs", "n2"))
    await n2.heard(Refused("mirror:db", ADDRESSES["n1"], "key differs", "n1"))
    await n1.until(lambda: n1.count(PeerLost) == 1)
    assert n1.count(Refused) == 1
    assert n1.count(PeerPayload) == n1.count(LinkUp) == 0
    await n2.client.set_channel(mirror("n2", "n1", ADDRESSES, port))
    await n1.heard(PeerPayload("mirror:db", "n2", {"state": "SECOND"}))


class Forger:
    """The peer's place on the wire, played by the test."""

    def __init__(self, port: int, target: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind((ADDRESSES["n2"], port))
        self._target = (target, port)
        self._opener = Opener("mirror:db", ["default"], KEY, ["n1"])

    def seal(self, number: int, count: int, state: str) -> list[bytes]:
        seal = Sealer("mirror:db", ["default"], KEY, "n2", Incarnation(number, b"saltsalt"))
        return [seal.seal("default", encode(Beat(payload=encode_payload({"state": state})))) for _ in range(count)]

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self._socket.sendto(datagram, self._target)

    async def beat(self, wanted: Callable[[int, Beat], bool]) -> tuple[int, Beat]:
        """The next beat of n1, with the number of the life that sent it, of which this holds."""

        async def take() -> tuple[int, Beat]:
            while True:
                opened = self._opener.open("default", await asyncio.get_running_loop().sock_recv(self._socket, 2048))
                if isinstance(opened, Opened) and wanted(opened.incarnation, beat := decode(opened.body)):
                    return opened.incarnation, beat

        return await asyncio.wait_for(take(), LIMIT_S)

    def close(self) -> None:
        self._socket.close()


async def test_replayed_datagrams_keep_nobody_alive(node: Nodes, port: int) -> None:
    n1, forger = node("n1"), Forger(port, ADDRESSES["n1"])
    try:
        await n1.start(mirror("n1", "n2", ADDRESSES, port, timeout=1.5))
        recorded = forger.seal(1000, 5, "PRIM")
        forger.send(*recorded)
        await n1.heard(PeerPayload("mirror:db", "n2", {"state": "PRIM"}))
        async with asyncio.timeout(LIMIT_S):
            while n1.count(PeerLost) == 0:
                forger.send(*recorded)
                await asyncio.sleep(0.1)
        assert n1.told.count(Refused("mirror:db", ADDRESSES["n2"], "replayed", "n2")) == 1
    finally:
        forger.close()


async def test_datagrams_of_an_earlier_life_are_refused_and_their_sender_is_told(node: Nodes, port: int) -> None:
    n1, forger = node("n1"), Forger(port, ADDRESSES["n1"])
    try:
        await n1.start(mirror("n1", "n2", ADDRESSES, port))
        forger.send(*forger.seal(2000, 1, "PRIM"))
        await n1.heard(PeerPayload("mirror:db", "n2", {"state": "PRIM"}))
        forger.send(*forger.seal(1000, 5, "STOP"))
        await n1.heard(Refused("mirror:db", ADDRESSES["n2"], "old incarnation", "n2"))
        assert PeerPayload("mirror:db", "n2", {"state": "STOP"}) not in n1.told
        _, notice = await forger.beat(lambda _, beat: beat.kind == NOTICE)
        assert notice.view.epoch == 2000, "what this peer's next life must exceed"
    finally:
        forger.close()


async def test_noise_of_any_kind_harms_nobody(pair: Pair, port: int) -> None:
    n1, _ = pair
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.99", 0))
        for size in (0, 1, 2, 40, 80, 1400, 9000):
            stranger.sendto(b"SK\1" + os.urandom(size) if size % 2 == 0 else os.urandom(size), (ADDRESSES["n1"], port))
    await n1.until(lambda: any(isinstance(event, Refused) and event.source == "127.0.0.99" for event in n1.told))
    await n1.client.publish("mirror:db", {"state": "ALONE"})
    assert n1.count(PeerLost) == 0


async def test_node_whose_clock_went_back_over_a_reboot_is_heard_again(pair: Pair, port: int) -> None:
    n1, n2 = pair
    n1.kill_pulse()
    ahead = time.time_ns() + 3600 * 10**9
    for folder in ("run", "var"):
        (n1.folder / folder / "pulse.incarnation").write_text(str(ahead))
    n1.start_pulse()
    await n1.until(lambda: n1.count(Connected) == 2)
    await n1.client.publish("mirror:db", {"state": "ahead"})
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "ahead"}))
    n1.kill_pulse()
    for folder in ("run", "var"):
        (n1.folder / folder / "pulse.incarnation").unlink()
    n1.start_pulse()
    await n1.until(lambda: n1.count(Connected) == 3)
    await n1.client.publish("mirror:db", {"state": "back"})
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "back"}))
    assert int((n1.folder / "var" / "pulse.incarnation").read_text()) > ahead


# --- this node's own troubles ---------------------------------------------------------------------------------


async def test_port_in_use_is_told_and_taken_when_it_is_free(node: Nodes, port: int) -> None:
    n1, n2 = node("n1"), node("n2")
    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    holder.bind((ADDRESSES["n1"], port))
    try:
        await n1.start(mirror("n1", "n2", ADDRESSES, port), payload={"state": "PRIM"})
        reason = f"UDP 127.0.0.11 port {port}: already in use"
        assert LinkTrouble("mirror:db", "default", reason) in n1.told, "known when set_channel returns"
        assert n1.client.state("mirror:db").troubles == {"default": reason}
        await n2.start(mirror("n2", "n1", ADDRESSES, port))
    finally:
        holder.close()
    await n1.heard(LinkTrouble("mirror:db", "default", None))
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "PRIM"}))


async def test_client_says_what_is_wrong(node: Nodes, tmp_path: Path, port: int) -> None:
    n1 = node("n1")
    with pytest.raises(PulseError, match="call connect"):
        await n1.client.set_channel(mirror("n1", "n2", ADDRESSES, port))
    await n1.start()
    with pytest.raises(ChannelError, match="expected a channel that was set"):
        await n1.client.publish("mirror:none", {})
    with pytest.raises(ChannelError, match="names whose CRC-32 differ"):
        await n1.client.set_channel(farm("plumless", {"plumless": "127.0.0.11", "buckeroo": "127.0.0.12"}, port))
    assert n1.client.connected


async def test_listener_that_fails_is_reported_and_costs_no_event(node: Nodes, port: int) -> None:
    n1, reported = node("n1"), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["message"]))

    def fail_on_connection(event: PulseEvent) -> None:
        n1._take(event)
        if isinstance(event, Connected):
            raise LookupError("a mistake of the listener")

    n1.client = Pulse(n1.folder / "run" / "pulse.sock", on_event=fail_on_connection)
    await n1.start(mirror("n1", "n2", ADDRESSES, port, pulse=0.05, timeout=0.2))
    await n1.until(lambda: n1.count(PeerLost) == 1)
    assert len(reported) == 1
    assert reported[0].startswith("a listener failed on Connected")


async def test_order_to_stop_ends_the_process_in_good_order_and_says_no_goodbye(pair: Pair) -> None:
    n1, n2 = pair
    assert n1.process is not None
    n1.process.terminate()
    assert n1.process.wait(LIMIT_S) == 0
    n1.start_pulse()
    await n1.until(lambda: n1.count(Connected) == 2)
    await n1.client.publish("mirror:db", {"state": "ALONE"})
    await n2.heard(PeerPayload("mirror:db", "n1", {"state": "ALONE"}))
    assert n2.count(LinkDown) == 0


# --- farm -----------------------------------------------------------------------------------------------------


def members(node: PulseNode) -> tuple[str, ...]:
    state = node.client.state("farm:web")
    assert isinstance(state, GroupState)
    return state.view.members if state.view else ()


async def test_farm_of_three_forms_loses_one_and_takes_it_back(node: Nodes, port: int) -> None:
    nodes = {name: node(name) for name in ADDRESSES}
    for name, one in nodes.items():
        await one.start(farm(name, ADDRESSES, port, silence=1.5), payload={"state": "UP", "of": name})
    n1, n2, n3 = nodes.values()
    for one in nodes.values():
        await one.until(lambda one=one: members(one) == ("n1", "n2", "n3"))  # type: ignore[misc]
    await n1.heard(MemberPayload("farm:web", "n3", {"state": "UP", "of": "n3"}))

    n3.kill_pulse()
    await n2.until(lambda: members(n2) == ("n1", "n2"))
    before = n2.client.state("farm:web")

    n3.start_pulse()
    await n1.until(lambda: members(n1) == ("n1", "n2", "n3"))
    await n2.until(lambda: members(n2) == ("n1", "n2", "n3"))
    after = n2.client.state("farm:web")
    assert isinstance(before, GroupState)
    assert isinstance(after, GroupState)
    assert before.view is not None
    assert after.view is not None
    assert after.view.epoch > before.view.epoch
    assert after.view.leader == "n1"


async def test_killed_pulse_of_a_farm_node_moves_nothing(node: Nodes, port: int) -> None:
    nodes = {name: node(name) for name in ("n1", "n2")}
    addresses = {name: ADDRESSES[name] for name in nodes}
    for name, one in nodes.items():
        await one.start(farm(name, addresses, port), payload={"state": "UP"})
    for one in nodes.values():
        await one.until(lambda one=one: members(one) == ("n1", "n2"))  # type: ignore[misc]
    settled = {name: one.count(ViewChanged) for name, one in nodes.items()}
    for one in nodes.values():
        one.kill_pulse()
        one.start_pulse()
        await one.until(lambda one=one: one.count(Connected) == 2)  # type: ignore[misc]
    for name, other in (("n1", "n2"), ("n2", "n1")):
        await nodes[name].client.publish("farm:web", {"state": "UP", "again": name})
        await nodes[other].heard(MemberPayload("farm:web", name, {"state": "UP", "again": name}))
    assert {name: one.count(ViewChanged) for name, one in nodes.items()} == settled


async def test_node_that_leaves_the_farm_is_out_at_once(node: Nodes, port: int) -> None:
    nodes = {name: node(name) for name in ADDRESSES}
    for name, one in nodes.items():
        await one.start(farm(name, ADDRESSES, port), payload={"state": "UP"})
    n1, _, n3 = nodes.values()
    for one in nodes.values():
        await one.until(lambda one=one: members(one) == ("n1", "n2", "n3"))  # type: ignore[misc]
    await n1.client.remove_channel("farm:web")
    await n3.until(lambda: members(n3) == ("n2", "n3"), limit=LONG_S)
