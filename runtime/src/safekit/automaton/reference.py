"""The page docs/reference/automata.md, made from the tables of the automata: `python -m safekit.automaton.reference` prints it.

What a row of a table does not say, from which states it is taken, stands here; a row that is missing here is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from safekit.automaton import farm, mirror
from safekit.automaton.vocabulary import (
    Become,
    Checkers,
    Links,
    Record,
    Role,
    Script,
    Step,
    Vip,
)

STOP, WAIT, ALONE, PRIM, SECOND, UP = Role.STOP, Role.WAIT, Role.ALONE, Role.PRIM, Role.SECOND, Role.UP

MIRROR_ROWS: Mapping[str, tuple[Role, str]] = {
    "start": (STOP, "`start`, `prim`, `second`, boot, the second half of `stopstart`"),
    "alone": (WAIT, "`prim`; or no primary, and this node may serve"),
    "second": (WAIT, "the other node serves; the first half, until the copy is synchronised"),
    "second_ready": (SECOND, "the copy is synchronised, and the primary published it"),
    "publish": (ALONE, "the secondary is synchronised and acknowledges"),
    "founded": (PRIM, "under a witness that is new to a pair that serves already"),
    "prim": (ALONE, "the other node is SECOND (Ready)"),
    "lost": (PRIM, "the secondary is gone, or no longer acknowledges"),
    "lost_early": (ALONE, "the same, while the secondary was about to be Ready"),
    "failover": (SECOND, "the primary stopped, or is lost"),
    "candidate": (SECOND, "the same under a witness: the first half, until it answers"),
    "promote": (SECOND, "the witness named this node, or the primary consented"),
    "swap_out": (PRIM, "`swap`, on the primary"),
    "swap_failed": (PRIM, "`swap`, and the secondary did not confirm: back to serving"),
    "swap_undone": (PRIM, "the same under a witness"),
    "swap_in": (SECOND, "`swap`, on the secondary, when the primary has handed over"),
    "swap_in_alone": (PRIM, "`swap`, and the former primary does not come back in time: serve all the same"),
    "restart_alone": (ALONE, "`restart`"),
    "restart_prim": (PRIM, "`restart`"),
    "restart_second": (SECOND, "`restart`"),
    "leave_alone": (ALONE, "`stop`, `stopstart`, `wait`"),
    "leave_prim": (PRIM, "`stop`, `stopstart`, `wait`"),
    "leave_second": (
        SECOND,
        "`stop`, `stopstart`, `wait`; the primary went on without this node; no failover is wanted",
    ),
    "yield_prim": (PRIM, "both serve, and the other one stays"),
    "yield_alone": (ALONE, "both serve, and the other one stays"),
    "lapse_prim": (PRIM, "under a witness: the lease ran out, neither the other node nor the witness is heard"),
    "lapse_alone": (ALONE, "the same, before the secondary was Ready"),
    "stop": (WAIT, "the end of a stop"),
}

FARM_ROWS: Mapping[str, tuple[Role, str]] = {
    "start": (STOP, "`start`, boot, the second half of `stopstart`"),
    "up": (WAIT, "nothing holds the module"),
    "restart": (UP, "`restart`"),
    "leave": (UP, "`stop`, `stopstart`, `wait`"),
    "stop": (WAIT, "the end of a stop"),
}

_HEAD = """# The automata

Made from the tables of the code: `python -m safekit.automaton.reference`. A change of state is a row: its steps are carried
out one after the other, and each can be repeated. *force* is the second call of a stop script. Sub-states: T is Transient,
R is Ready, NR is NotReady.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    parts += _chapter("Mirror", mirror.PLANS, MIRROR_ROWS)
    parts += _chapter("Farm and light", farm.PLANS, FARM_ROWS)
    return "".join(parts)


def _chapter(title: str, plans: Mapping[str, tuple[Step, ...]], rows: Mapping[str, tuple[Role, str]]) -> Iterator[str]:
    yield f"\n## {title}\n\n```mermaid\nstateDiagram-v2\n"
    for row in plans:
        yield f"    {rows[row][0]} --> {_target(row, plans, rows)}: {row}\n"
    yield "```\n\n| row | from | to | when | steps |\n|---|---|---|---|---|\n"
    for row, plan in plans.items():
        origin, when = rows[row]
        steps = ", ".join(_words(step) for step in plan)
        yield f"| `{row}` | {origin} | {_target(row, plans, rows)} | {when} | {steps} |\n"


def _target(row: str, plans: Mapping[str, tuple[Step, ...]], rows: Mapping[str, tuple[Role, str]]) -> Role:
    return next((step.role for step in reversed(plans[row]) if isinstance(step, Become)), rows[row][0])


_SHORT = {"Transient": "T", "Ready": "R", "NotReady": "NR"}
_SWITCHES = {
    Vip: ("the address is taken", "the address is released"),
    Links: ("heartbeats begin", "heartbeats end"),
}


def _words(step: Step) -> str:
    match step:
        case Become(role, readiness):
            return f"**{role} {_SHORT[readiness]}**"
        case Script(name, force):
            return f"`{name}`" + (" *force*" if force else "")
        case Record(kind):
            return f"record *{kind}*"
        case Checkers(when, up):
            return f"checkers *{when}* {'begin' if up else 'end'}"
        case Vip(up) | Links(up):
            return _SWITCHES[type(step)][0 if up else 1]
        case _:
            return _split(type(step).__name__)


def _split(name: str) -> str:
    """DataPrimary: data primary."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


if __name__ == "__main__":
    print(page(), end="")
