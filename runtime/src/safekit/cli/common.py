"""What every command shares: its context, and the options that are the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from safekit.cli.client import Client
from safekit.cli.exit_codes import ExitCode, Failure
from safekit.paths import Paths


@dataclass(frozen=True)
class Context:
    """Where this node is, and whom to ask."""

    paths: Paths
    client: Client
    server: str | None = None
    """The server of `-H` that is asked, None when it is this node."""

    def only_here(self, what: str) -> None:
        """What changes files or services of the machine itself cannot be done on another one. Failure."""
        if self.server is not None:
            raise Failure(ExitCode.USAGE, f"{what} is for the node that you are on: without -H")


def context(ctx: typer.Context) -> Context:
    """The context of the running command."""
    found = ctx.find_object(Context)
    assert found is not None, "main.run sets it"
    return found


def warn(warnings: list[str]) -> None:
    """What is accepted but probably not meant."""
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def read_file(file: Path) -> bytes:
    """The content of a file that the command line names."""
    try:
        return file.read_bytes()
    except OSError as trouble:
        raise Failure(ExitCode.USAGE, f"{file} cannot be read: {trouble.strerror}") from None


def write_file(file: Path, content: bytes) -> None:
    """Write a file that the command line names, readable for its owner alone."""
    try:
        file.touch(mode=0o600)
        file.write_bytes(content)
    except OSError as trouble:
        raise Failure(ExitCode.USAGE, f"{file} cannot be written: {trouble.strerror}") from None


Module = Annotated[
    str, typer.Option("-m", "--module", metavar="AM", envvar="SAFEMODULE", show_envvar=False, help="The module.")
]
OptionalModule = Annotated[
    str | None,
    typer.Option("-m", "--module", metavar="AM", envvar="SAFEMODULE", show_envvar=False, help="The module."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer of the API instead of words.")]
Identity = Annotated[
    str | None,
    typer.Option("-i", metavar="IDENTITY", help="The caller is automatic: named in the log, counted by maxloop."),
]
Verbose = Annotated[bool, typer.Option("-A", help="Also information and debug messages.")]
Lines = Annotated[int, typer.Option("-s", metavar="N", min=1, max=20000, help="How many of the last messages.")]
