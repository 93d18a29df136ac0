"""Times of change: what the data plane tells apart by them must not have the same ones in a test on a quick disk."""

from __future__ import annotations

import time

CLOCK_REALTIME_COARSE = 5
"""Of Linux; `time` does not name it. The clock of files moves in steps."""


def await_another_moment(apart_s: float = 0) -> None:
    """What changes from now on has a later time of change than anything before, by more than `apart_s` seconds."""
    before = time.clock_gettime(CLOCK_REALTIME_COARSE)
    while time.clock_gettime(CLOCK_REALTIME_COARSE) <= before + apart_s:
        time.sleep(0.001)
