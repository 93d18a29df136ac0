"""What is said of many cuts of a link."""

from __future__ import annotations

from dataclasses import replace

from tests.faults.cuts import Cut, verdict

GOOD = Cut(1, "n1", 0.4, winner="n2", decided_s=3.4, acknowledged=120)


def _met(*cuts: Cut, wanted: int) -> list[object]:
    return [target["met"] for target in verdict(cuts, wanted)]


def test_every_cut_that_was_wanted_must_have_been_made() -> None:
    assert _met(GOOD, GOOD, wanted=2) == [True, True]
    assert _met(GOOD, wanted=2) == [None, None]


def test_one_cut_after_which_nobody_serves_breaks_the_promise() -> None:
    nobody = Cut(2, "n1", 0.1, problem="not in time: exactly one serves")
    assert not nobody.ok and "PROBLEM" in nobody.line()
    assert _met(GOOD, nobody, wanted=3) == [False, None]


def test_one_lost_write_breaks_the_promise() -> None:
    assert _met(replace(GOOD, lost=1), wanted=3) == [None, False]


def test_a_cut_says_who_serves() -> None:
    assert GOOD.took_over and "n2 takes over after 3.4 s" in GOOD.line()
    assert "n1 goes on" in replace(GOOD, winner="n1").line()
