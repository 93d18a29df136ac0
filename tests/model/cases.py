"""Sequences that once failed, shrunk. Each says what it showed; `test_model.py` runs them all, every time."""

from __future__ import annotations

from tests.model.trial import Request

CASES: dict[str, list[Request]] = {
    "what was allocated and read is no hole on either side": [
        ("allocate", {"mode": 0, "offset": 0, "size": 10, "slot": 1}),
        ("copy_range", {"offset": 0, "size": 10, "slot": 0, "source": 1, "source_offset": 0}),
    ],
}
