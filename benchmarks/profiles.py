"""Where the time of a row goes: one system does it under `perf`, and each process that takes part is looked at.

    python -m benchmarks.profiles ROW[,ROW...] [--system ours] [--folder /var/tmp]

The row is done three times: as it is, for the figure; under `perf`, for what the processors do; and while the kernel is
asked two hundred times a second what each thread waits for. Shares are of the time in which the application did the row: of
all processors in the first list, of one thread in the second. A thread that is `running or ready` has a processor or
waits for one.

build/reports/profile-ROW-SYSTEM.txt has what is printed. Needs root and Debian's `linux-perf`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.databases import PostgreSQL, sqlite_transactions
from benchmarks.places import OURS, SYSTEMS, Place, build, opened
from benchmarks.replication import REPORTS, say
from benchmarks.rows import rows
from benchmarks.scratch import clear, remains, scratch, working
from benchmarks.workloads import FULL, Measure, NotRun, Work

_RATE = 1999
_SAMPLED = ("-F", str(_RATE), "-e", "cpu-clock")
_HEAD = re.compile(r"^(?P<comm>.{0,16}?)\s+(?P<pid>-?\d+)/(?P<tid>\d+)\s+(?P<time>[\d.]+):\s+(?P<event>\S+?):")
_SYSCALL = re.compile(r"^(?:__x64_sys_|__do_sys_|__se_sys_|ksys_|do_(?=readv|writev))(?P<name>\w+?)(?:64)?$")
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


_PROGRAMS = frozenset({"fio", "files", "pgbench", "postgres", "glusterfs", "glusterfsd", "bound"})
_LOOKS = 200
_PWRITE = "18"
_CALL = {"cold": "17", "cached": "17", "create": "257", "stat": "262", "unlink": "87"}
"""The system call, by its number on x86-64, in which the program of a row waits in that row only."""
_CALLS = {
    "0": "read",
    "1": "write",
    "3": "close",
    "7": "poll",
    "17": "pread",
    "18": "pwrite",
    "44": "sendto",
    "45": "recvfrom",
    "74": "fsync",
    "75": "fdatasync",
    "87": "unlink",
    "202": "futex",
    "230": "nanosleep",
    "232": "epoll",
    "257": "openat",
    "262": "stat",
    "263": "unlinkat",
    "270": "select",
    "271": "poll",
    "306": "syncfs",
}


@dataclass(frozen=True)
class Sample:
    """One sample: of which thread, when (seconds), the functions from the innermost on."""

    comm: str
    pid: int
    tid: int
    time: float
    stack: tuple[str, ...]

    @property
    def call(self) -> str:
        """The system call, `interrupt` for other parts of the kernel, else `own code`."""
        found = next((match["name"] for frame in self.stack if (match := _SYSCALL.match(frame))), "")
        if not found and "do_syscall_64" in self.stack:
            return "system calls"
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
            pid, tid, at = int(head["pid"]), int(head["tid"]), float(head["time"])
            yield Sample(head["comm"].strip(), pid, tid, at, tuple(stack))

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
        if sample.comm in _PROGRAMS:
            return sample.comm
        kernel = sample.comm.startswith(("kworker", "ksoftirqd", "jbd2", "kswapd", "rcu", "migration"))
        return "kernel threads" if kernel else "others"


def processors(samples: list[Sample], row: str, part: Part, rate: int = _RATE) -> list[str]:
    """The first list: who uses the processors, and for what. A processor of a virtual machine is not there while it
    is waking up or its host gives it to others: the kernel sees nothing then. `rate`: samples a second of each processor."""
    begin, end = window(samples, row)
    inside = [sample for sample in samples if begin <= sample.time <= end and sample.pid != 0]
    whole = (end - begin) * rate * (os.cpu_count() or 1)
    by_part: dict[str, list[Sample]] = defaultdict(list)
    for sample in inside:
        by_part[part.of(sample)].append(sample)
    lines = [
        f"processors ({os.cpu_count()}, {end - begin:.2f} s): {max(0.0, 1 - len(inside) / whole):.0%} idle, or not there"
    ]
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


@dataclass(frozen=True)
class Seen:
    """What a thread did at one moment: `call` empty and `at` empty when it had a processor or waited for one, else the
    number of its system call and the function of the kernel in which it slept."""

    time: float
    part: str
    comm: str
    tid: int
    call: str
    at: str


def look(part: Part, processes: list[int]) -> Iterator[Seen]:
    """Every thread of some processes, now."""
    now = time.monotonic()
    for pid in processes:
        with contextlib.suppress(OSError):
            for tid in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    task = Path(f"/proc/{pid}/task/{tid}")
                    comm, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
                    call, at = "", ""
                    if rest.split()[0] != "R":
                        call, at = (task / "syscall").read_text().split()[0], (task / "wchan").read_text()
                    if call in {"running", "-1"} or at == "0":  # it was woken meanwhile, or ends
                        call = at = ""
                    yield Seen(now, part.of(Sample(comm, pid, int(tid), now, ())), comm, int(tid), call, at)


def programs() -> list[int]:
    """The processes that do the work of a row, and the servers of others."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().strip() in _PROGRAMS:
                found.append(int(process.name))
    return found


