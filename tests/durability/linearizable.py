"""Is a history of reads and writes of one register linearizable? Wing and Gong's search with Lowe's memory. Pure.

A history is linearizable when each operation can be given one instant between its call and its answer, such that a
single register would have given exactly these answers in that order. A write whose answer never came may have
happened at any time after its call, or never.

    entries = calls and answers in the order of time. Take the first call whose effect is possible in the present value, and
    remove it with its answer; go on from the front. At an answer whose call was not taken, the last choice was wrong: undo
    it. A set of operations already taken, with the value that they led to, is tried once only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NEVER = float("inf")


@dataclass(frozen=True)
class Access:
    """One read or write. `answered` is NEVER for a write whose outcome is unknown. `value` None: there is nothing."""

    write: bool
    value: str | None
    called: float
    answered: float
    who: str = ""

    def __str__(self) -> str:
        what = f"write {self.value!r}" if self.write else f"read {self.value!r}"
        return f"{what} by {self.who or '?'} from {self.called:.6f} to {self.answered:.6f}"


@dataclass(frozen=True)
class Verdict:
    """`stuck_at`: the operation that had no place, when the history is not linearizable."""

    linearizable: bool
    stuck_at: Access | None = None


def check(history: Iterable[Access], initials: Iterable[str | None] = (None,)) -> Verdict:
    """Whether some value of `initials` and some order explain the whole history."""
    accesses = relevant(history)
    verdict = Verdict(False)
    for initial in initials:
        verdict = _search(accesses, initial)
        if verdict.linearizable:
            break
    return verdict


def relevant(history: Iterable[Access]) -> list[Access]:
    """The history without what cannot matter: reads without an answer, and writes without one that nobody ever read."""
    known = list(history)
    seen = {access.value for access in known if not access.write and access.answered != NEVER}
    return [
        access
        for access in known
        if access.answered != NEVER or (access.write and access.value in seen)
    ]  # fmt: skip


class _Entries:
    """Calls and answers as one doubly linked list, from which a pair can be taken and put back in constant time."""

    def __init__(self, accesses: Sequence[Access]) -> None:
        events = []
        for number, access in enumerate(accesses):
            events.append((access.called, 0, number))
            events.append((access.answered, 1, number))
        events.sort()  # at the same instant calls come first: the two overlap
        self.count = len(events)
        self.number = [number for _, _, number in events]
        self.is_answer = [kind == 1 for _, kind, _ in events]
        self.answer_of = [0] * len(accesses)
        for position, (_, kind, number) in enumerate(events):
            if kind:
                self.answer_of[number] = position
        # Position `count` is the head and the tail of the ring.
        self.next = [*range(1, self.count + 1), 0]
        self.previous = [self.count, *range(self.count)]

    def first(self) -> int:
        return self.next[self.count] if self.count else self.count

    def take(self, call: int) -> None:
        for position in (call, self.answer_of[self.number[call]]):
            self.next[self.previous[position]] = self.next[position]
            self.previous[self.next[position]] = self.previous[position]

    def put_back(self, call: int) -> None:
        for position in (self.answer_of[self.number[call]], call):
            self.next[self.previous[position]] = position
            self.previous[self.next[position]] = position


def _search(accesses: Sequence[Access], initial: str | None) -> Verdict:
    entries = _Entries(accesses)
    tried: set[tuple[int, str | None]] = set()
    chosen: list[tuple[int, str | None]] = []
    taken, value = 0, initial
    most, stuck_at = -1, None
    at = entries.first()
    while entries.first() != entries.count:
        access = accesses[entries.number[at]]
        if entries.is_answer[at]:
            if len(chosen) > most:
                most, stuck_at = len(chosen), access
            if not chosen:
                return Verdict(False, stuck_at)
            at, value = chosen.pop()
            taken &= ~(1 << entries.number[at])
            entries.put_back(at)
            at = entries.next[at]
            continue
        possible = access.write or access.value == value
        leads_to = access.value if access.write else value
        state = (taken | 1 << entries.number[at], leads_to)
        if possible and state not in tried:
            tried.add(state)
            chosen.append((at, value))
            taken, value = state
            entries.take(at)
            at = entries.first()
        else:
            at = entries.next[at]
    return Verdict(True)
