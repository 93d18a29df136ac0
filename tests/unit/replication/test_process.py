"""How the process is started: its arguments, its unit, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from safekit.replication import DataPlane, DataPlaneGone, DataPlaneProcess, ProcessSettings
from safekit.replication.units import unit_text

SETTINGS = ProcessSettings(
    module="db",
    control=Path("/run/safekit/modules/db/rfs.sock"),
    state_dir=Path("/var/safekit/modules/db"),
    key_file=Path("/var/safekit/cluster/cluster.key"),
    directories=(Path("/data/with space"), Path("/etc/app")),
    durability="none",
    ack_timeout=2.5,
)


def test_arguments_say_everything_and_keep_spaces() -> None:
    arguments = SETTINGS.arguments()
    assert arguments[:2] == ["--module", "db"]
    assert arguments[arguments.index("--ack-timeout") + 1] == "2500"
    assert arguments[arguments.index("--async") + 1] == "none"
    assert [arguments[i + 1] for i, word in enumerate(arguments) if word == "--directory"] == [
        "/data/with space",
        "/etc/app",
    ]


def test_the_unit_is_never_restarted_behind_the_daemons_back_and_shares_the_mounts_of_the_node() -> None:
    text = unit_text(Path("/opt/safekit/venv/bin/safekit-rfs"), Path("/run/safekit"))
    assert "ExecStart=/opt/safekit/venv/bin/safekit-rfs --config /run/safekit/modules/%i/rfs.conf\n" in text
    assert "\nRestart=no\n" in text
    for private in ("PrivateMounts=yes", "PrivateTmp", "ProtectSystem", "ProtectHome", "MountFlags"):
        assert private not in text


async def test_nobody_behind_the_socket_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataPlaneGone, match="no data plane behind"):
        await DataPlane(tmp_path / "rfs.sock").status()
    settings = ProcessSettings("db", tmp_path / "rfs.sock", tmp_path, tmp_path / "key", (tmp_path,))
    assert not await DataPlaneProcess(settings, systemd=False).running()
