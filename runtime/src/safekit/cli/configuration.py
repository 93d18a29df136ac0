"""Commands that install and configure modules, and those about the node itself."""

from __future__ import annotations

import base64
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from safekit.cli.common import Context, Json, Module, OptionalModule, context, read_file, warn, write_file
from safekit.cli.display import lasted, local_time, show_json, table
from safekit.cli.exit_codes import ExitCode, Failure


class Switch(StrEnum):
    """What `boot`, `checker`, `errd` and `failover` can be asked."""

    ON = "on"
    OFF = "off"
    STATUS = "status"


Word = Annotated[Switch, typer.Argument(metavar="|".join(Switch))]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (config, update, deconfig, confcheck, confinfo, boot, checker, errd, failover):
        app.command(rich_help_panel="Configuration")(command)
    app.command(rich_help_panel="Node")(level)
    module = typer.Typer(no_args_is_help=True, help="Install, package and remove modules.")
    module.command()(install)
    module.command()(package)
    module.command()(uninstall)
    module.command("list")(list_modules)
    module.command()(listid)
    module.command()(getports)
    app.add_typer(module, name="module", rich_help_panel="Configuration")


def config(ctx: typer.Context, module: Module) -> None:
    """Apply the edited configuration of the module; while it runs, only what may change then."""
    done = context(ctx).client.post("modules", module, "config", check=False)
    warn(done["warnings"])
    typer.echo(f"{module}: {'applied' if done['changed'] else 'unchanged'}, signature {done['signature']}")


def update(ctx: typer.Context, module: Module) -> None:
    """Take changes of the configuration over while the module runs, and call its script `update`."""
    done = context(ctx).client.post("modules", module, "update")
    warn(done["warnings"])
    typer.echo(f"{module}: {'updated' if done['changed'] else 'unchanged'}, signature {done['signature']}")


def deconfig(ctx: typer.Context, module: Module) -> None:
    """Take the configuration of the module back; its edited files stay."""
    done = context(ctx).client.post("modules", module, "deconfig")
    typer.echo(f"{module}: {'no longer configured' if done['changed'] else 'was not configured'}")


def confcheck(ctx: typer.Context, module: Module, as_json: Json = False) -> None:
    """Check the edited configuration of the module and change nothing."""
    warnings = context(ctx).client.post("modules", module, "confcheck")["warnings"]
    if as_json:
        show_json({"warnings": warnings})
        return
    warn(warnings)
    typer.echo(f"{module}: valid")


def confinfo(ctx: typer.Context, module: Module, as_json: Json = False) -> None:
    """Show whether the edited configuration of the module is the applied one."""
    info = context(ctx).client.get("modules", module)
    facts = {name: info[name] for name in ("name", "configured", "signature", "date", "edited_signature")}
    if as_json:
        show_json(facts)
        return
    same = "applied" if info["signature"] == info["edited_signature"] else f"not applied: `safekit config -m {module}`"
    rows = (
        ("active", info["signature"] or "-", local_time(info["date"])),
        ("current", info["edited_signature"] or "-", same),
    )
    table(("CONFIGURATION", "SIGNATURE", "DATE"), rows)


def boot(
    ctx: typer.Context,
    word: Word,
    module: Module,
    as_json: Json = False,
) -> None:
    """Start the module when this node boots, or not, or show which."""
    client = context(ctx).client
    if word is not Switch.STATUS:
        client.put("modules", module, "boot", boot=word.value)
    status = client.get("modules", module)["boot"]
    if as_json:
        show_json({"name": module, "boot": status})
    else:
        typer.echo(f"{module}: boot {status}")


def checker(ctx: typer.Context, word: Word, module: Module, as_json: Json = False) -> None:
    """Let the checkers of the module test, or not (maintenance), or show which; it outlives stops and reboots."""
    _switch(context(ctx), "checker", word, module, as_json)


class ErrdWord(StrEnum):
    """What `errd` can be asked."""

    ON = "on"
    OFF = "off"
    STATUS = "status"
    ENABLE = "enable"
    DISABLE = "disable"
    LIST = "list"


