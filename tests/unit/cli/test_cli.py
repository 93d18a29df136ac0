"""What a person, or a script, sees of the command: words, tables, exit codes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from safekit.api.face import Progress, StateInfo
from safekit.api.replicated import SyncPolicy
from safekit.cli import control
from safekit.cli.command import run
from safekit.cli.display import lasted, progress_line, size
from safekit.cli.exit_codes import MEANINGS, STATE_CODES, ExitCode, of_error
from safekit.cli.reference import page
from safekit.paths import Paths
from safekit.store.entries import Cause, Change
from tests.unit.api.small_node import DATE, SmallNode

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


class NodeThread:
    """A node in a loop of its own, so that the command can be called as a person calls it."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.node = self.call(self._make())

    async def _make(self) -> SmallNode:
        return SmallNode(self._paths)

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def start(self) -> None:
        self.call(self._start())

    async def _start(self) -> None:
        ready = asyncio.Event()

        async def serve() -> None:
            async with self.node.running():
                ready.set()
                await self._stop.wait()

        self._task = asyncio.create_task(serve())
        await ready.wait()

    def stop(self) -> None:
        async def end() -> None:
            self._stop.set()
            assert self._task is not None
            await self._task

        self.call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def write_change(self, change: Change) -> None:
        self._loop.call_soon_threadsafe(self.node.logs["db"].write_change, change)

    def move(self, am: str, state: StateInfo) -> None:
        async def move() -> None:
            self.node.move(am, state)

        self.call(move())


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "opt", tmp_path / "var", tmp_path / "run")


@pytest.fixture
def daemon(paths: Paths) -> Iterator[NodeThread]:
    thread = NodeThread(paths)
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture
def safekit(paths: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.delenv("SAFEMODULE", raising=False)

    def call(*arguments: str) -> Result:
        code = run(arguments, paths)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def db(daemon: NodeThread, safekit: Command, tmp_path: Path) -> NodeThread:
    """A node with a cluster of n1 (itself) and n2 (away) and the configured module db."""
    (tmp_path / "cluster.xml").write_text("<cluster/>")
    (tmp_path / "db.safe").write_bytes(b"a package")
    assert safekit("cluster", "config", str(tmp_path / "cluster.xml")).code == 0
    assert safekit("module", "install", "-m", "db", str(tmp_path / "db.safe")).code == 0
    assert safekit("config", "-m", "db").code == 0
    return daemon


PROGRAM = """
import sys
from pathlib import Path
from safekit.cli.command import run
from safekit.paths import Paths
sys.exit(run(sys.argv[4:], Paths(*map(Path, sys.argv[1:4]))))
"""


def command_at(paths: Paths) -> list[str]:
    """The command as a process of its own, for the node at `paths`."""
    return [sys.executable, "-c", PROGRAM, *map(str, (paths.safe, paths.var, paths.run))]


def test_state_is_one_line_per_module_and_node_in_words(db: NodeThread, safekit: Command) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1, minutes=5, seconds=30)
    db.move("db", StateInfo("PRIM", "Ready", hour_ago, "swap by root", "uptodate", "SECOND Ready", (), "ready"))
    result = safekit("state")
    assert result.out.startswith("MODULE ")
    _, first, second, failover = result.out.splitlines()
    assert [cell.strip() for cell in first.split("  ") if cell] == [
        *("db", "mirror", "n1", "PRIM Ready"),
        "runs the application, the secondary is ready, uptodate",
        *("1 h 5 min", "swap by root"),
    ]
    assert [cell.strip() for cell in second.split("  ") if cell][2:5] == ["n2", "ERROR", "does not answer"]
    assert failover == "db: automatic failover: ready"


def test_state_shows_how_far_a_resynchronisation_is(db: NodeThread, safekit: Command) -> None:
    progress = Progress(50, 10, 20, 1_500_000_000, 3_000_000_000, 50_000_000, 30)
    db.move("db", StateInfo("SECOND", "Transient", DATE, progress=progress, detail="50%"))
    assert safekit("state", "-m", "db").out.splitlines()[-1] == (
        "db: [############------------] 50 %, 1.5 GB of 3.0 GB, 10 of 20 files, 50.0 MB/s, 30 s left"
    )


def test_state_says_what_a_blocked_module_waits_for(db: NodeThread, safekit: Command) -> None:
    db.move("db", StateInfo("WAIT", "NotReady", DATE, "no peer", "not uptodate", "UNKNOWN", ("node n2",)))
    assert "blocked, waiting for node n2, not uptodate" in safekit("state", "-m", "db").out


