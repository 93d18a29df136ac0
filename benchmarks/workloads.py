"""The rows of raw work: each takes a place and says how much of it was done in a second.

The same work everywhere: fio for reads and writes of files that exist already, `native/files.c` for many small files,
`native/bound.c` where the place is the bound. What is measured is what applications see, not what a disk got: the
memory of the machine is between, as it is on nodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.places import BOUND, GLUSTER, PROGRAMS, Place

MIB = 1 << 20


class NotRun(Exception):
    """Why a row has no figure for a place."""


@dataclass(frozen=True)
class Scale:
    """How long and how large. Sizes in MiB, times in seconds."""

    seconds: float
    file: int
    sequential: int
    files: int
    database: int
    """pgbench's scale."""
    transactions: float

    def of_files(self, place: Place) -> int:
        """How many small files a place gets in one measurement: the slow one fewer."""
        return self.files // 10 if place.name == GLUSTER else self.files


FULL = Scale(seconds=1.5, file=256, sequential=512, files=8000, database=10, transactions=4.0)
QUICK = Scale(seconds=0.5, file=32, sequential=64, files=1000, database=1, transactions=1.5)


@dataclass(frozen=True)
class Measure:
    """`value` in the row's unit; `more` for the report: latencies in microseconds."""

    value: float
    more: dict[str, float] = field(default_factory=dict)


Work = Callable[[Place, Scale], Measure]


def run_json(words: list[str], limit: float = 120.0) -> Any:
    """What a program printed. RuntimeError with its last words when it failed or took longer than `limit` seconds."""
    try:
        ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{Path(words[0]).name} was not done after {limit:.0f} s") from error
    if ended.returncode:
        raise RuntimeError(f"{Path(words[0]).name}: {(ended.stderr or ended.stdout).strip()[-300:]}")
    return json.loads(ended.stdout[ended.stdout.index("{") :])


# ---- reads and writes ----


def _fill(place: Place, name: str, mebibytes: int) -> None:
    path = place.directory / name
    if path.exists() and path.stat().st_size == mebibytes * MIB:
        return
    some = os.urandom(MIB)
    with path.open("wb", buffering=0) as file:
        for _ in range(mebibytes):
            file.write(some)
    place.forget(name)


def _fio(place: Place, direction: str, *options: str) -> Measure:
    if shutil.which("fio") is None:
        raise NotRun("fio not installed (Debian: fio)")
    words = [
        "fio",
        "--name=work",
        f"--directory={place.directory}",
        "--ioengine=psync",
        "--thread",
        "--group_reporting",
    ]
    words += ["--output-format=json", "--randrepeat=0", "--fallocate=none", *options]
    found = run_json(words)["jobs"][0][direction]
    if not found["total_ios"]:
        raise RuntimeError("fio did nothing")
    latencies = found["clat_ns"].get("percentile", {})
    more = {f"p{key[:2]}_us": value / 1000 for key, value in latencies.items() if key in ("50.000000", "99.000000")}
    more["mb_s"] = found["bw_bytes"] / 1e6
    return Measure(found["iops"], more)


def _bound(place: Place, mode: str, block: int, jobs: int, mebibytes: int, seconds: float) -> dict[str, float]:
    words = [str(PROGRAMS / "bound"), mode, str(place.directory), str(place.peer)]
    found = run_json([*words, str(block), str(jobs), str(mebibytes * MIB), str(seconds)])
    return {"operations": found["operations"] / found["seconds"], "mb_s": found["bytes"] / found["seconds"] / 1e6}


def _random(place: Place, scale: Scale, jobs: int, *options: str, files: int = 1) -> Measure:
    if place.name == BOUND:
        mode = "fsync" if "--fsync=1" in options else "random"
        return Measure(_bound(place, mode, 4096, jobs, scale.file, scale.seconds)["operations"])
    size = scale.file // files
    names = [f"random.{files}.{number}" for number in range(files)]
    for name in names:
        _fill(place, name, size)
    which = f"--filename={names[0]}" if files == 1 else "--filename_format=random.4.$jobnum"
    time = ["--time_based", f"--runtime={scale.seconds}s", f"--size={size}m", "--overwrite=1", f"--numjobs={jobs}"]
    return _fio(place, "write", "--rw=randwrite", "--bs=4k", which, *time, *options)


def random_write(place: Place, scale: Scale) -> Measure:
    """Write operations per second, 4 KiB, one job."""
    return _random(place, scale, 1)


def random_write_four_files(place: Place, scale: Scale) -> Measure:
    """The same from four jobs, each in a file of its own."""
    return _random(place, scale, 4, files=4)


def random_write_one_file(place: Place, scale: Scale) -> Measure:
    """The same from four jobs in one file."""
    if place.name == BOUND:
        raise NotRun("the bound knows no lock of a file: see the row before")
    return _random(place, scale, 4)


def random_write_synced(place: Place, scale: Scale) -> Measure:
    """Write and fsync, pairs per second, one job."""
    return _random(place, scale, 1, "--fsync=1")


def sequential_write(place: Place, scale: Scale) -> Measure:
    """MB per second into a new file, 1 MiB at a time."""
    if place.name == BOUND:
        return Measure(_bound(place, "sequential", MIB, 1, scale.sequential, 0)["mb_s"])
    (place.directory / "sequential").unlink(missing_ok=True)
    found = _fio(place, "write", "--rw=write", "--bs=1m", f"--size={scale.sequential}m", "--filename=sequential")
    (place.directory / "sequential").unlink()
    return Measure(found.more["mb_s"], found.more)


def _sequential_read(place: Place, scale: Scale, *options: str) -> Measure:
    if place.name == BOUND:
        raise NotRun("reads need no peer")
    found = _fio(place, "read", "--rw=read", "--bs=1m", f"--size={scale.sequential}m", "--filename=read", *options)
    return Measure(found.more["mb_s"], found.more)


def cold_read(place: Place, scale: Scale) -> Measure:
    """MB per second of a file that no cache of this machine holds."""
    if place.name != BOUND:
        _fill(place, "read", scale.sequential)
        place.forget("read")
    return _sequential_read(place, scale)


def cached_read(place: Place, scale: Scale) -> Measure:
    """MB per second of a file that was read before."""
    if place.name != BOUND:
        _fill(place, "read", scale.sequential)
        with (place.directory / "read").open("rb", buffering=0) as file:
            while file.read(MIB):
                pass
    return _sequential_read(place, scale, "--invalidate=0", "--time_based", f"--runtime={scale.seconds}s")


# ---- many small files ----


class SmallFiles:
    """Create, stat and unlink come from one run: the first of them that is asked for runs it, the others read it."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, float]] = {}

    def step(self, name: str) -> Work:
        """The work `create`, `stat` or `unlink`, in files per second."""

        def work(place: Place, scale: Scale) -> Measure:
            if place.name == BOUND:
                raise NotRun("the bound has no names")
            left = self._found.setdefault(place.name, {})
            if name not in left:
                count = str(scale.of_files(place))
                left.update(run_json([str(PROGRAMS / "files"), "use", str(place.directory), count]))
            return Measure(left.pop(name))

        return work
