"""The lease of a node beside its heartbeats: renewed from when a beat was sent, asked for in time, told when it ran out."""

from __future__ import annotations

from safekit.membership.events import LeaseAsks, LeaseEnded, PulseEvent
from safekit.membership.keeper import LeaseKeeper


def keeper(needed: bool = True) -> LeaseKeeper:
    """With leases of 8 s, renewed by a beat that was sent at 100."""
    made = LeaseKeeper("mirror:db")
    made.sent(1, 100.0)
    made.heard(1)
    made.order(8.0, needed)
    return made


def ticked(made: LeaseKeeper, end: float) -> list[tuple[float, PulseEvent]]:
    told: list[tuple[float, PulseEvent]] = []
    while made.due <= end:
        now = made.due
        told += [(now, event) for event in made.tick(now)]
        made.releases(now)
    return told


def test_the_witness_is_asked_again_and_again_and_then_the_lease_is_over() -> None:
    told = ticked(keeper(), 200.0)
    assert [when for when, _ in told] == [103.0, 104.0, 105.0]
    assert [event for _, event in told] == [LeaseAsks("mirror:db")] * 2 + [LeaseEnded("mirror:db", 0)]


def test_a_beat_renews_from_when_it_was_sent_however_late_its_answer_comes() -> None:
    made = keeper()
    made.sent(2, 101.0)
    made.sent(3, 102.0)
    made.heard(2)
    assert ticked(made, 200.0)[-1] == (106.0, LeaseEnded("mirror:db", 0))


def test_what_was_never_sent_in_this_life_renews_nothing() -> None:
    made = keeper()
    made.sent(2, 104.0)
    made.begin_life()
    made.heard(2)
    assert ticked(made, 200.0)[-1][0] == 105.0


def test_what_the_witness_answers_renews() -> None:
    made = keeper()
    made.renewed(103.5)
    assert made.tick(105.0) == []
    assert ticked(made, 200.0)[-1][0] == 108.5


def test_who_does_not_need_a_lease_is_not_told_that_it_is_over() -> None:
    assert not any(isinstance(event, LeaseEnded) for _, event in ticked(keeper(needed=False), 130.0))


def test_a_node_that_stood_still_finds_at_once_that_its_lease_is_over() -> None:
    assert keeper().tick(165.0) == [LeaseEnded("mirror:db", 60_000)]


def test_who_still_needs_what_ran_out_is_told_again() -> None:
    made = keeper()
    assert made.tick(105.0)
    assert made.tick(106.0) == []
    made.order(8.0, True)
    assert made.tick(106.0) == [LeaseEnded("mirror:db", 1000)]


def test_without_an_order_nothing_is_due() -> None:
    made = keeper()
    made.order(0.0, True)
    assert made.due == float("inf") and made.tick(1e6) == []


def test_a_process_that_was_away_for_a_moment_gives_its_peer_the_time_to_renew() -> None:
    again = LeaseKeeper("mirror:db")
    again.resume(keeper().memory(), 110.0)
    assert again.tick(110.0) == [LeaseAsks("mirror:db")]
    assert ticked(again, 200.0)[-1][0] == 112.0


def test_addresses_are_released_again_until_the_lease_is_no_longer_needed() -> None:
    made = keeper()
    made.order(8.0, True, (("192.0.2.100", 3),))
    assert made.releases(104.9) == ()
    made.tick(105.0)
    assert made.releases(105.0) == (("192.0.2.100", 3),)
    assert made.releases(105.1) == () and made.due == 105.2
    assert made.releases(105.2) == (("192.0.2.100", 3),)
    made.order(8.0, False)
    assert made.releases(106.0) == () and made.due != 105.4


def test_what_still_runs_is_ended_when_the_lease_is_over_and_not_before_and_again_and_again() -> None:
    made = keeper()
    made.order(8.0, True, (("192.0.2.100", 3),), ("/group", "pg.service"))
    seen = []
    while made.due <= 107.5:
        now = made.due
        made.tick(now)
        made.releases(now)
        if ended := made.ends(now):
            seen.append((round(now, 1), ended))
    assert seen == [(when, ("/group", "pg.service")) for when in (107.0, 107.2, 107.4)]
    made.order(8.0, False)
    assert made.ends(108.0) == ()


def test_a_lease_that_was_renewed_late_spares_the_application() -> None:
    made = keeper()
    made.order(8.0, True, (), ("/group",))
    made.tick(105.0)
    made.renewed(104.9)
    assert made.ends(107.0) == () and made.ends(111.9) == ("/group",)


def test_the_next_life_of_the_process_knows_what_to_end() -> None:
    made = keeper()
    made.order(8.0, True, (), ("/group",))
    again = LeaseKeeper("mirror:db")
    again.resume(made.memory(), 110.0)
    again.tick(112.0)
    assert again.ends(114.0) == ("/group",)
