"""The control groups of modules: made below the daemon's own, found by the name of a unit, ended as a whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

from safekit.groups import Groups, are_empty, end


def delegated(root: Path, path: str = "system.slice/safekitd.service") -> Groups:
    """What a process finds whose group this is, below `root`."""
    own = root / path
    own.mkdir(parents=True, exist_ok=True)
    (own / "cgroup.procs").touch()
    told = root / "self"
    told.write_text(f"8:pids:/\n0::/{path}\n")
    return Groups.here(root, told)


def sleeping(group: Path) -> subprocess.Popen[bytes]:
    """A process in a group of a kernel that cannot end groups."""
    process = subprocess.Popen(["sleep", "600"])
    group.mkdir(parents=True, exist_ok=True)
    (group / "cgroup.procs").write_text(f"{process.pid}\n")
    return process


def test_each_module_has_a_group_below_the_one_of_the_service(tmp_path: Path) -> None:
    groups = delegated(tmp_path)
    group = groups.of("db")
    assert group == tmp_path / "system.slice/safekitd.service/module-db" and group.is_dir()
    assert groups.of("db") == group
    groups.forget("db")
    assert not group.exists()
    groups.forget("db")


def test_who_is_no_service_of_systemd_has_none(tmp_path: Path) -> None:
    assert delegated(tmp_path, "user.slice/session-1.scope").of("db") is None
    assert Groups.here(tmp_path, tmp_path / "absent").of("db") is None
    assert Groups(tmp_path / "absent").of("db") is None


def test_what_the_kernel_can_end_as_a_whole_it_is_told_to(tmp_path: Path) -> None:
    unit = tmp_path / "system.slice/system-pg.slice/pg@1.service"
    for group in (unit, tmp_path / "module-db", tmp_path / "system.slice/other.service"):
        group.mkdir(parents=True)
        (group / "cgroup.kill").touch()
    end([str(tmp_path / "module-db"), "pg@1.service", "absent.service", str(tmp_path / "absent")], tmp_path)
    told = {path.parent.name: path.read_text() for path in tmp_path.rglob("cgroup.kill")}
    assert told == {"pg@1.service": "1", "module-db": "1", "other.service": ""}


def test_on_an_older_kernel_each_process_is_told(tmp_path: Path) -> None:
    process = sleeping(tmp_path / "module-db")
    end([str(tmp_path / "module-db")], tmp_path)
    assert process.wait(30) == -9
    end([str(tmp_path / "module-db")], tmp_path)


def test_a_group_is_empty_when_nothing_runs_in_it_or_it_is_gone(tmp_path: Path) -> None:
    names = [str(tmp_path / "module-db"), "pg.service"]
    unit = tmp_path / "system.slice" / "pg.service"
    assert are_empty(names, tmp_path)
    unit.mkdir(parents=True)
    (unit / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert not are_empty(names, tmp_path)
    (unit / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    assert are_empty(names, tmp_path)
