"""Measures what is promised in figures, on the nodes: `python -m benchmarks`."""

import sys
from pathlib import Path

# As the tests see it: the product's package from its sources, not installed here.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "runtime" / "src"))
