"""The checkers of a module as its automaton opens and closes them: which run when, what they ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safekit.automaton.failover import Verdict
from safekit.automaton.vocabulary import Action, Role
from safekit.checkers import Sighting
from safekit.module.checking import Checking, Place
from safekit.store.resources import Resources
from tests.unit.config.samples import light, load, mirror


class Owner:
    """A module: keeps what its checkers ask, and lets a test wait for it."""

    def __init__(self, resources: Resources, folder: Path) -> None:
        self.resources = resources
        self.folder = folder
        self.role = Role.WAIT
        self.asked: list[tuple[Action, str, tuple[str, ...]]] = []
        self.said: list[str] = []
        self.verdict = Verdict()
        self.sightings: list[Sighting] = []
        self.remote: dict[str, str] = {}
        self.checking: Checking
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._moved = asyncio.Condition()

    def build(self, text: str) -> Checking:
        """The checkers of this configuration."""
        place = Place("shop", self.folder, {}, self._look, lambda _: ("n1",), lambda: self.remote)
        self.checking = Checking(
            load(text).service, place, None, self.resources, self, lambda: self.role, lambda _: True
        )
        return self.checking

    def _look(self, _name: str) -> Iterable[Sighting]:
        return self.sightings

    def set_resource(self, name: str, value: str, by: str) -> bool:
        changed = self.resources.set(name, value)
        if changed:
            self.checking.changed()
            self._tell()
        return changed

    def ask(self, action: Action, identity: str, sentence: str, services: tuple[str, ...] = ()) -> None:
        self.asked.append((action, identity, services))
        self.said.append(sentence)
        self._tell()

    def judged(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self._tell()

    def say(self, _level: str, message: str) -> None:
        self.said.append(message)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.end(name)
        self._tasks[name] = asyncio.ensure_future(work)

    def end(self, name: str) -> None:
        if name in self._tasks:
            self._tasks.pop(name).cancel()

    def value(self, name: str) -> str:
        found = self.resources.get(name)
        return found.value if found else ""

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for it."""
        async with self._moved:
            await asyncio.wait_for(self._moved.wait_for(reached), 60)

    def _tell(self) -> None:
        self.told = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def close(self) -> None:
        """End every task."""
        for name in list(self._tasks):
            self.end(name)


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[Owner]:
    resources = Resources("shop", tmp_path / "resource.db", journal=lambda _level, _text: None)
    await resources.open()
    owner = Owner(resources, tmp_path)
    yield owner
    await owner.close()
    await resources.close()


def errd(*procs: str) -> str:
    return f'<user/><errd polltimer="1s">{"".join(procs)}</errd>'


ABSENT = '<proc name="no-such" argregex="no-such-process-runs" class="{}" action="{}"/>'


async def test_an_interface_and_an_address_named_by_hand_are_tested(owner: Owner) -> None:
    checking = owner.build(
        light(
            '<check><intf ident="lo"><to local_addr="127.0.0.1"/></intf><intf ident="gone"><to local_addr="192.0.2.9"/></intf>'
            '<ip ident="own" when="both"><to addr="127.0.0.1" interval="1s"/></ip>'
            '<ip ident="other" when="both"><to addr="192.0.2.9"/></ip></check>'
        )
    )
    checking.start("pre")
    await owner.until(lambda: (owner.value("intf.lo"), owner.value("intf.gone")) == ("up", "down"))
    await owner.until(lambda: owner.verdict.held == ("interface_failure",))
    checking.start("both")
    await owner.until(lambda: (owner.value("ip.own"), owner.value("ip.other")) == ("up", "down"))
    checking.stop("both")
    assert owner.value("ip.own") == "init"


async def test_a_module_waits_for_the_one_that_it_needs(owner: Owner) -> None:
    checking = owner.build(light('<check><module name="db"><to interval="1s"/></module></check>'))
    checking.start("pre")
    await owner.until(lambda: owner.verdict.held == ("module_failure",))
    owner.sightings = [Sighting("n1", "ALONE", "Ready", 1)]
    await owner.until(lambda: owner.verdict == replace(owner.verdict, held=(), pending=()))
    owner.role = Role.UP
    owner.sightings = [Sighting("n1", "ALONE", "Ready", 2)]
    await owner.until(lambda: owner.asked == [(Action.STOPSTART, "modulecheck", ())])
    assert owner.said == [
        "Action stopstart called by modulecheck: module db began its service anew on n1",
    ]


