"""The loop guard (spec §3.2 `maxloop`, §6.1 rule 5): a module that keeps failing on a node is stopped there.

Pure. Each automatic action counts; the one after `maxloop` within `loop_interval` becomes a stop. An administrator's
command begins anew.

The resource `heart.stopstartloop` shows it, and outlives the machine (spec §4.10): its value is when the count began, in
seconds since the epoch, 0 for none; each time that it is given this value is one action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from safekit.automaton.vocabulary import Action, Command

COUNTED = (Action.RESTART, Action.STOPSTART, Action.WAIT)
RESOURCE = "heart.stopstartloop"


@dataclass(frozen=True)
class LoopGuard:
    """`began` is the time of the first counted action (seconds since the epoch), `count` how many there were
    since.
    """

    maxloop: int
    loop_interval_s: float
    began: float = 0.0
    count: int = 0

    def admit(self, command: Command, now: float) -> tuple[LoopGuard, Command]:
        """The guard after `command`, and the command to carry out: itself, or `stop` called by maxloop."""
        if not command.identity:
            return replace(self, began=0.0, count=0), command
        if command.action not in COUNTED or self.loop_interval_s == 0:
            return self, command
        if self.reached(now):
            return self.reset(), Command(Action.STOP, "maxloop")
        return self.counted(now), command

    def reached(self, now: float) -> bool:
        """Whether the next automatic action becomes a stop."""
        return self.loop_interval_s > 0 and not self._over(now) and self.count >= self.maxloop

    def counted(self, now: float) -> LoopGuard:
        """The guard after one more automatic action."""
        if self.loop_interval_s == 0:
            return self
        if self._over(now):
            return replace(self, began=now, count=1)
        return replace(self, count=self.count + 1)

    def reset(self) -> LoopGuard:
        """The guard that begins anew."""
        return replace(self, began=0.0, count=0)

    @property
    def shown(self) -> str:
        """The value of the resource."""
        return str(int(self.began)) if self.count else "0"

    def remembered(self, values: Sequence[str]) -> LoopGuard:
        """The guard that the history of the resource tells of, newest value first."""
        if not values or not values[0].isdecimal() or values[0] == "0":
            return self.reset()
        count = next((number for number, value in enumerate(values) if value != values[0]), len(values))
        return replace(self, began=float(values[0]), count=count)

    def _over(self, now: float) -> bool:
        return self.count == 0 or now - self.began > self.loop_interval_s
