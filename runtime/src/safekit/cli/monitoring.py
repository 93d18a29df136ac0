"""Commands that look: states, logs, resources."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from safekit.cli.client import ApiError, NotRunning
from safekit.cli.common import Context, Identity, Json, Lines, Module, OptionalModule, Verbose, context
from safekit.cli.control import RESTART_PATIENCE_S
from safekit.cli.display import in_words, local_time, progress_line, show_json, since, state_name, table
from safekit.cli.exit_codes import STATE_CODES, ExitCode, Failure, Finished

_FOLLOW_S = 60
_UNREACHABLE = {"state": "UNKNOWN", "substate": "", "reason": "", "detail": "", "since": None}


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Monitoring")(state)
    app.command(rich_help_panel="Monitoring")(log)
    app.command(rich_help_panel="Monitoring")(logview)
    app.command(rich_help_panel="Monitoring")(cmdlog)
    app.command("get", rich_help_panel="Resources")(get_resource)
    app.command("set", rich_help_panel="Resources")(set_resource)
    app.command(rich_help_panel="For scripts")(printi)
    app.command(rich_help_panel="For scripts")(printe)
    for helper in (incloop, resetloop, checkloop):
        app.command(rich_help_panel="For scripts")(helper)


def state(
    ctx: typer.Context,
    module: OptionalModule = None,
    verbose: Annotated[bool, typer.Option("-v", help="Also every resource (with -m).")] = False,
    quiet: Annotated[bool, typer.Option("-lq", help="Print nothing; the exit code is the state (with -m).")] = False,
    as_json: Json = False,
) -> None:
    """Show the state of every module on every node, or of one."""
    where = context(ctx)
    if module is None and (verbose or quiet):
        raise Failure(ExitCode.USAGE, "-v and -lq need -m AM")
    if quiet:
        assert module is not None
        name = where.client.get("modules", module, "state")["state"]
        if name not in STATE_CODES:
            raise Failure(ExitCode.REFUSED, f"{module} is not configured: `safekit config -m {module}`")
        raise Finished(STATE_CODES[name])
    modules = where.client.get("modules")["modules"] if module is None else [where.client.get("modules", module)]
    if as_json:
        answer: dict[str, Any] = {"modules": modules, "nodes": list(_nodes(where))}
        if verbose:
            answer["resources"] = where.client.get("modules", str(module), "resources")["resources"]
        show_json(answer)
        return
    if not modules:
        typer.echo("no module is installed on this node")
        return
    now = datetime.now(UTC)
    here = where.client.get("node")
    rows = []
    for one in modules:
        for node, there in _states_of(one, here["name"] or here["hostname"], list(_nodes(where))):
            rows.append(_row(one, node, there, now))
    table(("MODULE", "MODE", "NODE", "STATE", "WHAT IT DOES", "SINCE", "WHY"), rows, colour="STATE")
    for one in modules:
        _more(one)
    if verbose:
        typer.echo("")
        resources = where.client.get("modules", str(module), "resources")["resources"]
        table(
            ("RESOURCE", "VALUE", "SINCE"),
            [(entry["name"], entry["value"], local_time(entry["date"])) for entry in resources],
        )


def _nodes(where: Context) -> Iterator[Mapping[str, Any]]:
    """The nodes of the cluster, none before it is configured."""
    try:
        yield from where.client.get("cluster", "state")["nodes"]
    except ApiError as refusal:
        if refusal.error["code"] != "cluster.not_configured":
            raise


def _states_of(
    module: Mapping[str, Any], here: str, nodes: list[Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The state of a module on each node that has it; this node first."""
    yield here, module["state"]
    for node in nodes:
        if node["name"] == here:
            continue
        if not node["reachable"]:
            yield node["name"], _UNREACHABLE
        for there in node["modules"]:
            if there["name"] == module["name"]:
                yield node["name"], {"detail": "", "reason": "", "since": None, **there}


