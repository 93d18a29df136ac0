"""`safekit cluster …`: the configuration of the nodes."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from safekit.cli.common import Json, context, read_file, warn, write_file
from safekit.cli.display import local_time, show_json, table
from safekit.cli.exit_codes import ExitCode, Failure

_XML, _KEY = "cluster.xml", "cluster.key"
_MEMBER_LIMIT = 4 * 1024 * 1024


class Lock(StrEnum):
    """Whether later configurations are refused."""

    LOCK = "lock"
    UNLOCK = "unlock"


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    cluster = typer.Typer(no_args_is_help=True, help="Configure the cluster that this node belongs to.")
    for command in (config, confcheck, confinfo, deconfig, state, genkey, package):
        cluster.command()(command)
    app.add_typer(cluster, name="cluster", rich_help_panel="Configuration")


def config(
    ctx: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="cluster.xml, or a zip with cluster.xml and cluster.key (see `package`)."
        ),
    ] = None,
    lock: Annotated[
        Lock | None, typer.Argument(metavar="[lock|unlock]", help="Refuse later configurations, or allow them again.")
    ] = None,
) -> None:
    """Apply the cluster configuration on this node.

    A cluster.xml keeps the key that the node has, or makes one; a zip brings its own. Without FILE the present
    configuration gets a new key. The key must be the same on every node.
    """
    client = context(ctx).client
    words = {word.value: word for word in Lock}
    if lock is None and file is not None and file in words:
        lock, file = words[file], None
    if file is None and lock is None:
        genkey(ctx)
        return
    key: bytes | None = None
    if file is None:
        present = client.get("cluster")
        if not present["configured"]:
            raise Failure(ExitCode.REFUSED, "the node belongs to no cluster yet: `safekit cluster config FILE`")
        xml = present["xml"]
    else:
        xml, key = _read(Path(file))
    encoded = None if key is None else base64.b64encode(key).decode()
    done = client.put("cluster", xml=xml, key=encoded, lock=None if lock is None else lock.value)
    warn(done["warnings"])
    typer.echo(f"cluster: {'applied' if done['changed'] else 'unchanged'}, signature {done['signature']}")


def confcheck(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A cluster.xml or a zip.")],
    as_json: Json = False,
) -> None:
    """Check a cluster configuration and change nothing."""
    warnings = context(ctx).client.post("cluster", "confcheck", xml=_read(file)[0])["warnings"]
    if as_json:
        show_json({"warnings": warnings})
        return
    warn(warnings)
    typer.echo(f"{file}: valid")


def confinfo(ctx: typer.Context, as_json: Json = False) -> None:
    """Show signature and date of the applied configuration here, and the signature of each other node."""
    client = context(ctx).client
    cluster = client.get("cluster")
    nodes = client.get("cluster", "state")["nodes"] if cluster["configured"] else []
    if as_json:
        show_json({"cluster": cluster, "nodes": nodes})
        return
    if not cluster["configured"]:
        typer.echo("the node belongs to no cluster yet")
        return
    rows = []
    for node in nodes:
        here = node["name"] == cluster["node"]
        signature = cluster["signature"] if here else node["signature"]
        if not node["reachable"] and not here:
            verdict = "does not answer"
        else:
            verdict = "same" if signature == cluster["signature"] else "DIFFERENT"
        locked = ("yes" if cluster["locked"] else "no") if here else "-"
        rows.append((node["name"], signature or "-", local_time(cluster["date"]) if here else "-", locked, verdict))
    table(("NODE", "SIGNATURE", "DATE", "LOCKED", "COMPARED"), rows)


def deconfig(ctx: typer.Context) -> None:
    """Remove the cluster configuration and its key from this node."""
    done = context(ctx).client.delete("cluster")
    typer.echo("cluster: removed" if done["changed"] else "cluster: there was none")


def state(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the modules of every node."""
    nodes = context(ctx).client.get("cluster", "state")["nodes"]
    if as_json:
        show_json({"nodes": nodes})
        return
    rows: list[tuple[str, ...]] = []
    for node in nodes:
        if not node["reachable"]:
            rows.append((node["name"], "-", "-", "-", "does not answer", "-", "-"))
        elif not node["modules"]:
            rows.append((node["name"], "-", "-", "-", "no module", "-", "-"))
        rows += [_module_row(node["name"], module) for module in node["modules"]]
    table(("NODE", "MODULE", "MODE", "ID", "STATE", "CONFIGURED", "SIGNATURE"), rows, colour="STATE")


def genkey(ctx: typer.Context) -> None:
    """Give the cluster a new key.

    The other nodes need it too: `cluster package` here, `cluster config FILE.zip` there.
    """
    context(ctx).client.post("cluster", "key")
    typer.echo("cluster: new key")


def package(
    ctx: typer.Context, file: Annotated[Path, typer.Argument(metavar="FILE", help="The zip to write.")]
) -> None:
    """Write configuration and key of the cluster into a zip for `cluster config` on another node. Keep it secret."""
    client = context(ctx).client
    cluster, key = client.get("cluster"), client.get("cluster", "key")["key"]
    if not cluster["configured"]:
        raise Failure(ExitCode.REFUSED, "the node belongs to no cluster yet: `safekit cluster config FILE`")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_XML, cluster["xml"])
        if key is not None:
            archive.writestr(_KEY, base64.b64decode(key))
    write_file(file, content.getvalue())
    typer.echo(f"{file}: written")


def _module_row(node: str, module: dict[str, Any]) -> tuple[str, ...]:
    return (
        node,
        module["name"],
        module["mode"] or "-",
        str(module["id"]),
        f"{module['state']} {module['substate']}",
        local_time(module["date"]),
        module["signature"] or "-",
    )


def _read(file: Path) -> tuple[str, bytes | None]:
    """The configuration in a file and the key beside it, if there is one."""
    content, key = read_file(file), None
    name = str(file)
    if content.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for member in archive.infolist():
                    if member.file_size > _MEMBER_LIMIT:
                        raise Failure(ExitCode.USAGE, f"{file}: {member.filename} is larger than 4 MiB")
                content = archive.read(_XML)
                key = archive.read(_KEY) if _KEY in archive.namelist() else None
        except KeyError:
            raise Failure(ExitCode.USAGE, f"{file}: the zip holds no {_XML}") from None
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as trouble:
            raise Failure(ExitCode.USAGE, f"{file} is no readable zip: {trouble}") from None
        name = f"{file}{os.sep}{_XML}"
    try:
        return content.decode("utf-8-sig"), key
    except UnicodeDecodeError:
        raise Failure(ExitCode.USAGE, f"{name} is not UTF-8") from None
