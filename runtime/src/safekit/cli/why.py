"""`safekit why`: one line that answers, then the chain of changes and causes that led there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from safekit.cli.common import Json, Module, context
from safekit.cli.display import show_json, state_name

Moves = Annotated[int, typer.Option("-s", metavar="N", min=1, max=20000, help="How many moves, the last ones.")]
OneLine = Annotated[bool, typer.Option("-1", help="Only the line that answers.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel="Monitoring")(why)


def why(ctx: typer.Context, module: Module, moves: Moves = 1, short: OneLine = False, as_json: Json = False) -> None:
    """Show why the module is in its state, and what led there."""
    client = context(ctx).client
    state = client.get("modules", module, "state")
    changes = client.get("modules", module, "why", moves=moves)["changes"]
    if as_json:
        show_json({"state": state, "changes": changes})
        return
    last_move = [change for change in changes if change["move"] == changes[-1]["move"]]
    typer.echo(f"{module}: {in_one_line(state, last_move)}")
    if short:
        return
    for line in chain(changes):
        typer.echo(line)


def in_one_line(state: Mapping[str, Any], move: Sequence[Mapping[str, Any]]) -> str:
    """The state, its reason, what began the move that led to it, and what was heard just before it."""
    line = f"{state_name(state)}: {state['reason'] or 'no reason is known'}"
    if not move:
        return line
    causes = [cause["sentence"] for change in (move[0], move[-1]) for cause in change["causes"]]
    told = [
        sentence for sentence in dict.fromkeys([move[0]["reason"], *causes]) if sentence and sentence != state["reason"]
    ]
    return line + (f", because: {'; '.join(told)}" if told else "")


def chain(changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What was heard and what changed, in the order of time, a blank line between moves."""
    move = changes[0]["move"] if changes else 0
    for change in changes:
        if change["move"] != move:
            move = change["move"]
            yield ""
        for cause in change["causes"]:
            yield f"{_moment(cause['date'])}    {cause['sentence']}"
        yield f"{_moment(change['date'])}  {change['state']} {change['substate']} ({change['reason']})"


def _moment(date: str) -> str:
    return f"{datetime.fromisoformat(date).astimezone():%Y-%m-%d %H:%M:%S.%f}"[:-3]
