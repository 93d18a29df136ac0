"""One channel at work: its core, its seals and its sockets. Turns datagrams into events and pulses into datagrams;
decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safekit import groups
from safekit.membership import beat as beats
from safekit.membership.beat import Beat, Malformed
from safekit.membership.channels import PROMISE, Channel, HeartbeatChannel
from safekit.membership.events import LinkTrouble, PulseEvent, Refused
from safekit.membership.group import GroupCore
from safekit.membership.heartbeat import LIFE, HeartbeatCore
from safekit.membership.keeper import LeaseKeeper
from safekit.membership.release import release
from safekit.membership.sealed import Opener, Refusal, Sealer
from safekit.membership.sockets import LinkSocket
from safekit.membership.state import Lives

_GOODBYES = 3
"""Copies of the last beat: one may be lost, and there is no next pulse to repeat it."""
_SOURCES_REMEMBERED = 256
_NOTICE_EVERY_S = 1.0
_LASTING = ("replayed", "old incarnation")
"""Refusals that a good datagram of the same source does not make void."""


class Runner:
    """Drives one channel. Events go to `tell`."""

    def __init__(
        self,
        channel: Channel,
        lives: Lives,
        now: float,
        tell: Callable[[PulseEvent], None],
    ) -> None:
        self.channel = channel
        self.payload: dict[str, Any] | None = None
        self._tell, self._lives = tell, lives
        self._targets: dict[str, list[str]]
        self.core: HeartbeatCore | GroupCore
        if isinstance(channel, HeartbeatChannel):
            self.core = HeartbeatCore(channel, now)
            self._senders: tuple[str, ...] = (channel.peer,)
            self._targets = {link.ident: [link.remote] for link in channel.links}
            local = {link.ident: link.local for link in channel.links}
        else:
            self.core = GroupCore(channel, now)
            self._senders = tuple(node for node in channel.nodes if node != channel.node)
            self._targets = {lan.name: [address for _, address in lan.peers] for lan in channel.lans}
            local = {lan.name: lan.local for lan in channel.lans}
        self.sockets = {ident: LinkSocket(address, channel.port) for ident, address in local.items()}
        self._troubles: dict[str, str | None] = dict.fromkeys(self.sockets)
        self._opener = Opener(channel.name, self.sockets, channel.key, self._senders)
        self._refused: set[tuple[str, str]] = set()
        self._noticed: dict[str, float] = {}
        self.refusals = 0
        self.keeper = LeaseKeeper(channel.name)
        self._begin_life()

    @property
    def _is_group(self) -> bool:
        return isinstance(self.core, GroupCore)

    def _begin_life(self) -> None:
        # A life of its own for each runner: its counter starts anew, so its keys must be new.
        self._life = self._lives.next()
        self._sealer = Sealer(self.channel.name, self.sockets, self.channel.key, self.channel.node, self._life)
        self.keeper.begin_life()

    # --- sending ----------------------------------------------------------------------------------------------

    def publish(self, payload: dict[str, Any], now: float, absent_s: int | None) -> None:
        """Carry this payload from now on, and send it at once; raises `PayloadTooLarge` and changes nothing then."""
        encoded = beats.fit_payload(self.channel, payload)
        if isinstance(self.core, HeartbeatCore):
            self.core.publish(encoded, promise_of(payload))
        else:
            self.core.publish(encoded)
        self.payload = payload
        self._send(list(self.sockets), now, absent_s)

    def tick(self, now: float, absent_s: int | None) -> None:
        """What the pulse of this moment asks for."""
        if isinstance(self.core, HeartbeatCore):
            idents, events = self.core.tick(now)
        else:
            idents, events = list(self.sockets), self.core.tick(now)
        self._send(idents, now, absent_s)
        for event in events:
            self._tell(event)

    @property
    def due(self) -> float:
        """When `tick` or `keep` wants to be called."""
        return min(self.core.due, self.keeper.due)

    def keep(self, now: float) -> None:
        """Look at the lease; when it ran out the addresses go first, whoever is or is not there to be told, and the
        application does not live to see its end.
        """
        events = self.keeper.tick(now)
        if addresses := self.keeper.releases(now):
            release(addresses)
        if ended := self.keeper.ends(now):
            groups.end(ended)
        for event in events:
            self._tell(event)

    @property
    def length(self) -> float:
        """Of the lease, in seconds."""
        return self.keeper.length

    def is_safe(self, now: float, seconds: float) -> bool:
        """Whether nothing outlives the lease of this node if the machine were reset after so many seconds."""
        if self.keeper.lasts(now, seconds):
            return True
        return self.keeper.ended and bool(self.keeper.groups) and groups.are_empty(self.keeper.groups)

    def goodbye(self) -> None:
        """The last beats, and the sockets closed."""
        body = beats.encode(Beat(beats.BYE))
        for ident, link in self.sockets.items():
            for _ in range(_GOODBYES):
                link.send(self._sealer.seal(ident, body), self._targets[ident])
        self.close()

    def close(self) -> None:
        """The sockets closed, nothing said."""
        for link in self.sockets.values():
            link.close()

    def _send(self, idents: list[str], now: float, absent_s: int | None) -> None:
        beat = self.core.beat(absent_s) if isinstance(self.core, HeartbeatCore) else self.core.beat(absent_s, now)
        body = beats.encode(beat)
        for ident in idents:
            datagram = self._sealer.seal(ident, body)
            self.keeper.sent(self._sealer.counter, now)
            self.sockets[ident].send(datagram, self._targets[ident])
        self.tell_troubles()

    def tell_troubles(self) -> None:
        """Say what began or ended to be wrong with a link of this node."""
        for ident, link in self.sockets.items():
            if link.trouble != self._troubles[ident]:
                self._troubles[ident] = link.trouble
                self._tell(LinkTrouble(self.channel.name, ident, link.trouble))

    # --- receiving --------------------------------------------------------------------------------------------

    def receive(self, ident: str, now: float, absent_s: int | None) -> None:
        """Take what has arrived on a link."""
        link = self.sockets[ident]
        for datagram, source in link.received():
            opened = self._opener.open(ident, datagram)
            if isinstance(opened, Refusal):
                self._refuse(link, ident, source, opened, now)
                continue
            if self._refused:
                self._refused = {(at, why) for at, why in self._refused if at != source or why in _LASTING}
            try:
                beat = beats.decode(opened.body)
                if beat.kind == beats.NOTICE:
                    if beat.view.epoch >= self._life.number:
                        self._lives.exceed(beat.view.epoch)
                        self._begin_life()
                    continue
                if beat.view.epoch and beat.view.proposer == self._life.number & LIFE and not self._is_group:
                    self.keeper.heard(beat.view.epoch)
                events = self.core.received(now, ident, opened.sender, (opened.incarnation, opened.counter), beat)
            except Malformed:
                self._refuse(link, ident, source, Refusal("version differs", opened.sender), now)
                continue
            for event in events:
                self._tell(event)
        if self.core.urgent:
            self._send(list(self.sockets), now, absent_s)

    def _refuse(self, link: LinkSocket, ident: str, source: str, refusal: Refusal, now: float) -> None:
        self.refusals += 1
        if refusal.reason == "old incarnation" and refusal.sender is not None:
            self._notice(link, ident, source, refusal.sender, refusal.last, now)
        seen = (source, refusal.reason)
        if seen not in self._refused and len(self._refused) < _SOURCES_REMEMBERED:
            self._refused.add(seen)
            self._tell(Refused(self.channel.name, source, refusal.reason, refusal.sender))

    def _notice(self, link: LinkSocket, ident: str, source: str, sender: str, last: int, now: float) -> None:
        """The sender's clock went back over a reboot: tell it which life it must exceed, or nobody ever believes it."""
        if now - self._noticed.get(sender, float("-inf")) >= _NOTICE_EVERY_S:
            self._noticed[sender] = now
            notice = Beat(beats.NOTICE, view=beats.WireView(last, 0, frozenset()))
            link.answer(self._sealer.seal(ident, beats.encode(notice)), source)

    # --- over a restart ---------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """The present state as JSON, for the client."""
        return self.core.snapshot() | {
            "troubles": {ident: why for ident, why in self._troubles.items() if why is not None}
        }

    def memory(self) -> dict[str, Any]:
        """What the next life of this channel must know."""
        return {
            "of": self._senders,
            "core": self.core.snapshot(),
            "floors": self._opener.floors(),
            "lease": self.keeper.memory(),
        }

    def resume(self, memory: dict[str, Any], now: float, recent: bool) -> None:
        """Take up the memory of an earlier life; `recent`: it ended a moment ago, so what was up may be presumed up."""
        self._opener = Opener(self.channel.name, self.sockets, self.channel.key, self._senders, memory["floors"])
        alike = isinstance(self.core, GroupCore) == ("wire" in memory["core"])
        if recent and alike and (isinstance(self.core, GroupCore) or list(memory["of"]) == list(self._senders)):
            self.core.resume(memory["core"], now)
            if "lease" in memory:
                self.keeper.resume(memory["lease"], now)


def promise_of(payload: dict[str, Any]) -> int:
    """What a payload promises; 0 when nothing."""
    promise = payload.get(PROMISE, 0)
    return promise if isinstance(promise, int) else 0
