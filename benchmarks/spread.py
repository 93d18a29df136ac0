"""How evenly a farm shares many clients, and whom a change moves: the production tables and hash, without a network. Pure.

Clients are consecutive addresses of a network, addresses drawn from everywhere, and IPv6 addresses. Each is hashed as the
kernel hashes it (`tests/netns` compares the two packet by packet).

A table deals its 4,096 buckets evenly to one; the clients in a bucket are as many as the hash puts there. So the largest of
n shares of c clients is over its due by about `noise(n, c)` even with a perfect hash, and no table can be judged by less.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from safekit.vip.buckets import assign, bucket_of, hash_seed
from safekit.vip.service import HashKey

CLIENTS = 100_000
NODES = (2, 3, 5, 8, 16)
WEIGHTS = (1, 2, 3)
LARGEST, MOVED = 1.02, 0.01
POPULATIONS = ("consecutive", "everywhere", "IPv6")
IDENTITY = "a farm whose spread is measured"


@dataclass(frozen=True)
class Spread:
    """`largest`: the largest share against its due; `moved`: the part of the survivors' clients that moved when a node
    left, the worst of all nodes that may leave; `moved_second`: the same when a second one leaves.
    """

    nodes: int
    weighted: bool
    population: str
    largest: float
    moved: float
    moved_second: float
    noise: float


def names(count: int) -> tuple[str, ...]:
    """The nodes of a cluster of that many."""
    return tuple(f"n{number}" for number in range(1, count + 1))


@lru_cache
def bucketed(population: str, count: int = CLIENTS) -> Mapping[int, int]:
    """How many of the clients are in each bucket."""
    draw = random.Random(1)
    seed = hash_seed(IDENTITY)
    first = int(IPv4Address("10.20.0.1"))
    if population == "consecutive":
        found = (IPv4Address(first + number) for number in range(count))
        return Counter(bucket_of(client, 0, HashKey.ON_ADDR, seed) for client in found)
    if population == "IPv6":
        base = int(IPv6Address("2001:db8::"))
        six = (IPv6Address(base | draw.getrandbits(92)) for _ in range(count))
        return Counter(bucket_of(client, 0, HashKey.ON_ADDR, seed) for client in six)
    distinct = draw.sample(range(1 << 24, 224 << 24), count)
    return Counter(bucket_of(IPv4Address(number), 0, HashKey.ON_ADDR, seed) for number in distinct)


def measured(count: int, weighted: bool, population: str) -> Spread:
    """One line: `count` nodes with equal powers, or with 1, 2 and 3 in turn."""
    nodes = names(count)
    known = {name: WEIGHTS[place % len(WEIGHTS)] if weighted else 1 for place, name in enumerate(nodes)}
    clients = bucketed(population)
    before = assign(known, IDENTITY, known)
    moved = moved_second = 0.0
    for place, gone in enumerate(nodes):
        alive = {name: power for name, power in known.items() if name != gone}
        after = assign(alive, IDENTITY, known)
        moved = max(moved, _moved(before, after, clients, {gone}))
        if len(alive) > 1:
            second = nodes[(place + 1) % count]
            fewer = {name: power for name, power in alive.items() if name != second}
            last = assign(fewer, IDENTITY, known)
            moved_second = max(moved_second, _moved(after, last, clients, {second}))
    served: Counter[str | None] = Counter()
    for bucket, number in clients.items():
        served[before[bucket]] += number
    total = sum(known.values())
    largest = max(served[name] * total / (CLIENTS * power) for name, power in known.items())
    return Spread(count, weighted, population, largest, moved, moved_second, noise(known))


def noise(powers: Mapping[str, int], clients: int = CLIENTS) -> float:
    """By how much the largest share of that many clients is over its due with a perfect hash: once in a hundred times it
    is more (for each node its binomial deviation, for all of them the union bound).
    """
    total = sum(powers.values())
    deviations = math.sqrt(2 * math.log(100 * len(powers)))
    return max(deviations * math.sqrt((1 - power / total) * total / (power * clients)) for power in powers.values())


def _moved(
    before: Sequence[str | None], after: Sequence[str | None], clients: Mapping[int, int], gone: set[str]
) -> float:
    """The part of the clients of those who stay that have another node afterwards."""
    stay = sum(number for bucket, number in clients.items() if before[bucket] not in gone)
    moved = sum(
        number for bucket, number in clients.items() if before[bucket] not in gone and before[bucket] != after[bucket]
    )
    return moved / stay if stay else 0.0


def everything() -> list[Spread]:
    """Every line, equal powers first."""
    return [
        measured(count, weighted, population)
        for weighted in (False, True)
        for population in POPULATIONS
        for count in NODES
    ]


def as_rows(found: Sequence[Spread]) -> list[dict[str, object]]:
    """For the report."""
    return [
        {
            "nodes": one.nodes,
            "weights": "1, 2, 3" if one.weighted else "equal",
            "clients": one.population,
            "largest_share": round(one.largest, 4),
            "noise_of_a_perfect_hash": round(1 + one.noise, 4),
            "survivors_moved": round(one.moved, 4),
            "survivors_moved_by_a_second_leave": round(one.moved_second, 4),
        }
        for one in found
    ]


def targets(found: Sequence[Spread]) -> list[dict[str, object]]:
    """The worst of the populations, for each number of nodes."""
    told: list[dict[str, object]] = []
    for count in sorted({one.nodes for one in found}):
        worst = max(one.largest for one in found if one.nodes == count)
        work = f"largest share of {CLIENTS:,} clients, {count} nodes"
        told.append({"work": work, "ratio": round(worst, 4), "target": LARGEST, "met": worst <= LARGEST})
    moved = max(one.moved for one in found)
    work = "survivors' clients that move when one leaves"
    told.append({"work": work, "ratio": round(moved, 4), "target": MOVED, "met": moved <= MOVED})
    return told
