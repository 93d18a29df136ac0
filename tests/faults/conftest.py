"""The nodes as a cluster, and the audit after each test."""

from __future__ import annotations

from tests.system.conftest import cluster, nothing_leaks

__all__ = ["cluster", "nothing_leaks"]
