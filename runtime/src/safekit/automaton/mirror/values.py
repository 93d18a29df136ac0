"""What the mirror automaton knows and what it is told: its state and its events."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from safekit.automaton.data import BLANK, DataRecord
from safekit.automaton.vocabulary import Ask, Command, Held, Readiness, Resumed, Role, Step, StepDone, StepFailed, Wish


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


class Policy(StrEnum):
    """Who decides that a node may serve alone (`docs/architecture.md`, "Who may serve")."""

    NONE = "none"  # silence: both nodes may go on alone
    PING = "ping"  # silence, once a machine of the network answers this node (`module/split_brain.py`)
    MANUAL = "manual"  # the primary by itself, the secondary never by itself
    FENCE = "fence"  # a program that proves the other node off (`claims.py`)
    WITNESS = "witness"  # the register of a third node


@dataclass(frozen=True)
class Named:
    """Whom the register named when it was last heard of; epoch 0 without holders: never heard of, or there is none."""

    epoch: int = 0
    holders: tuple[str, ...] = ()


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
    register: Named = Named()
    """What it last heard of the register."""
    blocked: bool = False
    """It is primary, holds its writes, and the witness does not let it go on."""
    promise: int = 0
    """Above 0: it takes over on no silence that began before its word; one more than the silences of this node that it knows."""
    leases: bool = False
    """It knows of leases, as this node does."""
    lapsed: bool = False
    """It gave up because its lease ran out, and has what it had."""
    losses: int = 0
    """How often this node took the other's silence for its end; says nothing of the other."""

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


@dataclass(frozen=True)
class Answered:
    """Event: the witness answered the claim of this number; `epoch` and `holders` are the register's now."""

    number: int
    granted: bool
    epoch: int
    holders: tuple[str, ...]


@dataclass(frozen=True)
class Silent:
    """Event: a claim is out, and the witness is silent `since` then, in words; empty: it is heard again."""

    since: str


@dataclass(frozen=True)
class Lapsed:
    """Event: the lease of this node ran out (`lease.py`).

    The address is gone already, and what still runs of the application is being ended.
    """

    why: str = ""


Event = (
    Command
    | StepDone
    | StepFailed
    | Held
    | Resumed
    | PeerView
    | DataSaid
    | ResyncBegan
    | Trusted
    | Degraded
    | Failover
    | Answered
    | Silent
    | Lapsed
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
    policy: Policy = Policy.NONE
    register: Named = Named()
    grant: int = 0
    """The last epoch of the register that a claim of this node was granted."""
    number: int = 0
    """Counts the claims of this life."""
    asked: Ask | None = None
    """The claim that is out."""
    refused: Ask | None = None
    """The last claim, without its number, when it was refused and nothing has changed since."""
    silent: str = ""
    """Since when the witness does not answer, in words; under policy `fence` what the proof failed at."""
    not_proven: str = ""
    """Why this node, as secondary, could not prove its silent primary off, and gave way."""
    lease: float = 0.0
    """Seconds for which a renewal lets this node run the application where another may be named; 0: without such a bound."""
    lapsed: bool = False
    """This node gave up because its lease ran out. It did not lose its memory: its copy is as whole as it was."""

    @property
    def answered(self) -> bool:
        """Whether it is known what the peer became after the data connection broke: it said so, or it is silent.

        A word that was under way when the connection broke says nothing about it.
        """
        return self.peer.alive is False or (self.peer.alive is True and self.peer.answers == self.asks)
