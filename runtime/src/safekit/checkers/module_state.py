"""Another module that this one needs: resource `module.<ident>` (spec §6.2).

It is up while the other module serves, PRIM, ALONE or UP (Ready), on one of the nodes that `<to>` means. What each node
says of its modules is known here from the membership of the cluster; nothing is asked over the network.

A module whose service began anew since the last look, because it was restarted or failed over, has forgotten its clients:
the one that needs it is stopped and started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from safekit.checkers.probing import Report
from safekit.config import ModuleCheck

_SERVES = ("PRIM", "ALONE", "UP")


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one node says of a module. `turn` is another number each time that its service began; 0 when it did not."""

    node: str
    state: str
    substate: str
    turn: int


class ModuleStateChecker:
    """Looks at what the nodes say of one module.

    look: the nodes that are heard and have the module. nodes: those that count. anew: called when the service began anew
    between two looks, with the sentence for the log.
    """

    def __init__(
        self,
        check: ModuleCheck,
        look: Callable[[str], Iterable[Sighting]],
        nodes: Collection[str],
        report: Report,
        anew: Callable[[str], None],
    ) -> None:
        self._check = check
        self._look = look
        self._nodes = nodes
        self._report = report
        self._anew = anew
        self._turns: frozenset[tuple[str, int]] = frozenset()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.see()
            await asyncio.sleep(self._check.interval.total_seconds())

    def see(self) -> None:
        """One look."""
        serving = [
            seen
            for seen in self._look(self._check.name)
            if seen.node in self._nodes and seen.state in _SERVES and seen.substate == "Ready"
        ]
        self._report(f"module.{self._check.ident}", "up" if serving else "down", "modulecheck")
        if not serving:
            return
        before, self._turns = self._turns, frozenset((seen.node, seen.turn) for seen in serving)
        if before and not before & self._turns:  # a farm serves as long as one of its nodes does
            where = " and ".join(sorted(seen.node for seen in serving))
            self._anew(f"module {self._check.name} began its service anew on {where}")
