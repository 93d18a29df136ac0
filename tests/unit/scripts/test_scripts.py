"""What a script may rely on: arguments, environment, output, time limits, and that it never runs twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from safekit.groups import Groups
from safekit.paths import Paths
from safekit.scripts import Outcome, ScriptCall, ScriptRunner

CALL = ScriptCall("db", "start_prim", "WAIT", "ALONE", "start", ticket="1")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "opt", tmp_path / "var", tmp_path / "run")


@pytest.fixture
def runner(paths: Paths) -> ScriptRunner:
    return ScriptRunner(paths, clock=lambda: datetime(2026, 11, 22, 3, 4, 5), grace=timedelta(seconds=0.3))


def write(paths: Paths, text: str, name: str = "start_prim", mode: int = 0o755) -> None:
    script = paths.active("db") / "bin" / name
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f"#!/bin/bash\n{text}\n")
    script.chmod(mode)


def output(paths: Paths, name: str = "start_prim") -> str:
    return (paths.module_var("db") / f"userlog_2026-11-22T030405_{name}.ulog").read_text()


async def appeared(file: Path) -> str:
    async with asyncio.timeout(10):
        while not file.exists() or not file.read_text().endswith("\n"):
            await asyncio.sleep(0.01)
    return file.read_text()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_script_receives_state_next_state_and_action(paths: Paths, runner: ScriptRunner) -> None:
    write(paths, 'printf "<%s>" "$@"; echo oops >&2')
    assert (await runner.run(CALL)).outcome is Outcome.OK
    assert output(paths) == "<WAIT><ALONE><start>oops\n"


async def test_second_call_of_a_stop_script_has_force_first(paths: Paths, runner: ScriptRunner) -> None:
    write(paths, 'printf "<%s>" "$@"', "stop_prim")
    call = ScriptCall("db", "stop_prim", "ALONE", "WAIT", "stop", ticket="2", force=True, services=("a", "b"))
    await runner.run(call)
    assert output(paths, "stop_prim") == "<force><ALONE><WAIT><stop><-Services><a, b>"


async def test_script_finds_the_directories_and_the_users_variables_in_its_environment(
    paths: Paths, runner: ScriptRunner
) -> None:
    write(paths, "env; pwd; umask; cat")
    await runner.run(replace(CALL, variables={"PORT": "5432", "SAFEMODULE": "forged"}))
    lines = output(paths).splitlines()
    assert {
        f"SAFE={paths.safe}",
        f"SAFEVAR={paths.var}",
        f"SAFEBIN={paths.safe}/private/bin",
        "SAFEMODULE=db",
        f"SAFEUSERBIN={paths.safe}/private/modules/db/bin",
        f"SAFEUSERCONF={paths.safe}/private/modules/db/conf",
        f"SAFEUSERVAR={paths.var}/modules/db",
        "PORT=5432",
    } <= set(lines)
    assert next(line for line in lines if line.startswith("PATH=")).startswith(f"PATH={paths.safe}:")
    assert lines[-2:] == ["/", "0022"], "and its standard input is empty"


async def test_missing_optional_script_is_skipped(runner: ScriptRunner) -> None:
    assert (await runner.run(CALL)).outcome is Outcome.SKIPPED


async def test_script_that_is_not_executable_fails_with_its_name(paths: Paths, runner: ScriptRunner) -> None:
    write(paths, "true", mode=0o644)
    result = await runner.run(CALL)
    assert result.outcome is Outcome.FAILED
    assert result.reason == f"{paths.active('db')}/bin/start_prim is not executable"


@pytest.mark.parametrize(("text", "code"), [("exit 3", 3), ("kill -9 $$", 137)])
async def test_exit_code_of_a_failed_script_is_known(paths: Paths, runner: ScriptRunner, text: str, code: int) -> None:
    write(paths, text)
    result = await runner.run(CALL)
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, code)


async def test_output_is_not_kept_when_logging_is_none(paths: Paths, runner: ScriptRunner) -> None:
    write(paths, "echo secret")
    await runner.run(replace(CALL, keep_output=False))
    assert not list(paths.var.rglob("*.ulog"))


async def test_log_file_is_announced_when_the_script_begins(paths: Paths) -> None:
    announced: list[tuple[str, str | None]] = []
    runner = ScriptRunner(paths, started=lambda call, log: announced.append((call.name, log)))
    write(paths, "true")
    await runner.run(CALL)
    ((name, log),) = announced
    assert name == "start_prim"
    assert log is not None and (paths.module_var("db") / log).exists()


async def test_server_started_in_the_background_neither_delays_the_result_nor_dies(
    paths: Paths, runner: ScriptRunner, tmp_path: Path
) -> None:
    write(paths, f"sleep 60 & echo $! > {tmp_path}/server; exit 0")
    async with asyncio.timeout(10):
        assert (await runner.run(CALL)).outcome is Outcome.OK
    server = int((tmp_path / "server").read_text())
    assert alive(server)
    assert not runner.running("db")
    os.kill(server, signal.SIGKILL)


async def test_script_beyond_its_time_limit_is_ended_with_everything_that_it_started(
    paths: Paths, runner: ScriptRunner, tmp_path: Path
) -> None:
    write(paths, f"trap '' TERM; set -m; sleep 60 & echo $! > {tmp_path}/child; wait; wait")
    result = await runner.run(replace(CALL, limit=timedelta(seconds=0.3)))
    assert result.outcome is Outcome.TIMED_OUT
    assert result.reason == "its time limit of 0.3 s has passed"
    assert not alive(int((tmp_path / "child").read_text()))
    assert not runner.running("db")


async def test_same_ticket_is_never_run_twice(paths: Paths, runner: ScriptRunner, tmp_path: Path) -> None:
    write(paths, f"echo once >> {tmp_path}/runs; exit 7")
    first = await runner.run(CALL)
    assert await ScriptRunner(paths).run(CALL) == first
    assert (tmp_path / "runs").read_text() == "once\n"
    await runner.run(replace(CALL, ticket="next"))
    assert (tmp_path / "runs").read_text() == "once\nonce\n"


async def test_call_that_never_began_has_no_result(paths: Paths, runner: ScriptRunner) -> None:
    write(paths, "true")
    await runner.run(CALL)
    assert await runner.resume(replace(CALL, ticket="other")) is None


async def test_end_stops_a_script_that_hangs(paths: Paths, runner: ScriptRunner, tmp_path: Path) -> None:
    write(paths, f"echo on > {tmp_path}/begun; sleep 60")
    call = asyncio.create_task(runner.run(CALL))
    await appeared(tmp_path / "begun")
    assert runner.running("db") == ("start_prim",)
    assert await runner.end("db", "start_prim")
    assert (await call).outcome is Outcome.FAILED
    assert not await runner.end("db", "start_prim")


DAEMON = """
import asyncio, sys
from pathlib import Path
from safekit.paths import Paths
from safekit.scripts import ScriptCall, ScriptRunner
opt, var, run = map(Path, sys.argv[1:])
call = ScriptCall("db", "start_prim", "WAIT", "ALONE", "start", ticket="1")
asyncio.run(ScriptRunner(Paths(opt, var, run)).run(call))
"""


def folders(paths: Paths) -> list[str]:
    return [str(paths.safe), str(paths.var), str(paths.run)]


async def killed_daemon(paths: Paths, begun: Path) -> None:
    """A process that runs the script, killed as soon as the script says that it has begun."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, *folders(paths)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        await appeared(begun)
    finally:
        daemon.kill()
        daemon.wait()


