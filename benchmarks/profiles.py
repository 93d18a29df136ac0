"""Where the time of a row goes: one system does it under `perf`, and each process that takes part is looked at.

    python -m benchmarks.profiles ROW[,ROW...] [--system ours] [--folder /var/tmp]

The row is done three times: as it is, for the figure; sampled, for what the processors do; traced, for what the threads
wait for. Sampling costs a few per cent, tracing up to half of the figure: its shares count, not its rate. Shares are of
the time in which the application did the row: of all processors in the first list, of one thread in the second.

build/reports/profile-ROW-SYSTEM.txt has what is printed. Needs root and Debian's `linux-perf`."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.databases import PostgreSQL, sqlite_transactions
from benchmarks.places import OURS, SYSTEMS, Place, build, opened
from benchmarks.replication import REPORTS, say
from benchmarks.rows import rows
from benchmarks.scratch import clear, remains, scratch, working
from benchmarks.workloads import FULL, Measure, NotRun, Scale, Work

_RATE = 1999
_SAMPLED = ("-F", str(_RATE), "-e", "cpu-clock")
_TRACED = ("-e", "sched:sched_switch", "-e", "sched:sched_waking/call-graph=no/")
_HEAD = re.compile(
    r"^(?P<comm>.{0,16}?)\s+(?P<pid>-?\d+)/(?P<tid>\d+)\s+(?P<time>[\d.]+):\s+(?P<event>\S+?):\s*(?P<rest>.*)$"
)
_SWITCH = re.compile(r"prev_state=(?P<state>\S+) ==> next_comm=.* next_pid=(?P<next>\d+)")
_WOKEN = re.compile(r" pid=(?P<pid>\d+)")
_SYSCALL = re.compile(r"^(?:__x64_sys_|ksys_)(?P<name>\w+?)(?:64)?$")
_SCHEDULER = re.compile(r"schedule|sched_|^__cond_resched")
_WAKING = re.compile(r"try_to_wake_up|^ttwu_|wake_up")

_APPLICATION = {"create": "files", "stat": "files", "unlink": "files", "pgbench": "pgbench", "sqlite": "python"}
"""The program that does a row; fio does the others."""
_STEP = {
    "cold": "__x64_sys_pread64",
    "cached": "__x64_sys_pread64",
    "create": "ksys_write",
    "stat": "vfs_statx",
    "unlink": "do_unlinkat",
}
"""What a program does in this row only; the other rows of fio write."""


@dataclass(frozen=True)
class Sample:
    """One event: of which thread, when (seconds), the functions from the innermost on."""

    comm: str
    pid: int
    tid: int
    time: float
    event: str
    rest: str
    stack: tuple[str, ...]

    @property
    def call(self) -> str:
        """The system call, `interrupt` for other parts of the kernel, else `own code`."""
        found = next((match["name"] for frame in self.stack if (match := _SYSCALL.match(frame))), "")
        return found or ("interrupt" if any("sysvec" in frame for frame in self.stack) else "own code")

    @property
    def doing(self) -> str:
        """The system call, or what is dearer than the call that it is part of: switching and waking tasks."""
        if any(_WAKING.search(frame) for frame in self.stack):
            return "waking a thread"
        if any(frame.startswith(("__schedule", "finish_task_switch")) for frame in self.stack):
            return "switching tasks"
        return self.call


def read(recorded: Path) -> Iterator[Sample]:
    """What `perf record` wrote. Functions stand on lines of their own that begin with a tab, if there are any."""
    words = ["perf", "script", "-i", str(recorded), "-F", "comm,pid,tid,time,event,trace,ip,sym"]
    head: re.Match[str] | None = None
    stack: list[str] = []

    def made() -> Iterator[Sample]:
        if head is not None:
            pid, tid, time = int(head["pid"]), int(head["tid"]), float(head["time"])
            yield Sample(head["comm"].strip(), pid, tid, time, head["event"], head["rest"], tuple(stack))

    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as script:
        assert script.stdout is not None
        for line in script.stdout:
            if line.startswith("\t"):
                text = line.strip()
                stack.append(text.partition(" ")[2] or text)
            elif line.strip():
                yield from made()
                head, stack = _HEAD.match(line), []
    yield from made()


def window(samples: list[Sample], row: str) -> tuple[float, float]:
    """From when to when the application did the row. RuntimeError when it was not seen."""
    program = _APPLICATION.get(row, "fio")
    step = _STEP.get(row, "__x64_sys_pwrite64" if program == "fio" else None)
    seen = [
        sample.time
        for sample in samples
        if sample.comm == program and (step is None or any(frame == step for frame in sample.stack))
    ]
    if not seen:
        raise RuntimeError(f"{row}: nothing of {program} was recorded")
    return seen[0], seen[-1]


@dataclass(frozen=True)
class Part:
    """What a process is in this run."""

    roles: dict[int, str]

    def of(self, sample: Sample) -> str:
        """Who it belongs to: a node's data plane, the application, the kernel, or anybody else."""
        if sample.pid in self.roles:
            return self.roles[sample.pid]
        if sample.comm in {"fio", "files", "pgbench", "postgres", "glusterfs", "glusterfsd", "bound"}:
            return sample.comm
        kernel = sample.comm.startswith(("kworker", "ksoftirqd", "jbd2", "kswapd", "rcu", "migration"))
        return "kernel threads" if kernel else "others"


