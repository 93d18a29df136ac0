"""Hold the share of branches that the unit tests take: `make/branches.py safekit.config=95 ...` after a run with coverage.

Only branches count (lines are easy). One line per package; exit code 1 when one is below its share, with the lines to look at.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Compare each package with its share."""
    coverage = Coverage(config_file=str(ROOT / "pyproject.toml"))
    coverage.load()
    report = ROOT / "build" / "coverage" / "coverage.json"
    coverage.json_report(outfile=str(report))
    files = json.loads(report.read_text())["files"]
    low = False
    for wanted in sys.argv[1:]:
        package, _, least = wanted.partition("=")
        folder = f"/{package.replace('.', '/')}/"
        inside = {name: file for name, file in files.items() if folder in f"/{name}"}
        taken = sum(file["summary"]["covered_branches"] for file in inside.values())
        there = sum(file["summary"]["num_branches"] for file in inside.values())
        share = 100 * taken / there if there else 0.0
        print(f"{package}: {taken} of {there} branches, {share:.1f} % (at least {least} %)")
        if share < float(least):
            low = True
            for name, file in sorted(inside.items()):
                missing = " ".join(f"{a}->{b}" for a, b in file["missing_branches"])
                if missing:
                    print(f"  {name}: {missing}")
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
