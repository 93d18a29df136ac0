"""`make simulate`: many seeds, each a whole life of a pair under one of the policies; `python -m tests.simulation --help`.

Then each rule of the product is dropped, until the laws see it. Prints how far it is, each seed that broke a law and each rule
whose loss nobody saw, and writes build/reports/simulate.json and build/reports/dropped.json. Exit code 1 when there was one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from multiprocessing.pool import Pool
from pathlib import Path

from safekit.automaton.mirror import Policy
from tests.simulation import test_laws_bite, test_laws_bite_with_fence, test_laws_bite_with_witness
from tests.simulation.dropped import Caught, first_world_that_breaks
from tests.simulation.laws import Broken
from tests.simulation.weather import live

REPORT = Path("build/reports/simulate.json")
REPORT_OF_RULES = Path("build/reports/dropped.json")
RULES = (*test_laws_bite.RULES, *test_laws_bite_with_witness.RULES, *test_laws_bite_with_fence.RULES)
SHARES = (Policy.WITNESS, Policy.NONE, Policy.WITNESS, Policy.NONE, Policy.FENCE, Policy.MANUAL)
"""Which policy a seed lives under, by its remainder."""
SHOW_EVERY_S = 10.0


def policy_of(seed: int) -> Policy:
    """The policy of this seed."""
    return SHARES[seed % len(SHARES)]


def lived(seed: int) -> tuple[int, str]:
    """The seed, and the law that its world broke with its story; empty when none."""
    try:
        live(seed, policy_of(seed))
    except Broken as broken:
        return seed, str(broken)
    except Exception as error:  # a defect of the automaton or of the simulation is a failure of this seed
        return seed, f"{type(error).__name__}: {error}"
    return seed, ""


def without(number: int) -> Caught:
    """What became of the worlds without the rule of this number."""
    return first_world_that_breaks(RULES[number])


def main() -> int:
    """Live through the seeds, and drop the rules."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20_000, help="how many (20000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    args = parser.parse_args()
    with multiprocessing.Pool(min(os.cpu_count() or 1, 8)) as pool:
        held = _live_through(pool, range(args.first, args.first + args.seeds))
        seen = _drop(pool)
    return 0 if held and seen else 1


def _live_through(pool: Pool, seeds: range) -> bool:
    """Whether no law was broken."""
    begun = shown = time.monotonic()
    broken: list[dict[str, object]] = []
    lives: Counter[str] = Counter()
    for seed, story in pool.imap_unordered(lived, seeds, chunksize=20):
        lives[policy_of(seed).value] += 1
        if story:
            sentence = story.splitlines()[0]
            broken.append({"seed": seed, "policy": policy_of(seed).value, "sentence": sentence})
            print(f"{story}\nseed {seed} under policy {policy_of(seed)} broke a law: {sentence}", flush=True)
        if time.monotonic() - shown >= SHOW_EVERY_S:
            shown = time.monotonic()
            print(f"{lives.total()} of {len(seeds)} seeds, {len(broken)} broke a law", flush=True)
    report = {
        "first": seeds.start,
        "seeds": len(seeds),
        "lives": dict(lives),
        "seconds": round(time.monotonic() - begun, 1),
        "broken": broken,
    }
    _write(REPORT, report)
    print(f"{len(seeds)} seeds from {seeds.start} in {report['seconds']} s: {len(broken)} broke a law; {REPORT}")
    return not broken


def _drop(pool: Pool) -> bool:
    """Whether the laws saw the loss of each rule."""
    begun = time.monotonic()
    caught = pool.map(without, range(len(RULES)), chunksize=1)
    rules = [
        {
            "rule": rule.name,
            "policy": rule.policy.value,
            "without": rule.about,
            "caught": found.is_due_to(rule),
            "seed": found.seed,
            "law": found.law,
        }
        for rule, found in zip(RULES, caught, strict=True)
    ]
    missed = [rule["rule"] for rule in rules if not rule["caught"]]
    _write(REPORT_OF_RULES, {"seconds": round(time.monotonic() - begun, 1), "rules": rules})
    for name in missed:
        print(f"without the rule {name} no world broke a law that it keeps")
    print(f"{len(rules)} rules dropped, the loss of {len(rules) - len(missed)} seen by a law; {REPORT_OF_RULES}")
    return not missed


def _write(path: Path, report: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
