"""Starts and stops the data plane's process: through systemd where it is PID 1, directly elsewhere."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safekit.replication.client import DataPlane
from safekit.replication.events import DataPlaneError, DataPlaneGone
from safekit.replication.units import UNIT_NAME

DEFAULT_BINARY: Final = Path("/opt/safekit/venv/bin/safekit-rfs")
_STOP_S: Final = 60.0


@dataclass(frozen=True)
class ProcessSettings:
    """The command line of one data plane. `durability` is the spec's `async`: second | none.

    `ack_timeout`: seconds until an operation without acknowledgement means a lost peer (spec: locktimeout);
    `silence_timeout`: seconds until a peer that says nothing at all does (it beats twice a second).
    `names` is what both nodes call the directories (default: their paths); they must be equal on both sides.
    `excluded_paths`, `excluded_names`: for each directory what is not replicated (§3.6, notreplicated): relative paths, and
    extended regular expressions on the names of entries, after `!` those that alone are replicated.
    `options` are more of the program's words (`options.py`).
    """

    module: str
    control: Path
    state_dir: Path
    key_file: Path
    directories: tuple[Path, ...]
    durability: str = "second"
    ack_timeout: float = 10.0
    silence_timeout: float = 4.0
    binary: Path = DEFAULT_BINARY
    names: tuple[str, ...] = ()
    excluded_paths: tuple[tuple[str, ...], ...] = ()
    excluded_names: tuple[tuple[str, ...], ...] = ()
    options: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """Everything after the program's name."""
        given = [
            *("--module", self.module),
            *("--control", str(self.control)),
            *("--state-dir", str(self.state_dir)),
            *("--key-file", str(self.key_file)),
            *("--async", self.durability),
            *("--ack-timeout", str(int(self.ack_timeout * 1000))),
            *("--silence-timeout", str(int(self.silence_timeout * 1000))),
            *self.options,
        ]
        for index, directory in enumerate(self.directories):
            given += ["--directory", str(directory)]
            if index < len(self.names):
                given += ["--name", self.names[index]]
            for path in self.excluded_paths[index] if index < len(self.excluded_paths) else ():
                given += ["--exclude-path", path]
            for name in self.excluded_names[index] if index < len(self.excluded_names) else ():
                given += ["--exclude-name", name]
        return given


class DataPlaneProcess:
    """One `safekit-rfs`. `systemd=None` asks the machine. Start and stop can be repeated."""

    def __init__(self, settings: ProcessSettings, *, systemd: bool | None = None) -> None:
        self._settings = settings
        self._systemd = Path("/run/systemd/system").is_dir() if systemd is None else systemd
        self._process: asyncio.subprocess.Process | None = None

    @property
    def plane(self) -> DataPlane:
        """A client of this process."""
        return DataPlane(self._settings.control)

    async def running(self) -> bool:
        """Whether a data plane answers on the control socket."""
        try:
            await self.plane.status()
        except (DataPlaneGone, DataPlaneError):
            return False
        return True

    async def start(self) -> None:
        """Starts the process, idle, and waits until it answers. Raises DataPlaneGone.

        Adopts one that runs; an idle one that was started with other arguments is ended first.
        """
        if await self.running() and not await self._outdated():
            return
        self._settings.control.parent.mkdir(parents=True, exist_ok=True)
        self._settings.state_dir.mkdir(parents=True, exist_ok=True)
        if self._systemd:
            self._write_config()
            await _run("systemctl", "reset-failed", self._unit, check=False)
            await _run("systemctl", "start", self._unit)
        else:
            # a session of its own, as a unit has: the kernel shares a processor among sessions, not among processes
            self._process = await asyncio.create_subprocess_exec(
                str(self._settings.binary),
                *self._settings.arguments(),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        await self.plane.open(timeout=10.0)

    async def stop(self) -> None:
        """Asks the process to unmount and end, then insists (SIGTERM, and SIGKILL after a minute)."""
        try:
            await self.plane.exit()
        except DataPlaneError:
            pass
        if self._systemd:
            await _run("systemctl", "stop", self._unit)
            return
        if self._process is None:
            return
        try:
            async with asyncio.timeout(5.0):
                await self._process.wait()
        except TimeoutError:
            self._process.terminate()
            try:
                async with asyncio.timeout(_STOP_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._process = None

    async def ended(self) -> None:
        """Waits for the end of a process that was started directly, however it comes."""
        if self._process is not None:
            await self._process.wait()
            self._process = None

    @property
    def pid(self) -> int | None:
        """Process id when started directly."""
        return None if self._process is None else self._process.pid

    async def _outdated(self) -> bool:
        """End an idle process that has another configuration than this one. False: it stays."""
        try:
            if self._config_file.read_text() == self._config_text or (await self.plane.status()).role != "idle":
                return False
        except FileNotFoundError:
            return False  # it was started directly
        except (DataPlaneGone, DataPlaneError):
            return True
        await self.stop()
        return True

    @property
    def _config_file(self) -> Path:
        return self._settings.control.parent / "rfs.conf"

    @property
    def _config_text(self) -> str:
        return "\n".join(self._settings.arguments()) + "\n"

    @property
    def _unit(self) -> str:
        return UNIT_NAME.format(module=self._settings.module)

    def _write_config(self) -> None:
        temporary = self._config_file.with_suffix(".new")
        temporary.write_text(self._config_text)
        temporary.replace(self._config_file)


async def _run(*command: str, check: bool = True) -> None:
    program: Sequence[str] = command
    if shutil.which(program[0]) is None:
        raise DataPlaneGone(f"{program[0]} is not installed")
    process = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    if check and process.returncode != 0:
        raise DataPlaneGone(f"{' '.join(command)}: {errors.decode('utf-8', 'replace').strip()}")