def test_verbose_state_lists_the_resources(db: NodeThread, safekit: Command) -> None:
    safekit("set", "-m", "db", "-r", "custom.a", "-v", "up")
    last = safekit("state", "-m", "db", "-v").out.splitlines()[-1]
    assert last.split()[:2] == ["custom.a", "up"]


@pytest.mark.parametrize(("state", "code"), STATE_CODES.items())
def test_quiet_state_is_the_exit_code(db: NodeThread, safekit: Command, state: str, code: int) -> None:
    db.move("db", StateInfo(state, "Ready", DATE))
    assert safekit("state", "-m", "db", "-lq") == Result(code, "", "")


def test_no_failure_can_be_taken_for_a_state() -> None:
    assert not set(STATE_CODES.values()) & {code for code in ExitCode if code is not ExitCode.DONE}


def test_module_is_taken_from_the_environment_of_its_scripts(
    db: NodeThread, safekit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFEMODULE", "db")
    assert safekit("printe", "cannot start").code == 0
    assert safekit("stop", "-i", "start_prim").code == 0
    assert [line.split(" | ", 1)[1] for line in safekit("log").out.splitlines()] == [
        "userplug | E | cannot start",
        "safekit | U | Action stop called by start_prim",
    ]


def test_action_says_that_it_begins_or_that_there_is_nothing_to_do(db: NodeThread, safekit: Command) -> None:
    assert safekit("prim", "-m", "db", "fullsync").out == (
        "db: prim begins; `safekit state -m db` shows how far it is\n"
    )
    assert db.node.actions[-1][3].fullsync
    assert safekit("start", "-m", "db").out == "db: nothing to do, it is ALONE Ready\n"
    safekit("swap", "-m", "db", "nosync")
    assert db.node.actions[-1][3].nosync


@pytest.mark.parametrize(
    ("written", "date"),
    [
        ("2026-01-02Z", "2026-01-02T00:00:00+00:00"),
        ("2026-01-02 03:04:05Z", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02", datetime(2026, 1, 2).astimezone().isoformat()),
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5).astimezone().isoformat()),
    ],
)
def test_secondforce_takes_a_date(db: NodeThread, safekit: Command, written: str, date: str) -> None:
    assert safekit("secondforce", "-m", "db", "-d", written).code == 0
    _, action, _, options = db.node.actions[-1]
    assert options.date is not None and (action, options.date.isoformat()) == ("secondforce", date)


@pytest.mark.parametrize("written", ["", "yesterday", "2026-13-01", "2026-01-02T03:04", "02.01.2026"])
def test_a_date_that_is_none_is_one_clear_sentence(db: NodeThread, safekit: Command, written: str) -> None:
    refused = safekit("secondforce", "-m", "db", "-d", written)
    assert refused.code == ExitCode.USAGE
    assert refused.err.startswith(f"safekit: -d {written}: not a date, expected YYYY-MM-DD")
    assert not db.node.actions


def test_shutdown_stops_every_module_that_runs_and_waits(db: NodeThread, safekit: Command) -> None:
    safekit("start", "-m", "db")
    assert safekit("shutdown", "-t", "5") == (0, "db: STOP NotReady\n", "")
    *_, (am, action, caller, _) = db.node.actions
    assert (am, action, caller.identity) == ("db", "stop", "shutdown")
    assert safekit("shutdown").out == "no module runs\n"


def test_wait_ends_when_the_state_is_reached(db: NodeThread, safekit: Command) -> None:
    later = threading.Timer(0.2, db.move, ("db", StateInfo("PRIM", "Ready", DATE)))
    later.start()
    assert safekit("waitstart", "-m", "db", "-t", "30") == Result(0, "db: PRIM Ready\n", "")
    later.join()


def test_wait_that_lasts_too_long_says_where_the_module_is(db: NodeThread, safekit: Command) -> None:
    result = safekit("waitstate", "-m", "db", "PRIM", "-t", "0.1")
    assert result.code == ExitCode.TIMEOUT
    assert result.err == "safekit: db did not reach PRIM in 0.1 s: it is STOP NotReady (stopped)\n"


