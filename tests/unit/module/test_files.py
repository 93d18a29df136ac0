"""A small file is replaced whole or stays as it was."""

from __future__ import annotations

import errno
import resource
import signal
from pathlib import Path

import pytest

from safekit.module.files import read_json, write_json


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
