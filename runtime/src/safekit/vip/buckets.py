"""Which node owns which bucket, and which bucket a client falls into. Pure; the same on every node.

Owners: weighted rendezvous with an even quota. Each bucket prefers nodes in the order of a score drawn from (identity,
node, bucket) and scaled by the node's power; buckets are dealt in index order to the first preferred node whose quota is
not used up. The quota is the exact share by power (largest remainder). Powers a factor of `CHAIN` apart are priorities,
not shares (the chain 1, 64, 64², … of spec §5.3): beside such a node the lesser ones own nothing.

They are dealt twice: first among all nodes that may be there, then the buckets of those that are not, among those that
are. So a node that dies or stops moves its own buckets and no other, and shares are even to one bucket at every moment.

Scores are integers: floating point logarithms may differ in the last bit between two machines, and two nodes that
disagree about one bucket both answer for it, or neither.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from safekit.vip.service import HashKey, IPAddress, Share

BUCKETS = 4096
CHAIN = 64
_FRACTION_BITS = 16
_TABLE_BITS = 12
_MASK = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF


def hash_seed(identity: str) -> int:
    """The explicit seed of the kernel's hash: 32 bits, never 0 (0 asks the kernel to draw one)."""
    return int.from_bytes(hashlib.sha256(f"safekit farm seed|{identity}".encode()).digest()[:4], "big") or 1


Owners = tuple[str | None, ...]


def assign(powers: Mapping[str, int], identity: str, known: Mapping[str, int] | None = None) -> Owners:
    """Owner of each of the `BUCKETS` buckets among the live nodes in `powers` (power 0 owns none).

    `known`: the power of every node that may be there, alive or not; the same on every node. All None if nobody alive has
    power.
    """
    quota = quotas(powers)
    if not quota:
        return (None,) * BUCKETS
    everybody = with_power({**(known or {}), **with_power(powers)})
    return _assigned(tuple(sorted(powers.items())), tuple(sorted(everybody.items())), identity)


@lru_cache(maxsize=16)
def _assigned(live: tuple[tuple[str, int], ...], everybody: tuple[tuple[str, int], ...], identity: str) -> Owners:
    """Groups with the same weights have the same table."""
    powers = dict(live)
    quota = quotas(powers)
    owners: list[str | None] = list(_dealt(everybody, identity))
    for name, dealt in Counter(owners).items():
        if name in quota:
            quota[name] -= dealt
    orphans = [bucket for bucket, owner in enumerate(owners) if owner not in quota]
    names = sorted(quota)
    columns = [_scores(identity, name, powers[name]) for name in names]
    for bucket in orphans:
        ranked = [(scores[bucket], name) for scores, name in zip(columns, names, strict=True) if quota[name] > 0]
        heir = min(ranked)[1]
        quota[heir] -= 1
        owners[bucket] = heir
    return tuple(owners)


def with_power(powers: Mapping[str, int]) -> dict[str, int]:
    """Only the nodes that have power, and are not outranked: a power `CHAIN` times as high takes everything."""
    highest = max(powers.values(), default=0)
    return {name: power for name, power in powers.items() if power > 0 and power * CHAIN > highest}


@lru_cache(maxsize=16)
def _dealt(powers: tuple[tuple[str, int], ...], identity: str) -> tuple[str, ...]:
    """The first deal: every bucket among all nodes that may be there."""
    quota = quotas(dict(powers))
    columns = [_scores(identity, name, power) for name, power in powers]
    owners: list[str] = []
    for scores in zip(*columns, strict=True):
        ranked = [(score, name) for score, (name, _) in zip(scores, powers, strict=True) if quota[name]]
        preferred = min(ranked)[1]
        quota[preferred] -= 1
        owners.append(preferred)
    return tuple(owners)


