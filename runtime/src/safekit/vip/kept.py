"""Who may hold connections in which bucket. Pure.

A bucket that moves takes the new connections with it and leaves the old ones where they are: who accepted a connection keeps
it to its end, over any number of moves. So each node remembers, bucket by bucket, who owned it: a **trail**, the owner first,
then the one before it, and so on. A node that leaves is dropped from every trail: its connections are gone.

What was before a node came it did not see. Whoever was there then is a **stranger** to it, and may hold connections in any
bucket, for as long as it stays. So a node that joins, or lost its memory, asks too many rather than too few.

What follows for a segment that no connection of the asked node claims (`ruleset.py` has it as rules):

    the owner asks who owned the bucket before it. That one is sure to have everything that it ever took in this bucket; what
    is not its own goes on all the same only if others may hold some.
    Those are asked one after the other, around the ring of all nodes, and never past where it began: nodes that
    remember differently ask one too many, and send nothing in a circle. The last one takes what nobody claimed, and resets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from safekit.vip.buckets import BUCKETS

Owners = Sequence[str | None]
Trail = tuple[tuple[str, ...], ...]
"""Per bucket: who owned it, the last one first."""

ANYBODY = "*"
"""In the place of a former owner: somebody may hold connections, and this node saw none of them own the bucket."""

NOBODY: Trail = ((),) * BUCKETS


@dataclass(frozen=True)
class Memory:
    """What one node remembers: a trail per group, and who was there before it."""

    trails: tuple[Trail, ...] = ()
    strangers: frozenset[str] = frozenset()


def followed(trail: Trail, owners: Owners, alive: Set[str]) -> Trail:
    """The trail after these owners were in force; `alive`: who can hold a connection."""
    made: dict[tuple[tuple[str, ...], str | None], tuple[str, ...]] = {}
    result = []
    for step in zip(trail, owners, strict=True):
        names = made.get(step)
        if names is None:
            before, owner = step
            first = (owner,) if owner in alive and owner is not None else ()
            names = made[step] = (*first, *(name for name in before if name in alive and name != owner))
        result.append(names)
    return tuple(result)


def former(node: str, owners: Owners, trail: Trail, strangers: Set[str]) -> dict[int, str]:
    """The buckets of `node` in which others may hold connections: bucket -> whom to ask first."""
    found = {}
    for bucket, owner in enumerate(owners):
        if owner == node:
            others = trail[bucket][1:2]
            if others or strangers:
                found[bucket] = others[0] if others else ANYBODY
    return found


def lost(node: str, owners: Owners, trail: Trail, strangers: Set[str]) -> frozenset[int]:
    """The buckets whose owner asks `node` first, being the one before it, and in which others may hold connections too."""
    return frozenset(
        bucket
        for bucket, owner in enumerate(owners)
        if owner != node
        and owner is not None
        and trail[bucket][1:2] == (node,)
        and (len(trail[bucket]) > 2 or strangers - {owner})
    )


def written(memory: Memory) -> dict[str, Any]:
    """The memory as JSON has it: each list of names once, each table of their places once."""
    lists: dict[tuple[str, ...], int] = {}
    tables: dict[int, int] = {}
    places: list[list[int]] = []
    for trail in memory.trails:
        if id(trail) not in tables:
            tables[id(trail)] = len(places)
            places.append([lists.setdefault(names, len(lists)) for names in trail])
    return {
        "strangers": sorted(memory.strangers),
        "lists": [list(names) for names in lists],
        "tables": places,
        "groups": [tables[id(trail)] for trail in memory.trails],
    }


def read(content: Mapping[str, Any]) -> Memory:
    """The opposite. ValueError, KeyError, TypeError, IndexError if it was not written here."""
    lists = [tuple(str(name) for name in names) for names in content["lists"]]
    tables = [tuple(lists[place] for place in places) for places in content["tables"]]
    if any(len(table) != BUCKETS for table in tables):
        raise ValueError("a table of another size")
    return Memory(tuple(tables[number] for number in content["groups"]), frozenset(map(str, content["strangers"])))


def after(node: str, ring: Iterable[str], alive: Set[str]) -> tuple[str, int] | None:
    """The next living node after `node` in the ring, and how far it is; None if there is no other."""
    names = sorted({*ring, node})
    here = names.index(node)
    for far in range(1, len(names)):
        name = names[(here + far) % len(names)]
        if name in alive:
            return name, far
    return None
