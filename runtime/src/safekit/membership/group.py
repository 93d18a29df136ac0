"""Group membership: who is in, decided by one, adopted by all (spec §2, §3.4, §5.2). Pure.

Every member beats at each pulse to all others with its payload, the view that it holds and the nodes that it hears.
Time comes in with each call, in seconds of a clock that never goes back.

A **view** is (epoch, proposer, members); its **leader** is the lowest name among the members. The rules:

1. *The leader decides, the others adopt.* A node adopts a view of a higher epoch that holds itself, from whoever
   tells it. So the epochs that one node goes through only grow, and a new view reaches all even when the leader's own
   beats are lost.
2. *A member must hear and be heard.* The leader keeps the nodes that it heard within `slost_count` pulses and that
   report to hear it: a node that is deaf, or that nobody hears, is out on both sides.
3. *A follower is lost* after `slost_count` pulses of silence at the leader.
4. *The leader is lost* when the next in line has not heard it for `slost_count` pulses and every other member that it
   hears says the same (at least one: a second opinion), or on its own opinion alone after `mlost_count`. The next in
   line is the lowest name among those that lost it. A leader that says goodbye is replaced at once.
5. *Groups that meet again become one*: the leader with the lowest name takes in the other leader and whoever follows
   it. It never takes a node away from a leader that it cannot hear itself (two groups would steal it from each other
   forever). The new epoch is above every epoch heard.
6. *A node that starts* has no view. It waits to be taken in by a leader that it hears; when nobody leads, the lowest
   name among those that start forms the group: at once when all nodes of the configuration are there, else after
   `slost_count` pulses.
7. *Doubt yourself first.* When a tick comes late by more than two pulses, the time asleep is not counted against the
   others, and none of them is declared lost before one more interval.

What a node *is* (in service or not) is no business of the group: it is in the payload, and the owner of the payload
decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor
from typing import Any

from safekit.membership.beat import BYE, NO_VIEW, Beat, WireView, decode_payload, node_id
from safekit.membership.channels import ChannelError, GroupChannel
from safekit.membership.events import (
    LinkDown,
    LinkUp,
    MemberPayload,
    PeerDaemon,
    PulseEvent,
    RanLate,
    View,
    ViewChanged,
)

LATE_PULSES = 2
_NEVER = float("-inf")


@dataclass(slots=True)
class _Link:
    heard: float
    order: tuple[int, int] = (0, 0)
    up: bool | None = None


@dataclass(slots=True)
class _Node:
    """What is known of another node, over all lans."""

    name: str
    id: int
    links: dict[str, _Link] = field(default_factory=dict)
    order: tuple[int, int] = (0, 0)
    last: Beat | None = None
    """The newest beat; None before the first one of this life of the process."""
    encoded: bytes = b""
    payload: dict[str, Any] | None = None
    absent_s: int | None = None
    left: bool = False
    """It said goodbye, and nothing since."""

    @property
    def heard(self) -> float:
        """When it was last heard, on any lan."""
        return max((link.heard for link in self.links.values()), default=_NEVER)


class GroupCore:
    """One channel. Who drives it calls `tick` at `due`, and sends `beat()` to every peer on every lan after a tick
    and when `urgent` is set.
    """

    def __init__(self, channel: GroupChannel, now: float) -> None:
        self.channel = channel
        self._pulse = channel.pulse.total_seconds()
        self._slost = channel.slost_count * self._pulse
        self._mlost = channel.mlost_count * self._pulse
        self._me = node_id(channel.node)
        self._names = {node_id(name): name for name in channel.nodes}
        if len(self._names) != len(channel.nodes):
            raise ChannelError(channel.name, "nodes", channel.nodes, "names whose CRC-32 differ (rename one)")
        self._nodes = {name: _Node(name, node_id(name)) for name in channel.nodes if name != channel.node}
        self._by_id = {node.id: node for node in self._nodes.values()}
        for lan in channel.lans:
            for name, _ in lan.peers:
                self._nodes[name].links[lan.name] = _Link(_NEVER)
        self._started = now
        self._leader_seen: float | None = None
        """While without a view: since when somebody leads whom this node hears."""
        self._excluded: float | None = None
        """Since when the leader holds a newer view without this node."""
        self._wire = NO_VIEW
        self._view: View | None = None
        self._highest = 0
        self._own_payload = b""
        self._quiet_until = now
        self.due = now
        self.urgent = False
        """Something that the others should know before the next pulse."""

    # --- what goes out ----------------------------------------------------------------------------------------

    def publish(self, payload: bytes) -> None:
        """From now on beats carry this encoded payload."""
        self._own_payload = payload

    def beat(self, absent_s: int | None, now: float) -> Beat:
        """What to send now to everybody."""
        self.urgent = False
        heard = frozenset(node.id for node in self._nodes.values() if now - node.heard < self._slost)
        return Beat(payload=self._own_payload, absent_s=absent_s, view=self._wire, heard=heard)

    # --- what comes in ----------------------------------------------------------------------------------------

    def received(self, now: float, lan: str, sender: str, order: tuple[int, int], beat: Beat) -> list[PulseEvent]:
        """An authentic beat of `sender` came over `lan`; `order` is its (incarnation, counter)."""
        node = self._nodes[sender]
        link = node.links.get(lan)
        if link is None:
            return []
        events: list[PulseEvent] = []
        newer = order > node.order
        if beat.kind == BYE:
            if newer:
                node.order, node.last, node.left = order, None, True
                self._goodbye(node, order, events)
                self._decide(now, events)
            return events
        if order > link.order:
            link.order, link.heard = order, now
            if link.up is not True:
                link.up = self.urgent = True
                events.append(LinkUp(self.channel.name, lan, sender))
        if newer:
            node.order, node.last, node.left = order, beat, False
            self._take_content(node, beat, events)
            self._adopt(beat.view, events)
            if self._view is None:
                self._decide(now, events)
        return events

    def _take_content(self, node: _Node, beat: Beat, events: list[PulseEvent]) -> None:
        if beat.payload and beat.payload != node.encoded:
            payload = decode_payload(beat.payload)
            node.encoded = beat.payload
            if payload != node.payload:
                node.payload = payload
                events.append(MemberPayload(self.channel.name, node.name, payload))
        was_absent, node.absent_s = node.absent_s, beat.absent_s
        if (was_absent is None) != (beat.absent_s is None):
            events.append(PeerDaemon(self.channel.name, node.name, beat.absent_s))

    def _goodbye(self, node: _Node, order: tuple[int, int], events: list[PulseEvent]) -> None:
        for lan, link in node.links.items():
            # Beats sent before the goodbye may still come, over any lan: they must not raise the dead.
            link.order, link.heard = max(link.order, order), _NEVER
            if link.up is not False:
                link.up = False
                events.append(LinkDown(self.channel.name, lan, node.name, left=True))

    # --- time passes ------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[PulseEvent]:
        """One pulse: judge the silences, decide; the caller then sends `beat()`."""
        events: list[PulseEvent] = []
        late = now - self.due
        if late > LATE_PULSES * self._pulse:
            events.append(RanLate(self.channel.name, int(late * 1000)))
            self._forgive(late, now)
        # On a grid of pulses that all channels share: one wake-up serves several.
        self.due = (floor(now / self._pulse + 1e-6) + 1) * self._pulse
        for node in self._nodes.values():
            for lan, link in node.links.items():
                if link.up is not False and now - max(link.heard, self._started) >= self._slost:
                    link.up = False
                    events.append(LinkDown(self.channel.name, lan, node.name))
        self._decide(now, events)
        return events

    def _forgive(self, late: float, now: float) -> None:
        """Rule 7. Started, too, is a time from which silence is counted."""
        self._started = min(self._started + late, now)
        for node in self._nodes.values():
            for link in node.links.values():
                was_fresh = now - late - link.heard < self._slost
                link.heard = min(link.heard + late, now)
                if was_fresh:
                    link.heard = max(link.heard, now - self._slost + LATE_PULSES * self._pulse)
        self._quiet_until = now + LATE_PULSES * self._pulse

    def _decide(self, now: float, events: list[PulseEvent]) -> None:
        if self._view is None:
            self._find_group(now, events)
        elif self._view.leader == self.channel.node:
            self._lead(now, events)
        else:
            self._follow(now, events)

    # --- the rules --------------------------------------------------------------------------------------------

    def _fresh(self, node: _Node, now: float) -> bool:
        return now - node.heard < self._slost

    def _mutual(self, node: _Node, now: float) -> bool:
        """Rule 2. Between a restart of this process and the first beat, a member that was one stays one."""
        return self._fresh(node, now) and (node.last is None or self._me in node.last.heard)

    def _leader_of(self, view: WireView) -> str | None:
        """The leader of a view as far as this node knows its members; None without one."""
        return min((self._names[member] for member in view.members if member in self._names), default=None)

    def _adopt(self, view: WireView, events: list[PulseEvent]) -> None:
        """Rule 1."""
        self._highest = max(self._highest, view.epoch)
        if view.epoch > self._wire.epoch and self._me in view.members:
            self._set_view(view, events)

    def _propose(self, members: set[str], events: list[PulseEvent]) -> None:
        self._highest += 1
        self._set_view(WireView(self._highest, self._me, frozenset(map(node_id, members))), events)
        self.urgent = True

    def _set_view(self, view: WireView, events: list[PulseEvent]) -> None:
        members = tuple(sorted(self._names[member] for member in view.members if member in self._names))
        self._wire, self._view = view, View(view.epoch, members[0], members)
        self._excluded = self._leader_seen = None
        events.append(ViewChanged(self.channel.name, self._view))

    def _takes_in(self, node: _Node, now: float) -> bool:
        """Whether this node, leading, may have `node` in its view (rules 2, 3 and 5)."""
        if not self._mutual(node, now):
            return False
        if node.last is None:
            return node.id in self._wire.members
        theirs = node.last.view
        if not theirs.members or theirs == self._wire:
            return True
        if node.id in self._wire.members and theirs.epoch < self._wire.epoch:
            return True
        leader = self._leader_of(theirs)
        if leader is None or leader == self.channel.node:
            return True
        known = self._nodes[leader]
        return (
            leader > self.channel.node
            and self._mutual(known, now)
            and (known.last is None or self._leader_of(known.last.view) in (leader, self.channel.node))
        )

    def _lead(self, now: float, events: list[PulseEvent]) -> None:
        assert self._view is not None
        members = {self.channel.node} | {name for name, node in self._nodes.items() if self._takes_in(node, now)}
        if now < self._quiet_until:
            members |= {name for name in self._view.members if name == self.channel.node or not self._nodes[name].left}
        if members != set(self._view.members) or any(self._went_its_own_way(name) for name in members):
            self._propose(members, events)

    def _went_its_own_way(self, name: str) -> bool:
        """A member that this view names and that meanwhile adopted another one will not come back to this one."""
        node = self._nodes.get(name)
        if node is None or node.last is None or not node.last.view.members:
            return False
        return node.last.view.epoch >= self._wire.epoch and node.last.view != self._wire

    def _follow(self, now: float, events: list[PulseEvent]) -> None:
        assert self._view is not None
        leader = self._nodes[self._view.leader]
        if leader.last is not None and leader.last.view.epoch > self._wire.epoch and self._fresh(leader, now):
            # It decided without us. It hears us again, or we are alone.
            self._excluded = now if self._excluded is None else self._excluded
            if now - self._excluded >= self._slost:
                self._stand_alone(now, events)
            return
        self._excluded = None
        silence = now - leader.heard
        if now < self._quiet_until or (silence < self._slost and not leader.left):
            return
        agree, differ = self._opinions(leader, now)
        next_in_line = all(self.channel.node < name for name in agree)
        proven = leader.left or silence >= self._mlost or (bool(agree) and not differ)
        if proven and next_in_line:
            self._propose({self.channel.node} | agree, events)
        elif silence >= self._mlost + self._slost:
            self._stand_alone(now, events)

    def _opinions(self, leader: _Node, now: float) -> tuple[set[str], set[str]]:
        """Of the members that this node hears: who lost the leader too, and who still hears it (rule 4)."""
        assert self._view is not None
        agree: set[str] = set()
        differ: set[str] = set()
        for name in self._view.members:
            node = self._nodes.get(name)
            if node is None or node is leader or node.last is None or not self._mutual(node, now):
                continue
            still_hears = leader.id in node.last.heard and not leader.left
            if still_hears:
                differ.add(name)
            elif node.last.view == self._wire:
                agree.add(name)
        return agree, differ

    def _stand_alone(self, now: float, events: list[PulseEvent]) -> None:
        """Nobody decides for this node: it leads whoever has nobody either."""
        free = {
            name
            for name, node in self._nodes.items()
            if node.last is not None
            and not node.last.view.members
            and self._mutual(node, now)
            and name > self.channel.node
        }
        self._propose({self.channel.node} | free, events)

    def _find_group(self, now: float, events: list[PulseEvent]) -> None:
        """Rule 6."""
        starting: set[str] = set()
        grouped = False
        for name, node in self._nodes.items():
            if node.last is None or not self._fresh(node, now):
                continue
            if node.last.view.members:
                grouped = True
            elif self._mutual(node, now):
                starting.add(name)
        waited = now - self._started
        if grouped:
            self._leader_seen = now if self._leader_seen is None else self._leader_seen
            if now - self._leader_seen >= self._mlost + self._slost:
                self._stand_alone(now, events)
            return
        self._leader_seen = None
        first = all(self.channel.node < name for name in starting)
        complete = len(starting) == len(self._nodes)
        if (first and (complete or waited >= self._slost)) or waited >= self._slost + self._mlost:
            self._propose({self.channel.node} | starting, events)

    # --- over a restart ---------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """The present state as JSON: for the client, and for the next life of the process."""
        view = self._view
        return {
            "view": None if view is None else [view.epoch, view.leader, list(view.members)],
            "wire": [self._wire.epoch, self._wire.proposer, sorted(self._wire.members)],
            "highest": self._highest,
            "nodes": {
                name: {
                    "links": {lan: link.up for lan, link in node.links.items()},
                    "payload": node.payload,
                    "absent_s": node.absent_s,
                }
                for name, node in self._nodes.items()
            },
        }

    def resume(self, memory: dict[str, Any], now: float) -> None:
        """Go on from a snapshot: every link that was up gets one whole interval from now."""
        epoch, proposer, members = memory["wire"]
        wire = WireView(epoch, proposer, frozenset(members))
        names = tuple(sorted(self._names[member] for member in members if member in self._names))
        if self.channel.node in names:
            self._wire, self._view = wire, View(epoch, names[0], names)
        self._highest = max(memory["highest"], epoch)
        for name, known in memory["nodes"].items():
            node = self._nodes.get(name)
            if node is None:
                continue
            node.payload, node.absent_s = known["payload"], known["absent_s"]
            for lan, up in known["links"].items():
                if lan in node.links:
                    node.links[lan].up = up
                    node.links[lan].heard = now if up else _NEVER
