"""The program under test (as in tests/native), and room for databases."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.conftest import binary

__all__ = ["binary"]


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that every user may enter, on the disk."""
    folder = Path(tempfile.mkdtemp(prefix="safekit-suites-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
