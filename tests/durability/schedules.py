"""A seed is a schedule: a list of steps, each something that happens to a pair of nodes under load. Pure.

The first step of a schedule goes through all kinds in turn, so that as many seeds in a row meet each of them; the others,
and every number, are drawn from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

PROCESSES = {
    "rfs": "the data plane, all of it",
    "rfs-worker": "the worker of the data plane",
    "rfs-main": "the first process of the data plane",
    "safekitd": "safekitd",
    "pulse": "safekit-pulse",
    "application": "the application",
}
WAYS = {
    "both": "the nodes no longer hear each other",
    "from-primary": "what the primary sends is lost",
    "from-secondary": "what the secondary sends is lost",
    "stream": "the replication stream is lost, heartbeats pass",
    "lossy": "every third frame between the nodes is lost",
}
LEAVES = {
    "stop": "is stopped in order",
    "power": "loses its power",
    "rfs": "loses its data plane",
}
INTERRUPTIONS = {
    "rfs-secondary": "the data plane of the node that comes back is killed",
    "rfs-primary": "the data plane of the serving node is killed",
    "power-secondary": "the node that comes back loses its power",
    "power-primary": "the serving node loses its power",
    "cut": "the nodes no longer hear each other",
    "stop-secondary": "the node that comes back is stopped in order",
    "swap": "someone asks for a swap",
    "safekitd-secondary": "safekitd of the node that comes back is killed",
    "safekitd-primary": "safekitd of the serving node is killed",
}
PHASES = {
    "any": "as soon as the resynchronisation has begun",
    "copy": "while data are copied",
    "mirror": "when all is copied and nothing is published yet",
}


@dataclass(frozen=True)
class Kill:
    """kill -9 of one process; systemd or safekitd has to know what to do."""

    process: str
    where: str
    times: int

    def __str__(self) -> str:
        again = f", {self.times} times" if self.times > 1 else ""
        return f"kill -9 {PROCESSES[self.process]} on the {self.where}{again}"


@dataclass(frozen=True)
class Power:
    """Power loss: at once, and what was not synced is gone. `gap`: seconds between the two nodes; `off`: seconds without power."""

    where: str
    gap: float
    off: float
    first_back: str

    def __str__(self) -> str:
        if self.where != "both":
            return f"the {self.where} loses its power for {self.off:g} s"
        first = f", the former {self.first_back} comes back first"
        return f"both lose their power, {self.gap:g} s apart, for {self.off:g} s{first}"


@dataclass(frozen=True)
class Cut:
    """The network between the two nodes fails; clients still hear both."""

    way: str
    seconds: float

    def __str__(self) -> str:
        return f"for {self.seconds:g} s {WAYS[self.way]}"


@dataclass(frozen=True)
class Freeze:
    """A node hangs: no process runs and nothing is heard of it."""

    where: str
    seconds: float

    def __str__(self) -> str:
        return f"the {self.where} hangs for {self.seconds:g} s"


@dataclass(frozen=True)
class FullDisk:
    """No byte is free on the disk of a node, its own records included."""

    where: str
    seconds: float

    def __str__(self) -> str:
        return f"the disk of the {self.where} is full for {self.seconds:g} s"


@dataclass(frozen=True)
class Order:
    """An administrator's command in ordinary words."""

    action: str
    where: str

    def __str__(self) -> str:
        return f"safekit {self.action} on the {self.where}"


@dataclass(frozen=True)
class Return:
    """The secondary leaves, much is written, it comes back; `phase` of its resynchronisation is interrupted."""

    leaves: str
    megabytes: int
    phase: str
    interruption: str

    def __str__(self) -> str:
        what = f"the secondary {LEAVES[self.leaves]}, {self.megabytes} MB are written, it comes back"
        return f"{what}; {PHASES[self.phase]}, {INTERRUPTIONS[self.interruption]}"


Step = Kill | Power | Cut | Freeze | FullDisk | Order | Return


@dataclass(frozen=True)
class Planned:
    """A step of a schedule, and whether the pair is given the time to be whole again before the next one."""

    step: Step
    settle: bool

    def __str__(self) -> str:
        return f"{self.step}" if self.settle else f"{self.step}; go on at once"


