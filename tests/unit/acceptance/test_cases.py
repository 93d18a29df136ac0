"""The report of the acceptance cases: each id of the specification has one test, and no failure looks like a pass."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from tests.acceptance.cases import IDS, NotBuilt
from tests.acceptance.verdicts import Verdicts

TESTS = Path(__file__).resolve().parents[2] / "acceptance"


def test_each_of_the_59_ids_has_one_test_that_is_named_by_it() -> None:
    text = "\n".join(path.read_text() for path in sorted(TESTS.glob("test_*.py")))
    found = re.findall(r'^@case\("(\w+)".*\)\n(?:@.*\n)*def test_(\w+?)_', text, re.MULTILINE)
    assert Counter(number for number, _ in found) == Counter(IDS)
    assert len(IDS) == 59
    assert [(number, name) for number, name in found if number.lower() != name] == []
    assert len(re.findall(r"^def test_", text, re.MULTILINE)) == 59


def test_a_phase_that_fails_fails_the_case_and_later_phases_change_nothing(tmp_path: Path) -> None:
    verdicts = Verdicts()
    verdicts.add("M13", "setup", 1.0, None, "it is taken over")
    verdicts.add("M13", "call", 2.0, None, "it is taken over")
    verdicts.add("M1", "setup", 1.0, None, "")
    verdicts.add("M1", "call", 1.0, None, "")
    verdicts.add("M1", "teardown", 3.0, AssertionError("a leak\nmore"), "")
    verdicts.add("C6", "call", 0.5, NotBuilt("<module>"), "")
    verdicts.add("C6", "teardown", 0.5, AssertionError("later"), "")
    verdicts.add("F1", "setup", 0.5, None, "")
    verdicts.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "cases": [
            {"id": "M1", "result": "fail", "seconds": 5.0, "note": "a leak more"},
            {"id": "M13", "result": "pass", "seconds": 3.0, "note": "ours: it is taken over"},
            {"id": "F1", "result": "fail", "seconds": 0.5, "note": "broken off"},
            {"id": "C6", "result": "fail", "seconds": 1.0, "note": "not built: <module>"},
        ]
    }
    assert verdicts.table()[-1] == "1 cases pass, 3 fail, 55 not run, 0.2 minutes"
