"""The lease of this node on one heartbeat channel: when the witness must be asked, and when it has run out. Pure.

What the peer renews is always noted; the daemon says of what length the lease is and whether it is needed now. It is kept
here, beside the heartbeats, because nothing that stalls a daemon may lengthen it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from safekit.lease import ASKS, Lease
from safekit.membership.events import LeaseAsks, LeaseEnded, PulseEvent
from safekit.membership.release import Held

_ASKS_PER_LEASE = 8
_SENT_REMEMBERED = 4096
_RELEASED_AGAIN_S = 0.2
"""A daemon that was stalled, or is new, may be about to take an address that was released, or to start what was ended."""


class LeaseKeeper:
    """Who drives it calls `tick` at `due`. Times are seconds since boot."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._lease = Lease(0.0)
        self._needed = self._ended = False
        self._ask_at = self._release_at = self._end_at = 0.0
        self.addresses: tuple[Held, ...] = ()
        """What this node gives back when the lease ran out."""
        self.groups: tuple[str, ...] = ()
        """What is ended when it is over: control groups and units, as `safekit.groups.end` takes them."""
        self._sent: deque[tuple[int, float]] = deque(maxlen=_SENT_REMEMBERED)

    @property
    def due(self) -> float:
        """When `tick` wants to be called."""
        if self._ended:
            return min(self._release_at, self._ends_at if self.groups else float("inf"))
        if not self._lease.length:
            return float("inf")
        asks = max(self._lease.asks_at, self._ask_at)
        return min(asks, self._lease.gives_up_at) if self._needed else asks

    @property
    def length(self) -> float:
        """Of the lease, in seconds; 0: none is kept."""
        return self._lease.length

    @property
    def needed(self) -> bool:
        """Whether this node may not run its application without a lease."""
        return self._needed

    @property
    def ended(self) -> bool:
        """Whether it needed one that ran out, and gave up."""
        return self._ended

    def lasts(self, now: float, seconds: float) -> bool:
        """Whether nobody may act before so many seconds have passed."""
        return now + seconds <= self._lease.since + self._lease.length

    @property
    def _ends_at(self) -> float:
        return max(self._lease.over_at, self._end_at)

    def order(
        self, length: float, needed: bool, addresses: tuple[Held, ...] = (), groups: tuple[str, ...] = ()
    ) -> None:
        """What the daemon wants: leases of this many seconds (0: none), whether this node may not run without one, and
        which addresses it has then, and where its application runs.

        Who needed one that ran out, and still says so, is told again.
        """
        self._lease = replace(self._lease, length=length)
        self._needed, self._ended = needed and bool(length), False
        self.addresses, self.groups = addresses, groups

    def sent(self, counter: int, now: float) -> None:
        """A beat with this counter goes out."""
        self._sent.append((counter, now))

    def begin_life(self) -> None:
        """The counters begin anew."""
        self._sent.clear()

    def heard(self, counter: int) -> None:
        """The peer, which promises, names the newest beat of this node that it heard."""
        while self._sent and self._sent[0][0] < counter:
            self._sent.popleft()
        if self._sent and self._sent[0][0] == counter:
            self.renewed(self._sent[0][1])

    def renewed(self, sent_at: float) -> None:
        """What was sent then was answered."""
        self._lease = self._lease.renewed(sent_at)

    def releases(self, now: float) -> tuple[Held, ...]:
        """What is to be released now; again and again until the daemon says that the lease is no longer needed."""
        if not self._ended or now < self._release_at:
            return ()
        self._release_at = now + _RELEASED_AGAIN_S
        return self.addresses

    def ends(self, now: float) -> tuple[str, ...]:
        """What may not run any more and is to be ended now; again and again, as `releases`."""
        if not self._ended or now < self._ends_at:
            return ()
        self._end_at = now + _RELEASED_AGAIN_S
        return self.groups

    def tick(self, now: float) -> list[PulseEvent]:
        """What the passing of time means."""
        lease = self._lease
        if not lease.length or self._ended:
            return []
        if self._needed and now >= lease.gives_up_at:
            self._ended, self._release_at = True, now
            return [LeaseEnded(self._channel, int(min(now - lease.gives_up_at, 1e6) * 1000))]
        if now >= max(lease.asks_at, self._ask_at):
            self._ask_at = now + lease.length / _ASKS_PER_LEASE
            return [LeaseAsks(self._channel)]
        return []

    # --- over a restart ---

    def memory(self) -> dict[str, Any]:
        """What the next life of the process must know."""
        return {
            "length": self._lease.length,
            "needed": self._needed,
            "addresses": self.addresses,
            "groups": self.groups,
        }

    def resume(self, memory: dict[str, Any], now: float) -> None:
        """Go on: the process was away for a moment, and its peer has the time from asking to giving up to renew."""
        self._lease = Lease(float(memory["length"]), now - ASKS * float(memory["length"]))
        self._needed = bool(memory["needed"])
        self.addresses = held(memory["addresses"])
        self.groups = tuple(memory.get("groups", ()))


def held(addresses: list[list[Any]]) -> tuple[Held, ...]:
    """Addresses as JSON has them."""
    return tuple((str(address), int(index)) for address, index in addresses)
