"""The loop guard (spec §3.2 `maxloop`, §6.1 rule 5): a module that keeps failing on a node is stopped there.

Pure. Each automatic action counts; the one after `maxloop` within `loop_interval` becomes a stop. An administrator's
command begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from safekit.automaton.vocabulary import Action, Command

COUNTED = (Action.RESTART, Action.STOPSTART, Action.WAIT)


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
        if self.count == 0 or now - self.began > self.loop_interval_s:
            return replace(self, began=now, count=1), command
        if self.count >= self.maxloop:
            return replace(self, began=0.0, count=0), Command(Action.STOP, "maxloop")
        return replace(self, count=self.count + 1), command
