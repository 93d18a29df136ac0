"""The heartbeats of one mirror module: which links to the peer are up, and what the peer says (spec §3.3, §4.4). Pure.

Time comes in with each call, in seconds of a clock that never goes back. A link is up from a beat on, and down when
none came for its time-out. The peer is lost when all links are down. Before the first time-out has passed, a link
without a beat is neither.

Order: beats carry one counter over all links. Content (payload, daemon present) is taken only from a beat newer than
the last one taken; a link is refreshed only by a beat newer than the last one on that link, so a datagram that was
long under way proves nothing.

A secondary that promises (`PROMISE` in its payload) to act on no silence but one that it is told of renews the lease of its
peer: it answers each beat at once, and every beat of it names the newest one that it heard. It does so only while it has told
of no silence since: the promise is one more than the number of the last silence.

A node doubts itself first: a tick that comes late by more than two pulses does not count the time it slept against
the peer.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Any

from safekit.membership.beat import BYE, NO_VIEW, Beat, WireView, decode_payload
from safekit.membership.channels import HeartbeatChannel
from safekit.membership.events import (
    LinkDown,
    LinkUp,
    PeerAlive,
    PeerDaemon,
    PeerLost,
    PeerPayload,
    PulseEvent,
    RanLate,
)

LATE_PULSES = 2
LIFE = 0xFFFFFFFF
"""What a beat names of the life of its peer: the low bits of its number."""


@dataclass(slots=True)
class _Link:
    pulse: float
    timeout: float
    due: float
    heard: float
    order: tuple[int, int] = (0, 0)
    up: bool | None = None


class HeartbeatCore:
    """One channel. Who drives it calls `tick` at `due` and sends `beat()` on the idents that it returns."""

    def __init__(self, channel: HeartbeatChannel, now: float) -> None:
        self.channel = channel
        self._links = {
            link.ident: _Link(link.pulse.total_seconds(), link.timeout.total_seconds(), now, now)
            for link in channel.links
        }
        self._order = (0, 0)
        self._alive: bool | None = None
        self._encoded: bytes = b""
        self._payload: dict[str, Any] | None = None
        self._peer_absent: int | None = None
        self._own_payload: bytes = b""
        self._promise = 0
        self._answered = float("-inf")
        self._losses = int(now * 1000)
        """The number of the last silence that was told; above all of an earlier life of this process."""
        self.urgent = False
        """A link came up: answer at once, so that the peer need not wait for the next pulse to know."""

    @property
    def due(self) -> float:
        """When `tick` wants to be called."""
        return min(
            min(link.due, link.heard + link.timeout) if link.up is not False else link.due
            for link in self._links.values()
        )

    @property
    def newest(self) -> tuple[int, int]:
        """(incarnation, counter) of the newest beat taken."""
        return self._order

    @property
    def promises(self) -> bool:
        """Whether what is heard of the peer renews its lease."""
        return self._alive is True and self._promise == self._losses + 1

    def publish(self, payload: bytes, promise: int = 0) -> None:
        """From now on beats carry this encoded payload, and stand for this promise."""
        self._own_payload, self._promise = payload, promise

    def beat(self, absent_s: int | None) -> Beat:
        """What to send now."""
        self.urgent = False
        life, counter = self._order
        heard = WireView(counter, life & LIFE, frozenset()) if self.promises else NO_VIEW
        return Beat(payload=self._own_payload, absent_s=absent_s, view=heard)

    def tick(self, now: float) -> tuple[list[str], list[PulseEvent]]:
        """The idents to beat on now, and what silence has meant."""
        send: list[str] = []
        events: list[PulseEvent] = []
        late = now - self.due
        if late > LATE_PULSES * min(link.pulse for link in self._links.values()):
            events.append(RanLate(self.channel.name, int(late * 1000)))
            for link in self._links.values():
                # The time asleep is not the peer's silence; and never less than one more interval.
                link.heard = max(min(link.heard + late, now), now - link.timeout + LATE_PULSES * link.pulse)
        for ident, link in self._links.items():
            if now >= link.due:
                send.append(ident)
                # On a grid of pulses that all channels share: one wake-up serves several.
                link.due = (floor(now / link.pulse + 1e-6) + 1) * link.pulse
            if link.up is not False and now - link.heard >= link.timeout:
                link.up = False
                events.append(LinkDown(self.channel.name, ident, self.channel.peer))
        self._judge_peer(events, left=False)
        return send, events

    def received(self, now: float, ident: str, sender: str, order: tuple[int, int], beat: Beat) -> list[PulseEvent]:
        """An authentic beat of the peer came over `ident`; `order` is its (incarnation, counter)."""
        assert sender == self.channel.peer
        events: list[PulseEvent] = []
        link = self._links[ident]
        newer = order > self._order
        if newer:
            self._order = order
        if beat.kind == BYE:
            if newer:
                self._goodbye(now, order, events)
            return events
        if order > link.order:
            link.order, link.heard = order, now
            if link.up is not True:
                link.up = self.urgent = True
                events.append(LinkUp(self.channel.name, ident, self.channel.peer))
        self._judge_peer(events, left=False)
        if newer:
            self._take_content(beat, events)
            self._answer(now)
        return events

    def _answer(self, now: float) -> None:
        """A beat that renews a lease is answered at once; two nodes that both promise for a moment do not talk without end."""
        if self.promises and now - self._answered >= min(link.pulse for link in self._links.values()) / 2:
            self._answered, self.urgent = now, True

    def _take_content(self, beat: Beat, events: list[PulseEvent]) -> None:
        if beat.payload and beat.payload != self._encoded:
            payload = decode_payload(beat.payload)
            self._encoded = beat.payload
            if payload != self._payload:
                self._payload = payload
                events.append(PeerPayload(self.channel.name, self.channel.peer, payload))
        was_absent, self._peer_absent = self._peer_absent, beat.absent_s
        if (was_absent is None) != (beat.absent_s is None):
            events.append(PeerDaemon(self.channel.name, self.channel.peer, beat.absent_s))

    def _goodbye(self, now: float, order: tuple[int, int], events: list[PulseEvent]) -> None:
        for ident, link in self._links.items():
            # A beat sent before the goodbye may still come, over any link: it must not raise the dead.
            link.order = max(link.order, order)
            link.heard = now - link.timeout
            if link.up is not False:
                link.up = False
                events.append(LinkDown(self.channel.name, ident, self.channel.peer, left=True))
        self._judge_peer(events, left=True)

    def _judge_peer(self, events: list[PulseEvent], left: bool) -> None:
        states = [link.up for link in self._links.values()]
        alive = True if True in states else None if None in states else False
        if alive is None or alive == self._alive:
            return
        self._alive = alive
        self._losses += not alive
        peer = self.channel.peer
        events.append(
            PeerAlive(self.channel.name, peer) if alive else PeerLost(self.channel.name, peer, left, self._losses)
        )

    # --- over a restart ---------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """The present state as JSON: for the client, and for the next life of the process."""
        return {
            "links": {ident: link.up for ident, link in self._links.items()},
            "alive": self._alive,
            "payload": self._payload,
            "absent_s": self._peer_absent,
            "losses": self._losses,
        }

    def resume(self, memory: dict[str, Any], now: float) -> None:
        """Go on from a snapshot: what was up gets one whole time-out from now; what was down stays down."""
        for ident, up in memory["links"].items():
            if ident in self._links:
                self._links[ident].up = up
                self._links[ident].heard = now
        self._payload = memory["payload"]
        self._peer_absent = memory["absent_s"]
        self._losses = memory.get("losses", self._losses)
        states = [link.up for link in self._links.values()]
        self._alive = True if True in states else None if None in states else False
