"""Runs commands where the nodes live: the container engine (podman or docker) and the machine's own tools.

Everything goes through `lab/enter`, which knows whether this machine needs a lab around the engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    """What a command left: exit code and text."""

    command: str
    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.code == 0


class CommandFailed(AssertionError):
    """A command ended otherwise than with exit code 0, or not in time (code -1)."""

    def __init__(self, result: Result) -> None:
        super().__init__(
            f"{result.command}\nexit code {result.code}\n{result.out[-4000:]}\n{result.err[-4000:]}".rstrip()
        )
        self.result = result


def run(command: Sequence[str], *, input: bytes | None = None, timeout: float = 60, check: bool = True) -> Result:
    """Run a command of this machine. `timeout` in seconds; CommandFailed unless it ends in time and (`check`) well."""
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        out, err = (late.stdout or b"").decode(errors="replace"), (late.stderr or b"").decode(errors="replace")
        raise CommandFailed(Result(shown, -1, out, f"{err}\nnot ended after {timeout:g} s")) from None
    result = Result(shown, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if check and not result.ok:
        raise CommandFailed(result)
    return result


@dataclass(frozen=True)
class Engine:
    """podman or docker."""

    name: str

    @classmethod
    def here(cls) -> Engine:
        """The engine that CONTAINER_ENGINE names, else podman, else docker."""
        name = os.environ.get("CONTAINER_ENGINE") or next((n for n in ("podman", "docker") if shutil.which(n)), None)
        if name is None:
            raise RuntimeError("neither podman nor docker is installed: `make prerequisites` installs podman")
        return cls(name)

    @property
    def is_podman(self) -> bool:
        """Whether the options are podman's."""
        return Path(self.name).name == "podman"

    def command(self, *args: str) -> list[str]:
        """The command line of an engine's command, to be run from anywhere."""
        return beside_the_nodes(self.name, *args)

    def run(self, *args: str, input: bytes | None = None, timeout: float = 60, check: bool = True) -> Result:
        """Run an engine's command."""
        return run(self.command(*args), input=input, timeout=timeout, check=check)


def beside_the_nodes(*command: str) -> list[str]:
    """The command line that runs `command` beside the nodes: where their bridge, ports and disks are."""
    return [str(ROOT / "lab" / "enter"), *command]
