"""Who may hold connections in which bucket, and that whoever does is asked, by the words that the rules speak."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekit.vip import kept
from safekit.vip.buckets import BUCKETS
from safekit.vip.kept import ANYBODY, NOBODY, Memory, Trail

NODES = ("a", "b", "c", "d")
REST: tuple[tuple[str, ...], ...] = ((),) * (BUCKETS - 1)
NONE = frozenset[str]()


def everywhere(owner: str | None) -> tuple[str | None, ...]:
    return (owner,) * BUCKETS


def trail(*names: str) -> Trail:
    """The same in each bucket."""
    return (names,) * BUCKETS


def test_a_trail_names_each_owner_once_the_last_one_first() -> None:
    found = NOBODY
    for owner in ("a", "b", "a", "c", "c", "b"):
        found = kept.followed(found, everywhere(owner), {"a", "b", "c"})
    assert found == trail("b", "c", "a")


def test_who_leaves_is_dropped_and_nobody_owns_nothing() -> None:
    assert kept.followed(trail("b", "c", "a"), everywhere("b"), {"a", "b"}) == trail("b", "a")
    assert kept.followed(trail("b", "c", "a"), everywhere(None), {"a", "b"}) == trail("b", "a")


@pytest.mark.parametrize(
    ("names", "strangers", "first"),
    [
        (("a",), NONE, None),
        (("a", "c", "b"), NONE, "c"),
        (("a", "c"), frozenset({"b"}), "c"),
        (("a",), frozenset({"b"}), ANYBODY),
    ],
)
def test_an_owner_asks_the_one_before_it_and_else_a_stranger(
    names: tuple[str, ...], strangers: frozenset[str], first: str | None
) -> None:
    found = kept.former("a", everywhere("a"), trail(*names), strangers)
    assert found == ({} if first is None else dict.fromkeys(range(BUCKETS), first))
    assert kept.former("b", everywhere("a"), trail(*names), strangers) == {}


@pytest.mark.parametrize(
    ("names", "strangers", "several"),
    [
        (("b", "a"), NONE, False),
        (("b", "a"), frozenset({"b"}), False),
        (("b", "a", "c"), NONE, True),
        (("b", "a"), frozenset({"c"}), True),
        (("b", "c", "a"), NONE, False),
    ],
)
def test_who_had_a_bucket_asks_on_only_if_others_may_hold_connections_too(
    names: tuple[str, ...], strangers: frozenset[str], several: bool
) -> None:
    found = kept.lost("a", everywhere("b"), trail(*names), strangers)
    assert found == (frozenset(range(BUCKETS)) if several else frozenset())


def test_the_ring_goes_over_those_who_live_and_past_nobody_else() -> None:
    assert kept.after("b", NODES, {"c", "d"}) == ("c", 1)
    assert kept.after("b", NODES, {"a", "d"}) == ("d", 2)
    assert kept.after("d", NODES, {"c"}) == ("c", 3)
    assert kept.after("b", ("a",), {"a"}) == ("a", 1)
    assert kept.after("b", NODES, set()) is None


def test_a_memory_is_read_as_it_was_written() -> None:
    table = (("a", "b"), *REST)
    memory = Memory((table, trail("c"), table), frozenset({"d"}))
    found = kept.read(json.loads(json.dumps(kept.written(memory))))
    assert found == memory
    assert found.trails[0] is found.trails[2], "groups with the same weights share a table"


@pytest.mark.parametrize("damage", ["strangers", "lists", "tables", "groups"])
def test_a_damaged_memory_is_refused(damage: str) -> None:
    content = kept.written(Memory((trail("a"),)))
    with pytest.raises((KeyError, TypeError, ValueError, LookupError)):
        kept.read({name: value for name, value in content.items() if name != damage})
    with pytest.raises((KeyError, TypeError, ValueError, LookupError)):
        kept.read({**content, "tables": [[0]]})


class Farm:
    """One bucket and its connections; each node remembers by itself, and a segment goes where the rules would send it."""

    def __init__(self) -> None:
        self.alive: set[str] = set()
        self.owner: str | None = None
        self.trails: dict[str, tuple[str, ...]] = {}
        self.strangers: dict[str, frozenset[str]] = {}
        self.holds: dict[str, set[int]] = {}
        self.begun = 0

    def move(self, owner: str) -> None:
        """Another node that lives owns the bucket: all remember it."""
        self.owner = owner
        for name in self.alive:
            self.trails[name] = self._followed(self.trails[name], owner)

    def join(self, name: str) -> None:
        """A node comes without a memory."""
        self.strangers[name] = frozenset(self.alive)
        self.alive.add(name)
        self.trails[name] = self._followed((), self.owner)
        self.holds[name] = set()
        self.move(self.owner or name)

    def leave(self, name: str, heir: str) -> None:
        """A node goes, with its connections."""
        self.alive.discard(name)
        self.owner = heir
        for other in self.alive:
            self.strangers[other] &= frozenset(self.alive)
            self.trails[other] = self._followed(self.trails[other], heir)

    def begin(self) -> None:
        """A client connects."""
        assert self.owner is not None
        self.holds[self.owner].add(self.begun)
        self.begun += 1

    def taken_by(self, connection: int) -> str:
        """Who takes a segment of this connection."""
        me = self.owner
        assert me is not None
        if connection in self.holds[me]:
            return me
        first = kept.former(me, (me,), (self.trails[me],), self.strangers[me]).get(0)
        if first is None:
            return me
        if first == ANYBODY:
            return self._around(me, connection)
        if connection in self.holds[first]:
            return first
        asks_on = kept.lost(first, (me,), (self.trails[first],), self.strangers[first])
        return self._around(first, connection) if asks_on else first

    def _around(self, begin: str, connection: int) -> str:
        name, left = begin, len(NODES)
        while (following := kept.after(name, NODES, self.alive - {name})) is not None and following[1] < left:
            name, left = following[0], left - following[1]
            if connection in self.holds[name]:
                break
        return name

    def _followed(self, names: tuple[str, ...], owner: str | None) -> tuple[str, ...]:
        return kept.followed((names, *REST), (owner, *everywhere(None)[1:]), self.alive)[0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["move", "join", "leave", "begin"]), st.integers(0, 3)), max_size=25))
def test_every_connection_of_who_lives_is_found_whatever_happened(events: Sequence[tuple[str, int]]) -> None:
    farm = Farm()
    farm.join("a")
    for kind, number in events:
        living, absent = sorted(farm.alive), sorted(set(NODES) - farm.alive)
        if kind == "begin":
            farm.begin()
        elif kind == "move":
            farm.move(living[number % len(living)])
        elif kind == "join" and absent:
            farm.join(absent[number % len(absent)])
        elif kind == "leave" and len(living) > 1:
            gone = living[number % len(living)]
            farm.leave(gone, next(name for name in living if name != gone) if farm.owner == gone else str(farm.owner))
        for name in farm.alive:
            assert all(farm.taken_by(connection) == name for connection in farm.holds[name])
