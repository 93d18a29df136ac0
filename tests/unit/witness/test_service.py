"""A witness on real sockets: what it grants is one to one, durable, and only for who has the key of the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from safekit.automaton.register import Ground, Verdict
from safekit.membership.state import Lives
from safekit.witness.client import Seen, WitnessClient, boottime
from safekit.witness.served import ServedCluster, Serving
from safekit.witness.service import Witness
from safekit.witness.store import RegisterStore

SHOP = ServedCluster("shop", b"s" * 32, frozenset("AB"))
BANK = ServedCluster("bank", b"b" * 32, frozenset("AB"))
A, B, BOTH = frozenset("A"), frozenset("B"), frozenset("AB")
PATIENCE_S = 60.0
MANY = 10_000


async def until(reached: Callable[[], bool]) -> None:
    """Wait for what other tasks and sockets bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not reached():
            await asyncio.sleep(0.005)


class Wire:
    """A UDP relay between nodes and the witness that loses and repeats what it is told to."""

    def __init__(self) -> None:
        self.witness_port = 0
        self.lost_requests = 0
        self.lost_replies = 0
        self.requests: list[bytes] = []
        self.replies: list[bytes] = []
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._loop = asyncio.get_running_loop()
        self._front.setblocking(False)
        self._loop.add_reader(self._front, self._request)

    @property
    def port(self) -> int:
        return int(self._front.getsockname()[1])

    def _request(self) -> None:
        with contextlib.suppress(OSError):
            datagram, node = self._front.recvfrom(2048)
            self.requests.append(datagram)
            if self.lost_requests:
                self.lost_requests -= 1
                return
            self.inject(datagram, node)

    def inject(self, datagram: bytes, node: tuple[str, int] = ("127.0.0.1", 9)) -> None:
        """Bring a datagram to the witness, as if it came from a node."""
        back = self._backs.get(node)
        if back is None:
            back = self._backs[node] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            back.setblocking(False)
            self._loop.add_reader(back, self._reply, back, node)
        back.sendto(datagram, ("127.0.0.1", self.witness_port))

    def _reply(self, back: socket.socket, node: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            datagram = back.recv(2048)
            self.replies.append(datagram)
            if self.lost_replies:
                self.lost_replies -= 1
                return
            self._front.sendto(datagram, node)

    def close(self) -> None:
        for one in (self._front, *self._backs.values()):
            self._loop.remove_reader(one)
            one.close()


@dataclass
class Heard:
    """What a module hears."""

    verdicts: list[Verdict] = field(default_factory=list)
    seen_: list[Seen] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    renewals: list[float] = field(default_factory=list)

    def renewed(self, sent_at: float) -> None:
        self.renewals.append(sent_at)

    def verdict(self, verdict: Verdict, sent_at: float) -> None:
        self.verdicts.append(verdict)

    def seen(self, seen: Seen) -> None:
        self.seen_.append(seen)

    def unavailable(self, why: str, since: float) -> None:
        self.troubles.append(why)


class World:
    """A witness, the wire to it, and nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wire = Wire()
        self.journal: list[str] = []
        self._clients: list[WitnessClient] = []
        self.witness: Witness | None = None

    @property
    def registers(self) -> Path:
        return self.folder / "witness" / "registers"

    async def serve(self, *clusters: ServedCluster) -> Witness:
        """Start the witness, or a new one over what the former left."""
        if self.witness is not None:
            await self.witness.close()
        (self.folder / "witness").mkdir(exist_ok=True)
        lives = Lives((self.folder / "witness.incarnation",))
        self.witness = Witness(RegisterStore(self.registers), lives, self.journal.append)
        await self.witness.apply(Serving(clusters, 0, "127.0.0.1"))
        self.wire.witness_port = self.witness.port
        return self.witness

    async def node(
        self,
        name: str,
        cluster: ServedCluster = SHOP,
        *,
        key: bytes = b"",
        silent_after_s: float = PATIENCE_S,
        lease: float = 0.0,
    ) -> tuple[WitnessClient, Heard]:
        """A node with its module db; a second call for the same name is its next life."""
        lives = Lives((self.folder / f"{cluster.name}.{name}.incarnation",))
        client = WitnessClient(
            cluster.name,
            name,
            key or cluster.key,
            "127.0.0.1",
            self.wire.port,
            lives,
            pulse_s=0.05,
            silent_after_s=silent_after_s,
        )
        heard = Heard()
        client.watch("db", heard, lease)
        await client.open()
        self._clients.append(client)
        return client, heard

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        if self.witness is not None:
            await self.witness.close()
        self.wire.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


async def founded(world: World, cluster: ServedCluster = SHOP) -> tuple[WitnessClient, Heard, WitnessClient, Heard]:
    """Both nodes of a cluster, whose register says that both may serve."""
    a, heard_a = await world.node("A", cluster)
    b, heard_b = await world.node("B", cluster)
    a.claim("db", 0, frozenset(), BOTH, Ground.TOGETHER)
    await until(lambda: len(heard_a.verdicts) == 1)
    assert heard_a.verdicts[0].granted
    await until(lambda: bool(heard_b.seen_) and heard_b.seen_[-1].epoch == 1)
    return a, heard_a, b, heard_b


async def test_one_of_two_nodes_that_ask_at_once_may_serve(world: World) -> None:
    await world.serve(SHOP)
    a, heard_a, b, heard_b = await founded(world)
    a.claim("db", 1, BOTH, A)
    b.claim("db", 1, BOTH, B)
    await until(lambda: len(heard_a.verdicts) == 2 and len(heard_b.verdicts) == 1)
    last = (heard_a.verdicts[-1], heard_b.verdicts[-1])
    assert sorted(verdict.granted for verdict in last) == [False, True]
    assert last[0].epoch == last[1].epoch == 2
    assert last[0].holders == last[1].holders
    assert any("epoch 2" in line for line in world.journal)


async def leased_pair(world: World) -> tuple[WitnessClient, Heard, WitnessClient, Heard]:
    """A founded pair whose leases are of a second; A has one that the witness renewed."""
    await world.serve(SHOP)
    a, heard_a = await world.node("A", lease=1.0)
    b, heard_b = await world.node("B", lease=1.0)
    a.claim("db", 0, frozenset(), BOTH, Ground.TOGETHER)
    await until(lambda: bool(heard_b.seen_) and heard_b.seen_[-1].epoch == 1)
    a.renew("db")
    await until(lambda: bool(heard_a.renewals))
    return a, heard_a, b, heard_b


async def test_a_claim_that_excludes_who_has_a_lease_is_granted_when_that_is_over_and_not_before(world: World) -> None:
    a, heard_a, b, heard_b = await leased_pair(world)
    b.claim("db", 1, BOTH, B)
    await until(lambda: bool(heard_b.verdicts))
    granted_at = boottime()
    assert heard_b.verdicts[0].granted and granted_at >= heard_a.renewals[-1] + 1.0
    a.renew("db")
    await until(lambda: heard_a.seen_[-1].epoch == 2)
    assert all(renewal < granted_at - 1.0 for renewal in heard_a.renewals), "nothing was renewed while the claim waited"


async def test_who_has_a_lease_and_claims_first_goes_on(world: World) -> None:
    a, heard_a, b, heard_b = await leased_pair(world)
    b.claim("db", 1, BOTH, B)
    a.claim("db", 1, BOTH, A)
    await until(lambda: len(heard_a.verdicts) == 2 and bool(heard_b.verdicts))
    assert heard_a.verdicts[-1].granted and not heard_b.verdicts[-1].granted


async def test_a_claim_that_is_withdrawn_takes_no_lease(world: World) -> None:
    a, heard_a, b, heard_b = await leased_pair(world)
    seen = len(heard_b.seen_)
    b.claim("db", 1, BOTH, B)
    await until(lambda: len(heard_b.seen_) > seen)
    b.withdraw("db")
    before = len(heard_a.renewals)
    while len(heard_a.renewals) == before:
        a.renew("db")
        await asyncio.sleep(0.05)
    assert not heard_b.verdicts


async def test_two_clusters_with_modules_of_one_name_have_nothing_in_common(world: World) -> None:
    await world.serve(SHOP, BANK)
    shop, heard_shop, _, _ = await founded(world, SHOP)
    bank, heard_bank, _, _ = await founded(world, BANK)
    shop.claim("db", 1, BOTH, A)
    await until(lambda: len(heard_shop.verdicts) == 2)
    assert heard_shop.verdicts[-1].granted
    bank.claim("db", 2, A, A)
    await until(lambda: len(heard_bank.verdicts) == 2)
    assert (heard_bank.verdicts[-1].granted, heard_bank.verdicts[-1].epoch) == (False, 1)


async def test_lost_requests_and_replies_are_repeated_and_answered_the_same(world: World) -> None:
    await world.serve(SHOP)
    a, heard, _, heard_b = await founded(world)
    world.wire.lost_requests, world.wire.lost_replies = 2, 2
    before = len(world.wire.replies)
    a.claim("db", 1, BOTH, A)
    await until(lambda: len(heard.verdicts) == 2)
    assert len(world.wire.replies) - before >= 3
    assert (heard.verdicts[-1].granted, heard.verdicts[-1].epoch) == (True, 2)
    await until(lambda: heard_b.seen_[-1].epoch >= 2)
    assert heard_b.seen_[-1].epoch == 2


async def test_a_claim_that_was_withdrawn_is_answered_to_nobody(world: World) -> None:
    await world.serve(SHOP)
    a, heard, _, _ = await founded(world)
    world.wire.lost_replies = MANY
    a.claim("db", 1, BOTH, A)
    await until(lambda: any("epoch 2" in line for line in world.journal))
    a.withdraw("db")
    world.wire.lost_replies = 0
    await until(lambda: heard.seen_[-1].epoch == 2)
    assert len(heard.verdicts) == 1
    assert heard.seen_[-1].holders == A


async def test_what_was_recorded_on_the_wire_is_not_believed_again(world: World) -> None:
    witness = await world.serve(SHOP)
    a, heard, b, heard_b = await founded(world)
    a.claim("db", 1, BOTH, A)
    await until(lambda: len(heard.verdicts) == 2)
    a.claim("db", 2, A, BOTH)
    await until(lambda: len(heard.verdicts) == 3)
    recorded = list(world.wire.requests)
    for datagram in recorded:
        world.wire.inject(datagram)
    await until(lambda: witness.dropped["replayed"] > 0)
    witness = await world.serve(SHOP)
    for datagram in recorded:
        world.wire.inject(datagram)
    b.claim("db", 3, BOTH, B)
    await until(lambda: len(heard_b.verdicts) == 1)
    assert (heard_b.verdicts[-1].granted, heard_b.verdicts[-1].epoch) == (True, 4)


async def test_a_witness_that_lost_its_disk_believes_no_recorded_datagram_and_no_single_node(world: World) -> None:
    await world.serve(SHOP)
    a, heard, b, heard_b = await founded(world)
    recorded = list(world.wire.requests)
    a.claim("db", 1, BOTH, A)
    await until(lambda: len(heard.verdicts) == 2)
    for path in (world.registers / "shop").iterdir():
        path.unlink()
    await world.serve(SHOP)
    for datagram in recorded:
        world.wire.inject(datagram)
    b.claim("db", 1, BOTH, B)
    await until(lambda: len(heard_b.verdicts) == 1)
    assert (heard_b.verdicts[0].granted, heard_b.verdicts[0].epoch) == (False, 0)
    a.claim("db", 2, A, BOTH, Ground.TOGETHER)
    await until(lambda: len(heard.verdicts) == 3)
    assert (heard.verdicts[-1].granted, heard.verdicts[-1].epoch) == (True, 3)


async def test_strangers_are_dropped_and_counted(world: World) -> None:
    witness = await world.serve(SHOP)
    _, heard = await world.node("A", key=b"x" * 32)
    _, other = await world.node("A", BANK)
    _, unknown = await world.node("C")
    world.wire.inject(b"hello")
    await until(
        lambda: all(witness.dropped[why] for why in ("key differs", "unknown cluster", "not a member", "foreign"))
    )
    assert witness.answered == 0
    assert (heard.seen_, other.seen_, unknown.seen_) == ([], [], [])


async def test_a_restart_of_the_witness_costs_no_answer(world: World) -> None:
    await world.serve(SHOP)
    a, heard, _, _ = await founded(world)
    world.wire.lost_replies = MANY
    a.claim("db", 1, BOTH, A)
    await until(lambda: any("epoch 2" in line for line in world.journal))
    await world.serve(SHOP)
    world.wire.lost_replies = 0
    await until(lambda: len(heard.verdicts) == 2)
    assert (heard.verdicts[-1].granted, heard.verdicts[-1].epoch) == (True, 2)


async def test_a_node_after_its_reboot_asks_again_and_gets_a_new_epoch(world: World) -> None:
    await world.serve(SHOP)
    a, heard, _, _ = await founded(world)
    a.claim("db", 1, BOTH, A)
    await until(lambda: len(heard.verdicts) == 2)
    await a.close()
    again, later = await world.node("A")
    again.claim("db", 2, A, A)
    await until(lambda: len(later.verdicts) == 1)
    assert (later.verdicts[0].granted, later.verdicts[0].epoch) == (True, 3)


async def test_a_node_whose_clock_went_back_is_believed_again(world: World) -> None:
    await world.serve(SHOP)
    lives = world.folder / "shop.A.incarnation"
    lives.write_text(str(2**62))
    await world.node("A")
    await until(lambda: bool(world.wire.replies))
    lives.unlink()
    _, heard = await world.node("A")
    await until(lambda: bool(heard.seen_))
    assert int(lives.read_text()) > 2**62


async def test_a_witness_whose_clock_went_back_is_believed_again(world: World) -> None:
    (world.folder / "witness.incarnation").write_text(str(2**62))
    await world.serve(SHOP)
    _, heard = await world.node("A")
    await until(lambda: bool(heard.seen_))
    (world.folder / "witness.incarnation").unlink()
    await world.serve(SHOP)
    before = len(heard.seen_)
    await until(lambda: len(heard.seen_) > before)


async def test_a_register_that_cannot_be_read_is_said_and_never_made_anew(world: World) -> None:
    await world.serve(SHOP)
    a, heard, _, _ = await founded(world)
    path = world.registers / "shop" / "db.json"
    path.write_text("{")
    await world.serve(SHOP)
    a.claim("db", 1, BOTH, A, Ground.ORDER)
    await until(lambda: bool(heard.troubles))
    assert "the register cannot be read" in heard.troubles[0]
    assert len(heard.verdicts) == 1
    assert path.read_text() == "{"
    assert sum("no answer: the register cannot be read" in line for line in world.journal) == 1


async def test_a_grant_that_the_disk_refused_is_not_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.serve(SHOP)
    a, heard, _, _ = await founded(world)

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safekit.witness.store.write_json", refuse)
    a.claim("db", 1, BOTH, A)
    await until(lambda: bool(heard.troubles))
    assert "No space left on device" in heard.troubles[0]
    assert len(heard.verdicts) == 1
    monkeypatch.undo()
    await until(lambda: len(heard.verdicts) == 2)
    assert (heard.verdicts[-1].granted, heard.verdicts[-1].epoch) == (True, 2)


async def test_a_defect_in_one_answer_silences_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.serve(SHOP)
    a, heard, _, _ = await founded(world)

    def broken(*_args: object) -> None:
        raise KeyError("defect")

    monkeypatch.setattr("safekit.witness.service.decide", broken)
    a.claim("db", 1, BOTH, A)
    await until(lambda: any("no answer: KeyError('defect')" in line for line in world.journal))
    monkeypatch.undo()
    await until(lambda: len(heard.verdicts) == 2)
    assert (heard.verdicts[-1].granted, heard.verdicts[-1].epoch) == (True, 2)


async def test_a_witness_that_is_gone_is_told_until_it_answers(world: World) -> None:
    await world.serve(SHOP)
    _, heard = await world.node("A", silent_after_s=0.5)
    await until(lambda: bool(heard.seen_))
    world.wire.lost_requests = MANY
    await until(lambda: bool(heard.troubles))
    assert set(heard.troubles) == {f"the witness 127.0.0.1 port {world.wire.port} does not answer"}
    world.wire.lost_requests, before = 0, len(heard.seen_)
    await until(lambda: len(heard.seen_) > before)


async def test_an_answer_counts_from_when_its_request_was_first_sent(world: World) -> None:
    await world.serve(SHOP)
    _, heard = await world.node("A")
    await until(lambda: len(heard.seen_) >= 1)
    world.wire.lost_replies = 2
    before = len(heard.seen_)
    await until(lambda: world.wire.lost_replies == 1)
    asked_again = boottime()
    await until(lambda: len(heard.seen_) > before)
    assert heard.seen_[before].sent_at <= asked_again


async def test_a_flood_of_requests_makes_no_memory(world: World) -> None:
    """Only what is configured is remembered: nothing grows with what arrives."""
    witness = await world.serve(SHOP)
    a, heard = await world.node("A")
    for number in range(300):
        client, listener = a, Heard()
        client.watch(f"module{number % 150}", listener)
    await until(lambda: bool(heard.seen_))
    served = next(iter(witness._served.values()))
    await until(lambda: len(served.newest) == 151)
    assert len(served.waiting) <= 151


async def test_a_cluster_that_is_no_longer_served_gets_no_answer_and_others_go_on(world: World) -> None:
    witness = await world.serve(SHOP, BANK)
    _, shop = await world.node("A", SHOP)
    _, bank = await world.node("A", BANK)
    await until(lambda: bool(shop.seen_) and bool(bank.seen_))
    await witness.apply(Serving((BANK,), witness.port, "127.0.0.1"))
    world.wire.witness_port = witness.port
    await until(lambda: witness.dropped["unknown cluster"] > 0)
    before = len(bank.seen_)
    await until(lambda: len(bank.seen_) > before)


async def test_registers_can_be_shown(world: World) -> None:
    witness = await world.serve(SHOP, BANK)
    await founded(world)
    (world.registers / "bank").mkdir()
    (world.registers / "bank" / "db.json").write_text("{")
    shown = {view.cluster: view for view in await witness.registers()}
    assert (shown["shop"].epoch, shown["shop"].holders, shown["shop"].node) == (1, ("A", "B"), "A")
    assert "cannot be read" in shown["bank"].trouble
