"""What `safekit why` can say: which causes go with which change, and which changes belong together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from safekit.module.chronicle import MOST_CAUSES, RELEVANT, Chronicle
from safekit.store.entries import Cause, Change

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def sentences(change: Change) -> list[str]:
    return [cause.sentence for cause in change.causes]


def test_what_was_heard_before_a_change_is_its_cause_once() -> None:
    chronicle = Chronicle()
    chronicle.happened(at(0), "no heartbeat from n1")
    first = chronicle.changed(at(1), "SECOND", "Transient", "no heartbeat", settled=False)
    second = chronicle.changed(at(2), "ALONE", "Ready", "no heartbeat", settled=True)
    assert first.causes == (Cause(at(0), "no heartbeat from n1"),)
    assert second.causes == ()


def test_changes_until_a_state_in_which_the_module_can_stay_are_one_move() -> None:
    chronicle = Chronicle()
    moves = [
        chronicle.changed(at(second), role, readiness, "", settled=settled).move
        for second, (role, readiness, settled) in enumerate(
            [
                ("STOP", "NotReady", False),
                ("WAIT", "Transient", False),
                ("PRIM", "Ready", True),
                ("ALONE", "Ready", True),
            ]
        )
    ]
    assert moves == [1, 1, 1, 2]


def test_an_old_event_explains_nothing() -> None:
    chronicle = Chronicle()
    chronicle.happened(at(0), "Script transition failed: exit code 1")
    late = at(0) + RELEVANT + timedelta(seconds=1)
    assert chronicle.changed(late, "STOP", "NotReady", "stop called by root", settled=True).causes == ()


def test_a_condition_explains_one_move_and_later_only_where_a_rule_names_it() -> None:
    chronicle = Chronicle()
    chronicle.holds(at(0), "custom.disk", "Resource custom.disk set to down by check")
    assert sentences(chronicle.changed(at(1), "WAIT", "NotReady", "rule c_disk", settled=True))
    assert not sentences(chronicle.changed(at(2), "STOP", "NotReady", "stop called by root", settled=True))
    named = chronicle.changed(at(90), "WAIT", "NotReady", "rule c_disk", settled=True, named={"custom.*"})
    assert sentences(named) == ["Resource custom.disk set to down by check"]


def test_a_condition_that_ended_is_an_event_and_one_that_never_held_is_none() -> None:
    chronicle = Chronicle()
    chronicle.over(at(0), "ping.router", "Resource ping.router set to up by ping")
    chronicle.holds(at(1), "tcp.web", "Resource tcp.web set to down by tcp")
    chronicle.over(at(2), "tcp.web", "Resource tcp.web set to up by tcp")
    change = chronicle.changed(at(3), "UP", "Ready", "", settled=True, named={"tcp.web"})
    assert sentences(change) == ["Resource tcp.web set to up by tcp"]
    assert not sentences(chronicle.changed(at(4), "PRIM", "Ready", "", settled=True, named={"tcp.web"}))


def test_of_two_events_about_the_same_the_later_one_counts() -> None:
    chronicle = Chronicle()
    chronicle.happened(at(0), "Remote state PRIM Ready", "the other node")
    chronicle.happened(at(1), "no heartbeat from n1")
    chronicle.happened(at(2), "Remote state UNKNOWN", "the other node")
    change = chronicle.changed(at(3), "SECOND", "Transient", "no heartbeat", settled=False)
    assert sentences(change) == ["no heartbeat from n1", "Remote state UNKNOWN"]


def test_a_storm_of_events_keeps_the_newest() -> None:
    chronicle = Chronicle()
    for number in range(1000):
        chronicle.happened(at(number / 1000), f"event {number}")
    told = sentences(chronicle.changed(at(1), "STOP", "NotReady", "", settled=True))
    assert told == [f"event {number}" for number in range(1000 - MOST_CAUSES, 1000)]


def test_it_goes_on_after_what_an_earlier_daemon_wrote() -> None:
    moving = Change(at(0), 7, "WAIT", "Transient", "start called by root", (), False)
    assert Chronicle(moving).changed(at(1), "ALONE", "Ready", "", settled=True).move == 7
    stayed = Change(at(0), 7, "ALONE", "Ready", "", (), True)
    assert Chronicle(stayed).changed(at(1), "PRIM", "Ready", "", settled=True).move == 8
