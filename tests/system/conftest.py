"""The nodes as a cluster, the modules that tests share, and the audit after each test."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.nodes import CommandFailed, Lab, Node
from tests.system.audit import leaks
from tests.system.farm import Farm
from tests.system.membership import form_cluster
from tests.system.mirror import Mirror

VIRTUAL = range(100, 120)
"""The last bytes of the addresses that the tests use as virtual ones."""


@pytest.fixture(scope="session")
def cluster(runtime: Lab) -> Lab:
    """The nodes, bare of modules, in one cluster with one key."""
    form_cluster(runtime)
    return runtime


@pytest.fixture(scope="session")
def _mirror(cluster: Lab) -> Iterator[Mirror]:
    mirror = Mirror(cluster)
    mirror.install()
    mirror.first_start(mirror.nodes[0])
    yield mirror
    mirror.uninstall()


@pytest.fixture
def mirror(_mirror: Mirror) -> Iterator[Mirror]:
    """Module `m`, PRIM on one node and SECOND on the other, both Ready; nobody is cut off afterwards."""
    _mirror.make_ready()
    yield _mirror
    _mirror.lab.heal()


@pytest.fixture(scope="session")
def _farm(cluster: Lab) -> Iterator[Farm]:
    farm = Farm(cluster)
    farm.install()
    yield farm
    farm.uninstall()


@pytest.fixture
def farm(_farm: Farm) -> Iterator[Farm]:
    """Module `w`, UP on n1, n2 and n3."""
    _farm.make_ready()
    yield _farm
    _farm.lab.heal()


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest, lab: Lab) -> Iterator[None]:
    """After each test, every node that is on holds what the states of its modules say, and nothing else of ours."""
    yield
    if "cluster" in request.fixturenames:
        prefix = lab.client.address.rsplit(".", 1)[0]
        virtual = frozenset(f"{prefix}.{last}" for last in VIRTUAL)
        with ThreadPoolExecutor(len(lab.nodes)) as pool:
            found = [leak for node in pool.map(lambda node: _leaks(node, virtual), lab.nodes) for leak in node]
        assert not found, found


def _leaks(node: Node, virtual: frozenset[str]) -> list[str]:
    try:
        return leaks(node, virtual)
    except CommandFailed:
        if node.is_on():
            raise
        return []
