"""The cluster configuration of this node: applied, given another key, taken away; and what it says of the other nodes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Literal

from safekit.api.face import Applied, ClusterInfo, ClusterModule, ClusterNode, FaceError, LanInfo, LanNode
from safekit.config import load_cluster
from safekit.node import checks
from safekit.node.cluster import ClusterFiles, ClusterMembership, new_key
from safekit.node.modules import Modules
from safekit.node.witnessing import Witnessing
from safekit.paths import Paths


class Clustering:
    """One change at a time: `changing` is held by whoever makes one, here and in a module."""

    def __init__(
        self,
        paths: Paths,
        cluster: ClusterMembership,
        modules: Modules,
        witnessing: Witnessing,
        changing: asyncio.Lock,
        changed: Callable[[], None],
    ) -> None:
        self._files = ClusterFiles(paths)
        self._cluster, self._modules, self._witnessing = cluster, modules, witnessing
        self._changing, self._changed = changing, changed

    def read(self) -> None:
        """Know what is applied, without taking part yet. Raises ConfigError or UnreadableFile when it is damaged."""
        self._cluster.applied = self._files.read()

    def key(self) -> bytes | None:
        """The cluster key, None when there is none."""
        return self._files.key()

    def info(self) -> ClusterInfo:
        """The applied cluster configuration."""
        applied = self._cluster.applied
        if applied is None:
            return ClusterInfo(configured=False)
        lans = tuple(
            LanInfo(lan.name, lan.command, tuple(LanNode(node.name, str(node.addr)) for node in lan.nodes))
            for lan in applied.cluster.lans
        )
        signature = applied.cluster.signature
        return ClusterInfo(True, signature, applied.date, applied.locked, applied.xml, applied.node, lans)

    async def apply(self, xml: str, key: bytes | None, check: bool, lock: Literal["lock", "unlock"] | None) -> Applied:
        """Apply cluster.xml; `key` None keeps the present key or makes one."""
        async with self._changing:
            cluster = load_cluster(xml, "cluster.xml")
            before = self._cluster.applied
            if before is not None and before.locked and lock != "unlock":
                raise FaceError("cluster.locked", "the cluster configuration is locked: apply it with `unlock`")
            if key is not None and len(key) != 32:
                raise FaceError("request.invalid", f"the cluster key has {len(key)} bytes, expected 32")
            present = self._files.key()
            wanted = key or present or new_key()
            locked = {"lock": True, "unlock": False, None: before.locked if before else False}[lock]
            warnings = tuple(str(warning) for warning in cluster.warnings)
            if before is not None and (before.xml, before.key, before.locked) == (xml, wanted, locked):
                return Applied(False, cluster.signature, warnings)
            own = await asyncio.to_thread(_own_addresses)
            node = checks.find_node(cluster, socket.gethostname(), own, "cluster.xml")
            if before is None or before.cluster.port != cluster.port:
                checks.check_cluster_port(cluster, node, "cluster.xml")
            differs = before is not None and (before.cluster.signature, before.key) != (cluster.signature, wanted)
            if differs:
                self._modules.require_all_stopped("cluster.in_use", "before the cluster configuration is changed")
            if not check:
                self._files.write(xml, node, wanted, locked)
                await self._take_up()
            return Applied(True, cluster.signature, warnings)

    async def _take_up(self) -> None:
        self.read()
        await self._cluster.join()
        await self._witnessing.join(self._cluster.require())
        for module in self._modules:
            name, config = module.around.name, module.around.config
            await self._modules.close(name)
            await (await self._modules.open(name, config)).resume()
        self._changed()

    async def renew_key(self) -> bytes:
        """Make and apply a new cluster key."""
        applied = self._cluster.require()
        self._modules.require_all_stopped("cluster.in_use", "before the cluster key is changed")
        key = new_key()
        self._files.write(applied.xml, applied.node, key, applied.locked)
        await self._take_up()
        return key

    async def remove(self) -> bool:
        """Remove the cluster configuration and key; False if there was none."""
        if self._cluster.applied is None:
            return False
        self._modules.require_all_stopped("cluster.in_use", "before the cluster configuration is removed")
        for module in self._modules:
            await self._modules.close(module.around.name)
        await self._cluster.leave()
        await self._witnessing.leave()
        self._files.remove()
        return True

    def state(self) -> tuple[ClusterNode, ...]:
        """Each node of the cluster and its modules."""
        applied = self._cluster.require()
        nodes = []
        for name in applied.cluster.node_names:
            if name == applied.node:
                own = tuple(_cluster_module(entry) for entry in self._modules.described())
                nodes.append(ClusterNode(name, True, own, applied.cluster.signature))
                continue
            reachable = self._cluster.reachable(name)
            payload = self._cluster.payloads.get(name, {}) if reachable else {}
            modules = tuple(_cluster_module(entry) for entry in payload.get("m", ()))
            nodes.append(ClusterNode(name, reachable, modules, payload.get("sig")))
        return tuple(nodes)


def _cluster_module(entry: list[Any]) -> ClusterModule:
    name, mode, number, state, substate, signature = entry[:6]
    return ClusterModule(name, mode, number, state, substate, signature or None, None)


def _own_addresses() -> list[str]:
    from safekit.vip import netlink

    return [str(entry.address) for entry in netlink.addresses()]
