"""The heartbeats of a mirror: links, peer, payload (spec §3.3, §4.4)."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from safekit.membership.beat import BYE, Beat, encode_payload
from safekit.membership.channels import HeartbeatChannel, HeartbeatLink
from safekit.membership.events import (
    LinkDown,
    LinkUp,
    PeerAlive,
    PeerDaemon,
    PeerLost,
    PeerPayload,
    PulseEvent,
    RanLate,
)
from safekit.membership.heartbeat import HeartbeatCore


def channel(*idents: str, pulse: float = 0.7, timeout: float = 30.0) -> HeartbeatChannel:
    links = tuple(
        HeartbeatLink(
            ident, f"192.0.{number}.1", f"192.0.{number}.2", timedelta(seconds=pulse), timedelta(seconds=timeout)
        )
        for number, ident in enumerate(idents or ("default",))
    )
    return HeartbeatChannel("mirror:db", "n1", "n2", 8888, bytes(32), links)


def tick_until(core: HeartbeatCore, end: float) -> list[tuple[float, PulseEvent]]:
    """Tick whenever the core wants it; what happened, and when."""
    told = []
    while core.due <= end:
        now = core.due
        told += [(now, event) for event in core.tick(now)[1]]
    return told


def test_first_beat_raises_link_and_peer() -> None:
    core = HeartbeatCore(channel(), 0.0)
    assert core.received(0.1, "default", "n2", (1, 1), Beat()) == [
        LinkUp("mirror:db", "default", "n2"),
        PeerAlive("mirror:db", "n2"),
    ]
    assert core.urgent, "the peer is answered at once"


def test_silence_is_loss_after_the_timeout_to_the_moment() -> None:
    core = HeartbeatCore(channel(pulse=0.7, timeout=1.5), 0.0)
    core.received(0.35, "default", "n2", (1, 1), Beat())
    told = tick_until(core, 10.0)
    assert [event for _, event in told] == [LinkDown("mirror:db", "default", "n2"), PeerLost("mirror:db", "n2")]
    assert [when for when, _ in told] == [pytest.approx(1.85)] * 2


def test_peer_that_never_came_is_lost_after_the_timeout_too() -> None:
    told = tick_until(HeartbeatCore(channel(timeout=30.0), 100.0), 200.0)
    assert told == [(130.0, LinkDown("mirror:db", "default", "n2")), (130.0, PeerLost("mirror:db", "n2"))]


def test_peer_is_lost_only_when_all_links_are_down() -> None:
    core = HeartbeatCore(channel("default", "flow", pulse=0.1, timeout=1.0), 0.0)
    core.received(0.0, "default", "n2", (1, 1), Beat())
    core.received(0.0, "flow", "n2", (1, 2), Beat())
    for number in range(20):
        core.received(number / 10, "flow", "n2", (1, 3 + number), Beat())
        assert PeerLost("mirror:db", "n2") not in core.tick(number / 10 + 0.05)[1]
    assert core.snapshot()["links"] == {"default": False, "flow": True}
    assert PeerLost("mirror:db", "n2") in [event for _, event in tick_until(core, 10.0)]


def test_each_link_beats_at_its_own_pulse() -> None:
    links = (
        HeartbeatLink("default", "192.0.2.1", "192.0.2.2", timedelta(milliseconds=700)),
        HeartbeatLink("flow", "198.51.100.1", "198.51.100.2", timedelta(milliseconds=200)),
    )
    core = HeartbeatCore(HeartbeatChannel("mirror:db", "n1", "n2", 8888, bytes(32), links), 0.0)
    sent: list[str] = []
    while core.due < 13.95:
        sent += core.tick(core.due)[0]
    assert (sent.count("default"), sent.count("flow")) == (20, 70)


def test_payload_is_told_once_and_an_older_one_never_replaces_a_newer() -> None:
    core = HeartbeatCore(channel("default", "flow"), 0.0)
    prim, stop = (Beat(payload=encode_payload({"state": state})) for state in ("PRIM", "STOP"))
    assert PeerPayload("mirror:db", "n2", {"state": "STOP"}) in core.received(0.1, "default", "n2", (5, 9), stop)
    told = core.received(0.2, "flow", "n2", (5, 8), prim)
    assert told == [LinkUp("mirror:db", "flow", "n2")], "the slower link is up, its older content is no news"
    assert core.received(0.3, "flow", "n2", (5, 10), stop) == []
    assert PeerPayload("mirror:db", "n2", {"state": "PRIM"}) in core.received(0.4, "default", "n2", (6, 1), prim)


def test_beat_that_was_long_under_way_keeps_no_link_up() -> None:
    core = HeartbeatCore(channel(pulse=0.1, timeout=1.0), 0.0)
    core.received(0.0, "default", "n2", (1, 7), Beat())
    core.tick(0.0)
    core.received(0.9, "default", "n2", (1, 6), Beat())
    assert [when for when, _ in tick_until(core, 5.0)] == [1.0, 1.0]


def test_goodbye_is_loss_at_once_and_late_beats_do_not_raise_the_dead() -> None:
    core = HeartbeatCore(channel("default", "flow"), 0.0)
    core.received(0.0, "default", "n2", (1, 1), Beat())
    core.received(0.0, "flow", "n2", (1, 2), Beat())
    assert core.received(0.1, "default", "n2", (1, 9), Beat(BYE)) == [
        LinkDown("mirror:db", "default", "n2", left=True),
        LinkDown("mirror:db", "flow", "n2", left=True),
        PeerLost("mirror:db", "n2", left=True),
    ]
    assert core.received(0.2, "flow", "n2", (1, 8), Beat()) == []
    assert PeerAlive("mirror:db", "n2") in core.received(0.3, "flow", "n2", (2, 1), Beat())


def test_absence_of_the_peers_daemon_is_told_when_it_begins_and_when_it_ends() -> None:
    core = HeartbeatCore(channel(), 0.0)
    core.received(0.0, "default", "n2", (1, 1), Beat())
    told = [
        event
        for number in range(2, 6)
        for event in core.received(0.0, "default", "n2", (1, number), Beat(absent_s=number))
    ]
    told += core.received(0.0, "default", "n2", (1, 6), Beat())
    assert told == [PeerDaemon("mirror:db", "n2", 2), PeerDaemon("mirror:db", "n2", None)]


def test_node_that_slept_longer_than_the_timeout_gives_the_peer_one_more_interval() -> None:
    core = HeartbeatCore(channel(pulse=0.1, timeout=1.0), 0.0)
    core.received(0.0, "default", "n2", (1, 1), Beat())
    core.tick(0.0)
    assert core.tick(5.0)[1] == [RanLate("mirror:db", 4900)]
    core.received(5.1, "default", "n2", (1, 2), Beat())
    assert tick_until(core, 6.0) == []
    assert [type(event) for _, event in tick_until(core, 7.0)] == [LinkDown, PeerLost]


def test_peer_that_was_nearly_lost_before_the_sleep_gets_two_more_pulses_after_it() -> None:
    core = HeartbeatCore(channel(pulse=0.1, timeout=1.0), 0.0)
    core.received(0.0, "default", "n2", (1, 1), Beat())
    assert tick_until(core, 0.95) == []
    assert [type(event) for event in core.tick(5.0)[1]] == [RanLate]
    assert [when for when, _ in tick_until(core, 9.0)] == [pytest.approx(5.2)] * 2


def test_node_that_slept_still_finds_a_dead_peer_dead() -> None:
    core = HeartbeatCore(channel(pulse=0.1, timeout=1.0), 0.0)
    core.received(0.0, "default", "n2", (1, 1), Beat())
    core.tick(0.0)
    core.tick(5.0)
    when, event = tick_until(core, 6.1)[-1]
    assert when == pytest.approx(5.9, abs=0.11)
    assert event == PeerLost("mirror:db", "n2")


def test_restart_of_the_pulse_presumes_alive_what_was_alive_for_one_timeout() -> None:
    core = HeartbeatCore(channel("default", "flow", pulse=0.1, timeout=1.5), 0.0)
    core.received(0.0, "default", "n2", (1, 1), Beat(payload=encode_payload({"state": "PRIM"})))
    tick_until(core, 1.4)
    again = HeartbeatCore(channel("default", "flow", pulse=0.1, timeout=1.5), 2.0)
    again.resume(core.snapshot(), 2.0)
    assert again.snapshot()["payload"] == {"state": "PRIM"}
    assert again.received(2.1, "default", "n2", (1, 9), Beat(payload=encode_payload({"state": "PRIM"}))) == []
    assert PeerLost("mirror:db", "n2") in [event for when, event in tick_until(again, 4.0) if when >= 3.5]


@pytest.mark.parametrize("seed", range(5))
def test_no_loss_is_declared_under_twenty_percent_of_lost_and_reordered_beats(seed: int) -> None:
    """Spec's defaults but a time-out of 10 s: 14 beats in a row would have to be lost."""
    chance = random.Random(seed)
    core = HeartbeatCore(channel(pulse=0.7, timeout=10.0), 0.0)
    arrivals = sorted(
        (number * 0.7 + chance.uniform(0.001, 2.0), number) for number in range(1, 5000) if chance.random() > 0.2
    )
    told: list[PulseEvent] = []
    for when, number in arrivals:
        told += [event for _, event in tick_until(core, when)]
        told += core.received(when, "default", "n2", (1, number), Beat())
    assert [type(event) for event in told] == [LinkUp, PeerAlive]


