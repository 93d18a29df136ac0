"""What the API asks of a node: one async method per operation, frozen values as answers, one exception for a refusal.

`node.py` implements `NodeFace`; the API (and a test) needs nothing else of the node. Nothing here knows HTTP, save
the status that belongs to each error code. A method answers or raises `FaceError` (or `safekit.config.ConfigError`,
which the API answers with status 422 and its fields); any other exception is a defect and becomes `internal`. Every
date is UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from safekit.api.farm import FarmFace
from safekit.api.replicated import ReplicationFace
from safekit.api.witness import WitnessFace
from safekit.store.entries import Change, LogEntry, ResourceValue

Action = Literal[
    "start", "stop", "restart", "stopstart", "forcestop", "swap", "prim", "primforce", "second", "secondforce"
]
ACTIONS: tuple[Action, ...] = (
    "start",
    "stop",
    "restart",
    "stopstart",
    "forcestop",
    "swap",
    "prim",
    "primforce",
    "second",
    "secondforce",
)
Switchable = Literal["checker", "errd", "failover"]

STATES = ("STOP", "WAIT", "ALONE", "PRIM", "SECOND", "UP", "NOT_CONFIGURED")
SUBSTATES = ("NotReady", "Transient", "Ready")

ERRORS: Mapping[str, tuple[int, str]] = {
    "request.invalid": (400, "The request is not what the API expects: the message names the field."),
    "request.forbidden": (403, "Only root may do this."),
    "request.too_large": (413, "The body of the request is larger than 64 MiB."),
    "request.unknown": (404, "No such path in the API."),
    "request.method": (405, "The path exists, but not with this HTTP method."),
    "module.unknown": (404, "No module of this name is installed on this node."),
    "module.id_used": (409, "Another module of this node already has the id."),
    "module.not_configured": (409, "The module was installed, but never configured: `safekit config -m AM`."),
    "module.running": (409, "The module must be stopped first: `safekit stop -m AM`."),
    "cluster.not_configured": (409, "The node belongs to no cluster yet: `safekit cluster config FILE`."),
    "cluster.locked": (409, "The cluster configuration is locked: `safekit cluster config FILE unlock`."),
    "cluster.in_use": (409, "A module still runs: stop it before the cluster configuration is changed or removed."),
    "action.refused": (409, "The module cannot do this in its present state; the message says what stands in the way."),
    "resource.unknown": (404, "The module has no resource of this name."),
    "wait.timeout": (408, "The awaited state was not reached in time; `state` says where the module is."),
    "witness.other_key": (409, "The witness serves a cluster of this name with another key."),
    "witness.port": (409, "The node cannot listen on the port of the witness: the message says why."),
    "witness.unreadable": (409, "What the node serves as a witness cannot be read, and is not made anew."),
    "node.stopping": (503, "safekitd is stopping."),
    "internal": (500, "A defect: the journal of safekitd.service has the details."),
}
"""Every error code that a node or the API itself may answer, its HTTP status and its meaning.

