"""The program under test (as in tests/native) and the ground on which every sequence of this process runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.ground import Ground
from tests.native.conftest import binary

__all__ = ["binary"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root and /dev/fuse."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.native)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, binary: Path) -> Iterator[Ground]:
    """A mirror and a plain directory, for many sequences."""
    made = Ground(tmp_path_factory.mktemp("ground"), binary)
    yield made
    made.close()
