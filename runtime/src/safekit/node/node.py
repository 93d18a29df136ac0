"""One node: what the API may ask of it (`api/face.py`), handed to the part that does it.

The node decides nothing about a module's state; it hands commands to the automata and reports.
"""

from __future__ import annotations

import asyncio
import platform
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from safekit import __version__
from safekit.api.face import (
    Action,
    ActionAccepted,
    ActionOptions,
    Applied,
    Caller,
    ClusterInfo,
    ClusterNode,
    FaceError,
    Installed,
    Loop,
    LoopWord,
    ModuleInfo,
    NodeInfo,
    StateInfo,
    Switchable,
    WatchedProcess,
)
from safekit.api.farm import FarmInfo
from safekit.api.replicated import Comparison, ComparisonKind, SyncPolicy
from safekit.api.witness import WitnessInfo
from safekit.automaton.vocabulary import Action as Verb
from safekit.automaton.vocabulary import Command, Role
from safekit.config import load_cluster, ports
from safekit.membership import Pulse, PulseEvent
from safekit.module.mirror import MirrorModule
from safekit.module.settings import Settings, read_settings, write_settings
from safekit.node import farmed, replicated
from safekit.node.actions import command_of
from safekit.node.cluster import ClusterMembership
from safekit.node.clustering import Clustering
from safekit.node.configuring import Configuring
from safekit.node.modules import AnyModule, Modules
from safekit.node.report import state_info
from safekit.node.witnessing import Witnessing
from safekit.paths import Paths
from safekit.store import dates
from safekit.store.command_log import CommandLog
from safekit.store.entries import Change, CommandEntry, LogEntry, ResourceValue

PULSE_WAIT = timedelta(seconds=30)
"""How long the daemon waits for `safekit-pulse` before it gives up and is started again."""