def _row(module: Mapping[str, Any], node: str, there: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    words = ", ".join(part for part in (in_words(there), there["detail"]) if part)
    return (
        module["name"],
        module["mode"] or "-",
        node,
        "ERROR" if there is _UNREACHABLE else state_name(there),
        words,
        since(there["since"], now),
        there["reason"] or "-",
    )


def _more(module: Mapping[str, Any]) -> None:
    """What does not fit in the line of a module: how far it is, and what would happen at a failure."""
    here = module["state"]
    if here["progress"]:
        typer.echo(f"{module['name']}: {progress_line(here['progress'])}")
    if here["automatic_failover"]:
        typer.echo(f"{module['name']}: automatic failover: {here['automatic_failover']}")


def log(
    ctx: typer.Context, module: Module, lines: Lines = 300, verbose: Verbose = False, as_json: Json = False
) -> None:
    """Show the last messages of a module."""
    entries = context(ctx).client.get("modules", module, "log", lines=lines, verbose=verbose)["entries"]
    if as_json:
        show_json({"entries": entries})
        return
    for entry in entries:
        _show_entry(entry)


def logview(
    ctx: typer.Context, module: Module, lines: Lines = 10, verbose: Verbose = False, as_json: Json = False
) -> None:
    """Follow the messages of a module until Ctrl-C; `--json` prints one object per line."""
    client = context(ctx).client
    entries = client.get("modules", module, "log", lines=lines, verbose=verbose)["entries"]
    after = 0
    away_since: float | None = None
    while True:
        for entry in entries:
            after = entry["id"]
            if as_json:
                typer.echo(json.dumps(entry, ensure_ascii=False))
            else:
                _show_entry(entry)
        try:
            entries = client.get(
                *("modules", module, "log"), patience=_FOLLOW_S, after=after, wait=_FOLLOW_S, verbose=verbose
            )["entries"]
            away_since = None
        except (NotRunning, ApiError) as trouble:
            if trouble.code is not ExitCode.NOT_RUNNING:
                raise
            away_since = time.monotonic() if away_since is None else away_since
            if time.monotonic() - away_since > RESTART_PATIENCE_S:
                raise
            entries = []
            time.sleep(0.2)


def _show_entry(entry: Mapping[str, Any]) -> None:
    date = datetime.fromisoformat(entry["date"]).astimezone()
    typer.echo(f"{date:%Y-%m-%d %H:%M:%S.%f} | {entry['origin']} | {entry['level']} | {entry['message']}")


def cmdlog(ctx: typer.Context, lines: Lines = 300, as_json: Json = False) -> None:
    """Show what was asked of this node, by whom, and how it ended."""
    entries = context(ctx).client.get("cmdlog", lines=lines)["entries"]
    if as_json:
        show_json({"entries": entries})
        return
    columns = ("DATE", "COMMAND", "MODULE", "WHO", "PHASE", "ARGUMENTS OR RESULT")
    rows = [
        (local_time(one["date"]), one["type"], one["module"] or "-", one["who"], one["phase"], one["message"])
        for one in entries
    ]
    table(columns, rows)


Resource = Annotated[str, typer.Option("-r", metavar="RESOURCE", help="The resource: class.id.")]


def get_resource(ctx: typer.Context, module: Module, resource: Resource, as_json: Json = False) -> None:
    """Show the value of a resource."""
    value = context(ctx).client.get("modules", module, "resources", resource, history=100 if as_json else 1)
    if as_json:
        show_json(value)
    else:
        typer.echo(value["value"])


def set_resource(
    ctx: typer.Context,
    module: Module,
    resource: Resource,
    value: Annotated[str, typer.Option("-v", metavar="VALUE", help="Its value, for example up or down.")],
    identity: Identity = None,
) -> None:
    """Give a resource a value."""
    context(ctx).client.put("modules", module, "resources", resource, value=value, identity=identity)


Speaker = Annotated[str | None, typer.Option("-i", metavar="IDENTITY", help="Who says it, instead of `userplug`.")]
Message = Annotated[str, typer.Argument(metavar="MESSAGE", help="The message.")]


def printi(ctx: typer.Context, module: Module, message: Message, identity: Speaker = None) -> None:
    """Put an information in the log of the module (shown with -A)."""
    context(ctx).client.post("modules", module, "log", level="I", message=message, identity=identity)


def printe(ctx: typer.Context, module: Module, message: Message, identity: Speaker = None) -> None:
    """Put an event in the log of the module."""
    context(ctx).client.post("modules", module, "log", level="E", message=message, identity=identity)


def incloop(ctx: typer.Context, module: Module, identity: Identity = None) -> None:
    """Count an automatic action of a handler for `maxloop`; exit code 1 when the limit is reached."""
    _loop(ctx, module, "inc", identity)


def resetloop(ctx: typer.Context, module: Module, identity: Identity = None) -> None:
    """Begin the count of automatic actions anew."""
    _loop(ctx, module, "reset", identity)


def checkloop(ctx: typer.Context, module: Module) -> None:
    """Whether `maxloop` automatic actions were counted within `loop_interval`: exit code 1 when they were."""
    _loop(ctx, module, "check", None)


def _loop(ctx: typer.Context, module: str, what: str, identity: str | None) -> None:
    done = context(ctx).client.post("modules", module, "loop", what=what, identity=identity)
    if done["reached"]:
        raise Finished(1)
