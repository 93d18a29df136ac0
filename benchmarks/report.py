"""From figures to what a person and a program read: medians, ratios, the table, the JSON, the chart. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from benchmarks.places import OURS, SYSTEMS, TITLES
from benchmarks.rows import Promise, Row
from benchmarks.workloads import Measure


@dataclass
class Results:
    """`figures[row][system]`: a measure for each round, None where it failed; `reasons` says why a figure is
    missing."""

    figures: dict[str, dict[str, list[Measure | None]]] = field(default_factory=dict)
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, row: str, system: str, measure: Measure) -> None:
        """One round's figure."""
        self.figures.setdefault(row, {}).setdefault(system, []).append(measure)

    def miss(self, row: str, system: str, why: str) -> None:
        """One round without it."""
        self.figures.setdefault(row, {}).setdefault(system, []).append(None)
        self.reasons.setdefault(row, {})[system] = why

    def values(self, row: str, system: str) -> list[float]:
        """What was measured, in the order of the rounds."""
        return [found.value for found in self.figures.get(row, {}).get(system, []) if found is not None]

    def median(self, row: str, system: str) -> float | None:
        """Of all rounds, or nothing."""
        values = self.values(row, system)
        return statistics.median(values) if values else None

    def ratio(self, row: str, reference: str) -> float | None:
        """Ours to a reference: the median of the ratios of each round, whose measurements were neighbours."""
        found = self.figures.get(row, {})
        pairs = zip(found.get(OURS, []), found.get(reference, []), strict=False)
        ratios = [
            ours.value / other.value for ours, other in pairs if ours is not None and other is not None and other.value
        ]
        return statistics.median(ratios) if ratios else None

    def spread(self, row: str, system: str) -> float:
        """How far apart the rounds are, against their median."""
        values = self.values(row, system)
        return (max(values) - min(values)) / statistics.median(values) if values else 0.0


def verdicts(results: Results, all_rows: tuple[Row, ...], promises: tuple[Promise, ...]) -> list[dict[str, object]]:
    """Every promise of a row that was asked for: `ratio` is what was found, `target` what was promised, `met` None
    where nothing was found. Without a reference `ratio` is the figure itself, in the unit that `measure` names."""
    found: list[dict[str, object]] = []
    by_key = {row.key: row for row in all_rows}
    for promise in promises:
        if promise.row not in results.figures:
            continue
        row = by_key[promise.row]
        if promise.reference:
            ratio, measure = results.ratio(row.key, promise.reference), f"{TITLES[OURS]} / {TITLES[promise.reference]}"
        else:
            ratio, measure = results.median(row.key, OURS), row.unit
        met = None if ratio is None else ratio <= promise.limit if promise.at_most else ratio >= promise.limit
        found.append(
            {
                "work": row.title,
                "measure": measure,
                "ratio": None if ratio is None else round(ratio, 3),
                "target": promise.limit,
                "sense": "at most" if promise.at_most else "at least",
                "met": met,
            }
        )
    return found


def as_json(
    results: Results, all_rows: tuple[Row, ...], promises: tuple[Promise, ...], about: dict[str, object]
) -> dict[str, object]:
    """The whole report."""
    rows = []
    for row in all_rows:
        if row.key not in results.figures:
            continue
        systems = {}
        for system, found in results.figures[row.key].items():
            median = results.median(row.key, system)
            values = [None if measure is None else round(measure.value, 3) for measure in found]
            last = next((measure for measure in reversed(found) if measure is not None), None)
            systems[system] = {
                "median": None if median is None else round(median, 3),
                "rounds": values,
                "more": {} if last is None else {key: round(value, 3) for key, value in last.more.items()},
                "why_not": results.reasons.get(row.key, {}).get(system, "") if None in found else "",
            }
        ratios = {other: results.ratio(row.key, other) for other in SYSTEMS if other != OURS}
        rows.append(
            {
                "row": row.key,
                "work": row.title,
                "unit": row.unit,
                "systems": systems,
                "ours_against": {other: round(ratio, 3) for other, ratio in ratios.items() if ratio is not None},
            }
        )
    return {"about": about, "rows": rows, "targets": verdicts(results, all_rows, promises)}


