"""Which acknowledged operations may be missing after what happened. Pure.

The promise, as it is checked:

* acknowledged in mirror state: it is gone only when both nodes lost their memory before the pair was in step again, and
  never when it had been synced;
* acknowledged by a node that served alone: that node is one machine. It is gone when that machine lost its memory
  (never when it had been synced), or when both nodes served alone because they could not hear each other, and the
  other one's history was kept (policy `none`, docs/architecture.md).

A read promises nothing to the other node: one that the loser answered meanwhile may have been out of date.

An operation counts as in mirror state from the moment that a later one was acknowledged in mirror state: growing the
mirror copies and syncs what a node had alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.durability.journal import Operation


@dataclass(frozen=True)
class PowerLoss:
    """The memory of `node` is gone; what it acknowledged up to `at` may have been in it."""

    node: str
    at: float


@dataclass(frozen=True)
class Split:
    """From `began` to `ended` the nodes could not hear each other; afterwards the history of `loser` was given up."""

    began: float
    ended: float
    loser: str


Misfortune = PowerLoss | Split
NODES = frozenset({"n1", "n2"})


def mirror_moments(operations: Iterable[Operation]) -> list[float]:
    """When operations were sent that both nodes acknowledged, in order: at each of them the pair was in step."""
    return sorted(operation.sent for operation in operations if operation.mirrored and operation.answered is not None)


def excuse(operation: Operation, misfortunes: Iterable[Misfortune], moments: Sequence[float]) -> str:
    """Why this acknowledged operation may be missing; '' when it may not. `moments`: see `mirror_moments`."""
    assert operation.answered is not None
    happened = sorted(misfortunes, key=lambda one: one.at if isinstance(one, PowerLoss) else one.began)
    holders = NODES if operation.mirrored else frozenset({operation.node})
    lost: frozenset[str] = frozenset()
    since = operation.answered
    for misfortune in happened:
        if isinstance(misfortune, Split):
            during = operation.sent <= misfortune.ended and operation.answered >= misfortune.began
            alone = not operation.mirrored or operation.do == "get"
            if during and alone and operation.node == misfortune.loser:
                return f"{operation.node} served alone beside the other node, and its history was given up"
            continue
        if operation.durable or misfortune.at < operation.sent:
            continue
        if _in_step_between(moments, since, misfortune.at):
            holders, lost = NODES, frozenset()
        since = max(since, misfortune.at)
        lost |= holders & {misfortune.node}
        if lost >= holders:
            return f"{' and '.join(sorted(holders))} lost power, and it had not been synced"
    return ""


def _in_step_between(moments: Sequence[float], after: float, before: float) -> bool:
    position = bisect_right(moments, after)
    return position < len(moments) and moments[position] < before


def excused(operations: Sequence[Operation], misfortunes: Iterable[Misfortune]) -> dict[Operation, str]:
    """Every acknowledged operation that may be missing, with the reason."""
    moments, known = mirror_moments(operations), tuple(misfortunes)
    reasons = ((operation, excuse(operation, known, moments)) for operation in operations if operation.acknowledged)
    return {operation: why for operation, why in reasons if why}
