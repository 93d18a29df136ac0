"""What must hold after every step, in the product's words. `Broken` carries the sentence and the world's story.

What policy `none` can promise, and what is checked here:

* A write acknowledged in mirror mode is on every node that becomes primary, whatever the network does, unless both
  nodes lost memory since (and if it was acknowledged as durable, even then). Losing the network may give two
  histories; each holds what was mirrored.
* In a calm world (no network fault, no machine that stands still, no administrator who forces) there is one history:
  every acknowledged write, mirrored or alone, is on the next primary unless the machine that held it lost it with its
  power; and the application never runs twice.

Policy `witness` promises more, in every weather, unless an administrator forces:

* At no time two nodes may answer a write without their peer.
* At no time two nodes have the address or run the application (a machine that stands still does neither), whatever is cut and
  however long one stood still: where another could be named, a node runs it on a lease.
* There is one history: every acknowledged write is on the next primary, unless the only machine that had it, or both,
  lost their memory since.
* The epoch of the register in a record never goes back.

Policy `manual` promises the same history. Policy `fence` promises what `witness` does, and that the application never runs
twice, in any weather.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safekit.automaton import data
from safekit.automaton.data import DataRecord, Holder
from safekit.automaton.mirror import MirrorState, Policy
from safekit.automaton.vocabulary import Readiness, Role, Wish

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class Broken(AssertionError):
    """A law does not hold."""


@dataclass
class Write:
    """An acknowledged write: who acknowledged it, and which machines lost their memory since."""

    mirrored: bool
    fsync: bool
    node: str
    lost_by: frozenset[str] = frozenset()


class Laws:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.acked: dict[int, Write] = {}
        self._begun: dict[int, dict[str, int]] = {}
        self.generations: dict[str, tuple[str, int]] = {}
        self._steps: dict[str, tuple[int, int]] = {}

    def hold(self) -> None:
        """What must hold between any two things that happen."""
        if self.world.policy is Policy.NONE or self.world.forced:
            return
        nodes = tuple(self.world.nodes.values())
        if all(node.plane.free for node in nodes):
            self.broken("two nodes may answer writes without each other")
        if self.world.lease_s and all(node.up and not node.paused and (node.running or node.vip) for node in nodes):
            self.broken("two nodes serve at the same time")

    def broken(self, sentence: str) -> None:
        """Stop here."""
        raise Broken(f"{sentence}\n{self.world.story()}")

    # --- data ---------------------------------------------------------------------------------------------------------

    def begun(self, write: int) -> None:
        """The application asked for it: a machine that loses its power from now on may lose it."""
        self._begun[write] = {node.name: node.boots for node in self.world.nodes.values()}

    def acknowledged(self, write: int, node: str, mirrored: bool, fsync: bool) -> None:
        """The application heard that its write is done."""
        boots = self._begun.pop(write, {})
        # Before the record says so the other copy counts for nothing: what was not synced is on this disk at best.
        says_both = (self.world.nodes[node],) if self.world.policy is Policy.NONE else self.world.nodes.values()
        mirrored &= all(n.record_on_disk.holder is Holder.BOTH for n in says_both)
        nodes = self.world.nodes.values() if mirrored else ()
        without = frozenset(n.name for n in nodes if write not in n.copy.memory or n.boots != boots.get(n.name))
        self.acked[write] = Write(mirrored, fsync, node, without)

    def crashed(self, node: Node, lost: set[int]) -> None:
        """The machine lost its memory."""
        for number, write in self.acked.items():
            if number in lost or not write.fsync:
                write.lost_by |= {node.name}

    def _must_survive(self, write: Write) -> bool:
        if not write.mirrored:
            stormy = self.world.stormy and self.world.policy is Policy.NONE
            return not stormy and not self.world.forced and write.node not in write.lost_by
        return write.fsync or len(write.lost_by) < 2

    def serves(self, node: Node) -> None:
        """The node's application may write from now on."""
        if node.peer.plane.mode == "primary" and not self.world.stormy and not self.world.forced:
            self.broken(f"two primaries without any network fault: {node.name} joins {node.peer_name}")
        if self._was_forced(node):
            self._given_up(node)
        if missing := self._missing(node):
            self.broken(f"{node.name} serves without the acknowledged writes {missing}")

    def _missing(self, node: Node) -> list[int]:
        """What must survive and this node does not have."""
        return [n for n, write in self.acked.items() if n not in node.copy.memory and self._must_survive(write)]

    def _was_forced(self, node: Node) -> bool:
        """Whether an administrator makes it the primary, whatever the other has."""
        return self.world.forced and node.state.row == "alone" and node.state.reason == "prim called"

    def _given_up(self, node: Node) -> None:
        """An administrator gave up what this node does not have."""
        for number in self._missing(node):
            del self.acked[number]

    def overwritten(self, node: Node, source: Node, content: frozenset[int]) -> None:
        """A resynchronisation replaces the node's copy by the source's."""
        for number in node.copy.memory - content:
            write = self.acked.get(number)
            if write is None:
                continue
            if self.world.forced:
                del self.acked[number]
            elif self._must_survive(write):
                self.broken(f"the copy from {source.name} removes the acknowledged write {number} from {node.name}")
        for number in content & self.acked.keys():
            # what is under way while the source loses its power is on this node only
            has = {node.name, source.name} if number in source.copy.memory else {node.name}
            self.acked[number].lost_by -= has

    def recorded(self, node: Node, record: DataRecord) -> None:
        """A record is about to be on disk."""
        before = node.record_on_disk
        if record.epoch < before.epoch:
            self.broken(f"the epoch of {node.name} goes back from {before.epoch} to {record.epoch}")
        if record.granted < before.granted:
            self.broken(f"the register's epoch of {node.name} goes back from {before.granted} to {record.granted}")
        if record.holder is Holder.ME and self._was_forced(node):
            self._given_up(node)  # also when it loses its power before it serves
        if record.holder is Holder.ME and record.generation != before.generation:
            owner = (node.name, node.state.serial)
            if self.generations.setdefault(record.generation, owner) != owner:
                self.broken(f"the generation {record.generation} is created twice")

    # --- states -------------------------------------------------------------------------------------------------------

    def application_started(self, node: Node) -> None:
        """start_prim begins."""
        stormy = self.world.stormy and self.world.policy is not Policy.FENCE
        if node.peer.running and not stormy and not self.world.forced:
            self.broken(f"the application runs on both nodes: {node.name} starts it beside {node.peer_name}")
        if not node.vip:
            self.broken(f"{node.name} starts the application without the virtual address")

    def script_blocked(self, node: Node) -> None:
        """A stop script waited for a held write until its time limit."""
        if node.state.asked is None:  # else the node is blocked: peer and witness are silent
            self.broken(f"the stop script of {node.name} waits for a write that nobody answers")

    def moved(self, node: Node, before: MirrorState) -> None:
        """The automaton took a step."""
        state = node.state
        if node.vip and state.role in (Role.STOP, Role.WAIT, Role.SECOND):
            self.broken(f"{node.name} holds the virtual address in {state.role}")
        if before.role is Role.WAIT and before.row != "alone" and state.row == "alone" and before.wish is not Wish.PRIM:
            self._started_by_itself(node, state)
        if state.role is Role.SECOND and state.readiness is Readiness.READY and before.readiness is not Readiness.READY:
            self._ready(node)
        self._no_spin(node)

    def _started_by_itself(self, node: Node, state: MirrorState) -> None:
        if not state.replicated:
            return
        record = state.record
        if not record.consistent or node.copy.partial or not record.generation:
            self.broken(f"{node.name} starts by itself on inconsistent or never synchronised data")
        named = state.policy in (Policy.WITNESS, Policy.FENCE) and state.grant > record.granted
        given = (
            state.lapsed
            and state.peer.record.holder is Holder.PEER
            and state.peer.record.generation == record.generation
        )
        if not state.peer.alive and not data.may_start_alone(record) and not named and not given:
            self.broken(f"{node.name} starts by itself though its record says {record.holder}")

    def _ready(self, node: Node) -> None:
        if self.world.replicated and node.record_on_disk.holder is not Holder.BOTH:
            self.broken(f"{node.name} is SECOND Ready and its record says {node.record_on_disk.holder}")
        if self.world.policy is Policy.WITNESS and not self.world.forced:
            register, granted = self.world.witness.disk, node.record_on_disk.granted
            at_it = register is not None and register.epoch == granted  # else the primary went on since
            if granted == 0 or (register is not None and at_it and node.name not in register.holders):
                self.broken(f"{node.name} is SECOND Ready and the register does not name it")

    def _no_spin(self, node: Node) -> None:
        second = int(self.world.clock.now)
        count, at = self._steps.get(node.name, (0, second))
        count = count + 1 if at == second else 1
        self._steps[node.name] = (count, second)
        if count > 400:
            self.broken(f"{node.name} does not come to rest: {count} steps in one second")
