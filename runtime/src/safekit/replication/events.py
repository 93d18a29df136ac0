"""What travels between the daemon and the data plane: status, events, errors, and their line format.

A line is words separated by single spaces. The first word names the message, every other is `key=value` with the value in
percent-encoding (UTF-8). No I/O here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, TypeAlias, get_type_hints
from urllib.parse import quote, unquote


class DataPlaneError(Exception):
    """The data plane refused a command. `code` is stable (`busy`, `held`, `inconsistent`, `unreachable`, `key`, ...)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class DataPlaneGone(Exception):
    """There is no data plane behind the control socket (never started, ended or killed)."""


@dataclass(frozen=True)
class Connected:
    """Primary: the peer proved the key. `incremental` says what the resync will be, `reason` why it is full."""

    incremental: bool
    reason: str
    peer_generation: str


@dataclass(frozen=True)
class ResyncProgress:
    """Every second of a resync. Bytes are compared bytes; `rate_bps` is bytes per second; `eta_s` is -1 while unknown."""

    phase: str
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    rate_bps: int
    eta_s: int


@dataclass(frozen=True)
class InMirror:
    """Primary: the peer is equal and durable, and every answer waits for its acknowledgement from here on."""


@dataclass(frozen=True)
class Published:
    """Secondary: the primary wrote `both`."""

    generation: str


@dataclass(frozen=True)
class PeerLost:
    """Primary: the peer is gone. `held`: answers wait for `alone`, for a new mirror or for `idle`."""

    reason: str
    held: bool


@dataclass(frozen=True)
class PrimaryConnected:
    """Secondary: a primary proved the key."""

    peer_generation: str


@dataclass(frozen=True)
class ResyncStarted:
    """Secondary: from here on the tree is inconsistent until `ResyncEnded`."""

    incremental: bool


@dataclass(frozen=True)
class ResyncEnded:
    """Secondary: the tree is equal to the primary's and durable."""


@dataclass(frozen=True)
class PrimaryLost:
    """Secondary: the connection ended. `handover`: the primary said so, with everything durable here."""

    reason: str
    handover: bool


@dataclass(frozen=True)
class CompareProgress:
    """Every second of a comparison of the copies."""

    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0


@dataclass(frozen=True)
class CompareEnded:
    """A comparison is over. `failed` says why it has no result; `list` is a file with every differing path."""

    equal: bool = False
    differing_files: int = 0
    differing_bytes: int = 0
    files: int = 0
    bytes: int = 0
    failed: str = ""
    list: str = ""


@dataclass(frozen=True)
class DiffProgress(CompareProgress):
    """The same of a count of what a synchronisation would copy."""


@dataclass(frozen=True)
class DiffEnded(CompareEnded):
    """The same of a count of what a synchronisation would copy."""


@dataclass(frozen=True)
class Failure:
    """Something that an administrator must read."""

    code: str
    message: str


@dataclass(frozen=True)
class Warned:
    """Something that an administrator should know, and that stops nothing."""

    code: str
    message: str


@dataclass(frozen=True)
class Resumed:
    """A worker was killed and its successor went on with everything: no application saw an error."""

    reason: str = ""


@dataclass(frozen=True)
class Other:
    """An event that this version does not know: a data plane that is newer than the daemon."""

    name: str
    values: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True)
class Gone:
    """The process ended or was killed; the last event of a stream."""


Event: TypeAlias = (
    Connected
    | ResyncProgress
    | InMirror
    | Published
    | PeerLost
    | PrimaryConnected
    | ResyncStarted
    | ResyncEnded
    | PrimaryLost
    | CompareProgress
    | CompareEnded
    | Failure
    | Warned
    | Resumed
    | Other
    | Gone
)


@dataclass(frozen=True)
class Status:
    """Everything that the data plane knows about itself.

    role: idle | primary | secondary. peer: on a primary none | resync | mirror | lost (answers are held), on a secondary
    none | listening | resync | mirror. base: identity of the last mirror that the local copy and its dirty set count from;
    empty: none. held: answers that wait. dirty: objects in the dirty set. tracking: off | on | unusable (only a full resync
    is right). inconsistent: an unfinished resync, never start from it. exact: this copy holds the base and what its primary
    sent, nothing else. Bytes, bytes per second, seconds (-1: unknown), kilobytes.
    """

    module: str
    role: str
    peer: str
    peer_address: str
    generation: str
    peer_generation: str
    published: str
    base: str
    tracking: str
    dirty: int
    held: int
    pending: int
    inconsistent: bool
    clean: bool
    exact: bool
    phase: str
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    rate_bps: int
    eta_s: int
    applied: int
    durable: int
    memory_kb: int
    pid: int


_EVENTS: Final[Mapping[str, type[Event]]] = {
    "connected": Connected,
    "resync_progress": ResyncProgress,
    "in_mirror": InMirror,
    "published": Published,
    "peer_lost": PeerLost,
    "primary_connected": PrimaryConnected,
    "resync_started": ResyncStarted,
    "resync_ended": ResyncEnded,
    "primary_lost": PrimaryLost,
    "verify_progress": CompareProgress,
    "diff_progress": DiffProgress,
    "verify_ended": CompareEnded,
    "diff_ended": DiffEnded,
    "error": Failure,
    "warning": Warned,
    "resumed": Resumed,
}


def encode_line(word: str, values: Mapping[str, str | int | bool]) -> bytes:
    """One request line, ready to be written."""
    words = [word]
    for key, value in values.items():
        text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        words.append(f"{key}={quote(text, safe='/:.,+@-_')}")
    return (" ".join(words) + "\n").encode()


def decode_line(line: bytes) -> tuple[str, dict[str, str]]:
    """First word and values of a line. Raises ValueError with the line in it when it is not one."""
    words = line.decode("utf-8", "replace").strip("\n").split(" ")
    values: dict[str, str] = {}
    for word in words[1:]:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise ValueError(f"not key=value: {word!r} in {line!r}")
        values[key] = unquote(value)
    return words[0], values


def decode_event(name: str, values: Mapping[str, str]) -> Event:
    """A typed event, `Other` for a name that nobody knows. Raises ValueError for a missing value."""
    kind = _EVENTS.get(name)
    if kind is None:
        return Other(name, dict(values))
    return kind(**_typed(kind, values))


def decode_status(values: Mapping[str, str]) -> Status:
    """A typed status. Raises ValueError for a missing value."""
    return Status(**_typed(Status, values))


def decode_connected(values: Mapping[str, str]) -> Connected:
    """The answer to `connect`. Raises ValueError for a missing value."""
    return Connected(**_typed(Connected, values))


def _typed(kind: type[Event] | type[Status], values: Mapping[str, str]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    typed: dict[str, Any] = {}
    for part in fields(kind):
        if part.name not in values:
            if part.default is MISSING:
                raise ValueError(f"{kind.__name__}: {part.name} is missing")
            continue
        text = values[part.name]
        if hints[part.name] is bool:
            typed[part.name] = text == "yes"
        elif hints[part.name] is int:
            typed[part.name] = int(text)
        else:
            typed[part.name] = text
    return typed
