"""The arithmetic of leases: nobody acts on a silence, and no claim is granted, before what renewed a lease is that old."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekit.automaton.data import DataRecord, Holder
from safekit.automaton.mirror import (
    DataPhase,
    Lapsed,
    MirrorState,
    Named,
    PeerView,
    Policy,
    Silent,
    leased,
    spoken,
    step,
)
from safekit.automaton.vocabulary import (
    Ask,
    Become,
    Effect,
    Perform,
    Readiness,
    Role,
    Script,
    Step,
    StepDone,
    Vip,
    Wish,
)
from safekit.lease import ASKS, CLOSED_S, GIVES_UP, OVER, Lease, Leases

T, R = Readiness.TRANSIENT, Readiness.READY
HELD = DataRecord(3, "3.n1.x", (), Holder.BOTH, Role.PRIM, clean=False, granted=2)
SECOND = PeerView(
    alive=True, leases=True, role=Role.SECOND, readiness=R, wish=Wish.AUTO, record=replace(HELD, role=Role.SECOND)
)
PRIMARY = MirrorState(
    "n1",
    "n2",
    "x",
    True,
    Role.PRIM,
    R,
    wish=Wish.AUTO,
    record=HELD,
    policy=Policy.WITNESS,
    peer=SECOND,
    data=DataPhase.MIRROR,
    lease=4.0,
)


def test_the_moments_of_a_lease_come_in_order_and_before_its_end() -> None:
    assert 0 < ASKS < GIVES_UP < OVER < 1
    lease = Lease(8.0, 100.0)
    assert (lease.asks_at, lease.gives_up_at, lease.over_at) == (103.0, 105.0, 107.0)


def test_a_lease_counts_from_the_newest_thing_that_was_answered() -> None:
    assert Lease(8.0).renewed(5.0).renewed(3.0).since == 5.0
    assert Lease(8.0).gives_up_at == float("-inf")


def test_a_claim_waits_until_what_was_noted_is_over_and_closes_it_meanwhile() -> None:
    leases = Leases(0.0)
    assert leases.renew("n1", 4.0, 100.0)
    assert leases.hold_back(["n1"], 4.0, 101.0) == 3.0
    assert not leases.renew("n1", 4.0, 102.0)
    assert leases.hold_back(["n1"], 4.0, 104.0) == 0.0
    assert not leases.renew("n1", 4.0, 200.0), "the claim is being decided"
    leases.decided(["n1"])
    assert leases.renew("n1", 4.0, 201.0)


def test_a_claim_that_is_no_longer_repeated_takes_nothing_from_who_serves() -> None:
    leases = Leases(0.0)
    leases.renew("n1", 4.0, 100.0)
    leases.hold_back(["n1"], 4.0, 101.0)
    assert not leases.renew("n1", 4.0, 104.0 + CLOSED_S - 0.1)
    assert leases.renew("n1", 4.0, 104.0 + CLOSED_S)
    assert leases.hold_back(["n1"], 4.0, 104.0 + CLOSED_S + 1.0) == 3.0


def test_a_witness_that_began_anew_knows_of_no_lease_and_waits_for_one() -> None:
    assert Leases(100.0).hold_back(["n1"], 4.0, 101.0) == 3.0
    assert Leases(100.0).hold_back([], 4.0, 101.0) == 0.0, "nobody is excluded"


@given(st.lists(st.tuples(st.sampled_from(["look", "claim", "done"]), st.floats(0.01, 3.0)), max_size=40))
def test_no_claim_is_decided_before_what_was_renewed_is_over(happenings: list[tuple[str, float]]) -> None:
    leases, now, renewed = Leases(-100.0), 0.0, float("-inf")
    for what, pause in happenings:
        now += pause
        if what == "look" and leases.renew("n1", 4.0, now):
            renewed = now
        elif what == "claim" and not leases.hold_back(["n1"], 4.0, now):
            assert now >= renewed + 4.0 - 1e-9
        elif what == "done":
            break


# --- the automaton ----------------------------------------------------------------------------------------------------


def _steps(effects: tuple[Effect, ...]) -> list[Step]:
    return [effect.step for effect in effects if isinstance(effect, Perform)]


def test_only_where_the_other_could_be_named_a_node_needs_a_lease() -> None:
    assert leased(PRIMARY)
    assert not leased(replace(PRIMARY, record=replace(HELD, holder=Holder.ME)))
    assert not leased(replace(PRIMARY, policy=Policy.NONE))
    assert not leased(replace(PRIMARY, lease=0.0))
    assert not leased(replace(PRIMARY, role=Role.WAIT))
    assert not leased(replace(PRIMARY, peer=replace(SECOND, leases=False))), "the other node runs an earlier release"
    gone = replace(SECOND, role=Role.WAIT, record=replace(SECOND.record, holder=Holder.PEER))
    assert not leased(replace(PRIMARY, peer=gone)), "the other node consented"


def test_whose_lease_ran_out_releases_the_address_first_and_waits_with_the_record_that_it_had() -> None:
    cut_off = replace(PRIMARY, peer=replace(SECOND, alive=False))
    state, effects = step(cut_off, Lapsed("nobody is heard"))
    assert state.role is Role.PRIM and "lease ran out: nobody is heard" in state.reason
    done: list[Step] = []
    while state.role is Role.PRIM:
        done += _steps(effects)
        state, effects = step(state, StepDone(state.serial))
    assert done.index(Vip(False)) < done.index(Script("stop_prim")) < done.index(Script("stop_prim", True))
    assert state.role is Role.WAIT and state.record == HELD and state.lapsed


def test_who_gave_way_to_a_node_whose_lease_ran_out_does_not_serve_on_an_old_claim_that_is_granted_afterwards() -> None:
    gave_way = replace(HELD, holder=Holder.PEER, role=Role.SECOND, clean=True)
    lapsed = replace(SECOND, role=Role.WAIT, record=HELD, lapsed=True)
    named = Named(3, ("n2",))
    waits = replace(
        PRIMARY,
        node="n2",
        peer_node="n1",
        role=Role.WAIT,
        readiness=T,
        record=gave_way,
        peer=lapsed,
        data=DataPhase.OFF,
    )
    waits = replace(waits, register=named, grant=3)
    assert step(waits, lapsed)[0].row == "", "the other one may serve at any moment: it has this node's word"
    lost_its_memory = replace(lapsed, lapsed=False)
    assert step(waits, lost_its_memory)[0].row == "alone"


def test_a_lease_that_runs_out_in_a_restart_starts_nothing_any_more() -> None:
    restarting = replace(PRIMARY, row="restart_prim", plan=(Script("start_both"), Script("start_prim")))
    state, effects = step(restarting, Lapsed("nobody is heard"))
    assert not _steps(effects) and state.plan[0] == Script("start_both"), "what runs is waited for"
    assert Script("start_prim") not in state.plan and Vip(False) in state.plan


def test_who_goes_down_already_goes_on_to() -> None:
    leaving = replace(PRIMARY, row="leave_prim", plan=(Script("stop_both"), Vip(False), Become(Role.WAIT, T)))
    assert step(leaving, Lapsed("nobody is heard"))[0].plan == leaving.plan


def test_who_gave_up_lost_nothing_and_asks_to_serve_again() -> None:
    silent = replace(SECOND, alive=False)
    waiting = replace(PRIMARY, role=Role.WAIT, readiness=T, data=DataPhase.OFF, peer=silent, lapsed=True)
    _, effects = step(waiting, replace(silent, version=1))
    assert [(ask.holders, ask.wanted) for ask in effects if isinstance(ask, Ask)] == [(("n1", "n2"), ("n1",))]
    _, effects = step(replace(waiting, lapsed=False), replace(silent, version=1))
    assert [(ask.holders, ask.wanted) for ask in effects if isinstance(ask, Ask)] == [(("n1",), ("n1",))], "it looks"


@pytest.mark.parametrize("row", ["candidate", "promote", "failover", "swap_in"])
def test_a_secondary_with_something_under_way_promises_nothing(row: str) -> None:
    primary = PeerView(alive=True, role=Role.PRIM, readiness=R, record=HELD, losses=2, leases=True)
    second = replace(PRIMARY, role=Role.SECOND, row="second_ready", peer=primary, data=DataPhase.INSTEP)
    assert spoken(second, 0).promise == 3
    assert spoken(replace(second, row=row), 0).promise == 0
    assert spoken(replace(second, peer=replace(primary, alive=False)), 0).promise == 0


def test_a_lease_that_ran_out_is_nothing_to_who_does_not_serve() -> None:
    waiting = replace(PRIMARY, role=Role.WAIT, readiness=T, peer=PeerView())
    assert not step(waiting, Lapsed())[0].lapsed


def test_without_a_witness_the_secondary_gives_way_to_who_gave_up_and_lost_nothing() -> None:
    back = replace(SECOND, role=Role.WAIT, readiness=T, record=HELD, lapsed=True)
    asked = Ask(1, 2, ("n1", "n2"), ("n2",))
    candidate = replace(
        PRIMARY, node="n2", peer_node="n1", role=Role.SECOND, readiness=T, row="candidate", data=DataPhase.OFF
    )
    candidate = replace(candidate, peer=back, asked=asked, number=1)
    assert step(candidate, Silent("12:00"))[0].row == "leave_second"
    assert step(replace(candidate, peer=replace(back, lapsed=False)), Silent("12:00"))[0].row == "candidate"


def test_who_gave_up_serves_again_when_the_other_has_given_way() -> None:
    given = replace(
        SECOND, role=Role.WAIT, readiness=T, record=replace(HELD, holder=Holder.PEER, role=Role.SECOND, clean=True)
    )
    waiting = replace(PRIMARY, role=Role.WAIT, readiness=T, data=DataPhase.OFF, peer=given, lapsed=True)
    assert step(waiting, replace(given, version=1))[0].row == "alone"
    assert step(replace(waiting, lapsed=False), replace(given, version=1))[0].row != "alone", (
        "it may have lost its memory"
    )
