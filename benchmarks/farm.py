"""What a farm costs: HTTP beside a direct server and haproxy, the price of a packet, the time until a change is in force, and
how evenly it shares.

    python benchmarks/farm.py [--rounds 7] [--seconds 2] [--changes 200] [--only http,packet,change,spread]

Network namespaces on one wire, nothing of the machine's network. Figures are medians of rounds in which every system is asked
once, in a drawn order; ratios are medians of the ratios within each round. build/reports/farm.json gets `rows` and `targets`;
what a run does not measure stays there from earlier ones. The exit code is 1 when a target is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # `python benchmarks/farm.py`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import balancing, filtering, spread
from benchmarks.balancing import DIRECT, DIRECTED, HAPROXY, LOCAL, SYSTEMS, THREE, TITLES, WORKS
from benchmarks.filtering import CASES, EMPTY
from benchmarks.outages import percentile
from tests.nodes.engine import ROOT

REPORT = ROOT / "build" / "reports" / "farm.json"
SEED = 1
ROUNDS, SECONDS, CHANGES, PACKET_ROUNDS = 7, 2, 200, 25
RATIOS = ((LOCAL, DIRECT, 0.95), (DIRECTED, DIRECT, 0.85), (DIRECTED, HAPROXY, 1.7))
FLAT, CHANGE_MS = 1.1, 50.0

Rows = list[dict[str, Any]]


def say(text: str) -> None:
    """What happens, for who waits."""
    print(f"{time.strftime('%T')} {text}", file=sys.stderr, flush=True)


def http(folder: Path, rounds: int, seconds: int) -> tuple[Rows, Rows]:
    """Requests per second of every system, and ours against the others."""
    draw = random.Random(SEED)
    found: dict[str, dict[str, list[float]]] = {work: {} for work in WORKS}
    failed = dict.fromkeys(SYSTEMS, 0)
    with balancing.balanced(folder) as wire:
        why_not = wire.why_not
        for number in range(rounds):
            for work in WORKS:
                for system in draw.sample(sorted(wire.targets), len(wire.targets)):
                    asked = wire.ask(system, work, seconds)
                    found[work].setdefault(system, []).append(round(asked.rate, 1))
                    failed[system] += asked.failed
            say(f"http {number + 1}: " + ", ".join(f"{s} {v[-1]:.0f}" for s, v in sorted(found["keep-alive"].items())))
    rows, targets = [], []
    for work, title in WORKS.items():
        systems = {
            system: {
                "title": TITLES[system],
                "median": statistics.median(found[work][system]) if system in found[work] else None,
                "rounds": found[work].get(system, []),
                "failed_requests": failed[system],
                "why_not": why_not.get(system, ""),
            }
            for system in SYSTEMS
        }
        against = {
            f"{ours}/{other}": round(ratio(found[work][ours], found[work][other]), 3)
            for ours in (LOCAL, DIRECTED)
            for other in (DIRECT, THREE, HAPROXY)
            if other in found[work]
        }
        rows.append({"row": work, "work": title, "unit": "requests/s", "systems": systems, "ours_against": against})
        for ours, other, limit in RATIOS:
            value = against.get(f"{ours}/{other}")
            name = f"{title}: {TITLES[ours]}, against {TITLES[other]}"
            met = None if value is None else value >= limit
            targets.append({"work": name, "ratio": value, "target": limit, "sense": "at least", "met": met})
    return rows, targets


def ratio(ours: list[float], other: list[float]) -> float:
    """The median of the ratios of neighbours."""
    return statistics.median(mine / theirs for mine, theirs in zip(ours, other, strict=True))


def packet(folder: Path, rounds: int = PACKET_ROUNDS) -> tuple[Rows, Rows]:
    """Nanoseconds of a packet over an empty chain, by what the filter holds."""
    draw = random.Random(SEED)
    found: dict[str, list[float]] = {case: [] for case in CASES}
    with filtering.wires(folder) as wires:
        for case in CASES:
            wires.nanoseconds(case)
        for _ in range(rounds):
            for case in draw.sample(sorted(CASES), len(CASES)):
                found[case].append(wires.nanoseconds(case))
    over = {
        case: [mine - empty for mine, empty in zip(found[case], found[EMPTY], strict=True)]
        for case in CASES
        if case != EMPTY
    }
    medians = {case: statistics.median(values) for case, values in over.items()}
    row: dict[str, Any] = {
        "row": "packet",
        "work": "a datagram through the filter, over an empty chain",
        "unit": "ns",
        "cases": {
            case: {"median": round(medians[case], 1), "rounds": [round(value, 1) for value in over[case]]}
            for case in over
        },
        "empty_chain": {"median": round(statistics.median(found[EMPTY]), 1), "rounds": found[EMPTY]},
    }
    targets = []
    for case in ("100 services", "1000 services", "100 VIPs"):
        value = round(medians[case] / medians["1"], 3)
        work = f"cost of a packet, {case}, against 1"
        targets.append({"work": work, "ratio": value, "target": FLAT, "sense": "at most", "met": value <= FLAT})
    return [row], targets


def change(folder: Path, count: int) -> tuple[Rows, Rows]:
    """Milliseconds from a change of the group to the filter in force."""
    found = filtering.changes(folder, count)
    seconds = [one.seconds * 1000 for one in found]
    processor = [one.processor * 1000 for one in found]
    p99 = percentile(seconds, 0.99)
    assert p99 is not None
    row: dict[str, Any] = {
        "row": "change",
        "work": "a node of 16 leaves or returns, 10 groups: until the filter is in force",
        "unit": "ms",
        "count": count,
        "p50": round(statistics.median(seconds), 1),
        "p99": round(p99, 1),
        "worst": round(max(seconds), 1),
        "processor_p50": round(statistics.median(processor), 1),
        "processor_p99": round(percentile(processor, 0.99) or 0.0, 1),
    }
    work = f"{row['work']}, p99 in ms"
    return [row], [
        {"work": work, "ratio": row["p99"], "target": CHANGE_MS, "sense": "at most", "met": row["p99"] <= CHANGE_MS}
    ]


def evenness() -> tuple[Rows, Rows]:
    """How many clients each node has, and who moves."""
    found = spread.everything()
    row: dict[str, Any] = {"row": "spread", "work": f"{spread.CLIENTS:,} clients over nodes", "unit": "of its due"}
    row["cases"] = spread.as_rows(found)
    return [row], [{**target, "sense": "at most"} for target in spread.targets(found)]


def table(rows: Rows, targets: Rows) -> str:
    """For a terminal."""
    lines = []
    for row in rows:
        lines.append(f"{row['work']} ({row['unit']})")
        if row["row"] in WORKS:
            for one in row["systems"].values():
                value = f"{one['median']:10,.0f}" if one["median"] is not None else f"{'–':>10} {one['why_not']}"
                lines.append(f"  {one['title']:44} {value}")
        elif row["row"] == "packet":
            lines.append(f"  {'empty chain':44} {row['empty_chain']['median']:10.0f}")
            lines += [f"  {case:44} {'+' + format(one['median'], '.0f'):>10}" for case, one in row["cases"].items()]
        elif row["row"] == "change":
            lines.append(
                f"  p50 {row['p50']}, p99 {row['p99']}, worst {row['worst']}; processor p50 {row['processor_p50']}"
            )
        else:
            lines += [
                f"  {one['nodes']:2} nodes, weights {one['weights']:8} {one['clients']:12} largest {one['largest_share']:.4f}"
                for one in row["cases"]
            ]
    lines += ["", f"{'promised':104} {'found':>8} {'target':>16}"]
    words = {True: "met", False: "NOT MET", None: "not measured"}
    for one in targets:
        limit = f"{one['sense']} {one['target']}"
        lines.append(
            f"{one['work']:104} {one['ratio'] if one['ratio'] is not None else '–':>8} {limit:>16}  {words[one['met']]}"
        )
    return "\n".join(lines)


def write(about: dict[str, Any], rows: Rows, targets: Rows) -> None:
    """Into the report, in the place of what an earlier run found for the same rows and targets; each row keeps what is
    known about its own run.
    """
    try:
        told = json.loads(REPORT.read_text())
    except (FileNotFoundError, ValueError):
        told = {}
    names, works = {row["row"] for row in rows}, {target["work"] for target in targets}
    told["about"] = about
    told["rows"] = [row for row in told.get("rows", []) if row["row"] not in names]
    told["rows"] += [{**row, "about": about} for row in rows]
    told["targets"] = [target for target in told.get("targets", []) if target["work"] not in works] + targets
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")


KINDS = ("http", "packet", "change", "spread")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks.farm", description="What a farm costs.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of HTTP (%(default)s)")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="each system is asked in a round (%(default)s)")
    parser.add_argument("--changes", type=int, default=CHANGES, help="of the group (%(default)s)")
    parser.add_argument("--only", default=",".join(KINDS), help="only these: %(default)s")
    given = parser.parse_args(words)
    given.only = given.only.split(",")
    if unknown := set(given.only) - set(KINDS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected {', '.join(KINDS)}")
    if min(given.rounds, given.seconds, given.changes) < 1:
        parser.error("--rounds, --seconds and --changes: expected at least 1")
    return given


def main(words: list[str] | None = None) -> int:
    """Measure, print, write."""
    given = arguments(words)
    if os.geteuid() != 0:
        print("benchmarks.farm: network namespaces need root", file=sys.stderr)
        return 2
    load, began = os.getloadavg()[0], time.monotonic()
    rows: Rows = []
    targets: Rows = []
    with tempfile.TemporaryDirectory(prefix="safekit-farm-") as made:
        folder = Path(made)
        parts: dict[str, Callable[[], tuple[Rows, Rows]]] = {
            "http": lambda: http(folder, given.rounds, given.seconds),
            "packet": lambda: packet(folder),
            "change": lambda: change(folder, given.changes),
            "spread": evenness,
        }
        for kind in given.only:
            say(kind)
            more, met = parts[kind]()
            rows += more
            targets += met
    about = {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "rounds": given.rounds,
        "seconds_each": given.seconds,
        "connections": balancing.CONNECTIONS,
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "seconds": round(time.monotonic() - began, 1),
    }
    write(about, rows, targets)
    print(table(rows, targets))
    print(f"load of the machine {load:.1f} before, {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores")
    print(REPORT.relative_to(ROOT))
    return 0 if all(one["met"] is not False for one in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
