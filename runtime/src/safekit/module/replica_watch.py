"""What goes on beside the data plane of a mirror by the clock: null requests, schedules, the age of a copy, metrics.

It sets resources and gives the automaton levels (`Held`, `Trusted`); it decides nothing itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

from safekit.automaton.data import may_start_alone
from safekit.automaton.mirror import DataPhase, MirrorState, Trusted
from safekit.automaton.vocabulary import Action, Command, Readiness, Role
from safekit.config import Rfs
from safekit.config.crontab import Crontab
from safekit.module.freshness import LEAST, Freshness
from safekit.module.null_request import answers
from safekit.replication import DataPlaneError, DataPlaneGone

if TYPE_CHECKING:
    from safekit.module.mirror import MirrorModule
    from safekit.module.replica import Replica

SYNCAT: Final = "rfs.syncat"
SYNCAT_RULE: Final = "rfs_syncat_wait"
BANDWIDTHS: Final = ("rep_bandwidth", "rei_bandwidth", "netout_bandwidth", "netin_bandwidth")
_MEASURE_S: Final = 3.0
_FRESHNESS_S: Final = 1.0
_NOTE_EVERY_S: Final = 30.0
_LONGEST_SLEEP_S: Final = 30.0


def may_need_trust(state: MirrorState, cluster_hears_peer: bool) -> bool:
    """Whether `syncdelta` has a say (spec §4.5): nobody hears the peer, and the record alone does not let this node serve.

    A record that says that both had everything does not, after a general loss of power.
    """
    return state.peer.alive is False and not cluster_hears_peer and not may_start_alone(state.record)


class ReplicaWatch:
    """The clocks of one replica."""

    def __init__(self, module: MirrorModule, replica: Replica, rfs: Rfs) -> None:
        self._module = module
        self._replica = replica
        self._rfs = rfs
        self._noted_at = 0.0
        around = module.around
        self._freshness = Freshness(around.paths.module_var(around.name) / "synced.json")

    def started(self, anew: bool) -> None:
        """The module is started; `anew` False: it was before the daemon was."""
        module, resources = self._module, self._module.resources
        if self._rfs.syncat is None:
            resources.forget(SYNCAT)
            module.hold(SYNCAT_RULE, False)
        else:
            if anew:
                module.set_resource(SYNCAT, "up", "the start")
            present = resources.get(SYNCAT)
            module.hold(SYNCAT_RULE, present is not None and present.value == "down")
            module.spawn(self._at(self._rfs.syncat, self._time_to_synchronise), "syncat")
        if self._rfs.verifyat is not None:
            module.spawn(self._at(self._rfs.verifyat, self._time_to_verify), "verifyat")
        if self._rfs.syncdelta > LEAST:
            module.spawn(self._watch_age(), "freshness")
        else:
            resources.forget("rfs.synced")

    def stopped(self) -> None:
        """The module is stopped."""
        for task in ("syncat", "verifyat", "freshness", "null request", "metrics"):
            self._module.end(task)
        self._module.hold(SYNCAT_RULE, False)

    def moved(self, state: MirrorState) -> None:
        """The module's state is another one."""
        if self._rfs.syncat is None:
            return
        ready = state.role is Role.SECOND and state.readiness is Readiness.READY
        if ready and not state.plan:
            self._module.set_resource(SYNCAT, "down", "the synchronisation")

    def resource_was_set(self, name: str, value: str) -> None:
        """A person, a script or a schedule gave a resource a value."""
        if name == SYNCAT and self._rfs.syncat is not None:
            self._module.hold(SYNCAT_RULE, value == "down" and self._module.state.role is not Role.STOP)
        elif name == "rfs.degraded" and value == "down":
            self._replica.try_again()

    # --- schedules ---

    async def _at(self, schedule: Crontab, act: Callable[[], None]) -> None:
        """Call `act` at each minute of the schedule, in the time of this node."""
        while True:
            due = schedule.after(datetime.now())
            while (left := (due - datetime.now()).total_seconds()) > 0:
                await asyncio.sleep(min(left, _LONGEST_SLEEP_S))
            act()

    def _time_to_synchronise(self) -> None:
        self._module.set_resource(SYNCAT, "up", "syncat")

    def _time_to_verify(self) -> None:
        """The primary asks; the result reaches both nodes."""
        if self._module.state.role is Role.PRIM:
            self._module.spawn(self._verify())

    async def _verify(self) -> None:
        try:
            await self._replica.compare("verify")
        except (DataPlaneError, DataPlaneGone) as error:
            self._module.log.write("rfs", "C", f"Comparing the copies (verify) failed: {error}")

    # --- the age of the copy ---

    async def synchronised(self) -> None:
        """The copies are equal at this moment."""
        if self._rfs.syncdelta > LEAST:
            await asyncio.to_thread(self._freshness.note)

    async def _watch_age(self) -> None:
        while True:
            state = self._module.state
            if state.data in (DataPhase.MIRROR, DataPhase.INSTEP):
                await self._note()
            synced = state.record.consistent and self._freshness.younger_than(self._rfs.syncdelta)
            self._module.set_resource("rfs.synced", "up" if synced else "down", "syncedcheck")
            trusted = synced and may_need_trust(state, self._module.cluster_hears_peer)
            if trusted != state.trusted:
                self._module.put(Trusted(trusted))
            await asyncio.sleep(_FRESHNESS_S)

    async def _note(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._noted_at >= _NOTE_EVERY_S:
            self._noted_at = now
            await asyncio.to_thread(self._freshness.note)

    # --- null requests ---

    def serving(self, on: bool) -> None:
        """The directories are mounted here, or no longer."""
        if on:
            self._module.spawn(self._ask_for_ever(), "null request")
        else:
            self._module.end("null request")

    async def _ask_for_ever(self) -> None:
        limit = self._rfs.checktime.total_seconds()
        while True:
            await asyncio.sleep(self._rfs.checkintv.total_seconds())
            for directory in self._replica.directories:
                if not await answers(directory, limit):
                    self._module.log.write(
                        "rfs", "C", f"the replicated directory {directory} does not answer within {limit:g} s"
                    )
                    self._stopstart()
                    return

    def _stopstart(self) -> None:
        command = Command(Action.STOPSTART, "checktime")
        if not self._module.refusal(command):
            self._module.command(command)

    # --- metrics ---

    def measuring(self, on: bool) -> None:
        """The data plane can be asked, or no longer."""
        if on:
            self._module.spawn(self._measure(), "metrics")
            return
        self._module.end("metrics")
        for name in BANDWIDTHS:
            self._module.resources.set(f"rfs.{name}", "0", lasting=False)

    async def _measure(self) -> None:
        """Spec §4.9.1: averages over three seconds, in KB/s."""
        while True:
            try:
                stats = await self._replica.process.plane.stats()
            except (DataPlaneError, DataPlaneGone):
                stats = {}
            for name in BANDWIDTHS:
                value = int(stats.get(f"{name}_bytes", 0)) // 1000
                self._module.resources.set(f"rfs.{name}", str(value), lasting=False)
            await asyncio.sleep(_MEASURE_S)