@dataclass(frozen=True)
class Schedule:
    """What happens in one trial. The same seed is the same schedule."""

    seed: int
    steps: tuple[Planned, ...]

    def words(self) -> list[str]:
        """The steps as a person reads them."""
        return [f"{number}. {planned}" for number, planned in enumerate(self.steps, 1)]


def schedule(seed: int) -> Schedule:
    """The schedule of a seed (1 and more)."""
    draw = random.Random(f"schedule {seed}")
    makers = [KINDS[(seed - 1) % len(KINDS)]]
    makers += [draw.choice(KINDS) for _ in range(draw.choice((0, 0, 0, 1, 1, 2)))]
    steps = [make(draw) for make in makers]
    planned = [
        Planned(step, settle=not _may_be_hurried(step) or last or draw.random() < 0.6)
        for step, last in zip(steps, [*[False] * (len(steps) - 1), True], strict=True)
    ]
    return Schedule(seed, tuple(planned))


def _may_be_hurried(step: Step) -> bool:
    """Not when two histories may come of it: the trial has to see which one stays."""
    return isinstance(step, Kill | FullDisk | Order | Power)


def may_split(step: Step) -> bool:
    """Whether both nodes may serve for a while, without having heard each other (policy `none`)."""
    return isinstance(step, Cut | Freeze) or (isinstance(step, Return) and step.interruption == "cut")


def _seconds(draw: random.Random, least: float, most: float) -> float:
    return round(draw.uniform(least, most), 1)


def _kill(process: str, where: str) -> Callable[[random.Random], Step]:
    return lambda draw: Kill(process, where, draw.choice((1, 1, 1, 2, 3)) if process != "rfs" else 1)


def _power(where: str) -> Callable[[random.Random], Step]:
    def make(draw: random.Random) -> Step:
        gap = draw.choice((0.0, 0.0, _seconds(draw, 0.1, 1.5)))
        return Power(where, gap, _seconds(draw, 0.5, 6), draw.choice(("primary", "secondary")))

    return make


def _cut(*ways: str) -> Callable[[random.Random], Step]:
    return lambda draw: Cut(draw.choice(ways), _seconds(draw, 0.5, 8))


def _return(phase: str, *interruptions: str) -> Callable[[random.Random], Step]:
    return lambda draw: Return(draw.choice(tuple(LEAVES)), draw.choice((8, 30, 60)), phase, draw.choice(interruptions))


KINDS: tuple[Callable[[random.Random], Step], ...] = (
    _kill("rfs", "primary"),
    _power("secondary"),
    _kill("safekitd", "primary"),
    _power("primary"),
    _kill("application", "primary"),
    _power("both"),
    _kill("rfs-worker", "primary"),
    _cut("both"),
    _kill("rfs", "secondary"),
    _return("any", "rfs-secondary", "rfs-primary", "safekitd-secondary"),
    _kill("pulse", "primary"),
    lambda draw: FullDisk("secondary", _seconds(draw, 1, 4)),
    _kill("rfs-worker", "secondary"),
    _return("copy", "power-secondary", "power-primary", "stop-secondary", "cut"),
    lambda draw: Order("swap", draw.choice(("primary", "secondary"))),
    _return("any", "swap"),
    lambda draw: FullDisk("primary", _seconds(draw, 1, 4)),
    _return("mirror", "rfs-secondary", "rfs-primary", "power-secondary", "power-primary", "cut", "safekitd-primary"),
    _cut("from-primary", "from-secondary", "stream", "lossy"),
    _kill("rfs-main", "primary"),
    _kill("safekitd", "secondary"),
    lambda draw: Freeze(draw.choice(("primary", "secondary")), _seconds(draw, 0.5, 7)),
    _kill("pulse", "secondary"),
    lambda draw: Order(draw.choice(("stopstart", "restart")), draw.choice(("primary", "secondary"))),
    _power("both"),
)
"""Kinds of steps, in the order in which they begin the schedules of seeds 1, 2, 3 …"""
