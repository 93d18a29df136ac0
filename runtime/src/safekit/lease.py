"""The right to run an application while another node may be named instead: how long it lasts, and who keeps it back. Pure.

A primary whose record says `both` may be passed over: the register would name the other node. That must not start the
application beside it. So the primary runs it on a lease of `length`, never longer than the silence after which the other
node acts, and counts it from when it **sent** what was answered:

* the other node heard a beat of it, and says that it acts on no silence that began before (its **promise**);
* the witness noted that it runs, and holds back every claim that would exclude it until the noted time is over.

Invariant: *no claim that excludes a node is granted, and no silence of a node is acted upon, before everything that renewed
its lease is `length` old.* The witness counts from when a question came, the other node from when a beat came, both later
than it was sent; so a message that was long under way, a node that stood still and a clock that another node does not share
only lengthen the wait. Clocks need to run alike for the time of one lease, nothing else.

A claim that is held back closes the lease of whom it excludes: nothing is renewed there until the claim is decided or no
longer repeated. Without that a primary that still reaches the witness would hold it back for ever.

Who has no lease that lasts gives up by itself, in time: the address goes at `gives_up_at`, what still runs is ended at
`over_at`; the rest of the lease is a margin for a machine that is slow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

ASKS, GIVES_UP, OVER = 3 / 8, 5 / 8, 7 / 8
"""Of a lease: when the witness is asked because the other node renews nothing; when the address goes; when all is over."""
CLOSED_S = 2.5
"""How long a claim that is held back, and not repeated, keeps closed what it excludes; a claimant repeats more often."""


@dataclass(frozen=True)
class Lease:
    """A lease of `length` seconds that was last renewed by what was sent at `since`."""

    length: float
    since: float = float("-inf")

    def renewed(self, sent_at: float) -> Lease:
        """After an answer to what was sent then; an older answer that comes late changes nothing."""
        return self if sent_at <= self.since else replace(self, since=sent_at)

    @property
    def asks_at(self) -> float:
        """From when on the witness is asked to renew it."""
        return self.since + ASKS * self.length

    @property
    def gives_up_at(self) -> float:
        """When the address goes."""
        return self.since + GIVES_UP * self.length

    @property
    def over_at(self) -> float:
        """When nothing of the application may run any more."""
        return self.since + OVER * self.length


class Leases:
    """What a witness remembers of the leases of one module, in one life that `began` then. Times are of its own clock.

    What an earlier life noted is not known: for the length of a lease after its beginning, everybody may have one.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._until: dict[str, float] = {}
        self._closed: dict[str, float] = {}

    def renew(self, node: str, length: float, now: float) -> bool:
        """Note that this holder runs the application; False when a claim that excludes it waits."""
        if now < self._closed.get(node, now):
            return False
        self._until[node] = max(self._until.get(node, now), now + length)
        return True

    def hold_back(self, excluded: Iterable[str], length: float, now: float) -> float:
        """For how many seconds a claim that excludes these holders must wait; meanwhile none of them is renewed.

        0: it is decided now, and they stay closed until `decided`. `length` is the claimant's, for what is not known.
        """
        nodes = tuple(excluded)
        unknown = self._began + length
        until = max((max(self._until.get(node, now), unknown) for node in nodes), default=now)
        for node in nodes:
            self._closed[node] = until + CLOSED_S if until > now else float("inf")
        return max(until - now, 0.0)

    def decided(self, excluded: Iterable[str]) -> None:
        """The claim was decided, and the register says how: whom it still names may be renewed."""
        for node in excluded:
            self._closed.pop(node, None)
