"""`make simulate`: many seeds, each a whole life of a pair under one of the policies; `python -m tests.simulation --help`.

Prints how far it is and each seed that broke a law, and writes build/reports/simulate.json. Exit code 1 when one did.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path

from safekit.automaton.mirror import Policy
from tests.simulation.laws import Broken
from tests.simulation.weather import live

REPORT = Path("build/reports/simulate.json")
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


def main() -> int:
    """Live through the seeds."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20_000, help="how many (20000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.seeds)
    begun = shown = time.monotonic()
    broken: list[dict[str, object]] = []
    lives: Counter[str] = Counter()
    with multiprocessing.Pool(min(os.cpu_count() or 1, 8)) as pool:
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
        "first": args.first,
        "seeds": len(seeds),
        "lives": dict(lives),
        "seconds": round(time.monotonic() - begun, 1),
        "broken": broken,
    }
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{len(seeds)} seeds from {args.first} in {report['seconds']} s: {len(broken)} broke a law; {REPORT}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
