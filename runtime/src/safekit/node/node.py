"""One node: the modules that live here, and what the API may ask of them (`api/face.py`).

Checks come before acts: a configuration is validated against the grammar, the cluster, the other modules and this
machine before a byte of it is put in force. The node decides nothing about a module's state; it hands commands to the
automata and reports.
"""

from __future__ import annotations

import asyncio
import os
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
from safekit.api.farm import FarmInfo
from safekit.api.replicated import Comparison, ComparisonKind, SyncPolicy
from safekit.api.witness import WitnessInfo
from safekit.automaton.vocabulary import Action as Verb
from safekit.automaton.vocabulary import Command, Readiness, Role
from safekit.checkers import Sighting
from safekit.config import ConfigError, UserConfig, check_module, load_cluster, ports
from safekit.files import UnreadableFile
from safekit.membership import Pulse, PulseEvent
from safekit.module.engine import Surroundings
from safekit.module.farm import FarmModule
from safekit.module.mirror import MirrorModule
from safekit.module.settings import read_settings, write_settings
from safekit.node import checks, farmed, replicated
from safekit.node.cluster import AppliedCluster, ClusterFiles, ClusterMembership, new_key
from safekit.node.machine import restart_machine
from safekit.node.report import state_info
from safekit.node.trees import ModuleTrees
from safekit.node.witnessing import Witnessing
from safekit.paths import Paths
from safekit.scripts import Outcome, ScriptCall, ScriptRunner
from safekit.store import dates
from safekit.store.command_log import CommandLog
from safekit.store.entries import Change, CommandEntry, LogEntry, ResourceValue

AnyModule = MirrorModule | FarmModule

DYNAMIC = ((Role.ALONE, Readiness.READY), (Role.UP, Readiness.READY), (Role.WAIT, Readiness.NOT_READY))
"""Where the configuration of a module that runs may change (spec §3.0)."""

PULSE_WAIT = timedelta(seconds=30)
"""How long the daemon waits for `safekit-pulse` before it gives up and is started again."""


