"""What outlives a configuration and a power-off.

The `boot` setting of the administrator, and whether the module was started.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from safekit.module.files import UnreadableFile, read_json, write_json


@dataclass(frozen=True)
class Settings:
    """`boot`.

    `safekit boot on|off` (spec §3.2 `ignore`); `started`: the last thing asked was a start (`boot="auto"`).
    """

    boot: bool = False
    started: bool = False

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
    return Settings(bool(value.get("boot")), bool(value.get("started")))


def write_settings(path: Path, settings: Settings) -> None:
    """Replace the settings, durable. Raises OSError."""
    write_json(path, asdict(settings), durable=True)
