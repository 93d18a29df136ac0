"""What can be cut, delayed, lost and doubled between the nodes: heartbeats and claims (datagrams), and the replication
stream (TCP)."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.simulation.clock import Clock

BEATS, DATA, WITNESS = "beats", "data", "witness"


@dataclass
class Network:
    """`cuts` holds (what, from) pairs: that traffic from that node does not arrive."""

    clock: Clock
    delay_s: float = 0.02
    loss: float = 0.0
    doubled: float = 0.0
    cuts: set[tuple[str, str]] = field(default_factory=set)

    def beat_delays(self, sender: str) -> tuple[float, ...]:
        """After how long a datagram arrives: once, twice or never."""
        return () if (BEATS, sender) in self.cuts else self.datagram_delays()

    def datagram_delays(self) -> tuple[float, ...]:
        """The same on a way that is not cut."""
        if self.loss and self.clock.chance(self.loss):
            return ()
        first = self.clock.random.random() * self.delay_s
        if self.doubled and self.clock.chance(self.doubled):
            return (first, first + self.clock.random.random() * 5 * self.delay_s)
        return (first,)

    def data_flows(self, *nodes: str) -> bool:
        """Whether the stream moves in the directions away from these nodes."""
        return not any((DATA, node) in self.cuts for node in nodes)
