"""A farm or light module on this node: what each step of its automaton means.

The group is a level, not an event of the automaton: whenever the view or a member's word changes, the filter is
brought to the new view, one change after the other. A member counts once it says `up` and as long as it is in the
view.

Each says which members its filter follows, so that a part of the clients passes from one to another in turn
(`vip/farm.py`). Where every node hears every frame (`vmac_invisible`), who leaves lets go before it says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from safekit.automaton.farm import FarmState, refusal, step
from safekit.automaton.vocabulary import (
    Action,
    Checkers,
    Command,
    Drain,
    Effect,
    Links,
    Readiness,
    Role,
    Step,
    StepDone,
    Vip,
)
from safekit.config import ports
from safekit.membership import (
    GroupChannel,
    LinkTrouble,
    MemberPayload,
    PulseEvent,
    RanLate,
    Refused,
    View,
    ViewChanged,
    group_lan,
)
from safekit.module.engine import Module, StepError, Surroundings
from safekit.vip.service import Member, Picture, VipError

VIEW_S = 15.0
"""How long a node that starts waits for the group's view."""
WORDS_S = 2.0
"""How long a node that enters waits for the word of each member of the view, and one that opens or closes for their turn."""
REPAIR_S = 20.0
DRAIN_LOOK_S = 0.5
"""How often a node that drains looks at its connections."""
DRAIN_SAID_S = 10.0
"""How often it tells the log about them."""


