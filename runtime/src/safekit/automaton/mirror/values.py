"""What the mirror automaton knows and what it is told: its state and its events."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from safekit.automaton.data import BLANK, DataRecord
from safekit.automaton.vocabulary import Command, Held, Readiness, Resumed, Role, Step, StepDone, StepFailed, Wish


class DataPhase(StrEnum):
    """What the data plane last said."""

    OFF = "off"
    ALONE = "alone"  # primary, nobody acknowledges
    JOINING = "joining"  # primary, the peer is being resynchronised
    MIRROR = "mirror"  # primary, the peer acknowledges everything
    LOST = "lost"  # primary, the mirroring peer is gone, writes are held
    RECEIVING = "receiving"  # secondary, not yet in step
    INSTEP = "instep"  # secondary, published
    CUT = "cut"  # secondary, the stream broke
    FAILED = "failed"  # the data plane itself is gone


@dataclass(frozen=True)
class PeerView:
    """What the other node last said of itself.

    `alive` is None until it was heard or a whole time-out passed in silence.
    """

    alive: bool | None = None
    version: int = 0
    role: Role = Role.STOP
    readiness: Readiness = Readiness.NOT_READY
    wish: Wish = Wish.STOPPED
    record: DataRecord = BLANK
    listening: bool = False
    handed_over: str = ""
    asks_swap: bool = False
    was: Role = Role.STOP
    asks: int = 0
    """Counts the times that this node lost the data connection and wanted to know what the other became."""
    answers: int = 0
    """The last such question that it has heard: what it says of itself is newer than that."""
    taking_over: bool = False
    """A secondary that has decided to become primary, and is not yet ALONE."""
    degraded: str = ""
    """Why it serves and cannot replicate (spec §4.8); empty when it can."""
    reason: str = ""
    """Why it is in its state, in its own words."""

    def is_(self, *roles: Role) -> bool:
        """Whether the peer is alive and in one of these states."""
        return self.alive is True and self.role in roles


@dataclass(frozen=True)
class DataSaid:
    """Event: the data plane changed its phase; `record` is what the primary published (INSTEP only)."""

    phase: DataPhase
    why: str = ""
    record: DataRecord | None = None


@dataclass(frozen=True)
class ResyncBegan:
    """Event: the first byte of a resynchronisation is about to be written here."""


@dataclass(frozen=True)
class Trusted:
    """Event: whether `rfs_forceuptodate` holds (spec §4.5): nothing of the other node is heard on any way, and the
    last synchronisation is younger than `syncdelta`.
    """

    holds: bool


@dataclass(frozen=True)
class Degraded:
    """Event: the replication cannot work however often it is tried (spec §4.8); an empty `why`: try again."""

    why: str


@dataclass(frozen=True)
class Failover:
    """Event: whether a secondary may become primary by itself (spec §4.7)."""

    on: bool


@dataclass(frozen=True)
class Recorded(StepDone):
    """Event: a `Record` step is done, and this is what was written; `record_for` said so when the step began."""

    record: DataRecord = BLANK


Event = (
    Command | StepDone | StepFailed | Held | Resumed | PeerView | DataSaid | ResyncBegan | Trusted | Degraded | Failover
)


@dataclass(frozen=True)
class MirrorState:
    """All that a mirror module knows when it decides."""

    node: str
    peer_node: str
    nonce: str
    replicated: bool
    role: Role = Role.STOP
    readiness: Readiness = Readiness.NOT_READY
    reason: str = "never started"
    wish: Wish = Wish.STOPPED
    fullsync: bool = False
    rebound: bool = False
    """Start again by itself once stopped (`stopstart`)."""
    restart: bool = False
    services: tuple[str, ...] = ()
    """What the restart that is asked for, or runs, is limited to."""
    swap: bool = False
    yielding: bool = False
    handed_over: str = ""
    """The generation that was handed to the peer in a swap."""
    was: Role = Role.STOP
    """The role before ALONE: it decides who stays after a split brain."""
    held: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    peer: PeerView = PeerView()
    data: DataPhase = DataPhase.OFF
    asks: int = 0
    """The question put to the peer when the data connection broke (`PeerView.asks`)."""
    record: DataRecord = BLANK
    plan: tuple[Step, ...] = ()
    row: str = ""
    action: str = "start"
    serial: int = 0
    urgent: tuple[Step, ...] = ()
    """Steps that cannot wait for the end of the plan.

    Writes are held, and a stop script may be waiting for one of them.
    """
    urgent_serial: int = -1
    waiting: tuple[str, ...] = ()
    """Why the module waits, in words."""
    trusted: bool = False
    """The copy may serve though another may be newer: `rfs_forceuptodate`."""
    degraded: str = ""
    """Why this node serves and cannot replicate."""
    failover: bool = True
    """Whether this node, as secondary, becomes primary when the primary is gone (spec §4.7)."""
    defaultprim: str = "alone"
    """Who is primary when both nodes run: `alone`, `lastprim`, or a node's name (spec §3.2)."""
    home: bool = False
    """This node was started, and is to be primary once it is synchronised. An administrator's swap later on is not undone."""
    forced: bool = False
    """`primforce`: the next primary may serve an inconsistent copy (spec §4.3)."""

    @property
    def answered(self) -> bool:
        """Whether it is known what the peer became after the data connection broke: it said so, or it is silent.

        A word that was under way when the connection broke says nothing about it.
        """
        return self.peer.alive is False or (self.peer.alive is True and self.peer.answers == self.asks)


def spoken(state: MirrorState, version: int) -> PeerView:
    """What this node says of itself to its peer, in each heartbeat; `version` counts its different words.

    A primary connects only to a secondary that begins anew: one that was Ready has scripts to stop first.
    """
    return PeerView(
        alive=True,
        version=version,
        role=state.role,
        readiness=state.readiness,
        wish=state.wish,
        record=state.record,
        listening=state.role is Role.SECOND and state.data is DataPhase.RECEIVING,
        handed_over=state.handed_over,
        asks_swap=state.swap,
        was=state.was,
        asks=state.asks,
        answers=state.peer.asks,
        taking_over=state.row == "failover" and bool(state.plan),
        degraded=state.degraded,
        reason=state.reason,
    )
