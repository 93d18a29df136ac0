"""The table of replication: local, loopback bound, our data plane alone, ours mirrored, GlusterFS with two copies, side
by side in one run.

    python -m benchmarks.replication [--quick] [--rows random,fsync] [--systems local,ours] [--rounds 3]

Everything runs on this machine, in one folder on its disk, over the loopback. The rounds are interleaved: every system
does a row before any does the next one. A row that cannot run says why. build/reports/replication.json holds `rows` and
`targets`, replication.svg the chart. The exit code is 1 when a promise is not kept."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import signal
import sys
import time
from pathlib import Path

from benchmarks import report
from benchmarks.databases import PostgreSQL, sqlite_transactions
from benchmarks.places import OURS, SYSTEMS, Place, build, opened, scratch
from benchmarks.recovery import Extent, drop_build, room_for
from benchmarks.rows import PROMISES, RECOVERIES, Row, rows
from benchmarks.workloads import FULL, QUICK, NotRun, Scale
from tests.nodes.engine import ROOT

REPORTS = ROOT / "build" / "reports"
_ROOM_GIB = 12


def foreign_load(seconds: float = 0.4) -> float:
    """How much of the machine others use while nothing of ours runs: 0 to 1."""

    def ticks() -> tuple[int, int]:
        fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields) - fields[3] - fields[4], sum(fields)

    busy, total = ticks()
    time.sleep(seconds)
    busy_after, total_after = ticks()
    return (busy_after - busy) / max(1, total_after - total)


def say(text: str) -> None:
    """What happens, for who waits."""
    print(text, file=sys.stderr, flush=True)


async def measure(
    wanted: tuple[Row, ...],
    systems: list[str],
    rounds: int,
    scale: Scale,
    extent: Extent,
    where: Path,
    results: report.Results,
) -> list[float]:
    """Fills `results`; returns the foreign load before each round."""
    noise: list[float] = []
    async with scratch(where) as folder, contextlib.AsyncExitStack() as stack:
        raw = [row for row in wanted if row.work is not None]
        places: dict[str, Place] = {}
        for name in systems if raw else []:
            try:
                places[name] = await stack.enter_async_context(opened(name, folder / name))
            except Exception as error:
                say(f"{name}: {error}")
                for row in raw:
                    results.miss(row.key, name, str(error))
        for number in range(rounds if raw else 0):
            noise.append(await asyncio.to_thread(foreign_load))
            for row in raw:
                order = list(places.values())
                random.Random(number).shuffle(order)
                await asyncio.to_thread(drop_build)
                for place in order:
                    await _one(row, place, scale, results)
    for keys, work in RECOVERIES.items():
        if OURS not in systems or not any(row.key in keys for row in wanted):
            continue
        noise.append(await asyncio.to_thread(foreign_load))
        async with scratch(where) as folder:
            try:
                found = await work(folder / keys[0], extent)
            except Exception as error:
                found = {}
                say(f"{', '.join(keys)}: {error!r}")
                for key in keys:
                    results.miss(key, OURS, str(error) or repr(error))
        for key, by_system in found.items():
            for system, figure in by_system.items():
                if isinstance(figure, str):
                    results.miss(key, system, figure)
                    say(f"{key:14} {system:8} {figure}")
                else:
                    results.add(key, system, figure)
                    say(f"{key:14} {system:8} {figure.value:12,.1f}  {figure.more}")
    return noise


async def _one(row: Row, place: Place, scale: Scale, results: report.Results) -> None:
    assert row.work is not None
    try:
        if place.lost:
            raise RuntimeError(f"the mirror broke: {place.lost}")
        figure = await asyncio.to_thread(row.work, place, scale)
        if place.lost:
            raise RuntimeError(f"the mirror broke: {place.lost}")
    except NotRun as why:
        results.miss(row.key, place.name, str(why))
    except Exception as error:
        results.miss(row.key, place.name, str(error) or repr(error))
        say(f"{row.key:14} {place.name:8} failed: {error}")
    else:
        results.add(row.key, place.name, figure)
        say(f"{row.key:14} {place.name:8} {figure.value:12,.1f} {row.unit}")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `words`."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.replication", description="Replication, side by side with what else there is."
    )
    parser.add_argument("--quick", action="store_true", help="short and small, one round: only whether it runs")
    parser.add_argument("--rows", default="", help="only these, by their key, separated by commas")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="only these: %(default)s")
    parser.add_argument("--rounds", type=int, default=0, help="interleaved rounds (3, quick 1)")
    parser.add_argument("--files", type=int, default=0, help="size of the large tree (1,000,000, quick 20,000)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where to work, on a disk (%(default)s)")
    return parser.parse_args(words)


async def run(given: argparse.Namespace) -> int:
    """Measure, print, write."""
    stop, here = asyncio.get_running_loop(), asyncio.current_task()
    assert here is not None
    stop.add_signal_handler(signal.SIGTERM, here.cancel)
    scale = QUICK if given.quick else FULL
    rounds = given.rounds or (1 if given.quick else 3)
    if given.quick:
        extent = Extent(file=256, sparse=1, files=given.files or 20_000, small=2_000, rounds=1, quick=True)
    else:
        extent = Extent(file=1024, sparse=20, files=given.files or 1_000_000, small=20_000, rounds=rounds, quick=False)
    build()
    began, results = time.monotonic(), report.Results()
    async with scratch(given.folder) as shared:
        all_rows = rows(PostgreSQL(shared).transactions, sqlite_transactions)
        unknown = set(filter(None, given.rows.split(","))) - {row.key for row in all_rows}
        unknown |= set(given.systems.split(",")) - set(SYSTEMS)
        if unknown:
            known = f"rows: {', '.join(row.key for row in all_rows)}; systems: {', '.join(SYSTEMS)}"
            say(f"unknown: {', '.join(sorted(unknown))}; {known}")
            return 2
        room = room_for(given.folder)
        if room < _ROOM_GIB:
            say(f"{given.folder}: {room:.0f} GiB free, {_ROOM_GIB} GiB are needed")
            return 2
        wanted = tuple(row for row in all_rows if not given.rows or row.key in given.rows.split(","))
        noise = await measure(wanted, given.systems.split(","), rounds, scale, extent, given.folder, results)
    about: dict[str, object] = {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "rounds": rounds,
        "quick": given.quick,
        "encryption": "off where something that does not encrypt is beside it",
        "files": extent.files,
        "seconds": round(time.monotonic() - began, 1),
        "foreign_load": [round(load, 3) for load in noise],
    }
    print(report.table(results, all_rows, PROMISES))
    worst = max(noise, default=0.0)
    print(f"{rounds} rounds in {about['seconds']} s; others used up to {worst:.0%} of {about['cores']} cores")
    REPORTS.mkdir(parents=True, exist_ok=True)
    found = report.as_json(results, all_rows, PROMISES, about)
    (REPORTS / "replication.json").write_text(json.dumps(found, indent=2) + "\n")
    (REPORTS / "replication.svg").write_text(report.chart(results, all_rows))
    print(f"{(REPORTS / 'replication.json').relative_to(ROOT)} {(REPORTS / 'replication.svg').relative_to(ROOT)}")
    return 0 if all(verdict["met"] for verdict in report.verdicts(results, all_rows, PROMISES)) else 1


def main() -> int:
    """The command."""
    return asyncio.run(run(arguments()))


if __name__ == "__main__":
    sys.exit(main())