async def test_script_outlives_a_killed_daemon_and_is_waited_for(
    paths: Paths, runner: ScriptRunner, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    write(paths, f"echo on >> {tmp_path}/begun; read line < {tmp_path}/go; exit 4")
    await killed_daemon(paths, tmp_path / "begun")
    assert runner.running("db") == ("start_prim",)
    adopted = asyncio.create_task(runner.run(CALL))
    await asyncio.to_thread((tmp_path / "go").write_text, "\n")
    async with asyncio.timeout(10):
        assert (await adopted).exit_code == 4
    assert (tmp_path / "begun").read_text() == "on\n", "it was not run again"


@pytest.mark.parametrize("seed", range(6))
async def test_script_runs_exactly_once_at_whatever_moment_the_daemon_is_killed(
    paths: Paths, runner: ScriptRunner, tmp_path: Path, seed: int
) -> None:
    write(paths, f"echo once >> {tmp_path}/runs; sleep 0.02; exit 6")
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON.replace("asyncio.run(", "print(flush=True)\nasyncio.run("), *folders(paths)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    assert daemon.stdout is not None
    with daemon.stdout:
        await asyncio.to_thread(daemon.stdout.readline)
        await asyncio.sleep(Random(seed).uniform(0, 0.06))
        daemon.kill()
        daemon.wait()
    result = await runner.run(CALL)
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 6)
    assert (tmp_path / "runs").read_text() == "once\n"


