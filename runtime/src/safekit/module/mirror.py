"""A mirror module on this node: what each step of its automaton means.

Three voices are turned into events here: the peer's (heartbeat payloads), the data plane's, and the cluster's, which
knows at once that a peer's module is stopped where silence would have to time out first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from safekit.automaton.data import resynchronising
from safekit.automaton.mirror import (
    DataPhase,
    Failover,
    Lapsed,
    MirrorState,
    PeerView,
    Policy,
    Recorded,
    arbitrated,
    keeps_lease,
    leased,
    record_for,
    refusal,
    step,
)
from safekit.automaton.vocabulary import (
    Ask,
    Checkers,
    Command,
    Connect,
    DataAlone,
    DataHandover,
    DataPrimary,
    DataSecondary,
    DataStop,
    Effect,
    Held,
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
    Withdraw,
)
from safekit.config import ports, quorum_of
from safekit.membership import (
    ChannelError,
    HeartbeatChannel,
    HeartbeatLink,
    HeartbeatState,
    LeaseAsks,
    LeaseEnded,
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
from safekit.module.claimant import Claimant
from safekit.module.engine import Module, StepError, Surroundings
from safekit.module.fencer import Fencer
from safekit.module.outlook import failover_outlook
from safekit.module.record import read_record, write_record
from safekit.module.replica import Replica
from safekit.module.settings import Settings
from safekit.module.split_brain import SplitBrain
from safekit.module.words import read_payload, write_payload
from safekit.replication import ResyncProgress
from safekit.replication.durable import copy_is_inconsistent
from safekit.vip.service import VipError

HEARTBEATS_BEFORE_TRUST = 1.5
"""Seconds of silence after which the cluster's word that the peer's module is stopped is believed."""

MOST_RESOURCES = 12
LONGEST_VALUE = 32
"""What a heartbeat has room for; rules that name more resources of the other node see the others as unknown."""


class MirrorModule(Module[MirrorState]):
    """One mirror module on this node."""

    _serves_from = "start_prim"

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
        self.channel = f"mirror:{surroundings.name}"
        self._published: dict[str, Any] = {}
        self._channel_open = False
        self._lease_ordered: tuple[float, bool] | None = None
        """What the pulse was told last; None: what an earlier daemon told it is not known."""
        self._cluster_says = ""
        self._peer = PeerView()
        self._listens_until = 0.0
        self._peer_moved = False
        self._remote: dict[str, str] = {}
        self.record_file = surroundings.paths.module_var(surroundings.name) / "data.json"
        super().__init__(surroundings)
        self.replica = None if service.rfs is None else Replica(self, service.rfs)
        quorum = quorum_of(surroundings.config, surroundings.cluster)
        check = service.check.splitbrain if quorum == "ping" and service.check else None
        self.split_brain = None if check is None else SplitBrain(self, check)
        self._claimant = Fencer(self) if quorum == "fence" else Claimant(self, surroundings.witness)

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
        record, self._record_trouble = read_record(self.record_file)
        if copy_is_inconsistent(around.paths.module_var(around.name) / "rfs"):
            record = resynchronising(record)  # the mark is older than the record when the power failed between the two
        return MirrorState(
            node=around.node,
            peer_node=self.peer_node,
            nonce=self._life,
            replicated=around.config.service.rfs is not None,
            record=record,
            failover=self._fails_over(self.settings),
            defaultprim=around.config.service.defaultprim,
            policy=Policy(quorum_of(around.config, around.cluster)),
            lease=self._length_of_leases(),
        )

    def _length_of_leases(self) -> float:
        """Seconds for which a renewal holds: as long as the other node waits before it acts on silence."""
        service = self.around.config.service
        if (
            service.heart is None
            or service.rfs is None
            or quorum_of(self.around.config, self.around.cluster) != "witness"
        ):
            return 0.0
        return min(heartbeat.timeout for heartbeat in service.heart.heartbeats).total_seconds()

    def _step(self, state: MirrorState, event: Any) -> tuple[MirrorState, tuple[Effect, ...]]:
        return step(state, event)

    def refusal(self, command: Command) -> str:
        """Why a command cannot be taken now; empty when it can."""
        return refusal(self.state, command)

    async def open(self) -> None:
        """As `Module.open`; a data record that cannot be read is said once."""
        await super().open()
        if self.state.role is Role.STOP:  # what a running module began with, it keeps until it stops
            fresh = self._fresh()
            self.state = replace(self.state, policy=fresh.policy, lease=fresh.lease)
        elif self.state.lease:
            self.state = replace(self.state, lease=self._length_of_leases() or self.state.lease)
        self._show_policy()
        if self._record_trouble:
            self.witness("rfs", "C", self._record_trouble)

    async def close(self) -> None:
        """As `Module.close`; the witness tells this object nothing any more."""
        self._claimant.forget()
        await super().close()

    # --- steps ---

    async def _carry_out(self, step_: Step, state: MirrorState) -> StepDone | None:
        match step_:
            case Record(kind):
                record = record_for(state, kind)
                if kind is RecordKind.ALONE and self.replica is not None:
                    await asyncio.to_thread(self.replica.sync_below)
                await asyncio.to_thread(write_record, self.record_file, record)
                return Recorded(0, record)
            case Links(True):
                await self._open_channel()
                self._watch_register()
                if self.replica is not None:
                    self.replica.watch.started(anew=True)
            case Links(False):
                await self._close_channel()
                self._claimant.forget()
                if self.replica is not None:
                    self.replica.watch.stopped()
            case Vip(True):
                await self._take_vip()
            case Vip(False):
                await self._release_vip()
            case Checkers(when, up):
                self._set_checkers(when, up)
                if self.split_brain is not None and (when, up) == ("pre", True):
                    self.split_brain.began()
            case DataPrimary() | DataSecondary() | DataAlone() | DataHandover() | DataStop() | Pair() | Publish():
                if self.replica is not None:
                    await self.replica.carry_out(step_, state)
            case _:
                raise StepError(f"a mirror does not know the step {step_}")
        return None

    async def _effect(self, effect: Effect) -> None:
        match effect:
            case Connect() if self.replica is not None:
                await self.replica.connect(effect)
            case Ask():
                await self._claimant.ask(effect)
            case Withdraw():
                self._claimant.withdraw()

    def _watch_register(self) -> None:
        if arbitrated(self.state):
            self._claimant.watch()

    async def end_data_plane(self) -> None:
        """End the process of the data plane: the module is stopped and its configuration goes."""
        if self.replica is not None:
            await self.replica.end()

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
        self._published = self._words()
        await around.pulse.set_channel(channel, self._published)
        self.spawn(self._believe_cluster(), "cluster")

    async def _close_channel(self) -> None:
        self.end("cluster")
        self._hears_again()
        if self._channel_open:  # the last word, before the goodbye: this node is stopped, not lost
            with contextlib.suppress(ChannelError):
                await self.around.pulse.publish(self.channel, self._words())
        self._channel_open, self._lease_ordered = False, None
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

    @property
    def cluster_hears_peer(self) -> bool:
        """Whether the membership of the cluster hears the peer's daemon."""
        return self._cluster_says != ""

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
            case LeaseAsks() if isinstance(self._claimant, Claimant):
                self._claimant.renew()
            case LeaseEnded(late_ms=late) if leased(self.state):
                self.log.write("heart", "I", f"the lease of this node was over for {late} ms when this was seen")
                self.put(Lapsed(f"neither {self.peer_node} nor the witness is heard"))
            case RanLate(late_ms=late):
                self.log.write("heart", "I", f"this node was late by {late} ms; the other node was given more time")
            case _:
                pass

    def _take_peer(self, confirmed: bool = False) -> None:
        self._peer_moved = False
        if not self._channel_open:
            return
        known = self.around.pulse.state(self.channel)
        assert isinstance(known, HeartbeatState)
        if known.alive is None or (known.alive and known.payload is None):
            return
        if known.alive:
            self._hears_again()
        elif asyncio.get_running_loop().time() < self._listens_until:
            return
        was_alive = self._peer.alive
        if known.alive and self.split_brain is not None:
            self.split_brain.heard()
        peer = replace(self._peer, alive=known.alive, version=self._peer.version + 1, losses=known.losses)
        if known.payload is not None:
            peer = read_payload(known.payload, peer)
        self._take_resources(known.payload.get("z", {}) if known.payload is not None and known.alive else {})
        asked = was_alive and not peer.alive and not confirmed and self.split_brain
        if asked and asked.asks(self.state):
            asked.ask(lambda: self._take_peer(confirmed=True))
            return
        if was_alive and not peer.alive and peer.role is not Role.STOP:
            self.witness("heart", "C", f"no heartbeat from {self.peer_node}")
        self._heard(peer)

    def _put_held(self, held: Held) -> None:
        """What made this node wait may have made it deaf too: a cable that is back, a path that is open again.

        It listens for a whole time-out before it takes the other node's silence for its end.
        """
        if self.state.role is Role.WAIT and self.state.held and not held.rules and self._peer.alive is False:
            heart = self.around.config.service.heart
            assert heart is not None
            longest = max(beats.timeout for beats in heart.heartbeats).total_seconds()
            self._listens_until = asyncio.get_running_loop().time() + longest
            self._heard(replace(self._peer, alive=None, version=self._peer.version + 1))
            self.spawn(self._listen(longest), "listen")
        super()._put_held(held)

    async def _listen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._listens_until = 0.0
        self._take_peer()

    def _hears_again(self) -> None:
        self._listens_until = 0.0
        self.end("listen")

    def _heard(self, peer: PeerView) -> None:
        gave_way = self._peer.is_(Role.ALONE, Role.PRIM) and peer.alive and not peer.is_(Role.ALONE, Role.PRIM)
        if gave_way and self._vip is not None and self.state.role in (Role.ALONE, Role.PRIM):
            # Both held the address, and the last word that the neighbours heard may be the other one's.
            self.spawn(self._vip.keep_announcing(), "announce")
        self._peer = peer
        self.put(peer)

    def _order_lease(self) -> None:
        """Tell the pulse whether this node needs a lease, when that changed."""
        order = (self.state.lease if keeps_lease(self.state) else 0.0, leased(self.state))
        if order != self._lease_ordered:
            self._lease_ordered = order
            self.spawn(self._send_lease(order))

    async def _send_lease(self, order: tuple[float, bool]) -> None:
        addresses: tuple[tuple[str, int], ...] = ()
        if self._vip is not None and order[1]:
            with contextlib.suppress(VipError, OSError):
                addresses = await asyncio.to_thread(self._vip.places)
        if order == self._lease_ordered:
            groups = self._where_it_runs() if order[1] else ()
            await self.around.pulse.lease(self.channel, *order, addresses, groups)

    def _where_it_runs(self) -> tuple[str, ...]:
        """The control group of the application, and the units that errd knows of it."""
        group, errd = self.around.scripts.group(self.around.name), self.around.config.service.errd
        named = [proc.name for proc in errd.procs if proc.service and proc.class_ != "pre"] if errd else []
        units = (name if name.endswith((".service", ".scope")) else f"{name}.service" for name in named)
        return (*(() if group is None else (str(group),)), *units)

    def lease_renewed(self, sent_at: float) -> None:
        """The witness renewed the lease of this node."""
        self.spawn(self.around.pulse.renewed(self.channel, sent_at))

    def _publish(self) -> None:
        if not self._channel_open:
            return
        self._order_lease()
        payload = self._words()
        if payload != self._published:
            self._published = payload
            self.spawn(self._send(payload))

    def _words(self) -> dict[str, Any]:
        """What this node says of itself, with those of its resources that rules of the other node name."""
        named = self.checking.for_the_other_node()
        words = {name: value[:LONGEST_VALUE] for name, value in sorted(named.items())[:MOST_RESOURCES]}
        return write_payload(self.state) | ({"z": words} if words else {})

    def _of_the_other_node(self) -> Mapping[str, str]:
        return self._remote

    def _take_resources(self, words: Mapping[str, Any]) -> None:
        remote = {f"remote.{name}": str(value) for name, value in dict(words).items()}
        if remote != self._remote:
            self._remote = remote
            self.checking.changed()

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
        self.spawn(self._vip.keep_announcing(), "announce")

    async def _release_vip(self) -> None:
        if self._vip is None:
            return
        self.end("announce")
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
        self._order_lease()
        self._watch_register()
        if self.replica is not None:
            if state.data is not DataPhase.OFF:
                await self.replica.pick_up(state)
            self.replica.watch.started(anew=False)
        self._set_checkers("pre", True)
        if self.split_brain is not None:
            self.split_brain.began(state.held)
        if state.role in (Role.PRIM, Role.ALONE) and state.readiness is Readiness.READY:
            try:
                await self._take_vip()
            except StepError as error:
                self.log.write("vip", "C", f"the virtual address could not be confirmed: {error}")
            self._set_checkers("prim", True)
        elif state.role is Role.SECOND and state.readiness is Readiness.READY:
            self._set_checkers("second", True)

    def _note_resources(self) -> None:
        super()._note_resources()
        peer = self.state.peer
        self.resources.set("state.remote", f"{peer.role} {peer.readiness}" if peer.alive else "UNKNOWN")
        if self.replica is not None:
            self.resources.set("rfs.uptodate", "up" if self.state.record.uptodate else "down")
            self.resources.set("rfs.degraded", "up" if self.state.degraded else "down")
            self.replica.watch.moved(self.state)

    def set_resource(self, name: str, value: str, by: str) -> bool:
        """As `Module.set_resource`; some resources of the replication are orders (spec §4.9.5)."""
        changed = super().set_resource(name, value, by)
        if changed and name in self.checking.for_the_other_node():
            self._publish()
        if self.replica is not None:
            self.replica.watch.resource_was_set(name, value)
        return changed

    def remember(self, settings: Settings) -> None:
        """As `Module.remember`; the policies of failover and of the next synchronisation are shown (spec §4.7, §4.9.3)."""
        before = self._fails_over(self.settings)
        super().remember(settings)
        self._show_policy()
        if self._fails_over(settings) is not before:
            self.put(Failover(not before))

    def _fails_over(self, settings: Settings) -> bool:
        """What the administrator said last; as long as nobody did, what the configuration says."""
        configured: bool = self.around.config.service.failover
        return configured if settings.failover is None else settings.failover

    def _show_policy(self) -> None:
        self.resources.set("usersetting.failover", "on" if self._fails_over(self.settings) else "off")
        if self.replica is not None:
            for name in ("mode", "role", "uid"):
                self.resources.set(f"usersetting.rfssync{name}", getattr(self.settings, f"sync{name}"))

    @property
    def progress(self) -> ResyncProgress | None:
        """How far a resynchronisation is; None while none runs."""
        return None if self.replica is None else self.replica.report.progress

    def failover_sentence(self) -> str:
        """Whether an automatic failover is possible now, in words."""
        return failover_outlook(self.state, self._claimant.names, self._claimant.trouble)
