"""Who holds the data: what two records say together, and what a node may do by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekit.automaton import data
from safekit.automaton.data import BLANK, OPPOSITE, DataRecord, Decision, Holder, compare
from safekit.automaton.vocabulary import Role

GENERATIONS = st.sampled_from(["", "1.n1.a", "2.n1.a", "2.n2.b", "3.n2.b"])
RECORDS = st.builds(
    DataRecord,
    epoch=st.integers(0, 5),
    generation=GENERATIONS,
    history=st.lists(GENERATIONS.filter(bool), max_size=3, unique=True).map(tuple),
    holder=st.sampled_from(Holder),
    role=st.sampled_from(Role),
    clean=st.booleans(),
    consistent=st.booleans(),
)
FIRST = data.alone(BLANK, "n1", "a", 0, Role.ALONE)
SHARED = data.both(FIRST, Role.PRIM)


def coherent(mine: DataRecord, theirs: DataRecord) -> bool:
    """No generation is its own ancestor, and two are not each other's: `alone` never makes such records."""
    own = mine.generation in mine.history or theirs.generation in theirs.history
    crossed = mine.generation in theirs.history and theirs.generation in mine.history
    return not own and not crossed


@given(RECORDS, RECORDS)
def test_compare_is_total_and_antisymmetric(mine: DataRecord, theirs: DataRecord) -> None:
    if coherent(mine, theirs):
        assert compare(theirs, mine) is OPPOSITE[compare(mine, theirs)]


@given(RECORDS)
def test_two_equal_records_decide_nothing(record: DataRecord) -> None:
    assert compare(record, record) is Decision.UNDECIDED


@given(RECORDS, RECORDS)
def test_inconsistent_data_are_never_the_source_beside_consistent_ones(mine: DataRecord, theirs: DataRecord) -> None:
    bad, good = replace(mine, consistent=False), replace(theirs, consistent=True)
    assert compare(bad, good) is Decision.THEIRS


def test_two_inconsistent_copies_decide_nothing() -> None:
    assert compare(data.resynchronising(FIRST), data.resynchronising(SHARED)) is Decision.UNDECIDED


def test_a_descendant_is_the_source() -> None:
    later = data.alone(SHARED, "n2", "b", 0, Role.ALONE)
    assert compare(later, SHARED) is Decision.MINE
    assert compare(SHARED, later) is Decision.THEIRS


def test_two_children_of_one_generation_are_a_split_brain() -> None:
    assert (
        compare(data.alone(SHARED, "n1", "a", 0, Role.ALONE), data.alone(SHARED, "n2", "b", 0, Role.ALONE))
        is Decision.SPLIT
    )


def test_nothing_in_common_is_foreign() -> None:
    assert compare(FIRST, data.alone(BLANK, "n2", "b", 0, Role.ALONE)) is Decision.FOREIGN


@pytest.mark.parametrize(
    ("mine", "theirs", "decision"),
    [
        (replace(SHARED, clean=True), SHARED, Decision.MINE),
        (FIRST, replace(SHARED, role=Role.SECOND), Decision.MINE),
        (SHARED, replace(SHARED, role=Role.SECOND), Decision.MINE),
        (replace(SHARED, role=Role.SECOND), replace(SHARED, role=Role.SECOND), Decision.UNDECIDED),
        (BLANK, FIRST, Decision.THEIRS),
        (FIRST, BLANK, Decision.MINE),
        (BLANK, BLANK, Decision.UNDECIDED),
    ],
)
def test_of_the_same_generation_who_lost_nothing_then_who_is_sole_holder_then_who_was_primary(
    mine: DataRecord, theirs: DataRecord, decision: Decision
) -> None:
    assert compare(mine, theirs) is decision
    assert compare(theirs, mine) is OPPOSITE[decision]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (BLANK, "never synchronised"),
        (SHARED, "does not know whether the other went on"),
        (data.joining(SHARED), "the other node has the latest"),
        (data.resynchronising(SHARED), "did not end"),
    ],
)
def test_only_a_consistent_sole_holder_starts_alone_and_the_others_say_why_not(
    record: DataRecord, sentence: str
) -> None:
    assert not data.may_start_alone(record)
    assert sentence in data.why_not_alone(record)
    assert data.may_start_alone(FIRST)


@given(RECORDS, st.integers(0, 9))
def test_a_sole_holder_has_a_new_generation_above_every_epoch_it_heard_of(record: DataRecord, peer_epoch: int) -> None:
    new = data.alone(record, "n1", "x", peer_epoch, Role.PRIM)
    assert new.epoch > max(record.epoch, peer_epoch)
    assert new.generation not in record.history and new.generation != record.generation
    if record.generation:
        assert new.history[0] == record.generation
    assert len(new.history) <= data.HISTORY_LENGTH
    assert data.may_start_alone(new) and not new.clean


def test_two_lives_of_one_record_file_never_repeat_a_generation() -> None:
    assert (
        data.alone(BLANK, "n1", "a", 0, Role.ALONE).generation != data.alone(BLANK, "n1", "b", 0, Role.ALONE).generation
    )


def test_uptodate_is_what_the_resource_shows() -> None:
    assert FIRST.uptodate and SHARED.uptodate
    assert not BLANK.uptodate and not data.joining(SHARED).uptodate and not data.resynchronising(FIRST).uptodate


def test_who_leaves_as_secondary_or_after_a_handover_gives_up_its_claim() -> None:
    assert data.left(SHARED, Role.SECOND, handed_over=False).holder is Holder.PEER
    assert data.left(FIRST, Role.PRIM, handed_over=True).holder is Holder.PEER
    assert data.left(FIRST, Role.ALONE, handed_over=False) == replace(FIRST, clean=True)
    assert data.left(BLANK, Role.SECOND, handed_over=False).holder is Holder.NONE
    assert not data.left(data.resynchronising(SHARED), Role.SECOND, handed_over=False).consistent


def test_who_joins_and_leaves_before_anything_was_copied_still_lacks_what_it_lost_with_its_memory() -> None:
    for clean in (True, False):
        lost = replace(SHARED, clean=clean)
        assert data.left(data.joining(lost), Role.SECOND, handed_over=False) == replace(data.joining(lost), clean=clean)


def test_who_yields_forgets_its_history_and_keeps_its_epoch() -> None:
    yielded = data.yielded(FIRST)
    assert (yielded.epoch, yielded.generation, yielded.history, yielded.holder) == (1, "", (), Holder.PEER)
    assert compare(yielded, SHARED) is Decision.THEIRS


def test_adopted_is_the_sources_generation_held_by_both() -> None:
    adopted = data.adopted(FIRST)
    assert (adopted.generation, adopted.holder, adopted.role) == (FIRST.generation, Holder.BOTH, Role.SECOND)
