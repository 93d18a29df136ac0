"""Whole lives of a mirror from seeds, and the worlds that once broke a law.

More of them: `SAFEKIT_SCHEDULES=20000 SAFEKIT_FIRST_SEED=100000 pytest tests/simulation`. A broken law prints its
seed and the story of its world; the seed goes to `seeds.yml` with a sentence.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.simulation.weather import live

SCHEDULES = int(os.environ.get("SAFEKIT_SCHEDULES", "1300"))
FIRST_SEED = int(os.environ.get("SAFEKIT_FIRST_SEED", "0"))
PARTS = 20
SEEDS = yaml.safe_load((Path(__file__).parent / "seeds.yml").read_text())


@pytest.mark.timeout(max(120, SCHEDULES))
@pytest.mark.parametrize("part", range(PARTS))
def test_every_life_keeps_the_laws_and_ends_as_primary_and_secondary(part: int) -> None:
    for seed in range(FIRST_SEED + part, FIRST_SEED + SCHEDULES, PARTS):
        live(seed)


@pytest.mark.parametrize("seed", SEEDS, ids=[f"{seed}: {sentence}" for seed, sentence in SEEDS.items()])
def test_what_broke_once_holds(seed: int) -> None:
    live(seed)


def test_a_seed_is_one_world() -> None:
    assert live(4711).story() == live(4711).story()