# --- what a promise renews --------------------------------------------------------------------------------------------


def promising(core: HeartbeatCore) -> HeartbeatCore:
    """The daemon of this node knows of every silence that was told."""
    core.publish(b"", core.snapshot()["losses"] + 1)
    return core


def test_a_secondary_that_promises_names_the_newest_beat_and_answers_at_once() -> None:
    core = promising(HeartbeatCore(channel(), 0.0))
    core.received(0.1, "default", "n2", (5, 7), Beat())
    assert core.urgent and core.beat(None).view.epoch == 7
    core.received(0.8, "default", "n2", (5, 9), Beat())
    assert core.urgent and (core.beat(None).view.epoch, core.beat(None).view.proposer) == (9, 5)


def test_who_promises_nothing_names_nothing() -> None:
    core = HeartbeatCore(channel(), 0.0)
    core.received(0.1, "default", "n2", (5, 7), Beat())
    assert core.beat(None).view.epoch == 0


def test_after_a_silence_nothing_is_renewed_until_the_daemon_knows_of_it() -> None:
    core = promising(HeartbeatCore(channel(timeout=1.5), 0.0))
    core.received(0.1, "default", "n2", (1, 1), Beat())
    lost = [event for _, event in tick_until(core, 3.0) if isinstance(event, PeerLost)]
    core.received(4.0, "default", "n2", (1, 2), Beat())
    assert core.beat(None).view.epoch == 0, "its daemon may have begun to take over"
    assert lost[0].losses == core.snapshot()["losses"]
    core.publish(b"", lost[0].losses + 1)
    assert core.beat(None).view.epoch == 2


def test_two_nodes_that_both_promise_do_not_talk_without_end() -> None:
    core = promising(HeartbeatCore(channel(pulse=0.7), 0.0))
    core.received(0.1, "default", "n2", (1, 1), Beat())
    core.beat(None)
    answered = 0
    for number in range(100):
        core.received(0.2 + number / 1000, "default", "n2", (1, 2 + number), Beat())
        answered += core.urgent
        core.beat(None)
    assert answered <= 1


def test_a_silence_has_another_number_in_another_life() -> None:
    first, second = HeartbeatCore(channel(), 100.0), HeartbeatCore(channel(), 101.0)
    tick_until(first, 200.0)
    assert first.snapshot()["losses"] < second.snapshot()["losses"]
