"""What the pulse keeps over restarts and reboots."""

from __future__ import annotations

import stat
import time
from pathlib import Path

from safekit.membership import state
from safekit.membership.state import Lives


def test_lives_grow_over_restarts_and_reboots_with_a_clock_that_went_back(tmp_path: Path) -> None:
    kept, lost_at_boot = tmp_path / "var", tmp_path / "run"
    future = time.time_ns() + 10**18
    Lives((lost_at_boot, kept)).exceed(future)
    lost_at_boot.unlink()
    lives = Lives((lost_at_boot, kept))
    numbers = [lives.next().number, lives.next().number, Lives((lost_at_boot, kept)).next().number]
    assert future < numbers[0] < numbers[1] < numbers[2]


def test_disk_that_cannot_be_written_does_not_silence_the_node(tmp_path: Path) -> None:
    lives = Lives((tmp_path / "missing" / "file", tmp_path / "run"))
    assert lives.next().number < lives.next().number


def test_state_is_taken_up_after_a_restart_and_trusted_only_when_recent(tmp_path: Path) -> None:
    path = tmp_path / "pulse.json"
    state.save(path, 100.0, [{"a": 1}])
    assert state.load(path, 100.3) == ([{"a": 1}], True)
    assert state.load(path, 100.0 + state.RECENT_S + 1) == ([{"a": 1}], False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_state_of_another_boot_or_a_damaged_one_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "pulse.json"
    state.save(path, 100.0, [{"a": 1}])
    path.write_text(path.read_text().replace(state.boot_id(), "another"))
    assert state.load(path, 100.1) == ([], False)
    path.write_text('{"format": 1, "bo')
    assert state.load(path, 100.1) == ([], False)
    assert state.load(tmp_path / "absent", 100.1) == ([], False)


def test_replacing_a_file_that_others_could_read_makes_it_private(tmp_path: Path) -> None:
    path = tmp_path / "pulse.json"
    path.write_text("old")
    path.chmod(0o644)
    (tmp_path / "pulse.json.new").write_text("left by a crash, longer than the new content")
    state.replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
