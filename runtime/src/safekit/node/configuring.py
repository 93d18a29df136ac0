"""What becomes of a module's configuration: installed, checked, applied, changed while the module runs, taken away.

Checks come before acts: a configuration is validated against the grammar, the cluster, the other modules and this
machine before a byte of it is put in force.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from safekit.api.face import Applied, FaceError, Installed
from safekit.config import UserConfig, check_module
from safekit.module.mirror import MirrorModule
from safekit.node import checks
from safekit.node.cluster import ClusterMembership
from safekit.node.modules import AnyModule, Modules, is_stopped
from safekit.paths import Paths
from safekit.scripts import Outcome, ScriptCall


class Configuring:
    """One change at a time: `changing` is held by whoever makes one, here and in the cluster."""

    def __init__(
        self,
        paths: Paths,
        modules: Modules,
        cluster: ClusterMembership,
        changing: asyncio.Lock,
        changed: Callable[[], None],
    ) -> None:
        self._paths, self._modules, self._cluster = paths, modules, cluster
        self._trees, self._changing, self._changed = modules.trees, changing, changed

    async def install(self, am: str, package: bytes, id: int | None, check: bool, replace: bool) -> Installed:
        """Put the tree of a `.safe` package in place as the edited tree."""
        ids = self._trees.ids()
        number = id if id is not None else ids.get(am, self._trees.free_id())
        if number < 1:
            raise FaceError("request.invalid", f"the id of a module is {number}, expected 1 or more", value=number)
        for name, used in ids.items():
            if used == number and name != am:
                raise FaceError("module.id_used", f"id {number} belongs to module {name}", module=name, id=number)
        if am in ids and ids[am] != number:
            self._modules.require_stopped(am, "its id cannot change while it runs")
        changed = am not in ids or ids[am] != number or self._trees.differs(am, package)
        if am in ids and self._trees.differs(am, package) and not replace:
            raise FaceError("module.running", f"module {am} is installed with another content: ask for its replacement")
        if changed and not check:
            async with self._changing:
                await asyncio.to_thread(self._trees.install, am, package, number)
            self._changed()
        return Installed(changed, number)

    async def package(self, am: str) -> bytes:
        """The edited tree as a `.safe` package."""
        self._modules.require_installed(am)
        return await asyncio.to_thread(self._trees.package, am)

    def _check(self, am: str) -> UserConfig:
        """Everything that can be said against the edited configuration. Raises ConfigError or FaceError."""
        module = self._modules.find(am)
        running = None if module is None or is_stopped(module) else module.around.config
        number, applied = self._modules.require_installed(am), self._cluster.require()
        config = self._trees.load_edited(am, dict(os.environ))
        others = {other.around.name: other.around.config for other in self._modules if other.around.name != am}
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
        numbers = {other.around.name: other.around.id for other in self._modules}
        check_module(config, applied.cluster, applied.node, others, number, numbers)
        checks.check_machine(config, applied.cluster, applied.node, am, number, others, self._paths, running)
        return config

    async def confcheck(self, am: str) -> tuple[str, ...]:
        """Validate the edited configuration; the warnings."""
        config = await asyncio.to_thread(self._check, am)
        result = await self._script(am, "confcheck")
        if result:
            raise FaceError("action.refused", result)
        return tuple(str(warning) for warning in config.warnings)

    async def apply(self, am: str, check: bool) -> Applied:
        """Apply the edited configuration."""
        async with self._changing:
            self._modules.require_installed(am)
            before, edited = self._trees.applied(am), self._trees.signature_of_edited(am)
            if before is not None and before.signature == edited and self._modules.find(am) is not None:
                return Applied(False, before.signature)
            present = self._modules.find(am)
            running = present is not None and not is_stopped(present)
            later: tuple[str, ...] = ()
            if present is not None and running:
                self._modules.require_stable(present)
            config = await asyncio.to_thread(self._check, am)
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
            module = await self._modules.reopen(am, config)
            module.log.write("safekit", "U", f"configuration {applied.signature} applied")
            for warning in warnings:
                module.log.write("safekit", "I", warning)
            await module.resume()
            self._changed()
            if running:
                warnings = (*warnings, *await self._updated(module))
            return Applied(True, applied.signature, warnings)

    async def update(self, am: str) -> Applied:
        """Take over what was changed in the edited configuration while the module runs, and call its `update` script."""
        module, before = self._modules.require(am), self._trees.applied(am)
        if before is None or before.signature != self._trees.signature_of_edited(am):
            return await self.apply(am, check=False)
        async with self._changing:
            if is_stopped(module):
                return Applied(False, before.signature)
            self._modules.require_stable(module)
            module = await self._modules.reopen(am, module.around.config)
            await module.resume()
            self._changed()
            return Applied(True, before.signature, await self._updated(module))

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
        result = await self._modules.scripts.run(ScriptCall(am, name, state, state, action, ticket))
        if result.outcome in (Outcome.OK, Outcome.SKIPPED):
            return ""
        return f"script {name} failed ({result.reason or f'exit code {result.exit_code}'})"

    async def deconfigure(self, am: str) -> bool:
        """Remove the applied configuration, keep the edited tree; False if there was none."""
        async with self._changing:
            self._modules.require_installed(am)
            self._modules.require_stopped(am, "then remove its configuration")
            module = self._modules.find(am)
            if module is not None:
                await self._script(am, "deconfig")
                if isinstance(module, MirrorModule):
                    await module.end_data_plane()
            await self._modules.close(am)
            changed = await asyncio.to_thread(self._trees.deconfigure, am)
            self._changed()
            return changed

    async def uninstall(self, am: str) -> bool:
        """Remove the module; False if it is not installed."""
        if am not in self._trees.ids():
            return False
        await self.deconfigure(am)
        await asyncio.to_thread(self._trees.uninstall, am)
        self._modules.scripts.forget(am)
        self._changed()
        return True
