"""The systemd unit of `safekit-pulse`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from safekit.membership.unit import SERVICE, service_text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / SERVICE
    unit.write_text(service_text(sys.executable))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in checked.stderr.splitlines() if SERVICE in line] == []


def test_pulse_is_always_restarted_at_once() -> None:
    lines = service_text("/opt/safekit/venv/bin/python", "/run/safekit", "/var/safekit").splitlines()
    for line in ("Restart=always", "RestartSec=50ms", "StartLimitIntervalSec=0"):
        assert line in lines
    assert "ExecStart=/opt/safekit/venv/bin/python -I -m safekit.membership.pulse /run/safekit /var/safekit" in lines
