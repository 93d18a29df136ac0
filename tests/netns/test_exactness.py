"""Every packet is accepted by exactly one node, also while the farm changes: the short run (`make exactness` is the long one)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.netns.exactness import trial

pytestmark = pytest.mark.netns


def test_each_packet_is_accepted_once_in_a_stable_view_and_never_twice(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    result = trial(30_000, seed=1, folder=tmp_path, stable=1_500)
    assert result.wrong == []
    assert result.packets == result.stable + result.changing == 30_000
    assert result.stable >= 3_000
    assert set(result.kinds) == {"IPv4 TCP", "IPv4 UDP", "IPv6 TCP", "IPv6 UDP"}