async def test_result_of_a_script_that_ended_while_no_daemon_was_there_is_read(
    paths: Paths, runner: ScriptRunner, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    write(paths, f"echo on >> {tmp_path}/begun; read line < {tmp_path}/go; exit 5")
    await killed_daemon(paths, tmp_path / "begun")
    await asyncio.to_thread((tmp_path / "go").write_text, "\n")
    await appeared(paths.module_run("db") / "script-start_prim.rc")
    result = await runner.resume(CALL)
    assert result is not None and result.exit_code == 5
    assert (tmp_path / "begun").read_text() == "on\n"


async def test_time_limit_counts_from_the_start_of_an_adopted_script(
    paths: Paths, runner: ScriptRunner, tmp_path: Path
) -> None:
    write(paths, f"echo on >> {tmp_path}/begun; sleep 60")
    await killed_daemon(paths, tmp_path / "begun")
    result = await runner.run(replace(CALL, limit=timedelta(0)))
    assert result.outcome is Outcome.TIMED_OUT
    assert (await ScriptRunner(paths).run(CALL)).outcome is Outcome.TIMED_OUT, "and that is remembered"


async def test_script_killed_with_its_wrapper_has_failed(paths: Paths, runner: ScriptRunner, tmp_path: Path) -> None:
    write(paths, f"echo on >> {tmp_path}/begun; kill -9 $PPID; sleep 0.05")
    result = await runner.run(CALL)
    assert (result.outcome, result.exit_code, result.reason) == (Outcome.FAILED, None, "it was killed")


async def test_cancelled_wait_leaves_the_script_alone(paths: Paths, runner: ScriptRunner, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    write(paths, f"echo on >> {tmp_path}/begun; read line < {tmp_path}/go")
    call = asyncio.create_task(runner.run(CALL))
    await appeared(tmp_path / "begun")
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert runner.running("db") == ("start_prim",)
    await asyncio.to_thread((tmp_path / "go").write_text, "\n")
    assert (await runner.run(CALL)).outcome is Outcome.OK


async def test_oldest_script_logs_go_first(paths: Paths, runner: ScriptRunner) -> None:
    folder = paths.module_var("db")
    folder.mkdir(parents=True)
    for age, letter in enumerate("abc"):
        log = folder / f"userlog_2026-11-2{3 - age}T000000_start_prim.ulog"
        log.write_text(letter * 700)
        os.utime(log, (1000 - age, 1000 - age))
    (folder / "log.db").write_text("not a script log")
    await runner.trim_logs("db", 1)
    assert [log.read_text()[0] for log in folder.glob("*.ulog")] == ["a"]
    await runner.trim_logs("db", 0)
    assert [log.read_text() for log in folder.glob("*.ulog")] == [""]
    assert (folder / "log.db").exists()


async def test_what_starts_the_application_enters_the_group_of_the_module_and_what_stops_it_does_not(
    paths: Paths, tmp_path: Path
) -> None:
    runner = ScriptRunner(paths, groups=Groups(tmp_path))
    entered = tmp_path / "module-db" / "cgroup.procs"
    for name in ("stop_prim", "transition", "prestart"):
        write(paths, f"test ! -e {entered}", name)
        assert (await runner.run(replace(CALL, name=name))).outcome is Outcome.OK
    write(paths, f"test -e {entered}")
    assert (await runner.run(CALL)).outcome is Outcome.OK
    assert runner.group("db") == entered.parent
