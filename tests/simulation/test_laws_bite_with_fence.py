"""Policy `fence`: each rule of `automaton/mirror/fencing.py` that is dropped breaks a law in some world."""

from __future__ import annotations

import pytest

from safekit.automaton.data import Holder
from safekit.automaton.mirror import MirrorState, Policy, fencing
from safekit.automaton.mirror.fencing import Ruling
from safekit.automaton.vocabulary import Ask, Role
from tests.simulation import fence
from tests.simulation.dropped import Dropped, Patch, each, first_world_that_breaks
from tests.simulation.fence import Fence


def silence_is_proof(patch: Patch) -> None:
    """Nobody is switched off: who hears nothing goes on."""
    ruled = fencing.ruling

    def ruling(state: MirrorState, asked: Ask) -> Ruling:
        found = ruled(state, asked)
        return Ruling.GRANTED if found is Ruling.PROVE else found

    patch.setattr(fence, "ruling", ruling)


def failure_is_proof(patch: Patch) -> None:
    """The exit code of the program is not looked at."""
    told = Fence._told
    patch.setattr(Fence, "_told", lambda self, asked, _proven: told(self, asked, True))


def heard_is_granted(patch: Patch) -> None:
    """A primary that lost the replication goes on beside a secondary that holds everything."""
    ruled = fencing.ruling

    def ruling(state: MirrorState, asked: Ask) -> Ruling:
        found = ruled(state, asked)
        return Ruling.GRANTED if found is Ruling.HEARD else found

    patch.setattr(fence, "ruling", ruling)


def lost_memory_counts_as_holder(patch: Patch) -> None:
    """A node that lost its memory is granted what it asks."""
    ruled = fencing.ruling

    def ruling(state: MirrorState, asked: Ask) -> Ruling:
        waits = state.role is Role.WAIT and state.record.holder is Holder.BOTH
        return Ruling.GRANTED if waits else ruled(state, asked)

    patch.setattr(fence, "ruling", ruling)


TWO = ("two nodes may answer writes", "acknowledged write", "runs on both")
RULES = (
    Dropped(silence_is_proof, TWO, Policy.FENCE),
    Dropped(failure_is_proof, TWO, Policy.FENCE),
    Dropped(heard_is_granted, TWO, Policy.FENCE),
    Dropped(lost_memory_counts_as_holder, ("by itself", *TWO), Policy.FENCE),
)


@pytest.mark.timeout(600)
@each(RULES)
def test_a_dropped_rule_breaks_a_law(dropped: Dropped) -> None:
    caught = first_world_that_breaks(dropped)
    assert caught.is_due_to(dropped), caught
