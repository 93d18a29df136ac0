"""The table of replication: local, loopback bound, our data plane alone, ours mirrored, GlusterFS with two copies, side
by side in one run.

    python -m benchmarks.replication [--quick] [--part table|scale] [--rows random,fsync] [--systems local,ours]

Everything runs on this machine, in one folder on its disk, over the loopback. The rounds are interleaved: every system
does a row before any does the next one. A row that cannot run says why. Each part has its time: what does not fit is not
measured, and said. build/reports/replication.json holds `rows` and `targets`, replication.svg the chart; a run of less
than everything writes replication-part.json and .svg instead. The exit code is 1 when a promise is not kept."""

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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import report
from benchmarks.databases import PostgreSQL, sqlite_transactions
from benchmarks.places import OURS, SYSTEMS, Place, build, opened
from benchmarks.recovery import Extent, drop_build, room_for
from benchmarks.rows import PROMISES, RECOVERIES, Group, Row, rows
from benchmarks.scratch import clear, remains, scratch, working
from benchmarks.workloads import FULL, QUICK, Measure, NotRun, Scale
from tests.nodes.engine import ROOT

REPORTS = ROOT / "build" / "reports"
_ROOM_GIB = 14
_TABLE_S, _SCALE_S = 600.0, 360.0
"""How long the two parts may take; the end of each, with its clearing up, comes after."""
_NOISY = 0.1
_NO_TIME = "the time of this part was over"


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


async def quiet(wait: float) -> float:
    """Waits up to `wait` seconds until others leave the machine alone; how much of it they use then."""
    end = time.monotonic() + wait
    while (load := await asyncio.to_thread(foreign_load, 2.0)) > _NOISY and time.monotonic() < end:
        await asyncio.sleep(3)
    average = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    word = "every figure of this run is worth less" if load > _NOISY else "quiet enough"
    say(f"others use {load:.0%} of {os.cpu_count()} cores (load {average}): {word}")
    return load


@dataclass
class Run:
    """What one run measures, with what it found so far."""

    systems: list[str]
    rounds: int
    scale: Scale
    extent: Extent
    where: Path
    results: report.Results = field(default_factory=report.Results)
    noise: list[float] = field(default_factory=list)
    """The foreign load, before each round and each group."""

    async def table(self, raw: list[Row], until: float) -> None:
        """The rows that every system does, in interleaved rounds."""
        async with scratch(self.where) as folder, contextlib.AsyncExitStack() as stack:
            places: dict[str, Place] = {}
            for name in self.systems:
                try:
                    places[name] = await stack.enter_async_context(opened(name, folder / name))
                except Exception as error:
                    say(f"{name}: {error}")
                    for row in raw:
                        self.results.miss(row.key, name, str(error))
            for number in range(self.rounds):
                self.noise.append(await asyncio.to_thread(foreign_load))
                for row in raw:
                    order = list(places.values())
                    random.Random(number).shuffle(order)
                    await asyncio.to_thread(drop_build)
                    for place in order:
                        await self._one(row, place, folder, until)

    async def _one(self, row: Row, place: Place, folder: Path, until: float) -> None:
        assert row.work is not None
        await asyncio.to_thread(os.sync)  # what the place before left to the disk is no part of this one's figure
        try:
            async with asyncio.timeout(until - time.monotonic()):
                if place.lost:
                    raise RuntimeError(f"the mirror broke: {place.lost}")
                figure = await working(folder, partial(row.work, place, self.scale))
                if place.lost:
                    raise RuntimeError(f"the mirror broke: {place.lost}")
        except NotRun as why:
            self.results.miss(row.key, place.name, str(why))
        except TimeoutError:
            self.results.miss(row.key, place.name, _NO_TIME)
        except Exception as error:
            self.results.miss(row.key, place.name, str(error) or repr(error))
            say(f"{row.key:14} {place.name:10} failed: {error}")
        else:
            self.results.add(row.key, place.name, figure)
            say(f"{row.key:14} {place.name:10} {figure.value:12,.1f} {row.unit}")

    async def groups(self, wanted: list[Group], until: float) -> None:
        """The rows that only ours does, group by group."""
        for group in wanted:
            self.noise.append(await asyncio.to_thread(foreign_load))
            why = ""
            async with scratch(self.where) as folder:
                try:
                    async with asyncio.timeout(until - time.monotonic()) as limit:
                        await group.work(folder / group.keys[0], self.extent, self._tell)
                except Exception as error:
                    why = _NO_TIME if limit.expired() else str(error) or repr(error)
            for key in group.keys:
                if why and not self.results.values(key, OURS):
                    self.results.miss(key, OURS, why)
                    say(f"{key:14} {OURS:10} {why}")
            await asyncio.to_thread(drop_build)

    def _tell(self, row: str, system: str, figure: Measure) -> None:
        self.results.add(row, system, figure)
        say(f"{row:14} {system:10} {figure.value:12,.1f}  {figure.more or ''}")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `words`."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.replication", description="Replication, side by side with what else there is."
    )
    parser.add_argument("--quick", action="store_true", help="short and small, one round: only whether it runs")
    parser.add_argument("--part", choices=("table", "scale"), default="", help="only one of the two parts")
    parser.add_argument("--rows", default="", help="only these, by their key, separated by commas")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="only these: %(default)s")
    parser.add_argument("--rounds", type=int, default=0, help="interleaved rounds (3, quick 1)")
    parser.add_argument("--files", type=int, default=0, help="size of the large tree (1,000,000, quick 20,000)")
    parser.add_argument("--wait", type=float, default=60, help="seconds to wait for a quiet machine (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where to work, on a disk (%(default)s)")
    return parser.parse_args(words)


