"""The node's place in its cluster: configuration and key on disk, the membership channel, what the other nodes say of
themselves.

The channel carries, for each module, name, mode, id, state and signature: `safekit cluster state` on any node shows
all of them, and a mirror that starts learns at once that its peer's module is stopped.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safekit.api.face import FaceError
from safekit.config import Cluster, load_cluster
from safekit.files import read_json, sync_folder, write_json
from safekit.membership import (
    GroupChannel,
    LinkTrouble,
    MemberPayload,
    Pulse,
    PulseEvent,
    Refused,
    View,
    ViewChanged,
    group_lan,
)
from safekit.paths import Paths

CHANNEL = "cluster"
KEY_BYTES = 32
PAYLOAD_LIMIT = 1200


@dataclass(frozen=True)
class AppliedCluster:
    """The cluster configuration in force on this node."""

    cluster: Cluster
    xml: str
    node: str
    date: datetime
    locked: bool
    key: bytes


class ClusterFiles:
    """`cluster.xml`, `cluster.key` and when they were applied."""

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.cluster
        self._xml = self._folder / "cluster.xml"
        self._meta = self._folder / "applied.json"
        self.key_file = self._folder / "cluster.key"

    def read(self) -> AppliedCluster | None:
        """What is applied; None if nothing is. Raises ConfigError or UnreadableFile when it is damaged."""
        meta = read_json(self._meta)
        if meta is None or not self._xml.exists():
            return None
        xml = self._xml.read_text()
        return AppliedCluster(
            load_cluster(xml, str(self._xml)),
            xml,
            str(meta["node"]),
            datetime.fromisoformat(meta["date"]),
            bool(meta["locked"]),
            self.key() or b"",
        )

    def key(self) -> bytes | None:
        """The key of the cluster, if there is one."""
        return self.key_file.read_bytes() if self.key_file.exists() else None

    def write(self, xml: str, node: str, key: bytes, locked: bool) -> None:
        """Put a configuration in force.

        The key first, the date last; a crash between leaves the former or an unapplied one.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(self.key_file, key)
        _write(self._xml, xml.encode())
        meta = {"node": node, "date": datetime.now(UTC).isoformat(), "locked": locked}
        write_json(self._meta, meta, durable=True)

    def remove(self) -> None:
        """Take everything away."""
        for path in (self._meta, self._xml, self.key_file):
            path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    fresh.replace(path)
    sync_folder(path.parent)


def new_key() -> bytes:
    """A key that nobody has."""
    return secrets.token_bytes(KEY_BYTES)


class ClusterMembership:
    """The channel of the cluster: who is there, and what each says of its modules."""

    def __init__(self, pulse: Pulse, say: Callable[[str], None]) -> None:
        self._pulse = pulse
        self._say = say
        self._open = False
        self._published: dict[str, Any] = {}
        self.applied: AppliedCluster | None = None
        """The configuration in force, also before this node takes part."""
        self.view: View | None = None
        self.payloads: dict[str, Mapping[str, Any]] = {}

    def require(self) -> AppliedCluster:
        """The configuration in force. Raises FaceError when there is none."""
        if self.applied is None:
            raise FaceError(
                "cluster.not_configured", "this node belongs to no cluster yet: `safekit cluster config FILE`"
            )
        return self.applied

    async def join(self) -> None:
        """Take part in the cluster."""
        applied = self.require()
        cluster, lans, used = applied.cluster, [], set()
        for lan in cluster.lans:
            mine = group_lan(lan, applied.node)
            # A lan that names some nodes of another one again, for a mirror between them, is the same wire.
            if mine is not None and mine.local not in used:
                used.add(mine.local)
                lans.append(mine)
        await self._pulse.set_channel(
            GroupChannel(
                CHANNEL,
                node=applied.node,
                port=cluster.port,
                key=applied.key,
                lans=tuple(lans),
                pulse=cluster.pulse,
                mlost_count=cluster.mlost_count,
                slost_count=cluster.slost_count,
            )
        )
        self._open, self._published = True, {}

    async def leave(self) -> None:
        """Take part no longer, and forget the configuration."""
        self.applied = None
        self._open, self.view, self.payloads, self._published = False, None, {}, {}
        await self._pulse.remove_channel(CHANNEL)

    async def publish(self, signature: str, modules: list[list[Any]]) -> None:
        """Say of each module `[name, mode, id, state, substate, signature, turn]`.

        Signatures go first when there are too many modules.
        """
        payload: dict[str, Any] = {"sig": signature, "m": modules}
        if len(repr(payload)) > PAYLOAD_LIMIT:
            payload = {"sig": signature, "m": [[*module[:5], "", *module[6:]] for module in modules]}
        if self._open and payload != self._published:
            self._published = payload
            await self._pulse.publish(CHANNEL, payload)

    def hear(self, event: PulseEvent) -> bool:
        """Take in an event of the channel; True if the picture of the cluster changed."""
        match event:
            case ViewChanged(view=view):
                gone = set(self.view.members if self.view else ()) - set(view.members)
                come = set(view.members) - set(self.view.members if self.view else ())
                for node in sorted(come):
                    self._say(f"node {node} is in the cluster")
                for node in sorted(gone):
                    self._say(f"node {node} left the cluster or cannot be reached")
                self.view = view
            case MemberPayload(node=node, payload=payload):
                self.payloads[node] = payload
            case Refused(source=source, reason=reason):
                self._say(f"cluster membership from {source} is refused: {reason}")
                return False
            case LinkTrouble(ident=ident, reason=reason):
                self._say(f"lan {ident}: {reason or 'works again'}")
                return False
            case _:
                return False
        return True

    def reachable(self, node: str) -> bool:
        """Whether a node is in the present view."""
        return self.view is not None and node in self.view.members

    def modules(self) -> dict[str, list[list[Any]]]:
        """What the other nodes that are heard say of their modules."""
        return {node: payload.get("m", []) for node, payload in self.payloads.items() if self.reachable(node)}

    def state_of(self, node: str, module: str) -> str:
        """What `node` says of `module`.

        A state, `absent` when it has none of that name, empty when the node is not heard.
        """
        if not self.reachable(node) or node not in self.payloads:
            return ""
        for entry in self.payloads[node].get("m", ()):
            if entry[0] == module:
                return str(entry[3])
        return "absent"