def test_wait_outlives_a_restart_of_the_daemon(
    paths: Paths, safekit: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "db.safe").write_bytes(b"a package")
    first = NodeThread(paths)
    first.start()
    safekit("module", "install", "-m", "db", str(tmp_path / "db.safe"))
    second = NodeThread(paths)

    def restart() -> None:
        first.stop()
        second.node.infos, second.node.logs = first.node.infos, {}
        second.start()
        second.move("db", StateInfo("UP", "Ready", DATE))

    later = threading.Timer(0.2, restart)
    later.start()
    try:
        assert safekit("waitstart", "-m", "db", "-t", "30").out == "db: UP Ready\n"
    finally:
        later.join()
        second.node.infos = {}
        second.stop()
    monkeypatch.setattr(control, "RESTART_PATIENCE_S", 0.3)
    assert safekit("waitstart", "-m", "db").code == ExitCode.NOT_RUNNING


def test_log_is_followed_until_interrupted(db: NodeThread, paths: Paths) -> None:
    command = [*command_at(paths), "logview", "-m", "db"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    db.call(db.node.add_log("db", "E", "before", "userplug"))
    viewer = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A test run in the background of a shell ignores interrupts, and what it starts would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert viewer.stdout is not None
        assert viewer.stdout.readline().endswith("| userplug | E | before\n")
        db.call(db.node.add_log("db", "E", "after", "userplug"))
        assert viewer.stdout.readline().endswith("| userplug | E | after\n")
        viewer.send_signal(2)
        assert viewer.wait(10) == ExitCode.INTERRUPTED
    finally:
        viewer.kill()
        viewer.communicate()


def test_daemon_that_does_not_run_is_one_clear_line(safekit: Command) -> None:
    assert safekit("state") == Result(
        ExitCode.NOT_RUNNING, "", "safekit: safekitd is not running on this node: `systemctl start safekitd`\n"
    )
    assert safekit("state", "-m", "db", "-lq").code == ExitCode.NOT_RUNNING


def test_unknown_module_and_refusal_have_their_codes(db: NodeThread, safekit: Command) -> None:
    assert safekit("start", "-m", "nope") == Result(
        ExitCode.UNKNOWN, "", "safekit: no module nope is installed on this node\n"
    )
    safekit("deconfig", "-m", "db")
    assert safekit("start", "-m", "db") == Result(ExitCode.REFUSED, "", "safekit: module db was never configured\n")


def test_wrong_configuration_is_named_to_the_attribute(daemon: NodeThread, safekit: Command, tmp_path: Path) -> None:
    (tmp_path / "cluster.xml").write_text("<wrong/>")
    for word in ("config", "confcheck"):
        result = safekit("cluster", word, str(tmp_path / "cluster.xml"))
        assert result.code == ExitCode.CONFIGURATION
        assert result.err == 'safekit: cluster.xml, line 3: <lan pulse="wrong">: not a number\n'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swpa"], "No such command 'swpa'"),
        (["start"], "Missing option '-m'"),
        (["waitstate", "-m", "db", "UPP"], "UPP"),
        (["state", "-lq"], "-v and -lq need -m AM"),
        (["cluster", "config", "/nowhere.xml"], "/nowhere.xml cannot be read: No such file or directory"),
        (["module", "install", "-m", "db", "nowhere.safe"], "nowhere.safe: no such file, neither here nor in"),
    ],
)
def test_wrong_command_line_has_its_own_code(
    daemon: NodeThread, safekit: Command, arguments: list[str], message: str
) -> None:
    result = safekit(*arguments)
    assert result.code == ExitCode.USAGE
    assert message in result.err


def test_key_travels_to_another_node_in_a_package(db: NodeThread, safekit: Command, tmp_path: Path) -> None:
    assert safekit("cluster", "package", str(tmp_path / "c.zip")).code == 0
    assert (tmp_path / "c.zip").stat().st_mode & 0o077 == 0
    assert safekit("cluster", "config").out == "cluster: new key\n"
    assert db.node.key == b"new key"
    assert safekit("cluster", "config", str(tmp_path / "c.zip"), "lock").code == 0
    assert db.node.key == b"first key"
    assert safekit("cluster", "config", str(tmp_path / "cluster.xml")).code == ExitCode.REFUSED
    assert safekit("cluster", "config", "unlock").code == 0
    assert not db.node.cluster.locked


