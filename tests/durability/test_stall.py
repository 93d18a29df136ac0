"""How long a write waits when the secondary is lost. `make soak` measures ten times, and writes the figures down."""

from __future__ import annotations

from tests.durability.pair import Pair
from tests.durability.report import write_report
from tests.durability.stall import measure
from tests.nodes import Lab


def test_a_lost_secondary_stalls_no_write_for_long_and_a_stopped_one_not_at_all(fast_pair: Pair, lab: Lab) -> None:
    report = measure(fast_pair, 1, print)
    write_report("stall_of_test", report)
    assert all(way["met"] for way in report.values()), report
