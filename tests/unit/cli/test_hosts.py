"""`safekit -H`: which servers are meant, and a block for each of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from safekit.cli.command import run
from safekit.cli.exit_codes import ExitCode, Failure
from safekit.cli.hosts import servers_of
from safekit.paths import Paths
from safekit.web.accounts import read_accounts
from safekit.web.certificate import ensure
from safekit.web.passwords import matches
from safekit.web.service import serving
from tests.unit.api.small_node import SmallNode

NODES = {"n1": "192.0.2.1", "n2": "2001:db8::2"}


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("*", ["https://192.0.2.1:9453", "https://[2001:db8::2]:9453"]),
        ("n2", ["https://[2001:db8::2]:9453"]),
        ("n2, n1", ["https://[2001:db8::2]:9453", "https://192.0.2.1:9453"]),
        ("[https:8443],n1,other.example", ["https://192.0.2.1:8443", "https://other.example:8443"]),
        ("[https:8443],*", ["https://192.0.2.1:8443", "https://[2001:db8::2]:8443"]),
        ("[https],n1", ["https://192.0.2.1:9453"]),
        ("[:8443],n1", ["https://192.0.2.1:8443"]),
        ("https://a.example,https://[2001:db8::9]:1", ["https://a.example:9453", "https://[2001:db8::9]:1"]),
    ],
)
def test_servers_are_named_in_the_forms_of_the_specification(text: str, urls: list[str]) -> None:
    assert [server.url for server in servers_of(text, NODES)] == urls


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no server"),
        ("n9", "'n9' is no node of this cluster (n1, n2)"),
        ("[http:9010],n1", "http: nodes are asked by https only"),
        ("http://n1:9010", "http: nodes are asked by https only"),
        ("[https:0],n1", "port 0"),
        ("[https:65536],n1", "port 65536"),
        ("https://n1:99999", "https://n1:99999"),
        ("https://n1/path", "expected https://host:port"),
        ("https://user@n1", "expected https://host:port"),
    ],
)
def test_what_is_no_server_is_named(text: str, said: str) -> None:
    with pytest.raises(Failure) as trouble:
        servers_of(text, NODES)
    assert trouble.value.code == ExitCode.USAGE and said in str(trouble.value)


class Running:
    """A node and its web service, in a loop of their own, so that the command can be called as a person calls it."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.port = 0
        self._up, self._loop = threading.Event(), asyncio.new_event_loop()
        self._down: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)
        self._thread.start()
        assert self._up.wait(60)

    async def _run(self) -> None:
        self._down = asyncio.Event()
        node = SmallNode(self.paths)
        ensure(self.paths, "n1", [], datetime(2026, 11, 23, tzinfo=UTC))
        async with node.running(), serving(self.paths, 0, "127.0.0.1") as self.port:
            await node.cluster_apply("<cluster/>", b"k" * 32, False, None)
            lan = replace(
                node.cluster.lans[0], nodes=tuple(replace(n, addr="127.0.0.1") for n in node.cluster.lans[0].nodes)
            )
            node.cluster = replace(node.cluster, lans=(lan,))
            await node.module_install("db", b"a package", None, check=False, replace=False)
            await node.module_config("db", check=False)
            self._up.set()
            await self._down.wait()

    def stop(self) -> None:
        assert self._down is not None
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join(60)
        self._loop.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    node = Running(Paths(tmp_path / "opt", tmp_path / "var", tmp_path / "run"))
    yield node
    node.stop()


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def safekit(running: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.delenv("SAFEMODULE", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        return run(arguments, running.paths), *capsys.readouterr()

    return call


def test_each_server_has_a_block_with_its_url(safekit: Command, running: Running) -> None:
    code, out, err = safekit("-H", f"[https:{running.port}],n1,n2", "module", "list")
    header = f"---------------- https://127.0.0.1:{running.port}"
    assert (code, out, err) == (0, f"{header} (n1)\ndb\n{header} (n2)\ndb\n", "")


def test_a_server_that_is_gone_says_so_and_the_others_are_asked(safekit: Command, running: Running) -> None:
    gone = "https://127.0.0.1:1"
    code, out, err = safekit("-H", f"{gone},https://127.0.0.1:{running.port}", "start", "-m", "db")
    assert code == ExitCode.UNREACHABLE
    assert f"safekit: {gone}: connection error: Connection refused" in err
    assert out.count("----------------") == 2
    code, out, _ = safekit("-H", f"https://127.0.0.1:{running.port}", "state", "-m", "db", "-lq")
    assert code == 2, out  # ALONE: the start was carried out


def test_an_error_of_the_node_is_the_one_that_the_local_command_has(safekit: Command, running: Running) -> None:
    local = safekit("start", "-m", "none")
    code, _, err = safekit("-H", f"https://127.0.0.1:{running.port}", "start", "-m", "none")
    assert (code, err) == (local[0], local[2])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["logview", "-m", "db"], "-H does not distribute logview"),
        (["webservercfg", "-list"], "-H does not distribute webservercfg"),
        (["-p"], "-H does not distribute -p"),
        (["-H", "n1", "state"], "-H does not distribute -H"),
        ([], "expected: safekit -H"),
    ],
)
def test_what_is_about_this_machine_is_not_distributed(safekit: Command, words: list[str], said: str) -> None:
    code, out, err = safekit("-H", "n1", *words)
    assert code == ExitCode.USAGE and said in err and out == ""