async def run(given: argparse.Namespace) -> int:
    """Measure, print, write."""
    loop, here = asyncio.get_running_loop(), asyncio.current_task()
    assert here is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, here.cancel)
    scale = QUICK if given.quick else FULL
    rounds = given.rounds or (1 if given.quick else 3)
    if given.quick:
        extent = Extent(file=256, sparse=1, files=given.files or 20_000, small=2_000, rounds=1, quick=True)
    else:
        extent = Extent(file=1024, sparse=20, files=given.files or 1_000_000, small=20_000, rounds=rounds, quick=False)
    for left in remains(given.folder):
        say(f"removing what an earlier run left: {left}")
        await asyncio.to_thread(clear, left)
    room = room_for(given.folder)
    if room < _ROOM_GIB:
        say(f"{given.folder}: {room:.0f} GiB free, {_ROOM_GIB} GiB are needed")
        return 2
    build()
    began = time.monotonic()
    async with scratch(given.folder) as shared:
        all_rows = rows(PostgreSQL(shared).transactions, sqlite_transactions)
        systems, keys = given.systems.split(","), set(filter(None, given.rows.split(",")))
        unknown = keys - {row.key for row in all_rows} | set(systems) - set(SYSTEMS)
        if unknown:
            known = f"rows: {', '.join(row.key for row in all_rows)}; systems: {', '.join(SYSTEMS)}"
            say(f"unknown: {', '.join(sorted(unknown))}; {known}")
            return 2
        load = await quiet(given.wait)
        measured = Run(systems, rounds, scale, extent, given.folder)
        raw = [row for row in all_rows if row.work is not None and (not keys or row.key in keys)]
        groups = [group for group in RECOVERIES if OURS in systems and (not keys or keys & set(group.keys))]
        if given.part != "scale":
            until = time.monotonic() + _TABLE_S
            if raw:
                await measured.table(raw, until)
            await measured.groups([group for group in groups if not group.at_scale], until)
        if given.part != "table":
            await measured.groups([group for group in groups if group.at_scale], time.monotonic() + _SCALE_S)
    about: dict[str, object] = {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "rounds": rounds,
        "quick": given.quick,
        "encryption": "off in `ours` where something that does not encrypt is beside it, else on; on in `encrypted`",
        "durability": "ours: a write is answered when both copies have it, an fsync when both disks have it; "
        "GlusterFS answers a write earlier (write-behind)",
        "files": extent.files,
        "seconds": round(time.monotonic() - began, 1),
        "load_before": {"others": round(load, 3), "quiet": load <= _NOISY},
        "foreign_load": [round(load, 3) for load in measured.noise],
    }
    results = measured.results
    print(report.table(results, all_rows, PROMISES))
    worst = max(measured.noise, default=0.0)
    print(f"{rounds} rounds in {about['seconds']} s; others used up to {worst:.0%} of {about['cores']} cores")
    whole = not (given.quick or given.part or keys or given.files or set(systems) != set(SYSTEMS))
    report_file = REPORTS / ("replication.json" if whole else "replication-part.json")
    REPORTS.mkdir(parents=True, exist_ok=True)
    report_file.write_text(json.dumps(report.as_json(results, all_rows, PROMISES, about), indent=2) + "\n")
    report_file.with_suffix(".svg").write_text(report.chart(results, all_rows))
    print(f"{report_file.relative_to(ROOT)} {report_file.with_suffix('.svg').relative_to(ROOT)}")
    return 0 if all(verdict["met"] for verdict in report.verdicts(results, all_rows, PROMISES)) else 1


def main(words: list[str] | None = None) -> int:
    """The command, or `words`."""
    try:
        return asyncio.run(run(arguments(words)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted: everything that was started has been ended and removed")
        return 130


if __name__ == "__main__":
    sys.exit(main())
