"""What the API asks of a node about a farm module: who owns which bucket, what was counted, who is connected (spec §5.3),
and whether the node takes its share (spec §5.6).

A part of `NodeFace`: values and questions only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class FarmShare:
    """The part of a group that a node serves."""

    node: str
    buckets: int
    percent: float


@dataclass(frozen=True)
class FarmGroup:
    """One group. `owners`: of each bucket, the place of its owner in `nodes`; null for a bucket without one."""

    name: str
    shares: tuple[FarmShare, ...]
    owners: tuple[int | None, ...]


@dataclass(frozen=True)
class FarmAddress:
    """One virtual address as this node sees it.

    resolved_by: the node that answers for its Ethernet address, null where an `arp` rule splits the askers;
    connections: established ones that end on this node; elsewhere: those of them whose bucket another node owns now.
    """

    address: str
    resolved_by: str | None
    connections: int
    elsewhere: int


@dataclass(frozen=True)
class FarmInfo:
    """`GET /modules/{am}/farm`: the farm in the eyes of this node; nothing but its name while it is not in service.

    open: whether it takes its share, which scripts may control; drains_for_s: how long at most it waits for its connections before
    it stops, null while it does not; nodes: those that are in service; packets: since the
    filter was first loaded, by what became of them: `local` kept, `taken` handed here by a node, `refused`, `left` to
    its owner who heard it too, `second_chance` asked of who owned the bucket before, `forwarded_NODE` handed on.
    """

    node: str
    in_service: bool
    open: bool = False
    nodes: tuple[str, ...] = ()
    groups: tuple[FarmGroup, ...] = ()
    addresses: tuple[FarmAddress, ...] = ()
    packets: Mapping[str, int] | None = None
    drains_for_s: float | None = None


class FarmFace(Protocol):
    """What a node answers about a farm."""

    async def farm_info(self, am: str) -> FarmInfo:
        """The farm in the eyes of this node; FaceError `action.refused` for a module without virtual addresses of a farm."""

    async def farm_open(self, am: str, opened: bool) -> bool:
        """Open or close this node's share of the clients (spec §5.6); True if that changed something. FaceError
        `action.refused` where scripts do not control it, or while the node is not in service.
        """