`config.*` come from ConfigError.
"""


class FaceError(Exception):
    """The node says no.

    `code` is stable (see `ERRORS`), `message` is one clear sentence, `facts` go into the answer as fields.
    """

    def __init__(self, code: str, message: str, http_status: int | None = None, **facts: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = http_status if http_status is not None else ERRORS.get(code, (500, ""))[0]
        self.facts = facts


@dataclass(frozen=True)
class Caller:
    """Who asks: the peer of the socket as the kernel names it, and the `identity` of an automatic caller (`-i`), if
    any.
    """

    user: str
    uid: int
    pid: int
    identity: str | None = None


@dataclass(frozen=True)
class NodeInfo:
    """`GET /node`.

    `name` is the node's name in cluster.xml, None before the cluster is configured; `uptime_s` the daemon's.
    """

    name: str | None
    hostname: str
    version: str
    os: str
    uptime_s: float


@dataclass(frozen=True)
class LanNode:
    """A node on a lan."""

    name: str
    addr: str


@dataclass(frozen=True)
class LanInfo:
    """A lan of cluster.xml."""

    name: str
    command: bool
    nodes: tuple[LanNode, ...]


@dataclass(frozen=True)
class ClusterInfo:
    """`GET /cluster`: the configuration that this node applies; everything is empty when `configured` is False."""

    configured: bool
    signature: str | None = None
    date: datetime | None = None
    locked: bool = False
    xml: str | None = None
    node: str | None = None
    lans: tuple[LanInfo, ...] = ()


@dataclass(frozen=True)
class Applied:
    """What applying a configuration did (or, when checking, would do)."""

    changed: bool
    signature: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Installed:
    """What installing a package did (or would do)."""

    changed: bool
    id: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterModule:
    """A module of a node, as `cluster state` shows it."""

    name: str
    mode: str | None
    id: int
    state: str
    substate: str
    signature: str | None
    date: datetime | None


@dataclass(frozen=True)
class ClusterNode:
    """A node of the cluster and, when it is reachable, its modules."""

    name: str
    reachable: bool
    modules: tuple[ClusterModule, ...] = ()
    signature: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a resynchronisation is."""

    percent: float
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    rate_bps: float
    eta_s: float | None


@dataclass(frozen=True)
class StateInfo:
    """The state of a module on this node (spec §4.1, §5.1).

    state: one of `STATES`; substate: one of `SUBSTATES`; since: when this state and substate began; reason: why, in
    words; detail: `uptodate`, `not uptodate`, `50%`, a rule's name …; remote_state: `PRIM Ready` … or `UNKNOWN`
    (mirror); waiting_for: what a WAIT(NotReady) waits for; automatic_failover: `ready`, or why it would not happen.
    """

    state: str
    substate: str
    since: datetime
    reason: str = ""
    detail: str = ""
    remote_state: str | None = None
    waiting_for: tuple[str, ...] = ()
    automatic_failover: str = ""
    progress: Progress | None = None


@dataclass(frozen=True)
class ModuleInfo:
    """`GET /modules/{am}`.

    `signature` and `date`: of the applied configuration; `edited_signature`: of the edited tree.
    """

    name: str
    id: int
    mode: str | None
    configured: bool
    signature: str | None
    edited_signature: str | None
    date: datetime | None
    state: StateInfo
    ports: Mapping[str, int]
    boot: str
    userconfig_xml: str | None


@dataclass(frozen=True)
class WatchedProcess:
    """A process or service that errd watches (spec §3.9). `enabled`: its class is; `value`: of its resource."""

    name: str
    class_: str
    action: str
    enabled: bool
    value: str


LoopWord = Literal["inc", "reset", "check"]


@dataclass(frozen=True)
class Loop:
    """The counter of automatic actions (spec §6.5). `reached`: the next one becomes a stop."""

    count: int
    maxloop: int
    reached: bool


@dataclass(frozen=True)
class ActionOptions:
    """Options of `prim`/`second` (fullsync), `swap` (nosync) and `secondforce` (date); the node refuses an option that
    the action does not know.
    """

    fullsync: bool = False
    nosync: bool = False
    date: datetime | None = None


@dataclass(frozen=True)
class ActionAccepted:
    """An action was accepted and goes on by itself.

    `changed` is False when the module already is what was asked for.
    """

    changed: bool
    state: StateInfo
    accepted: bool = field(default=True, init=False)


