"""Who holds the data: the record that each node keeps, and what two records say together.

Invariant: a node serves alone only after its record names it sole holder under a generation that no other node has.
Two records can therefore be compared without a clock: a generation that is in the other's history is older; two
generations with a common ancestor and neither in the other's history are two histories (split brain), and nobody
overwrites either by itself.

The rules are those of `docs/architecture.md`, "Who may serve". This file decides; `module/record.py` keeps the file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from safekit.automaton.vocabulary import Role

HISTORY_LENGTH = 12
"""How many ancestors a record remembers.

More than that many changes of primary while a node is away count as foreign data.
"""


class Holder(StrEnum):
    """Whose copy holds every acknowledged write, as far as this node knows."""

    NONE = "none"
    ME = "me"
    PEER = "peer"
    BOTH = "both"


class Decision(StrEnum):
    """What `compare` answers; `MINE` means that this node is the source of the data."""

    MINE = "mine"
    THEIRS = "theirs"
    UNDECIDED = "undecided"
    SPLIT = "split"
    FOREIGN = "foreign"


OPPOSITE = {
    Decision.MINE: Decision.THEIRS,
    Decision.THEIRS: Decision.MINE,
    Decision.UNDECIDED: Decision.UNDECIDED,
    Decision.SPLIT: Decision.SPLIT,
    Decision.FOREIGN: Decision.FOREIGN,
}


@dataclass(frozen=True)
class DataRecord:
    """One node's knowledge about its replicated directories.

    `generation` names the state of the data, `history` its ancestors, newest first. `role` is what the node was when
    the record was written. `clean` is false while an application may write: a record that is read back unclean after
    a reboot has lost what was not synced. `consistent` is false from the first byte of a resynchronisation to its
    end.
    """

    epoch: int = 0
    generation: str = ""
    history: tuple[str, ...] = ()
    holder: Holder = Holder.NONE
    role: Role = Role.STOP
    clean: bool = True
    consistent: bool = True
    granted: int = 0
    """The epoch of the witness's register that this record stands on; 0 without a witness."""

    @property
    def uptodate(self) -> bool:
        """The resource `rfs.uptodate` (spec §4.5)."""
        return self.consistent and self.holder in (Holder.ME, Holder.BOTH)


BLANK = DataRecord()
"""A node that was never synchronised."""


def may_start_alone(record: DataRecord) -> bool:
    """Whether this node may become primary by itself, without hearing its peer (spec §4.5)."""
    return record.consistent and record.holder is Holder.ME


def may_start_on_trust(record: DataRecord) -> bool:
    """Whether an administrator's `syncdelta` can make this node primary though another may have newer data."""
    return record.consistent and record.holder is not Holder.NONE


def why_not_alone(record: DataRecord) -> str:
    """The sentence for the log when `may_start_alone` is false."""
    if not record.consistent:
        return "the data are inconsistent (a resynchronisation did not end)"
    if record.holder is Holder.NONE:
        return "the data were never synchronised: run `safekit prim` on the node with the valid data"
    if record.holder is Holder.PEER:
        return "the data are not up to date: the other node has the latest"
    return "this node does not know whether the other went on without it"


def alone(record: DataRecord, node: str, nonce: str, peer_epoch: int, role: Role) -> DataRecord:
    """The record of a node that becomes sole holder: a new generation, above every epoch that it has heard of.

    `nonce` differs between two lives of the same record file, so that a node that was installed anew never repeats a
    generation.
    """
    epoch = max(record.epoch, peer_epoch) + 1
    return DataRecord(
        epoch=epoch,
        generation=f"{epoch}.{node}.{nonce}",
        history=_ancestors(record),
        holder=Holder.ME,
        role=role,
        clean=False,
        consistent=True,
        granted=record.granted,
    )


def _ancestors(record: DataRecord) -> tuple[str, ...]:
    known = (record.generation, *record.history) if record.generation else record.history
    return known[:HISTORY_LENGTH]


def both(record: DataRecord, role: Role) -> DataRecord:
    """The primary's record when the peer is resynchronised and acknowledges."""
    return replace(record, holder=Holder.BOTH, role=role, clean=False, consistent=True)


def adopted(source: DataRecord) -> DataRecord:
    """The secondary's record when the primary has published: it now has the primary's generation."""
    return replace(source, holder=Holder.BOTH, role=Role.SECOND, clean=False, consistent=True)


def joining(record: DataRecord) -> DataRecord:
    """The record of a node that starts to receive: what it has is not the latest."""
    return replace(record, holder=Holder.PEER, role=Role.SECOND)


def resynchronising(record: DataRecord) -> DataRecord:
    """The record once the first byte of a resynchronisation may have been written."""
    return replace(record, holder=Holder.PEER, role=Role.SECOND, consistent=False, clean=False)


def left(record: DataRecord, role: Role, handed_over: bool) -> DataRecord:
    """The record of a node that stopped in order: a handed-over or secondary copy gives up its claim.

    Who leaves before anything was copied to it has what it had before: what it lost with its memory is not back.
    """
    if record.holder in (Holder.NONE, Holder.PEER) or not record.consistent:
        return replace(record, role=role)
    gives_up = handed_over or role is Role.SECOND
    return replace(record, holder=Holder.PEER if gives_up else record.holder, role=role, clean=True)


def yielded(record: DataRecord) -> DataRecord:
    """The record of a node that gives up its own history: a complete copy must follow."""
    return DataRecord(
        epoch=record.epoch,
        holder=Holder.PEER,
        role=Role.SECOND,
        clean=True,
        consistent=record.consistent,
        granted=record.granted,
    )


def compare(mine: DataRecord, theirs: DataRecord) -> Decision:
    """Which of two nodes is the source of the data. Total and antisymmetric: `compare(b, a)` is the opposite.

    Cases in the order of `docs/architecture.md`, "Who may serve".
    """
    if mine.consistent != theirs.consistent:
        return Decision.MINE if mine.consistent else Decision.THEIRS
    if not mine.consistent:
        return Decision.UNDECIDED
    if not mine.generation or not theirs.generation:
        return _compare_blank(mine, theirs)
    if mine.generation == theirs.generation:
        return _compare_same_generation(mine, theirs)
    if theirs.generation in mine.history:
        return Decision.MINE
    if mine.generation in theirs.history:
        return Decision.THEIRS
    if set(mine.history) & set(theirs.history):
        return Decision.SPLIT
    return Decision.FOREIGN


def _compare_blank(mine: DataRecord, theirs: DataRecord) -> Decision:
    """A node without a generation was never synchronised, or gave its history up: it is never the source."""
    if mine.generation:
        return Decision.MINE
    if theirs.generation:
        return Decision.THEIRS
    return Decision.UNDECIDED


def _compare_same_generation(mine: DataRecord, theirs: DataRecord) -> Decision:
    """Nobody went on alone since both had the same.

    The side that lost nothing, else the one that says `me`, else the former primary.
    """
    if mine.clean != theirs.clean:
        return Decision.MINE if mine.clean else Decision.THEIRS
    if (mine.holder is Holder.ME) != (theirs.holder is Holder.ME):
        return Decision.MINE if mine.holder is Holder.ME else Decision.THEIRS
    was_primary = (Role.PRIM, Role.ALONE)
    if (mine.role in was_primary) != (theirs.role in was_primary):
        return Decision.MINE if mine.role in was_primary else Decision.THEIRS
    return Decision.UNDECIDED
