"""A directory that cannot be replicated is named before anything is mounted over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from safekit.replication import DirectoryError, ReplicatedDirectory, check_directories, left_mounted


def refused(
    code: str, *directories: ReplicatedDirectory, taken: tuple[Path, ...] = (), mounts: str = "/proc/self/mounts"
) -> str:
    with pytest.raises(DirectoryError) as error:
        check_directories(directories, taken=taken, mounts=mounts)
    assert error.value.code == code
    return str(error.value)


def test_an_ordinary_directory_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "ab").mkdir()
    (tmp_path / "a" / "must be here").touch()
    check_directories(
        [ReplicatedDirectory(tmp_path / "a", ("must be here",)), ReplicatedDirectory(tmp_path / "ab")],
        taken=[tmp_path / "abc"],
    )


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    a = ReplicatedDirectory(tmp_path / "a")
    assert "must be an absolute path" in refused("relative", ReplicatedDirectory(Path("a")))
    assert f"{tmp_path}/none: does not exist" in refused("missing", ReplicatedDirectory(tmp_path / "none"))
    assert "is not a directory" in refused("not_a_directory", ReplicatedDirectory(tmp_path / "file"))
    assert "root of the system" in refused("nested", ReplicatedDirectory(Path("/")))
    assert "is replicated already" in refused("nested", a, ReplicatedDirectory(tmp_path / "link"))
    assert "must not lie in or around" in refused("nested", a, ReplicatedDirectory(tmp_path / "a" / "b"))
    assert "must not lie in or around" in refused(
        "nested", ReplicatedDirectory(tmp_path / "a" / "b"), taken=(tmp_path / "a",)
    )
    assert "'PG_VERSION' is missing" in refused("tocheck", ReplicatedDirectory(tmp_path / "a", ("PG_VERSION",)))
    assert "must be a relative path" in refused("outside", ReplicatedDirectory(tmp_path / "a", ("../file",)))


def test_a_directory_inside_a_served_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "with space" / "b").mkdir(parents=True)
    table = tmp_path / "mounts"
    point = str(tmp_path / "with space").replace(" ", "\\040")
    table.write_text(f"safekit:db {point} fuse.safekit rw 0 0\n")
    assert "replicated at this moment" in refused(
        "mounted", ReplicatedDirectory(tmp_path / "with space" / "b"), mounts=str(table)
    )
    check_directories([ReplicatedDirectory(tmp_path / "with space")], mounts=str(table))


def test_a_directory_that_a_killed_data_plane_left_covered_is_known(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a b")
    table = tmp_path / "mounts"
    covered = str(tmp_path / "a b").replace(" ", "\\040")
    table.write_text(f"safekit:m {covered} fuse.safekit rw 0 0\n/dev/loop0 {tmp_path}/c ext4 rw 0 0\n")
    asked = [tmp_path / "a b", tmp_path / "link", tmp_path / "c"]
    assert left_mounted(asked, mounts=str(table)) == (tmp_path / "a b", tmp_path / "link")
