"""`safekit why`: one line that answers, then the chain of changes and causes that led there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Annotated, Any

import typer

from safekit.cli.common import Json, Module, context
from safekit.cli.display import show_json, state_name

SERVES = ("ALONE", "PRIM", "UP")
MAINTENANCE = (("usersetting.checker", "off"), ("usersetting.errd", "off"))
LOOKS_BACK = 10
"""How many moves are looked at for the last one in which the node began to serve, or ceased to."""

Moves = Annotated[int, typer.Option("-s", metavar="N", min=1, max=20000, help="How many moves, the last ones.")]
OneLine = Annotated[bool, typer.Option("-1", help="Only the line that answers.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel="Monitoring")(why)


def why(ctx: typer.Context, module: Module, moves: Moves = 1, short: OneLine = False, as_json: Json = False) -> None:
    """Show why the module is in its state, and what led there."""
    client = context(ctx).client
    state = client.get("modules", module, "state")
    known = client.get("modules", module, "why", moves=max(moves, LOOKS_BACK))["changes"]
    numbers = sorted({change["move"] for change in known})[-moves:]
    changes = [change for change in known if change["move"] in numbers]
    if as_json:
        show_json({"state": state, "changes": changes})
        return
    off = [
        one["name"].removeprefix("usersetting.")
        for one in client.get("modules", module, "resources")["resources"]
        if (one["name"], one["value"]) in MAINTENANCE
    ]
    typer.echo(f"{module}: {in_one_line(state, known, off)}")
    if short:
        return
    for line in chain(changes):
        typer.echo(line)


def in_one_line(state: Mapping[str, Any], changes: Sequence[Mapping[str, Any]], off: Sequence[str] = ()) -> str:
    """The state, its reason, and what led to it; since when and why the node serves, or no longer does, when that was an
    earlier move; what an administrator switched `off`.
    """
    line = f"{state_name(state)}: {state['reason'] or 'no reason is known'}"
    moves = [list(move) for _, move in groupby(changes, key=lambda change: change["move"])]
    if moves and (told := [one for one in _explanation(moves[-1]) if one != state["reason"]]):
        line += f", because: {'; '.join(told)}"
    if turn := _turn(moves):
        serves = "it serves" if moves[-1][-1]["state"] in SERVES else "it serves no more"
        line += f"; {serves} since {_moment(turn[-1]['date'])[:-4]}: {'; '.join(_explanation(turn))}"
    if off:
        line += f"; switched off: {', '.join(off)}"
    return line


def _explanation(move: Sequence[Mapping[str, Any]]) -> list[str]:
    """What began a move, and what was heard just before it and before its end."""
    causes = [cause["sentence"] for change in (move[0], move[-1]) for cause in change["causes"]]
    return [sentence for sentence in dict.fromkeys([move[0]["reason"], *causes]) if sentence]


def _turn(moves: Sequence[Sequence[Mapping[str, Any]]]) -> Sequence[Mapping[str, Any]]:
    """The move before the last one in which the node began to serve, or ceased to; empty when the last one did."""
    ends = [move[-1]["state"] in SERVES for move in moves]
    for number in range(len(moves) - 1, 0, -1):
        if ends[number] is not ends[number - 1]:
            return moves[number] if number < len(moves) - 1 else ()
    return ()


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
