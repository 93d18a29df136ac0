"""The data plane of one mirror module: its process, what each step of the automaton means for it, and its voice.

What runs beside it by the clock (the null request, schedules, metrics) is in `replica_watch.py`; what is remembered of
an administrator's synchronisation policy in `settings.py`. Nothing here decides about the module's state.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safekit.automaton.data import resynchronising
from safekit.automaton.mirror import DataPhase, DataSaid, Degraded, MirrorState, ResyncBegan
from safekit.automaton.vocabulary import (
    Connect,
    DataAlone,
    DataHandover,
    DataPrimary,
    DataSecondary,
    DataStop,
    Pair,
    Publish,
    Readiness,
    Role,
    Step,
)
from safekit.config import Rfs, ports
from safekit.files import boot_identity
from safekit.module.comparison import Comparison, Comparisons, Kind
from safekit.module.engine import StepError
from safekit.module.record import from_text, to_text, write_record
from safekit.module.replica_watch import ReplicaWatch
from safekit.module.resync import ResyncCounts, ResyncReport
from safekit.module.settings import DEFAULT_SYNC
from safekit.replication import (
    CompareEnded,
    CompareProgress,
    DataPlane,
    DataPlaneError,
    DataPlaneGone,
    DataPlaneProcess,
    DirectoryError,
    Failure,
    Gone,
    InMirror,
    Other,
    PeerLost,
    PrimaryLost,
    Published,
    ReplicatedDirectory,
    Resumed,
    ResyncEnded,
    ResyncProgress,
    ResyncStarted,
    Status,
    Warned,
    check_directories,
    left_mounted,
)
from safekit.replication.durable import sync_below
from safekit.replication.options import settings_of

if TYPE_CHECKING:
    from safekit.module.mirror import MirrorModule

PAIRING_S: Final = 20.0
"""How long a swap waits for the former primary to become a mirroring secondary before it starts the application."""
HANDOVER_S: Final = 30.0
NEVER_WORKS: Final = ("version", "directories", "key")
"""Refusals of a peer that no repetition cures."""
TRIES_BEFORE_DEGRADED: Final = 10
_NO_ZONES: Final = "0"
"""`namespacepolicy`: no resynchronisation by zones, always of everything."""


class Replica:
    """The replicated directories of one mirror module on this node."""

    def __init__(self, module: MirrorModule, rfs: Rfs) -> None:
        self._module = module
        self._rfs = rfs
        self._refused = 0
        self._callbacks = asyncio.Lock()
        self._travelled = 0
        paths = module.around.paths
        address, _port = self._endpoint(module.around.node)
        self.process = DataPlaneProcess(
            settings_of(module.around.name, rfs, paths, boot_identity(paths.boot_id), address)
        )
        self.report = ResyncReport(module.log, module.resources, detail=rfs.reidetail)
        self.comparisons = Comparisons(module.log, module.resources)
        self.watch = ReplicaWatch(module, self, rfs)

    @property
    def directories(self) -> tuple[Path, ...]:
        """The replicated directories."""
        return tuple(Path(replicated.dir) for replicated in self._rfs.replicated)

    def sync_below(self) -> None:
        """What is below the mounts is on this node's disk when this returns. Raises OSError."""
        sync_below(self.directories)

    # --- steps ---

    async def carry_out(self, step: Step, state: MirrorState) -> None:
        """One step of a plan that is the data plane's. Raises StepError."""
        try:
            await self._carry_out(step, self.process.plane, state)
        except DirectoryError as error:
            raise StepError(str(error)) from error
        except DataPlaneError as error:
            raise StepError(error.message) from error
        except DataPlaneGone as error:
            if not isinstance(step, DataStop):
                raise StepError(f"the data plane does not answer: {error}") from error
            await self._clear_up()

    async def _carry_out(self, step: Step, plane: DataPlane, state: MirrorState) -> None:
        generation = to_text(state.record)
        match step:
            case DataPrimary():
                await self._begin(plane)
                await plane.primary(generation=generation, force=state.forced)
                self.watch.serving(True)
                self._call("_rfs_primary")
            case DataSecondary():
                await self._begin(plane)
                address, port = self._endpoint(self._module.around.node)
                await plane.secondary(address, port, generation=generation, clean=self._exact(state))
                self._call("_rfs_secondary")
            case DataAlone():
                # Heartbeats can be lost before the stream notices anything: it ends with the same word.
                await plane.alone(generation=generation, leave=True)
            case DataHandover():
                self._quiet()
                await plane.handover(timeout=HANDOVER_S)
                self._call("_rfs_stopped")
            case Publish():
                await plane.publish(generation=generation)
                self.forget_policy()
            case Pair():
                await self._pair(plane, generation)
            case _:
                self._quiet()
                await self._stop(plane, at_once=state.lapsed)
                self._call("_rfs_stopped")

    def _exact(self, state: MirrorState) -> bool:
        """Whether less than everything may be compared: what a crash left in doubt is in the logs of the data plane."""
        policy = self._module.settings.syncmode
        return policy == "external" or (policy != "full" and bool(state.record.generation))

    async def _begin(self, plane: DataPlane) -> None:
        """The directories are as they must be, the process runs and is heard."""
        if not await self.process.running() and left_mounted(self.directories):
            await self.process.start()
        check_directories(ReplicatedDirectory(Path(r.dir), r.tocheck) for r in self._rfs.replicated)
        self._refused = 0
        self.report.reset()
        await self.process.start()
        self.follow(plane)
        self.watch.measuring(True)
        await self._counts()

    def _quiet(self) -> None:
        """Nothing is replicated any more."""
        self.watch.serving(False)
        self.watch.measuring(False)

    async def _clear_up(self) -> None:
        """The data plane was killed: another one takes away what it left over the directories, and stays idle."""
        try:
            await self.process.start()
        except DataPlaneGone as error:
            self._module.log.write("rfs", "C", f"the directories stay covered by what the data plane left: {error}")

    async def _stop(self, plane: DataPlane, *, at_once: bool = False) -> None:
        """`at_once`: the lease of this node ran out, and the application may soon run on the other.

        A primary whose answers are held gives its directories up without waiting for who uses them.
        """
        if at_once:
            with contextlib.suppress(DataPlaneError):
                await plane.disconnect()
            await plane.idle(force=True)
            return
        try:
            await plane.idle()
        except DataPlaneError as error:
            self._module.log.write(
                "rfs", "C", f"{error.message}; the directories are taken from whoever still uses them"
            )
            await plane.idle(force=True)

    async def _pair(self, plane: DataPlane, generation: str) -> None:
        """Connect to the former primary as soon as it listens, and wait until it mirrors."""
        module = self._module

        def listening() -> bool:
            return module.state.peer.listening and module.state.peer.is_(Role.SECOND)

        try:
            async with asyncio.timeout(PAIRING_S):
                await module.wait_until(listening, PAIRING_S)
                host, port = self._endpoint(module.peer_node)
                await plane.connect(host, port, generation=generation)
                await module.wait_until(lambda: module.state.data is DataPhase.MIRROR, PAIRING_S)
        except TimeoutError:
            pass
        if module.state.data is not DataPhase.MIRROR:
            raise StepError(f"{module.peer_node} does not mirror after {PAIRING_S:.0f} s")

    def _endpoint(self, node: str) -> tuple[str, int]:
        """Where the data plane of a node listens: the lan of the replication, the module's port."""
        around = self._module.around
        lan = around.cluster.lan(around.config.service.replication_lan or "")
        port = ports(around.config, around.id).rfs
        assert lan is not None and port is not None
        found = next(n for n in lan.nodes if n.name == node)
        local = node == around.node and found.laddr is not None
        return str(found.laddr if local else found.addr), port

    # --- the resynchronisation begins ---

    async def connect(self, wanted: Connect) -> None:
        """Connect to the peer, which listens; answered by data events."""
        module, full = self._module, self._everything(wanted)
        host, port = self._endpoint(module.peer_node)
        try:
            connected = await self.process.plane.connect(host, port, generation=to_text(module.state.record), full=full)
        except (DataPlaneError, DataPlaneGone) as error:
            await self._not_connected(host, port, error)
            return
        self._refused = 0
        how = "what changed" if connected.incremental else f"everything ({connected.reason})"
        module.log.write("rfs", "E", f"Updating directory tree of {module.peer_node}: comparing {how}")
        self.report.begin(module.settings.syncmode)
        self._call("_rfs_resync_begin")

    def _everything(self, wanted: Connect) -> bool:
        """Whether the whole tree must be compared, whatever the data plane remembers (spec §4.9.2, §4.9.3)."""
        policy = self._module.settings.syncmode
        if policy == "external":
            return False
        # An unclean or unfinished copy says so itself: the data planes know from their logs what of it is in doubt.
        asked = policy == "full" or self._module.state.fullsync
        return asked or self._rfs.namespacepolicy == _NO_ZONES or not wanted.generation

    async def _not_connected(self, host: str, port: int, error: DataPlaneError | DataPlaneGone) -> None:
        module = self._module
        module.log.write("rfs", "C", f"cannot connect the replication to {module.peer_node} ({host}:{port}): {error}")
        refused = isinstance(error, DataPlaneError) and error.code in NEVER_WORKS
        self._refused = self._refused + 1 if refused else 0
        await asyncio.sleep(1.0)  # the pace of attempts while the peer listens and refuses
        if self._refused >= TRIES_BEFORE_DEGRADED:
            module.put(Degraded(str(error)))
        module.put(DataSaid(DataPhase.ALONE))

    def try_again(self) -> None:
        """An administrator says that the replication can work again (`rfs.degraded` set to down)."""
        self._refused = 0
        self._module.put(Degraded(""))

    def forget_policy(self) -> None:
        """A synchronisation succeeded: the next one is an ordinary one again (spec §4.9.3)."""
        settings = self._module.settings
        if settings.syncmode != DEFAULT_SYNC:
            self._module.log.write("rfs", "E", f"Synchronisation policy {settings.syncmode} was applied: default again")
        self._module.remember(replace(settings, syncmode=DEFAULT_SYNC, syncrole=DEFAULT_SYNC, syncuid=""))

    # --- what an administrator asks ---

    async def compare(self, kind: Kind) -> Comparison:
        """Begin to compare the copies. Raises DataPlaneError, DataPlaneGone."""
        before = self.comparisons.last
        if before is not None and before.running:
            raise DataPlaneError("busy", f"a comparison ({before.kind}) runs already")
        begun = self.comparisons.begin(kind)  # before the request: its events may come with the answer
        try:
            await self.process.plane.compare(kind)
        except (DataPlaneError, DataPlaneGone):
            self.comparisons.last = before
            raise
        self._module.log.write("rfs", "E", f"Comparing the copies ({kind}) begins")
        return begun

    async def external(self, role: str, uid: str, check: bool) -> None:
        """This copy counts from a backup (spec §4.9.4). Raises DataPlaneError, DataPlaneGone."""
        await self.process.start()
        await self.process.plane.external(role, uid, check=check)

    # --- the data plane's voice ---

    def follow(self, plane: DataPlane) -> None:
        """Hear the data plane from now on, once."""
        if not self._module.runs("data"):
            self._module.spawn(self._hear(plane), "data")

    async def _hear(self, plane: DataPlane) -> None:
        module = self._module
        async for event in plane.events():
            match event:
                case InMirror():
                    await self._ended()
                    await self.watch.synchronised()
                    module.put(DataSaid(DataPhase.MIRROR))
                case PeerLost(reason, held):
                    await self._broken(reason)
                    self._call("_rfs_peer_lost")
                    module.put(DataSaid(DataPhase.LOST if held else DataPhase.ALONE, reason))
                case Published(generation) if module.state.role is Role.SECOND:
                    self.forget_policy()
                    await self.watch.synchronised()
                    module.put(DataSaid(DataPhase.INSTEP, record=from_text(generation)))
                case ResyncStarted(incremental):
                    await asyncio.to_thread(write_record, module.record_file, resynchronising(module.state.record))
                    module.put(ResyncBegan())
                    how = "what changed" if incremental else "everything"
                    module.log.write("rfs", "E", f"Updating directory tree from {module.peer_node}: comparing {how}")
                    self.report.begin(module.settings.syncmode)
                    self._call("_rfs_resync_begin")
                case ResyncEnded():
                    await self._ended()
                case PrimaryLost(reason, _):
                    await self._broken(reason)
                    self._call("_rfs_peer_lost")
                    module.put(DataSaid(DataPhase.CUT, reason))
                case ResyncProgress():
                    self.report.show(event)
                    module.around.changed()
                case CompareProgress():
                    self.comparisons.progressed(event)
                case CompareEnded():
                    await self.comparisons.ended(event)
                case Failure(_, message):
                    module.log.write("rfs", "C", message)
                case Warned(_, message):
                    module.log.write("rfs", "E", f"warning: {message}")
                case Resumed(reason):
                    why = f" ({reason})" if reason else ""
                    module.log.write(
                        "rfs", "E", f"the data plane was taken over by a new process{why}; no application saw it"
                    )
                case Other(name, values):
                    module.log.write("rfs", "D", f"the data plane says {name} {dict(values)}")
                case Gone():
                    module.forget_task("data")
                    await self.comparisons.lost("the data plane ended")
                    self._quiet()
                    if module.state.data is not DataPhase.OFF:
                        module.put(DataSaid(DataPhase.FAILED, "the data plane ended"))
                case _:
                    pass

    async def _ended(self) -> None:
        """The copies are equal: what it took is asked of the data plane, and said."""
        if self.report.running:
            self.report.end(await self._counts())
            self._call("_rfs_resync_end")

    async def _broken(self, reason: str) -> None:
        self.report.broken(reason)
        await self._counts()

    async def _counts(self) -> ResyncCounts:
        """Files and bytes that were compared, and bytes that travelled since this was asked the last time."""
        plane = self.process.plane
        try:
            status, stats = await plane.status(), await plane.stats()
        except (DataPlaneGone, DataPlaneError):
            return ResyncCounts()
        travelled = sum(int(stats.get(f"resync_{way}_bytes", 0)) for way in ("sent", "received"))
        since, self._travelled = travelled - self._travelled, travelled
        return ResyncCounts(status.files_done, status.bytes_done, max(since, 0))

    def _call(self, script: str) -> None:
        """A callback of the module (`scripts="on"`), after those before it; nothing else waits for it."""
        if self._rfs.scripts:
            self._module.spawn(self._call_in_turn(script))

    async def _call_in_turn(self, script: str) -> None:
        async with self._callbacks:  # fair: in the order in which they were called
            await self._module.call_script(script)

    # --- a life that began before the daemon's ---

    async def pick_up(self, state: MirrorState) -> None:
        """Find the data plane again after a restart of the daemon."""
        module, plane = self._module, self.process.plane
        try:
            status = await plane.status()
        except (DataPlaneGone, DataPlaneError) as error:
            module.put(DataSaid(DataPhase.FAILED, str(error)))
            return
        self.follow(plane)
        self.watch.measuring(True)
        self.watch.serving(status.role == "primary")
        if status.inconsistent and state.record.consistent:
            module.put(ResyncBegan())
        phase = phase_of(status)
        if phase is DataPhase.RECEIVING and state.readiness is Readiness.READY:
            phase = DataPhase.CUT
        if phase is DataPhase.INSTEP and state.data is not DataPhase.INSTEP:
            module.put(DataSaid(phase, record=from_text(status.published)))
        elif phase is not state.data and phase is not DataPhase.INSTEP:
            module.put(DataSaid(phase, "found after a restart of safekitd"))

    async def end(self) -> None:
        """End the process: the module is stopped and its configuration goes."""
        self._module.end("data")
        if await self.process.running():
            await self.process.stop()


def phase_of(status: Status) -> DataPhase:
    """What a data plane that was found running says of itself."""
    if status.role == "secondary":
        if status.peer == "mirror" and status.published:
            return DataPhase.INSTEP
        return DataPhase.RECEIVING
    if status.role == "primary":
        return {
            "mirror": DataPhase.MIRROR,
            "resync": DataPhase.JOINING,
            "connecting": DataPhase.JOINING,
            "lost": DataPhase.LOST,
        }.get(status.peer, DataPhase.ALONE)
    return DataPhase.FAILED
