"""The link between two nodes is cut again and again, at any moment, while both hear router and witness and clients write:
exactly one of them serves, and nothing that was acknowledged is lost.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tests.faults.arbiter import declare_witness, forget_witness
from tests.nodes import Lab, Node, NotInTime, wait_for
from tests.nodes.engine import ROOT
from tests.system.mirror import NAME, Mirror
from tests.system.product import shown, state

PATIENCE_S = 90.0


@dataclass(frozen=True)
class Cut:
    """One cut, as it ended. `winner` serves during the cut; `lost`: acknowledged, and missing at the winner or later."""

    number: int
    primary: str
    after_s: float
    """How long the pair was whole and written to before."""
    winner: str = ""
    decided_s: float | None = None
    """From the cut until one serves and the other waits."""
    silence_s: float | None = None
    """The longest time in which the client got no acknowledgement."""
    both_ran_s: float = 0.0
    """How long the application ran on both: the loser's stop after the winner's start."""
    acknowledged: int = 0
    lost: int = 0
    problem: str = ""

    @property
    def took_over(self) -> bool:
        """Whether the former secondary serves."""
        return bool(self.winner) and self.winner != self.primary

    @property
    def ok(self) -> bool:
        """Whether it went as it must."""
        return bool(self.winner) and not self.lost and not self.problem

    def line(self) -> str:
        """For who waits."""
        if not self.winner:
            return f"cut {self.number}: PROBLEM {self.problem}"
        how = "takes over" if self.took_over else "goes on"
        told = (
            f"cut {self.number}: {self.winner} {how} after {self.decided_s or 0:.1f} s, {self.acknowledged} writes kept"
        )
        bad = [f"{self.lost} LOST"] * bool(self.lost) + [f"PROBLEM {self.problem}"] * bool(self.problem)
        return ", ".join([told, *bad])


def verdict(cuts: Sequence[Cut], wanted: int) -> list[dict[str, object]]:
    """What is promised of them all. Fewer cuts than `wanted` prove nothing about the rest: `met` is None unless broken."""
    served = sum(1 for cut in cuts if cut.winner and not cut.problem)
    lost = sum(cut.lost for cut in cuts)
    whole = len(cuts) >= wanted
    exactly = served == len(cuts)
    return [
        {
            "work": "link cut, both see router and witness",
            "measure": "cuts after which exactly one serves",
            "value": served,
            "target": wanted,
            "met": exactly if whole or not exactly else None,
        },
        {
            "work": "link cut, both see router and witness",
            "measure": "acknowledged writes lost",
            "value": lost,
            "target": 0,
            "met": lost == 0 if whole or lost else None,
        },
    ]


@contextmanager
def arbitrated(cluster: Lab, made: Callable[[Lab], Mirror] = Mirror) -> Iterator[Mirror]:
    """Module `m` on n1 and n2, PRIM and SECOND, n3 their witness; afterwards neither is there."""
    declare_witness(cluster, cluster["n3"])
    mirror = made(cluster)
    mirror.install()
    mirror.first_start(mirror.nodes[0])
    try:
        yield mirror
    finally:
        cluster.heal()
        mirror.writer.abandon()
        mirror.uninstall()
        forget_witness(cluster, cluster["n3"])


def ready(mirror: Mirror) -> bool:
    """Whether the pair is whole and the witness would grant a failover."""
    if not mirror.are_ready():
        return False
    primary, _ = mirror.roles()
    return str(state(primary, NAME)["automatic_failover"]).startswith("ready: ")


def exactly_one(mirror: Mirror) -> Node | None:
    """The node that is ALONE (Ready) while the other waits; None as long as that is not so."""
    roles = {node.name: shown(node, NAME) for node in mirror.nodes}
    serving = [node for node in mirror.nodes if roles[node.name] == "ALONE Ready"]
    waiting = [node for node in mirror.nodes if roles[node.name].startswith("WAIT ")]
    return serving[0] if len(serving) == len(waiting) == 1 else None


def cut_once(mirror: Mirror, number: int, chance: random.Random) -> Cut:
    """One cut under load, until one serves; healed until both are a pair again."""
    wait_for("the pair is whole, and the witness ready", lambda: ready(mirror), timeout=PATIENCE_S)
    mirror.forget_calls()
    primary, _ = mirror.roles()
    after = chance.uniform(0.0, 1.5)
    cut = Cut(number, primary.name, round(after, 3))
    mirror.writer.start()
    try:
        time.sleep(after)
        begun = time.time()
        mirror.lab.cut("n1", "n2")
        winner = wait_for("exactly one serves", lambda: exactly_one(mirror), timeout=PATIENCE_S)
        decided = time.time() - begun
        assert winner is not None
        mirror.writer.await_promise(timeout=PATIENCE_S)
        assert exactly_one(mirror) is winner, {node.name: shown(node, NAME) for node in mirror.nodes}
        cut = replace(cut, winner=winner.name, decided_s=round(decided, 2), both_ran_s=_both_ran(mirror, winner))
        time.sleep(chance.uniform(0.0, 1.0))
        mirror.lab.heal()
        wait_for("both are a pair again", mirror.are_ready, timeout=PATIENCE_S)
        mirror.writer.await_promise()
    except (AssertionError, NotInTime) as trouble:
        cut = replace(cut, problem=str(trouble).splitlines()[0])
        mirror.lab.collect(ROOT / "build" / "reports" / "failures" / f"cut-{number}")
        mirror.lab.heal()
    written = mirror.writer.stop()
    holders = mirror.nodes if not cut.problem else ()
    missing = set[int]().union(*(written.promised - mirror.ledger(node) for node in holders))
    silence = round(written.longest_silence, 2)
    return replace(cut, acknowledged=len(written.promised), lost=len(missing), silence_s=silence)


def _both_ran(mirror: Mirror, winner: Node) -> float:
    """Seconds from the winner's start to the loser's stop; nothing when the primary just went on."""
    loser = mirror.peer(winner)
    began = [date for date, name in mirror.calls(winner) if name == "start_prim"]
    ended = [date for date, name in mirror.calls(loser) if name == "stop_prim"]
    return round(max(0.0, ended[0] - began[0]), 3) if began and ended else 0.0
