"""Policy `fence` (docs/reference/witness.md): the claims of a mirror are answered by a program of the module, `bin/fence`, that
switches the other node off, and says by exit code 0 that it is off.

What becomes of a claim is decided by `automaton/mirror/fencing.py`; here the program is run. Who asks makes durable what this
node has first. A secondary gives a primary that lives some seconds to be the first; a program that fails is run again for
a primary, which holds its writes, while a secondary gives way.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from safekit.automaton.mirror import Answered, Silent
from safekit.automaton.mirror.fencing import Ruling, next_epoch, ruling
from safekit.automaton.vocabulary import Ask, Role
from safekit.scripts import Outcome, ScriptCall

if TYPE_CHECKING:
    from safekit.module.mirror import MirrorModule

PROGRAM = "fence"
LIMIT = timedelta(seconds=60)
"""How long the program may take."""
SECONDARY_AFTER_S = 3.0
AGAIN_S = 15.0
_LONG_S = 3600.0
_TASK = "fence"


class Fencer:
    """The claims of one module under policy `fence`; it answers to the same calls as `Claimant`."""

    names: tuple[str, ...] | None = None
    trouble = ""

    def __init__(self, module: MirrorModule) -> None:
        self._module = module

    def watch(self) -> None:
        """There is nothing to look at."""

    def forget(self) -> None:
        """Ask nothing more."""
        self.withdraw()

    def withdraw(self) -> None:
        """No claim is wanted any more; a program that runs ends by itself."""
        self._module.end(_TASK)

    async def ask(self, asked: Ask) -> None:
        """Answer a claim, in place of the one before, once all that this node has is durable."""
        if self._module.state.asked == asked:
            self._module.spawn(self._work(asked), _TASK)

    async def _work(self, asked: Ask) -> None:
        module = self._module
        if module.replica is not None:
            await asyncio.to_thread(module.replica.sync_below)
        clock = asyncio.get_running_loop().time
        first_at = clock() + (SECONDARY_AFTER_S if module.state.role is Role.SECOND else 0.0)
        while module.state.asked == asked:
            match found := ruling(module.state, asked):
                case Ruling.GRANTED | Ruling.REFUSED:
                    self._answer(asked, found is Ruling.GRANTED)
                    return
                case Ruling.HEARD:
                    module.put(Silent(f"{module.peer_node} is heard, and not fenced"))
                    await self._changes(asked, found, _LONG_S)
                case Ruling.PROVE if clock() < first_at:
                    await self._changes(asked, found, first_at - clock())
                case Ruling.PROVE:
                    if not (why := await self._prove(asked)):
                        self._answer(asked, True)
                        return
                    module.put(Silent(f"{datetime.now():%H:%M:%S} fencing of {module.peer_node} failed: {why}"))
                    await self._changes(asked, found, AGAIN_S)

    async def _changes(self, asked: Ask, before: Ruling, seconds: float) -> None:
        """Wait until the claim is to be looked at again."""
        module = self._module
        await module.wait_until(
            lambda: module.state.asked != asked or ruling(module.state, asked) is not before, seconds
        )

    async def _prove(self, asked: Ask) -> str:
        """Run the program: why the other node is not known to be off, empty when it is."""
        module, around = self._module, self._module.around
        user = around.config.service.user
        module.witness("heart", "C", f"Fencing of {module.peer_node} begins")
        clock = asyncio.get_running_loop().time
        begun = clock()
        result = await around.scripts.run(
            ScriptCall(
                module=around.name,
                name=PROGRAM,
                state=module.state.role,
                next_state=Role.ALONE,
                action="fence",
                ticket=f"fence.{module.life}.{asked.number}.{int(begun * 1000)}",
                limit=LIMIT,
                variables={**(user.variables if user else {}), **self._target()},
            )
        )
        match result.outcome:
            case Outcome.OK:
                module.log.write(
                    "heart", "E", f"{module.peer_node} is off, says bin/fence after {clock() - begun:.1f} s"
                )
                return ""
            case Outcome.SKIPPED:
                return "the module has no program bin/fence"
            case _:
                return result.reason

    def _target(self) -> dict[str, str]:
        """Whom to switch off, for the environment of the program."""
        peer = self._module.peer_node
        lans = self._module.around.cluster.lans
        addresses = dict.fromkeys(str(node.addr) for lan in lans for node in lan.nodes if node.name == peer)
        return {"SAFEPEER": peer, "SAFEPEERADDR": " ".join(addresses)}

    def _answer(self, asked: Ask, granted: bool) -> None:
        state = self._module.state
        if granted:
            self._module.put(Answered(asked.number, True, next_epoch(state, asked), asked.wanted))
        else:
            self._module.put(Answered(asked.number, False, state.register.epoch, state.register.holders))
