"""Heartbeats of one node: repeats the last published word, judges the peer's silence. Goes on while the daemon is away."""

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
        self._heard_at = 0.0
        self._turn = 0

    def open(self) -> None:
        """Begin to beat and to listen."""
        if self.on:
            return
        self.on, self.view, self._heard_at = True, PeerView(), self.node.clock.now
        self._turn += 1
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

    def _beat(self, turn: int) -> None:
        if turn != self._turn or not self.on:
            return
        if not self.node.paused:
            self._send_word()
            if self.view.alive is not False and self.node.clock.now - self._heard_at >= self.node.world.timeout_s:
                self._take(replace(self.view, alive=False))
        self.node.clock.after(PERIOD_S, lambda: self._beat(turn))

    def _send_word(self) -> None:
        word, peer = self.word, self.node.peer.pulse
        if self.node.paused or not self.node.up:
            return
        for delay in self.node.network.beat_delays(self.node.name):
            self.node.clock.after(delay, lambda: peer.hear(word))

    def _send(self, what: Callable[[int], None]) -> None:
        version = self.word.version
        for delay in self.node.network.beat_delays(self.node.name):
            self.node.clock.after(delay, lambda: what(version))

    def hear(self, word: PeerView) -> None:
        """A beat of the peer arrived."""
        if not self.on or self.node.paused or word.version < self.view.version:
            return
        self._heard_at = self.node.clock.now
        if word.version > self.view.version or self.view.alive is not True:
            self._take(replace(word, alive=True))

    def left(self, version: int) -> None:
        """The peer said goodbye; a beat sent before may still come, and does not raise it."""
        if self.on and not self.node.paused and version >= self.view.version:
            self._take(replace(self.view, alive=False, version=version + 1))

    def _take(self, view: PeerView) -> None:
        self.view = view
        self.node.tell(view)
