"""The third node of the simulated world: the register of production behind a lossy network, on a disk that forgets what
was not synced; and the claimant of each node, which repeats its claim until it is answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from safekit.automaton.mirror import Answered, Silent
from safekit.automaton.register import Claim, Register, Verdict, decide
from safekit.automaton.vocabulary import Ask
from safekit.lease import Leases
from tests.simulation.network import WITNESS

if TYPE_CHECKING:
    from tests.simulation.guard import Guard
    from tests.simulation.node import Node
    from tests.simulation.world import World

REPEAT_S = 0.6
SILENT_S = 2.0


class Witness:
    """One register. `disk` is what survives the power; nothing is answered before it is there."""

    def __init__(self, world: World) -> None:
        self.world, self.clock = world, world.clock
        self.up = True
        self.disk: Register | None = None
        self._life = 0
        self._queue: deque[tuple[Claim, Callable[[Verdict | None], None]]] = deque()
        self._leases = Leases(0.0)
        self._seen: dict[tuple[str, str], int] = {}
        self._busy = False

    def look(self, node: str, answer: Callable[[], None]) -> None:
        """A node that runs the application asks for its lease; answered only when it is renewed."""
        named = self.up and self.disk is not None and node in self.disk.holders
        if named and self._leases.renew(node, self.world.lease_s, self.clock.now):
            answer()

    def hear(self, claim: Claim, answer: Callable[[Verdict | None], None]) -> None:
        """A claim arrived; answered with None while it is held back."""
        if not self.up:
            return
        life = (claim.node, claim.boot)
        if claim.number < self._seen.get(life, 0):
            return
        self._seen[life] = claim.number
        self._queue.append((claim, answer))
        self._work()

    def _work(self) -> None:
        if self._busy or not self._queue:
            return
        claim, answer = self._queue.popleft()
        register, verdict = decide(self.disk, claim, frozenset(self.world.nodes))
        if register == self.disk:
            answer(verdict)
            self._work()
            return
        assert register is not None
        excluded = frozenset() if self.disk is None else self.disk.holders - claim.wanted
        if self._leases.hold_back(excluded, self.world.lease_s, self.clock.now):
            answer(None)
            self._work()
            return
        self._busy, life = True, self._life

        def durable() -> None:
            if life != self._life:
                return
            self._busy = False
            self.disk = register
            self._leases.decided(excluded)
            self.world.note("witness", f"epoch {register.epoch} names {sorted(register.holders)}")
            answer(verdict)
            self._work()

        self.clock.after(self.clock.between(0.002, 0.05), durable)

    def crash(self) -> None:
        """The power goes: what was under way was never answered, and is forgotten."""
        if self.up:
            self.world.note("witness", "CRASH")
            self.up, self._busy, self._life = False, False, self._life + 1
            self._queue.clear()
            self._seen.clear()

    def boot(self) -> None:
        """Power again; the leases that were noted are forgotten."""
        if not self.up:
            self.up, self._leases = True, Leases(self.clock.now)


class Claimant:
    """What one daemon asks: the newest claim only, and only its own answer counts."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._asked: Ask | None = None
        self._answered_at = 0.0

    def ask(self, asked: Ask) -> None:
        """Put this claim until it is answered."""
        self._asked, self._answered_at = asked, self.node.clock.now
        self._send(asked)

    def look(self, guard: Guard) -> None:
        """Ask for a renewal of the lease; it counts from now."""
        node, sent_at = self.node, self.node.clock.now

        def renewed() -> None:
            if node.up and not node.paused:
                guard.renewed(sent_at)

        witness = node.world.witness
        self._travels(node.name, lambda: witness.look(node.name, lambda: self._travels("witness", renewed)))

    def withdraw(self) -> None:
        """Nothing is asked any more."""
        self._asked = None

    def _send(self, asked: Ask) -> None:
        node = self.node
        if self._asked is not asked or not node.daemon:
            return
        claim = Claim(
            "cluster",
            "module",
            asked.epoch,
            frozenset(asked.holders),
            frozenset(asked.wanted),
            node.name,
            f"{node.boots}.{node.life}",
            asked.number,
            asked.ground,
        )
        witness = node.world.witness
        self._travels(node.name, lambda: witness.hear(claim, self._reply))
        if node.clock.now - self._answered_at >= SILENT_S:
            node.tell(Silent(f"{self._answered_at:.0f}"))
        node.later(REPEAT_S, lambda: self._send(asked))

    def _reply(self, verdict: Verdict | None) -> None:
        self._travels("witness", lambda: self._held_back() if verdict is None else self._hear(verdict))

    def _held_back(self) -> None:
        node = self.node
        if node.up and node.daemon and not node.paused and self._asked is not None:
            self._answered_at = node.clock.now
            node.tell(Silent(""))

    def _travels(self, sender: str, arrives: Callable[[], None]) -> None:
        """A datagram: once, twice or never; each node has a way of its own to the witness."""
        network, clock = self.node.network, self.node.clock
        if {(WITNESS, self.node.name), (WITNESS, f"{sender}>{self.node.name}")} & network.cuts:
            return
        for delay in network.datagram_delays():
            clock.after(delay * (20 if clock.chance(0.05) else 1), arrives)

    def _hear(self, verdict: Verdict) -> None:
        node, asked = self.node, self._asked
        if not node.up or not node.daemon or asked is None:
            return
        if node.paused:
            node.when_awake(lambda: self._hear(verdict))
            return
        if (verdict.boot, verdict.number) != (f"{node.boots}.{node.life}", asked.number):
            return
        self._asked = None
        node.tell(Answered(verdict.number, verdict.granted, verdict.epoch, tuple(sorted(verdict.holders))))
