"""Policy `fence`: each rule of `automaton/mirror/fencing.py` that is dropped breaks a law in some world."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from safekit.automaton.data import Holder
from safekit.automaton.mirror import MirrorState, Policy, fencing
from safekit.automaton.mirror.fencing import Ruling
from safekit.automaton.vocabulary import Ask, Role
from tests.simulation import fence
from tests.simulation.fence import Fence
from tests.simulation.laws import Broken
from tests.simulation.weather import live

MOST_WORLDS = 600
Patch = pytest.MonkeyPatch


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


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("dropped", "sentence"),
    [
        (silence_is_proof, "two nodes may answer writes|acknowledged write|runs on both"),
        (failure_is_proof, "two nodes may answer writes|acknowledged write|runs on both"),
        (heard_is_granted, "two nodes may answer writes|acknowledged write|runs on both"),
        (lost_memory_counts_as_holder, "by itself|acknowledged write|two nodes may answer writes|runs on both"),
    ],
)
def test_a_dropped_rule_breaks_a_law(
    dropped: Callable[[Patch], None], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped(monkeypatch)
    with pytest.raises(Broken, match=sentence):
        for seed in range(MOST_WORLDS):
            live(seed, Policy.FENCE)
