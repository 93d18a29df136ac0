"""A node of one process: it answers the API with real stores and simple modules, for tests of the faces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from safekit.api.face import (
    Action,
    ActionAccepted,
    ActionOptions,
    Applied,
    Caller,
    ClusterInfo,
    ClusterModule,
    ClusterNode,
    FaceError,
    Installed,
    LanInfo,
    LanNode,
    Loop,
    LoopWord,
    ModuleInfo,
    NodeInfo,
    StateInfo,
    Switchable,
    WatchedProcess,
)
from safekit.api.farm import FarmAddress, FarmGroup, FarmInfo, FarmShare
from safekit.api.replicated import Comparison, ComparisonKind, SyncPolicy
from safekit.api.server import serve
from safekit.api.witness import WitnessCluster, WitnessInfo, WitnessRegister
from safekit.config.errors import ConfigError
from safekit.paths import Paths
from safekit.store.command_log import CommandLog
from safekit.store.entries import Change, LogEntry, ResourceValue
from safekit.store.module_log import ModuleLog
from safekit.store.resources import Resources

DATE = datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)
STOPPED = StateInfo("STOP", "NotReady", DATE, "stopped by root", "uptodate", "UNKNOWN")
REACHED = {"start": "ALONE", "prim": "ALONE", "second": "SECOND", "stop": "STOP", "forcestop": "STOP", "swap": "SECOND"}


class SmallNode:
    """Implements NodeFace: an action reaches its state at once, a configuration is valid unless it says `wrong`."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.cluster = ClusterInfo(configured=False)
        self.key: bytes | None = None
        self.witnessed: dict[str, tuple[str, ...]] = {}
        self.packages: dict[str, bytes] = {}
        self.infos: dict[str, ModuleInfo] = {}
        self.open = True
        self.logs: dict[str, ModuleLog] = {}
        self.stores: dict[str, Resources] = {}
        self.loops = 0
        self.actions: list[tuple[str, str, Caller, ActionOptions]] = []
        self.comparison: Comparison | None = None
        self.compared: dict[str, Any] = {"equal": True, "files_done": 12, "bytes_done": 3_000_000}
        self.policy = SyncPolicy("default")
        self.commands = CommandLog(paths.command_log)
        self._moved = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.commands.open()
        async with serve(self, self._paths, self.commands):
            yield
        stores: list[ModuleLog | Resources | CommandLog] = [*self.logs.values(), *self.stores.values(), self.commands]
        for store in stores:
            await store.close()

    def move(self, am: str, state: StateInfo) -> None:
        self.infos[am] = replace(self.infos[am], state=state)
        self._moved.set()
        self._moved = asyncio.Event()

    def _info(self, am: str) -> ModuleInfo:
        if am not in self.infos:
            raise FaceError("module.unknown", f"no module {am} is installed on this node")
        return self.infos[am]

    async def node_info(self) -> NodeInfo:
        return NodeInfo(self.cluster.node, "host1", "8.2.1", "Debian GNU/Linux 12", 12.5)

    async def cluster_info(self) -> ClusterInfo:
        return self.cluster

    async def cluster_apply(
        self, xml: str, key: bytes | None, check: bool, lock: Literal["lock", "unlock"] | None
    ) -> Applied:
        await self.cluster_confcheck(xml)
        if self.cluster.locked and lock != "unlock":
            raise FaceError("cluster.locked", "the cluster configuration is locked")
        changed = xml != self.cluster.xml
        if not check:
            lan = LanInfo("default", True, (LanNode("n1", "10.0.0.1"), LanNode("n2", "10.0.0.2")))
            self.cluster = ClusterInfo(True, "c0ffee", DATE, lock == "lock", xml, "n1", (lan,))
            self.key = key or self.key or b"first key"
        return Applied(changed, "c0ffee", ())

    async def cluster_key(self) -> bytes | None:
        return self.key

    async def cluster_genkey(self) -> bytes:
        self.key = b"new key"
        return self.key

    async def witness_info(self) -> WitnessInfo:
        register = WitnessRegister("db", 4, ("n1", "n2"), "n1")
        clusters = tuple(WitnessCluster(name, nodes, (register,)) for name, nodes in self.witnessed.items())
        return WitnessInfo(bool(clusters), None, 4803, clusters, 3, {"foreign": 1})

    async def witness_add(
        self,
        cluster: str,
        key: bytes,
        nodes: tuple[str, ...],
        port: int | None,
        addr: str | None,
        check: bool,
        replace_key: bool,
    ) -> bool:
        if key == b"other" and not replace_key:
            raise FaceError("witness.other_key", "another key")
        changed = self.witnessed.get(cluster) != nodes
        if not check:
            self.witnessed[cluster] = nodes
        return changed

    async def witness_remove(self, cluster: str) -> bool:
        return self.witnessed.pop(cluster, None) is not None

    async def cluster_remove(self) -> bool:
        configured, self.cluster = self.cluster.configured, ClusterInfo(False)
        return configured

    async def cluster_confcheck(self, xml: str) -> tuple[str, ...]:
        if "wrong" in xml:
            raise ConfigError(
                "config.value",
                "not a number",
                file="cluster.xml",
                line=3,
                element="lan",
                attribute="pulse",
                value="wrong",
            )
        return ("lan default: one lan only",)

    async def cluster_state(self) -> tuple[ClusterNode, ...]:
        if not self.cluster.configured:
            raise FaceError("cluster.not_configured", "the node belongs to no cluster yet")
        modules = tuple(
            ClusterModule(one.name, one.mode, one.id, one.state.state, one.state.substate, one.signature, one.date)
            for one in self.infos.values()
        )
        return ClusterNode("n1", True, modules, "c0ffee"), ClusterNode("n2", False)

    async def module_list(self) -> tuple[ModuleInfo, ...]:
        return tuple(self.infos.values())

    async def module_info(self, am: str) -> ModuleInfo:
        return self._info(am)

    async def module_install(self, am: str, package: bytes, id: int | None, check: bool, replace: bool) -> Installed:
        if am in self.infos and not replace:
            raise FaceError("module.id_used", f"module {am} is installed already")
        changed = self.packages.get(am) != package
        number = id or len(self.infos) + 1
        if not check:
            self.packages[am] = package
            self.infos[am] = ModuleInfo(
                am, number, None, False, None, "ed1ted", None, STOPPED, {"heart": 8888, "rfs": 5600}, "off", "<safe/>"
            )
            folder = self._paths.module_var(am)
            self.logs[am] = ModuleLog(am, folder / "log.db", journal=lambda *line: None)
            self.stores[am] = Resources(am, folder / "resource.db")
            await self.logs[am].open()
            await self.stores[am].open()
        return Installed(changed, number)

    async def module_package(self, am: str) -> bytes:
        self._info(am)
        return self.packages[am]

    async def module_config(self, am: str, check: bool) -> Applied:
        info = self._info(am)
        if not check:
            self.infos[am] = replace(info, mode="mirror", configured=True, signature="ed1ted", date=DATE)
        return Applied(not info.configured, "ed1ted", ("macro unused",))

    async def module_confcheck(self, am: str) -> tuple[str, ...]:
        self._info(am)
        return ("macro unused",)

    async def module_deconfig(self, am: str) -> bool:
        info = self._info(am)
        self.infos[am] = replace(info, configured=False, signature=None, date=None)
        return info.configured

    async def module_update(self, am: str) -> Applied:
        info = self._info(am)
        return Applied(info.signature != info.edited_signature, str(info.edited_signature), ("script update failed",))

    async def module_uninstall(self, am: str) -> bool:
        if am not in self.infos:
            return False
        await self.logs.pop(am).close()
        await self.stores.pop(am).close()
        del self.infos[am]
        return True

    async def module_boot(self, am: str, boot: Literal["on", "off"]) -> bool:
        info = self._info(am)
        self.infos[am] = replace(info, boot=boot)
        return info.boot != boot

    async def module_switch(self, am: str, kind: Switchable, on: bool, caller: Caller) -> bool:
        self._info(am)
        return self.stores[am].set(f"usersetting.{kind}", "on" if on else "off")

    async def module_loop(self, am: str, what: LoopWord) -> Loop:
        self._info(am)
        self.loops = {"inc": self.loops + 1, "reset": 0, "check": self.loops}[what]
        return Loop(self.loops, 2, self.loops >= 2)

    async def errd_class(self, am: str, class_: str, on: bool, caller: Caller) -> bool:
        self._info(am)
        return self.stores[am].set(f"errd.{class_}", "on" if on else "off")

    async def errd_processes(self, am: str) -> tuple[WatchedProcess, ...]:
        self._info(am)
        enabled = self.stores[am].get("errd.batch")
        on = enabled is not None and enabled.value == "on"
        return (WatchedProcess("cron", "batch", "restart", on, "up" if on else "unknown"),)

    async def module_action(self, am: str, action: Action, caller: Caller, options: ActionOptions) -> ActionAccepted:
        info = self._info(am)
        if not info.configured:
            raise FaceError("module.not_configured", f"module {am} was never configured")
        self.actions.append((am, action, caller, options))
        self.logs[am].write("safekit", "U", f"Action {action} called by {caller.identity or caller.user}")
        state = REACHED.get(action, info.state.state)
        changed = state != info.state.state
        self.move(am, StateInfo(state, "NotReady" if state == "STOP" else "Ready", DATE, f"{action} by {caller.user}"))
        return ActionAccepted(changed, self.infos[am].state)

    async def module_state(self, am: str) -> StateInfo:
        return self._info(am).state

    async def module_wait(self, am: str, states: frozenset[str], substate: str | None, timeout: float) -> StateInfo:
        try:
            async with asyncio.timeout(timeout):
                while True:
                    state = self._info(am).state
                    if state.state in states and substate in (None, state.substate):
                        return state
                    await self._moved.wait()
        except TimeoutError:
            state = self._info(am).state
            raise FaceError("wait.timeout", f"module {am} is still {state.state}", state=state) from None

    async def resources(self, am: str) -> tuple[ResourceValue, ...]:
        self._info(am)
        return self.stores[am].all()

    async def resource_history(self, am: str, name: str, lines: int) -> tuple[ResourceValue, ...]:
        self._info(am)
        history = await self.stores[am].history(name, lines)
        if not history:
            raise FaceError("resource.unknown", f"module {am} has no resource {name}")
        return history

    async def set_resource(self, am: str, name: str, value: str, identity: str | None) -> bool:
        self._info(am)
        return self.stores[am].set(name, value)

    async def farm_info(self, am: str) -> FarmInfo:
        self._info(am)
        if am != "web":
            raise FaceError("action.refused", f"module {am} has no virtual address that a farm shares", module=am)
        if self.infos[am].state.state != "UP":
            return FarmInfo("n1", in_service=False)
        shares = (FarmShare("n1", 2, 66.67), FarmShare("n2", 1, 33.33))
        addresses = (FarmAddress("10.0.0.100", "n2", 12, 3), FarmAddress("fd00::100", None, 0, 0))
        packets = {"taken": 7, "local": 40, "forwarded_n2": 5}
        return FarmInfo(
            "n1", True, self.open, ("n1", "n2"), (FarmGroup("web", shares, (0, 1, 0, None)),), addresses, packets
        )

    async def farm_open(self, am: str, opened: bool) -> bool:
        self._info(am)
        if am != "web":
            raise FaceError("action.refused", f"the scripts of module {am} do not control its traffic", module=am)
        changed, self.open = opened != self.open, opened
        return changed

    async def rfs_stats(self, am: str) -> Mapping[str, int | str]:
        self._info(am)
        return {
            "sent_bytes": 1_500_000,
            "wire_p99_us": 2400,
            "queue_count": 3,
            "wire_histogram": "0,4",
            "peer": "mirror",
        }

    async def rfs_compare(self, am: str, kind: ComparisonKind) -> Comparison:
        self._info(am)
        self.comparison = Comparison(kind, True, DATE, bytes_total=10)
        return self.comparison

    async def rfs_comparison(self, am: str, wait: float) -> Comparison | None:
        self._info(am)
        if self.comparison is not None and wait > 0:
            self.comparison = replace(self.comparison, running=False, ended=DATE, **self.compared)
        return self.comparison

    async def rfs_sync(self, am: str, policy: SyncPolicy) -> bool:
        self._info(am)
        before, self.policy = self.policy, policy
        return policy != before

    async def log(self, am: str, lines: int, verbose: bool, after: int | None, wait: float) -> tuple[LogEntry, ...]:
        self._info(am)
        if after is None:
            return await self.logs[am].last(lines, verbose)
        return await self.logs[am].newer(after, lines, verbose, wait)

    async def why(self, am: str, moves: int) -> tuple[Change, ...]:
        self._info(am)
        return await self.logs[am].changes(moves)

    async def add_log(self, am: str, level: Literal["I", "E"], message: str, origin: str) -> None:
        self._info(am)
        self.logs[am].write(origin, level, message)
