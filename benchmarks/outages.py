"""From what a client saw to figures: outages, percentiles, targets, the histogram, the JSON. Pure.

An outage is what a client has of it: from the last answer before to the first one after. Times are seconds since the
epoch: all nodes have one clock.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

FAST, REFERENCE = "fast", "reference"
PULSES = {FAST: 'pulse="100ms" timeout="1500ms"', REFERENCE: ""}
"""What `<heart>` says in each timing profile; the reference's is the defaults: a pulse of 700 ms, 30 s until silence."""


@dataclass(frozen=True)
class Answer:
    """One answer to a client's question: when it came, and from which node."""

    at: float
    node: str


def parsed(lines: Iterable[str]) -> list[Answer]:
    """What the probe wrote, oldest first."""
    words = (line.split() for line in lines)
    return sorted((Answer(float(one[0]), one[1]) for one in words if len(one) == 2), key=lambda answer: answer.at)


def moved(answers: Sequence[Answer], new: str) -> tuple[float, float] | None:
    """(last answer before, first answer of `new`) of the first move to this node; None when it has not answered yet."""
    first = next((number for number, answer in enumerate(answers) if answer.node == new), None)
    if first is None or first == 0:
        return None
    return answers[first - 1].at, answers[first].at


def longest_gap(answers: Sequence[Answer]) -> tuple[float, float] | None:
    """(last answer before, first answer after) of the longest silence."""
    gaps = [(later.at - earlier.at, earlier.at, later.at) for earlier, later in pairwise(answers)]
    return max(gaps)[1:] if gaps else None


@dataclass(frozen=True)
class Call:
    """One call of a script: its name, and when it began and ended."""

    name: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it ran."""
        return self.ended - self.began


def calls(lines: Iterable[str]) -> list[Call]:
    """What the scripts noted (`date begin|end name`), oldest first; a call that has not ended is left out."""
    found: list[Call] = []
    open_: dict[str, float] = {}
    for words in (line.split() for line in lines):
        if len(words) != 3:
            continue
        date, what, name = float(words[0]), words[1], words[2]
        if what == "begin":
            open_[name] = date
        elif name in open_:
            found.append(Call(name, open_.pop(name), date))
    return found


@dataclass
class Series:
    """One row: what was done again and again, and how long it took each time. `more` says where the time went."""

    key: str
    work: str
    unit: str = "s"
    rounds: list[float] = field(default_factory=list)
    more: dict[str, list[float]] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def add(self, value: float, **more: float | None) -> None:
        """One round's figure."""
        self.rounds.append(value)
        for name, found in more.items():
            if found is not None:
                self.more.setdefault(name, []).append(found)

    def at(self, share: float) -> float | None:
        """A percentile, by the nearest rank; None without a figure."""
        return percentile(self.rounds, share)

    def as_dict(self) -> dict[str, object]:
        """For the report."""
        return {
            "row": self.key,
            "work": self.work,
            "unit": self.unit,
            "count": len(self.rounds),
            "p50": _rounded(self.at(0.5)),
            "p99": _rounded(self.at(0.99)),
            "worst": _rounded(max(self.rounds, default=None)),
            "rounds": [_rounded(value) for value in self.rounds],
            "more": {
                name: {
                    "p50": _rounded(percentile(values, 0.5)),
                    "p99": _rounded(percentile(values, 0.99)),
                    "rounds": [_rounded(value) for value in values],
                }
                for name, values in self.more.items()
            },
            "missed": self.missed,
        }


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of all do not exceed; of thirty, 0.99 is the worst."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


# ---- what is promised ----

FALSE = "false"


@dataclass(frozen=True)
class Target:
    """At most `limit`, in the unit of the row; `share` 0.5 is the median."""

    row: str
    share: float
    limit: float
    measure: str


TARGETS = (
    Target("cut", 0.5, 2.0, "p50, client's last answer before to first after, s"),
    Target("cut", 0.99, 3.0, "p99, client's last answer before to first after, s"),
    Target("stop", 0.99, 0.5, "p99, end of the stop script to client's first answer, s"),
    Target("swap", 0.99, 1.0, "p99, client's silence without the application's own stop and start, s"),
    Target("cut-reference", 0.99, 31.0, "p99, client's silence without the application's own start, s"),
    Target(FALSE, 1.0, 2.0, "number of false detections"),
)


def verdicts(found: Sequence[Series], targets: Sequence[Target] = TARGETS) -> list[dict[str, object]]:
    """Each target of a row that was asked for; `met` is None where nothing was found. A round that was missed counts as
    not met: a service that did not come back has no figure."""
    by_key = {series.key: series for series in found}
    told: list[dict[str, object]] = []
    for target in targets:
        if (series := by_key.get(target.row)) is None:
            continue
        value = series.at(target.share)
        met = None if value is None else value <= target.limit and not series.missed
        told.append(
            {
                "work": series.work,
                "measure": target.measure,
                "value": _rounded(value),
                "target": target.limit,
                "sense": "at most",
                "met": met if not (value is None and series.missed) else False,
            }
        )
    return told


# ---- for a terminal ----

_WIDTH, _BINS = 40, 12


def histogram(series: Series) -> str:
    """The rounds of one row, in steps that are easy to read, and where the time went."""
    if not series.rounds:
        return f"{series.work}: no figure"
    step = _step((max(series.rounds) - min(series.rounds)) / _BINS)
    first, last = math.floor(min(series.rounds) / step), math.floor(max(series.rounds) / step)
    counts = [
        sum(1 for value in series.rounds if math.floor(value / step) == number) for number in range(first, last + 1)
    ]
    scale = min(1.0, _WIDTH / max(counts))
    lines = [
        f"{series.work}: {len(series.rounds)} times, p50 {series.at(0.5):.3f}, p99 {series.at(0.99):.3f}, "
        f"worst {max(series.rounds):.3f} {series.unit}"
    ]
    for number, count in enumerate(counts, first):
        bar = "#" * max(math.ceil(count * scale), 1 if count else 0)
        lines.append(f"  {number * step:8.2f} … {(number + 1) * step:<6.2f} {count:4} {bar}")
    parts = [f"{name} {statistics.median(values):.3f}" for name, values in series.more.items() if values]
    if parts:
        lines.append(f"  medians: {', '.join(parts)}")
    lines += [f"  missed: {why}" for why in series.missed]
    return "\n".join(lines)


def _step(about: float) -> float:
    """1, 2 or 5 times a power of ten, at least a client's 20 ms."""
    power = 10.0 ** math.floor(math.log10(max(about, 0.02)))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= max(about, 0.02) - 1e-9)


def table(told: Sequence[dict[str, object]]) -> str:
    """The targets."""
    words = {True: "met", False: "NOT MET", None: "not measured"}
    lines = [f"{'promised':44} {'found':>8} {'at most':>8}"]
    for one in told:
        value = "–" if one["value"] is None else f"{one['value']}"
        met = one["met"]
        assert met is None or isinstance(met, bool)
        lines.append(f"{one['work']!s:44} {value:>8} {one['target']!s:>8}  {words[met]}: {one['measure']}")
    return "\n".join(lines)
