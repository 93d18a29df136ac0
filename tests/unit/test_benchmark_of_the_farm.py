"""What the benchmark of the farm says of its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import farm


def test_a_ratio_is_the_median_of_neighbours() -> None:
    assert farm.ratio([90, 10, 95], [100, 100, 100]) == 0.9


def test_a_part_of_the_run_leaves_what_others_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "reports" / "farm.json"
    monkeypatch.setattr(farm, "REPORT", report)
    target = {"work": "cost", "ratio": 1.3, "target": 1.1, "sense": "at most", "met": False}
    farm.write({"cores": 2}, [{"row": "packet"}, {"row": "change"}], [target])
    told = json.loads(report.read_text())
    report.write_text(json.dumps({**told, "exactness": {"wrong": []}}))
    farm.write({"cores": 4}, [{"row": "packet", "unit": "ns"}], [{**target, "ratio": 1.0, "met": True}])
    told = json.loads(report.read_text())
    assert told["rows"] == [
        {"row": "change", "about": {"cores": 2}},
        {"row": "packet", "unit": "ns", "about": {"cores": 4}},
    ]
    assert [(one["ratio"], one["met"]) for one in told["targets"]] == [(1.0, True)]
    assert (told["exactness"], told["about"]) == ({"wrong": []}, {"cores": 4})


@pytest.mark.parametrize(
    "words", [["--only", "http,dreams"], ["--rounds", "0"], ["--changes", "-1"]], ids=["kind", "rounds", "changes"]
)
def test_a_wrong_wish_is_refused_by_name(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        farm.arguments(words)
    assert "expected" in capsys.readouterr().err
