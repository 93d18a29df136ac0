"""A world of nodes and a bad network around the real protocol cores; one seed is one world.

Time is simulated. A datagram is lost, delayed by a random time (so it is reordered) or doubled, as the seed has it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from datetime import timedelta

from safekit.membership.beat import Beat, decode, encode
from safekit.membership.channels import GroupChannel, GroupLan
from safekit.membership.events import PulseEvent, View, ViewChanged
from safekit.membership.group import GroupCore

KEY = bytes(32)


def group_channel(
    node: str, nodes: Iterable[str], lans: Iterable[str] = ("default",), **options: object
) -> GroupChannel:
    """The channel of `node` in a group of `nodes`, all of them on every lan."""
    addresses = {name: f"192.0.2.{number}" for number, name in enumerate(sorted(nodes), 1)}
    peers = tuple((name, address) for name, address in addresses.items() if name != node)
    made = tuple(GroupLan(lan, addresses[node], peers) for lan in lans)
    return GroupChannel("farm:web", node, 4803, KEY, made, **options)  # type: ignore[arg-type]


class World:
    """Some nodes, each with a group core, and the network between them."""

    def __init__(
        self,
        seed: int,
        nodes: Iterable[str],
        *,
        loss: float = 0.0,
        delay: tuple[float, float] = (0.0005, 0.002),
        doubled: float = 0.0,
        lans: tuple[str, ...] = ("default",),
        pulse: timedelta = timedelta(milliseconds=100),
    ) -> None:
        self.random = random.Random(seed)
        self.names = tuple(sorted(nodes))
        self.lans, self.loss, self.delay, self.doubled, self.pulse = lans, loss, delay, doubled, pulse
        self.now = 1000.0
        self.passes: Callable[[str, str, str], bool] = lambda source, target, lan: True
        self.cores: dict[str, GroupCore] = {}
        self.payloads: dict[str, bytes] = {}
        self.views: dict[str, list[tuple[float, View]]] = {name: [] for name in self.names}
        self.events: list[tuple[float, str, PulseEvent]] = []
        self._asleep: dict[str, float] = {}
        self._born: dict[str, float] = {}
        self._lives = 0
        self._life: dict[str, int] = {}
        self._counters: dict[str, int] = {}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    # --- what happens to nodes --------------------------------------------------------------------------------

    def start(self, *names: str, memory: dict[str, object] | None = None) -> None:
        """Power on; `memory` is the snapshot that a restarted process goes on from."""
        for name in names:
            core = GroupCore(group_channel(name, self.names, self.lans, pulse=self.pulse), self.now)
            core.publish(self.payloads.get(name, b""))
            if memory is not None:
                core.resume(memory, self.now)
            else:
                self._born[name] = self.now
            self._lives += 1
            self.cores[name], self._life[name], self._counters[name] = core, self._lives, 0
            self._at(self.now, self._ticker(name, core))

    def kill(self, *names: str) -> None:
        """Power off."""
        for name in names:
            del self.cores[name]

    def pause(self, name: str, seconds: float) -> None:
        """The node does nothing for a while; what arrives meanwhile waits for it."""
        self._asleep[name] = self.now + seconds

    def leave(self, name: str) -> None:
        """Say goodbye, then off."""
        self._broadcast(name, Beat(2))
        del self.cores[name]

    def split(self, *sides: Iterable[str]) -> None:
        """Datagrams pass within a side only."""
        side_of = {name: number for number, side in enumerate(sides) for name in side}
        self.passes = lambda source, target, lan: side_of[source] == side_of[target]

    def heal(self) -> None:
        """Every datagram may pass."""
        self.passes = lambda source, target, lan: True

    # --- time -------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._agenda and self._agenda[0][0] <= end:
            self.now, _, action = heapq.heappop(self._agenda)
            action()
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit: float) -> float:
        """Let time pass until `condition`; the seconds it took. Fails after `limit`."""
        began = self.now
        while not condition():
            assert self.now - began < limit, f"not within {limit} s: {self.describe()}"
            self.run(0.02)
        return self.now - began

    # --- what can be seen -------------------------------------------------------------------------------------

    def view(self, name: str) -> View | None:
        """The view that a node holds."""
        return self.views[name][-1][1] if self.views[name] else None

    def agree(self, *names: str) -> bool:
        """Whether these nodes hold the same view, of exactly themselves."""
        views = {self.view(name) for name in names}
        return len(views) == 1 and (one := views.pop()) is not None and one.members == tuple(sorted(names))

    def describe(self) -> dict[str, View | None]:
        """For a message of a failed test."""
        return {name: self.view(name) for name in self.cores}

    # --- inside -----------------------------------------------------------------------------------------------

    def _at(self, when: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._agenda, (when, self._sequence, action))

    def _ticker(self, name: str, core: GroupCore) -> Callable[[], None]:
        def tick() -> None:
            if self.cores.get(name) is not core:
                return
            if self._asleep.get(name, 0.0) > self.now:
                self._at(self._asleep[name], tick)
                return
            self._take(name, core.tick(self.now))
            self._broadcast(name, core.beat(None, self.now))
            # A real loop wakes up a little late, and not always by the same time.
            self._at(core.due + self.random.uniform(0.0, 0.003), tick)

        return tick

    def _broadcast(self, name: str, beat: Beat) -> None:
        received = decode(encode(beat))
        for lan in self.lans:
            self._counters[name] += 1
            order = (self._life[name], self._counters[name])
            for target in self.names:
                if target == name or not self.passes(name, target, lan) or self.random.random() < self.loss:
                    continue
                for _ in range(2 if self.random.random() < self.doubled else 1):
                    self._at(
                        self.now + self.random.uniform(*self.delay), self._delivery(name, target, lan, order, received)
                    )

    def _delivery(self, source: str, target: str, lan: str, order: tuple[int, int], beat: Beat) -> Callable[[], None]:
        def deliver() -> None:
            core = self.cores.get(target)
            if core is None:
                return
            if self._asleep.get(target, 0.0) > self.now:
                self._at(self._asleep[target], deliver)
                return
            self._take(target, core.received(self.now, lan, source, order, beat))
            if core.urgent:
                self._broadcast(target, core.beat(None, self.now))

        return deliver

    def _take(self, name: str, events: list[PulseEvent]) -> None:
        for event in events:
            self.events.append((self.now, name, event))
            if isinstance(event, ViewChanged):
                self._check(name, event.view)
                self.views[name].append((self.now, event.view))

    def _check(self, name: str, view: View) -> None:
        """What must hold of every view, always."""
        assert name in view.members, f"{name} adopted a view without itself: {view}"
        assert view.leader == min(view.members)
        assert view.members == tuple(sorted(set(view.members)))
        earlier = [old for at, old in self.views[name] if at >= self._born[name]]
        assert not earlier or earlier[-1].epoch < view.epoch, f"{name}: epoch {view.epoch} after {earlier[-1].epoch}"
