"""Words and tables for a person. `rich` draws when the output is a terminal; a pipe gets plain columns."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

_WORDS = {
    ("STOP", "NotReady"): "stopped",
    ("STOP", "Transient"): "stopping",
    ("WAIT", "NotReady"): "blocked",
    ("WAIT", "Transient"): "starting or stopping",
    ("ALONE", "Transient"): "starting or stopping the application, no secondary",
    ("ALONE", "Ready"): "runs the application, no secondary",
    ("PRIM", "Transient"): "starting or stopping the application",
    ("PRIM", "Ready"): "runs the application, the secondary is ready",
    ("SECOND", "Transient"): "synchronising its files",
    ("SECOND", "Ready"): "ready to take over",
    ("UP", "Transient"): "starting or stopping the application",
    ("UP", "Ready"): "runs the application",
    ("NOT_CONFIGURED", "NotReady"): "not configured",
    ("UNKNOWN", ""): "does not answer",
}
_COLOURS = {"NotReady": "red", "Transient": "yellow", "Ready": "green"}
_BAR_WIDTH = 24


def in_words(state: Mapping[str, Any]) -> str:
    """What a state means, in a few words."""
    words = _WORDS.get((state["state"], state["substate"]), "")
    waiting = state.get("waiting_for") or []
    return f"{words}, waiting for {', '.join(waiting)}" if waiting else words


def state_name(state: Mapping[str, Any]) -> str:
    """`PRIM Ready`, as the log writes it."""
    if state["state"] == "NOT_CONFIGURED":
        return "NOT CONFIGURED"
    return f"{state['state']} {state['substate']}".rstrip()


def local_time(date: str | None) -> str:
    """A date of the API in the time of this node, to the second."""
    return f"{datetime.fromisoformat(date).astimezone():%Y-%m-%d %H:%M:%S}" if date else "-"


def lasted(time: timedelta) -> str:
    """A duration in its two largest units."""
    seconds = max(int(time.total_seconds()), 0)
    days, hours, minutes = seconds // 86400, seconds % 86400 // 3600, seconds % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def since(date: str | None, now: datetime) -> str:
    """How long ago a date of the API is."""
    return lasted(now - datetime.fromisoformat(date)) if date else "-"


def size(count: float) -> str:
    """Bytes in a unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def progress_line(progress: Mapping[str, Any]) -> str:
    """How far a resynchronisation is: a bar and figures."""
    done = round(_BAR_WIDTH * min(max(progress["percent"], 0), 100) / 100)
    parts = [
        f"[{'#' * done}{'-' * (_BAR_WIDTH - done)}] {progress['percent']:.0f} %",
        f"{size(progress['bytes_done'])} of {size(progress['bytes_total'])}",
        f"{progress['files_done']} of {progress['files_total']} files",
        f"{size(progress['rate_bps'])}/s",
    ]
    if progress["eta_s"] is not None:
        parts.append(f"{lasted(timedelta(seconds=progress['eta_s']))} left")
    return ", ".join(parts)


def on_terminal() -> bool:
    """Whether a person looks at the output."""
    return sys.stdout.isatty()


def show_json(value: object) -> None:
    """An answer of the API as it came."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, colour: str | None = None) -> None:
    """Print rows in columns. colour: the column whose second word (`Ready`, `NotReady`, `Transient`) colours it."""
    if on_terminal():
        _rich_table(columns, rows, colour)
        return
    widths = [max(len(line[place]) for line in (columns, *rows)) for place in range(len(columns))]
    for line in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], colour: str | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        cells = [Text(cell) for cell in row]
        if colour is not None:
            cell = cells[columns.index(colour)]
            cell.stylize(_COLOURS.get(cell.plain.rpartition(" ")[2], "red" if cell.plain == "ERROR" else ""))
        drawn.add_row(*cells)
    Console().print(drawn)