def test_zip_without_a_cluster_is_refused(daemon: NodeThread, safekit: Command, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("other.xml", "")
    assert safekit("cluster", "config", str(tmp_path / "c.zip")).err.endswith("the zip holds no cluster.xml\n")
    (tmp_path / "c.zip").write_bytes(b"PK nonsense")
    assert "is no readable zip" in safekit("cluster", "config", str(tmp_path / "c.zip")).err


def test_cluster_is_shown_and_removed(db: NodeThread, safekit: Command) -> None:
    _, first, second = safekit("cluster", "confinfo").out.splitlines()
    assert first.split()[:2] == ["n1", "c0ffee"] and first.endswith("same")
    assert second.split()[0] == "n2" and second.endswith("does not answer")
    rows = safekit("cluster", "state").out.splitlines()
    assert rows[1].split()[:6] == ["n1", "db", "mirror", "1", "STOP", "NotReady"]
    assert safekit("cluster", "deconfig").out == "cluster: removed\n"
    assert safekit("cluster", "confinfo").out == "the node belongs to no cluster yet\n"


def test_module_is_found_in_the_catalogue_listed_packaged_and_removed(
    daemon: NodeThread, safekit: Command, paths: Paths, tmp_path: Path
) -> None:
    catalogue = paths.safe / "Application_Modules" / "generic"
    catalogue.mkdir(parents=True)
    (catalogue / "mirror.safe").write_bytes(b"generic")
    assert safekit("module", "install", "-m", "db", "-M", "4", "mirror.safe").out == "db: installed, id 4\n"
    assert safekit("module", "list").out == "db\n"
    assert safekit("module", "listid").out == "4 db\n"
    assert safekit("module", "getports", "-i", "4").out == "heart 8888\nrfs 5600\n"
    assert safekit("module", "package", "-m", "db", str(tmp_path / "out.safe")).code == 0
    assert (tmp_path / "out.safe").read_bytes() == b"generic"
    assert safekit("confcheck", "-m", "db") == Result(0, "db: valid\n", "warning: macro unused\n")
    assert "not applied: `safekit config -m db`" in safekit("confinfo", "-m", "db").out
    assert safekit("config", "-m", "db").out == "db: applied, signature ed1ted\n"
    assert safekit("boot", "on", "-m", "db").out == "db: boot on\n"
    assert safekit("boot", "status", "-m", "db").out == "db: boot on\n"
    assert safekit("module", "uninstall", "-m", "db").out == "db: removed\n"


def test_resources_and_command_log_are_shown(db: NodeThread, safekit: Command) -> None:
    safekit("set", "-m", "db", "-r", "custom.a", "-v", "down")
    assert safekit("get", "-m", "db", "-r", "custom.a").out == "down\n"
    assert safekit("get", "-m", "db", "-r", "custom.b").code == ExitCode.UNKNOWN
    assert "-r custom.a -v down" in safekit("cmdlog").out


def test_a_handler_counts_for_maxloop_and_hears_of_the_limit(db: NodeThread, safekit: Command) -> None:
    codes = [safekit(*words, "-m", "db").code for words in (("checkloop",), ("incloop", "-i", "mend"), ("incloop",))]
    assert codes == [0, 0, 1]
    assert safekit("checkloop", "-m", "db").code == 1
    assert safekit("resetloop", "-m", "db").code == 0
    assert safekit("checkloop", "-m", "db").code == 0


def test_a_class_of_processes_is_enabled_listed_and_disabled(db: NodeThread, safekit: Command) -> None:
    assert safekit("errd", "enable", "batch", "-m", "db") == (0, "db: errd enable batch\n", "")
    listed = safekit("errd", "list", "-m", "db").out.splitlines()
    assert [line.split() for line in listed] == [
        ["PROCESS", "CLASS", "ENABLED", "ACTION", "RESOURCE"],
        ["cron", "batch", "yes", "restart", "up"],
    ]
    assert safekit("errd", "disable", "batch", "-m", "db").code == 0
    (process,) = json.loads(safekit("errd", "list", "-m", "db", "--json").out)["processes"]
    assert process == {"name": "cron", "class": "batch", "action": "restart", "enabled": False, "value": "unknown"}


@pytest.mark.parametrize("words", [("enable",), ("disable",), ("list", "batch"), ("off", "batch")])
def test_only_enable_and_disable_take_a_class(db: NodeThread, safekit: Command, words: tuple[str, ...]) -> None:
    assert safekit("errd", *words, "-m", "db").code == ExitCode.USAGE


@pytest.mark.parametrize("name", ["checker", "errd"])
def test_checkers_and_the_watch_over_processes_are_turned_off_and_on(
    db: NodeThread, safekit: Command, name: str
) -> None:
    assert safekit(name, "off", "-m", "db").out == f"db: {name} off\n"
    assert safekit(name, "status", "-m", "db").out == f"db: {name} off\n"
    assert safekit(name, "on", "-m", "db").out == f"db: {name} on\n"
    assert f"{name} " in safekit("cmdlog").out


def test_why_names_the_cause_of_an_earlier_turn_and_what_is_switched_off(db: NodeThread, safekit: Command) -> None:
    dates = [datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC) for second in range(4)]
    heard = Cause(dates[1], "Remote state WAIT Transient (stopstart called by ip_failure)")
    db.write_change(Change(dates[0], 1, "SECOND", "Ready", "synchronised with the primary", (), True))
    db.write_change(Change(dates[1], 2, "SECOND", "Transient", "remote stop", (heard,), False))
    db.write_change(Change(dates[2], 2, "ALONE", "Ready", "remote stop", (), True))
    db.write_change(Change(dates[3], 3, "PRIM", "Ready", "the other node is SECOND Ready", (), True))
    safekit("checker", "off", "-m", "db")
    (line,) = safekit("why", "-m", "db", "-1").out.splitlines()
    local = dates[2].astimezone().strftime("%Y-%m-%d %H:%M:%S")
    turn = "remote stop; Remote state WAIT Transient (stopstart called by ip_failure)"
    assert line.endswith(f"it serves since {local}: {turn}; switched off: checker")
    assert safekit("why", "-m", "db").out.count("\n") == 2, "the chain shows the last move alone"


