"""A law that cannot be broken proves nothing: each rule that is dropped here loses something in some world, and the laws see it."""

from __future__ import annotations

from safekit.automaton import data
from safekit.automaton.data import DataRecord, Decision, Holder
from safekit.automaton.mirror import PLANS
from safekit.automaton.vocabulary import Publish, Record, RecordKind, Role, Script, Vip
from tests.simulation.dropped import Dropped, Patch, each, first_world_that_breaks
from tests.simulation.plane import Copy


def both_may_start_alone(patch: Patch) -> None:
    """`both` after a restart counts as `me`."""

    def may_start_alone(record: DataRecord) -> bool:
        return record.consistent and record.holder in (Holder.ME, Holder.BOTH)

    patch.setattr(data, "may_start_alone", may_start_alone)


def former_primary_wins(patch: Patch) -> None:
    """Of the same generation the former primary is the source, whoever lost its memory."""
    primary = (Role.PRIM, Role.ALONE)

    def compare(mine: DataRecord, theirs: DataRecord) -> Decision:
        if (mine.role in primary) == (theirs.role in primary):
            return Decision.UNDECIDED
        return Decision.MINE if mine.role in primary else Decision.THEIRS

    patch.setattr(data, "_compare_same_generation", compare)


def record_before_the_data_are_durable(patch: Patch) -> None:
    """Nothing is synced when a node becomes sole holder, or ever by itself."""
    patch.setattr(Copy, "sync", lambda _copy: None)


def address_kept(patch: Patch) -> None:
    """A primary that stops keeps its address."""
    patch.setitem(PLANS, "leave_prim", tuple(step for step in PLANS["leave_prim"] if step != Vip(False)))


def told_before_recorded(patch: Patch) -> None:
    """The secondary is told before the primary's record says `both`, and does not record it itself."""
    patch.setitem(PLANS, "publish", (Publish(), Record(RecordKind.BOTH)))
    patch.setitem(PLANS, "second_ready", PLANS["second_ready"][1:])


def application_left_running(patch: Patch) -> None:
    """An orderly stop of the primary does not stop the application first."""
    patch.setitem(PLANS, "leave_prim", tuple(step for step in PLANS["leave_prim"] if step != Script("stop_prim")))


RULES = (
    Dropped(both_may_start_alone, ("serves without the acknowledged writes",)),
    Dropped(former_primary_wins, ("acknowledged write",)),
    Dropped(record_before_the_data_are_durable, ("acknowledged write",)),
    Dropped(address_kept, ("holds the virtual address in WAIT",)),
    Dropped(told_before_recorded, ("is SECOND Ready and its record says",)),
    Dropped(application_left_running, ("the application runs on both nodes",)),
)


@each(RULES)
def test_a_dropped_rule_breaks_a_law(dropped: Dropped) -> None:
    caught = first_world_that_breaks(dropped)
    assert caught.is_due_to(dropped), caught
