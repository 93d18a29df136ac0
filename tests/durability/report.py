"""build/reports/durability.json: what the trials and the measurements showed, merged over several runs of one tree."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.durability.trial import Outcome
from tests.nodes.engine import ROOT

REPORT = ROOT / "build" / "reports" / "durability.json"


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """All trials together."""
    acknowledged: dict[str, int] = {}
    for outcome in outcomes:
        for workload, count in outcome.findings.acknowledged.items():
            acknowledged[workload] = acknowledged.get(workload, 0) + count
    return {
        "schedules": len(outcomes),
        "seeds": [outcome.seed for outcome in outcomes],
        "failed_seeds": [outcome.seed for outcome in outcomes if outcome.problems],
        "acknowledged": acknowledged,
        "lost": sum(len(outcome.findings.lost) for outcome in outcomes),
        "unexpected": sum(len(outcome.findings.unexpected) for outcome in outcomes),
        "unknown": sum(outcome.findings.unknown for outcome in outcomes),
        "recovered": sum(outcome.findings.recovered for outcome in outcomes),
        "excused": sum(outcome.findings.excused for outcome in outcomes),
        "missed_phases": sum(len(outcome.missed) for outcome in outcomes),
        "seconds": round(sum(outcome.seconds for outcome in outcomes)),
    }


def write_report(key: str, value: object) -> None:
    """Put one part into the report; the others stay."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    present = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    present |= {"date": time.strftime("%FT%TZ", time.gmtime()), key: value}
    REPORT.write_text(json.dumps(present, indent=1) + "\n")


def write_trials(outcomes: list[Outcome]) -> None:
    """The trials, whole, and their summary."""
    write_report("trials", summary(outcomes) | {"each": [outcome.as_json() for outcome in outcomes]})
