"""Sequences that once failed, shrunk. Each says what it showed; `test_model.py` runs them all, every time."""

from __future__ import annotations

from tests.model.trial import Request

CASES: dict[str, list[Request]] = {}
