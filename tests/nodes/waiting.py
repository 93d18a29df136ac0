"""Waiting, always bounded and never in silence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NotInTime(AssertionError):
    """Something did not happen in time."""


def wait_for(
    what: str,
    probe: Callable[[], T],
    *,
    timeout: float = 30,
    every: float = 0.2,
    last_words: Callable[[], str] | None = None,
) -> T:
    """Ask `probe` until its answer is true, and return it.

    `what` completes "not in time: ...". A probe that raises AssertionError has answered no. NotInTime after `timeout`
    seconds, with the last answer and what `last_words` adds (the state of the node, say).
    """
    end = time.monotonic() + timeout
    answer: object
    while True:
        try:
            value = probe()
            if value:
                return value
            answer = value
        except AssertionError as refusal:
            answer = refusal
        if time.monotonic() >= end:
            more = f"\n{last_words()}" if last_words else ""
            raise NotInTime(f"not in time: {what} (waited {timeout:g} s; last answer: {answer}){more}")
        time.sleep(every)