def watch(part: Part, ended: threading.Event) -> list[Seen]:
    """Looks at them until the end."""
    found: list[Seen] = []
    others: list[int] = []
    turn = 0
    while not ended.wait(1 / _LOOKS):
        if turn % 20 == 0:
            others = programs()
        turn += 1
        found += look(part, [*part.roles, *others])
    return found


def waits(seen: list[Seen], row: str) -> list[str]:
    """The second list: what each thread of those that take part waits for."""
    program, call = _APPLICATION.get(row, "fio"), _CALL.get(row, _PWRITE)
    its_own = [one for one in seen if one.comm == program]
    # reads that find everything do not wait
    inside = [one.time for one in its_own if row in {"pgbench", "cached"} or one.call == call]
    if not inside:
        raise RuntimeError(f"{row}: {program} was not seen waiting")
    begin, end = inside[0], inside[-1]
    threads: dict[tuple[str, int], list[Seen]] = defaultdict(list)
    for one in seen:
        if begin <= one.time <= end:
            threads[one.part, one.tid].append(one)
    moments = len({one.time for one in seen if begin <= one.time <= end})
    lines = [f"waits ({end - begin:.2f} s, {moments} looks)"]
    for (name, tid), its in sorted(threads.items()):
        doing = Counter(
            f"{_CALLS.get(one.call, one.call)}: {one.at}" if one.call else "running or ready" for one in its
        )
        # the idle ones of a process wait for the same all the time
        if max(doing.values()) > 0.995 * moments or len(its) < 0.05 * moments:
            continue
        shares = ", ".join(
            f"{what} {count / moments:.0%}" for what, count in doing.most_common(5) if count > 0.01 * moments
        )
        lines.append(f"  {name}, {its[-1].comm} {tid}: {shares}")
    return lines


@dataclass(frozen=True)
class Observed:
    """What one row left: its figure, who was who, the file of `perf`, what was seen of the threads."""

    row: str
    system: str
    figure: Measure
    part: Part
    sampled: Path
    seen: list[Seen]

    def text(self) -> str:
        """The two lists."""
        head = f"{self.row}, {self.system}: {self.figure.value:,.0f} {self.figure.more or ''}"
        samples = sorted(read(self.sampled), key=lambda sample: sample.time)  # each processor has its own in the file
        return "\n".join([head, *processors(samples, self.row, self.part), *waits(self.seen, self.row)]) + "\n"


async def record(file: Path, folder: Path, work: Work, place: Place) -> None:
    """Does a row under `perf`."""
    words = ["perf", "record", "-q", "-a", "-g", "-B", "-N", "-m", "4096", "-o", str(file), *_SAMPLED]
    perf = await asyncio.create_subprocess_exec(*words, stderr=subprocess.DEVNULL)
    try:
        while not file.exists() and perf.returncode is None:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        await working(folder, partial(work, place, FULL))
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
        part = Part(roles)
        for row in wanted:

            def work(key: str = row) -> Work:
                every = rows(PostgreSQL(folder).transactions, sqlite_transactions)
                return next(one.work for one in every if one.key == key and one.work is not None)

            await working(folder, partial(work(), place, FULL))
            await asyncio.to_thread(os.sync)
            figure = await working(folder, partial(work(), place, FULL))
            await asyncio.to_thread(os.sync)
            await record(into / row, folder, work(), place)
            await asyncio.to_thread(os.sync)
            ended = threading.Event()
            watching = asyncio.create_task(asyncio.to_thread(watch, part, ended))
            try:
                await working(folder, partial(work(), place, FULL))
            finally:
                ended.set()
                seen = await watching
            found.append(Observed(row, system, figure, part, into / row, seen))
            say(f"{row:14} {system:10} {figure.value:12,.1f}")
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
