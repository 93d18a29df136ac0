"""A module that another one needs: when it counts as serving, and when its service began anew."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

import pytest

from safekit.checkers import ModuleStateChecker, Sighting
from safekit.config import ModuleCheck

CHECK = ModuleCheck(
    "db", "db_x", ip_address("127.0.0.1"), 9010, timedelta(seconds=10), timedelta(seconds=5), secure=False
)
PRIM = Sighting("n1", "PRIM", "Ready", 7)


class Watch:
    """A checker, what is to be seen, and what it said."""

    def __init__(self, *nodes: str) -> None:
        self.seen: list[Sighting] = []
        self.values: list[str] = []
        self.anew: list[str] = []
        self._checker = ModuleStateChecker(CHECK, lambda _: self.seen, nodes, self._report, self.anew.append)

    def _report(self, name: str, value: str, by: str) -> bool:
        assert (name, by) == ("module.db_x", "modulecheck")
        self.values.append(value)
        return True

    def see(self, *seen: Sighting) -> str:
        """The value after a look at this."""
        self.seen = list(seen)
        self._checker.see()
        return self.values[-1]


@pytest.mark.parametrize("state", ["PRIM", "ALONE", "UP"])
def test_a_module_that_serves_is_up(state: str) -> None:
    assert Watch("n1").see(Sighting("n1", state, "Ready", 1)) == "up"


@pytest.mark.parametrize(
    ("state", "substate"), [("PRIM", "Transient"), ("SECOND", "Ready"), ("WAIT", "NotReady"), ("STOP", "NotReady")]
)
def test_a_module_that_does_not_serve_is_down(state: str, substate: str) -> None:
    assert Watch("n1").see(Sighting("n1", state, substate, 1)) == "down"


def test_a_module_that_nobody_is_heard_to_have_is_down() -> None:
    assert Watch("n1").see() == "down"


def test_only_the_nodes_that_are_meant_count() -> None:
    watch = Watch("n2")
    assert watch.see(PRIM) == "down"
    assert watch.see(PRIM, Sighting("n2", "UP", "Ready", 1)) == "up"


def test_a_service_that_only_lost_its_secondary_did_not_begin_anew() -> None:
    watch = Watch("n1", "n2")
    watch.see(PRIM)
    watch.see(Sighting("n1", "ALONE", "Ready", 7))
    assert watch.anew == []


def test_a_restart_and_a_failover_are_services_that_began_anew() -> None:
    watch = Watch("n1", "n2")
    watch.see(PRIM)
    watch.see(Sighting("n1", "PRIM", "Ready", 8))
    assert watch.anew == ["module db began its service anew on n1"]
    watch.see()
    watch.see(Sighting("n2", "ALONE", "Ready", 3))
    assert watch.anew[1:] == ["module db began its service anew on n2"]


def test_a_farm_serves_as_long_as_one_node_keeps_its_service() -> None:
    watch = Watch("n1", "n2")
    watch.see(Sighting("n1", "UP", "Ready", 1), Sighting("n2", "UP", "Ready", 2))
    watch.see(Sighting("n1", "UP", "Ready", 9), Sighting("n2", "UP", "Ready", 2))
    assert watch.anew == []
