"""Connections that live on while their buckets move, any number of times: real ones, over the rules as the kernel has them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from safekit.vip.service import HashKey, Member
from tests.netns.conftest import WEB, Farm
from tests.netns.lab import VIP4, VIP6, client4, client6, connect, still_served_by
from tests.netns.test_hot_change import configured
from tests.netns.test_invisible import UNSEEN

pytestmark = pytest.mark.netns
ALL = ("n1", "n2", "n3")
EACH = 12


class Held:
    """Connections of every age, and who accepted each."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._served: dict[socket.socket, str] = {}
        self._next_port = 20000

    def some(self, owners: tuple[str, ...] = ()) -> None:
        """A few new clients, of IPv4 and of IPv6; `owners`: the nodes that share them, if the model is asked."""
        for number in range(EACH):
            vip, source = ((VIP4, client4), (VIP6, client6))[number % 2]
            self._next_port += 1
            connection = self._farm.lab.client.run(connect, source(number), vip, 80, self._next_port)
            name = connection.recv(10).decode().strip()
            if owners:
                assert name == self._farm.owner(owners, source(number), self._next_port, HashKey.ON_PORT)
            self._served[connection] = name

    def alive(self, when: str) -> None:
        """All are served by who accepted them."""
        for connection, name in self._served.items():
            assert still_served_by(connection) == name, when

    def end_those_of(self, name: str) -> None:
        """The clients of this node go, as those of a node that is drained do."""
        for connection in [one for one, accepted in self._served.items() if accepted == name]:
            connection.close()
            del self._served[connection]

    def broken(self, name: str) -> None:
        """All those of this node end with a reset, at once; the others do not notice."""
        for connection in [one for one, accepted in self._served.items() if accepted == name]:
            with pytest.raises(ConnectionError):
                still_served_by(connection)
            connection.close()
            del self._served[connection]

    def count(self, name: str) -> int:
        return list(self._served.values()).count(name)

    def close(self) -> None:
        for connection in self._served:
            connection.close()


def follow(farm: Farm, view: Mapping[str, Member], *order: str) -> None:
    """The members follow this view, in turn: until nobody waits for anybody."""
    for followed in ((), tuple(view)):
        for name in order or tuple(view):
            farm.node(name).run(farm.vips[name].update, view, followed)
    assert not any(farm.vips[name].waiting_for for name in view)


def closed(view: Mapping[str, Member], *names: str) -> dict[str, Member]:
    return {name: replace(member, open=name not in names) for name, member in view.items()}


@pytest.fixture(params=["directed", "invisible"])
def serving(request: pytest.FixtureRequest, farm: Farm, tmp_path: Path) -> Farm:
    """A farm in either technique; nobody is UP yet."""
    return Farm(farm.lab, tmp_path, addresses=UNSEEN) if request.param == "invisible" else farm


def test_connections_outlive_any_number_of_moves(serving: Farm, tmp_path: Path) -> None:
    farm = serving
    held = Held(farm)
    farm.follow("n1")
    held.some(("n1",))
    farm.follow("n1", "n2")
    held.some(("n1", "n2"))
    farm.follow(*ALL)
    held.some(ALL)
    held.alive("after both joined")
    view = farm.view(*ALL)
    for away in (("n2", "n3"), ("n1",), ("n1", "n2"), ("n3",), ()):
        follow(farm, closed(view, *away))
        held.some(tuple(name for name in ALL if name not in away))
        held.alive(f"with {away} closed")
    for powers in ({"n1": 3, "n3": 1}, {"n2": 1}, {}):
        configured(farm, tmp_path, replace(WEB, powers=powers))
        follow(farm, view, "n3", "n1", "n2")
        held.some()
        held.alive(f"with weights {powers}")
    held.close()


def test_a_rolling_restart_breaks_nothing_of_the_others(farm: Farm) -> None:
    """Each node in turn is drained, stops, comes back without a memory, and the next one goes."""
    farm.follow(*ALL)
    held = Held(farm)
    held.some()
    for name in (*ALL, "n1"):
        view = farm.view(*ALL)
        follow(farm, closed(view, name))
        held.some()
        held.alive(f"{name} is drained")
        held.end_those_of(name)
        follow(farm, {other: member for other, member in view.items() if other != name})
        farm.down(name)
        held.some()
        held.alive(f"without {name}")
        farm.vips[name] = farm.daemon(name)
        farm.node(name).run(farm.vips[name].up, view, ())
        follow(farm, view)
        held.alive(f"{name} is back")
    held.close()


def test_who_dies_takes_its_own_connections_and_no_other(farm: Farm) -> None:
    """Also when buckets had moved twice before; and its clients are told at once."""
    farm.follow("n1", "n2")
    farm.follow(*ALL)
    held = Held(farm)
    view = farm.view(*ALL)
    for away in (("n2", "n3"), ("n1", "n3"), ("n1", "n2"), ()):
        follow(farm, closed(view, *away))
        held.some()
    dead = farm.elected(ALL, VIP4)
    alive = tuple(name for name in ALL if name != dead)
    assert held.count(dead) >= EACH
    farm.node(dead).die()
    farm.follow(*alive)
    held.broken(dead)
    held.alive(f"without {dead}")
    held.close()


def test_a_daemon_that_lost_its_memory_breaks_nothing(farm: Farm, tmp_path: Path) -> None:
    farm.follow(*ALL)
    held = Held(farm)
    view = farm.view(*ALL)
    for away in (("n2",), ("n1",), ()):
        follow(farm, closed(view, *away))
        held.some()
    for name in ALL:
        (tmp_path / name / "farm.json").unlink()
        farm.vips[name] = farm.daemon(name)
        farm.node(name).run(farm.vips[name].up, view, ALL)
        held.alive(f"{name} lost its memory")
    for only in ("n1", "n3"):
        follow(farm, closed(view, *(name for name in ALL if name != only)))
        held.alive(f"{only} alone takes new ones")
    held.close()
