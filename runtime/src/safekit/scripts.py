"""Runs the scripts of an application (spec §7), each at most once, whatever happens to the daemon meanwhile.

A script runs in a session of its own below a few lines of shell that outlive `safekitd`. Three files in the module's
folder below `/run/safekit` say what became of it:

script-NAME.lock locked from before the fork until the wrapper ends: whether the script runs is asked here, no pid can
lie script-NAME.run the ticket of the call and the pid of the wrapper (its session): the script was begun
script-NAME.rc the ticket and the exit code: the script ended by itself

The ticket names one call. A daemon that comes back and repeats the step that it had begun gives the same ticket
again: the script that still runs is waited for, the one that has ended is not run again. The script is over when it
exits itself; what it left running in the background lives on, with its output still going to the script's log.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import IO

from safekit.groups import Groups
from safekit.paths import Paths

_WRAPPER = """
trap : HUP INT TERM
[ -z "$3" ] || echo 0 > "$3/cgroup.procs"
{ echo 0 > /proc/$$/oom_score_adj; } 2> /dev/null
record=$1 ticket=$2
shift 3
printf '%s %s\\n' "$ticket" $$ > "$record.run" || exit
"$@" < /dev/null
printf '%s %s\\n' "$ticket" $? > "$record.rc"
"""
# Its standard input is the lock. It notes its pid before it starts the script: no script runs that nobody knows.
# A trapped signal, unlike an ignored one, is the default again in the script. The application does not inherit the
# protection of the daemon from the out-of-memory killer of the kernel.

_BESIDE = re.compile(r"stop_.*|_rfs_.*|prestart|poststop|transition|fence|update|config|deconfig|confcheck")
"""Scripts that start nothing of what a primary serves with. Who ends that by force must not end what stops it too."""
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TICKET = re.compile(r"[A-Za-z0-9._:@+-]{1,128}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_TIMED_OUT = "timeout"
_LOGS_KEPT = 500


class Outcome(Enum):
    """How a call of a script ended."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class ScriptCall:
    """One call of one script.

    module: the module's name. name: the script in its active `bin/`. state, next_state, action: its arguments (spec
    §7.2). force: the second call of a stop script. limit: its time limit, None for none. ticket: names this call
    among all calls of the module; the same ticket is never run twice. services: `-Services` of a targeted restart.
    variables: `<user><var>`. keep_output: False for `logging="none"`.
    """

    module: str
    name: str
    state: str
    next_state: str
    action: str
    ticket: str
    force: bool = False
    limit: timedelta | None = None
    services: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    keep_output: bool = True

    def __post_init__(self) -> None:
        for value, form, what in ((self.ticket, _TICKET, "ticket"), (self.name, _NAME, "name")):
            if not form.fullmatch(value):
                raise ValueError(f"{what} of a script {value!r}: expected {form.pattern}")

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the script receives."""
        first = ("force",) if self.force else ()
        targeted = ("-Services", ", ".join(self.services)) if self.services else ()
        return (*first, self.state, self.next_state, self.action, *targeted)


@dataclass(frozen=True)
class ScriptResult:
    """How it ended.

    `exit_code` is the shell's (128 + signal for a killed script), None unless the script ended by itself.
    """

    name: str
    outcome: Outcome
    exit_code: int | None = None
    reason: str = ""


class ScriptRunner:
    """Runs scripts for the modules of a node.

    clock: local time, for the names of logs. started: is told of each script that begins, with the name of its log
    (None if its output is not kept). grace: between SIGTERM and SIGKILL when a time limit has passed. groups: where what
    they start is kept together.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        clock: Callable[[], datetime] = datetime.now,
        started: Callable[[ScriptCall, str | None], None] | None = None,
        grace: timedelta = timedelta(seconds=10),
        groups: Groups | None = None,
    ) -> None:
        self._paths = paths
        self._clock = clock
        self._started = started
        self._grace = grace
        self._groups = groups or Groups(None)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    async def run(self, call: ScriptCall) -> ScriptResult:
        """Run a script and wait until it ends; if this ticket was begun before, only wait.

        Another call of the same script that still runs is waited for first. If the awaiting task is cancelled the
        script goes on (see `end`). Never raises for what a script does; OSError if /run or /var cannot be written.
        """
        begun = False
        while (result := await self.resume(call)) is None:
            script = self._paths.active(call.module) / "bin" / call.name
            if begun:
                return ScriptResult(call.name, Outcome.FAILED, reason="it could not be started: is /run full?")
            if not script.exists():
                return ScriptResult(call.name, Outcome.SKIPPED)
            if not os.access(script, os.X_OK):
                return ScriptResult(call.name, Outcome.FAILED, reason=f"{script} is not executable")
            try:
                self._start(call, script)
                begun = True
            except BlockingIOError:
                await asyncio.sleep(0.01)  # a process that was just forked still holds a copy of the lock
        return result

    async def resume(self, call: ScriptCall) -> ScriptResult | None:
        """Wait for the script if it runs; its result if this ticket was begun, None if it never was."""
        while (wrapper := await self._running(call.module, call.name)) is not None:
            ticket, pid, pidfd = wrapper
            try:
                remaining = None
                if call.limit is not None and ticket == call.ticket:
                    remaining = max(call.limit.total_seconds() - _age(pid), 0.0)
                if not await _ended(pidfd, remaining):
                    await self._end_session(pid)
                    self._note(call.module, call.name, "rc", ticket, _TIMED_OUT)
            finally:
                os.close(pidfd)
                self._reap()
        return self._result(call)

    async def end(self, module: str, name: str) -> bool:
        """End a script that runs, with everything in its session; False if it does not run. Its call fails."""
        wrapper = await self._running(module, name)
        if wrapper is None:
            return False
        _, pid, pidfd = wrapper
        try:
            await self._end_session(pid)
        finally:
            os.close(pidfd)
            self._reap()
        return True

    def running(self, module: str) -> tuple[str, ...]:
        """The scripts of a module that run now."""
        locks = sorted(self._paths.module_run(module).glob("script-*.lock"))
        names = (lock.name.removeprefix("script-").removesuffix(".lock") for lock in locks)
        return tuple(name for name in names if self._is_locked(module, name))

    async def trim_logs(self, module: str, kilobytes: int) -> None:
        """At the start of a module: keep the newest script logs, `kilobytes` in all (`userlogsize`, spec §3.7)."""
        await asyncio.to_thread(_trim, self._paths.module_var(module), kilobytes * 1024)

    def environment(self, module: str, variables: Mapping[str, str]) -> dict[str, str]:
        """What a script of a module finds in its environment (spec §7.4). The product's names win over the user's."""
        paths = self._paths
        own = {
            "SAFE": str(paths.safe),
            "SAFEVAR": str(paths.var),
            "SAFEBIN": str(paths.safe / "private" / "bin"),
            "SAFEMODULE": module,
            "SAFEUSERBIN": str(paths.active(module) / "bin"),
            "SAFEUSERCONF": str(paths.active(module) / "conf"),
            "SAFEUSERVAR": str(paths.module_var(module)),
        }
        common = {"PATH": f"{paths.safe}:{own['SAFEBIN']}:{_SEARCH_PATH}", "LANG": "C.UTF-8", "HOME": "/root"}
        return {**common, **variables, **own}

    def group(self, module: str) -> Path | None:
        """The control group of what the scripts of a module start; None when there is none."""
        return self._groups.of(module)

    def forget(self, module: str) -> None:
        """A module is gone."""
        self._groups.forget(module)

    def _start(self, call: ScriptCall, script: Path) -> None:
        self._paths.module_run(call.module).mkdir(parents=True, exist_ok=True)
        with self._lock(call.module, call.name) as lock, self._output(call) as output:
            for ending in ("run", "rc"):
                self._file(call.module, call.name, ending).unlink(missing_ok=True)
            if self._started is not None:
                self._started(call, Path(output.name).name if call.keep_output else None)
            record = str(self._paths.module_run(call.module) / f"script-{call.name}")
            group = None if _BESIDE.fullmatch(call.name) else self.group(call.module)
            words = [record, call.ticket, str(group or ""), str(script), *call.arguments]
            child = subprocess.Popen(
                ["/bin/sh", "-c", _WRAPPER, "safekit-script", *words],
                stdin=lock,
                stdout=output,
                stderr=output,
                env=self.environment(call.module, call.variables),
                cwd="/",
                start_new_session=True,
                umask=0o022,
            )
            self._children[child.pid] = child

    def _output(self, call: ScriptCall) -> IO[bytes]:
        if not call.keep_output:
            return Path(os.devnull).open("ab")
        folder = self._paths.module_var(call.module)
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / f"userlog_{self._clock():%Y-%m-%dT%H%M%S}_{call.name}.ulog").open("ab")

    def _result(self, call: ScriptCall) -> ScriptResult | None:
        ended = self._read(call.module, call.name, "rc")
        begun = self._read(call.module, call.name, "run")
        if ended is not None and ended[0] == call.ticket:
            if ended[1] == _TIMED_OUT:
                limit = f" of {call.limit.total_seconds():g} s" if call.limit is not None else ""
                return ScriptResult(call.name, Outcome.TIMED_OUT, reason=f"its time limit{limit} has passed")
            code = int(ended[1])
            if code == 0:
                return ScriptResult(call.name, Outcome.OK, 0)
            return ScriptResult(call.name, Outcome.FAILED, code, f"exit code {code}")
        if begun is not None and begun[0] == call.ticket:
            return ScriptResult(call.name, Outcome.FAILED, reason="it was killed")
        return None

    async def _running(self, module: str, name: str) -> tuple[str, int, int] | None:
        """(ticket, pid, pidfd) of a wrapper that runs. While it is locked, what `.run` says is true."""
        while self._is_locked(module, name):
            begun = self._read(module, name, "run")
            if begun is None:
                await asyncio.sleep(0.01)  # between its fork and its first line
                continue
            pid = int(begun[1])
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                await asyncio.sleep(0.01)  # between its last line and the release of the lock
                continue
            if self._is_locked(module, name) and self._read(module, name, "run") == begun:
                return begun[0], pid, pidfd
            os.close(pidfd)
        return None

    async def _end_session(self, session: int) -> None:
        for number, patience in ((signal.SIGTERM, self._grace.total_seconds()), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + patience
            while (members := _members(session)) and time.monotonic() < deadline:
                pidfds = []
                for pid in members:
                    try:
                        pidfds.append(os.pidfd_open(pid))
                    except ProcessLookupError:
                        continue
                try:
                    for pidfd in pidfds:
                        try:
                            signal.pidfd_send_signal(pidfd, number)
                        except ProcessLookupError:
                            continue
                    left = deadline - time.monotonic()
                    await asyncio.gather(*(_ended(pidfd, left) for pidfd in pidfds))
                finally:
                    for pidfd in pidfds:
                        os.close(pidfd)
                self._reap()

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[pid]

    @contextmanager
    def _lock(self, module: str, name: str) -> Iterator[int]:
        descriptor = os.open(self._file(module, name, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield descriptor
        finally:
            os.close(descriptor)

    def _is_locked(self, module: str, name: str) -> bool:
        try:
            descriptor = os.open(self._file(module, name, "lock"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _file(self, module: str, name: str, ending: str) -> Path:
        return self._paths.module_run(module) / f"script-{name}.{ending}"

    def _read(self, module: str, name: str, ending: str) -> tuple[str, str] | None:
        try:
            line = self._file(module, name, ending).read_text()
        except FileNotFoundError:
            return None
        ticket, _, value = line.rstrip("\n").partition(" ")
        return (ticket, value) if line.endswith("\n") else None

    def _note(self, module: str, name: str, ending: str, ticket: str, value: str) -> None:
        self._file(module, name, ending).write_text(f"{ticket} {value}\n")


async def _ended(pidfd: int, timeout: float | None) -> bool:
    """True when the process has ended, False when `timeout` seconds have passed."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, lambda: None if ended.done() else ended.set_result(None))
    try:
        async with asyncio.timeout(timeout):
            await ended
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from `state` on; nothing if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _age(pid: int) -> float:
    """Seconds since a process began; 0 if it is gone."""
    fields = _stat(pid)
    if not fields:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _members(session: int) -> list[int]:
    """The living processes of a session."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            fields = _stat(int(entry.name))
            if fields and fields[0] not in "ZX" and int(fields[3]) == session:
                members.append(int(entry.name))
    return members


def _trim(folder: Path, limit: int) -> None:
    room = limit
    logs = sorted(folder.glob("userlog_*.ulog"), key=lambda log: log.stat().st_mtime_ns, reverse=True)
    for position, log in enumerate(logs):
        size = log.stat().st_size
        if position == 0 and size > limit:
            with log.open("rb") as whole:
                whole.seek(size - limit)
                end = whole.read()
            log.write_bytes(end)
            size = limit
        if position >= _LOGS_KEPT or size > room:
            room = 0
            log.unlink()
        else:
            room -= size
