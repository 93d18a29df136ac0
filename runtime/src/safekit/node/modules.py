"""The modules of this node: which are installed, which are open and in what state, and what the other nodes are told of
them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from safekit.api.face import FaceError
from safekit.automaton.vocabulary import Readiness, Role
from safekit.checkers import Sighting
from safekit.config import ConfigError, UserConfig
from safekit.files import UnreadableFile
from safekit.groups import Groups
from safekit.membership import Pulse
from safekit.module.engine import Surroundings
from safekit.module.farm import FarmModule
from safekit.module.mirror import MirrorModule
from safekit.node.cluster import ClusterMembership
from safekit.node.machine import restart_machine
from safekit.node.trees import ModuleTrees
from safekit.node.witnessing import Witnessing
from safekit.paths import Paths
from safekit.scripts import ScriptCall, ScriptRunner

AnyModule = MirrorModule | FarmModule

DYNAMIC = ((Role.ALONE, Readiness.READY), (Role.UP, Readiness.READY), (Role.WAIT, Readiness.NOT_READY))
"""Where the configuration of a module that runs may change (spec §3.0)."""


def is_stopped(module: AnyModule) -> bool:
    """Whether nothing of a module runs or moves."""
    return module.state.role is Role.STOP and not module.state.plan


class Modules:
    """What is installed on this node; what is configured is open.

    `changed` is called whenever the state of one of them, or which there are, is another.
    """

    def __init__(
        self,
        paths: Paths,
        pulse: Pulse,
        cluster: ClusterMembership,
        witnessing: Witnessing,
        changed: Callable[[], None],
    ) -> None:
        self._paths, self._pulse, self._cluster, self._witnessing = paths, pulse, cluster, witnessing
        self._changed = changed
        self._open: dict[str, AnyModule] = {}
        self.trees = ModuleTrees(paths)
        self.scripts = ScriptRunner(paths, started=self._script_started, groups=Groups.here())

    def __iter__(self) -> Iterator[AnyModule]:
        """Those that are open."""
        return iter(tuple(self._open.values()))

    def find(self, am: str) -> AnyModule | None:
        """The module of that name, None when none is configured."""
        return self._open.get(am)

    # --- life ---

    async def open_configured(self, say: Callable[[str], None]) -> None:
        """Open every module whose applied configuration can be read.

        One that is damaged costs no other module its service: `say` hears why it is missing.
        """
        for name in self.trees.ids():
            try:
                if self.trees.applied(name) is not None:
                    await self.open(name, self.trees.load_active(name))
            except (ConfigError, UnreadableFile, OSError, KeyError, ValueError) as error:
                say(
                    f"module {name} is not available, apply its configuration again (`safekit config -m {name}`): {error}"
                )

    async def open(self, name: str, config: UserConfig) -> AnyModule:
        """Take up a module; what an earlier daemon left running goes on when it is resumed."""
        applied = self._cluster.require()
        surroundings = Surroundings(
            name=name,
            id=self.trees.ids()[name],
            node=applied.node,
            config=config,
            cluster=applied.cluster,
            key=applied.key,
            paths=self._paths,
            pulse=self._pulse,
            scripts=self.scripts,
            changed=self._changed,
            look=self._sightings,
            witness=self._witnessing.client,
            restart_machine=restart_machine,
        )
        module: AnyModule
        module = MirrorModule(surroundings) if config.service.mode == "mirror" else FarmModule(surroundings)
        await module.open()
        self._open[name] = module
        return module

    async def reopen(self, name: str, config: UserConfig) -> AnyModule:
        """Begin anew with this configuration, as after a restart of the daemon: nothing that runs is stopped.

        What is known of the other nodes is asked of the pulse again.
        """
        present = self._open.get(name)
        if present is not None:
            self._pulse.forget(present.channel)
        await self.close(name)
        return await self.open(name, config)

    async def close(self, name: str) -> None:
        """Let go of a module; what runs of it goes on."""
        module = self._open.pop(name, None)
        if module is not None:
            await module.close()

    def _script_started(self, call: ScriptCall, log: str | None) -> None:
        module = self._open.get(call.module)
        if module is not None:
            module.log.write("userplug", "S", f"Script {call.name} > {log or '(output not kept)'}")

    # --- what is asked of one ---

    def require_installed(self, am: str) -> int:
        """The id of a module. Raises FaceError when there is none of that name."""
        number = self.trees.ids().get(am)
        if number is None:
            raise FaceError("module.unknown", f"no module {am} is installed on this node", module=am)
        return number

    def require(self, am: str) -> AnyModule:
        """A configured module. Raises FaceError."""
        self.require_installed(am)
        module = self._open.get(am)
        if module is None:
            raise FaceError(
                "module.not_configured", f"module {am} is not configured: `safekit config -m {am}`", module=am
            )
        return module

    @staticmethod
    def require_stable(module: AnyModule) -> None:
        """A configuration changes under a running module only where nothing else moves (spec §3.0). Raises FaceError."""
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

    def require_stopped(self, am: str, why: str) -> None:
        """Nothing of a module runs. Raises FaceError, which ends with `why`."""
        module = self._open.get(am)
        if module is not None and not is_stopped(module):
            state = f"{module.state.role} {module.state.readiness}"
            raise FaceError("module.running", f"module {am} is in {state}: stop it first, {why}", module=am)

    def require_all_stopped(self, code: str, when: str) -> None:
        """No module of this node runs. Raises FaceError."""
        for name, module in self._open.items():
            if module.state.role is not Role.STOP:
                raise FaceError(code, f"module {name} is in {module.state.role}: stop it {when}", module=name)

    # --- what the nodes say of them ---

    def described(self) -> list[list[Any]]:
        """`[name, mode, id, state, substate, signature, turn]` of each, for the other nodes."""
        described: list[list[Any]] = []
        for name, number in self.trees.ids().items():
            module, applied = self._open.get(name), self.trees.applied(name)
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
        own = self._open.get(am)
        if own is not None:
            state = own.state
            seen.append(Sighting(own.around.node, state.role.value, state.readiness.value, own.turn))
        return seen
