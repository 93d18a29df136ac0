"""The mirror that the schedules of this folder happen to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.durability.pair import CALM, FAST, Pair
from tests.nodes import Lab
from tests.system.membership import form_cluster


@pytest.fixture(scope="session")
def cluster(runtime: Lab) -> Lab:
    """The nodes, bare of modules, in one cluster with one key."""
    form_cluster(runtime)
    return runtime


@pytest.fixture(scope="module")
def pair(cluster: Lab) -> Iterator[Pair]:
    """Module `d` with heartbeats that bear a loaded machine."""
    made = Pair(cluster, CALM)
    made.install()
    yield made
    made.uninstall()


@pytest.fixture(scope="module")
def fast_pair(cluster: Lab) -> Iterator[Pair]:
    """Module `d` at the fast profile."""
    made = Pair(cluster, FAST)
    made.install()
    yield made
    made.uninstall()
