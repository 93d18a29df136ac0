"""A mirror module on this node: what each step of its automaton means.

Three voices are turned into events here: the peer's (heartbeat payloads), the data plane's, and the cluster's, which
knows at once that a peer's module is stopped where silence would have to time out first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safekit.automaton.data import resynchronising, why_not_alone
from safekit.automaton.mirror import (
    DataPhase,
    DataSaid,
    MirrorState,
    PeerView,
    Recorded,
    ResyncBegan,
    record_for,
    refusal,
    step,
)
from safekit.automaton.vocabulary import (
    Checkers,
    Command,
    Connect,
    DataAlone,
    DataHandover,
    DataPrimary,
    DataSecondary,
    DataStop,
    Effect,
    Links,
    Pair,
    Publish,
    Readiness,
    Record,
    RecordKind,
    Role,
    Step,
    StepDone,
    Vip,
)
from safekit.config import ports
from safekit.membership import (
    ChannelError,
    HeartbeatChannel,
    HeartbeatLink,
    HeartbeatState,
    LinkDown,
    LinkTrouble,
    LinkUp,
    PeerAlive,
    PeerDaemon,
    PeerLost,
    PeerPayload,
    PulseEvent,
    RanLate,
    Refused,
)
from safekit.module.engine import Module, StepError, Surroundings
from safekit.module.record import from_text, read_record, to_text, write_record
from safekit.module.words import read_payload, write_payload
from safekit.replication import (
    DataPlane,
    DataPlaneError,
    DataPlaneGone,
    DataPlaneProcess,
    DirectoryError,
    Failure,
    Gone,
    InMirror,
    PrimaryLost,
    ProcessSettings,
    Published,
    ReplicatedDirectory,
    ResyncProgress,
    ResyncStarted,
    Status,
    check_directories,
)
from safekit.replication import (
    PeerLost as ReplicaLost,
)
from safekit.replication.durable import copy_is_inconsistent, sync_below
from safekit.vip.service import VipError

PAIRING_S = 20.0
"""How long a swap waits for the former primary to become a mirroring secondary before it starts the application."""
HANDOVER_S = 30.0
HEARTBEATS_BEFORE_TRUST = 1.5
"""Seconds of silence after which the cluster's word that the peer's module is stopped is believed."""


class MirrorModule(Module[MirrorState]):
    """One mirror module on this node."""

    def __init__(self, surroundings: Surroundings) -> None:
        service = surroundings.config.service
        assert service.heart is not None
        lans = {heartbeat.name for heartbeat in service.heart.heartbeats}
        names = [
            node.name
            for lan in surroundings.cluster.lans
            if lan.name in lans
            for node in lan.nodes
            if node.name != surroundings.node
        ]
        self.peer_node = names[0]
        self._replicated = service.rfs is not None
        self.channel = f"mirror:{surroundings.name}"
        self.progress: ResyncProgress | None = None
        self._published: dict[str, Any] = {}
        self._channel_open = False
        self._cluster_says = ""
        self._peer = PeerView()
        self._peer_moved = False
        super().__init__(surroundings)
        self._record_file = surroundings.paths.module_var(surroundings.name) / "data.json"
        self._process = self._make_process()

    def _make_process(self) -> DataPlaneProcess | None:
        rfs, around = self.around.config.service.rfs, self.around
        if rfs is None:
            return None
        return DataPlaneProcess(
            ProcessSettings(
                module=around.name,
                control=around.paths.module_run(around.name) / "rfs.sock",
                state_dir=around.paths.module_var(around.name) / "rfs",
                key_file=around.paths.cluster / "cluster.key",
                directories=self._process_directories(),
                durability=rfs.async_,
                binary=around.paths.safe / "venv" / "bin" / "safekit-rfs",
            )
        )

    def _process_directories(self) -> tuple[Path, ...]:
        rfs = self.around.config.service.rfs
        return tuple(Path(replicated.dir) for replicated in rfs.replicated) if rfs else ()

    def _make_vip(self) -> Any:
        vip = self.around.config.service.vip
        if vip is None or not vip.interfaces:
            return None
        from safekit.vip.from_config import mirror_addresses
        from safekit.vip.mirror import MirrorVip

        return MirrorVip(self.around.name, mirror_addresses(vip), self.around.paths.module_run(self.around.name))

    # --- the automaton ---

    def _fresh(self) -> MirrorState:
        around = self.around
        path = around.paths.module_var(around.name) / "data.json"
        record, self._record_trouble = read_record(path)
        if copy_is_inconsistent(around.paths.module_var(around.name) / "rfs"):
            record = resynchronising(record)  # the mark is older than the record when the power failed between the two
        return MirrorState(
            node=around.node,
            peer_node=self.peer_node,
            nonce=self._life,
            replicated=self._replicated,
            record=record,
        )

    def _step(self, state: MirrorState, event: Any) -> tuple[MirrorState, tuple[Effect, ...]]:
        return step(state, event)

    def refusal(self, command: Command) -> str:
        """Why a command cannot be taken now; empty when it can."""
        return refusal(self.state, command)

    async def open(self) -> None:
        """As `Module.open`; a data record that cannot be read is said once."""
        await super().open()
        if self._record_trouble:
            self.log.write("rfs", "C", self._record_trouble)

    # --- steps ---

    async def _carry_out(self, step_: Step, state: MirrorState) -> StepDone | None:
        match step_:
            case Record(kind):
                record = record_for(state, kind)
                if kind is RecordKind.ALONE and self._process is not None:
                    await asyncio.to_thread(sync_below, self._process_directories())
                await asyncio.to_thread(write_record, self._record_file, record)
                return Recorded(0, record)
            case Links(True):
                await self._open_channel()
            case Links(False):
                await self._close_channel()
            case Vip(True):
                await self._take_vip()
            case Vip(False):
                await self._release_vip()
            case Checkers(when, up):
                self._set_checkers(when, up)
            case DataPrimary() | DataSecondary() | DataAlone() | DataHandover() | DataStop() | Pair() | Publish():
                if self._process is not None:
                    await self._data_step(step_, state, self._process)
            case _:
                raise StepError(f"a mirror does not know the step {step_}")
        return None

    async def _data_step(self, step_: Step, state: MirrorState, process: DataPlaneProcess) -> None:
        plane, generation = process.plane, to_text(state.record)
        try:
            match step_:
                case DataPrimary():
                    self._check_directories()
                    await process.start()
                    self._follow(plane)
                    await plane.primary(generation=generation)
                case DataSecondary():
                    self._check_directories()
                    await process.start()
                    self._follow(plane)
                    address, port = self._replication_endpoint(self.around.node)
                    await plane.secondary(
                        address, port, generation=generation, clean=state.record.clean and bool(generation)
                    )
                case DataAlone():
                    await self._go_alone(plane, generation)
                case DataHandover():
                    await plane.handover(timeout=HANDOVER_S)
                case Publish():
                    await plane.publish(generation=generation)
                case Pair():
                    await self._pair(plane, generation)
                case _:
                    await self._stop_data(plane)
        except DirectoryError as error:
            raise StepError(str(error)) from error
        except DataPlaneError as error:
            raise StepError(error.message) from error
        except DataPlaneGone as error:
            if isinstance(step_, DataStop):
                return
            raise StepError(f"the data plane does not answer: {error}") from error

    async def _go_alone(self, plane: DataPlane, generation: str) -> None:
        """The record says that this node is alone.

        Heartbeats can be lost before the stream notices anything: then the stream is ended first, so that nothing is
        promised to the other node any more.
        """
        try:
            await plane.alone(generation=generation)
        except DataPlaneError as error:
            if error.code != "state":
                raise
            await plane.disconnect()
            await plane.alone(generation=generation)

    async def _stop_data(self, plane: DataPlane) -> None:
        try:
            await plane.idle()
        except DataPlaneError as error:
            self.log.write("rfs", "C", f"{error.message}; the directories are taken from whoever still uses them")
            await plane.idle(force=True)

    def _check_directories(self) -> None:
        rfs = self.around.config.service.rfs
        assert rfs is not None
        check_directories(ReplicatedDirectory(Path(r.dir), r.tocheck) for r in rfs.replicated)

    def _replication_endpoint(self, node: str) -> tuple[str, int]:
        service = self.around.config.service
        lan = self.around.cluster.lan(service.replication_lan or "")
        port = ports(self.around.config, self.around.id).rfs
        assert lan is not None and port is not None
        found = next(n for n in lan.nodes if n.name == node)
        local = node == self.around.node and found.laddr is not None
        return str(found.laddr if local else found.addr), port

    async def _pair(self, plane: DataPlane, generation: str) -> None:
        """Connect to the former primary as soon as it listens, and wait until it mirrors."""

        def listening() -> bool:
            return self.state.peer.listening and self.state.peer.is_(Role.SECOND)

        try:
            async with asyncio.timeout(PAIRING_S):
                await self.wait_until(listening, PAIRING_S)
                host, port = self._replication_endpoint(self.peer_node)
                await plane.connect(host, port, generation=generation)
                await self.wait_until(lambda: self.state.data is DataPhase.MIRROR, PAIRING_S)
        except TimeoutError:
            pass
        if self.state.data is not DataPhase.MIRROR:
            raise StepError(f"{self.peer_node} does not mirror after {PAIRING_S:.0f} s")

    async def _effect(self, effect: Effect) -> None:
        if not isinstance(effect, Connect) or self._process is None:
            return
        host, port = self._replication_endpoint(self.peer_node)
        try:
            connected = await self._process.plane.connect(
                host, port, generation=to_text(self.state.record), full=not (effect.generation and effect.clean)
            )
        except (DataPlaneError, DataPlaneGone) as error:
            self.log.write("rfs", "C", f"cannot connect the replication to {self.peer_node} ({host}:{port}): {error}")
            await asyncio.sleep(1.0)  # the pace of attempts while the peer listens and refuses
            self.put(DataSaid(DataPhase.ALONE))
            return
        how = "what changed" if connected.incremental else f"everything ({connected.reason})"
        self.log.write("rfs", "E", f"Updating directory tree of {self.peer_node}: comparing {how}")

    async def end_data_plane(self) -> None:
        """End the process of the data plane: the module is stopped and its configuration goes."""
        self._end("data")
        if self._process is not None and await self._process.running():
            await self._process.stop()

    # --- the data plane's voice ---

    def _follow(self, plane: DataPlane) -> None:
        if "data" not in self._named:
            self._spawn(self._hear_data(plane), "data")

    async def _hear_data(self, plane: DataPlane) -> None:
        async for event in plane.events():
            match event:
                case InMirror():
                    self._end_progress()
                    self.put(DataSaid(DataPhase.MIRROR))
                case ReplicaLost(reason, held):
                    self._end_progress()
                    self.put(DataSaid(DataPhase.LOST if held else DataPhase.ALONE, reason))
                case Published(generation) if self.state.role is Role.SECOND:
                    self.put(DataSaid(DataPhase.INSTEP, record=from_text(generation)))
                case ResyncStarted():
                    record = resynchronising(self.state.record)
                    await asyncio.to_thread(write_record, self._record_file, record)
                    self.put(ResyncBegan())
                case PrimaryLost(reason, _):
                    self._end_progress()
                    self.put(DataSaid(DataPhase.CUT, reason))
                case ResyncProgress():
                    self._show_progress(event)
                case Failure(_, message):
                    self.log.write("rfs", "C", message)
                case Gone():
                    self._named.pop("data", None)
                    if self.state.data is not DataPhase.OFF:
                        self.put(DataSaid(DataPhase.FAILED, "the data plane ended"))
                case _:
                    pass

    def _show_progress(self, progress: ResyncProgress) -> None:
        self.progress = progress
        self.resources.set("rfs.rei_copy_size_metric", f"{progress.bytes_done}/{progress.bytes_total}", lasting=False)
        self.resources.set("rfs.rei_copy_count_metric", f"{progress.files_done}/{progress.files_total}", lasting=False)
        self.around.changed()

    def _end_progress(self) -> None:
        if self.progress is not None:
            last, self.progress = self.progress, None
            self.log.write(
                "rfs",
                "E",
                f"Reintegration ended: {last.files_done} files, {last.bytes_done / 1e6:.1f} MB compared",
            )

    # --- heartbeats ---

    async def _open_channel(self) -> None:
        around, heart = self.around, self.around.config.service.heart
        assert heart is not None
        links = []
        for heartbeat in heart.heartbeats:
            lan = around.cluster.lan(heartbeat.name)
            assert lan is not None
            address = {node.name: node for node in lan.nodes}
            mine, theirs = address[around.node], address[self.peer_node]
            links.append(
                HeartbeatLink(
                    heartbeat.ident,
                    local=str(mine.laddr or mine.addr),
                    remote=str(theirs.addr),
                    pulse=heartbeat.pulse,
                    timeout=heartbeat.timeout,
                )
            )
        port = ports(around.config, around.id).heart
        assert port is not None
        channel = HeartbeatChannel(
            self.channel, node=around.node, peer=self.peer_node, port=port, key=around.key, links=tuple(links)
        )
        self._channel_open = True
        self._published = write_payload(self.state)
        await around.pulse.set_channel(channel, self._published)
        self._spawn(self._believe_cluster(), "cluster")

    async def _close_channel(self) -> None:
        self._end("cluster")
        if self._channel_open:  # the last word, before the goodbye: this node is stopped, not lost
            with contextlib.suppress(ChannelError):
                await self.around.pulse.publish(self.channel, write_payload(self.state))
        self._channel_open = False
        self._published, self._peer = {}, PeerView()
        await self.around.pulse.remove_channel(self.channel)

    async def _believe_cluster(self) -> None:
        """A peer that says nothing here, and whose daemon says that its module is stopped, is stopped."""
        await asyncio.sleep(HEARTBEATS_BEFORE_TRUST)
        while self._peer.alive is None:
            if self._cluster_says in ("STOP", "absent"):
                self._heard(replace(self._peer, alive=False, role=Role.STOP, readiness=Readiness.NOT_READY))
                return
            await asyncio.sleep(0.2)

    def cluster_says(self, state: str) -> None:
        """What the peer's daemon says of this module.

        A state, `absent` when it has no such module, empty when unknown.
        """
        self._cluster_says = state

    def on_pulse(self, event: PulseEvent) -> None:
        """Something happened on this module's channel."""
        match event:
            case PeerPayload() | PeerAlive() | PeerLost():
                # One datagram brings several of these: they are taken as the level that they lead to, once.
                if not self._peer_moved:
                    self._peer_moved = True
                    asyncio.get_running_loop().call_soon(self._take_peer)
            case LinkUp(ident=ident):
                self.set_resource(f"heartbeat.{ident}", "up", "heart")
            case LinkDown(ident=ident):
                self.set_resource(f"heartbeat.{ident}", "down", "heart")
            case LinkTrouble(ident=ident, reason=reason):
                text = f"heartbeat {ident}: {reason}" if reason else f"heartbeat {ident} works again"
                self.log.write("heart", "C" if reason else "E", text)
            case PeerDaemon(absent_s=absent) if absent is not None and absent >= 10:
                self.log.write(
                    "heart", "C", f"safekitd of {self.peer_node} is absent for {absent} s; its service goes on"
                )
            case Refused(source=source, reason=reason):
                self.log.write("heart", "C", f"heartbeats from {source} are refused: {reason}")
            case RanLate(late_ms=late):
                self.log.write("heart", "I", f"this node was late by {late} ms; the other node was given more time")
            case _:
                pass

    def _take_peer(self) -> None:
        self._peer_moved = False
        if not self._channel_open:
            return
        known = self.around.pulse.state(self.channel)
        assert isinstance(known, HeartbeatState)
        if known.alive is None or (known.alive and known.payload is None):
            return
        was_alive = self._peer.alive
        peer = replace(self._peer, alive=known.alive, version=self._peer.version + 1)
        if known.payload is not None:
            peer = read_payload(known.payload, peer)
        if was_alive and not peer.alive and peer.role is not Role.STOP:
            self.log.write("heart", "C", f"no heartbeat from {self.peer_node}")
        self._heard(peer)

    def _heard(self, peer: PeerView) -> None:
        self._peer = peer
        self.put(peer)

    def _publish(self) -> None:
        if not self._channel_open:
            return
        payload = write_payload(self.state)
        if payload != self._published:
            self._published = payload
            self._spawn(self._send(payload))

    async def _send(self, payload: Mapping[str, Any]) -> None:
        if payload is self._published:
            await self.around.pulse.publish(self.channel, payload)

    # --- addresses and checkers ---

    async def _take_vip(self) -> None:
        if self._vip is None:
            return
        try:
            await asyncio.to_thread(self._vip.take)
        except VipError as error:
            raise StepError(error.message) from error
        self.log.write("vip", "E", f"Virtual IP {self._addresses()} set")
        self._spawn(self._vip.keep_announcing(), "announce")

    async def _release_vip(self) -> None:
        if self._vip is None:
            return
        self._end("announce")
        vip = self.around.config.service.vip
        assert vip is not None
        try:
            released = await asyncio.to_thread(self._vip.release, vip.tcpreset)
        except VipError as error:
            raise StepError(error.message) from error
        if released.addresses:
            note = f", {released.reset} connections reset" if released.reset else ""
            self.log.write("vip", "E", f"Virtual IP {', '.join(released.addresses)} removed{note}")

    def _addresses(self) -> str:
        vip = self.around.config.service.vip
        return ", ".join(str(address.addr) for address in vip.addresses) if vip else ""

    # --- after a restart of the daemon ---

    async def _pick_up(self) -> None:
        state = self.state
        self._peer = state.peer
        await self._open_channel()
        if self._process is not None and state.data is not DataPhase.OFF:
            await self._pick_up_data(self._process)
        self._set_checkers("pre", True)
        if state.role in (Role.PRIM, Role.ALONE) and state.readiness is Readiness.READY:
            try:
                await self._take_vip()
            except StepError as error:
                self.log.write("vip", "C", f"the virtual address could not be confirmed: {error}")
            self._set_checkers("prim", True)

    async def _pick_up_data(self, process: DataPlaneProcess) -> None:
        try:
            status = await process.plane.status()
        except (DataPlaneGone, DataPlaneError) as error:
            self.put(DataSaid(DataPhase.FAILED, str(error)))
            return
        self._follow(process.plane)
        if status.inconsistent and self.state.record.consistent:
            self.put(ResyncBegan())
        phase = phase_of(status)
        if phase is DataPhase.RECEIVING and self.state.readiness is Readiness.READY:
            phase = DataPhase.CUT
        if phase is DataPhase.INSTEP and self.state.data is not DataPhase.INSTEP:
            self.put(DataSaid(phase, record=from_text(status.published)))
        elif phase is not self.state.data and phase is not DataPhase.INSTEP:
            self.put(DataSaid(phase, "found after a restart of safekitd"))

    def _note_resources(self) -> None:
        super()._note_resources()
        peer = self.state.peer
        self.resources.set("state.remote", f"{peer.role} {peer.readiness}" if peer.alive else "UNKNOWN")
        if self._replicated:
            self.resources.set("rfs.uptodate", "up" if self.state.record.uptodate else "down")

    def failover_sentence(self) -> str:
        """Whether an automatic failover is possible now, in words."""
        state = self.state
        if state.role is Role.PRIM and state.readiness is Readiness.READY:
            return f"ready: {self.peer_node} takes over; split brain possible (no witness)"
        if state.role is Role.SECOND and state.readiness is Readiness.READY:
            return "ready: this node takes over; split brain possible (no witness)"
        if state.role is Role.SECOND:
            return "not possible: this node is not synchronised yet"
        if state.role is Role.ALONE:
            return f"not possible: {self.peer_node} is not a ready secondary"
        if self._replicated and not state.record.uptodate:
            return f"not possible: {why_not_alone(state.record)}"
        return "not possible: the module is not running here"


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
