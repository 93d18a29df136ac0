"""What the product may lose, and what it may not."""

from __future__ import annotations

from dataclasses import replace

from tests.durability.journal import Operation
from tests.durability.promise import PowerLoss, Split, excused

WRITE = Operation("set", 1, "set/1.0", "add", ("7",), sent=10.0, answered=10.1, node="n1", mirrored=True)
ALONE = replace(WRITE, mirrored=False)
SYNCED = replace(WRITE, durable=True)
N1, N2 = PowerLoss("n1", 20.0), PowerLoss("n2", 21.0)


def lost(operation: Operation, *misfortunes: PowerLoss | Split, later: tuple[Operation, ...] = ()) -> bool:
    return operation in excused([operation, *later], misfortunes)


def test_what_both_nodes_acknowledged_survives_either_node() -> None:
    assert not lost(WRITE)
    assert not lost(WRITE, N1)
    assert not lost(WRITE, N2)


def test_what_both_nodes_acknowledged_may_be_lost_with_both_memories() -> None:
    assert lost(WRITE, N1, N2)
    assert lost(WRITE, N2, replace(N1, at=30.0))


def test_what_was_synced_survives_both_powers() -> None:
    assert not lost(SYNCED, N1, N2)
    assert not lost(replace(SYNCED, mirrored=False), N1, N2)


def test_alone_it_is_one_machine() -> None:
    assert lost(ALONE, N1)
    assert not lost(ALONE, N2)


def test_a_loss_before_the_request_excuses_nothing() -> None:
    assert not lost(ALONE, PowerLoss("n1", 9.0))
    assert not lost(WRITE, PowerLoss("n1", 9.0), N2)


def test_a_request_under_way_when_the_power_failed_counts_as_lost_with_it() -> None:
    assert lost(ALONE, PowerLoss("n1", 10.05))


def test_once_in_step_again_it_is_as_if_both_had_acknowledged_it() -> None:
    in_step = replace(WRITE, args=("8",), sent=15.0, answered=15.1)
    assert not lost(ALONE, N1, later=(in_step,))
    assert lost(ALONE, N1, N2, later=(in_step,))
    between = replace(in_step, sent=20.5, answered=20.6)
    assert not lost(WRITE, N1, N2, later=(between,))


def test_an_answer_that_was_under_way_at_the_loss_does_not_prove_that_the_pair_is_in_step_again() -> None:
    under_way = replace(WRITE, args=("8",), sent=19.9, answered=20.3)
    assert lost(WRITE, N1, N2, later=(under_way,))


def test_of_two_histories_only_what_the_loser_acknowledged_alone_is_given_up() -> None:
    split = Split(began=9.0, ended=12.0, loser="n1")
    assert lost(ALONE, split)
    assert lost(replace(ALONE, durable=True), split)
    assert not lost(WRITE, split)
    assert not lost(replace(ALONE, node="n2"), split)
    assert not lost(ALONE, Split(began=11.0, ended=12.0, loser="n1"))


def test_a_read_of_the_loser_may_have_been_out_of_date() -> None:
    assert lost(replace(WRITE, do="get"), Split(began=9.0, ended=12.0, loser="n1"))


def test_what_has_no_answer_is_never_missing() -> None:
    assert not excused([replace(WRITE, answered=None)], [N1, N2])
