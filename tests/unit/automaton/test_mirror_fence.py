"""Policy `fence`: which claims need the proof that the other node is off, and what a secondary does that cannot have it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safekit.automaton import data
from safekit.automaton.data import BLANK, Holder
from safekit.automaton.mirror import (
    Answered,
    DataPhase,
    Event,
    MirrorState,
    PeerView,
    Policy,
    Recorded,
    Silent,
    record_for,
    step,
)
from safekit.automaton.mirror.claims import me
from safekit.automaton.mirror.fencing import Ruling, next_epoch, ruling
from safekit.automaton.register import Ground
from safekit.automaton.vocabulary import (
    Action,
    Ask,
    Command,
    Effect,
    Perform,
    Readiness,
    Record,
    Role,
    StepDone,
    Wish,
)

R, T = Readiness.READY, Readiness.TRANSIENT
ME = replace(data.alone(BLANK, "n1", "a", 0, Role.PRIM), granted=4)
BOTH = data.both(ME, Role.PRIM)
PRIMARY = PeerView(True, 5, Role.PRIM, R, Wish.AUTO, BOTH)
SECONDARY = PeerView(True, 5, Role.SECOND, R, Wish.AUTO, replace(BOTH, role=Role.SECOND))
SECOND = MirrorState(
    "n2",
    "n1",
    "b",
    True,
    Role.SECOND,
    R,
    wish=Wish.AUTO,
    record=replace(BOTH, role=Role.SECOND),
    policy=Policy.FENCE,
    peer=PRIMARY,
    data=DataPhase.INSTEP,
)
PRIM = replace(SECOND, node="n1", peer_node="n2", role=Role.PRIM, record=BOTH, peer=SECONDARY, data=DataPhase.LOST)
ALONE = Ask(1, 4, ("n1", "n2"), ("n1",))
GONE = replace(SECONDARY, alive=False)
JOINING = replace(SECONDARY, readiness=T, record=replace(BOTH, holder=Holder.PEER))


def carried_out(state: MirrorState, *events: Event) -> tuple[MirrorState, list[Effect]]:
    """The state after these events and after every step that they led to, and all effects."""
    done: list[Effect] = []
    for event in events:
        state, effects = step(state, event)
        waiting = list(effects)
        while waiting:
            effect = waiting.pop(0)
            done.append(effect)
            match effect:
                case Perform(step=Record(kind), serial=serial):
                    state, more = step(state, Recorded(serial, record_for(state, kind)))
                case Perform(serial=serial):
                    state, more = step(state, StepDone(serial))
                case _:
                    more = ()
            waiting.extend(more)
    return state, done


@pytest.mark.parametrize(
    ("state", "asked", "expected"),
    [
        (replace(PRIM, peer=GONE), ALONE, Ruling.PROVE),
        (PRIM, ALONE, Ruling.HEARD),
        (replace(PRIM, peer=replace(SECONDARY, role=Role.WAIT)), ALONE, Ruling.GRANTED),
        (replace(PRIM, peer=replace(SECONDARY, role=Role.WAIT, record=ME)), ALONE, Ruling.HEARD),
        (replace(PRIM, peer=JOINING), ALONE, Ruling.GRANTED),
        (replace(PRIM, peer=JOINING, asks=1), ALONE, Ruling.HEARD),
        (replace(PRIM, record=ME, peer=GONE), ALONE, Ruling.GRANTED),
        (PRIM, replace(ALONE, wanted=("n1", "n2"), ground=Ground.TOGETHER), Ruling.GRANTED),
        (replace(PRIM, role=Role.WAIT, peer=GONE), replace(ALONE, ground=Ground.ORDER), Ruling.GRANTED),
        (replace(PRIM, role=Role.WAIT, peer=GONE), ALONE, Ruling.REFUSED),
    ],
    ids=[
        "a silent peer that holds everything too",
        "... one that is heard",
        "a peer that began anew",
        "... and says that it holds everything alone",
        "a peer that joins again",
        "... and has not heard that it was lost",
        "its own record names this node",
        "both agree",
        "a person orders it",
        "a node that lost its memory",
    ],
)
def test_only_a_silent_holder_must_be_proven_off(state: MirrorState, asked: Ask, expected: Ruling) -> None:
    assert ruling(state, asked) is expected


def test_each_grant_is_a_new_epoch() -> None:
    assert next_epoch(PRIM, ALONE) == 5
    assert next_epoch(replace(PRIM, grant=9), ALONE) == 10


def test_a_secondary_leaves_the_stream_asks_and_serves_once_it_is_proven() -> None:
    state, effects = carried_out(SECOND, replace(PRIMARY, alive=False))
    asked = next(effect for effect in effects if isinstance(effect, Ask))
    assert (state.role, state.readiness, asked.wanted) == (Role.SECOND, T, me(state))
    state, _ = carried_out(state, Answered(asked.number, True, next_epoch(state, asked), asked.wanted))
    assert (state.role, state.readiness, state.reason) == (Role.ALONE, R, "the fence named this node")
    assert (state.record.holder, state.record.granted) == (Holder.ME, 5)


def test_a_secondary_that_cannot_prove_it_waits_and_says_why_until_it_hears_the_other() -> None:
    state, _ = carried_out(SECOND, replace(PRIMARY, alive=False), Silent("12:00:00 fencing of n1 failed: exit code 1"))
    assert (state.role, state.readiness, state.record.holder) == (Role.WAIT, Readiness.NOT_READY, Holder.PEER)
    assert state.waiting == (
        "rule fence_failed: 12:00:00 fencing of n1 failed: exit code 1: once the other node is off, "
        "run `safekit stop` and `safekit prim` here",
    )
    state, _ = carried_out(state, PRIMARY)
    assert not state.not_proven and "fence_failed" not in state.waiting[0]


def test_a_person_overrules_a_fence_that_failed() -> None:
    silent = replace(PRIMARY, alive=False)
    state, _ = carried_out(SECOND, silent, Silent("fencing of n1 failed"), Command(Action.STOP, user="root"))
    assert state.role is Role.STOP
    state, effects = carried_out(state, Command(Action.PRIM, user="root"), silent)
    asked = next(effect for effect in effects if isinstance(effect, Ask))
    assert ruling(state, asked) is Ruling.GRANTED
    state, _ = carried_out(state, Answered(asked.number, True, next_epoch(state, asked), asked.wanted))
    assert (state.role, state.readiness) == (Role.ALONE, R)


def test_a_primary_that_cannot_prove_it_holds_its_writes() -> None:
    state, effects = carried_out(PRIM, GONE)
    asked = next(effect for effect in effects if isinstance(effect, Ask))
    state, _ = carried_out(state, Silent("fencing of n2 failed: exit code 1"))
    assert (state.role, state.record.holder, state.asked) == (Role.PRIM, Holder.BOTH, asked)
    state, _ = carried_out(state, Answered(asked.number, True, next_epoch(state, asked), asked.wanted))
    assert (state.role, state.record.holder) == (Role.ALONE, Holder.ME)
