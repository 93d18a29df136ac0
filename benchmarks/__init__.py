"""Measures what is promised in figures, on the nodes: `python -m benchmarks`."""