def test_why_answers_in_one_line_and_shows_what_led_there(db: NodeThread, safekit: Command) -> None:
    began, later = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
    cause = Cause(began, "Resource tcp.web set to down by tcp")
    db.write_change(Change(began, 1, "STOP", "NotReady", "stopstart called by t_web", (cause,), False))
    db.write_change(
        Change(later, 1, "WAIT", "Transient", "start called automatically", (Cause(later, "in between"),), False)
    )
    ping = Cause(later, "Resource ping.router set to down by ping")
    db.write_change(Change(later, 1, "WAIT", "NotReady", "rule p_router", (ping,), True))
    line, *chain = safekit("why", "-m", "db").out.splitlines()
    assert line.startswith("db: STOP NotReady: ")
    first = "stopstart called by t_web; Resource tcp.web set to down by tcp"
    assert line.endswith(f"because: {first}; Resource ping.router set to down by ping")
    assert [one.split(maxsplit=2)[2] for one in chain] == [
        "Resource tcp.web set to down by tcp",
        "STOP NotReady (stopstart called by t_web)",
        "in between",
        "WAIT Transient (start called automatically)",
        "Resource ping.router set to down by ping",
        "WAIT NotReady (rule p_router)",
    ]
    assert safekit("why", "-m", "db", "-1").out == line + "\n"


@pytest.mark.parametrize(
    "arguments",
    [
        *("state", "state -m db -v", "log -m db", "why -m db", "cmdlog", "get -m db -r custom.a", "level", "-p"),
        *("module list", "module listid", "module getports -m db", "confinfo -m db", "confcheck -m db"),
        *("cluster state", "cluster confinfo", "boot status -m db", "waitstop -m db"),
    ],
)
def test_every_reading_command_speaks_json(db: NodeThread, safekit: Command, arguments: str) -> None:
    safekit("set", "-m", "db", "-r", "custom.a", "-v", "up")
    result = safekit(*arguments.split(), "--json")
    assert result.code == 0
    assert isinstance(json.loads(result.out), dict)


def on_terminal(paths: Paths, *arguments: str, watch: Callable[[str], object] = lambda shown: None) -> tuple[int, str]:
    """Exit code and output of a command of which a person looks at the output.

    watch: is given all that was shown so far, each time that there is more.
    """
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "200"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen([*command_at(paths), *arguments], stdout=slave, env=environment)
    os.close(slave)
    shown = b""
    try:
        while True:
            shown += os.read(master, 65536)
            watch(shown.decode(errors="replace"))
    except OSError:  # the other side of the terminal is closed
        return process.wait(20), shown.decode()
    finally:
        os.close(master)
        process.kill()


