"""A replicated directory is a directory: random sequences of requests give what a plain directory gives, and leave equal copies.

SAFEKIT_MODEL_SEQUENCES says how many sequences run (2,000), SAFEKIT_MODEL_SEED which (1): a number gives the same ones each time.
`make soak` draws a number, and prints it.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.cases import CASES
from tests.model.ground import Ground
from tests.model.machine import Files, FilesAndFaults
from tests.model.trial import Difference, run, shrunk

SEQUENCES = int(os.environ.get("SAFEKIT_MODEL_SEQUENCES", "2000"))
SEED = int(os.environ.get("SAFEKIT_MODEL_SEED", "1"))
SHRINK_S = 60.0
PARTS = 10
WITH_FAULTS = 20
"""One sequence of so many loses a node."""


def explore(machine: type[Files], ground: Ground, sequences: int, steps: int, part: int) -> None:
    """Runs so many sequences of a machine; the shrunk failing one is in the message."""
    print(f"SAFEKIT_MODEL_SEED={SEED} (part {part})")

    class OnThisGround(machine):  # type: ignore[misc, valid-type]
        pass

    OnThisGround.ground = ground
    chosen = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    try:
        run_state_machine_as_test(seed(SEED + part)(OnThisGround), settings=chosen)
    except Difference as found:  # a sequence is a list of values: it is shrunk as one
        raise shrunk(ground, found, SHRINK_S) from None


@pytest.mark.parametrize("name", CASES)
def test_what_once_differed_is_equal(ground: Ground, name: str) -> None:
    run(ground, CASES[name])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_mount_answers_as_a_plain_directory_and_the_copies_are_equal(ground: Ground, part: int) -> None:
    explore(Files, ground, max((SEQUENCES - SEQUENCES // WITH_FAULTS) // PARTS, 1), 30, part)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_copies_are_equal_after_a_node_was_lost_or_the_roles_swapped(ground: Ground, part: int) -> None:
    explore(FilesAndFaults, ground, max(SEQUENCES // WITH_FAULTS // PARTS, 1), 30, part)
