"""Many schedules on real nodes: `python -m tests.durability --help`. `make soak` runs two hundred."""

from __future__ import annotations

import argparse
import sys
import time

from tests.durability.pair import CALM, FAST, Pair
from tests.durability.report import write_report, write_trials
from tests.durability.schedules import schedule
from tests.durability.stall import measure
from tests.durability.trial import Outcome, run_trial
from tests.nodes import CommandFailed, Lab, NotInTime
from tests.nodes.engine import ROOT
from tests.nodes.runtime import install_runtime
from tests.system.membership import form_cluster


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.durability", description="What was promised is there.")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--schedules", type=int, default=200, help="how many seeds from there (200)")
    parser.add_argument("--seeds", type=int, nargs="*", help="these seeds and no others")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no schedule after so many minutes")
    parser.add_argument("--stalls", type=int, default=0, help="measure the stall so many times for each way (0)")
    parser.add_argument("--words", action="store_true", help="only print the schedules")
    return parser.parse_args()


def main() -> int:
    """Exit code 1 when something did not hold."""
    args = _arguments()
    seeds = args.seeds if args.seeds is not None else range(args.first, args.first + args.schedules)
    if args.words:
        for seed in seeds:
            print("\n   ".join([f"seed {seed}:", *schedule(seed).words()]))
        return 0
    lab = Lab.here(say=print)
    lab.ensure()
    install_runtime(lab.nodes)
    form_cluster(lab)
    bad = 0
    if args.stalls:
        bad += _stalls(lab, args.stalls)
    if seeds:
        bad += _soak(lab, list(seeds), time.monotonic() + 60 * args.minutes)
    return 1 if bad else 0


def _stalls(lab: Lab, repetitions: int) -> int:
    pair = Pair(lab, FAST)
    pair.install()
    report = measure(pair, repetitions, _say)
    write_report("stall", report)
    pair.uninstall()
    return sum(not way["met"] for way in report.values())


def _soak(lab: Lab, seeds: list[int], end: float) -> int:
    pair = Pair(lab, CALM)
    pair.install()
    outcomes: list[Outcome] = []
    for seed in seeds:
        if time.monotonic() > end:
            break
        planned = schedule(seed)
        _say("\n   ".join([f"{time.strftime('%T')} seed {seed}", *planned.words()]))
        outcome = run_trial(pair, planned, _say)
        outcomes.append(outcome)
        _say(outcome.line())
        for problem in outcome.problems:
            _say(f"    PROBLEM {problem}")
        write_trials(outcomes)
        if outcome.problems:
            folder = ROOT / "build" / "reports" / "failures" / f"durability-{seed}"
            lab.collect(folder)
            pair.clients.save_journal(folder / "journal")
            renew(pair)
    failed = [outcome.seed for outcome in outcomes if outcome.problems]
    lost = sum(len(outcome.findings.lost) for outcome in outcomes)
    _say(f"{len(outcomes)} schedules, {lost} acknowledged operations lost, failed seeds: {failed or 'none'}")
    print(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    return len(failed)


def renew(pair: Pair) -> None:
    """After a trial that failed: nodes with power, and the module as new; new nodes when that does not help."""
    try:
        for node in pair.nodes:
            if not node.is_on():
                node.power_on()
        pair.lab.heal()
        form_cluster(pair.lab)
        pair.install()
    except (CommandFailed, NotInTime) as trouble:
        _say(f"    new nodes: {str(trouble)[:300]}")
        pair.lab.create()
        install_runtime(pair.lab.nodes)
        form_cluster(pair.lab)
        pair.install()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