class Node:
    """Implements `NodeFace`."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._began = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self.commands = CommandLog(paths.command_log)
        self._pulse = Pulse(paths.pulse_socket, on_event=self._hear)
        self._cluster = ClusterMembership(self._pulse, self._say)
        self._witnessing = Witnessing(paths, self._say)
        self._modules = Modules(paths, self._pulse, self._cluster, self._witnessing, self._changed)
        changing = asyncio.Lock()
        self._clustering = Clustering(paths, self._cluster, self._modules, self._witnessing, changing, self._changed)
        self._configuring = Configuring(paths, self._modules, self._cluster, changing, self._changed)

    # --- life ---

    async def open(self) -> None:
        """Take up what is configured, and what an earlier daemon left running."""
        for folder in (self._paths.var, self._paths.run, self._paths.safe / "modules"):
            folder.mkdir(parents=True, exist_ok=True)
        await self.commands.open()
        await self._pulse.connect(PULSE_WAIT)
        await self._witnessing.open()
        self._clustering.read()
        if self._cluster.applied is None:
            return
        await self._witnessing.join(self._cluster.applied)
        await self._modules.open_configured(self._say)
        await self._pulse.keep_channels({"cluster", *(module.channel for module in self._modules)})
        await self._cluster.join()
        for module in self._modules:
            await module.resume()
        self._changed()
        self._start_at_boot()

    async def close(self) -> None:
        """End the daemon's work; every application, address, filter and replication stays as it is."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for module in self._modules:
            await module.close()
        await self._witnessing.close()
        await self._pulse.close()
        await self.commands.close()

    def _start_at_boot(self) -> None:
        """The first daemon after a power-on starts the modules that say so (spec §11.7)."""
        mark = self._paths.run / "booted"
        if mark.exists():
            return
        mark.touch()
        for module in self._modules:
            service = module.around.config.service
            if not module.restored and module.settings.starts_at_boot(service.boot):
                self._spawn(self._boot(module, service.boot_delay.total_seconds()))

    async def _boot(self, module: AnyModule, delay: float) -> None:
        await asyncio.sleep(delay)
        module.log.write("safekit", "E", "Action start called at boot time")
        module.command(Command(Verb.START, "boot"))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what is heard ---

    def _hear(self, event: PulseEvent) -> None:
        channel = getattr(event, "channel", "")
        if channel == "cluster":
            if self._cluster.hear(event):
                for module in self._modules:
                    if isinstance(module, MirrorModule):
                        module.cluster_says(self._cluster.state_of(module.peer_node, module.around.name))
            return
        for module in self._modules:
            if module.channel == channel:
                module.on_pulse(event)

    def _say(self, message: str) -> None:
        self.commands.event("cluster", None, message)
        print(message, flush=True)  # the journal of safekitd.service

    def _changed(self) -> None:
        applied = self._cluster.applied
        if applied is not None:
            self._spawn(self._cluster.publish(applied.cluster.signature, self._modules.described()))

    # --- the node and its cluster ---

    async def node_info(self) -> NodeInfo:
        """Who this node is."""
        return NodeInfo(
            name=self._cluster.applied.node if self._cluster.applied else None,
            hostname=socket.gethostname(),
            version=__version__,
            os=_os_name(),
            uptime_s=time.monotonic() - self._began,
        )

    async def cluster_info(self) -> ClusterInfo:
        """The applied cluster configuration."""
        return self._clustering.info()

    async def cluster_confcheck(self, xml: str) -> tuple[str, ...]:
        """Validate a cluster.xml; the warnings."""
        return tuple(str(warning) for warning in load_cluster(xml, "cluster.xml").warnings)

    async def cluster_apply(
        self, xml: str, key: bytes | None, check: bool, lock: Literal["lock", "unlock"] | None
    ) -> Applied:
        """Apply cluster.xml; `key` None keeps the present key or makes one."""
        return await self._clustering.apply(xml, key, check, lock)

    async def cluster_key(self) -> bytes | None:
        """The cluster key, None when there is none."""
        return self._clustering.key()

    async def cluster_genkey(self) -> bytes:
        """Make and apply a new cluster key."""
        return await self._clustering.renew_key()

    async def cluster_remove(self) -> bool:
        """Remove the cluster configuration and key; False if there was none."""
        return await self._clustering.remove()

    async def cluster_state(self) -> tuple[ClusterNode, ...]:
        """Each node of the cluster and its modules."""
        return self._clustering.state()

    async def witness_info(self) -> WitnessInfo:
        """What this node serves as a witness."""
        return await self._witnessing.info()

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
        """Serve a cluster as a witness."""
        return await self._witnessing.add(cluster, key, nodes, port, addr, check=check, replace_key=replace_key)

    async def witness_remove(self, cluster: str) -> bool:
        """Serve a cluster no longer, and forget its registers."""
        return await self._witnessing.remove(cluster)

    # --- modules: installation and configuration ---

    async def module_list(self) -> tuple[ModuleInfo, ...]:
        """The installed modules, by id."""
        ordered = sorted(self._modules.trees.ids().items(), key=lambda item: item[1])
        return tuple([await self.module_info(name) for name, _ in ordered])

    async def module_info(self, am: str) -> ModuleInfo:
        """One installed module."""
        number = self._modules.require_installed(am)
        module, applied = self._modules.find(am), self._modules.trees.applied(am)
        boot = module.around.config.service.boot if module else "ignore"
        if boot == "ignore":
            boot_now = "on" if self._settings(am).boot else "off"
        else:
            boot_now = boot
        used = ports(module.around.config, number) if module else None
        return ModuleInfo(
            name=am,
            id=number,
            mode=module.around.config.service.mode if module else None,
            configured=module is not None,
            signature=applied.signature if applied else None,
            edited_signature=self._modules.trees.signature_of_edited(am),
            date=applied.date if applied else None,
            state=await self.module_state(am),
            ports={n: p for n, p in (("heart", used.heart), ("rfs", used.rfs), ("farm", used.farm)) if p}
            if used
            else {},
            boot=boot_now,
            userconfig_xml=self._modules.trees.userconfig(am),
        )

    def _settings(self, am: str) -> Settings:
        module = self._modules.find(am)
        return module.settings if module else read_settings(self._paths.module_var(am) / "settings.json")

    async def module_install(self, am: str, package: bytes, id: int | None, check: bool, replace: bool) -> Installed:
        """Put the tree of a `.safe` package in place as the edited tree."""
        return await self._configuring.install(am, package, id, check, replace)

    async def module_package(self, am: str) -> bytes:
        """The edited tree as a `.safe` package."""
        return await self._configuring.package(am)

    async def module_confcheck(self, am: str) -> tuple[str, ...]:
        """Validate the edited configuration; the warnings."""
        return await self._configuring.confcheck(am)

    async def module_config(self, am: str, check: bool) -> Applied:
        """Apply the edited configuration."""
        return await self._configuring.apply(am, check)

    async def module_update(self, am: str) -> Applied:
        """Take over what was changed in the edited configuration while the module runs, and call its `update` script."""
        return await self._configuring.update(am)

    async def module_deconfig(self, am: str) -> bool:
        """Remove the applied configuration, keep the edited tree; False if there was none."""
        return await self._configuring.deconfigure(am)

    async def module_uninstall(self, am: str) -> bool:
        """Remove the module; False if it is not installed."""
        return await self._configuring.uninstall(am)

    async def module_boot(self, am: str, boot: Literal["on", "off"]) -> bool:
        """Start the module when the node boots, or not; False if it already was so."""
        self._modules.require_installed(am)
        before = self._settings(am)
        after = replace(before, boot=boot == "on")
        module = self._modules.find(am)
        if module is not None:
            module.remember(after)
        elif after != before:
            write_settings(self._paths.module_var(am) / "settings.json", after)
        return bool(after != before)

    async def module_switch(self, am: str, kind: Switchable, on: bool, caller: Caller) -> bool:
        """Turn the checkers, the watch over processes, or the failover, on or off; False if it already was so."""
        module = self._modules.require(am)
        if kind == "failover" and not isinstance(module, MirrorModule):
            raise FaceError("action.refused", "`failover` is for mirror modules", module=am)
        shown = module.resources.get(f"usersetting.{kind}")
        changed = shown is None or shown.value != ("on" if on else "off")
        now = module.settings
        after = {
            "checker": replace(now, checker=on),
            "errd": replace(now, errd=on),
            "failover": replace(now, failover=on),
        }[kind]
        if changed:
            module.log.write(
                "safekit", "U", f"{kind} {'on' if on else 'off'} called by {caller.identity or caller.user}"
            )
            module.remember(after)
        return changed

    async def errd_class(self, am: str, class_: str, on: bool, caller: Caller) -> bool:
        """Watch the processes of a class, or not, until the module stops; False if it already was so."""
        module = self._modules.require(am)
        known = {process.class_ for process in module.checking.watched()}
        if class_ not in known:
            raise FaceError(
                "request.invalid",
                f"no process of module {am} has the class {class_!r}, expected one of {', '.join(sorted(known)) or 'none'}",
                module=am,
                value=class_,
            )
        if module.state.role is Role.STOP:
            raise FaceError("action.refused", f"module {am} is stopped: a class is enabled while it runs", module=am)
        changed = module.enable_errd(class_, on)
        if changed:
            word = "enabled" if on else "disabled"
            module.log.write("errd", "U", f"errd: class {class_} {word} by {caller.identity or caller.user}")
        return changed

    async def errd_processes(self, am: str) -> tuple[WatchedProcess, ...]:
        """What errd watches, in the order of the configuration."""
        module = self._modules.require(am)
        found = []
        for process in module.checking.watched():
            resource = module.resources.get(f"proc.{process.name}")
            value = resource.value if resource else "unknown"
            enabled = module.checking.enabled(process.class_)
            found.append(WatchedProcess(process.name, process.class_, process.action, enabled, value))
        return tuple(found)

    # --- modules: control and observation ---

    async def module_action(self, am: str, action: Action, caller: Caller, options: ActionOptions) -> ActionAccepted:
        """Ask for an action."""
        module = self._modules.require(am)
        command = command_of(action, caller, options, dates.now())
        why = module.refusal(command)
        if why:
            raise FaceError("action.refused", why, module=am)
        changed = module.command(command)
        if changed and command.fullsync:
            module.remember(replace(module.settings, syncmode="full", syncrole=command.action.value, syncuid=""))
        return ActionAccepted(changed, await self.module_state(am))

    async def module_loop(self, am: str, what: LoopWord) -> Loop:
        """Count an automatic action that a script did, begin anew, or only look."""
        guard = self._modules.require(am).loop(what)
        return Loop(guard.count, guard.maxloop, guard.reached(time.time()))

    async def module_state(self, am: str) -> StateInfo:
        """The state of the module, also of one that is not configured."""
        self._modules.require_installed(am)
        module = self._modules.find(am)
        if module is None:
            return StateInfo("NOT_CONFIGURED", "NotReady", dates.now(), "no configuration is applied")
        return state_info(module)

    async def module_wait(self, am: str, states: frozenset[str], substate: str | None, timeout: float) -> StateInfo:
        """Wait until the module is in one of `states` (and `substate`)."""
        module = self._modules.require(am)

        def reached() -> bool:
            state = module.state
            return state.role.value in states and (substate is None or state.readiness.value == substate)

        if await module.wait_until(reached, timeout):
            return await self.module_state(am)
        now = await self.module_state(am)
        wanted = " or ".join(sorted(states)) + (f" ({substate})" if substate else "")
        raise FaceError(
            "wait.timeout",
            f"module {am} is {now.state} ({now.substate}) after {timeout:g} s, not {wanted}: {now.reason}",
            state=now,
        )

    async def farm_info(self, am: str) -> FarmInfo:
        """The farm in the eyes of this node."""
        return await farmed.info(self._modules.require(am))

    async def farm_open(self, am: str, opened: bool) -> bool:
        """Open or close this node's share of the clients."""
        return await farmed.set_open(self._modules.require(am), opened)

    async def rfs_stats(self, am: str) -> Mapping[str, int | str]:
        """Counters and latencies of the data plane."""
        return await replicated.stats(self._modules.require(am))

    async def rfs_compare(self, am: str, kind: ComparisonKind) -> Comparison:
        """Begin to compare the copies."""
        return await replicated.compare(self._modules.require(am), kind)

    async def rfs_comparison(self, am: str, wait: float) -> Comparison | None:
        """The present or last comparison."""
        return await replicated.comparison(self._modules.require(am), wait)

    async def rfs_sync(self, am: str, policy: SyncPolicy) -> bool:
        """Choose the policy of the next synchronisation."""
        return await replicated.choose_policy(self._modules.require(am), policy)

    async def resources(self, am: str) -> tuple[ResourceValue, ...]:
        """Every resource of the module, by name."""
        return self._modules.require(am).resources.all()

    async def resource_history(self, am: str, name: str, lines: int) -> tuple[ResourceValue, ...]:
        """The last values of a resource, newest first."""
        values = await self._modules.require(am).resources.history(name, lines)
        if not values:
            raise FaceError("resource.unknown", f"module {am} has no resource {name}", module=am, resource=name)
        return values

    async def set_resource(self, am: str, name: str, value: str, identity: str | None) -> bool:
        """Give a resource a value; False if it already had it."""
        try:
            return self._modules.require(am).set_resource(name, value, identity or "administrator")
        except ValueError as error:
            raise FaceError("request.invalid", str(error), resource=name) from error

    async def log(self, am: str, lines: int, verbose: bool, after: int | None, wait: float) -> tuple[LogEntry, ...]:
        """The last entries, oldest first; or those newer than `after`."""
        log = self._modules.require(am).log
        if after is None:
            return await log.last(lines, verbose)
        return await log.newer(after, lines, verbose, wait)

    async def why(self, am: str, moves: int) -> tuple[Change, ...]:
        """The changes of the last moves and what led to them."""
        return await self._modules.require(am).log.changes(moves)

    async def add_log(self, am: str, level: Literal["I", "E"], message: str, origin: str) -> None:
        """A script speaks in the module log."""
        self._modules.require(am).log.write(origin, level, message)

    async def command_log(self, lines: int) -> tuple[CommandEntry, ...]:
        """The node's command log."""
        return await self.commands.last(lines)


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.platform()
