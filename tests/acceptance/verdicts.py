"""How each case ended: collected while the tests run, shown as a table, written to build/reports/acceptance.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tests.acceptance.cases import IDS, NotBuilt

NOTE_LIMIT = 160


@dataclass(frozen=True)
class Verdict:
    """One case. `seconds` include what was done before and after the test for it."""

    id: str
    result: Literal["pass", "fail"]
    seconds: float
    note: str

    def line(self) -> str:
        """As the table shows it."""
        return f"{self.id:4} {self.result:5} {self.seconds:6.1f} s  {self.note}".rstrip()


class Verdicts:
    """Of one run."""

    def __init__(self) -> None:
        self._found: dict[str, Verdict] = {}
        self._failed: set[str] = set()

    def add(self, number: str, phase: str, seconds: float, failure: BaseException | None, ours: str) -> None:
        """A phase of the case's test ended: `setup`, `call` (the test itself), `teardown`. The first failure stays.

        A case passes with its call: one that was broken off before has failed.
        """
        before = self._found.get(number, Verdict(number, "fail", 0.0, "broken off"))
        result, note = before.result, before.note
        if number not in self._failed:
            if failure is not None:
                self._failed.add(number)
                result, note = "fail", in_one_line(failure)
            elif phase == "call":
                result, note = "pass", f"ours: {ours}" if ours else ""
        self._found[number] = Verdict(number, result, before.seconds + seconds, note)

    @property
    def all(self) -> tuple[Verdict, ...]:
        """In the order of the specification; only those that were run."""
        return tuple(self._found[number] for number in IDS if number in self._found)

    def table(self) -> list[str]:
        """One line for each case, and a sum."""
        return [*(verdict.line() for verdict in self.all), self.sum()]

    @property
    def last(self) -> Verdict:
        """The newest."""
        return next(reversed(self._found.values()))

    def sum(self) -> str:
        """How many passed and failed, and how many of the 59 were not run."""
        passed = sum(verdict.result == "pass" for verdict in self.all)
        absent = len(IDS) - len(self.all)
        spent = sum(verdict.seconds for verdict in self.all)
        less = f", {absent} not run" if absent else ""
        return f"{passed} cases pass, {len(self.all) - passed} fail{less}, {spent / 60:.1f} minutes"

    def write(self, path: Path) -> None:
        """The report."""
        path.parent.mkdir(parents=True, exist_ok=True)
        cases = [asdict(verdict) | {"seconds": round(verdict.seconds, 1)} for verdict in self.all]
        path.write_text(json.dumps({"cases": cases}, indent=1, ensure_ascii=False) + "\n")


def in_one_line(failure: BaseException) -> str:
    """What a table has room for."""
    text = " ".join(str(failure).split()) or type(failure).__name__
    said = f"not built: {text}" if isinstance(failure, NotBuilt) else text
    return said if len(said) <= NOTE_LIMIT else f"{said[: NOTE_LIMIT - 4]} ..."
