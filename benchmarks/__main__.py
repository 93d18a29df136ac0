"""Every benchmark, as tables and as build/reports/*.json; exit code 1 when a promise is not kept.

python -m benchmarks [daemon] [modules] [replication]     only these"""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks import daemon, modules, replication
from tests.nodes import Lab
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
    return asyncio.run(replication.run(replication.arguments([])))


def main() -> int:
    """What was named, or everything, each after the other."""
    all_of_them = {"daemon": resting, "modules": modules.main, "replication": replicating}
    wanted = sys.argv[1:] or list(all_of_them)
    unknown = [name for name in wanted if name not in all_of_them]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; expected {', '.join(all_of_them)}", file=sys.stderr)
        return 2
    return max([all_of_them[name]() for name in wanted])


if __name__ == "__main__":
    sys.exit(main())