# ---- for a terminal ----


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(results: Results, all_rows: tuple[Row, ...], promises: tuple[Promise, ...]) -> str:
    """Medians side by side, the promises below, and why what is missing is missing."""
    systems = [name for name in SYSTEMS if any(name in found for found in results.figures.values())]
    lines = [f"{'':38} {'unit':>8}" + "".join(f"{TITLES[name]:>16}" for name in systems) + f"{'± local, ours':>16}"]
    for row in all_rows:
        if row.key not in results.figures:
            continue
        figures = "".join(f"{_figure(results.median(row.key, name)):>16}" for name in systems)
        noise = f"{results.spread(row.key, 'local'):.0%}, {results.spread(row.key, OURS):.0%}"
        lines.append(f"{row.title:38} {row.unit:>8}{figures}{noise:>16}")
    lines += ["", f"{'promised':38} {'measure':>24} {'found':>10} {'target':>18}"]
    for verdict in verdicts(results, all_rows, promises):
        found, limit = verdict["ratio"], verdict["target"]
        assert isinstance(limit, int | float)
        shown = _figure(found) if isinstance(found, int | float) else "–"
        word = {True: "met", False: "NOT MET", None: "not measured"}[verdict["met"]]  # type: ignore[index]
        target = f"{verdict['sense']} {_figure(float(limit))}"
        lines.append(f"{verdict['work']!s:38} {verdict['measure']!s:>24} {shown:>10} {target:>18}  {word}")
    missing: dict[str, list[str]] = {}
    for key, reasons in results.reasons.items():
        for system, why in reasons.items():
            missing.setdefault(f"{TITLES[system]}: {why}", []).append(key)
    lines += [""] * bool(missing) + [f"without a figure: {', '.join(keys)} – {why}" for why, keys in missing.items()]
    return "\n".join(lines)


# ---- for the eye ----

_COLOURS = {
    "local": "#8c8c8c",
    "bound": "#c9a227",
    "alone": "#7fb3d5",
    "ours": "#1f6fb4",
    "encrypted": "#5b4fb4",
    "gluster": "#b4451f",
}
_DECADES = 4
_LEFT, _WIDTH, _BAR, _GAP = 270, 640, 11, 14


def chart(results: Results, all_rows: tuple[Row, ...]) -> str:
    """An SVG: for each row that has a local figure, every system against it, on a logarithmic scale."""
    drawn = [row for row in all_rows if results.median(row.key, "local")]
    parts: list[str] = []
    y = 70
    for row in drawn:
        local = results.median(row.key, "local") or 1.0
        top = y
        for name in SYSTEMS:
            value = results.median(row.key, name)
            if value is None or name == "local":
                continue
            width = _across(value / local)
            text = f"{_figure(value)} {row.unit} · {value / local:.1%} of local"
            parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{_COLOURS[name]}"/>')
            parts.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + _BAR - 2}" class="small">{escape(text)}</text>')
            y += _BAR + 2
        parts.append(f'<text x="{_LEFT - 10}" y="{(top + y) / 2 + 2:.0f}" text-anchor="end">{escape(row.title)}</text>')
        y += _GAP
    grid = "".join(_grid_line(10.0**-power, y) for power in range(_DECADES))
    legend = "".join(
        f'<rect x="{_LEFT + index * 150}" y="16" width="11" height="11" fill="{_COLOURS[name]}"/>'
        f'<text x="{_LEFT + 17 + index * 150}" y="26">{escape(TITLES[name])}</text>'
        for index, name in enumerate(name for name in SYSTEMS if name != "local")
    )
    style = "<style>text{font:12px sans-serif;fill:#222}.small{font-size:10px;fill:#555}</style>"
    size = f'width="{_LEFT + _WIDTH + 190}" height="{y + 20}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}<rect width="100%" height="100%" fill="white"/>'
    return f"{head}{legend}{grid}{''.join(parts)}</svg>\n"


def _grid_line(share: float, bottom: float) -> str:
    x = f"{_LEFT + _across(share):.1f}"
    line = f'<line x1="{x}" y1="56" x2="{x}" y2="{bottom}" stroke="#ddd"/>'
    return f'{line}<text x="{x}" y="50" text-anchor="middle" class="small">{100 * share:g} %</text>'


def _across(share: float) -> float:
    """How long a bar is: 10^-DECADES of local is nothing, twice local is the end."""
    least, most = -float(_DECADES), math.log10(2)
    return max(1.0, (math.log10(max(share, 10**least)) - least) / (most - least) * _WIDTH)
