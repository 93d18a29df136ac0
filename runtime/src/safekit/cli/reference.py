"""The page docs/reference/cli.md, made from the commands: `python -m safekit.cli.reference` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from safekit.cli.command import build
from safekit.cli.exit_codes import MEANINGS, STATE_CODES

_HEAD = """# The `safekit` command

`safekit` speaks to the daemon of the node that you are on. Every command is for this node; `state` and `cluster state`
also show the others. `-m AM` names the module; where `SAFEMODULE` is set, as in a script of the module, it may be left
out.

**It is three in the morning:**

| you want | type |
|---|---|
| to see what runs where | `safekit state` |
| to know why | `safekit why -m AM`, `safekit log -m AM` |
| to watch | `safekit logview -m AM` |
| to start a module that is STOP | `safekit start -m AM` |
| to move the application to the other node | `safekit swap -m AM` |
| to free a node for work on it | there: `safekit stop -m AM` |

Both nodes of a mirror are WAIT NotReady, and you know which one has the good data: on that node `safekit stop -m AM`,
`safekit prim -m AM`; then on the other `safekit stop -m AM`, `safekit second -m AM`. What only the other node had is
lost.

A command that moves a module returns as soon as the node has accepted it; `safekit waitstart`, `waitstop` and
`waitstate` wait for the end. A wait, and `logview`, outlive a restart of the daemon.

`--json` prints what the [local API](api.md) answered; its fields are stable, the words of the tables are not.
What a message means: [messages](messages.md).

## States

| state | it means |
|---|---|
| STOP NotReady | stopped |
| WAIT Transient | starting or stopping |
| WAIT NotReady | blocked: `state` names what it waits for |
| ALONE Ready | primary without a secondary: the application runs here, nobody could take over |
| PRIM Ready | primary: the application runs here, the other node is ready |
| SECOND Transient | secondary, its files are being synchronised |
| SECOND Ready | secondary, ready to take over |
| UP Ready | farm: the application runs here |
| ERROR | the node does not answer |

ALONE, PRIM and UP are Transient while the scripts of the application run.

"""

_CODES = """## Exit codes

| code | meaning |
|---|---|
"""

_STATE_CODES = """
`safekit state -m AM -lq` prints nothing and exits with the state; a failure keeps its code of the table above.

| code | state |
|---|---|
"""


def page() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(build())
    parts = [_HEAD, _CODES]
    parts += [f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items()]
    parts.append(_STATE_CODES)
    for number in sorted(set(STATE_CODES.values())):
        parts.append(f"| {number} | {', '.join(state for state, code in STATE_CODES.items() if code == number)} |\n")
    parts.append("\n## Commands\n")
    parts += _commands(group, "safekit")
    return "".join(parts)


def _commands(group: Any, prefix: str) -> Iterator[str]:
    if prefix == "safekit":
        yield "\n`safekit -p` prints SAFE, SAFEVAR, SAFEBIN and SAFERUN.\n"
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield _command(f"{prefix} {name}", command)


def _command(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    usage = [name]
    for option in options:
        word = option.opts[0] if option.is_flag else f"{option.opts[0]} {option.metavar or option.name.upper()}"
        usage.append(word if option.required else f"[{word}]")
    usage += [one.metavar for one in arguments]
    lines = [f"\n### `{' '.join(usage)}`\n\n", " ".join(command.help.split()), "\n"]
    explained = [(one.metavar.strip("[]"), one.help) for one in arguments if one.help]
    explained += [(", ".join(one.opts), one.help) for one in options if one.name not in ("module", "as_json")]
    if explained:
        lines.append("\n")
        lines += [f"- `{written}`: {help}\n" for written, help in explained]
    return "".join(lines)


if __name__ == "__main__":
    print(page(), end="")
