"""A small file is replaced whole or stays as it was."""

from __future__ import annotations

import errno
import resource
import signal
from pathlib import Path

import pytest

from safekit.files import read_json, write_json


def test_a_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "folder" / "record", {"a": [1, 2]}, durable=True)
    assert read_json(tmp_path / "folder" / "record") == {"a": [1, 2]}
    assert read_json(tmp_path / "missing") is None


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write_json(path, {"old": True}, durable=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))
    try:
        with pytest.raises(OSError) as failure:
            write_json(path, {"new": True}, durable=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert failure.value.errno == errno.ENOSPC
    assert read_json(path) == {"old": True}


def test_the_next_version_of_a_record_has_its_place_on_the_disk_already(tmp_path: Path) -> None:
    path, spare = tmp_path / "record", tmp_path / "record.spare"
    write_json(path, {"version": 1, "long": "x" * 100}, durable=True, reserve=True)
    reserved = spare.stat()
    assert reserved.st_blocks > 0
    write_json(path, {"version": 2}, durable=True, reserve=True)
    assert path.stat().st_ino == reserved.st_ino
    assert read_json(path) == {"version": 2}
    assert spare.exists()
    assert not (tmp_path / "record.new").exists()


def test_what_an_interrupted_version_left_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "record"
    (tmp_path / "record.new").write_text('{"half of a longer version": ')
    write_json(path, {"version": 1}, durable=True)
    assert read_json(path) == {"version": 1}
    assert not (tmp_path / "record.spare").exists()
