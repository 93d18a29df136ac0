"""What the membership says, as small frozen values. No behaviour lives here.

Every event names its channel. `ident` is a heartbeat's ident (spec §3.3) or a lan's name. Payloads are plain JSON
objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Payload: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class View:
    """Who is in the group, as its leader decided. Epochs only grow; the leader is the lowest name among the members."""

    epoch: int
    leader: str
    members: tuple[str, ...]


# --- both kinds of channel ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinkUp:
    """A beat of `node` came over `ident`, which was down or unknown."""

    channel: str
    ident: str
    node: str


@dataclass(frozen=True)
class LinkDown:
    """No beat of `node` over `ident` for the time-out, counted also from the creation of the channel; `left`: it said
    goodbye.
    """

    channel: str
    ident: str
    node: str
    left: bool = False


@dataclass(frozen=True)
class LinkTrouble:
    """This node cannot use `ident` (address missing, port in use, network down): `reason` says why, None says that it
    is over.
    """

    channel: str
    ident: str
    reason: str | None


@dataclass(frozen=True)
class PeerDaemon:
    """`node` beats without its daemon, for `absent_s` whole seconds so far; None when its daemon is there again."""

    channel: str
    node: str
    absent_s: int | None


@dataclass(frozen=True)
class Refused:
    """A datagram from address `source` was not accepted; told once per source and reason.

    `reason`: "key differs" (wrong key or altered), "foreign" (not ours), "channel differs" (another module, or the
    lan or heartbeat has another name there), "not a member" (`node` is not in this configuration), "version differs",
    "old incarnation" (a datagram of an earlier life of that node), "replayed".
    """

    channel: str
    source: str
    reason: str
    node: str | None = None


# --- heartbeat channel ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PeerAlive:
    """At least one link to the peer is up."""

    channel: str
    node: str


@dataclass(frozen=True)
class PeerLost:
    """All links to the peer are down (spec §3.3), also when none ever was up since the channel exists.

    `left`: the peer removed its channel (its module is stopped or its configuration gone); nothing had to time out.
    """

    channel: str
    node: str
    left: bool = False
    losses: int = field(default=0, compare=False)
    """The number of this silence: what a promise counts from (`heartbeat.py`)."""


@dataclass(frozen=True)
class PeerPayload:
    """What the peer publishes has changed."""

    channel: str
    node: str
    payload: Payload


# --- group channel --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ViewChanged:
    """This node adopted a view. The first one comes when the group is found or, alone, after `slost_count` beats."""

    channel: str
    view: View


@dataclass(frozen=True)
class MemberPayload:
    """What `node` publishes has changed. It may come before `node` is in the view, and stays valid until the next
    one.
    """

    channel: str
    node: str
    payload: Payload


# --- this node ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RanLate:
    """`safekit-pulse` itself woke up late by `late_ms`: it gave the others one more interval instead of declaring
    them dead.
    """

    channel: str
    late_ms: int


@dataclass(frozen=True)
class LeaseAsks:
    """The peer does not renew the lease of this node: the witness is to be asked, again and again until `renewed`."""

    channel: str


@dataclass(frozen=True)
class LeaseEnded:
    """The lease of this node ran out `late_ms` ago; told once until the lease is no longer needed."""

    channel: str
    late_ms: int


@dataclass(frozen=True)
class Connected:
    """The client speaks to `safekit-pulse`; channels and payloads were sent again, differences follow as events."""

    pid: int


@dataclass(frozen=True)
class Disconnected:
    """The connection to `safekit-pulse` ended; the client tries again by itself. The last known state stays valid."""

    reason: str


PulseEvent: TypeAlias = (
    LinkUp
    | LinkDown
    | LinkTrouble
    | PeerDaemon
    | Refused
    | PeerAlive
    | PeerLost
    | PeerPayload
    | ViewChanged
    | MemberPayload
    | RanLate
    | LeaseAsks
    | LeaseEnded
    | Connected
    | Disconnected
)


# --- present state, for whoever asks --------------------------------------------------------------------------


@dataclass(frozen=True)
class HeartbeatState:
    """`links`: True up, False down, None not known yet (spec's init). `alive`: any up; False all down; None not known
    yet.
    """

    peer: str
    links: Mapping[str, bool | None] = field(default_factory=dict)
    alive: bool | None = None
    payload: Payload | None = None
    daemon_absent_s: int | None = None
    troubles: Mapping[str, str] = field(default_factory=dict)
    losses: int = 0


@dataclass(frozen=True)
class GroupState:
    """`links` maps (lan, node) to True, False or None; `payloads` holds the last one heard of each node, not of this
    one.
    """

    view: View | None = None
    links: Mapping[tuple[str, str], bool | None] = field(default_factory=dict)
    payloads: Mapping[str, Payload] = field(default_factory=dict)
    daemon_absent_s: Mapping[str, int] = field(default_factory=dict)
    troubles: Mapping[str, str] = field(default_factory=dict)


ChannelState: TypeAlias = HeartbeatState | GroupState
