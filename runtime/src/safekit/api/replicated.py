"""What the API asks of a node about the replicated directories of a mirror module (spec §4.9.3, §4.9.4, §4.9.6).

A part of `NodeFace`: values and questions only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

ComparisonKind = Literal["verify", "diff"]
SyncMode = Literal["default", "full", "external"]
SyncRole = Literal["prim", "second"]
SYNC_MODES: tuple[SyncMode, ...] = ("default", "full", "external")
SYNC_ROLES: tuple[SyncRole, ...] = ("prim", "second")
LONGEST_UID = 24


@dataclass(frozen=True)
class Comparison:
    """The present or last comparison of the two copies.

    kind: `verify` compares contents, `diff` counts what a synchronisation would copy; running, since: whether it goes
    on, and when it began; equal: null until it ended and when it failed; failed: why it did, empty if it did not;
    differing_files, differing_bytes: what a synchronisation would copy; entries: the first differing paths; list: a
    file on this node with all of them.
    """

    kind: ComparisonKind
    running: bool
    since: datetime
    ended: datetime | None = None
    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    equal: bool | None = None
    differing_files: int = 0
    differing_bytes: int = 0
    failed: str = ""
    entries: tuple[str, ...] = ()
    list: str = ""


@dataclass(frozen=True)
class SyncPolicy:
    """The policy of the next synchronisation. `uid` names a backup, `check` whether changes since then are looked for."""

    mode: SyncMode
    role: SyncRole | None = None
    uid: str = ""
    check: bool = True


class ReplicationFace(Protocol):
    """What a node answers about replicated directories."""

    async def rfs_stats(self, am: str) -> Mapping[str, int | str]:
        """Counters and latencies of the data plane."""

    async def rfs_compare(self, am: str, kind: ComparisonKind) -> Comparison:
        """Begin to compare the copies; it goes on by itself."""

    async def rfs_comparison(self, am: str, wait: float) -> Comparison | None:
        """The present or last comparison, None before the first; waits at most `wait` seconds for its end."""

    async def rfs_sync(self, am: str, policy: SyncPolicy) -> bool:
        """Choose the policy of the next synchronisation; False if it is chosen already."""
