"""What a node remembers, and that nothing that happens to the files stops it."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from safekit.store.command_log import CommandLog
from safekit.store.database import PENDING_LIMIT, Database
from safekit.store.entries import Cause, Change
from safekit.store.module_log import KEPT_CHANGES, ModuleLog
from safekit.store.resources import Resources

START = datetime(2026, 11, 22, 3, 0, 0, 123456, tzinfo=UTC)


class Clock:
    """One microsecond per look."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now


@pytest.fixture
def journal() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def new_log(tmp_path: Path, journal: list[tuple[str, str]]) -> Callable[..., ModuleLog]:
    def make(**options: int) -> ModuleLog:
        return ModuleLog(
            "db",
            tmp_path / "log.db",
            clock=Clock(),
            journal=lambda *line: journal.append(line),
            keep=options.get("keep", 1000),
        )

    return make


@pytest.fixture
async def log(new_log: Callable[..., ModuleLog]) -> AsyncIterator[ModuleLog]:
    log = new_log()
    await log.open()
    yield log
    await log.close()


async def test_log_shows_the_last_lines_and_hides_information_unless_verbose(log: ModuleLog) -> None:
    for level in "CEUSID":
        log.write("heart", level, f"message {level}")
    assert [entry.level for entry in await log.last(10)] == ["C", "E", "U", "S"]
    assert [entry.level for entry in await log.last(3, verbose=True)] == ["S", "I", "D"]
    first = (await log.last(10))[0]
    assert (first.id, first.origin, first.message) == (1, "heart", "message C")
    assert first.date == START + timedelta(microseconds=1)


async def test_log_goes_to_the_journal_as_module_origin_message(log: ModuleLog, journal: list[tuple[str, str]]) -> None:
    log.write("vip", "E", "Virtual IP 10.0.0.9 set")
    await log.close()
    assert journal == [("E", "db | vip | Virtual IP 10.0.0.9 set")]


async def test_reader_is_woken_by_the_next_visible_entry(log: ModuleLog) -> None:
    last = log.write("heart", "E", "before")
    reader = asyncio.create_task(log.newer(last.id, 10, wait=30))
    await asyncio.sleep(0)
    log.write("heart", "D", "hidden")
    log.write("heart", "E", "news")
    async with asyncio.timeout(5):
        assert [entry.message for entry in await reader] == ["news"]
    assert [entry.message for entry in await log.newer(last.id, 1, verbose=True)] == ["hidden"]


async def test_reader_gets_nothing_when_nothing_comes_and_leaves_at_once_when_the_log_is_closed(log: ModuleLog) -> None:
    last = log.write("heart", "E", "before")
    assert await log.newer(last.id, 10, wait=0.01) == ()
    reader = asyncio.create_task(log.newer(last.id, 10, wait=30))
    await asyncio.sleep(0)
    await log.close()
    async with asyncio.timeout(5):
        assert await reader == ()


async def test_reader_of_a_log_that_was_begun_anew_sees_its_entries(log: ModuleLog) -> None:
    log.write("heart", "E", "first of the new file")
    assert len(await log.newer(9999, 10)) == 1


async def test_log_goes_on_after_a_restart(new_log: Callable[..., ModuleLog]) -> None:
    first = new_log()
    await first.open()
    first.write("heart", "E", "before")
    await first.close()
    second = new_log()
    await second.open()
    assert second.write("heart", "E", "after").id == 2
    assert [entry.message for entry in await second.last(5)] == ["before", "after"]
    await second.close()


async def test_oldest_entries_go_when_the_log_is_full(new_log: Callable[..., ModuleLog]) -> None:
    log = new_log(keep=100)
    await log.open()
    for number in range(1, 501):
        log.write("heart", "E", str(number))
    assert [entry.id for entry in await log.last(1000)] == list(range(401, 501))
    await log.close()


