"""Every benchmark, as tables and as build/reports/*.json; exit code 1 when a promise is not kept.

python -m benchmarks [replication] [farm] [daemon] [modules] [failover]     only these; the nodes come last, so that
nothing runs beside the table"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from benchmarks import daemon, failover, farm, modules, replication
from tests.nodes import CommandFailed, Lab, NotInTime
from tests.nodes.engine import ROOT

REPORT = ROOT / "build" / "reports" / "daemon.json"


def resting() -> int:
    """What the daemons cost: measure, print, write."""
    costs = daemon.measure()
    load = daemon.load_of(Lab.here()["n1"])
    print(f"{'node':6} {'process':24} {'memory':>10} {'limit':>8} {'processor':>10} {'limit':>6}")
    for cost in costs:
        print(
            f"{cost.node:6} {cost.unit.removesuffix('.service'):24} {cost.memory_mb:7.1f} MB "
            f"{daemon.MEMORY_LIMIT_MB:5.0f} MB {cost.processor_pct:8.2f} % {daemon.PROCESSOR_LIMIT_PCT:4.0f} %"
            f"{'' if cost.kept else '   TOO MUCH'}"
        )
    print(f"two modules (mirror and farm), {daemon.SECONDS} s at rest; load of the machine {load}")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    limits = {"memory_mb": daemon.MEMORY_LIMIT_MB, "processor_pct": daemon.PROCESSOR_LIMIT_PCT}
    report = {"seconds": daemon.SECONDS, "limits": limits, "load": load, "costs": [cost.as_dict() for cost in costs]}
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    print(REPORT.relative_to(ROOT))
    return 0 if all(cost.kept for cost in costs) else 1


def replicating() -> int:
    """The table of replication."""
    return replication.main([])


def sharing() -> int:
    """What a farm costs."""
    return farm.main([])


def failing_over() -> int:
    """How long clients wait: the whole of it where it is asked for by its name, else a few rounds."""
    return failover.main(
        [] if sys.argv[1:] else ["--rounds", "5", "--minutes", "2", "--only", "cut,stop,swap,kill,false"]
    )


def main() -> int:
    """What was named, or everything, each after the other."""
    all_of_them = {
        "replication": replicating,
        "farm": sharing,
        "daemon": resting,
        "modules": modules.main,
        "failover": failing_over,
    }
    wanted = sys.argv[1:] or list(all_of_them)
    unknown = [name for name in wanted if name not in all_of_them]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; expected {', '.join(all_of_them)}", file=sys.stderr)
        return 2
    return max([_one(name, all_of_them[name]) for name in wanted])


def _one(name: str, measure: Callable[[], int]) -> int:
    """A part that cannot run does not keep the others from running."""
    try:
        return measure()
    except (AssertionError, CommandFailed, NotInTime, OSError, RuntimeError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
