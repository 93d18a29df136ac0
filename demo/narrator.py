"""Tells the story with times, and keeps the figures for `build/reports/demo.json`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

BOLD, DIM, GREEN, RED, PLAIN = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m"


class Narrator:
    """One line per event; `colour` for terminals."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour
        self._began = time.monotonic()
        self.figures: dict[str, dict[str, Any]] = {}

    def chapter(self, title: str) -> None:
        """A new act of the story."""
        self._print(f"\n{self._paint(BOLD, title)}")

    def tell(self, text: str) -> None:
        """Something happened."""
        self._print(f"{self._paint(DIM, f'{self.elapsed():6.1f} s')}  {text}")

    def good(self, text: str) -> None:
        """Something that had to hold, holds."""
        self.tell(self._paint(GREEN, "✓ ") + text)

    def bad(self, text: str) -> None:
        """Something that had to hold, does not."""
        self.tell(self._paint(RED, "✗ ") + text)

    def figure(self, part: str, name: str, value: Any) -> None:
        """A figure of the report: `part.name` = value."""
        self.figures.setdefault(part, {})[name] = value

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def write(self, path: Path) -> None:
        """Write the report."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.figures, indent=2) + "\n")

    def _paint(self, style: str, text: str) -> str:
        return f"{style}{text}{PLAIN}" if self._colour else text

    def _print(self, line: str) -> None:
        print(line, flush=True)
