"""What reads the network and the disk holds against anything, ring and link against any use: kept inputs, and new ones.

SAFEKIT_FUZZ_SECONDS is the time for each target (10), SAFEKIT_FUZZ_SEED which search (1); `make soak` draws a number. An input
that a target died of is printed; it belongs into corpus/TARGET with the change that cures it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "fuzz"
SECONDS = os.environ.get("SAFEKIT_FUZZ_SECONDS", "10")
SEED = os.environ.get("SAFEKIT_FUZZ_SEED", "1")
TARGETS = ("frame", "state", "dirty", "activity", "ring", "link")


@pytest.fixture(scope="session")
def targets() -> Path:
    """All of them, built with the sanitizers."""
    made = subprocess.run(["make", "-C", HERE, "-j2"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return BUILD


@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_that_arrives_or_lies_on_the_disk_breaks_its_reader(targets: Path, tmp_path: Path, target: str) -> None:
    kept = sorted(str(path) for path in (HERE / "corpus" / target).iterdir())
    assert kept
    ran = subprocess.run(
        [targets / target, SECONDS, SEED, tmp_path, *kept],
        capture_output=True,
        timeout=float(SECONDS) + 120,
        check=False,
    )
    last = (tmp_path / "last").read_bytes()
    found = last[8 : 8 + int.from_bytes(last[:8], "little")]
    assert ran.returncode == 0, (
        f"seed {SEED}, {target} died of {found!r}\n{ran.stderr.decode(errors='replace')[-4000:]}"
    )
    print(ran.stdout.decode())