def processors(samples: list[Sample], row: str, part: Part, rate: int = _RATE) -> list[str]:
    """The first list: who uses the processors, and for what. `rate`: samples a second of each processor."""
    begin, end = window(samples, row)
    inside = [sample for sample in samples if begin <= sample.time <= end and sample.pid != 0]
    whole = (end - begin) * rate * (os.cpu_count() or 1)
    by_part: dict[str, list[Sample]] = defaultdict(list)
    for sample in inside:
        by_part[part.of(sample)].append(sample)
    lines = [f"processors ({os.cpu_count()}, {end - begin:.2f} s): idle {max(0.0, 1 - len(inside) / whole):.0%}"]
    for name, its in sorted(by_part.items(), key=lambda item: -len(item[1])):
        if len(its) < 0.01 * whole:
            continue
        lines.append(f"  {name}: {len(its) / whole:.0%}")
        doing = Counter(sample.doing for sample in its)
        for what, count in doing.most_common(7):
            if count < 0.03 * len(its):
                break
            inner = Counter(sample.stack[0] if sample.stack else "?" for sample in its if sample.doing == what)
            top = ", ".join(f"{function} {number / len(its):.0%}" for function, number in inner.most_common(3))
            lines.append(f"    {count / len(its):4.0%} {what} ({top})")
    return lines


@dataclass
class Wait:
    """How often and how long (seconds), of it how long after being woken."""

    times: int = 0
    seconds: float = 0.0
    woken: float = 0.0


def waits(samples: list[Sample], row: str, part: Part) -> list[str]:
    """The second list: what each thread of those that take part waits for."""
    begin, end = window(samples, row)
    out: dict[int, Sample] = {}
    woken: dict[int, float] = {}
    last: dict[int, Sample] = {}
    found: dict[tuple[str, int], dict[str, Wait]] = defaultdict(lambda: defaultdict(Wait))
    for sample in samples:
        if sample.event == "sched:sched_waking":
            if match := _WOKEN.search(sample.rest):
                woken.setdefault(int(match["pid"]), sample.time)
            continue
        match = _SWITCH.search(sample.rest)
        if match is None:
            continue
        came = int(match["next"])
        out[sample.tid] = last[sample.tid] = sample
        woken.pop(sample.tid, None)
        before = out.pop(came, None)
        if before is None or came == 0 or before.time < begin or sample.time > end:
            continue
        state = _SWITCH.search(before.rest)
        ready = state is not None and state["state"].startswith("R")
        frame = next((function for function in before.stack if not _SCHEDULER.search(function)), "?")
        what = "for a processor" if ready else f"{before.call}: {frame}"
        wait = found[part.of(before), came][what]
        wait.times += 1
        wait.seconds += sample.time - before.time
        if not ready and came in woken:
            wait.woken += sample.time - woken[came]
    lines = [f"waits, traced ({end - begin:.2f} s); in brackets how much of it after being woken"]
    for (name, tid), reasons in sorted(found.items()):
        if name in {"others", "kernel threads"} or sum(wait.times for wait in reasons.values()) < 50 * (end - begin):
            continue
        lines.append(f"  {name}, thread {tid} ({last[tid].comm if tid in last else '?'})")
        for what, wait in sorted(reasons.items(), key=lambda item: -item[1].seconds)[:5]:
            share = wait.seconds / (end - begin)
            if share >= 0.02:
                mean, after = wait.seconds / wait.times * 1e6, wait.woken / wait.times * 1e6
                lines.append(f"    {share:4.0%} {what}: {wait.times} times, {mean:.0f} us each ({after:.0f})")
    return lines


