"""Commands about a farm: who serves which clients (spec §5.3), and when (spec §5.6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from safekit.cli.common import Json, Module, context
from safekit.cli.display import show_json, table

_SIGNS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ROW = 64

Map = Annotated[bool, typer.Option("--map", help="Also the owner of each bucket, a character for its node.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    group = typer.Typer(name="farm", help="Look at the sharing of a farm module, or control it.", no_args_is_help=True)
    group.callback()(_farm)
    group.command("show")(show)
    group.command("open")(open_)
    group.command("close")(close)
    app.add_typer(group, rich_help_panel="Farm")


def _farm() -> None:
    """Look at the sharing of a farm module, or control it."""


def show(ctx: typer.Context, module: Module, buckets: Map = False, as_json: Json = False) -> None:
    """Show the farm in the eyes of this node: owners of the buckets, connections, packets by what became of them."""
    found: Mapping[str, Any] = context(ctx).client.get("modules", module, "farm")
    if as_json:
        show_json(found)
        return
    if not found["in_service"]:
        typer.echo(f"{module}: {found['node']} is not in service: it has no virtual address and takes no client")
        return
    kept_out = "" if found["open"] else " (closed: it takes no new client)"
    if (left := found.get("drains_for_s")) is not None:
        kept_out = f" (draining: stops when its connections have ended, in {left:.0f} s at the latest)"
    typer.echo(f"{module} on {found['node']}, in service: {', '.join(found['nodes'])}{kept_out}\n")
    shares = [
        (group["name"], share["node"], str(share["buckets"]), f"{share['percent']:.1f} %")
        for group in found["groups"]
        for share in group["shares"]
    ]
    table(("GROUP", "NODE", "BUCKETS", "SHARE"), shares)
    typer.echo()
    uses = [
        (one["address"], one["resolved_by"] or "owner of who asks", str(one["connections"]), str(one["elsewhere"]))
        for one in found["addresses"]
    ]
    table(("ADDRESS", "RESOLVED BY", "CONNECTIONS", "OF OTHERS' BUCKETS"), uses)
    typer.echo()
    table(("PACKETS", "COUNT"), [(name, str(count)) for name, count in sorted(found["packets"].items())])
    if buckets:
        for line in _drawn(found["nodes"], found["groups"]):
            typer.echo(line)


def open_(ctx: typer.Context, module: Module) -> None:
    """Let clients in: this node takes its share (with scriptcontrol="on")."""
    context(ctx).client.put("modules", module, "farm", open=True)


def close(ctx: typer.Context, module: Module) -> None:
    """Let no new client in; those that are connected stay (with scriptcontrol="on")."""
    context(ctx).client.put("modules", module, "farm", open=False)


def _drawn(nodes: Sequence[str], groups: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each group as rows of buckets, and what the characters mean."""
    signs = [_SIGNS[number] if number < len(_SIGNS) else "?" for number in range(len(nodes))]
    yield ""
    yield ", ".join(f"{sign} {node}" for sign, node in zip(signs, nodes, strict=True)) + ", - nobody"
    for group in groups:
        owners = "".join("-" if owner is None else signs[owner] for owner in group["owners"])
        yield f"\n{group['name']}"
        for start in range(0, len(owners), _ROW):
            yield f"{start:5} {owners[start : start + _ROW]}"
