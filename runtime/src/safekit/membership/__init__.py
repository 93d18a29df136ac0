"""Who is alive: heartbeats of mirror modules, group membership of farms and of the cluster (spec §2, §3.3, §3.4,
§4.4, §5.2).

The door of the room. Inside: pure protocol cores (`heartbeat`, `group`), sealed datagrams (`sealed`, `beat`), the
process `safekit-pulse` (`pulse`) and the asyncio client of `safekitd` (`client`).

What a user of this room does:

    pulse = Pulse(paths.pulse_socket, on_event=handle)         # or: async for event in pulse.events()
    await pulse.connect()
    await pulse.keep_channels({"cluster", "mirror:db"})        # forget what an earlier configuration left behind
    await pulse.set_channel(HeartbeatChannel("mirror:db", node="n1", peer="n2", port=8888, key=key, links=(
        HeartbeatLink("default", local="192.0.2.11", remote="192.0.2.12"),)))
    await pulse.publish("mirror:db", {"state": "PRIM"})        # on the wire at once, then at each pulse

Events are levels told as edges: after every (re)connection the client compares the snapshot of `safekit-pulse` with
what it last told and emits the differences as ordinary events. One code path serves a change, a restart of the daemon
and a restart of the pulse.

Importing this package costs nothing heavy; `Pulse` (asyncio) is loaded at its first use, so that `safekit-pulse`
stays small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safekit.membership.channels import (
    Channel,
    ChannelError,
    GroupChannel,
    GroupLan,
    HeartbeatChannel,
    HeartbeatLink,
    PayloadTooLarge,
    group_lan,
)
from safekit.membership.events import (
    ChannelState,
    Connected,
    Disconnected,
    GroupState,
    HeartbeatState,
    LeaseAsks,
    LeaseEnded,
    LinkDown,
    LinkTrouble,
    LinkUp,
    MemberPayload,
    PeerAlive,
    PeerDaemon,
    PeerLost,
    PeerPayload,
    PulseEvent,
    RanLate,
    Refused,
    View,
    ViewChanged,
)

if TYPE_CHECKING:
    from safekit.membership.client import Pulse, PulseError

__all__ = [
    "Channel",
    "ChannelError",
    "ChannelState",
    "Connected",
    "Disconnected",
    "GroupChannel",
    "GroupLan",
    "GroupState",
    "HeartbeatChannel",
    "HeartbeatLink",
    "HeartbeatState",
    "LeaseAsks",
    "LeaseEnded",
    "LinkDown",
    "LinkTrouble",
    "LinkUp",
    "MemberPayload",
    "PayloadTooLarge",
    "PeerAlive",
    "PeerDaemon",
    "PeerLost",
    "PeerPayload",
    "Pulse",
    "PulseError",
    "PulseEvent",
    "RanLate",
    "Refused",
    "View",
    "ViewChanged",
    "group_lan",
]


def __getattr__(name: str) -> object:
    if name in ("Pulse", "PulseError"):
        from safekit.membership import client

        value: object = getattr(client, name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
