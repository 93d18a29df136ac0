"""Whole lives of a mirror under the policies `witness`, `fence` and `manual`.

The third node is the register of production. It loses its power too, and the ways to it are cut like all others.
More of them: `make simulate`. A broken law prints its seed; the seed goes to `seeds_witness.yml` with a sentence.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from safekit.automaton.mirror import Policy
from tests.simulation.weather import live

SCHEDULES = {
    Policy.WITNESS: int(os.environ.get("SAFEKIT_SCHEDULES", "600")),
    Policy.FENCE: int(os.environ.get("SAFEKIT_SCHEDULES", "600")) // 6,
    Policy.MANUAL: int(os.environ.get("SAFEKIT_SCHEDULES", "600")) // 6,
}
FIRST_SEED = int(os.environ.get("SAFEKIT_FIRST_SEED", "0"))
PARTS = 10
SEEDS = yaml.safe_load((Path(__file__).parent / "seeds_witness.yml").read_text())


@pytest.mark.timeout(max(120, *SCHEDULES.values()))
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("policy", SCHEDULES)
def test_every_life_keeps_the_laws_and_ends_as_primary_and_secondary(policy: Policy, part: int) -> None:
    for seed in range(FIRST_SEED + part, FIRST_SEED + SCHEDULES[policy], PARTS):
        live(seed, policy)


@pytest.mark.parametrize("seed", SEEDS, ids=[f"{seed}: {sentence}" for seed, sentence in SEEDS.items()])
def test_what_broke_once_holds(seed: int) -> None:
    live(seed, Policy.WITNESS)