class NodeFace(ReplicationFace, FarmFace, WitnessFace, Protocol):
    """One node, as the API sees it.

    `am` is always a module's name; `check=True` says what would be done and does nothing.
    """

    async def node_info(self) -> NodeInfo:
        """Who this node is."""

    async def cluster_info(self) -> ClusterInfo:
        """The applied cluster configuration."""

    async def cluster_apply(
        self, xml: str, key: bytes | None, check: bool, lock: Literal["lock", "unlock"] | None
    ) -> Applied:
        """Apply cluster.xml.

        `key` None keeps the present key or makes one; `lock` refuses later configurations until `unlock`.
        """

    async def cluster_key(self) -> bytes | None:
        """The cluster key, None when there is none."""

    async def cluster_genkey(self) -> bytes:
        """Make and apply a new cluster key."""

    async def cluster_remove(self) -> bool:
        """Remove the cluster configuration and key; False if there was none."""

    async def cluster_confcheck(self, xml: str) -> tuple[str, ...]:
        """Validate a cluster.xml; the warnings."""

    async def cluster_state(self) -> tuple[ClusterNode, ...]:
        """Each node of the cluster and its modules."""

    async def module_list(self) -> tuple[ModuleInfo, ...]:
        """The installed modules, by id."""

    async def module_info(self, am: str) -> ModuleInfo:
        """One installed module."""

    async def module_install(self, am: str, package: bytes, id: int | None, check: bool, replace: bool) -> Installed:
        """Put the tree of a `.safe` package in place as the edited tree (`replace` allows an existing module to be
        replaced).

        `id` None: the present id, or the next free one.
        """

    async def module_package(self, am: str) -> bytes:
        """The edited tree as a `.safe` package."""

    async def module_config(self, am: str, check: bool) -> Applied:
        """Apply the edited configuration."""

    async def module_update(self, am: str) -> Applied:
        """Take over what was changed in the edited configuration while the module runs, and call its `update` script."""

    async def module_confcheck(self, am: str) -> tuple[str, ...]:
        """Validate the edited configuration; the warnings."""

    async def module_deconfig(self, am: str) -> bool:
        """Remove the applied configuration, keep the edited tree; False if there was none."""

    async def module_uninstall(self, am: str) -> bool:
        """Remove the module; False if it is not installed."""

    async def module_boot(self, am: str, boot: Literal["on", "off"]) -> bool:
        """Start the module when the node boots, or not (`safekit boot`); False if it already was so."""

    async def module_switch(self, am: str, kind: Switchable, on: bool, caller: Caller) -> bool:
        """Turn the checkers, the watch over processes, or the automatic failover of a mirror, on or off; it outlives the
        module's stops and the node's.

        False if it already was so.
        """

    async def errd_class(self, am: str, class_: str, on: bool, caller: Caller) -> bool:
        """Watch the processes of a class, or not, until the module stops (spec §3.9); False if it already was so."""

    async def errd_processes(self, am: str) -> tuple[WatchedProcess, ...]:
        """What errd watches, in the order of the configuration."""

    async def module_action(self, am: str, action: Action, caller: Caller, options: ActionOptions) -> ActionAccepted:
        """Ask for an action.

        `caller.identity` set: automatic caller, counted by maxloop; None: a person, resets it (spec §6.1).
        """

    async def module_loop(self, am: str, what: LoopWord) -> Loop:
        """Count an automatic action that a script did, begin anew, or only look."""

    async def module_state(self, am: str) -> StateInfo:
        """The state of the module, also of one that is not configured."""

    async def module_wait(self, am: str, states: frozenset[str], substate: str | None, timeout: float) -> StateInfo:
        """Wait until the module is in one of `states` (and `substate`, if given); FaceError `wait.timeout` after
        `timeout` s.
        """

    async def resources(self, am: str) -> tuple[ResourceValue, ...]:
        """Every resource of the module, by name."""

    async def resource_history(self, am: str, name: str, lines: int) -> tuple[ResourceValue, ...]:
        """The last `lines` values of a resource, newest first (the first is the present value); FaceError
        `resource.unknown`.
        """

    async def set_resource(self, am: str, name: str, value: str, identity: str | None) -> bool:
        """Give a resource a value; False if it already had it."""

    async def log(self, am: str, lines: int, verbose: bool, after: int | None, wait: float) -> tuple[LogEntry, ...]:
        """The last `lines` entries, oldest first; with `after`, those newer than that id, awaited for at most `wait`
        seconds.
        """

    async def why(self, am: str, moves: int) -> tuple[Change, ...]:
        """The changes of state of the last `moves` moves and what led to each, oldest first."""

    async def add_log(self, am: str, level: Literal["I", "E"], message: str, origin: str) -> None:
        """`safekit printi` / `printe`: a script speaks in the module log."""
