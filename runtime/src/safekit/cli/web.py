"""`safekit webservercfg`: who may log in to the console of this node; `safekit webserver`: the service itself."""

from __future__ import annotations

import getpass
import secrets
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from safekit.cli.common import context
from safekit.cli.display import table
from safekit.cli.exit_codes import ExitCode, Failure
from safekit.files import UnreadableFile
from safekit.web.accounts import ROLES, Account, is_name, read_accounts, write_accounts
from safekit.web.passwords import WeakPassword, hashed, matches

UNIT = "safekit-web.service"


class RoleName(StrEnum):
    """What a person may do."""

    ADMIN = "admin"
    CONTROL = "control"
    MONITOR = "monitor"


class Word(StrEnum):
    """What the web service can be told."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    STATUS = "status"


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Web service")(webservercfg)
    app.command(rich_help_panel="Web service")(webserver)


def webservercfg(
    ctx: typer.Context,
    user: Annotated[str, typer.Option("-user", metavar="USER", help="The person; `admin` when left out.")] = "admin",
    password: Annotated[
        str | None,
        typer.Option(
            "-passwd", metavar="PASSWORD", help="Others on this machine may see it; left out, it is asked for."
        ),
    ] = None,
    role: Annotated[
        RoleName | None,
        typer.Option("-role", metavar="ROLE", help="admin, control (looks and acts) or monitor (looks)."),
    ] = None,
    remove: Annotated[bool, typer.Option("-remove", help="The person may no longer log in.")] = False,
    listed: Annotated[bool, typer.Option("-list", help="Show who may log in, and change nothing.")] = False,
) -> None:
    """Give a person a password and a role for the console of this node, or take them away.

    A password that is not on the command line is asked for, or read from the standard input. A new person needs a role (`admin`
    has its own); one that is known keeps it. Whoever is changed must log in again.
    """
    where = context(ctx)
    where.only_here("webservercfg")
    folder = where.paths.web
    try:
        accounts = read_accounts(folder)
    except (UnreadableFile, OSError) as trouble:
        raise Failure(ExitCode.REFUSED, str(trouble)) from None
    if listed:
        table(("USER", "ROLE"), [(one.name, one.role) for one in accounts.values()])
        return
    if not is_name(user):
        raise Failure(ExitCode.USAGE, f"-user {user!r}: expected letters, digits, '_', '-' and '.', at most 64")
    known = accounts.pop(user, None)
    if remove:
        if known is None:
            raise Failure(ExitCode.UNKNOWN, f"{user}: nobody of this name may log in")
        _write(folder, accounts)
        typer.echo(f"{user}: removed")
        return
    chosen = role.value if role else known.role if known else "admin" if user == "admin" else None
    if chosen is None:
        raise Failure(ExitCode.USAGE, f"{user} is new: -role says what it may do (admin, control or monitor)")
    secret = _ask() if password is None else password
    if known is not None and known.role == chosen and matches(secret, known.password):
        typer.echo(f"{user}: unchanged")
        return
    try:
        kept = hashed(secret, secrets.token_bytes(16))
    except WeakPassword as trouble:
        raise Failure(ExitCode.USAGE, f"{user}: {trouble}") from None
    accounts[user] = Account(user, next(role for role in ROLES if role == chosen), kept)
    _write(folder, accounts)
    typer.echo(f"{user}: {chosen}")


def webserver(
    ctx: typer.Context, word: Annotated[Word, typer.Argument(metavar="start|stop|restart|status", help="What to do.")]
) -> None:
    """Start or stop the web service of this node, or show whether it runs. Modules do not notice."""
    context(ctx).only_here("webserver")
    if word is Word.STATUS:
        asked = subprocess.run(["systemctl", "is-active", UNIT], check=False, capture_output=True, text=True)
        typer.echo(f"web service: {asked.stdout.strip() or asked.stderr.strip()}")
        return
    done = subprocess.run(["systemctl", word.value, UNIT], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(ExitCode.REFUSED, done.stderr.strip() or f"systemctl {word.value} {UNIT} failed")


def _ask() -> str:
    """The password, twice from a terminal, the first line otherwise."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise Failure(ExitCode.USAGE, "the two passwords differ")
    return first


def _write(folder: Path, accounts: dict[str, Account]) -> None:
    try:
        write_accounts(folder, accounts)
    except OSError as trouble:
        raise Failure(ExitCode.REFUSED, f"{folder} cannot be written: {trouble.strerror}") from None
