"""What the benchmarks say of figures, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.databases import sqlite_transactions
from benchmarks.places import BOUND, GLUSTER, LOCAL, OURS, SYSTEMS, Place
from benchmarks.rows import PROMISES, RECOVERIES, Promise, rows
from benchmarks.scratch import clear, remains, scratch
from benchmarks.workloads import QUICK, Measure, NotRun

ROWS = rows(sqlite_transactions, sqlite_transactions)


def _results(figures: dict[str, list[float | None]]) -> report.Results:
    results = report.Results()
    for system, values in figures.items():
        for value in values:
            if value is None:
                results.miss("random", system, "no time")
            else:
                results.add("random", system, Measure(value))
    return results


def test_a_ratio_is_the_median_of_what_neighbours_in_a_round_had() -> None:
    results = _results({OURS: [80, 10, 90], BOUND: [100, 100, 100]})
    assert results.ratio("random", BOUND) == 0.8
    # a round that one of them lacks says nothing
    assert _results({OURS: [80, None, 90], BOUND: [100, 1, 100]}).ratio("random", BOUND) == pytest.approx(0.85)


def test_a_promise_is_met_broken_or_not_measured() -> None:
    results = _results({OURS: [80], BOUND: [100], GLUSTER: [None]})
    promises = (Promise("random", BOUND, 0.85), Promise("random", GLUSTER, 4), Promise("random", BOUND, 0.8))
    verdicts = report.verdicts(results, ROWS, promises)
    assert [verdict["met"] for verdict in verdicts] == [False, None, True]
    assert {"work", "measure", "ratio", "target", "met"} <= verdicts[0].keys()


def test_every_row_is_measured_once_and_every_promise_has_its_row() -> None:
    keys = [row.key for row in ROWS]
    grouped = [key for group in RECOVERIES for key in group.keys]
    assert len(set(keys)) == len(keys)
    assert sorted(grouped) == sorted(row.key for row in ROWS if row.work is None)
    assert {promise.row for promise in PROMISES} <= set(keys)
    assert {promise.reference for promise in PROMISES} <= {"", *SYSTEMS}


def test_the_report_can_be_read_and_the_chart_be_drawn() -> None:
    results = _results({LOCAL: [200, 100], OURS: [80, None], BOUND: [100, 100]})
    found = json.loads(json.dumps(report.as_json(results, ROWS, PROMISES, {"rounds": 2})))
    (row,) = found["rows"]
    assert row["systems"][OURS] == {"median": 80, "rounds": [80, None], "more": {}, "why_not": "no time"}
    assert row["ours_against"] == {LOCAL: 0.4, BOUND: 0.8}
    assert len(found["targets"]) == sum(promise.row == "random" for promise in PROMISES)
    ElementTree.fromstring(report.chart(results, ROWS))
    assert "no time" in report.table(results, ROWS, PROMISES)


def test_the_bound_has_no_databases() -> None:
    with pytest.raises(NotRun):
        sqlite_transactions(Place(BOUND, Path(), Path()), QUICK)


def test_what_a_killed_benchmark_left_is_found_ended_and_removed(tmp_path: Path) -> None:
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    left, other = tmp_path / f"safekit-bench-{gone}-x", tmp_path / f"safekit-bench-{gone}-xy"
    for folder in (left, other):
        folder.mkdir()
    work = ["-c", "import time; time.sleep(60)", str(left / "data")]
    ours = subprocess.Popen(["fio", *work], executable=sys.executable)
    bystander = subprocess.Popen(["tail", *work], executable=sys.executable)
    try:
        assert sorted(remains(tmp_path)) == [left, other]
        clear(left)
        assert ours.wait(1) == -signal.SIGTERM
        assert bystander.poll() is None
        assert not left.exists()
        assert other.exists()
    finally:
        for process in (ours, bystander):
            process.kill()
            process.wait()


async def test_the_folder_of_a_benchmark_that_runs_is_left_alone(tmp_path: Path) -> None:
    async with scratch(tmp_path) as folder:
        os.utime(folder, (0, 0))
        assert remains(tmp_path) == []
    assert not folder.exists()