def test_what_is_not_possible_from_afar_is_refused_there(safekit: Command, running: Running) -> None:
    for words in (["cluster", "deconfig"], ["module", "uninstall", "-m", "db"], ["cluster", "genkey"]):
        code, _, err = safekit("-H", f"https://127.0.0.1:{running.port}", *words)
        assert code == ExitCode.REFUSED and "is not possible from another node" in err, (words, err)
    assert safekit("module", "list")[1] == "db\n"


def test_outside_of_a_cluster_nobody_can_be_asked(safekit: Command) -> None:
    safekit("cluster", "deconfig")
    code, _, err = safekit("-H", "*", "state")
    assert code == ExitCode.REFUSED and "-H needs a cluster" in err


def test_h_stands_first(safekit: Command) -> None:
    assert "-H comes first" in safekit("-p", "-H", "n1")[2]


def test_a_person_gets_a_password_keeps_the_role_and_is_removed(
    safekit: Command, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = running.paths.web
    assert safekit("webservercfg", "-passwd", "correct horse")[:2] == (0, "admin: admin\n")
    assert safekit("webservercfg", "-passwd", "correct horse")[:2] == (0, "admin: unchanged\n")
    assert "eve is new: -role says" in safekit("webservercfg", "-user", "eve", "-passwd", "correct horse")[2]
    assert (
        safekit("webservercfg", "-user", "eve", "-role", "monitor", "-passwd", "correct horse")[1] == "eve: monitor\n"
    )
    assert safekit("webservercfg", "-user", "eve", "-passwd", "other password")[1] == "eve: monitor\n"
    assert matches("other password", read_accounts(folder)["eve"].password)
    assert safekit("webservercfg", "-list")[1].split() == ["USER", "ROLE", "admin", "admin", "eve", "monitor"]
    assert "at least 8 characters" in safekit("webservercfg", "-passwd", "short")[2]
    assert "-user 'a/b'" in safekit("webservercfg", "-user", "a/b", "-passwd", "correct horse")[2]
    assert safekit("webservercfg", "-user", "eve", "-remove")[1] == "eve: removed\n"
    assert safekit("webservercfg", "-user", "eve", "-remove")[0] == ExitCode.UNKNOWN
    (folder / "users.json").write_text("{")
    code, _, err = safekit("webservercfg", "-passwd", "correct horse")
    assert code == ExitCode.REFUSED and "users.json" in err
