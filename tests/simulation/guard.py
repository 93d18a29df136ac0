"""The guard of one node: ends the application and takes the address away when the lease of production runs out.

It lives where the pulse lives: no daemon, script or disk delays it. A machine that stood still looks at its lease before
anything else that it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safekit.automaton.mirror import Lapsed, keeps_lease, leased
from safekit.automaton.vocabulary import Role
from safekit.lease import Lease
from tests.simulation.witness import Claimant

if TYPE_CHECKING:
    from tests.simulation.node import Node

LOOKS = 8
"""How often a lease is looked at, and the witness asked, in its length."""


class Guard:
    """`cut` from the moment in which it gave up until the module serves no more: nothing may be started meanwhile."""

    def __init__(self, node: Node, length: float) -> None:
        self.node = node
        self.lease = Lease(length)
        self.keeps = self.armed = self.cut = False
        self._turns = 0

    def renewed(self, sent_at: float) -> None:
        """The other node or the witness answered what was sent then."""
        self.lease = self.lease.renewed(sent_at)

    def told(self) -> None:
        """The automaton took a step: whether it needs a lease, and whether it serves at all."""
        state = self.node.state
        if self.cut and state.role not in (Role.ALONE, Role.PRIM):
            self.cut = False
        kept, self.keeps, self.armed = self.keeps, keeps_lease(state), leased(state)
        if self.keeps and not kept:
            self._turns += 1
            self._turn(self._turns)

    def woke(self) -> None:
        """The machine stood still."""
        self._look()

    def stop(self) -> None:
        """The power is gone."""
        self.keeps = self.armed = self.cut = False

    def _turn(self, turn: int) -> None:
        if turn != self._turns or not (self.keeps or self.cut):
            return
        self._look()
        self.node.clock.after(self.lease.length / LOOKS / 4, lambda: self._turn(turn))

    def _look(self) -> None:
        node, now = self.node, self.node.clock.now
        if node.paused or not node.up or not (self.keeps or self.cut):
            return
        if self.armed and not self.cut and now >= self.lease.gives_up_at:
            self.cut = True
            node.world.note(node.name, "gives up: its lease runs out")
            node.vip = False
            node.tell(Lapsed("neither the other node nor the witness is heard"))
        if self.cut and now >= self.lease.over_at:
            node.running = False
        if not self.cut and now >= self.lease.asks_at:
            assert isinstance(node.claimant, Claimant)
            node.claimant.look(self)
