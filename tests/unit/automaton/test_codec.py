"""A module's value outlives a restart of the daemon."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from safekit.automaton.codec import UnreadableState, decode, encode
from safekit.automaton.data import BLANK, alone
from safekit.automaton.farm import PLANS as FARM_PLANS
from safekit.automaton.farm import FarmState
from safekit.automaton.mirror import PLANS, MirrorState, PeerView, spoken
from safekit.automaton.vocabulary import Role

MIRROR = MirrorState("n1", "n2", "x", True, record=alone(BLANK, "n1", "x", 0, Role.ALONE))


@pytest.mark.parametrize("row", PLANS)
def test_mirror_in_the_middle_of_each_row_comes_back_as_it_was(row: str) -> None:
    for begun in range(len(PLANS[row])):
        state = replace(MIRROR, plan=PLANS[row][begun:], row=row, peer=spoken(MIRROR, 7), urgent=PLANS[row][:1])
        assert decode(json.loads(json.dumps(encode(state)))) == state


@pytest.mark.parametrize("row", FARM_PLANS)
def test_farm_in_the_middle_of_each_row_comes_back_as_it_was(row: str) -> None:
    for begun in range(len(FARM_PLANS[row])):
        state = FarmState("n1", plan=FARM_PLANS[row][begun:], held=("interface_failure",), waiting=("rule x",))
        assert decode(json.loads(json.dumps(encode(state)))) == state


def test_a_field_of_a_newer_daemon_is_dropped_and_a_missing_one_takes_its_default() -> None:
    saved = encode(PeerView(alive=True, version=3))
    assert isinstance(saved, dict)
    saved["invented_later"] = 1
    del saved["version"]
    assert decode(saved) == PeerView(alive=True)


@pytest.mark.parametrize(
    "saved",
    [
        {"class": "Nobody"},
        {"enum": "Role", "value": "KING"},
        {"enum": "Nothing", "value": "x"},
        {"class": "MirrorState"},
        {},
        {"class": ["x"]},
    ],
)
def test_what_encode_did_not_write_is_refused_in_one_sentence(saved: object) -> None:
    with pytest.raises(UnreadableState, match="cannot read the saved state"):
        decode(saved)
