"""The gates that every change goes through. Run by `make test`.

First the quick ones, what the others need and what is sensitive to a busy processor, one after the other. Then two lanes
side by side: what computes, and what waits for nodes most of its time; the first has only the processor time that the
second leaves. Each gate is one line of this file's table; what it prints goes to build/logs/gate-NAME.log, and its end is
shown when the gate fails. A gate whose needs failed is not run and counts as failed. The last lines name what failed,
test by test, and say `N passed, N failed`: tests where a gate counts tests, gates where it does not.

usage: make/gates.py [NAME...]     only these gates (and the ones that they need)
"""

from __future__ import annotations

import argparse
import os
import re
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "logs"
BIN = ROOT / ".venv" / "bin"
COLLECTION = "collections/ansible_collections/evidian/safekit"
PYTEST = "python -m pytest --quiet -p no:cacheprovider"

RACES = "tests/native/test_random.py tests/native/test_stream.py tests/native/test_mirror.py tests/native/test_inheritance.py"
"""Where several threads of the data plane meet."""
REPORTS = "build/sanitizers"


def sanitized(sanitizer: str, tests: str, sequences: str) -> tuple[str, ...]:
    """Lines that test the instrumented data plane, also with random sequences; whatever it reports fails, also at its end."""
    options = f"log_path=$PWD/{REPORTS}/report:halt_on_error=1:print_stacktrace=1:verify_asan_link_order=0"
    settings = f"SAFEKIT_RFS_SANITIZE={sanitizer} SAFEKIT_MODEL_SEQUENCES={sequences} " + " ".join(
        f"{name}_OPTIONS={options}" for name in ("ASAN", "UBSAN", "TSAN", "LSAN")
    )
    return (
        f"rm -rf {REPORTS} && mkdir -p {REPORTS}",
        f"make -C runtime/native -j2 SANITIZE={sanitizer}",
        f"{settings} {tests} --timeout=300",
        f"{settings} {PYTEST} tests/model --numprocesses=2",
        f"! grep -h -m 40 '' {REPORTS}/* 2>/dev/null",
    )


@dataclass(frozen=True)
class Gate:
    """One gate: shell lines that must all end well.

    `needs` names gates before it, of its own lane or the first, that must have passed.
    """

    name: str
    lines: tuple[str, ...]
    needs: tuple[str, ...] = ()
    limit: float = 600
    """Seconds after which it has failed."""
    lane: Literal["first", "computes", "nodes"] = "computes"


GATES = (
    Gate("style", ("ruff check .", "ruff format --check ."), lane="first"),
    Gate(
        "types",
        (
            "mypy runtime/src tests/nodes tests/conftest.py tests/system tests/acceptance tests/faults tests/durability "
            "tests/model tests/simulation tests/exploration demo benchmarks make",
        ),
        lane="first",
    ),
    Gate("contracts", ("cd runtime/src && lint-imports --config ../../pyproject.toml --no-cache",), lane="first"),
    Gate("shell", ("make/shell-files | xargs --null --no-run-if-empty shellcheck",), lane="first"),
    Gate("wheelhouse", ("make/wheelhouse",), limit=900, lane="first"),
    Gate(
        "units",
        (
            f"{PYTEST} tests/unit tests/simulation --durations=15 --numprocesses=2 --dist=loadscope --cov --cov-report=",
            "python make/branches.py safekit.config=95 safekit.automaton=95",
        ),
    ),
    Gate("exploration", (f"{PYTEST} tests/exploration --numprocesses=2 --durations=3",)),
    Gate("native", ("make -C runtime/native", f"{PYTEST} tests/native --timeout=300"), limit=900, lane="first"),
    Gate("network", (f"{PYTEST} tests/netns tests/pulse --timeout=300",), limit=900, lane="first"),
    Gate("model", (f"{PYTEST} tests/model --numprocesses=2 --durations=5",), limit=900),
    Gate(
        "sanitizers",
        sanitized("address,undefined", f"{PYTEST} tests/native", "200")
        + sanitized("thread", f"{PYTEST} {RACES}", "100"),
        limit=2100,
    ),
    Gate("suites", ("make/prerequisites postgresql libsqlite3-dev", f"{PYTEST} tests/suites"), limit=1500),
    Gate("fuzz", (f"{PYTEST} tests/fuzz",)),
    Gate("collection-units", ("make/ansible-test units",), limit=900),
    Gate("collection-sanity", ("make/ansible-test sanity",), limit=900),
    Gate("collection-lint", ("ansible-lint --strict",)),
    Gate(
        "collection-docs",
        (
            f"cd {COLLECTION} && antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=all "
            "--disallow-unknown-collection-refs .",
        ),
    ),
    Gate("nodes", ("python -m tests.nodes create",), limit=900, lane="nodes"),
    Gate("system", (f"{PYTEST} tests/system --timeout=600",), needs=("wheelhouse", "nodes"), limit=1500, lane="nodes"),
    Gate(
        "durability",
        (f"{PYTEST} tests/durability --timeout=600",),
        needs=("wheelhouse", "nodes"),
        limit=1200,
        lane="nodes",
    ),
    Gate("molecule", ("make/molecule",), needs=("wheelhouse", "nodes"), limit=1500, lane="nodes"),
)