def errd(
    ctx: typer.Context,
    word: Annotated[ErrdWord, typer.Argument(metavar="|".join(ErrdWord))],
    module: Module,
    class_: Annotated[
        str | None, typer.Argument(metavar="[CLASS]", help="With `enable` and `disable`: the class of processes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let the processes of the module be watched, or not (maintenance), or show which; it outlives stops and reboots.

    `enable` and `disable` are for one class of processes, until the module stops; `list` shows all.
    """
    where = context(ctx)
    if (class_ is not None) is not (word in (ErrdWord.ENABLE, ErrdWord.DISABLE)):
        raise Failure(ExitCode.USAGE, "`errd enable` and `errd disable`, and only they, need a class")
    if class_ is not None:
        value = "on" if word is ErrdWord.ENABLE else "off"
        where.client.put("modules", module, "errd", class_, value=value)
        typer.echo(f"{module}: errd {word} {class_}")
    elif word is ErrdWord.LIST:
        processes = where.client.get("modules", module, "errd")["processes"]
        if as_json:
            show_json({"processes": processes})
            return
        rows = [(p["name"], p["class"], "yes" if p["enabled"] else "no", p["action"], p["value"]) for p in processes]
        table(("PROCESS", "CLASS", "ENABLED", "ACTION", "RESOURCE"), rows)
    else:
        _switch(where, "errd", Switch(word.value), module, as_json)


def failover(ctx: typer.Context, word: Word, module: Module, as_json: Json = False) -> None:
    """Let this node, as secondary, take over by itself, or not, or show which (mirror); ask it on both nodes."""
    _switch(context(ctx), "failover", word, module, as_json)


def _switch(where: Context, name: str, word: Switch, module: str, as_json: bool) -> None:
    if word is not Switch.STATUS:
        where.client.put("modules", module, name, value=word.value)
    status = where.client.get("modules", module, "resources", f"usersetting.{name}")["value"]
    if as_json:
        show_json({"name": module, name: status})
    else:
        typer.echo(f"{module}: {name} {status}")


def level(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the version, the system and the licence of this node."""
    node = context(ctx).client.get("node")
    if as_json:
        show_json(node)
        return
    from datetime import timedelta

    typer.echo(f"safekit {node['version']}")
    typer.echo(f"node    {node['name'] or '-'} on host {node['hostname']}")
    typer.echo(f"system  {node['os']}")
    typer.echo("licence GPL-3.0-or-later: it needs no key and has no limit")
    typer.echo(f"safekitd runs since {lasted(timedelta(seconds=node['uptime_s']))}")


def install(
    ctx: typer.Context,
    module: Module,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="The package, a path or a name in Application_Modules; without it, AM.safe there."
        ),
    ] = None,
    identifier: Annotated[
        int | None, typer.Option("-M", metavar="ID", min=1, help="The id, equal on every node; decides the ports.")
    ] = None,
    replace: Annotated[bool, typer.Option("-r", help="Replace the module if it is installed.")] = False,
) -> None:
    """Install a module from a package."""
    where = context(ctx)
    content = base64.b64encode(read_file(_find(where, file or f"{module}.safe"))).decode()
    done = where.client.put("modules", module, package=content, id=identifier, check=False, replace=replace)
    warn(done["warnings"])
    typer.echo(f"{module}: {'installed' if done['changed'] else 'unchanged'}, id {done['id']}")


def package(
    ctx: typer.Context,
    module: Module,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .safe to write.")],
) -> None:
    """Write the edited tree of the module into a package."""
    answer = context(ctx).client.get("modules", module, "package")
    write_file(file, base64.b64decode(answer["package"]))
    typer.echo(f"{file}: written")


def uninstall(ctx: typer.Context, module: Module) -> None:
    """Remove the module from this node."""
    done = context(ctx).client.delete("modules", module)
    typer.echo(f"{module}: {'removed' if done['changed'] else 'was not installed'}")


def list_modules(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the names of the installed modules."""
    modules = _modules(ctx)
    if as_json:
        show_json({"modules": [module["name"] for module in modules]})
        return
    for module in modules:
        typer.echo(module["name"])


def listid(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the installed modules with their ids."""
    modules = _modules(ctx)
    if as_json:
        show_json({"modules": [{"name": module["name"], "id": module["id"]} for module in modules]})
        return
    for module in modules:
        typer.echo(f"{module['id']} {module['name']}")


def getports(
    ctx: typer.Context,
    module: OptionalModule = None,
    identifier: Annotated[int | None, typer.Option("-i", metavar="ID", help="The id instead of the name.")] = None,
    as_json: Json = False,
) -> None:
    """Show the ports of a module."""
    found = [
        one for one in _modules(ctx) if (one["id"] == identifier if identifier is not None else one["name"] == module)
    ]
    if not found:
        wanted = f"id {identifier}" if identifier is not None else module
        if wanted is None:
            raise Failure(ExitCode.USAGE, "give -m AM or -i ID")
        raise Failure(ExitCode.UNKNOWN, f"no module {wanted} is installed on this node")
    if as_json:
        show_json({"name": found[0]["name"], "id": found[0]["id"], "ports": found[0]["ports"]})
        return
    for name, port in found[0]["ports"].items():
        typer.echo(f"{name} {port}")


def _modules(ctx: typer.Context) -> list[dict[str, Any]]:
    modules: list[dict[str, Any]] = context(ctx).client.get("modules")["modules"]
    return modules


def _find(where: Context, name: str) -> Path:
    """A package: the path itself, or that name somewhere in Application_Modules."""
    if (file := Path(name)).exists():
        return file
    catalogue = where.paths.safe / "Application_Modules"
    if file.name == name:
        for found in sorted(catalogue.rglob(name)):
            return found
    raise Failure(ExitCode.USAGE, f"{name}: no such file, neither here nor in {catalogue}")
