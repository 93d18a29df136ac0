"""A seed is a schedule, always the same one, and every twenty-five seeds in a row begin with every kind of fault."""

from __future__ import annotations

from tests.durability.schedules import (
    INTERRUPTIONS,
    KINDS,
    LEAVES,
    PHASES,
    PROCESSES,
    WAYS,
    Cut,
    Kill,
    Planned,
    Power,
    Return,
    may_split,
    schedule,
)

SEEDS = range(1, 201)


def test_the_same_seed_is_the_same_schedule_and_reads_as_words() -> None:
    assert [schedule(seed) for seed in SEEDS] == [schedule(seed) for seed in SEEDS]
    assert len({str(schedule(seed).words()) for seed in SEEDS}) > 150
    assert schedule(6).words()[0].startswith("1. both lose their power")


def test_two_hundred_schedules_meet_every_fault() -> None:
    steps = [planned.step for seed in SEEDS for planned in schedule(seed).steps]
    killed = {step.process for step in steps if isinstance(step, Kill)}
    returns = [step for step in steps if isinstance(step, Return)]
    assert killed == PROCESSES.keys()
    assert {step.where for step in steps if isinstance(step, Power)} == {"primary", "secondary", "both"}
    assert {step.way for step in steps if isinstance(step, Cut)} == WAYS.keys()
    assert {step.phase for step in returns} == PHASES.keys()
    assert {step.leaves for step in returns} == LEAVES.keys()
    assert {step.interruption for step in returns} == INTERRUPTIONS.keys()


def test_the_first_steps_of_as_many_seeds_in_a_row_are_of_every_kind() -> None:
    first = [type(schedule(seed).steps[0].step) for seed in range(1, len(KINDS) + 1)]
    assert len(set(first)) == 7


def test_what_may_leave_two_histories_is_always_seen_to_its_end() -> None:
    planned: list[Planned] = [planned for seed in range(1, 2000) for planned in schedule(seed).steps]
    assert all(one.settle for one in planned if may_split(one.step))
    assert any(not one.settle for one in planned)
