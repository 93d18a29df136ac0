"""What the benchmark of failover makes of a client's answers."""

from __future__ import annotations

import pytest

from benchmarks import outages
from benchmarks.failover import ROWS, arguments
from benchmarks.outages import FALSE, TARGETS, Answer, Call, Series, Target

SWAPPED = [Answer(1.0, "n1"), Answer(1.02, "n1"), Answer(1.64, "n2"), Answer(1.66, "n2")]


def test_an_outage_lasts_from_the_last_answer_before_to_the_first_one_of_the_other_node() -> None:
    assert outages.moved(SWAPPED, "n2") == (1.02, 1.64)
    assert outages.longest_gap(SWAPPED) == (1.02, 1.64)


def test_a_node_that_has_not_answered_yet_has_no_outage() -> None:
    assert outages.moved(SWAPPED[:2], "n2") is None
    assert outages.moved(SWAPPED[2:], "n2") is None  # what was before is not known
    assert outages.longest_gap(SWAPPED[:1]) is None


def test_a_line_that_was_written_half_says_nothing() -> None:
    assert outages.parsed(["2.5 n2", "1.5 n1", "3."]) == [Answer(1.5, "n1"), Answer(2.5, "n2")]


def test_a_script_that_was_killed_has_no_end_and_is_left_out() -> None:
    lines = [
        "1.0 begin stop_prim",
        "1.5 end stop_prim",
        "2.0 begin start_prim",
        "9.0 begin start_prim",
        "9.5 end start_prim",
    ]
    assert outages.calls(lines) == [Call("stop_prim", 1.0, 1.5), Call("start_prim", 9.0, 9.5)]


def test_of_thirty_the_99th_percentile_is_the_worst() -> None:
    values = [float(number) for number in range(30, 0, -1)]
    assert outages.percentile(values, 0.99) == 30.0
    assert outages.percentile(values, 0.5) == 15.0
    assert outages.percentile([], 0.5) is None


def _series(*values: float, missed: tuple[str, ...] = ()) -> Series:
    series = Series("cut", "power cut")
    for value in values:
        series.add(value, detection=value - 0.2, first_write=None)
    series.missed.extend(missed)
    return series


def test_a_target_is_met_broken_or_not_measured() -> None:
    targets = (Target("cut", 0.5, 2.0, "p50"), Target("cut", 0.99, 3.0, "p99"), Target("swap", 0.99, 1.0, "p99"))
    told = outages.verdicts([_series(1.7, 1.8, 3.2)], targets)
    assert [(one["value"], one["met"]) for one in told] == [(1.8, True), (3.2, False)]
    assert {"work", "measure", "value", "target", "met"} <= told[0].keys()
    assert [one["met"] for one in outages.verdicts([_series()], targets)] == [None, None]


def test_a_service_that_did_not_come_back_misses_its_target() -> None:
    targets = (Target("cut", 0.5, 2.0, "p50"),)
    assert outages.verdicts([_series(1.0, 1.1, missed=("round 3",))], targets)[0]["met"] is False
    assert outages.verdicts([_series(missed=("round 1",))], targets)[0]["met"] is False


def test_every_target_has_its_row() -> None:
    assert {target.row for target in TARGETS} <= ROWS.keys()


def test_the_histogram_counts_every_round_once() -> None:
    shown = outages.histogram(_series(1.61, 1.62, 1.7, 2.9))
    counts = [int(line.split()[3]) for line in shown.splitlines()[1:] if "…" in line]
    assert sum(counts) == 4 and len(counts) <= 14
    assert "medians: detection" in shown and "first_write" not in shown
    assert outages.histogram(_series()) == "power cut: no figure"
    assert outages.histogram(_series(0.0, 0.0)).splitlines()[1].split()[3] == "2"


def test_a_run_of_less_than_everything_is_no_whole_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments([]).whole
    assert not arguments(["--rounds", "3"]).whole
    without = arguments(["--minutes", "0"])
    assert not without.whole and FALSE not in without.only
    with pytest.raises(SystemExit):
        arguments(["--only", "cut,explosion"])
    assert "unknown: explosion; expected cut," in capsys.readouterr().err