def test_terminal_gets_colours_and_a_pipe_does_not(db: NodeThread, paths: Paths, safekit: Command) -> None:
    db.move("db", StateInfo("UP", "Ready", DATE))
    assert "\x1b[" not in safekit("state").out
    code, shown = on_terminal(paths, "state")
    assert code == 0
    assert "\x1b[32mUP Ready" in shown


def test_waiting_person_sees_how_far_the_resynchronisation_is(db: NodeThread, paths: Paths) -> None:
    progress = Progress(50, 10, 20, 1_500_000_000, 3_000_000_000, 50_000_000, 30)
    db.move("db", StateInfo("SECOND", "Transient", DATE, progress=progress))
    half = "[############------------] 50 %, 1.5 GB of 3.0 GB"

    def end_once_half_is_seen(shown: str) -> None:
        if half in shown:
            db.move("db", StateInfo("SECOND", "Ready", DATE))

    code, shown = on_terminal(paths, "waitstate", "-m", "db", "SECOND", "-t", "60", watch=end_once_half_is_seen)
    assert code == 0
    assert half in shown
    assert shown.splitlines()[-1].endswith("db: SECOND Ready")


def test_command_loads_nothing_heavy() -> None:
    program = "import sys, safekit.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout.split()
    assert not {"rich", "asyncio", "ssl", "http.client", "lxml", "pydantic", "httpx", "starlette"} & set(loaded)


def test_reference_page_is_made_from_the_commands() -> None:
    assert DOCUMENT.read_text() == page(), "run: python -m safekit.cli.reference > docs/reference/cli.md"
    assert set(MEANINGS) == set(ExitCode)


def test_errors_of_the_api_have_exit_codes() -> None:
    assert of_error("config.value") is ExitCode.CONFIGURATION
    assert of_error("package.path") is ExitCode.CONFIGURATION
    assert of_error("internal") is ExitCode.DEFECT


def test_sizes_and_durations_are_written_for_people() -> None:
    assert [size(count) for count in (0, 999, 1000, 2.5e9, 7e13)] == ["0 B", "999 B", "1.0 kB", "2.5 GB", "70.0 TB"]
    durations = (timedelta(seconds=59), timedelta(minutes=2), timedelta(hours=3), timedelta(days=2, hours=5))
    assert [lasted(duration) for duration in durations] == ["59 s", "2 min 0 s", "3 h 0 min", "2 d 5 h"]
    nothing_known = {"percent": 0, "bytes_done": 0, "bytes_total": 0, "files_done": 0, "files_total": 0}
    assert progress_line({**nothing_known, "rate_bps": 0, "eta_s": None}).endswith("0 B/s")


def test_key_in_a_package_is_the_nodes(db: NodeThread, safekit: Command, tmp_path: Path) -> None:
    safekit("cluster", "package", str(tmp_path / "c.zip"))
    with zipfile.ZipFile(tmp_path / "c.zip") as archive:
        assert archive.read("cluster.key") == b"first key"
        assert base64.b64encode(archive.read("cluster.xml")) == base64.b64encode(b"<cluster/>")


def test_a_farm_is_shown_in_words_and_its_map_on_demand(db: NodeThread, safekit: Command, tmp_path: Path) -> None:
    assert safekit("module", "install", "-m", "web", str(tmp_path / "db.safe")).code == 0
    silent = safekit("farm", "show", "-m", "web")
    assert (silent.code, silent.out.startswith("web: n1 is not in service")) == (0, True)
    db.move("web", StateInfo("UP", "Ready", DATE))
    shown = safekit("farm", "show", "-m", "web").out
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["web", "on", "n1,", "in", "service:", "n1,", "n2"]
    assert ["web", "n2", "1", "33.3", "%"] in lines
    assert ["10.0.0.100", "n2", "12", "3"] in lines
    assert ["fd00::100", "owner", "of", "who", "asks", "0", "0"] in lines
    assert ["forwarded_n2", "5"] in lines
    assert "010-" not in shown
    drawn = safekit("farm", "show", "-m", "web", "--map").out.splitlines()
    assert drawn[-4:] == ["0 n1, 1 n2, - nobody", "", "web", "    0 010-"]
    assert json.loads(safekit("farm", "show", "-m", "web", "--json").out)["nodes"] == ["n1", "n2"]


