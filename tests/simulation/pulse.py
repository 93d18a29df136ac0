"""Heartbeats of one node: repeats the last published word, judges the peer's silence. Goes on while the daemon is away.

A beat says when it was sent. A secondary whose word holds a promise answers each beat with the newest such time that it
heard, as long as it took no silence for the other's end that its daemon does not know of: that renews the other's lease.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from safekit.automaton.mirror import PeerView

if TYPE_CHECKING:
    from tests.simulation.node import Node

PERIOD_S = 1.0


class Pulse:
    """The channel of the module on one node, as `safekit.membership` promises it: older words never follow newer ones."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.on = False
        self.word = PeerView()
        self.view = PeerView()
        self.losses = 0
        self._heard_at = 0.0
        self._sent_at = float("-inf")
        """The newest time that the peer said in a beat."""
        self._turn = 0

    def open(self) -> None:
        """Begin to beat and to listen."""
        if self.on:
            return
        self.on, self.view, self._heard_at = True, PeerView(), self.node.clock.now
        self._turn += 1
        self._sent_at = float("-inf")
        self._beat(self._turn)

    def listen_anew(self) -> None:
        """The peer's silence counts from now on."""
        if self.on and self.view.alive is False:
            self._heard_at = self.node.clock.now
            self._take(replace(self.view, alive=None))

    def close(self, goodbye: bool) -> None:
        """End; a goodbye tells the peer at once."""
        if self.on and goodbye:
            self._send(self.node.peer.pulse.left)
        self.on, self.view = False, PeerView()
        self._turn += 1

    def say(self, word: PeerView) -> None:
        """From now on beats carry this word; one goes at once."""
        self.word = word
        if self.on:
            self._send_word()

    def woke(self) -> None:
        """The machine stood still: that time is not the peer's silence."""
        self._heard_at = self.node.clock.now

    @property
    def _period_s(self) -> float:
        lease = self.node.world.lease_s
        return lease / 5 if lease else PERIOD_S

    def _beat(self, turn: int) -> None:
        if turn != self._turn or not self.on:
            return
        if not self.node.paused:
            self._send_word()
            if self.view.alive is not False and self.node.clock.now - self._heard_at >= self.node.world.timeout_s:
                self._take(replace(self.view, alive=False))
        self.node.clock.after(self._period_s, lambda: self._beat(turn))

    def _send_word(self) -> None:
        word, peer = self.word, self.node.peer.pulse
        if self.node.paused or not self.node.up:
            return
        promised = self.promised
        echo, sent_at = self._sent_at if promised else None, self.node.clock.now
        for delay in self.node.network.beat_delays(self.node.name):
            self.node.clock.after(delay, lambda: peer.hear(word, sent_at, echo))

    @property
    def promised(self) -> bool:
        """Whether what the peer sends renews its lease."""
        return self.on and self.view.alive is True and self.word.promise == self.losses + 1

    def _send(self, what: Callable[[int], None]) -> None:
        version = self.word.version
        for delay in self.node.network.beat_delays(self.node.name):
            self.node.clock.after(delay, lambda: what(version))

    def hear(self, word: PeerView, sent_at: float, echo: float | None) -> None:
        """A beat of the peer arrived, which was sent then; `echo` is the newest time of a beat that the peer heard."""
        if not self.on or self.node.paused or word.version < self.view.version:
            return
        self._heard_at = self.node.clock.now
        newer, self._sent_at = sent_at > self._sent_at, max(self._sent_at, sent_at)
        if echo is not None:
            self.node.guard.renewed(echo)
        if word.version > self.view.version or self.view.alive is not True:
            self._take(replace(word, alive=True))
        if newer and self.promised:
            self._send_word()

    def left(self, version: int) -> None:
        """The peer said goodbye; a beat sent before may still come, and does not raise it."""
        if self.on and not self.node.paused and version >= self.view.version:
            self._take(replace(self.view, alive=False, version=version + 1))

    def _take(self, view: PeerView) -> None:
        if view.alive is False:
            self.losses += 1
        self.view = replace(view, losses=self.losses)
        self.node.tell(self.view)
