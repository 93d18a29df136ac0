"""A register is on the disk before anybody is told of it, and what cannot be read is never taken for new."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest

from safekit.automaton.register import Register
from safekit.witness import store as stores
from safekit.witness.store import RegisterStore, RegisterUnavailable
from tests.unit.witness.disk import Disk

FIRST = Register(1, frozenset("AB"), "A", "aa", 1)
SECOND = Register(2, frozenset("B"), "B", "bb", 7)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    (tmp_path / "witness").mkdir()
    return Disk(tmp_path / "witness", monkeypatch)


def opened(tmp_path: Path) -> RegisterStore:
    return RegisterStore(tmp_path / "witness" / "registers")


def test_what_was_written_is_there_after_a_loss_of_power(tmp_path: Path, disk: Disk) -> None:
    store = opened(tmp_path)
    for number, register in enumerate((FIRST, SECOND)):
        store.write("shop", "db", register)
        left = disk.after_power_loss(tmp_path / f"left{number}")
        assert RegisterStore(left / "registers").read("shop", "db") == register


def test_the_power_may_go_at_any_moment_and_leaves_one_whole_register(tmp_path: Path, disk: Disk) -> None:
    store, places = opened(tmp_path), count()
    store.write("shop", "db", FIRST)
    found: list[Register | None] = []

    def look() -> None:
        left = disk.after_power_loss(tmp_path / f"left{next(places)}")
        disk.after, after = lambda: None, disk.after
        found.append(RegisterStore(left / "registers").read("shop", "db"))
        disk.after = after

    disk.after = look
    store.write("shop", "db", SECOND)
    assert found[0] == FIRST
    assert found[-1] == SECOND


def test_a_register_that_could_not_be_made_durable_is_written_again_before_it_is_told(
    tmp_path: Path, disk: Disk
) -> None:
    store = opened(tmp_path)
    store.write("shop", "db", FIRST)
    disk.broken = True
    with pytest.raises(RegisterUnavailable, match=r"cannot be written: .*db\.json: Input/output error"):
        store.write("shop", "db", SECOND)
    assert store.known("shop", "db") is None
    with pytest.raises(RegisterUnavailable):
        store.read("shop", "db")
    disk.broken = False
    told = store.read("shop", "db")
    assert told in (FIRST, SECOND)
    assert RegisterStore(disk.after_power_loss(tmp_path / "left") / "registers").read("shop", "db") == told


def test_a_register_that_another_process_replaced_is_synced_before_it_is_told(tmp_path: Path, disk: Disk) -> None:
    store = opened(tmp_path)
    store.write("shop", "db", FIRST)
    path = tmp_path / "witness" / "registers" / "shop" / "db.json"
    unsynced = path.with_name("db.json.new")
    unsynced.write_text(json.dumps(json.loads(path.read_text()) | {"epoch": 5}))
    unsynced.replace(path)
    told = opened(tmp_path).read("shop", "db")
    assert told is not None and told.epoch == 5
    assert RegisterStore(disk.after_power_loss(tmp_path / "left") / "registers").read("shop", "db") == told


def test_a_register_that_was_never_made_is_none(tmp_path: Path) -> None:
    assert opened(tmp_path).read("shop", "db") is None
    assert opened(tmp_path).registers("shop") == ()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"format": 2, "epoch": 1, "holders": ["A"], "node": "A", "boot": "aa", "number": 1}',
        '{"format": 1, "epoch": 0, "holders": ["A"], "node": "A", "boot": "aa", "number": 1}',
        '{"format": 1, "epoch": "1", "holders": ["A"], "node": "A", "boot": "aa", "number": 1}',
        '{"format": 1, "epoch": 1, "holders": "A", "node": "A", "boot": "aa", "number": 1}',
        '{"format": 1, "epoch": 1, "holders": [1], "node": "A", "boot": "aa", "number": 1}',
    ],
)
def test_a_file_that_is_no_register_is_an_error_and_stays(tmp_path: Path, content: str) -> None:
    path = tmp_path / "witness" / "registers" / "shop" / "db.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(RegisterUnavailable, match=r"the register cannot be read: .*shop/db\.json"):
        opened(tmp_path).read("shop", "db")
    assert path.read_text() == content


def test_no_cluster_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MOST_MODULES", 2)
    store = opened(tmp_path)
    for module in ("one", "two", "one"):
        store.write("shop", module, FIRST)
    with pytest.raises(RegisterUnavailable, match="2 registers, no cluster may have more"):
        store.write("shop", "three", FIRST)
    store.write("other", "one", FIRST)
    assert store.registers("shop") == ("one", "two")


def test_a_cluster_that_is_forgotten_leaves_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write("shop", "db", FIRST)
    store.write("other", "db", SECOND)
    store.forget("shop")
    assert store.read("shop", "db") is None
    assert store.read("other", "db") == SECOND
    assert [path.name for path in (tmp_path / "witness" / "registers").iterdir()] == ["other"]
