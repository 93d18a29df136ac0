"""SQLite's own load from its source: several processes, some of which are killed, and the mix of requests of its benchmark."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

from tests.suites.sources import source


class Sqlite:
    """The programs, built into `home` against the library of this machine."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tree = source("sqlite3", ("*/mptest", "*/test/speedtest1.c"))
        for program in ("mptest/mptest", "test/speedtest1"):
            subprocess.run(
                [
                    "cc",
                    "-O1",
                    "-w",
                    "-pthread",
                    "-o",
                    home / Path(program).name,
                    self.tree / f"{program}.c",
                    "-lsqlite3",
                    "-lm",
                ],
                check=True,
            )

    def loads(self) -> dict[str, list[str]]:
        """What can be run: the arguments before and after the name of the database."""
        scripts = self.tree / "mptest"
        processes = {
            f"{script}, {mode}": [
                str(self.home / "mptest"),
                "%",
                str(scripts / f"{script}.test"),
                "--journalmode",
                mode,
            ]
            for script in ("crash01", "multiwrite01")
            for mode in ("delete", "wal", "truncate", "persist")
        }
        speed = {
            f"speedtest1, {mode}": [str(self.home / "speedtest1"), "--size", "8", "--verify", "--journal", mode, "%"]
            for mode in ("delete", "wal")
        }
        return processes | speed

    def run(self, load: str, base: Path) -> str:
        """Runs a load on the database `base`. What went wrong, or ''."""
        line = [str(base) if word == "%" else word for word in self.loads()[load]]
        ran = subprocess.run(line, cwd=base.parent, capture_output=True, text=True, check=False, timeout=300)
        if ran.returncode:
            return f"{load}: exit code {ran.returncode}\n{ran.stdout[-1500:]}{ran.stderr[-1500:]}"
        return self.check(base)

    @staticmethod
    def check(base: Path, *, only_read: bool = False) -> str:
        """The integrity of a database. What is wrong, or ''."""
        connection = sqlite3.connect(f"file:{base}?{'immutable=1' if only_read else 'mode=rw'}", uri=True)
        try:
            answer = str(connection.execute("pragma integrity_check").fetchone()[0])
        finally:
            connection.close()
        return "" if answer == "ok" else f"{base}: {answer}"
