"""What the state says of an automatic failover, and what a node says of the register to its peer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from safekit.automaton.data import DataRecord, Holder
from safekit.automaton.mirror import DataPhase, MirrorState, Named, PeerView, Policy
from safekit.automaton.vocabulary import Ask, Readiness, Role
from safekit.module.outlook import failover_outlook
from safekit.module.words import read_payload, write_payload

BOTH = DataRecord(3, "3.n1.x", (), Holder.BOTH, Role.PRIM, clean=False, granted=2)
PRIM = MirrorState("n1", "n2", "x", True, Role.PRIM, Readiness.READY, record=BOTH, policy=Policy.WITNESS)
SECOND = replace(PRIM, role=Role.SECOND)
PAIR = ("n1", "n2")
SINCE = "12:00:00 (the witness w port 4803 does not answer)"


@pytest.mark.parametrize(
    ("state", "names", "trouble", "sentence"),
    [
        (PRIM, PAIR, "", "ready: n2 takes over; the witness decides, no split brain"),
        (SECOND, PAIR, "", "ready: this node takes over; the witness decides, no split brain"),
        (PRIM, None, "", "not possible yet: the witness is not heard yet"),
        (PRIM, None, SINCE, f"not possible: the witness is silent since {SINCE}"),
        (PRIM, ("n2",), "", "not possible: the witness names n2"),
        (
            replace(PRIM, data=DataPhase.LOST),
            None,
            SINCE,
            f"not possible: n2 is lost and the witness is silent since {SINCE}; "
            "the writes of the application wait (blocked)",
        ),
        (
            replace(PRIM, data=DataPhase.LOST, asked=Ask(1, 2, PAIR, ("n1",))),
            PAIR,
            "",
            "not possible: n2 is lost and the witness is asked; the writes of the application wait (blocked)",
        ),
        (replace(SECOND, row="candidate"), None, SINCE, f"not possible yet: the witness is silent since {SINCE}"),
        (replace(PRIM, policy=Policy.NONE), None, "", "ready: n2 takes over; split brain possible (no witness)"),
        (
            replace(PRIM, policy=Policy.MANUAL),
            None,
            "",
            'not possible: n2 never takes over by itself (quorum="manual")',
        ),
        (
            replace(PRIM, policy=Policy.FENCE),
            None,
            "",
            "ready: n2 takes over once it has fenced this node; no split brain",
        ),
        (
            replace(SECOND, policy=Policy.FENCE),
            None,
            "",
            "ready: this node takes over once it has fenced n2; no split brain",
        ),
        (
            replace(
                PRIM, policy=Policy.FENCE, data=DataPhase.LOST, silent="12:00:00 fencing of n2 failed: exit code 1"
            ),
            None,
            "",
            "not possible: n2 is lost and 12:00:00 fencing of n2 failed: exit code 1; "
            "the writes of the application wait (blocked)",
        ),
        (
            replace(SECOND, policy=Policy.FENCE, row="candidate"),
            None,
            "",
            "not possible yet: n2 is being fenced",
        ),
        (replace(PRIM, failover=False), PAIR, "", "not possible: failover is off (`safekit failover on`)"),
    ],
)
def test_the_state_says_whether_a_failover_is_possible_and_if_not_why(
    state: MirrorState, names: tuple[str, ...] | None, trouble: str, sentence: str
) -> None:
    assert failover_outlook(state, names, trouble) == sentence


def test_what_a_node_knows_of_the_register_travels_in_its_heartbeat() -> None:
    state = replace(PRIM, data=DataPhase.LOST, silent="12:00:00", register=Named(2, PAIR))
    heard = read_payload(json.loads(json.dumps(write_payload(state))), PeerView(alive=True))
    assert (heard.register, heard.blocked, heard.record.granted) == (Named(2, PAIR), True, 2)


def test_without_a_witness_a_heartbeat_says_nothing_of_a_register() -> None:
    assert not {"e", "o", "b"} & write_payload(replace(PRIM, policy=Policy.NONE)).keys()
