"""The program under test, built once; SAFEKIT_RFS_SANITIZE=address,undefined (or thread) runs an instrumented one."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.native.pair import Pair, opened

NATIVE = Path(__file__).parents[2] / "runtime" / "native"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root and /dev/fuse."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.native)


@pytest.fixture(scope="session")
def binary() -> Path:
    """`safekit-rfs` of this source tree."""
    sanitize = os.environ.get("SAFEKIT_RFS_SANITIZE", "")
    built = NATIVE / "build"
    built.mkdir(exist_ok=True)
    with (built / "lock").open("w") as lock:  # several processes may test at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["make", "-C", str(NATIVE), f"SANITIZE={sanitize}"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return built / f"safekit-rfs{'.' + sanitize if sanitize else ''}"


@pytest.fixture
async def pair(tmp_path: Path, binary: Path) -> AsyncIterator[Pair]:
    """Two idle data planes."""
    async with opened(Pair(tmp_path, binary)) as made:
        await made.start()
        yield made


@pytest.fixture
async def mirrored(tmp_path: Path, binary: Path) -> AsyncIterator[Pair]:
    """A primary and its secondary, in mirror."""
    async with opened(Pair(tmp_path, binary)) as made:
        await made.serve()
        await made.mirror()
        yield made
