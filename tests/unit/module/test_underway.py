"""A step is carried out once in the life of a daemon (safekit/module/underway.py)."""

from __future__ import annotations

from dataclasses import replace

from safekit.automaton.data import DataRecord, Holder
from safekit.automaton.mirror import step
from safekit.automaton.mirror.values import DataPhase, MirrorState, PeerView, Recorded
from safekit.automaton.vocabulary import Perform, Readiness, Resumed, Role, Wish
from safekit.module.underway import Underway

SERVING = MirrorState(
    "n1",
    "n2",
    "nonce",
    replicated=True,
    role=Role.PRIM,
    readiness=Readiness.READY,
    wish=Wish.AUTO,
    data=DataPhase.MIRROR,
    record=DataRecord(1, "1.a", (), Holder.BOTH, Role.PRIM, clean=False),
)


def test_a_plan_that_begins_before_the_daemon_has_resumed_is_not_performed_twice() -> None:
    underway = Underway()
    state, effects = step(SERVING, PeerView(alive=False))
    begun = [effect for effect in effects if isinstance(effect, Perform) and underway.begins(effect.serial)]
    assert begun
    state, effects = step(state, Resumed())
    again = [effect for effect in effects if isinstance(effect, Perform)]
    assert [effect.serial for effect in again] == [effect.serial for effect in begun]
    assert not [effect for effect in again if underway.begins(effect.serial)]
    underway.ended(begun[0].serial)
    _, effects = step(state, Recorded(begun[0].serial, replace(SERVING.record, holder=Holder.ME)))
    assert all(underway.begins(effect.serial) for effect in effects if isinstance(effect, Perform))


def test_a_plan_of_an_earlier_daemon_is_performed_again() -> None:
    state, effects = step(SERVING, PeerView(alive=False))
    serial = next(effect.serial for effect in effects if isinstance(effect, Perform))
    _, effects = step(state, Resumed())
    assert Underway().begins(serial)
    assert serial in [effect.serial for effect in effects if isinstance(effect, Perform)]
