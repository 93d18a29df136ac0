"""The witnesses of a mirror: who is asked when, and what follows from their silence (spec §4.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest

from safekit.automaton.data import BLANK, Holder
from safekit.automaton.mirror import SPLIT_BRAIN_RULE, MirrorState, PeerView
from safekit.automaton.vocabulary import Role
from safekit.config import SplitbrainCheck
from safekit.module.mirror import MirrorModule
from safekit.module.split_brain import SplitBrain

PRIM = MirrorState("n1", "n2", "a", True, role=Role.PRIM, peer=PeerView(True, role=Role.SECOND))


class Owner:
    """What a split-brain checker asks of its module."""

    peer_node = "n2"

    def __init__(self) -> None:
        self.state = PRIM
        self.values: dict[str, str] = {}
        self.held: set[str] = set()
        self.said: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.moved = asyncio.Condition()

    def set_resource(self, name: str, value: str, _by: str) -> bool:
        changed = self.values.get(name) != value
        self.values[name] = value
        return changed

    def hold(self, rule: str, on: bool) -> None:
        (self.held.add if on else self.held.discard)(rule)

    def witness(self, _origin: str, _level: str, message: str) -> None:
        self.said.append(message)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.tasks[name] = asyncio.ensure_future(work)

    def runs(self, name: str) -> bool:
        return name in self.tasks

    def forget_task(self, name: str) -> None:
        self.tasks.pop(name, None)

    def end(self, name: str) -> None:
        if task := self.tasks.pop(name, None):
            task.cancel()

    async def wait_until(self, reached: Callable[[], bool], timeout: float) -> bool:
        async with self.moved:
            return await asyncio.wait_for(self.moved.wait_for(reached), timeout)

    async def enter(self, role: Role) -> None:
        """The module is in another state."""
        self.state = replace(self.state, role=role)
        async with self.moved:
            self.moved.notify_all()


def split_brain(owner: Owner, *witnesses: str) -> SplitBrain:
    return SplitBrain(cast("MirrorModule", owner), SplitbrainCheck("witness", "pre", "ping", witnesses))


async def test_a_node_that_reaches_a_witness_takes_the_silent_peer_for_lost() -> None:
    owner, lost = Owner(), asyncio.Event()
    checker = split_brain(owner, "fe80::1%none0", "127.0.0.1")
    checker.began()
    assert owner.values == {"splitbrain.witness": "unknown", "splitbrain.uptodate": "up"}
    checker.ask(lost.set)
    await asyncio.wait_for(lost.wait(), 20)
    assert owner.values == {"splitbrain.witness": "up", "splitbrain.uptodate": "up"}
    assert not owner.held and not owner.tasks


async def test_a_node_that_is_cut_off_waits_and_hears_of_the_loss_only_when_its_application_is_stopped() -> None:
    owner, lost = Owner(), asyncio.Event()
    checker = split_brain(owner, "fe80::1%none0")
    checker.ask(lost.set)
    while not owner.held:
        await asyncio.sleep(0.01)
    assert owner.held == {SPLIT_BRAIN_RULE} and not lost.is_set()
    assert owner.values == {"splitbrain.witness": "down", "splitbrain.uptodate": "down"}
    assert owner.said == ["no heartbeat from n2, and no witness answers (fe80::1%none0)"]
    await owner.enter(Role.WAIT)
    await asyncio.wait_for(lost.wait(), 20)
    checker.heard()
    assert not owner.held and owner.values["splitbrain.uptodate"] == "up"


async def test_heartbeats_that_come_again_end_the_question() -> None:
    owner, lost = Owner(), asyncio.Event()
    checker = split_brain(owner, "fe80::1%none0")
    checker.ask(lost.set)
    checker.heard()
    assert not owner.tasks and not owner.held and not lost.is_set()


async def test_a_restart_of_the_daemon_forgets_no_hold() -> None:
    owner = Owner()
    split_brain(owner, "127.0.0.1").began((SPLIT_BRAIN_RULE,))
    assert owner.held == {SPLIT_BRAIN_RULE} and owner.values["splitbrain.uptodate"] == "down"


@pytest.mark.parametrize(
    ("role", "holder", "peer", "asks"),
    [
        (Role.PRIM, Holder.BOTH, Role.SECOND, True),
        (Role.SECOND, Holder.BOTH, Role.PRIM, True),
        (Role.ALONE, Holder.BOTH, Role.SECOND, True),
        (Role.ALONE, Holder.ME, Role.SECOND, False),
        (Role.WAIT, Holder.BOTH, Role.ALONE, False),
        (Role.PRIM, Holder.BOTH, Role.STOP, False),
        (Role.SECOND, Holder.BOTH, Role.WAIT, False),
    ],
)
def test_only_who_would_go_alone_by_the_silence_asks(role: Role, holder: Holder, peer: Role, asks: bool) -> None:
    state = replace(PRIM, role=role, record=replace(BLANK, holder=holder), peer=PeerView(True, role=peer))
    assert split_brain(Owner(), "127.0.0.1").asks(state) is asks
