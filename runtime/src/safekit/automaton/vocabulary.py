"""The words that every automaton speaks: states, steps of a plan, effects, commands.

A change of state is a plan: the steps of one row of spec §4.2 or §5.1, in order. `Become` steps are carried out
inside the automaton; all others are effects that the module performs and answers with `StepDone` or `StepFailed`.
Every step can be repeated: a daemon that was killed in the middle of one performs it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from safekit.automaton.register import Ground


class Role(StrEnum):
    """The major states of spec §4.1 and §5.1."""

    STOP = "STOP"
    WAIT = "WAIT"
    ALONE = "ALONE"
    PRIM = "PRIM"
    SECOND = "SECOND"
    UP = "UP"


class Readiness(StrEnum):
    """The sub-states of spec §4.1."""

    NOT_READY = "NotReady"
    TRANSIENT = "Transient"
    READY = "Ready"


class Action(StrEnum):
    """What an administrator, a script or a rule may ask (spec §4.3)."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    STOPSTART = "stopstart"
    FORCESTOP = "forcestop"
    SWAP = "swap"
    PRIM = "prim"
    SECOND = "second"
    WAIT = "wait"


class Wish(StrEnum):
    """What the module should be, in the administrator's mind."""

    STOPPED = "stopped"
    AUTO = "auto"
    PRIM = "prim"
    SECOND = "second"


class RecordKind(StrEnum):
    """Which sentence a `Record` step writes to the data record (`data.py`).

    Before ALONE is written, everything in the replicated directories of this node is made durable: from then on nobody
    else has it.
    """

    ALONE = "alone"
    BOTH = "both"
    ADOPTED = "adopted"
    JOINING = "joining"
    LEFT = "left"


@dataclass(frozen=True)
class Become:
    """The module is in this state from here on; published to the peer and logged with the reason."""

    role: Role
    readiness: Readiness


@dataclass(frozen=True)
class Script:
    """Run one script of the application (spec §7.1); `force` is the second call of a stop script."""

    name: str
    force: bool = False


@dataclass(frozen=True)
class Record:
    """Write the data record, durable before the step is done."""

    kind: RecordKind


@dataclass(frozen=True)
class Vip:
    """Take or release the virtual addresses; in a farm: enter or leave the group's traffic."""

    up: bool


@dataclass(frozen=True)
class Drain:
    """Give new clients to the other nodes of a farm, and wait for the connections that are there, if that is asked for."""


@dataclass(frozen=True)
class Links:
    """Start or end heartbeats (mirror) or group membership (farm)."""

    up: bool


@dataclass(frozen=True)
class Checkers:
    """Start or end the checkers of one class (spec §6.1, rule 6)."""

    when: str
    up: bool


@dataclass(frozen=True)
class DataPrimary:
    """Mount the replicated directories, writable, tracking what the peer does not have."""


@dataclass(frozen=True)
class DataSecondary:
    """Listen for the primary and apply what it sends."""


@dataclass(frozen=True)
class DataAlone:
    """Allow the data plane to acknowledge without its peer: what is held goes on, tracked."""


@dataclass(frozen=True)
class DataHandover:
    """Quiesce beside a ready secondary.

    Everything durable on both sides, then unmounted. Fails if the peer does not confirm.
    """


@dataclass(frozen=True)
class DataStop:
    """Unmount or stop receiving; the directories are ordinary again."""


@dataclass(frozen=True)
class Pair:
    """Connect to the peer and wait, for a bounded time, until it mirrors."""


@dataclass(frozen=True)
class Publish:
    """Tell the secondary, in the stream, that it holds everything."""


Step = (
    Become
    | Script
    | Record
    | Vip
    | Drain
    | Links
    | Checkers
    | DataPrimary
    | DataSecondary
    | DataAlone
    | DataHandover
    | DataStop
    | Pair
    | Publish
)


@dataclass(frozen=True)
class Perform:
    """Effect.

    Carry out `step` and answer with its `serial`. `current`, `next` and `action` are the arguments of a script (spec
    §7.2).
    """

    step: Step
    serial: int
    current: Role
    next: Role
    action: str


@dataclass(frozen=True)
class Say:
    """Effect: a line of the module log (spec §11.1). Levels: C critical, E event, U user, I information.

    `about`: what it speaks of, when a later line about the same takes its place.
    """

    level: str
    message: str
    about: str = field(default="", compare=False)


@dataclass(frozen=True)
class Entered:
    """Effect: the module is in this state now, for this reason; the log shows it, and `safekit why` what led to it.

    `settled`: no plan goes on from here by itself.
    """

    role: Role
    readiness: Readiness
    reason: str
    settled: bool


@dataclass(frozen=True)
class Connect:
    """Effect: connect the data plane to the peer, which listens. Answered by data events, not by a step.

    `generation` is what the peer has and `clean` whether it lost nothing of it: only then may less than everything be
    compared.
    """

    generation: str
    clean: bool


@dataclass(frozen=True)
class Ask:
    """Effect: make durable what this node has, then claim `(epoch, holders) -> wanted` of the witness until it answers.

    Answered by `Answered` with this `number`; meanwhile by `Silent`. A newer one takes the place of the one before.
    """

    number: int
    epoch: int
    holders: tuple[str, ...]
    wanted: tuple[str, ...]
    ground: Ground = Ground.HOLDER


@dataclass(frozen=True)
class Withdraw:
    """Effect: no claim is wanted any more; an answer that still comes does not count."""


Effect = Perform | Say | Entered | Connect | Ask | Withdraw


@dataclass(frozen=True)
class Command:
    """Event: somebody asks.

    `identity` is empty for an administrator (then `user` is the name), else the script, checker or rule that asks.
    """

    action: Action
    identity: str = ""
    fullsync: bool = False
    user: str = ""
    force: bool = False
    """`primforce`: also on inconsistent data."""
    services: tuple[str, ...] = ()
    """A restart of these services alone; the scripts are told (spec §3.9 `restart_services`)."""


def services_to_restart(pending: bool, before: tuple[str, ...], asked: tuple[str, ...]) -> tuple[str, ...]:
    """Which services a restart is limited to, when another one is `pending` or running; empty: everything restarts."""
    if pending and (not before or not asked):
        return ()
    return tuple(dict.fromkeys((*before, *asked))) if pending else asked


@dataclass(frozen=True)
class StepDone:
    """Event: the step with this serial is done."""

    serial: int


@dataclass(frozen=True)
class StepFailed:
    """Event: the step with this serial could not be done."""

    serial: int
    why: str


@dataclass(frozen=True)
class Held:
    """Event: these wait-rules hold the module (empty: none does).

    `pending` are the resources that a wait-rule names and that nobody has tested since the start: until then the module
    does not leave WAIT (spec §6.1, rule 2).
    """

    rules: tuple[str, ...]
    pending: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resumed:
    """Event: the daemon was restarted; the running step must be performed again."""
