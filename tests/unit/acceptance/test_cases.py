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
    verdicts.add("M13", 1.0, None, "it is taken over")
    verdicts.add("M13", 2.0, None, "it is taken over")
    verdicts.add("M1", 1.0, None, "")
    verdicts.add("M1", 4.0, AssertionError("a leak\nmore"), "")
    verdicts.add("C6", 0.5, NotBuilt("<module>"), "")
    verdicts.add("C6", 0.5, AssertionError("later"), "")
    verdicts.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "cases": [
            {"id": "M1", "result": "fail", "seconds": 5.0, "note": "a leak"},
            {"id": "M13", "result": "pass", "seconds": 3.0, "note": "ours: it is taken over"},
            {"id": "C6", "result": "fail", "seconds": 1.0, "note": "not built: <module>"},
        ]
    }
    assert verdicts.table()[-1] == "1 cases pass, 2 fail, 56 not run, 0.1 minutes"
