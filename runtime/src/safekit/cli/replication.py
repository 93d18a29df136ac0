"""Commands about the replicated directories of a mirror (spec §4.9.3, §4.9.4, §4.9.6)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from safekit.cli.common import Context, Json, Module, context
from safekit.cli.display import lasted, on_terminal, show_json, size, table
from safekit.cli.exit_codes import ExitCode, Failure, Finished

_SLICE_S = 30.0
_SLICE_ON_TERMINAL_S = 1.0
_FORMS = "full, default, external prim UID, external second UID, or -d prim UID, -d second UID"
_ROLES = ("prim", "second")

Wait = Annotated[bool, typer.Option("--no-wait", help="Begin, and do not wait for the end.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    group = typer.Typer(name="rfs", help="Look at the replication of a module.", no_args_is_help=True)
    group.command("stats")(stats)
    app.add_typer(group, rich_help_panel="Replication")
    for command in (rfsverify, rfsdiff, rfssync):
        app.command(rich_help_panel="Replication")(command)


def stats(ctx: typer.Context, module: Module, as_json: Json = False) -> None:
    """Show counters, queues and latencies of the replication on this node; the histograms only with --json."""
    answer = context(ctx).client.get("modules", module, "rfs", "stats")
    if as_json:
        show_json(answer)
        return
    shown = [(name, value) for name, value in answer["stats"].items() if not name.endswith("_histogram")]
    table(("METRIC", "VALUE", ""), [(name, str(value), _unit(name, value)) for name, value in shown])


def _unit(name: str, value: object) -> str:
    """A number in words, where its name says what it counts."""
    if not isinstance(value, int):
        return ""
    if name.endswith("_bytes"):
        return size(value) + ("/s" if "_bandwidth_" in name else "")
    if name.endswith("_us") and value >= 1000:
        return f"{value / 1000:.1f} ms"
    return ""


def rfsverify(ctx: typer.Context, module: Module, no_wait: Wait = False, as_json: Json = False) -> None:
    """Compare the two copies by content, while the application works. Exit code 17: they differ."""
    _compare(context(ctx), module, "verify", no_wait, as_json)


def rfsdiff(ctx: typer.Context, module: Module, no_wait: Wait = False, as_json: Json = False) -> None:
    """Count what a synchronisation would copy, and copy nothing. Exit code 17: there is something."""
    _compare(context(ctx), module, "diff", no_wait, as_json)


def _compare(where: Context, module: str, kind: str, no_wait: bool, as_json: bool) -> None:
    found: Mapping[str, Any] = where.client.post("modules", module, "rfs", "comparison", kind=kind)
    patience = _SLICE_ON_TERMINAL_S if on_terminal() and not as_json else _SLICE_S
    while found["running"] and not no_wait:
        answer = where.client.get("modules", module, "rfs", "comparison", patience=patience, wait=patience)
        found = answer["comparison"]
        if on_terminal() and not as_json and found["running"]:
            typer.echo(f"\r{_progress(found)}", nl=False)
    if as_json:
        show_json(found)
    else:
        _show(module, found)
    if found["failed"]:
        raise Failure(ExitCode.REFUSED, f"{module}: the comparison failed: {found['failed']}")
    if found["equal"] is False:
        raise Finished(ExitCode.DIFFERENT)


def _progress(found: Mapping[str, Any]) -> str:
    total = f" of {size(found['bytes_total'])}" if found["bytes_total"] else ""
    return f"{found['files_done']} files, {size(found['bytes_done'])}{total} compared  "


def _show(module: str, found: Mapping[str, Any]) -> None:
    if found["running"]:
        typer.echo(f"{module}: the comparison goes on; `safekit log -m {module}` shows its end")
        return
    if found["failed"]:
        return
    took = lasted(datetime.fromisoformat(found["ended"]) - datetime.fromisoformat(found["since"]))
    compared = f"{found['files_done']} files, {size(found['bytes_done'])} compared in {took}"
    if found["equal"]:
        typer.echo(f"{module}: the copies are equal ({compared})")
        return
    for entry in found["entries"]:
        typer.echo(entry)
    differing = f"{found['differing_files']} files, {size(found['differing_bytes'])} to copy"
    typer.echo(f"{module}: the copies differ: {differing} ({compared})")
    if found["list"]:
        typer.echo(f"{module}: all of them: {found['list']}")


def rfssync(
    ctx: typer.Context,
    module: Module,
    words: Annotated[list[str], typer.Argument(metavar="full|default|external prim|second UID", show_default=False)],
    unchecked: Annotated[
        bool, typer.Option("-d", help="External, and changes between the backup and the start are not looked for.")
    ] = False,
) -> None:
    """Choose how the next synchronisation begins: everything (full), as always (default), or from a backup that was
    made on one node and restored on the other (external); UID names the backup, the same on both nodes."""
    given = (["external", *words] if words[0] != "external" else words) if unchecked else words
    mode, *rest = given
    body: dict[str, Any] = {"mode": mode, "unchecked": unchecked}
    if mode == "external" and len(rest) == 2 and rest[0] in _ROLES:
        body |= {"role": rest[0], "uid": rest[1]}
    elif mode not in ("full", "default") or rest:
        raise Failure(ExitCode.USAGE, f"rfssync {' '.join(words)}: expected {_FORMS}")
    done = context(ctx).client.put("modules", module, "rfs", "sync", **body)
    if not done["changed"]:
        typer.echo(f"{module}: nothing to do, this is the policy already")