@dataclass(frozen=True)
class Observed:
    """What one row left: its figure, who was who, and two files of `perf`."""

    row: str
    system: str
    figure: Measure
    part: Part
    sampled: Path
    traced: Path

    def text(self) -> str:
        """The two lists."""
        head = f"{self.row}, {self.system}: {self.figure.value:,.0f} {self.figure.more or ''}"
        lists = (processors, self.sampled), (waits, self.traced)
        lines = [line for made, file in lists for line in made(in_order(file), self.row, self.part)]
        return "\n".join([head, *lines]) + "\n"


def in_order(file: Path) -> list[Sample]:
    """Every sample of a file, by time: each processor has its own in the file."""
    return sorted(read(file), key=lambda sample: sample.time)


async def record(file: Path, options: tuple[str, ...], folder: Path, work: Work, place: Place, scale: Scale) -> None:
    """Does a row under `perf`."""
    words = ["perf", "record", "-q", "-a", "-g", "-m", "4096", "-o", str(file), *options]
    perf = await asyncio.create_subprocess_exec(*words, stderr=subprocess.DEVNULL)
    try:
        while not file.exists() and perf.returncode is None:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        await working(folder, partial(work, place, scale))
    finally:
        if perf.returncode is None:
            perf.send_signal(signal.SIGINT)
        await perf.wait()


async def observe(wanted: list[str], system: str, where: Path, into: Path) -> list[Observed]:
    """Does rows one after the other; `into` gets the files."""
    found = []
    async with scratch(where) as folder, opened(system, folder / system) as place:
        roles: dict[int, str] = {}
        if place.pair is not None:
            for side, name in ((place.pair.a, "primary"), (place.pair.b, "secondary")):
                if side.process.pid is not None:
                    roles |= {side.supervisor: f"{name}'s supervisor", side.worker: name}
        for row in wanted:

            def work(key: str = row) -> Work:
                every = rows(PostgreSQL(folder).transactions, sqlite_transactions)
                return next(one.work for one in every if one.key == key and one.work is not None)

            await working(folder, partial(work(), place, FULL))
            await asyncio.to_thread(os.sync)
            figure = await working(folder, partial(work(), place, FULL))
            await asyncio.to_thread(os.sync)
            one = Observed(row, system, figure, Part(roles), into / f"{row}.sampled", into / f"{row}.traced")
            await record(one.sampled, _SAMPLED, folder, work(), place, FULL)
            await asyncio.to_thread(os.sync)
            short = replace(FULL, files=2000, seconds=0.5, transactions=1)
            await record(one.traced, _TRACED, folder, work(), place, short)
            say(f"{row:14} {system:10} {figure.value:12,.1f}")
            found.append(one)
    return found


async def run(given: argparse.Namespace) -> int:
    """Profile each row, print it, write it."""
    loop, here = asyncio.get_running_loop(), asyncio.current_task()
    assert here is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, here.cancel)
    for left in remains(given.folder):
        await asyncio.to_thread(clear, left)
    build()
    REPORTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        try:
            observed = await observe(given.rows.split(","), given.system, given.folder, Path(folder))
            for one in observed:
                text = await asyncio.to_thread(one.text)
                (REPORTS / f"profile-{one.row}-{one.system}.txt").write_text(text)
                print(text, flush=True)
        except (NotRun, RuntimeError) as error:
            say(str(error))
            return 1
    return 0


def main(words: list[str] | None = None) -> int:
    """The command, or `words`."""
    parser = argparse.ArgumentParser(prog="benchmarks.profiles", description="Where the time of a row goes.")
    parser.add_argument("rows", help="keys of rows, separated by commas")
    parser.add_argument("--system", choices=SYSTEMS, default=OURS, help="who does it (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where to work, on a disk (%(default)s)")
    given = parser.parse_args(words)
    known = [
        row.key for row in rows(PostgreSQL(given.folder).transactions, sqlite_transactions) if row.work is not None
    ]
    if unknown := set(given.rows.split(",")) - set(known):
        say(f"unknown: {', '.join(sorted(unknown))}; rows: {', '.join(known)}")
        return 2
    if shutil.which("perf") is None or os.geteuid() != 0:
        say("needs root and perf (Debian: linux-perf)")
        return 2
    try:
        return asyncio.run(run(given))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted: everything that was started has been ended and removed")
        return 130


if __name__ == "__main__":
    sys.exit(main())
