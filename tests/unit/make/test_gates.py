"""What `make test` counts and concludes (make/gates.py): a gate that proves nothing must not look green."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.nodes.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """make/gates.py, with a log folder of its own."""
    spec = importlib.util.spec_from_file_location("gates", ROOT / "make" / "gates.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gates", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOGS", tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


@pytest.mark.parametrize(
    ("log", "passed", "failed"),
    [
        ("1428 passed in 451.80s (0:07:31)\n", 1428, 0),
        ("3 failed, 2 passed, 1 skipped in 0.81s\n", 2, 3),
        ("2 passed, 1 error in 3.00s\n", 2, 1),
        ("===== 7 passed in 4.24s =====\n===== 644 passed in 14.95s =====\n", 651, 0),
        ("8 passed, 1 failed\n", 8, 1),
        ("no tests ran in 0.01s\n", 0, 0),
        ("the node passed in 3 s\n", 0, 0),
    ],
)
def test_closing_lines_are_counted(gates: ModuleType, log: str, passed: int, failed: int) -> None:
    assert gates.counted(log) == (passed, failed)


def test_a_line_that_fails_fails_its_gate_and_the_next_line_is_not_run(gates: ModuleType, tmp_path: Path) -> None:
    verdict = gates.run(gates.Gate("one", ("true", "exit 3", f"touch {tmp_path}/reached")))
    assert verdict.why == "exit code 3: exit 3"
    assert (verdict.passed, verdict.failed) == (0, 1)
    assert not (tmp_path / "reached").exists()


def test_a_gate_that_does_not_end_is_ended_with_all_that_it_started(gates: ModuleType, tmp_path: Path) -> None:
    verdict = gates.run(gates.Gate("endless", (f"sleep 600 & echo $! >{tmp_path}/child; wait",), limit=1))
    assert verdict.why.startswith("not ended in time")
    child = int((tmp_path / "child").read_text())

    def gone() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"
        except OSError:
            return True

    wait_for("the child is gone", gone, timeout=10)


def test_an_empty_test_folder_is_a_failure(gates: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    verdict = gates.run(gates.Gate("empty", (f"{gates.PYTEST} {tmp_path}/empty",)))
    assert verdict.why


def test_a_gate_brings_the_gates_that_it_needs(gates: ModuleType) -> None:
    assert [gate.name for gate in gates.chosen(["system"])] == ["wheelhouse", "nodes", "system"]


def test_a_gate_that_does_not_exist_is_named(gates: ModuleType) -> None:
    with pytest.raises(SystemExit, match="no gate is called stile"):
        gates.chosen(["stile"])


def test_what_a_gate_needs_comes_before_it_in_its_lane_or_first(gates: ModuleType) -> None:
    seen: dict[str, str] = {}
    for gate in gates.GATES:
        assert all(seen.get(name) in ("first", gate.lane) for name in gate.needs), gate.name
        seen[gate.name] = gate.lane


def test_both_lanes_go_on_side_by_side_after_the_first(gates: ModuleType, tmp_path: Path) -> None:
    def meet(mine: str, other: str) -> tuple[str, ...]:
        return (f"touch {tmp_path}/{mine}; until [ -e {tmp_path}/{other} ]; do read -rt 0.05 <> <(:) || :; done",)

    whole = gates.Run(
        [
            gates.Gate("computes", (f"[ -e {tmp_path}/begun ]", *meet("a", "b")), limit=20),
            gates.Gate("nodes", (f"[ -e {tmp_path}/begun ]", *meet("b", "a")), limit=20, lane="nodes"),
            gates.Gate("first", (f"touch {tmp_path}/begun",), lane="first"),
        ]
    )
    whole.all()
    assert whole.bad == []
    assert whole.verdicts[0].gate.name == "first"


def test_a_gate_whose_need_failed_is_not_run(gates: ModuleType, tmp_path: Path) -> None:
    whole = gates.Run(
        [
            gates.Gate("base", ("false",), lane="first"),
            gates.Gate("above", (f"touch {tmp_path}/reached",), needs=("base",)),
        ]
    )
    whole.all()
    assert whole.bad == ["base", "above"]
    assert not (tmp_path / "reached").exists()


def test_the_processor_time_of_a_gate_is_its_own(gates: ModuleType) -> None:
    idle, busy = gates.Gate("idle", ("true",)), gates.Gate("busy", ("python3 -c 'sum(range(10**7))'",), lane="nodes")
    whole = gates.Run([idle, busy])
    whole.all()
    used = {verdict.gate.name: verdict.processor for verdict in whole.verdicts}
    assert used["idle"] < used["busy"]


def test_the_last_lines_name_what_failed_and_why(
    gates: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "FAILED tests/system/test_power.py::test_a_cut - AssertionError: two nodes serve"
    monkeypatch.setattr(gates, "GATES", (gates.Gate("system", (f"echo '{said}'; exit 1",), lane="nodes"),))
    monkeypatch.setattr(sys, "argv", ["gates.py"])
    assert gates.main() == 1
    assert capsys.readouterr().out.splitlines()[-4:-2] == [f"    system: {said}", "failed: system"]
