"""What the API asks of a node about its role as a witness (docs/reference/witness.md).

A part of `NodeFace`: values and questions only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class WitnessRegister:
    """Who may serve one module: `holders`, since the grant `epoch` to `node`. `trouble`: why it cannot be told."""

    module: str
    epoch: int
    holders: tuple[str, ...]
    node: str
    trouble: str = ""


@dataclass(frozen=True)
class WitnessCluster:
    """A cluster that is served."""

    name: str
    nodes: tuple[str, ...]
    registers: tuple[WitnessRegister, ...] = ()


@dataclass(frozen=True)
class WitnessInfo:
    """`GET /witness`. `addr` null: on every address. `dropped`: datagrams without an answer since the start, by reason.

    `trouble`: why the node does not serve as a witness though it should; empty when nothing is wrong.
    """

    serving: bool
    addr: str | None = None
    port: int | None = None
    clusters: tuple[WitnessCluster, ...] = ()
    answered: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""


class WitnessFace(Protocol):
    """What a node answers about its role as a witness."""

    async def witness_info(self) -> WitnessInfo:
        """What this node serves as a witness."""

    async def witness_add(
        self,
        cluster: str,
        key: bytes,
        nodes: tuple[str, ...],
        port: int | None,
        addr: str | None,
        check: bool,
        replace_key: bool,
    ) -> bool:
        """Serve a cluster; False if it already is so served. `port` and `addr` None: as they are."""

    async def witness_remove(self, cluster: str) -> bool:
        """Serve a cluster no longer and forget its registers; False if it was not served."""
