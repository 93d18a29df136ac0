"""A node in its two roles: a witness for clusters, and a node that asks the witness of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from safekit.api.face import FaceError
from safekit.automaton.register import Ground, Verdict
from safekit.config import load_cluster
from safekit.node.cluster import AppliedCluster
from safekit.node.witnessing import Witnessing
from safekit.paths import Paths
from safekit.witness.client import Seen

KEY = b"k" * 32
NODES = ("n1", "n2")
BOTH = frozenset(NODES)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[[str], Witnessing]]:
    """Machines by name; the same name again is the daemon after its restart."""
    made: list[Witnessing] = []

    def machine(name: str) -> Witnessing:
        paths = Paths(tmp_path / name / "safe", tmp_path / name / "var", tmp_path / name / "run")
        for folder in (paths.var, paths.run):
            folder.mkdir(parents=True, exist_ok=True)
        made.append(Witnessing(paths, lambda _line: None))
        return made[-1]

    yield machine
    for one in made:
        await one.close()


@pytest.fixture
def port() -> int:
    """A port that nobody had a moment ago, below those that the kernel gives to whoever asks for any."""
    for number in range(20_000, 30_000):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                continue
            return number
    raise AssertionError("no free port")


def applied(port: int) -> AppliedCluster:
    xml = (
        '<cluster><lans><lan name="default"><node name="n1" addr="192.0.2.1"/><node name="n2" addr="192.0.2.2"/></lan></lans>'
        f'<witness name="w" addr="127.0.0.1" port="{port}" cluster="shop"/></cluster>'
    )
    return AppliedCluster(load_cluster(xml), xml, "n1", datetime.now(UTC), False, KEY)


class Heard:
    def __init__(self) -> None:
        self.verdicts: asyncio.Queue[Verdict] = asyncio.Queue()

    def verdict(self, verdict: Verdict, sent_at: float) -> None:
        self.verdicts.put_nowait(verdict)

    def seen(self, seen: Seen) -> None: ...

    def unavailable(self, why: str, since: float) -> None: ...


async def test_a_witness_serves_remembers_over_a_restart_and_forgets(
    opened: Callable[[str], Witnessing], port: int
) -> None:
    witness, node = opened("witness"), opened("node")
    await witness.open()
    assert (await witness.info()).serving is False
    assert await witness.add("shop", KEY, NODES, port, "127.0.0.1", check=True, replace_key=False)
    assert (await witness.info()).serving is False
    assert await witness.add("shop", KEY, NODES, port, "127.0.0.1", check=False, replace_key=False)
    assert not await witness.add("shop", KEY, NODES, None, None, check=False, replace_key=False)

    await node.join(applied(port))
    heard = Heard()
    assert node.client is not None
    node.client.watch("db", heard)
    node.client.claim("db", 0, frozenset(), BOTH, Ground.TOGETHER)
    async with asyncio.timeout(60):
        assert (await heard.verdicts.get()).granted

    await witness.close()
    again = opened("witness")
    await again.open()
    node.client.claim("db", 1, BOTH, frozenset({"n1"}))
    async with asyncio.timeout(60):
        assert (await heard.verdicts.get()).epoch == 2
    info = await again.info()
    assert (info.clusters[0].registers[0].epoch, info.clusters[0].registers[0].holders) == (2, ("n1",))

    assert await again.remove("shop")
    assert not await again.remove("shop")
    assert (await again.info()).serving is False
    assert [path for path in (again._paths.witness).rglob("*") if path.is_file()] == []


async def test_two_clusters_of_one_name_do_not_share_a_witness_by_mistake(
    opened: Callable[[str], Witnessing], port: int
) -> None:
    witness = opened("witness")
    await witness.add("shop", KEY, NODES, port, "127.0.0.1", check=False, replace_key=False)
    with pytest.raises(FaceError) as refusal:
        await witness.add("shop", b"x" * 32, ("n3", "n4"), None, None, check=False, replace_key=False)
    assert refusal.value.code == "witness.other_key"
    assert (await witness.info()).clusters[0].nodes == NODES
    assert await witness.add("shop", b"x" * 32, NODES, None, None, check=False, replace_key=True)


async def test_a_port_that_is_taken_is_said_and_nothing_changes(opened: Callable[[str], Witnessing], port: int) -> None:
    witness = opened("witness")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        with pytest.raises(FaceError) as refusal:
            await witness.add("shop", KEY, NODES, port, "127.0.0.1", check=False, replace_key=False)
    assert refusal.value.code == "witness.port"
    assert f"UDP 127.0.0.1 port {port}: Address already in use" in refusal.value.message
    assert (await witness.info()).serving is False
    assert await witness.add("shop", KEY, NODES, port, "127.0.0.1", check=False, replace_key=False)


@pytest.mark.parametrize(
    ("cluster", "key", "nodes", "message"),
    [
        ("a/b", KEY, NODES, "the name of the cluster is 'a/b', expected 1 to 63 letters"),
        ("shop", b"short", NODES, "the key of cluster shop has 5 bytes, expected 32"),
        ("shop", KEY, ("n1",), "cluster shop has 1 nodes, expected 2 to 64"),
        ("shop", KEY, ("n1", "n 2"), "a node is 'n 2', expected"),
    ],
)
async def test_what_cannot_be_served_is_refused(
    opened: Callable[[str], Witnessing], cluster: str, key: bytes, nodes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(FaceError) as refusal:
        await opened("witness").add(cluster, key, nodes, None, None, check=False, replace_key=False)
    assert message in refusal.value.message


async def test_what_is_served_and_cannot_be_read_is_not_made_anew(opened: Callable[[str], Witnessing]) -> None:
    witness = opened("witness")
    path = witness._paths.witness / "witness.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    await witness.open()
    assert f"cannot serve: {path}" in (await witness.info()).trouble
    with pytest.raises(FaceError) as refusal:
        await witness.add("shop", KEY, NODES, None, None, check=False, replace_key=False)
    assert refusal.value.code == "witness.unreadable"
    assert path.read_text() == "{"
