"""The search for an order: known histories, good and bad, and every small history against a search without any cleverness."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.durability.linearizable import NEVER, Access, check


def write(value: str, called: float, answered: float) -> Access:
    return Access(True, value, called, answered)


def read(value: str | None, called: float, answered: float) -> Access:
    return Access(False, value, called, answered)


GOOD = {
    "nothing happened": [],
    "one after the other": [write("a", 0, 1), read("a", 2, 3), write("b", 4, 5), read("b", 6, 7)],
    "a read beside a write sees the old value": [write("a", 0, 1), write("b", 2, 5), read("a", 3, 4)],
    "a read beside a write sees the new value": [write("a", 0, 1), write("b", 2, 5), read("b", 3, 4)],
    "two writes at once, either order": [write("a", 0, 5), write("b", 0, 5), read("a", 6, 7)],
    "a write without an answer may take effect late": [
        write("a", 0, NEVER),
        write("b", 1, 2),
        read("b", 3, 4),
        read("a", 5, 6),
    ],
    "a write without an answer may never happen": [
        write("a", 0, NEVER),
        write("b", 1, 2),
        read("b", 3, 4),
        read("b", 5, 6),
    ],
    "nothing was ever there": [read(None, 0, 1), write("a", 2, 3)],
}

BAD = {
    "an acknowledged write is lost": [write("a", 0, 1), write("b", 2, 3), read("a", 4, 5)],
    "a write is forgotten altogether": [write("a", 0, 1), read(None, 2, 3)],
    "a stale read on the node that was left": [write("a", 0, 1), write("b", 2, 3), read("b", 4, 5), read("a", 6, 7)],
    "a value that nobody wrote": [write("a", 0, 1), read("z", 2, 3)],
    "two readers disagree on the order": [
        write("a", 0, 1), write("b", 2, 9), read("b", 3, 4), read("a", 5, 6),
    ],
    "a write without an answer comes, goes and comes again": [
        write("a", 0, NEVER), write("b", 1, 2), read("a", 3, 4), write("c", 5, 6), read("c", 7, 8), read("a", 9, 10),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_accepted(name: str) -> None:
    assert check(GOOD[name]).linearizable


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_rejected_and_the_operation_without_a_place_is_named(name: str) -> None:
    verdict = check(BAD[name])
    assert not verdict.linearizable
    assert verdict.stuck_at in BAD[name]


def test_after_a_loss_of_memory_the_first_value_is_one_of_those_that_are_possible() -> None:
    history = [read("b", 0, 1), write("c", 2, 3), read("c", 4, 5)]
    assert check(history, (None, "a", "b")).linearizable
    assert not check(history, (None, "a")).linearizable


def by_force(history: list[Access]) -> bool:
    """Every order of every choice of the writes without an answer."""
    certain = [access for access in history if access.answered != NEVER]
    doubtful = [access for access in history if access.answered == NEVER and access.write]
    for count in range(len(doubtful) + 1):
        for chosen in itertools.combinations(doubtful, count):
            for order in itertools.permutations([*certain, *chosen]):
                if any(a.called > b.answered for n, a in enumerate(order) for b in order[n + 1 :]):
                    continue
                value: str | None = None
                for access in order:
                    if access.write:
                        value = access.value
                    elif access.value != value:
                        break
                else:
                    return True
    return False


@st.composite
def histories(draw: st.DrawFn) -> list[Access]:
    found = []
    for number in range(draw(st.integers(0, 6))):
        called = draw(st.integers(0, 8))
        is_write = draw(st.booleans())
        lost = is_write and draw(st.booleans()) and draw(st.booleans())
        answered = NEVER if lost else called + draw(st.integers(0, 4)) + 0.5
        value = draw(st.sampled_from(("a", "b", "c") if is_write else ("a", "b", "c", None)))
        found.append(Access(is_write, value, called, answered, str(number)))
    return found


@settings(max_examples=400, deadline=None)
@given(histories())
def test_the_search_agrees_with_trying_every_order(history: list[Access]) -> None:
    assert check(history).linearizable == by_force(history)


def simulated(seed: int, operations: int, *, stale: bool) -> list[Access]:
    """Three clients and one true register; with `stale`, one read answers what was overwritten long before."""
    draw = random.Random(seed)
    free, now, value, number = [0.0, 0.0, 0.0], 0.0, None, 0
    history: list[Access] = []
    for _ in range(operations):
        client = min(range(3), key=free.__getitem__)
        called = free[client] + draw.random()
        now = max(now, called) + 0.001
        answered = now + draw.random()
        free[client] = answered
        if draw.random() < 0.4:
            number += 1
            value = str(number)
            history.append(Access(True, value, called, NEVER if draw.random() < 0.05 else answered))
        else:
            history.append(Access(False, value, called, answered))
    if stale:
        reads = [n for n, access in enumerate(history) if not access.write and access.value is not None]
        late = history[reads[-1]]
        history[reads[-1]] = Access(False, history[reads[0]].value, late.called, late.answered)
    return history


def test_long_histories_are_decided_at_once() -> None:
    begun = time.monotonic()
    for seed in range(10):
        assert check(simulated(seed, 2000, stale=False)).linearizable
        assert not check(simulated(seed, 2000, stale=True)).linearizable
    assert time.monotonic() - begun < 30