async def test_unknown_level_is_refused(log: ModuleLog) -> None:
    with pytest.raises(ValueError, match="level 'X' is none of C, E, U, S, I, D"):
        log.write("heart", "X", "?")


@pytest.mark.parametrize("damage", ["garbage", "torn"])
async def test_damaged_log_is_set_aside_and_a_new_one_begun(
    new_log: Callable[..., ModuleLog], tmp_path: Path, damage: str
) -> None:
    file = tmp_path / "log.db"
    log = new_log()
    await log.open()
    for number in range(400):
        log.write("heart", "E", f"{number} " * 50)
    await log.close()
    content = file.read_bytes()
    file.write_bytes(b"\xff" * 5000 if damage == "garbage" else content[: len(content) // 2])
    log = new_log()
    await log.open()
    log.write("heart", "E", "life goes on")
    first, second = await log.last(10)
    assert first.level == "C" and "set aside as log.db.damaged" in first.message
    assert second.message == "life goes on"
    assert (tmp_path / "log.db.damaged").exists()
    await log.close()


async def test_file_that_is_damaged_while_open_is_replaced(tmp_path: Path) -> None:
    said: list[str] = []
    database = Database(tmp_path / "x.db", "CREATE TABLE IF NOT EXISTS t (a);", said.append)
    await database.open()
    other = sqlite3.connect(tmp_path / "x.db")
    other.execute("DROP TABLE t")
    other.close()
    database.write(("INSERT INTO t VALUES (?)", (1,)))
    assert await database.read("SELECT a FROM t") == [(1,)]
    assert len(said) == 1 and "set aside as x.db.damaged" in said[0]
    await database.close()


async def test_folder_that_cannot_be_written_keeps_entries_in_memory(
    tmp_path: Path, journal: list[tuple[str, str]]
) -> None:
    (tmp_path / "file").write_text("in the way")
    log = ModuleLog("db", tmp_path / "file" / "log.db", journal=lambda *line: journal.append(line))
    await log.open()
    log.write("heart", "E", "remembered")
    messages = [entry.message for entry in await log.last(10)]
    assert "kept in memory until safekitd restarts" in messages[0] and messages[1] == "remembered"
    await log.close()


async def test_locked_file_never_blocks_the_loop(log: ModuleLog, tmp_path: Path) -> None:
    log.write("heart", "E", "one")
    await log.last(1)
    other = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    for _ in range(100):
        log.write("heart", "E", "while locked")
    assert time.monotonic() - begun < 1
    other.execute("ROLLBACK")
    other.close()
    assert len(await log.last(1000)) == 101


async def test_entries_that_a_stuck_disk_could_not_take_are_counted(log: ModuleLog, tmp_path: Path) -> None:
    log.write("heart", "E", "one")
    await log.last(1)
    other = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(PENDING_LIMIT):
        log.write("heart", "E", "many")
    other.execute("ROLLBACK")
    other.close()
    await log.last(1)
    log.write("heart", "E", "after")
    before_last, last = await log.last(2)
    assert last.message == "after"
    assert before_last.level == "C" and before_last.message.endswith("messages were lost: the disk was too slow")


async def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    program = """
import asyncio, os, signal, sys
from pathlib import Path
from safekit.store.entries import Cause, Change
from safekit.store.module_log import KEPT_CHANGES, ModuleLog
async def main():
    log = ModuleLog("db", Path(sys.argv[1]), journal=lambda *line: None)
    await log.open()
    for number in range(100):
        log.write("heart", "E", str(number))
    await log.last(1)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(tmp_path / "log.db")],
        env={"PYTHONPATH": ":".join(sys.path)},
        timeout=30,
        check=False,
    )
    assert done.returncode == -9
    log = ModuleLog("db", tmp_path / "log.db", journal=lambda *line: None)
    await log.open()
    assert [entry.message for entry in await log.last(1000)] == [str(number) for number in range(100)]
    await log.close()


@pytest.fixture
async def resources(tmp_path: Path) -> AsyncIterator[Resources]:
    resources = Resources("db", tmp_path / "resource.db", clock=Clock(), keep=100)
    await resources.open()
    yield resources
    await resources.close()


async def test_resource_is_set_only_on_change_and_has_a_history(resources: Resources) -> None:
    assert resources.set("custom.db", "init")
    assert resources.set("custom.db", "up")
    assert not resources.set("custom.db", "up")
    history = await resources.history("custom.db", 10)
    assert [change.value for change in history] == ["up", "init"]
    assert history[0].date == START + timedelta(microseconds=2), "the date is that of the change"
    assert await resources.history("custom.db", 1) == (resources.get("custom.db"),)


async def test_resources_are_known_again_after_a_restart(resources: Resources, tmp_path: Path) -> None:
    resources.set("usersetting.checker", "off")
    resources.set("ip.10.0.0.9", "up")
    resources.set("rfs.netin_bandwidth", "1234", lasting=False)
    resources.set("tcp.gone", "down")
    resources.forget("tcp.gone")
    assert [resource.name for resource in resources.all()] == [
        "ip.10.0.0.9",
        "rfs.netin_bandwidth",
        "usersetting.checker",
    ]
    await resources.close()
    again = Resources("db", tmp_path / "resource.db")
    await again.open()
    assert {(resource.name, resource.value) for resource in again.all()} == {
        ("ip.10.0.0.9", "up"),
        ("usersetting.checker", "off"),
    }
    await again.close()


@pytest.mark.parametrize("name", ["nodot", ".id", "tcp.", "tcp.a b", "1tcp.x", "tcp.*", "tcp.?"])
async def test_name_that_is_not_class_and_id_is_refused(resources: Resources, name: str) -> None:
    with pytest.raises(ValueError, match=r"expected class\.id"):
        resources.set(name, "up")


async def test_history_of_resources_is_bounded(resources: Resources) -> None:
    for number in range(500):
        resources.set("custom.db", str(number))
    assert len(await resources.history("custom.db", 1000)) == 100


async def test_command_has_a_start_and_an_end_with_its_return_code(tmp_path: Path) -> None:
    commands = CommandLog(tmp_path / "log.db", clock=Clock())
    await commands.open()
    one = commands.start("swap", "db", "root pid=7", "nosync")
    other = commands.start("cluster config", None, "root pid=8", "")
    commands.event("state", "db", "PRIM Ready")
    commands.end(other, 0)
    commands.end(one, 1, "module db is not PRIM")
    rows = [(entry.command, entry.phase, entry.type, entry.module, entry.message) for entry in await commands.last(10)]
    assert rows == [
        (1, "START", "swap", "db", "nosync"),
        (2, "START", "cluster config", None, ""),
        (3, "EVENT", "state", "db", "PRIM Ready"),
        (2, "END", "cluster config", None, "0"),
        (1, "END", "swap", "db", "1 module db is not PRIM"),
    ]
    await commands.close()


async def test_changes_are_given_back_by_moves_with_their_causes(log: ModuleLog) -> None:
    cause = Cause(START, "Resource tcp.web set to down by tcp")
    known = [
        Change(START, 1, "PRIM", "Ready", "start called by root", (), True),
        Change(START, 2, "STOP", "NotReady", "stopstart called by t_web", (cause,), False),
        Change(START, 2, "SECOND", "Ready", "synchronised with the primary", (), True),
    ]
    assert await log.changes(1) == ()
    for change in known:
        log.write_change(change)
    assert await log.changes(1) == tuple(known[1:])
    assert await log.changes(9) == tuple(known)


async def test_of_changes_only_the_newest_are_kept(log: ModuleLog) -> None:
    for move in range(KEPT_CHANGES + 10):
        log.write_change(Change(START, move, "PRIM", "Ready", "", (), True))
    kept = await log.changes(KEPT_CHANGES * 2)
    assert (len(kept), kept[0].move) == (KEPT_CHANGES, 10)
