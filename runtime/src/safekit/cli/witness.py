"""`safekit witness …`: what this node remembers for the clusters that it is a witness of."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated

import typer

from safekit.cli.common import Json, context, read_file
from safekit.cli.display import show_json, table

ClusterName = Annotated[
    str,
    typer.Argument(metavar="CLUSTER", help="The name that <witness cluster=…> has in the cluster.xml of its nodes."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    witness = typer.Typer(no_args_is_help=True, help="Be the witness of clusters: remember who may serve.")
    for command in (state, serve, forget):
        witness.command()(command)
    app.add_typer(witness, name="witness", rich_help_panel="Configuration")


def state(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the clusters that this node is a witness of, and who may serve each of their modules."""
    info = context(ctx).client.get("witness")
    if as_json:
        show_json(info)
        return
    if info["trouble"]:
        typer.echo(info["trouble"], err=True)
    if not info["serving"]:
        typer.echo("this node is a witness of no cluster")
        return
    rows = []
    for cluster in info["clusters"]:
        for entry in cluster["registers"]:
            holders = entry["trouble"] or ", ".join(entry["holders"])
            rows.append((cluster["name"], entry["module"], str(entry["epoch"] or "-"), holders))
        if not cluster["registers"]:
            rows.append((cluster["name"], "-", "-", "no module has asked yet"))
    table(("CLUSTER", "MODULE", "EPOCH", "MAY SERVE"), rows)


def serve(
    ctx: typer.Context,
    cluster: ClusterName,
    nodes: Annotated[
        list[str], typer.Argument(metavar="NODE…", help="Every node of that cluster, as it is named there.")
    ],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The cluster.key of that cluster (32 bytes).")],
    port: Annotated[int | None, typer.Option("--port", help="The UDP port for all clusters, 4803 at first.")] = None,
    addr: Annotated[
        str | None, typer.Option("--addr", help="The only address to listen on, every one at first.")
    ] = None,
    replace_key: Annotated[bool, typer.Option("--replace-key", help="The cluster has another key now.")] = False,
) -> None:
    """Be a witness of a cluster from now on."""
    encoded = base64.b64encode(read_file(key)).decode()
    done = context(ctx).client.put(
        "witness", "clusters", cluster, key=encoded, nodes=nodes, port=port, addr=addr, replace_key=replace_key
    )
    typer.echo(f"witness: {cluster} {'is served' if done['changed'] else 'was served already'}")


def forget(ctx: typer.Context, cluster: ClusterName) -> None:
    """Be a witness of a cluster no longer, and forget who may serve its modules.

    A new witness learns it when both nodes of a module are there.
    """
    done = context(ctx).client.delete("witness", "clusters", cluster)
    typer.echo(f"witness: {cluster} {'is forgotten' if done['changed'] else 'was not served'}")
