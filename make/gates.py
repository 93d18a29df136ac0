"""The gates that every change goes through, in order: cheap ones first, real nodes last. Run by `make test`.

Each gate is one line of this file's table; what it prints goes to build/logs/gate-NAME.log, and its end is shown when the gate
fails. A gate whose needs failed is not run and counts as failed. The last line is `N passed, N failed`: tests where a
gate counts tests, gates where it does not.

usage: make/gates.py [NAME...]     only these gates (and the ones that they need)
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "logs"
BIN = ROOT / ".venv" / "bin"
COLLECTION = "collections/ansible_collections/evidian/safekit"
PYTEST = "python -m pytest --quiet -p no:cacheprovider"


RACES = "tests/native/test_random.py tests/native/test_stream.py tests/native/test_mirror.py"
"""Where several threads of the data plane meet."""
REPORTS = "build/sanitizers"


def sanitized(sanitizer: str, tests: str, sequences: str) -> tuple[str, ...]:
    """Lines that test the instrumented data plane, also with random sequences; whatever it reports fails, also at its end."""
    options = f"log_path=$PWD/{REPORTS}/report:halt_on_error=1:print_stacktrace=1"
    settings = f"SAFEKIT_RFS_SANITIZE={sanitizer} SAFEKIT_MODEL_SEQUENCES={sequences} " + " ".join(
        f"{name}_OPTIONS={options}" for name in ("ASAN", "UBSAN", "TSAN", "LSAN")
    )
    return (
        f"rm -rf {REPORTS} && mkdir -p {REPORTS}",
        f"{settings} {tests} --timeout=300",
        f"{settings} {PYTEST} tests/model --numprocesses=2",
        f"! grep -h -m 40 '' {REPORTS}/* 2>/dev/null",
    )


@dataclass(frozen=True)
class Gate:
    """One gate: shell lines that must all end well. `needs` names gates that must have passed before."""

    name: str
    lines: tuple[str, ...]
    needs: tuple[str, ...] = ()
    limit: float = 600
    """Seconds after which it has failed."""


GATES = (
    Gate("style", ("ruff check .", "ruff format --check .")),
    Gate(
        "types",
        (
            "mypy runtime/src tests/nodes tests/conftest.py tests/system tests/durability tests/model demo benchmarks make",
        ),
    ),
    Gate("contracts", ("cd runtime/src && lint-imports --config ../../pyproject.toml --no-cache",)),
    Gate("shell", ("make/shell-files | xargs --null --no-run-if-empty shellcheck",)),
    Gate(
        "units",
        (
            f"{PYTEST} tests/unit tests/simulation --durations=15 --numprocesses=2 --dist=loadscope --cov --cov-report=",
            "python make/branches.py safekit.config=95 safekit.automaton=95",
        ),
    ),
    Gate("native", ("make -C runtime/native", f"{PYTEST} tests/native --timeout=300"), limit=900),
    Gate("model", (f"{PYTEST} tests/model --numprocesses=2 --durations=5",), limit=900),
    Gate(
        "sanitizers",
        sanitized("address,undefined", f"{PYTEST} tests/native", "200")
        + sanitized("thread", f"{PYTEST} {RACES}", "100"),
        limit=900,
    ),
    Gate("suites", ("make/prerequisites postgresql libsqlite3-dev", f"{PYTEST} tests/suites"), limit=900),
    Gate("fuzz", (f"{PYTEST} tests/fuzz",)),
    Gate("network", (f"{PYTEST} tests/netns tests/pulse --timeout=300",), limit=900),
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
    Gate("wheelhouse", ("make/wheelhouse",), limit=900),
    Gate("nodes", ("python -m tests.nodes create",), limit=900),
    Gate("system", (f"{PYTEST} tests/system --timeout=600",), needs=("wheelhouse", "nodes"), limit=1500),
    Gate("durability", (f"{PYTEST} tests/durability --timeout=600",), needs=("wheelhouse", "nodes"), limit=1200),
    Gate("molecule", ("make/molecule",), needs=("wheelhouse", "nodes"), limit=1500),
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
    begun, used = time.monotonic(), _processor()
    why = ""
    with log.open("w") as output:
        for line in gate.lines:
            output.write(f"$ {line}\n")
            output.flush()
            left = gate.limit - (time.monotonic() - begun)
            why = run_line(line, output.fileno(), left)
            if why:
                break
    passed, failed = counted(log.read_text(errors="replace"))
    if why:
        failed = failed or 1
    elif not passed:
        passed = 1
    return Verdict(gate, time.monotonic() - begun, _processor() - used, passed, failed, why)


def _processor() -> float:
    """Seconds that the children of this process have used so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_line(line: str, output: int, limit: float) -> str:
    """Run one shell line, all that it starts included, for at most `limit` seconds. Why it failed, or ''."""
    shell = ["bash", "-o", "pipefail", "-c", line]
    process = subprocess.Popen(
        shell,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        code = process.wait(max(limit, 1))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 15)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        return f"not ended in time: {line}"
    return f"exit code {code}: {line}" if code else ""


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


def main() -> int:
    """Run the gates; 0 when all passed."""
    parser = argparse.ArgumentParser(description="Run the gates.")
    parser.add_argument("name", nargs="*", help=", ".join(gate.name for gate in GATES))
    gates = chosen(parser.parse_args().name)
    LOGS.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    verdicts: list[Verdict] = []
    bad: set[str] = set()
    for gate in gates:
        lacking = [name for name in gate.needs if name in bad]
        verdict = Verdict(gate, 0, 0, 0, 1, f"not run: {lacking[0]} failed") if lacking else run(gate)
        verdicts.append(verdict)
        if verdict.why:
            bad.add(gate.name)
        show(verdict)
    minutes, seconds = divmod(round(time.monotonic() - begun), 60)
    if bad:
        print(f"failed: {', '.join(v.gate.name for v in verdicts if v.why)}")
    print(f"{len(verdicts) - len(bad)} of {len(verdicts)} gates in {minutes} min {seconds} s")
    print(f"{sum(v.passed for v in verdicts)} passed, {sum(v.failed for v in verdicts)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
