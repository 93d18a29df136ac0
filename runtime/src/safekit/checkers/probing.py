"""What every checker that probes has in common: one question, asked again and again, whose answer is a resource.

A probe that takes longer than its interval delays the next one; two probes of one target never run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Report = Callable[[str, str, str], bool]
"""Sets a resource: its name, its value (`up`, `down`), who says so. True when that changed it."""


@dataclass(frozen=True)
class Probe:
    """`resource` is up when `ask` answers True. Times in seconds; `ask` keeps its own time limit.

    `grace` negative answers in a row make it down; one positive makes it up.
    """

    resource: str
    by: str
    interval: float
    ask: Callable[[], Awaitable[bool]]
    grace: int = 1

    async def run(self, report: Report) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        failed = 0
        while True:
            began = loop.time()
            failed = 0 if await self.ask() else failed + 1
            if failed == 0:
                report(self.resource, "up", self.by)
            elif failed >= self.grace:
                report(self.resource, "down", self.by)
            await asyncio.sleep(max(0.0, began + self.interval - loop.time()))