class FarmModule(Module[FarmState]):
    """One farm or light module on this node."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.channel = f"farm:{surroundings.name}"
        self.view: View | None = None
        self.in_service = False
        self._served = False
        self._payloads: dict[str, Mapping[str, Any]] = {}
        self._published: dict[str, Any] = {}
        self._channel_open = False
        self._applying = asyncio.Lock()
        self._applied: dict[str, Member] = {}
        self._following_now: frozenset[str] = frozenset()
        self._agreed = True
        self._said: list[str] = []
        self._open = True
        self._drained_until: float | None = None
        super().__init__(surroundings)
        self._macs: dict[str, str] = {}

    def _make_vip(self) -> Any:
        around, service = self.around, self.around.config.service
        if service.vip is None or not service.vip.interfaces or service.mode != "farm":
            return None
        from safekit.vip.farm import FarmVip
        from safekit.vip.from_config import farm_service

        nodes = ",".join(sorted(around.cluster.node_names))
        return FarmVip(
            around.name,
            farm_service(service.vip),
            around.node,
            f"{nodes}/{around.name}",
            around.paths.module_run(around.name),
            tuple(around.cluster.node_names),
        )

    def _fresh(self) -> FarmState:
        return FarmState(node=self.around.node)

    def _step(self, state: FarmState, event: Any) -> tuple[FarmState, tuple[Effect, ...]]:
        return step(state, event)

    def refusal(self, command: Command) -> str:
        """Why a command cannot be taken now; empty when it can."""
        return refusal(self.state, command)

    # --- steps ---

    async def _carry_out(self, step_: Step, state: FarmState) -> StepDone | None:  # noqa: ARG002
        match step_:
            case Links(True):
                await self._open_channel()
            case Links(False):
                await self._close_channel()
            case Vip(True):
                await self._enter(not self.scripts_control)
            case Vip(False):
                await self._leave()
            case Drain():
                await self._drain()
            case Checkers(when, up):
                self._set_checkers(when, up)
            case _:
                raise StepError(f"a farm does not know the step {step_}")
        return None

    async def _open_channel(self) -> None:
        around, farm = self.around, self.around.config.service.farm
        if farm is None:
            return
        lans = []
        for used in farm.lans:
            lan = around.cluster.lan(used.name)
            assert lan is not None
            mine = group_lan(lan, around.node)
            if mine is not None:
                lans.append(mine)
        port = ports(around.config, around.id).farm
        assert port is not None
        channel = GroupChannel(
            self.channel,
            node=around.node,
            port=port,
            key=around.key,
            lans=tuple(lans),
            pulse=farm.pulse,
            mlost_count=farm.mlost_count,
            slost_count=farm.slost_count,
        )
        await around.pulse.set_channel(channel)
        self._channel_open = True
        self._publish()
        if not await self.wait_until(lambda: self.view is not None, VIEW_S):
            raise StepError(f"no view of the group after {VIEW_S:.0f} s")

    async def _close_channel(self) -> None:
        if self.around.config.service.farm is None:
            return
        self._channel_open = False
        self._published, self._payloads, self.view = {}, {}, None
        await self.around.pulse.remove_channel(self.channel)

    async def _enter(self, opened: bool) -> None:
        """Take this node's share, or none of it until a script opens it.

        First the filter and the addresses, then the word to the others, who forward to it at once.
        """
        if self._vip is None:
            return
        try:
            self._macs = await asyncio.to_thread(self._vip.macs)
            await self.wait_until(self._all_spoke, WORDS_S)
            self.in_service, self._open = True, opened
            async with self._applying:
                self._applied = self._members()
                self._agreed = self._have_the_groups(self._applied)
                self._following_now = self._following(self._applied, self._agreed)
                await asyncio.to_thread(self._vip.up, self._applied, self._following_now, self._agreed)
        except VipError as error:
            self.in_service = False
            raise StepError(error.message) from error
        self._publish()
        self._say_share()
        if not opened:
            self.log.write("vipd", "E", "farm closed: this node takes no client until `safekit farm open`")
        self.spawn(self._vip.keep_announcing(), "announce")
        self.spawn(self._repair(), "repair")
        self.spawn(self._apply())

    @property
    def scripts_control(self) -> bool:
        """Whether scripts open and close this node's share (`scriptcontrol`, spec §5.6)."""
        vip = self.around.config.service.vip
        return self._vip is not None and vip is not None and vip.scriptcontrol

    @property
    def is_open(self) -> bool:
        """Whether this node takes its share."""
        return self.in_service and self._open

    async def set_open(self, opened: bool) -> bool:
        """Open or close this node's share; True if that changed something. When it returns the filter of this node is at
        it and the others are told.
        """
        if not self.in_service or opened == self._open:
            return False
        self._open = opened
        await self._apply()
        await self.wait_until(self._left_to_others, WORDS_S)
        self.log.write("vipd", "E", f"farm {'opened' if opened else 'closed'} by a script or an administrator")
        return True

    async def _drain(self) -> None:
        """Before a stop: new clients go to the others, and those that are connected have a time to end.

        Ends at once when another command comes. Nothing is done where there is nobody to take the clients.
        """
        vip, loop = self.around.config.service.vip, asyncio.get_running_loop()
        others = [name for name, member in self._applied.items() if name != self.around.node and member.open]
        if (
            self._vip is None
            or vip is None
            or not vip.drain
            or not others
            or not self.in_service
            or not self.state.drains
        ):
            return
        self._drained_until = loop.time() + vip.drain.total_seconds()
        try:
            self._open = False
            await self._apply()
            await self.wait_until(self._left_to_others, WORDS_S)
            told = float("-inf")
            while count := await asyncio.to_thread(self._vip.connections):
                left = self._drained_until - loop.time()
                if left <= 0 or not self.state.drains:
                    why = f"no more time (drain {vip.drain.total_seconds():g} s)" if left <= 0 else self.state.reason
                    self.log.write("vipd", "E", f"farm drain ends: {why}; {count} connections are left")
                    return
                if loop.time() - told >= DRAIN_SAID_S:
                    told = loop.time()
                    self.log.write("vipd", "E", f"farm drain: {count} connections are left, at most {left:.0f} s more")
                await self.wait_until(lambda: not self.state.drains, min(DRAIN_LOOK_S, left))
            self.log.write("vipd", "E", "farm drain ends: no connection is left")
        finally:
            self._drained_until = None

    def _left_to_others(self) -> bool:
        return {*self._applied} <= self._following_now | {self.around.node}

    @property
    def drains_for_s(self) -> float | None:
        """How long this node waits for its connections yet, at most, before it stops; None if it does not drain."""
        until = self._drained_until
        return None if until is None else max(0.0, until - asyncio.get_running_loop().time())

    async def _repair(self) -> None:
        """Put back what a stranger took away, now and then; nothing is written when nothing is missing."""
        while True:
            await asyncio.sleep(REPAIR_S)
            async with self._applying:
                members, following, agreed = self._applied, self._following_now, self._agreed
                if self.in_service and await asyncio.to_thread(self._vip.update, members, following, agreed):
                    self.log.write("vip", "C", "addresses or filter were changed by somebody else and are repaired")

    async def _leave(self) -> None:
        if self._vip is None:
            return
        vip = self.around.config.service.vip
        assert vip is not None
        self.end("announce")
        self.end("repair")
        if self._vip.invisible:
            self._open = False
            await self._apply()
        self.in_service, self._said = False, []
        self._publish()
        try:
            async with self._applying:
                self._applied = {}
                await asyncio.to_thread(self._vip.down, vip.tcpreset)
        except VipError as error:
            raise StepError(error.message) from error
        self._note_resources()

    # --- the group ---

    def _members(self) -> dict[str, Member]:
        """The nodes in service: in the view, and saying `up`."""
        present = self.view.members if self.view else ()
        members = {
            name: Member(macs=dict(word["macs"]), open=bool(word.get("open", True)))
            for name, word in self._payloads.items()
            if name in present and word.get("up")
        }
        if self.in_service:
            members[self.around.node] = Member(macs=self._macs, open=self._open)
        return members

    def _all_spoke(self) -> bool:
        return self.view is not None and {*self.view.members} <= {*self._payloads, self.around.node}

    def _have_the_groups(self, members: Mapping[str, Member]) -> bool:
        """Whether every member has the balancing groups of this configuration."""
        others = [name for name in members if name != self.around.node]
        return all(self._payloads.get(name, {}).get("groups") == self._vip.wanted for name in others)

    def _following(self, members: Mapping[str, Member], agreed: bool) -> frozenset[str]:
        """The members whose filter follows these already."""
        wanted = _said_of(members, self._vip.wanted if agreed else self._vip.in_force)
        return frozenset(name for name in members if self._payloads.get(name, {}).get("follows") == wanted)

    async def _apply(self) -> None:
        """Bring the filter to the present view."""
        async with self._applying:
            members = self._members()
            if not self.in_service or self._vip is None:
                return
            agreed = self._have_the_groups(members)
            following = self._following(members, agreed)
            news = following - self._following_now
            self._following_now = following
            if (members, agreed) == (self._applied, self._agreed) and not news & self._vip.waiting_for:
                self.spawn(self._tell_moved())
                return
            try:
                await asyncio.to_thread(self._vip.update, members, following, agreed)
            except VipError as error:
                self.log.write("vip", "C", f"the filter could not follow the group: {error.message}")
                return
            self._applied, self._agreed = members, agreed
        self._publish()
        self.spawn(self._tell_moved())
        self.spawn(self._vip.keep_announcing(), "announce")
        self._say_share()

    def _say_share(self) -> None:
        members = ", ".join(sorted(self._applied))
        words = []
        for group, share in self._vip.shares().items():
            words.append(f"farm membership: {members} (group {group}_0)")
            words.append(f"farm load: {round(share.of_256)}/256 (group {group}_0)")
        if words != self._said:
            self._said = words
            for one in words:
                self.log.write("vipd", "E", one)
        self._note_resources()
        self.around.changed()

    def on_pulse(self, event: PulseEvent) -> None:
        """Something happened on this module's channel."""
        match event:
            case ViewChanged(view=view):
                self.view = view
                self.log.write("vipd", "I", f"group view {view.epoch}: {', '.join(view.members)}")
                self.spawn(self._tell_moved())
                self.spawn(self._apply())
            case MemberPayload(node=node, payload=payload):
                self._payloads[node] = payload
                self.spawn(self._tell_moved())
                self.spawn(self._apply())
            case LinkTrouble(ident=ident, reason=reason):
                self.log.write("vipd", "C" if reason else "E", f"lan {ident}: {reason or 'works again'}")
            case Refused(source=source, reason=reason):
                self.log.write("vipd", "C", f"membership from {source} is refused: {reason}")
            case RanLate(late_ms=late):
                self.log.write("vipd", "I", f"this node was late by {late} ms; the others were given more time")
            case _:
                pass

    async def _tell_moved(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    def _publish(self) -> None:
        if not self._channel_open:
            return
        payload: dict[str, Any] = {
            "up": self.in_service or self._served,
            "open": self._open,
            "macs": self._macs,
            "s": self.state.role.value,
        }
        if self._vip is not None:
            payload["groups"] = self._vip.wanted
            payload["follows"] = _said_of(self._applied, self._vip.in_force)
        if payload != self._published:
            self._published = payload
            self.spawn(self._send(payload))

    async def _send(self, payload: Mapping[str, Any]) -> None:
        if payload is self._published:
            await self.around.pulse.publish(self.channel, payload)

    # --- checkers, resources, restart of the daemon ---

    def _note_resources(self) -> None:
        super()._note_resources()
        if self._vip is not None:
            for group, percent in self.shares().items():
                self.resources.set(f"farm.{group}_0", f"{percent:.1f}%")

    def shares(self) -> dict[str, float]:
        """This node's share of each group in percent; zero when it is not in service."""
        if self._vip is None:
            return {}
        return {g: (share.percent if self.in_service else 0.0) for g, share in self._vip.shares().items()}

    @property
    def shares_addresses(self) -> bool:
        """Whether the module has virtual addresses that the farm shares."""
        return self._vip is not None

    async def picture(self) -> Picture | None:
        """The farm in the eyes of this node; None when it is not in service."""
        if self._vip is None or not self.in_service:
            return None
        found: Picture | None = await asyncio.to_thread(self._vip.picture)
        return found

    async def _pick_up(self) -> None:
        served = self.state.role is Role.UP and self._opened()
        if served and self._vip is not None:
            # The first word of this daemon must not sound as if the node had left: the others would take its clients.
            self._macs = await asyncio.to_thread(self._vip.macs)
            self._open = not self.scripts_control or await asyncio.to_thread(self._vip.was_open)
            self._served = True
        try:
            await self._open_channel()
            self._set_checkers("pre", True)
            if served:
                await self._enter(self._open)
                self._set_checkers("both", True)
        except StepError as error:
            self.log.write("safekit", "C", f"the farm cannot be taken up again, the module starts anew: {error}")
            self.put(Command(Action.STOPSTART, "safekitd"))
        self._served = False

    def _opened(self) -> bool:
        """Whether `Vip(True)` was carried out before the restart.

        Always in UP, save while its plan still holds that step.
        """
        return self.state.readiness is Readiness.READY or not any(s == Vip(True) for s in self.state.plan)

    def failover_sentence(self) -> str:
        """Whether the others take this node's clients when it dies, in words."""
        others = sorted(set(self._applied) - {self.around.node})
        if self.state.role is not Role.UP:
            return "not possible: the module is not running here"
        if others:
            return f"ready: {', '.join(others)} would take the clients of this node"
        return "not possible: no other node is UP"


def _said_of(members: Mapping[str, Member], groups: str) -> str:
    """What a filter follows in one line: the members, a minus before those that take no share, and the groups."""
    return " ".join([*(name if member.open else f"-{name}" for name, member in sorted(members.items())), groups])