class Node:
    """Implements `NodeFace`."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._began = time.monotonic()
        self.commands = CommandLog(paths.command_log)
        self._trees = ModuleTrees(paths)
        self._files = ClusterFiles(paths)
        self._applied: AppliedCluster | None = None
        self._modules: dict[str, AnyModule] = {}
        self._scripts = ScriptRunner(paths, started=self._script_started)
        self._pulse = Pulse(paths.pulse_socket, on_event=self._hear)
        self._cluster = ClusterMembership(self._pulse, self._say)
        self._witnessing = Witnessing(paths, self._say)
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life ---

    async def open(self) -> None:
        """Take up what is configured, and what an earlier daemon left running."""
        for folder in (self._paths.var, self._paths.run, self._paths.safe / "modules"):
            folder.mkdir(parents=True, exist_ok=True)
        await self.commands.open()
        await self._pulse.connect(PULSE_WAIT)
        await self._witnessing.open()
        self._applied = self._files.read()
        if self._applied is None:
            return
        await self._witnessing.join(self._applied)
        for name in self._trees.ids():
            await self._open_configured(name)
        await self._pulse.keep_channels({"cluster", *(module.channel for module in self._modules.values())})
        await self._cluster.join(self._applied)
        for module in self._modules.values():
            await module.resume()
        self._changed()
        await self._start_at_boot()

    async def _open_configured(self, name: str) -> None:
        """Open a module whose applied configuration can be read.

        One that is damaged costs no other module its service.
        """
        try:
            if self._trees.applied(name) is not None:
                await self._open_module(name, self._trees.load_active(name))
        except (ConfigError, UnreadableFile, OSError, KeyError, ValueError) as error:
            self._say(
                f"module {name} is not available, apply its configuration again (`safekit config -m {name}`): {error}"
            )

    async def close(self) -> None:
        """End the daemon's work; every application, address, filter and replication stays as it is."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for module in self._modules.values():
            await module.close()
        await self._witnessing.close()
        await self._pulse.close()
        await self.commands.close()

    async def _start_at_boot(self) -> None:
        """The first daemon after a power-on starts the modules that say so (spec §11.7)."""
        mark = self._paths.run / "booted"
        if mark.exists():
            return
        mark.touch()
        for module in self._modules.values():
            service = module.around.config.service
            if not module.restored and module.settings.starts_at_boot(service.boot):
                self._spawn(self._boot(module, service.boot_delay.total_seconds()))

    async def _boot(self, module: AnyModule, delay: float) -> None:
        await asyncio.sleep(delay)
        module.log.write("safekit", "E", "Action start called at boot time")
        module.command(Command(Verb.START, "boot"))

    async def _open_module(self, name: str, config: UserConfig) -> AnyModule:
        assert self._applied is not None
        surroundings = Surroundings(
            name=name,
            id=self._trees.ids()[name],
            node=self._applied.node,
            config=config,
            cluster=self._applied.cluster,
            key=self._applied.key,
            paths=self._paths,
            pulse=self._pulse,
            scripts=self._scripts,
            changed=self._changed,
            look=self._sightings,
            witness=self._witnessing.client,
            restart_machine=restart_machine,
        )
        module: AnyModule
        module = MirrorModule(surroundings) if config.service.mode == "mirror" else FarmModule(surroundings)
        await module.open()
        self._modules[name] = module
        return module

    async def _close_module(self, name: str) -> None:
        module = self._modules.pop(name, None)
        if module is not None:
            await module.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what is heard ---

    def _hear(self, event: PulseEvent) -> None:
        channel = getattr(event, "channel", "")
        if channel == "cluster":
            if self._cluster.hear(event):
                for module in self._modules.values():
                    if isinstance(module, MirrorModule):
                        module.cluster_says(self._cluster.state_of(module.peer_node, module.around.name))
            return
        for module in self._modules.values():
            if module.channel == channel:
                module.on_pulse(event)

    def _say(self, message: str) -> None:
        self.commands.event("cluster", None, message)
        print(message, flush=True)  # the journal of safekitd.service

    def _script_started(self, call: ScriptCall, log: str | None) -> None:
        module = self._modules.get(call.module)
        if module is not None:
            module.log.write("userplug", "S", f"Script {call.name} > {log or '(output not kept)'}")

    def _changed(self) -> None:
        if self._applied is not None:
            self._spawn(self._cluster.publish(self._applied.cluster.signature, self._own_modules()))

    def _own_modules(self) -> list[list[Any]]:
        described: list[list[Any]] = []
        for name, number in self._trees.ids().items():
            module, applied = self._modules.get(name), self._trees.applied(name)
            if module is None or applied is None:
                described.append([name, None, number, "NOT_CONFIGURED", "NotReady", ""])
            else:
                mode, state = module.around.config.service.mode, module.state
                described.append(
                    [name, mode, number, state.role.value, state.readiness.value, applied.signature, module.turn]
                )
        return described

    def _sightings(self, am: str) -> list[Sighting]:
        """What each node that is heard says of a module."""
        seen = [
            Sighting(node, str(entry[3]), str(entry[4]), int(entry[6]) if len(entry) > 6 else 0)
            for node, modules in self._cluster.modules().items()
            for entry in modules
            if entry[0] == am
        ]
        own = self._modules.get(am)
        if own is not None:
            state = own.state
            seen.append(Sighting(own.around.node, state.role.value, state.readiness.value, own.turn))
        return seen

    # --- the node and its cluster ---

    async def node_info(self) -> NodeInfo:
        """Who this node is."""
        return NodeInfo(
            name=self._applied.node if self._applied else None,
            hostname=socket.gethostname(),
            version=__version__,
            os=_os_name(),
            uptime_s=time.monotonic() - self._began,
        )

    async def cluster_info(self) -> ClusterInfo:
        """The applied cluster configuration."""
        applied = self._applied
        if applied is None:
            return ClusterInfo(configured=False)
        lans = tuple(
            LanInfo(lan.name, lan.command, tuple(LanNode(node.name, str(node.addr)) for node in lan.nodes))
            for lan in applied.cluster.lans
        )
        signature = applied.cluster.signature
        return ClusterInfo(True, signature, applied.date, applied.locked, applied.xml, applied.node, lans)

    async def cluster_confcheck(self, xml: str) -> tuple[str, ...]:
        """Validate a cluster.xml; the warnings."""
        return tuple(str(warning) for warning in load_cluster(xml, "cluster.xml").warnings)

    async def cluster_apply(
        self, xml: str, key: bytes | None, check: bool, lock: Literal["lock", "unlock"] | None
    ) -> Applied:
        """Apply cluster.xml; `key` None keeps the present key or makes one."""
        async with self._changing:
            cluster = load_cluster(xml, "cluster.xml")
            before = self._applied
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
                self._refuse_if_running("cluster.in_use", "before the cluster configuration is changed")
            if not check:
                self._files.write(xml, node, wanted, locked)
                await self._take_up_cluster()
            return Applied(True, cluster.signature, warnings)

    async def _take_up_cluster(self) -> None:
        self._applied = self._files.read()
        assert self._applied is not None
        await self._cluster.join(self._applied)
        await self._witnessing.join(self._applied)
        for name, module in list(self._modules.items()):
            config = module.around.config
            await self._close_module(name)
            await (await self._open_module(name, config)).resume()
        self._changed()

    def _refuse_if_running(self, code: str, when: str) -> None:
        for name, module in self._modules.items():
            if module.state.role is not Role.STOP:
                raise FaceError(code, f"module {name} is in {module.state.role}: stop it {when}", module=name)

    async def cluster_key(self) -> bytes | None:
        """The cluster key, None when there is none."""
        return self._files.key()

    async def cluster_genkey(self) -> bytes:
        """Make and apply a new cluster key."""
        applied = self._require_cluster()
        self._refuse_if_running("cluster.in_use", "before the cluster key is changed")
        key = new_key()
        self._files.write(applied.xml, applied.node, key, applied.locked)
        await self._take_up_cluster()
        return key

    async def cluster_remove(self) -> bool:
        """Remove the cluster configuration and key; False if there was none."""
        if self._applied is None:
            return False
        self._refuse_if_running("cluster.in_use", "before the cluster configuration is removed")
        for name in list(self._modules):
            await self._close_module(name)
        await self._cluster.leave()
        await self._witnessing.leave()
        self._files.remove()
        self._applied = None
        return True

    async def cluster_state(self) -> tuple[ClusterNode, ...]:
        """Each node of the cluster and its modules."""
        applied = self._require_cluster()
        nodes = []
        for name in applied.cluster.node_names:
            if name == applied.node:
                own = tuple(_cluster_module(entry) for entry in self._own_modules())
                nodes.append(ClusterNode(name, True, own, applied.cluster.signature))
                continue
            reachable = self._cluster.reachable(name)
            payload = self._cluster.payloads.get(name, {}) if reachable else {}
            modules = tuple(_cluster_module(entry) for entry in payload.get("m", ()))
            nodes.append(ClusterNode(name, reachable, modules, payload.get("sig")))
        return tuple(nodes)

    def _require_cluster(self) -> AppliedCluster:
        if self._applied is None:
            raise FaceError(
                "cluster.not_configured", "this node belongs to no cluster yet: `safekit cluster config FILE`"
            )
        return self._applied

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
        ordered = sorted(self._trees.ids().items(), key=lambda item: item[1])
        return tuple([await self.module_info(name) for name, _ in ordered])

    async def module_info(self, am: str) -> ModuleInfo:
        """One installed module."""
        number = self._require_installed(am)
        module, applied = self._modules.get(am), self._trees.applied(am)
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
            edited_signature=self._trees.signature_of_edited(am),
            date=applied.date if applied else None,
            state=await self.module_state(am),
            ports={n: p for n, p in (("heart", used.heart), ("rfs", used.rfs), ("farm", used.farm)) if p}
            if used
            else {},
            boot=boot_now,
            userconfig_xml=self._trees.userconfig(am),
        )

    def _settings(self, am: str) -> Any:
        module = self._modules.get(am)
        return module.settings if module else read_settings(self._paths.module_var(am) / "settings.json")

    def _require_installed(self, am: str) -> int:
        number = self._trees.ids().get(am)
        if number is None:
            raise FaceError("module.unknown", f"no module {am} is installed on this node", module=am)
        return number

    def _require(self, am: str) -> AnyModule:
        self._require_installed(am)
        module = self._modules.get(am)
        if module is None:
            raise FaceError(
                "module.not_configured", f"module {am} is not configured: `safekit config -m {am}`", module=am
            )
        return module

    @staticmethod
    def _is_stopped(module: AnyModule) -> bool:
        return module.state.role is Role.STOP and not module.state.plan

    def _require_stable(self, module: AnyModule) -> None:
        """A configuration changes under a running module only where nothing else moves (spec §3.0)."""
        state = module.state
        where = (state.role, state.readiness)
        if state.plan or where not in DYNAMIC:
            expected = ", ".join(f"{role} ({readiness})" for role, readiness in DYNAMIC)
            name = module.around.name
            raise FaceError(
                "module.running",
                f"module {name} is in {state.role} {state.readiness}: a configuration is applied in STOP, {expected}",
                module=name,
            )

    def _require_stopped(self, am: str, why: str) -> None:
        module = self._modules.get(am)
        if module is not None and not self._is_stopped(module):
            state = f"{module.state.role} {module.state.readiness}"
            raise FaceError("module.running", f"module {am} is in {state}: stop it first, {why}", module=am)

    async def module_install(self, am: str, package: bytes, id: int | None, check: bool, replace: bool) -> Installed:
        """Put the tree of a `.safe` package in place as the edited tree."""
        ids = self._trees.ids()
        number = id if id is not None else ids.get(am, self._trees.free_id())
        if number < 1:
            raise FaceError("request.invalid", f"the id of a module is {number}, expected 1 or more", value=number)
        for name, used in ids.items():
            if used == number and name != am:
                raise FaceError("module.id_used", f"id {number} belongs to module {name}", module=name, id=number)
        if am in ids and ids[am] != number:
            self._require_stopped(am, "its id cannot change while it runs")
        changed = am not in ids or ids[am] != number or self._trees.differs(am, package)
        if am in ids and self._trees.differs(am, package) and not replace:
            raise FaceError("module.running", f"module {am} is installed with another content: ask for its replacement")
        if changed and not check:
            async with self._changing:
                await asyncio.to_thread(self._trees.install, am, package, number)
            self._changed()
        return Installed(changed, number)

    async def module_package(self, am: str) -> bytes:
        """The edited tree as a `.safe` package."""
        self._require_installed(am)
        return await asyncio.to_thread(self._trees.package, am)

    def _check_config(self, am: str) -> UserConfig:
        """Everything that can be said against the edited configuration. Raises ConfigError or FaceError."""
        module = self._modules.get(am)
        running = None if module is None or self._is_stopped(module) else module.around.config
        number, applied = self._require_installed(am), self._require_cluster()
        config = self._trees.load_edited(am, dict(os.environ))
        others = {name: module.around.config for name, module in self._modules.items() if name != am}
        if config.not_supported:
            first = config.not_supported[0]
            raise config.error(
                "config.unsupported",
                first.message,
                line=first.line,
                element=first.element,
                attribute=first.attribute,
                value=first.value,
            )
        numbers = {name: module.around.id for name, module in self._modules.items()}
        check_module(config, applied.cluster, applied.node, others, number, numbers)
        checks.check_machine(config, applied.cluster, applied.node, am, number, others, self._paths, running)
        return config

    async def module_confcheck(self, am: str) -> tuple[str, ...]:
        """Validate the edited configuration; the warnings."""
        config = await asyncio.to_thread(self._check_config, am)
        result = await self._script(am, "confcheck")
        if result:
            raise FaceError("action.refused", result)
        return tuple(str(warning) for warning in config.warnings)

    async def module_config(self, am: str, check: bool) -> Applied:
        """Apply the edited configuration."""
        async with self._changing:
            self._require_installed(am)
            before, edited = self._trees.applied(am), self._trees.signature_of_edited(am)
            if before is not None and before.signature == edited and am in self._modules:
                return Applied(False, before.signature)
            present = self._modules.get(am)
            running = present is not None and not self._is_stopped(present)
            later: tuple[str, ...] = ()
            if present is not None and running:
                self._require_stable(present)
            config = await asyncio.to_thread(self._check_config, am)
            if running:
                later = await asyncio.to_thread(self._trees.check_dynamic, am, dict(os.environ))
            warnings = (*(str(warning) for warning in config.warnings), *later)
            if check:
                return Applied(True, edited or "", warnings)
            applied = await asyncio.to_thread(self._trees.apply, am, config)
            state = present.state.role.value if present is not None else "STOP"
            for script in ("config", "postconfig"):
                trouble = await self._script(am, script, state)
                if trouble:
                    await asyncio.to_thread(self._trees.revert, am)
                    raise FaceError("action.refused", f"{trouble}; the former configuration stays in force")
            await asyncio.to_thread(self._trees.keep, am)
            module = await self._reopen(am, config)
            module.log.write("safekit", "U", f"configuration {applied.signature} applied")
            for warning in warnings:
                module.log.write("safekit", "I", warning)
            await module.resume()
            self._changed()
            if running:
                warnings = (*warnings, *await self._updated(module))
            return Applied(True, applied.signature, warnings)

    async def module_update(self, am: str) -> Applied:
        """Take over what was changed in the edited configuration while the module runs, and call its `update` script."""
        module, before = self._require(am), self._trees.applied(am)
        if before is None or before.signature != self._trees.signature_of_edited(am):
            return await self.module_config(am, check=False)
        async with self._changing:
            if self._is_stopped(module):
                return Applied(False, before.signature)
            self._require_stable(module)
            module = await self._reopen(am, module.around.config)
            await module.resume()
            self._changed()
            return Applied(True, before.signature, await self._updated(module))

    async def _reopen(self, am: str, config: UserConfig) -> AnyModule:
        """Begin anew with this configuration, as after a restart of the daemon: nothing that runs is stopped.

        What is known of the other nodes is asked of the pulse again.
        """
        present = self._modules.get(am)
        if present is not None:
            self._pulse.forget(present.channel)
        await self._close_module(am)
        return await self._open_module(am, config)

    async def _updated(self, module: AnyModule) -> tuple[str, ...]:
        """Tell the application that its configuration is another one; what it says against it is a warning."""
        trouble = await self._script(module.around.name, "update", module.state.role.value)
        if trouble:
            module.log.write("userplug", "C", trouble)
        return (trouble,) if trouble else ()

    async def _script(self, am: str, name: str, state: str = "STOP") -> str:
        """Run a script of the configuration; what went wrong, empty if nothing did."""
        ticket = f"config.{time.time_ns()}"
        action = "update" if name == "update" else "config"
        result = await self._scripts.run(ScriptCall(am, name, state, state, action, ticket))
        if result.outcome in (Outcome.OK, Outcome.SKIPPED):
            return ""
        return f"script {name} failed ({result.reason or f'exit code {result.exit_code}'})"

    async def module_deconfig(self, am: str) -> bool:
        """Remove the applied configuration, keep the edited tree; False if there was none."""
        async with self._changing:
            self._require_installed(am)
            self._require_stopped(am, "then remove its configuration")
            module = self._modules.get(am)
            if module is not None:
                await self._script(am, "deconfig")
                if isinstance(module, MirrorModule):
                    await module.end_data_plane()
            await self._close_module(am)
            changed = await asyncio.to_thread(self._trees.deconfigure, am)
            self._changed()
            return changed

    async def module_uninstall(self, am: str) -> bool:
        """Remove the module; False if it is not installed."""
        if am not in self._trees.ids():
            return False
        await self.module_deconfig(am)
        await asyncio.to_thread(self._trees.uninstall, am)
        self._changed()
        return True

    async def module_boot(self, am: str, boot: Literal["on", "off"]) -> bool:
        """Start the module when the node boots, or not; False if it already was so."""
        self._require_installed(am)
        before = self._settings(am)
        after = replace(before, boot=boot == "on")
        module = self._modules.get(am)
        if module is not None:
            module.remember(after)
        elif after != before:
            write_settings(self._paths.module_var(am) / "settings.json", after)
        return bool(after != before)

    async def module_switch(self, am: str, kind: Switchable, on: bool, caller: Caller) -> bool:
        """Turn the checkers, the watch over processes, or the failover, on or off; False if it already was so."""
        module = self._require(am)
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
        module = self._require(am)
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
        module = self._require(am)
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
        module = self._require(am)
        if options.nosync:
            raise FaceError("action.refused", "`swap nosync` is not supported yet")
        if options.fullsync and action not in ("prim", "second"):
            raise FaceError("action.refused", f"`{action}` knows no fullsync: only `prim` and `second` do")
        forced = action == "primforce"
        verb = Verb.PRIM if forced else Verb(action)
        command = Command(verb, caller.identity or "", options.fullsync or forced, caller.user, force=forced)
        why = module.refusal(command)
        if why:
            raise FaceError("action.refused", why, module=am)
        changed = module.command(command)
        if changed and command.fullsync:
            module.remember(replace(module.settings, syncmode="full", syncrole=verb.value, syncuid=""))
        return ActionAccepted(changed, await self.module_state(am))

    async def module_loop(self, am: str, what: LoopWord) -> Loop:
        """Count an automatic action that a script did, begin anew, or only look."""
        guard = self._require(am).loop(what)
        return Loop(guard.count, guard.maxloop, guard.reached(time.time()))

    async def module_state(self, am: str) -> StateInfo:
        """The state of the module, also of one that is not configured."""
        self._require_installed(am)
        module = self._modules.get(am)
        if module is None:
            return StateInfo("NOT_CONFIGURED", "NotReady", dates.now(), "no configuration is applied")
        return state_info(module)

    async def module_wait(self, am: str, states: frozenset[str], substate: str | None, timeout: float) -> StateInfo:
        """Wait until the module is in one of `states` (and `substate`)."""
        module = self._require(am)

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
        return await farmed.info(self._require(am))

    async def rfs_stats(self, am: str) -> Mapping[str, int | str]:
        """Counters and latencies of the data plane."""
        return await replicated.stats(self._require(am))

    async def rfs_compare(self, am: str, kind: ComparisonKind) -> Comparison:
        """Begin to compare the copies."""
        return await replicated.compare(self._require(am), kind)

    async def rfs_comparison(self, am: str, wait: float) -> Comparison | None:
        """The present or last comparison."""
        return await replicated.comparison(self._require(am), wait)

    async def rfs_sync(self, am: str, policy: SyncPolicy) -> bool:
        """Choose the policy of the next synchronisation."""
        return await replicated.choose_policy(self._require(am), policy)

    async def resources(self, am: str) -> tuple[ResourceValue, ...]:
        """Every resource of the module, by name."""
        return self._require(am).resources.all()

    async def resource_history(self, am: str, name: str, lines: int) -> tuple[ResourceValue, ...]:
        """The last values of a resource, newest first."""
        values = await self._require(am).resources.history(name, lines)
        if not values:
            raise FaceError("resource.unknown", f"module {am} has no resource {name}", module=am, resource=name)
        return values

    async def set_resource(self, am: str, name: str, value: str, identity: str | None) -> bool:
        """Give a resource a value; False if it already had it."""
        try:
            return self._require(am).set_resource(name, value, identity or "administrator")
        except ValueError as error:
            raise FaceError("request.invalid", str(error), resource=name) from error

    async def log(self, am: str, lines: int, verbose: bool, after: int | None, wait: float) -> tuple[LogEntry, ...]:
        """The last entries, oldest first; or those newer than `after`."""
        log = self._require(am).log
        if after is None:
            return await log.last(lines, verbose)
        return await log.newer(after, lines, verbose, wait)

    async def why(self, am: str, moves: int) -> tuple[Change, ...]:
        """The changes of the last moves and what led to them."""
        return await self._require(am).log.changes(moves)

    async def add_log(self, am: str, level: Literal["I", "E"], message: str, origin: str) -> None:
        """A script speaks in the module log."""
        self._require(am).log.write(origin, level, message)

    async def command_log(self, lines: int) -> tuple[CommandEntry, ...]:
        """The node's command log."""
        return await self.commands.last(lines)


def _cluster_module(entry: list[Any]) -> ClusterModule:
    name, mode, number, state, substate, signature = entry[:6]
    return ClusterModule(name, mode, number, state, substate, signature or None, None)


def _own_addresses() -> list[str]:
    from safekit.vip import netlink

    return [str(entry.address) for entry in netlink.addresses()]


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.platform()
