"""Cuts of the link under a witness, many times: `python -m tests.faults --cuts 50`. `make faults` runs them.

build/reports/faults.json holds `cuts`, each as it ended, and `targets`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from dataclasses import asdict

from tests.faults.cuts import Cut, arbitrated, cut_once, verdict
from tests.nodes import Lab
from tests.nodes.engine import ROOT
from tests.nodes.runtime import install_runtime

REPORT = ROOT / "build" / "reports" / "faults.json"
MOST_PROBLEMS = 3


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Exactly one serves, nothing is lost.")
    parser.add_argument("--cuts", type=int, default=50, help="how many (%(default)s)")
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no cut after so many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the cuts (%(default)s)")
    return parser.parse_args()


def main() -> int:
    """Exit code 1 when something did not hold, or when not every cut was made."""
    args = _arguments()
    chance = random.Random(args.seed)
    end = time.monotonic() + 60 * args.minutes
    lab = Lab.here(say=print)
    lab.ensure()
    install_runtime(lab.nodes)
    cuts: list[Cut] = []
    with arbitrated(lab) as mirror:
        while len(cuts) < args.cuts and time.monotonic() < end:
            cuts.append(cut_once(mirror, len(cuts) + 1, chance))
            print(f"{time.strftime('%T')} {cuts[-1].line()}", flush=True)
            _write(cuts, args.cuts, args.seed)
            if sum(not cut.ok for cut in cuts) >= MOST_PROBLEMS:
                break
        if all(cut.ok for cut in cuts):
            mirror.assert_same_trees()
    told = verdict(cuts, args.cuts)
    for target in told:
        print(f"{target['measure']}: {target['value']} (target {target['target']})")
    moved = sum(cut.took_over for cut in cuts)
    print(f"{len(cuts)} of {args.cuts} cuts; {moved} times the former secondary took over; {REPORT.relative_to(ROOT)}")
    return 0 if all(target["met"] for target in told) else 1


def _write(cuts: list[Cut], wanted: int, seed: int) -> None:
    report = {
        "about": {"wanted": wanted, "seed": seed, "load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()},
        "cuts": [asdict(cut) for cut in cuts],
        "targets": verdict(cuts, wanted),
    }
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