def quotas(powers: Mapping[str, int]) -> dict[str, int]:
    """Buckets of each node that has power: proportional, rounded by largest remainder, in sum exactly `BUCKETS`."""
    powers = with_power(powers)
    names = sorted(powers)
    total = sum(powers[name] for name in names)
    quota = {name: BUCKETS * powers[name] // total for name in names}
    rest = BUCKETS - sum(quota.values()) if names else 0
    for name in sorted(names, key=lambda name: (-(BUCKETS * powers[name] % total), name))[:rest]:
        quota[name] += 1
    return quota


def elect(nodes: Sequence[str], address: IPAddress, identity: str) -> str | None:
    """The one node that answers address resolution for `address`: the highest draw, whoever else is there."""
    return max(nodes, key=lambda name: (_draw(f"elected|{identity}|{address}|{name}"), name), default=None)


def share(owners: Sequence[str | None], node: str) -> Share:
    """The part of the buckets that `node` owns."""
    mine = owners.count(node)
    return Share(mine, 100.0 * mine / len(owners))


def bucket_of(client: IPAddress, port: int, key: HashKey, seed: int) -> int:
    """The bucket that the kernel computes for a packet of this client (`jhash … mod 4096 seed …` in the rules).

    `port`: that of the client; with `on_ipid` the identification of the packet.
    """
    data = client.packed
    if key is HashKey.ON_IPID:
        data = port.to_bytes(2, "big")
    if key is HashKey.ON_PORT:
        data += port.to_bytes(2, "big") + b"\0\0"  # a field of a concatenation is padded to 32 bits
    return jenkins_hash(data, seed) * BUCKETS >> 32


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@lru_cache(maxsize=32)
def _scores(identity: str, node: str, power: int) -> tuple[int, ...]:
    """The lower, the more preferred: an exponential draw divided by the power (the least of such draws wins in
    proportion).
    """
    stream = hashlib.shake_128(f"safekit farm|{identity}|{node}".encode()).digest(8 * BUCKETS)
    return tuple(
        ((_minus_log2(draw >> 32) << 32) // power << 64) | (draw ^ _MASK64)  # the raw draw settles ties
        for draw in struct.unpack(f">{BUCKETS}Q", stream)
    )


def _minus_log2(draw: int) -> int:
    """-log2((draw + 1) / 2^32) in units of 2^-16; the mantissa is read to 12 bits."""
    value = draw + 1
    whole = value.bit_length() - 1
    mantissa = (value << _TABLE_BITS >> whole) - (1 << _TABLE_BITS)
    return ((32 - whole) << _FRACTION_BITS) - _log2_table()[mantissa]


@lru_cache(maxsize=1)
def _log2_table() -> tuple[int, ...]:
    """log2(1 + i / 2^12) in units of 2^-16, by integer squaring."""
    table = []
    for index in range(1 << _TABLE_BITS):
        mantissa = (1 << 32) + (index << 32 - _TABLE_BITS)  # in [2^32, 2^33)
        result = 0
        for _ in range(_FRACTION_BITS):
            mantissa = mantissa * mantissa >> 32
            result <<= 1
            if mantissa >> 33:
                mantissa >>= 1
                result |= 1
        table.append(result)
    return tuple(table)


def jenkins_hash(data: bytes, seed: int) -> int:
    """Bob Jenkins' lookup3 as the kernel's `jhash` runs it on little-endian machines."""
    words = list(struct.unpack(f"<{(len(data) + 3) // 4}I", data + bytes(-len(data) % 4)))
    a = b = c = (0xDEADBEEF + len(data) + seed) & _MASK
    while len(words) > 3:
        a, b, c = _mix((a + words[0]) & _MASK, (b + words[1]) & _MASK, (c + words[2]) & _MASK)
        del words[:3]
    if not words:
        return c
    words += [0] * (3 - len(words))
    return _final((a + words[0]) & _MASK, (b + words[1]) & _MASK, (c + words[2]) & _MASK)


def _rotate(value: int, by: int) -> int:
    return (value << by | value >> 32 - by) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for first, second in ((4, 6), (16, 19)):
        a = (a - c & _MASK) ^ _rotate(c, first)
        c = c + b & _MASK
        b = (b - a & _MASK) ^ _rotate(a, second)
        a = a + c & _MASK
        c = (c - b & _MASK) ^ _rotate(b, 8 if first == 4 else 4)
        b = b + a & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _rotate(b, 14) & _MASK
    a = (a ^ c) - _rotate(c, 11) & _MASK
    b = (b ^ a) - _rotate(a, 25) & _MASK
    c = (c ^ b) - _rotate(b, 16) & _MASK
    a = (a ^ c) - _rotate(c, 4) & _MASK
    b = (b ^ a) - _rotate(a, 14) & _MASK
    return (c ^ b) - _rotate(b, 24) & _MASK
