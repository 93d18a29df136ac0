"""Twenty schedules of faults, each under load: nothing acknowledged is lost and both nodes hold the same. `make soak` runs more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.durability.__main__ import renew
from tests.durability.pair import Pair
from tests.durability.report import write_trials
from tests.durability.schedules import schedule
from tests.durability.trial import Outcome, run_trial
from tests.nodes import Lab

FAILED_ONCE = yaml.safe_load((Path(__file__).parent / "seeds.yml").read_text())
SEEDS = sorted({*range(1, 21), *FAILED_ONCE})


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[Outcome]]:
    """What the schedules of this run showed, for the report."""
    found: list[Outcome] = []
    yield found
    write_trials(found)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_lost(seed: int, pair: Pair, lab: Lab, outcomes: list[Outcome]) -> None:
    if outcomes and outcomes[-1].problems:
        renew(pair)
    print("\n".join([f"seed {seed}", *schedule(seed).words()]))
    outcome = run_trial(pair, schedule(seed), print)
    outcomes.append(outcome)
    print(outcome.line())
    assert not outcome.problems, "\n".join(outcome.problems)
    assert sum(outcome.findings.acknowledged.values()) > 200