async def test_what_is_needed_may_begin_anew_while_nothing_runs_here(owner: Owner) -> None:
    checking = owner.build(light('<check><module name="db"><to interval="1s"/></module></check>'))
    owner.sightings = [Sighting("n1", "ALONE", "Ready", 1)]
    checking.start("pre")
    await owner.until(lambda: owner.value("module.db_127.0.0.1") == "up")
    owner.sightings = []
    await owner.until(lambda: owner.value("module.db_127.0.0.1") == "down")
    owner.sightings = [Sighting("n1", "ALONE", "Ready", 2)]
    await owner.until(lambda: owner.value("module.db_127.0.0.1") == "up")
    assert owner.asked == []


async def test_a_class_of_ones_own_is_watched_from_its_enabling_until_the_module_stops(owner: Owner) -> None:
    checking = owner.build(light(errd(ABSENT.format("mine", "noaction"))))
    checking.start("pre")
    checking.start("both")
    assert not checking.enabled("mine") and owner.value("proc.no-such") == ""
    assert checking.enable("mine", True) and not checking.enable("mine", True)
    await owner.until(lambda: owner.value("proc.no-such") == "down")
    assert checking.classes == {"mine": True}
    assert checking.enable("mine", False)
    assert owner.value("proc.no-such") == "unknown"
    checking.enable("mine", True)
    checking.stop("both")
    checking.stop("pre")
    assert checking.classes == {} and not checking.enabled("mine")


async def test_a_class_that_follows_the_role_can_be_disabled_too(owner: Owner) -> None:
    checking = owner.build(light(errd(ABSENT.format("both", "stopstart"))))
    checking.start("pre")
    checking.enable("both", False)
    checking.start("both")
    assert owner.value("proc.no-such") != "init"
    checking.enable("both", True)
    await owner.until(lambda: owner.asked == [(Action.STOPSTART, "errd", ())])


async def test_an_enabled_class_outlives_a_restart_of_the_daemon(owner: Owner) -> None:
    checking = owner.build(light(errd(ABSENT.format("mine", "noaction"))))
    checking.restore({"mine": True})
    checking.start("pre")
    await owner.until(lambda: owner.value("proc.no-such") == "down")


async def test_the_class_sec_is_watched_alone_and_on_a_secondary_but_not_beside_one(owner: Owner) -> None:
    checking = owner.build(mirror(errd(ABSENT.format("sec", "noaction"))))
    checking.start("pre")
    owner.role = Role.ALONE
    checking.start("prim")
    await owner.until(lambda: owner.value("proc.no-such") == "down")
    owner.role = Role.PRIM
    await owner.until(lambda: owner.value("proc.no-such") == "unknown")
    checking.stop("prim")
    owner.role = Role.SECOND
    checking.start("second")
    await owner.until(lambda: owner.value("proc.no-such") == "down")


async def test_a_restart_can_be_limited_to_some_services(owner: Owner) -> None:
    checking = owner.build(
        light(
            errd(
                '<proc name="no-such-unit.service" service="yes" class="both" action="restart" restart_services="a, b"/>'
            )
        )
    )
    checking.start("pre")
    checking.start("both")
    await owner.until(lambda: owner.asked == [(Action.RESTART, "errd", ("a", "b"))])
    assert "Action restart of a, b called by errd: Service no-such-unit.service not running" in owner.said


async def test_rules_know_resources_of_the_other_node_and_tell_it_those_that_its_rules_ask_for(owner: Owner) -> None:
    checking = owner.build(
        mirror(
            '<failover period="1s" handle_time="1s"><![CDATA['
            "theirs: if (custom.disk == down && remote.custom.disk == up) then swap();"
            "any: if (remote.ping.? == down) then restart();]]></failover>"
        )
    )
    for name, value in (("custom.disk", "down"), ("custom.other", "up"), ("ping.router", "up"), ("tcp.web", "up")):
        owner.resources.set(name, value)
    assert checking.for_the_other_node() == {"custom.disk": "down", "ping.router": "up"}
    checking.start("pre")
    owner.role = Role.PRIM
    owner.resources.set("custom.disk", "down")
    owner.remote = {"remote.custom.disk": "up"}
    checking.changed()
    await owner.until(lambda: owner.asked == [(Action.SWAP, "theirs", ())])
    owner.remote = {}
    checking.changed()


async def test_without_rules_about_the_other_node_nothing_is_told(owner: Owner) -> None:
    checking = owner.build(mirror(CUSTOM_RULE))
    owner.resources.set("custom.disk", "down")
    assert checking.for_the_other_node() == {}


CUSTOM_RULE = "<failover><![CDATA[mine: if (custom.disk == down) then swap();]]></failover>"
