"""One trial: a schedule carried out under load, and everything that must hold afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.durability.checks import Findings, Tree, differences, examine
from tests.durability.nemesis import Nemesis
from tests.durability.pair import FOLDER, Pair
from tests.durability.schedules import FullDisk, Schedule
from tests.nodes import CommandFailed, NotInTime


@dataclass
class Outcome:
    """What a trial showed. `problems` is empty when everything held."""

    seed: int
    steps: list[str]
    seconds: float = 0.0
    findings: Findings = field(default_factory=Findings)
    problems: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    administrator: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)

    def line(self) -> str:
        """One line for a person."""
        found = self.findings
        total = sum(found.acknowledged.values())
        said = f"{total} acknowledged, {found.unknown} unknown ({found.recovered} done), {found.excused} excused"
        verdict = "ok" if not self.problems else f"{len(self.problems)} PROBLEMS"
        return f"seed {self.seed}: {verdict}, {self.seconds:.0f} s, {said}, lost {len(found.lost)}"


def run_trial(pair: Pair, schedule: Schedule, say: Callable[[str], None]) -> Outcome:
    """Carry out a schedule. Never raises for what the product did wrong: that is in the outcome."""
    began, started = time.time(), time.monotonic()
    outcome = Outcome(schedule.seed, schedule.words())
    trial = f"t{schedule.seed}-{int(began)}"

    def tell(what: str) -> None:
        outcome.story.append(f"{time.time():.3f} {what}")
        say(f"    {time.time() - began:5.1f} s  {what}")

    nemesis = Nemesis(pair, tell)
    try:
        primary, _ = pair.roles()
        pair.ask_application(primary, do="sweep", path="", keep=trial)
        pair.clients.start(trial)
        pair.clients.await_answers(100)
        for planned in schedule.steps:
            nemesis.strike(planned.step, settle=planned.settle)
        pair.clients.await_answers()
        nemesis.settle()
        operations = pair.clients.stop()
        tell("the clients have ended")
        first, second = same_trees(pair, trial, outcome.problems, tell, holes=never_full(schedule))
        primary, _ = pair.roles()
        tree = first if primary is pair.nodes[0] else second
        outcome.findings = examine(operations, nemesis.misfortunes, below(tree, trial))
        outcome.problems += outcome.findings.sentences
        outcome.problems += pair.audit(began)
    except (CommandFailed, NotInTime) as trouble:
        outcome.problems.append(f"{trouble}")
        nemesis.clear()
    finally:
        pair.clients.abandon()
    outcome.missed, outcome.administrator = nemesis.missed, nemesis.administrator
    outcome.seconds = time.monotonic() - started
    return outcome


def never_full(schedule: Schedule) -> bool:
    """Whether every write found room. One that found none leaves blocks of zeros on ext4, on its own node only."""
    return not any(isinstance(planned.step, FullDisk) for planned in schedule.steps)


def same_trees(
    pair: Pair, trial: str, problems: list[str], tell: Callable[[str], None], *, holes: bool = True
) -> tuple[Tree, Tree]:
    """The trees of both nodes; what they do not agree on is a problem, unless a request of a client that gave up still ran."""
    first, second = pair.each(lambda node: pair.tree(node, trial))
    found = differences(first, second, holes=holes)
    if found:
        time.sleep(1.5)
        again_first, again_second = pair.each(lambda node: pair.tree(node, trial))
        if again_first.entries != first.entries:
            tell("a request was still under way")
            found = differences(again_first, again_second, holes=holes)
        first, second = again_first, again_second
    if found:
        problems.append(f"{len(found)} differences between the trees of {FOLDER}: {'; '.join(found[:8])}")
    return first, second


def below(tree: Tree, trial: str) -> Tree:
    """The part of a tree that belongs to a trial."""
    start = f"{trial}/"
    entries = {name.removeprefix(start): facts for name, facts in tree.entries.items() if name.startswith(start)}
    content = {name.removeprefix(start): text for name, text in tree.content.items() if name.startswith(start)}
    return Tree(entries, content)