@dataclass(frozen=True)
class Verdict:
    """How a gate ended."""

    gate: Gate
    seconds: float
    processor: float
    """Seconds of processor time that it cost, whatever else ran on the machine."""
    passed: int
    failed: int
    why: str = ""


def environment() -> dict[str, str]:
    """What every gate sees: our tools first, our settings, nothing of an earlier run."""
    return os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(ROOT / ".venv"),
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ANSIBLE_HOME": str(ROOT / "build" / "ansible"),
        "LC_ALL": "C.UTF-8",
    }


def run(gate: Gate) -> Verdict:
    """Run one gate."""
    log = LOGS / f"gate-{gate.name}.log"
    begun, processor = time.monotonic(), 0.0
    why = ""
    with log.open("w") as output:
        for line in gate.lines:
            output.write(f"$ {line}\n")
            output.flush()
            left = gate.limit - (time.monotonic() - begun)
            why, used = run_line(line, output.fileno(), left, yields=gate.lane == "computes")
            processor += used
            if why:
                break
    passed, failed = counted(log.read_text(errors="replace"))
    if why:
        failed = failed or 1
    elif not passed:
        passed = 1
    return Verdict(gate, time.monotonic() - begun, processor, passed, failed, why)


def run_line(line: str, output: int, limit: float, *, yields: bool = False) -> tuple[str, float]:
    """Run one shell line, all that it starts included, for at most `limit` seconds.

    `yields`: it has only the processor time that nobody else wants. Returns why it failed, or '', and the seconds of
    processor time used.
    """
    shell = ["bash", "-o", "pipefail", "-c", line]
    process = subprocess.Popen(
        ["chrt", "--idle", "0", *shell] if yields else shell,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    in_time = _ends(process.pid, max(limit, 1))
    if not in_time:
        os.killpg(process.pid, 15)
        if not _ends(process.pid, 10):
            os.killpg(process.pid, 9)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = code = os.waitstatus_to_exitcode(status)
    why = f"not ended in time: {line}" if not in_time else f"exit code {code}: {line}" if code else ""
    return why, usage.ru_utime + usage.ru_stime


def _ends(pid: int, limit: float) -> bool:
    """Whether a child ends within `limit` seconds. It is not waited for."""
    pidfd = os.pidfd_open(pid)
    try:
        waiting = select.poll()
        waiting.register(pidfd, select.POLLIN)
        return bool(waiting.poll(limit * 1000))
    finally:
        os.close(pidfd)


def counted(log: str) -> tuple[int, int]:
    """The tests that the closing lines of a log count: (passed, failed)."""
    passed = failed = 0
    for line in re.findall(r"^(?:=+ )?((?:\d+ \w+(?:, )?)+)(?: in [\d.]+s.*| *)$", log, re.MULTILINE):
        for number, what in re.findall(r"(\d+) (\w+)", line):
            if what == "passed":
                passed += int(number)
            elif what in ("failed", "error", "errors"):
                failed += int(number)
    return passed, failed


def show(verdict: Verdict) -> None:
    """One line, and the end of the log when it failed."""
    clock = time.strftime("%T")
    tests = f"{verdict.passed} passed" + (f", {verdict.failed} failed" if verdict.failed else "")
    print(
        f"{clock} {verdict.gate.name:20} {verdict.seconds:6.0f} s ({verdict.processor:4.0f} s of processor)  {tests}",
        flush=True,
    )
    if verdict.why:
        log = LOGS / f"gate-{verdict.gate.name}.log"
        print(f"    {verdict.why} (all of it: {log.relative_to(ROOT)})")
        if log.exists() and verdict.seconds:
            # Indented, so that nobody takes the closing line of one gate for the closing line of all.
            print("".join(f"    | {line}\n" for line in log.read_text(errors="replace").splitlines()[-60:]), flush=True)


def failures(log: str) -> list[str]:
    """What failed by the log of a gate: a line for each test or task, with its reason where the log gives one."""
    found = re.findall(
        r"^(?:FAILED|ERROR) (?!- RETRYING).*|^.*\[ERROR\]: .*|^fatal: .*|^.*: error: .*", log, re.MULTILINE
    )
    return [line if len(line) <= 200 else f"{line[:195]} ..." for line in dict.fromkeys(found)]


def chosen(names: list[str]) -> list[Gate]:
    """The gates of these names and those that they need, in order; all of them for no name."""
    known = {gate.name: gate for gate in GATES}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no gate is called {unknown[0]}; there are {', '.join(known)}")
    wanted = set(names or known)
    for gate in reversed(GATES):
        if gate.name in wanted:
            wanted.update(gate.needs)
    return [gate for gate in GATES if gate.name in wanted]


class Run:
    """Runs gates, lane by lane, and keeps their verdicts in the order in which they ended."""

    def __init__(self, gates: list[Gate]) -> None:
        self.gates = gates
        self.verdicts: list[Verdict] = []
        self._lock = threading.Lock()

    def all(self) -> None:
        """The first ones, then both lanes side by side."""
        self._lane("first")
        other = threading.Thread(target=self._lane, args=("nodes",))
        other.start()
        self._lane("computes")
        other.join()

    @property
    def bad(self) -> list[str]:
        """The names of those that failed."""
        return [verdict.gate.name for verdict in self.verdicts if verdict.why]

    def _lane(self, lane: str) -> None:
        for gate in self.gates:
            if gate.lane == lane:
                lacking = [name for name in gate.needs if name in self.bad]
                verdict = Verdict(gate, 0, 0, 0, 1, f"not run: {lacking[0]} failed") if lacking else run(gate)
                with self._lock:
                    self.verdicts.append(verdict)
                    show(verdict)


def main() -> int:
    """Run the gates; 0 when all passed."""
    parser = argparse.ArgumentParser(description="Run the gates.")
    parser.add_argument("name", nargs="*", help=", ".join(gate.name for gate in GATES))
    LOGS.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    whole = Run(chosen(parser.parse_args().name))
    whole.all()
    minutes, seconds = divmod(round(time.monotonic() - begun), 60)
    verdicts, bad = whole.verdicts, whole.bad
    for name in bad:
        log = LOGS / f"gate-{name}.log"
        for line in failures(log.read_text(errors="replace") if log.exists() else "")[:4]:
            print(f"    {name}: {line}")
    if bad:
        print(f"failed: {', '.join(bad)}")
    print(f"{len(verdicts) - len(bad)} of {len(verdicts)} gates in {minutes} min {seconds} s")
    print(f"{sum(v.passed for v in verdicts)} passed, {sum(v.failed for v in verdicts)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
