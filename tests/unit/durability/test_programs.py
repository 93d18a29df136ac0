"""The application and its clients as they run on nodes, here on one machine: a plain directory keeps what it promised."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.checks import Tree, differences, examine
from tests.durability.journal import read_journal
from tests.durability.on_nodes.look import look
from tests.durability.trial import below

PROGRAMS = Path(__file__).resolve().parents[2] / "durability" / "on_nodes"


@pytest.fixture
def application(tmp_path: Path) -> Iterator[int]:
    """The port of an application over `tmp_path`/data, whose record says that both nodes hold the data."""
    (tmp_path / "data").mkdir()
    (tmp_path / "record").write_text(json.dumps({"record": {"holder": {"enum": "Holder", "value": "both"}}}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(tmp_path / "notice"))
        ready.settimeout(20)
        words = [
            sys.executable,
            str(PROGRAMS / "application.py"),
            str(port),
            str(tmp_path / "data"),
            str(tmp_path / "record"),
        ]
        process = subprocess.Popen(words, env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notice")})
        try:
            assert ready.recv(100) == b"READY=1"
            yield port
        finally:
            process.kill()
            process.wait()


def test_a_run_without_any_fault_is_right_and_every_damage_to_it_is_seen(application: int, tmp_path: Path) -> None:
    folder = tmp_path / "clients"
    folder.mkdir()
    words = [sys.executable, str(PROGRAMS / "clients.py"), "127.0.0.1", str(application), str(folder), "t1", "a seed"]
    clients = subprocess.Popen(words)
    journal, end = folder / "journal", time.monotonic() + 60
    while time.monotonic() < end and (not journal.exists() or journal.read_text().count("\n") < 600):
        time.sleep(0.1)
    (folder / "stop").touch()
    assert clients.wait(30) == 0

    operations = read_journal(journal.read_text().splitlines())
    seen = look(str(tmp_path / "data"), ["t1/set", "t1/log", "t1/register"])
    whole = Tree(seen["entries"], seen["content"])
    tree = below(whole, "t1")
    findings = examine(operations, (), tree)
    assert not findings.sentences
    assert findings.acknowledged.keys() == {"set", "log", "register", "names", "shapes"}
    assert all(operation.mirrored for operation in operations if operation.answered is not None)
    assert not differences(whole, whole)

    for workload in ("set/1.0", "log/3.0", "register/put"):
        damaged = dict(tree.content) | {workload: tree.content[workload][:-30]}
        assert examine(operations, (), Tree(tree.entries, damaged)).lost, workload
    named = next(name for name in tree.entries if name.startswith("names/8.0/"))
    fewer = {name: facts for name, facts in tree.entries.items() if name != named}
    assert examine(operations, (), Tree(fewer, tree.content)).lost
