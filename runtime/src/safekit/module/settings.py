"""What outlives a configuration and a power-off.

The settings of the administrator, and whether the module was started.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from safekit.files import UnreadableFile, read_json, write_json

DEFAULT_SYNC = "default"
SYNC_MODES = ("default", "full", "external")


@dataclass(frozen=True)
class Settings:
    """`boot`.

    `safekit boot on|off` (spec §3.2 `ignore`); `started`: the last thing asked was a start (`boot="auto"`);
    `syncmode`, `syncrole`, `syncuid`: the policy of the next synchronisation (spec §4.9.3); `checker`, `errd`: whether
    checkers run and processes are watched (spec §6.1, rule 7); `failover`: what `safekit failover` said last, None: nothing.
    """

    boot: bool = False
    started: bool = False
    syncmode: str = DEFAULT_SYNC
    syncrole: str = DEFAULT_SYNC
    syncuid: str = ""
    checker: bool = True
    errd: bool = True
    failover: bool | None = None

    def starts_at_boot(self, configured: str) -> bool:
        """Whether a module with `boot="configured"` starts with the machine."""
        return {"on": True, "off": False, "auto": self.started, "ignore": self.boot}[configured]


def read_settings(path: Path) -> Settings:
    """The settings.

    The defaults when the file is missing or damaged (a module that is not started at boot harms nothing).
    """
    try:
        value = read_json(path)
    except UnreadableFile:
        return Settings()
    if not isinstance(value, dict):
        return Settings()
    mode = str(value.get("syncmode", DEFAULT_SYNC))
    return Settings(
        bool(value.get("boot")),
        bool(value.get("started")),
        mode if mode in SYNC_MODES else DEFAULT_SYNC,
        str(value.get("syncrole", DEFAULT_SYNC)),
        str(value.get("syncuid", "")),
        bool(value.get("checker", True)),
        bool(value.get("errd", True)),
        None if value.get("failover") is None else bool(value["failover"]),
    )


def write_settings(path: Path, settings: Settings) -> None:
    """Replace the settings, durable. Raises OSError."""
    write_json(path, asdict(settings), durable=True)
