"""Commands that move a module: start, stop, swap …, and those that wait until it got there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

import typer

from safekit.cli.client import ApiError
from safekit.cli.common import Context, Identity, Json, Module, context
from safekit.cli.display import in_words, on_terminal, progress_line, show_json, state_name
from safekit.cli.exit_codes import ExitCode, Failure

RESTART_PATIENCE_S = 15.0
"""How long a waiting command bears that safekitd is away: a restart of the daemon moves no module."""

_SLICE_S = 30.0
_SLICE_ON_TERMINAL_S = 1.0


class FullSync(StrEnum):
    """The one word that `prim` and `second` know."""

    FULLSYNC = "fullsync"


_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d:\d\d))?(Z?)")
_DATE_FORMS = "YYYY-MM-DD, 'YYYY-MM-DD hh:mm:ss' or YYYY-MM-DDThh:mm:ss, each also with Z at its end: UTC"


class NoSync(StrEnum):
    """The one word that `swap` knows."""

    NOSYNC = "nosync"


class Awaited(StrEnum):
    """States that one can wait for."""

    STOP = "STOP"
    WAIT = "WAIT"
    ALONE = "ALONE"
    PRIM = "PRIM"
    SECOND = "SECOND"
    UP = "UP"


Full = Annotated[
    FullSync | None, typer.Argument(metavar="[fullsync]", help="Copy every file again, whatever is known of it.")
]
Limit = Annotated[
    float | None, typer.Option("-t", "--timeout", metavar="SECONDS", min=0, help="Give up then; without it, never.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (
        start,
        stop,
        restart,
        stopstart,
        forcestop,
        shutdown,
        prim,
        primforce,
        second,
        secondforce,
        swap,
        waitstart,
        waitstop,
        waitstate,
    ):
        app.command(rich_help_panel="Control")(command)


def start(ctx: typer.Context, module: Module, identity: Identity = None) -> None:
    """Start the module: the node itself finds out whether it becomes primary or secondary."""
    _act(context(ctx), module, "start", identity)


def stop(ctx: typer.Context, module: Module, identity: Identity = None) -> None:
    """Stop the module in good order; a ready secondary takes over."""
    _act(context(ctx), module, "stop", identity)


def restart(ctx: typer.Context, module: Module, identity: Identity = None) -> None:
    """Restart the application on this node; the roles stay."""
    _act(context(ctx), module, "restart", identity)


def stopstart(ctx: typer.Context, module: Module, identity: Identity = None) -> None:
    """Stop the module, then start it: a primary hands over to the other node."""
    _act(context(ctx), module, "stopstart", identity)


def forcestop(ctx: typer.Context, module: Module, identity: Identity = None) -> None:
    """Stop the module when `stop` has no effect: running scripts are ended."""
    _act(context(ctx), module, "forcestop", identity)


def shutdown(ctx: typer.Context, timeout: Limit = None) -> None:
    """Stop every module of this node, as before the machine goes down, and wait for it.

    A module with `boot="auto"` starts with the machine again, unlike after `stop`.
    """
    where = context(ctx)
    running = [
        str(module["name"])
        for module in where.client.get("modules")["modules"]
        if module["state"]["state"] not in ("STOP", "NOT_CONFIGURED")
    ]
    for module in running:
        where.client.post("modules", module, "actions", "stop", identity="shutdown", options={})
    deadline = None if timeout is None else time.monotonic() + timeout
    for module in running:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        _wait(where, module, ("STOP",), "NotReady", left, as_json=False)
    if not running:
        typer.echo("no module runs")


def prim(ctx: typer.Context, module: Module, word: Full = None, identity: Identity = None) -> None:
    """Start the module as primary: the data of this node are the good ones (mirror)."""
    _act(context(ctx), module, "prim", identity, fullsync=word is not None)


def primforce(ctx: typer.Context, module: Module, identity: Identity = None) -> None:
    """Start the module as primary even on data whose synchronisation did not end (mirror).

    A complete copy on the other node is overwritten by `safekit second fullsync` there, and by nothing else.
    """
    _act(context(ctx), module, "primforce", identity)


def second(ctx: typer.Context, module: Module, word: Full = None, identity: Identity = None) -> None:
    """Start the module as secondary: the data come from the other node (mirror)."""
    _act(context(ctx), module, "second", identity, fullsync=word is not None)


def secondforce(
    ctx: typer.Context,
    module: Module,
    date: Annotated[str, typer.Option("-d", metavar="DATE", help=f"Since then the copies may differ: {_DATE_FORMS}.")],
    identity: Identity = None,
) -> None:
    """Start the module as secondary on a copy that was made by hand (mirror). Whatever is changed since DATE is copied.

    Files that are older are compared all the same, and copied where they differ.
    """
    _act(context(ctx), module, "secondforce", identity, date=_date(date).isoformat())


def swap(
    ctx: typer.Context,
    module: Module,
    word: Annotated[
        NoSync | None,
        typer.Argument(metavar="[nosync]", help="Accepted: after a swap there is nothing to synchronise."),
    ] = None,
    identity: Identity = None,
) -> None:
    """Exchange primary and secondary (mirror)."""
    _act(context(ctx), module, "swap", identity, nosync=word is not None)


def waitstart(ctx: typer.Context, module: Module, timeout: Limit = None, as_json: Json = False) -> None:
    """Wait until the module serves or is ready to: ALONE, PRIM, SECOND or UP, Ready."""
    _wait(context(ctx), module, ("ALONE", "PRIM", "SECOND", "UP"), "Ready", timeout, as_json)


def waitstop(ctx: typer.Context, module: Module, timeout: Limit = None, as_json: Json = False) -> None:
    """Wait until the module is stopped."""
    _wait(context(ctx), module, ("STOP",), "NotReady", timeout, as_json)


def waitstate(
    ctx: typer.Context,
    module: Module,
    state: Annotated[
        Awaited,
        typer.Argument(metavar="|".join(Awaited), help="STOP and WAIT are waited for NotReady, the others Ready."),
    ],
    timeout: Limit = None,
    as_json: Json = False,
) -> None:
    """Wait until the module is in a state."""
    substate = "NotReady" if state in (Awaited.STOP, Awaited.WAIT) else "Ready"
    _wait(context(ctx), module, (state.value,), substate, timeout, as_json)


def _date(written: str) -> datetime:
    """A date of the command line, aware; without Z in the time of this node."""
    found = _DATE.fullmatch(written)
    try:
        date = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00:00'}") if found else None
    except ValueError:
        date = None
    if found is None or date is None:
        raise Failure(ExitCode.USAGE, f"-d {written}: not a date, expected {_DATE_FORMS}")
    return date.replace(tzinfo=UTC) if found[3] else date.astimezone()


def _act(where: Context, module: str, action: str, identity: str | None, **options: bool | str) -> None:
    done = where.client.post("modules", module, "actions", action, identity=identity, options=options)
    if not done["changed"]:
        typer.echo(f"{module}: nothing to do, it is {state_name(done['state'])}")
    elif identity is None:
        typer.echo(f"{module}: {action} begins; `safekit state -m {module}` shows how far it is")


def _wait(
    where: Context, module: str, states: tuple[str, ...], substate: str, timeout: float | None, as_json: bool
) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    if on_terminal() and not as_json:
        with _Bar() as bar:
            state = _await(where, module, states, substate, deadline, _SLICE_ON_TERMINAL_S, bar.show)
    else:
        state = _await(where, module, states, substate, deadline, _SLICE_S, lambda _: None)
    if state["state"] not in states or state["substate"] != substate:
        now = f"it is {state_name(state)} ({in_words(state)})"
        raise Failure(ExitCode.TIMEOUT, f"{module} did not reach {' or '.join(states)} in {timeout:g} s: {now}")
    if as_json:
        show_json(state)
    else:
        typer.echo(f"{module}: {state_name(state)}")


def _await(
    where: Context,
    module: str,
    states: tuple[str, ...],
    substate: str,
    deadline: float | None,
    longest: float,
    show: Callable[[Mapping[str, Any]], None],
) -> Mapping[str, Any]:
    """The state that was reached, or the last one before the deadline (a clock of `time.monotonic`)."""
    away_since: float | None = None
    while True:
        left = longest if deadline is None else max(min(longest, deadline - time.monotonic()), 0.0)
        query = {"state": ",".join(states), "substate": substate, "timeout": left}
        try:
            found: Mapping[str, Any] = where.client.get("modules", module, "wait", patience=left, **query)
            return found
        except Failure as trouble:
            if isinstance(trouble, ApiError) and trouble.error["code"] == "wait.timeout":
                away_since = None
                show(trouble.error["state"])
                if deadline is not None and time.monotonic() >= deadline:
                    last: Mapping[str, Any] = trouble.error["state"]
                    return last
            elif trouble.code is ExitCode.NOT_RUNNING:
                away_since = time.monotonic() if away_since is None else away_since
                if time.monotonic() - away_since > RESTART_PATIENCE_S:
                    raise
                time.sleep(0.2)
            else:
                raise


class _Bar:
    """One line on the terminal that says how far it is."""

    def __enter__(self) -> Self:
        from rich.console import Console

        self._status = Console().status("")
        self._status.start()
        return self

    def __exit__(self, *trouble: object) -> None:
        self._status.stop()

    def show(self, state: Mapping[str, Any]) -> None:
        """Say where the module is."""
        from rich.text import Text

        progress = state.get("progress")
        words = progress_line(progress) if progress else in_words(state)
        self._status.update(Text(f"{state_name(state)}: {words}"))
