"""Time and chance of one simulated world: a heap of things to come, and one generator of random numbers."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random


class Clock:
    """What happens next. Two runs with the same seed are the same run."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay: float, what: Callable[[], None]) -> None:
        """Call `what` in `delay` seconds."""
        self._count += 1
        heapq.heappush(self._coming, (self.now + delay, self._count, what))

    def between(self, low: float, high: float) -> float:
        """A random duration in seconds."""
        return low + (high - low) * self.random.random()

    def chance(self, probability: float) -> bool:
        """Whether it happens."""
        return self.random.random() < probability

    def next(self, until: float) -> bool:
        """Let one thing happen; False when nothing is left before `until`."""
        if not self._coming or self._coming[0][0] > until:
            self.now = max(self.now, until)
            return False
        self.now, _, what = heapq.heappop(self._coming)
        what()
        return True
