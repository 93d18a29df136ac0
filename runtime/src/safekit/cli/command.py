"""The way in: the command line, its errors, its exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from safekit.cli import cluster, configuration, control, farm, hosts, monitoring, replication, web, why, witness
from safekit.cli.client import Client
from safekit.cli.common import Context
from safekit.cli.display import show_json
from safekit.cli.exit_codes import ExitCode, Failure, Finished
from safekit.paths import Paths


def build() -> typer.Typer:
    """The application with every command."""
    app = typer.Typer(
        name="safekit",
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(safekit)
    for part in (control, monitoring, why, farm, replication, configuration, cluster, witness, web):
        part.register(app)
    return app


def safekit(
    ctx: typer.Context,
    places: Annotated[bool, typer.Option("-p", help="Print where things are on this node, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With -p: as JSON.")] = False,
    servers: Annotated[
        str | None,
        typer.Option("-H", metavar="HOSTS", help="First of all: run the command on these servers: *, n1,n2 or URLs."),
    ] = None,
) -> None:
    """High availability for any application: look at the modules of this node and of its cluster, and move them."""
    if servers is not None:
        raise Failure(ExitCode.USAGE, '-H comes first: safekit -H "HOSTS" COMMAND')
    if not places:
        return
    paths = ctx.find_object(Context).paths  # type: ignore[union-attr]
    values = {"SAFE": paths.safe, "SAFEVAR": paths.var, "SAFEBIN": paths.safe / "private" / "bin", "SAFERUN": paths.run}
    if as_json:
        show_json({name: str(value) for name, value in values.items()})
    else:
        for name, value in values.items():
            typer.echo(f"{name}={value}")
    raise Finished(ExitCode.DONE)


def run(arguments: Sequence[str], paths: Paths) -> int:
    """Run one command, here or on the servers of `-H`; its exit code."""
    if list(arguments[:1]) == ["-H"]:
        return _ended(lambda: hosts.distribute(arguments, paths, run_in))
    return run_in(arguments, Context(paths, Client(paths.api_socket)))


def run_in(arguments: Sequence[str], where: Context) -> int:
    """Run one command where the context says; its exit code."""

    def command() -> int:
        build()(args=list(arguments), prog_name="safekit", obj=where)
        return ExitCode.DONE

    return _ended(command)


def _ended(command: Callable[[], int]) -> int:
    """What a command ends with, its errors told."""
    try:
        return command()
    except Finished as finished:
        return finished.code
    except Failure as failure:
        for line in failure.lines:
            print(f"safekit: {line}", file=sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as end:
        # Typer's own ends: 0 after its help, 1 or 130 after Ctrl-C, anything else for a wrong command line.
        if end.code in (0, None):
            return ExitCode.DONE
        return ExitCode.INTERRUPTED if end.code in (1, ExitCode.INTERRUPTED) else ExitCode.USAGE


def main() -> None:
    """The `safekit` command."""
    sys.exit(run(sys.argv[1:], Paths()))
