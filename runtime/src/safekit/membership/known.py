"""What the client knows of one channel: applies events, and turns a snapshot into the events that were missed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from safekit.membership.channels import Channel, HeartbeatChannel
from safekit.membership.events import (
    ChannelState,
    GroupState,
    HeartbeatState,
    LinkDown,
    LinkTrouble,
    LinkUp,
    MemberPayload,
    PeerAlive,
    PeerDaemon,
    PeerLost,
    PeerPayload,
    PulseEvent,
    ViewChanged,
)
from safekit.membership.messages import view_from_json


class Known:
    """The state of one channel as told so far. What a snapshot does not know yet (None) takes nothing back."""

    def __init__(self, channel: Channel) -> None:
        self.state: ChannelState
        if isinstance(channel, HeartbeatChannel):
            self.state = HeartbeatState(channel.peer, {link.ident: None for link in channel.links})
        else:
            self.state = GroupState(links={(lan.name, node): None for lan in channel.lans for node, _ in lan.peers})

    def redefined(self, channel: Channel) -> None:
        """The channel has another definition: links that are gone are forgotten, new ones unknown."""
        fresh = Known(channel).state
        if (
            isinstance(fresh, HeartbeatState)
            and isinstance(self.state, HeartbeatState)
            and fresh.peer == self.state.peer
        ):
            self.state = replace(self.state, links={ident: self.state.links.get(ident) for ident in fresh.links})
        elif isinstance(fresh, GroupState) and isinstance(self.state, GroupState):
            self.state = replace(self.state, links={at: self.state.links.get(at) for at in fresh.links})
        else:
            self.state = fresh

    def take(self, event: PulseEvent) -> bool:
        """Apply an event; False when it says nothing new."""
        before = self.state
        state = self.state
        match event:
            case LinkUp() | LinkDown() if isinstance(state, HeartbeatState):
                self.state = replace(state, links={**state.links, event.ident: isinstance(event, LinkUp)})
            case LinkUp() | LinkDown() if isinstance(state, GroupState):
                self.state = replace(state, links={**state.links, (event.ident, event.node): isinstance(event, LinkUp)})
            case LinkTrouble():
                troubles = {ident: why for ident, why in state.troubles.items() if ident != event.ident}
                if event.reason is not None:
                    troubles[event.ident] = event.reason
                self.state = replace(state, troubles=troubles)
            case PeerDaemon() if isinstance(state, HeartbeatState):
                self.state = replace(state, daemon_absent_s=event.absent_s)
            case PeerDaemon(node=node, absent_s=absent_s) if isinstance(state, GroupState):
                absent = {name: seconds for name, seconds in state.daemon_absent_s.items() if name != node}
                if absent_s is not None:
                    absent[node] = absent_s
                self.state = replace(state, daemon_absent_s=absent)
            case PeerAlive() if isinstance(state, HeartbeatState):
                self.state = replace(state, alive=True)
            case PeerLost() if isinstance(state, HeartbeatState):
                self.state = replace(state, alive=False, losses=max(state.losses, event.losses))
            case PeerPayload() if isinstance(state, HeartbeatState):
                self.state = replace(state, payload=event.payload)
            case MemberPayload() if isinstance(state, GroupState):
                self.state = replace(state, payloads={**state.payloads, event.node: event.payload})
            case ViewChanged() if isinstance(state, GroupState):
                self.state = replace(state, view=event.view)
            case _:
                return True
        return self.state != before

    def missed(self, channel: str, snapshot: dict[str, Any]) -> list[PulseEvent]:
        """The events between what was told and a snapshot of `safekit-pulse`, applied; in the order in which they
        would have come.
        """
        told = (
            self._heartbeat(channel, snapshot)
            if isinstance(self.state, HeartbeatState)
            else self._group(channel, snapshot)
        )
        events = [*self._troubles(channel, snapshot["troubles"]), *told]
        news = [event for event in events if self.take(event)]
        if isinstance(self.state, HeartbeatState):
            self.state = replace(self.state, losses=snapshot.get("losses", 0))
        return news

    def _troubles(self, channel: str, troubles: dict[str, str]) -> Iterator[PulseEvent]:
        for ident in {*self.state.troubles, *troubles}:
            yield LinkTrouble(channel, ident, troubles.get(ident))

    def _heartbeat(self, channel: str, snapshot: dict[str, Any]) -> Iterator[PulseEvent]:
        assert isinstance(self.state, HeartbeatState)
        peer = self.state.peer
        for ident, up in snapshot["links"].items():
            if up is not None:
                yield LinkUp(channel, ident, peer) if up else LinkDown(channel, ident, peer)
        if snapshot["alive"]:
            yield PeerAlive(channel, peer)
        if snapshot["payload"] is not None:
            yield PeerPayload(channel, peer, snapshot["payload"])
        yield PeerDaemon(channel, peer, snapshot["absent_s"])
        if snapshot["alive"] is False:
            yield PeerLost(channel, peer)

    def _group(self, channel: str, snapshot: dict[str, Any]) -> Iterator[PulseEvent]:
        for node, known in snapshot["nodes"].items():
            for lan, up in known["links"].items():
                if up is not None:
                    yield LinkUp(channel, lan, node) if up else LinkDown(channel, lan, node)
            if known["payload"] is not None:
                yield MemberPayload(channel, node, known["payload"])
            yield PeerDaemon(channel, node, known["absent_s"])
        if snapshot["view"] is not None:
            yield ViewChanged(channel, view_from_json(snapshot["view"]))
