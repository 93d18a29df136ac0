"""The fence of a node in the simulated world: it takes the other machine's power away, refuses, or does it and says nothing.

What becomes of a claim is the ruling of production. An order that is under way is carried out also when who gave it dies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safekit.automaton.mirror import Answered, Silent
from safekit.automaton.mirror.fencing import Ruling, next_epoch, ruling
from safekit.automaton.vocabulary import Ask, Role
from safekit.module.fencer import AGAIN_S, SECONDARY_AFTER_S

if TYPE_CHECKING:
    from tests.simulation.node import Node

LOOK_S = 0.2


class Fence:
    """What one daemon asks; in the place of `Claimant`."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._asked: Ask | None = None
        self._since = 0.0

    def ask(self, asked: Ask) -> None:
        """Put this claim in place of the one before."""
        self._asked, self._since = asked, self.node.clock.now
        self._rule(asked)

    def withdraw(self) -> None:
        """Nothing is asked any more."""
        self._asked = None

    def _rule(self, asked: Ask) -> None:
        node, clock = self.node, self.node.clock
        if self._asked is not asked or not node.daemon or not node.up:
            return
        if node.paused:
            node.when_awake(lambda: self._rule(asked))
            return
        match ruling(node.state, asked):
            case Ruling.GRANTED:
                self._answer(asked, True)
            case Ruling.REFUSED:
                self._answer(asked, False)
            case Ruling.HEARD:
                node.tell(Silent("the other node is heard"))
                node.later(LOOK_S, lambda: self._rule(asked))
            case Ruling.PROVE if node.state.role is Role.SECOND and clock.now - self._since < SECONDARY_AFTER_S:
                node.later(LOOK_S, lambda: self._rule(asked))
            case Ruling.PROVE:
                self._shoot(asked)

    def _shoot(self, asked: Ask) -> None:
        node, clock = self.node, self.node.clock
        fate = clock.random.choices(("off", "refused", "off, unheard"), (70, 15, 15))[0]
        node.world.note(node.name, f"fences {node.peer_name}: {fate}")

        def off() -> None:
            if node.peer.up:
                node.peer.crash()
                clock.after(clock.between(1, 15), lambda: node.peer.boot(True))

        takes = clock.between(0.1, 3.0)
        if fate != "refused":
            clock.after(takes, off)
        said = clock.between(takes, takes + 1.0)
        node.later(said, lambda: self._told(asked, fate == "off"))

    def _told(self, asked: Ask, proven: bool) -> None:
        if self._asked is not asked:
            return
        if self.node.paused:
            self.node.when_awake(lambda: self._told(asked, proven))
        elif proven:
            self._answer(asked, True)
        else:
            self.node.tell(Silent(f"fencing of {self.node.peer_name} failed"))
            self.node.later(AGAIN_S, lambda: self._rule(asked))

    def _answer(self, asked: Ask, granted: bool) -> None:
        node, self._asked = self.node, None
        if granted:
            node.tell(Answered(asked.number, True, next_epoch(node.state, asked), asked.wanted))
        else:
            node.tell(Answered(asked.number, False, node.state.register.epoch, node.state.register.holders))