def test_scripts_close_and_open_the_share_of_a_node(db: NodeThread, safekit: Command, tmp_path: Path) -> None:
    assert safekit("module", "install", "-m", "web", str(tmp_path / "db.safe")).code == 0
    db.move("web", StateInfo("UP", "Ready", DATE))
    assert safekit("farm", "close", "-m", "web").code == 0
    assert "closed: it takes no new client" in safekit("farm", "show", "-m", "web").out
    assert safekit("farm", "open", "-m", "web").code == 0
    assert "closed" not in safekit("farm", "show", "-m", "web").out
    refused = safekit("farm", "open", "-m", "db")
    assert (refused.code, "do not control" in refused.err) == (of_error("action.refused"), True)


def test_a_module_without_shared_addresses_is_refused_by_farm_show(db: NodeThread, safekit: Command) -> None:
    refused = safekit("farm", "show", "-m", "db")
    assert refused.code == of_error("action.refused")
    assert "no virtual address" in refused.err


def test_statistics_of_the_replication_are_a_table_with_units(db: NodeThread, safekit: Command) -> None:
    lines = safekit("rfs", "stats", "-m", "db").out.splitlines()
    assert lines[0].split() == ["METRIC", "VALUE"]
    assert lines[1].split() == ["sent_bytes", "1500000", "1.5", "MB"]
    assert lines[2].split() == ["wire_p99_us", "2400", "2.4", "ms"]
    assert [line.split() for line in lines[3:]] == [["queue_count", "3"], ["peer", "mirror"]]
    assert json.loads(safekit("rfs", "stats", "-m", "db", "--json").out)["stats"]["peer"] == "mirror"


def test_equal_copies_are_said_and_exit_with_0(db: NodeThread, safekit: Command) -> None:
    done = safekit("rfsverify", "-m", "db")
    assert (done.code, done.out) == (0, "db: the copies are equal (12 files, 3.0 MB compared in 0 s)\n")
    assert json.loads(safekit("rfsdiff", "-m", "db", "--json").out)["kind"] == "diff"


def test_copies_that_differ_have_an_exit_code_of_their_own(db: NodeThread, safekit: Command) -> None:
    db.node.compared = {
        "equal": False,
        "files_done": 5,
        "differing_files": 2,
        "differing_bytes": 700,
        "entries": ("a", "b c"),
        "list": "/var/x",
    }
    done = safekit("rfsdiff", "-m", "db")
    assert done.code == ExitCode.DIFFERENT
    assert done.out.splitlines() == [
        "a",
        "b c",
        "db: the copies differ: 2 files, 700 B to copy (5 files, 0 B compared in 0 s)",
        "db: all of them: /var/x",
    ]


def test_a_comparison_that_fails_says_why(db: NodeThread, safekit: Command) -> None:
    db.node.compared = {"failed": "the peer went away"}
    done = safekit("rfsverify", "-m", "db")
    assert (done.code, done.out) == (ExitCode.REFUSED, "")
    assert done.err == "safekit: db: the comparison failed: the peer went away\n"


def test_nobody_waits_who_does_not_want_to(db: NodeThread, safekit: Command) -> None:
    done = safekit("rfsverify", "-m", "db", "--no-wait")
    assert (done.code, done.out) == (0, "db: the comparison goes on; `safekit log -m db` shows its end\n")


@pytest.mark.parametrize(
    ("words", "policy"),
    [
        (("full",), SyncPolicy("full")),
        (("external", "prim", "monday"), SyncPolicy("external", "prim", "monday")),
        (("external", "second", "monday"), SyncPolicy("external", "second", "monday")),
        (("-d", "second", "monday"), SyncPolicy("external", "second", "monday", check=False)),
    ],
)
def test_a_policy_of_synchronisation(
    db: NodeThread, safekit: Command, words: tuple[str, ...], policy: SyncPolicy
) -> None:
    assert safekit("rfssync", "-m", "db", *words).code == 0
    assert db.node.policy == policy
    assert safekit("rfssync", "-m", "db", *words).out == "db: nothing to do, this is the policy already\n"


@pytest.mark.parametrize(
    "words", [("half",), ("full", "prim"), ("external",), ("external", "alone", "x"), ("-d", "prim")]
)
def test_a_policy_that_nobody_knows_is_refused_with_the_ones_there_are(
    db: NodeThread, safekit: Command, words: tuple[str, ...]
) -> None:
    done = safekit("rfssync", "-m", "db", *words)
    assert done.code == ExitCode.USAGE
    assert "expected full, default, external prim UID, external second UID, or -d prim UID" in done.err
