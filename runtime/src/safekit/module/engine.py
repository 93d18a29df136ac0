"""What modules of every mode share: the loop from events to effects, and what the rest of the daemon may ask.

The loop takes one event at a time, asks the automaton, saves its new value below /run, and starts the effects. An
effect that takes time is a task of its own that ends in an event. Ending the daemon cancels the tasks and stops
nothing: applications, addresses, filters and replication stay, and `resume` picks them up.
"""

from __future__ import annotations

import asyncio
import secrets
import zlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from safekit.automaton.codec import UnreadableState, decode, encode
from safekit.automaton.failover import Verdict
from safekit.automaton.farm import FarmState
from safekit.automaton.loopguard import RESOURCE as LOOP
from safekit.automaton.loopguard import LoopGuard
from safekit.automaton.mirror import MirrorState
from safekit.automaton.vocabulary import (
    Action,
    Become,
    Command,
    Effect,
    Entered,
    Held,
    Perform,
    Resumed,
    Role,
    Say,
    Script,
    Step,
    StepDone,
    StepFailed,
    Wish,
)
from safekit.checkers import Sighting
from safekit.config import Cluster, UserConfig, nodes_asked
from safekit.files import UnreadableFile, read_json, write_json
from safekit.membership import ChannelError, Pulse, PulseEvent
from safekit.module.checking import KINDS, Checking, Place
from safekit.module.chronicle import Chronicle
from safekit.module.connections import count_connections
from safekit.module.settings import Settings, read_settings, write_settings
from safekit.module.underway import Underway
from safekit.paths import Paths
from safekit.scripts import Outcome, ScriptCall, ScriptRunner
from safekit.store.entries import Change
from safekit.store.module_log import ModuleLog
from safekit.store.resources import Resources

if TYPE_CHECKING:  # what it brings along is loaded only where there is a witness
    from safekit.witness.client import WitnessClient

S = TypeVar("S", MirrorState, FarmState)

FORMAT = 1

NOT_WISHED = ("maxloop", "shutdown")
"""Who stops a module without meaning it to stay stopped: `boot="auto"` starts it with the machine all the same."""

GOES_DOWN_WITHIN_S = 1800
"""A machine that was told to restart itself stops its modules first, each within its own time limits."""


class StepError(Exception):
    """A step could not be carried out; the text is the reason that the log shows."""


async def cannot_restart() -> str:
    """Of a module that was given no machine."""
    return "it was not allowed to"


@dataclass(frozen=True)
class Surroundings:
    """What a module is given by the node. `changed` is called after each change of state, on the loop; `look` tells what
    each node that is heard says of the module of a name.
    """

    name: str
    id: int
    node: str
    config: UserConfig
    cluster: Cluster
    key: bytes
    paths: Paths
    pulse: Pulse
    scripts: ScriptRunner
    changed: Callable[[], None]
    look: Callable[[str], Iterable[Sighting]]
    witness: WitnessClient | None = None
    """Asks the witness of the cluster; None when there is none."""
    restart_machine: Callable[[], Awaitable[str]] = cannot_restart
    """Begins an orderly restart of this machine; why it cannot, empty when it does."""


class Module(ABC, Generic[S]):
    """One module on this node. `open` first, then `resume`; `close` when the daemon ends."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.around = surroundings
        paths, name = surroundings.paths, surroundings.name
        self.log = ModuleLog(name, paths.module_var(name) / "log.db")
        self.resources = Resources(name, paths.module_var(name) / "resource.db")
        self.settings = read_settings(paths.module_var(name) / "settings.json")
        service = surroundings.config.service
        self._underway = Underway()
        self._guard = LoopGuard(service.maxloop, service.loop_interval.total_seconds())
        self._life = secrets.token_hex(6)
        self._since = datetime.now(UTC)
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._named: dict[str, asyncio.Task[None]] = {}
        self._moved = asyncio.Condition()
        self._own_held: frozenset[str] = frozenset()
        self._rules_held: tuple[str, ...] = ()
        self._pending: tuple[str, ...] = ()
        self._told: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._last_life: Change | None = None
        self._chronicle = Chronicle()
        self.restored = False
        self.turn = 0
        """Another number each time that the application begins its service here."""
        self.state: S = self._fresh()
        self._vip: Any = self._make_vip()
        user = service.user
        place = Place(
            name,
            paths.active(name) / "bin",
            surroundings.scripts.environment(name, user.variables if user else {}),
            surroundings.look,
            lambda check: nodes_asked(check, surroundings.cluster, surroundings.node),
            self._of_the_other_node,
        )
        self.checking = Checking(
            service, place, self._vip, self.resources, self, lambda: self.state.role, self._switched_on
        )

    # --- what each mode says ---

    @abstractmethod
    def _fresh(self) -> S:
        """The automaton of a module that is in STOP."""

    @abstractmethod
    def _make_vip(self) -> Any:
        """The virtual addresses of the module; None if it has none. `safekit.vip` is loaded only by who needs it."""

    @abstractmethod
    def _step(self, state: S, event: Any) -> tuple[S, tuple[Effect, ...]]:
        """The pure function of the mode."""

    @abstractmethod
    def refusal(self, command: Command) -> str:
        """Why a command cannot be taken now; empty when it can."""

    @abstractmethod
    async def _carry_out(self, step: Step, state: S) -> StepDone | None:
        """Perform a step that is neither `Become` nor `Script`.

        Raises StepError. None stands for an ordinary `StepDone`.
        """

    @abstractmethod
    async def _pick_up(self) -> None:
        """After a restart of the daemon: find again what runs (addresses, channels, data plane)."""

    @abstractmethod
    def _publish(self) -> None:
        """Tell the other nodes what changed, if it did."""

    @abstractmethod
    def on_pulse(self, event: PulseEvent) -> None:
        """Something happened on this module's channel."""

    async def _effect(self, effect: Effect) -> None:
        """An effect of this mode only."""

    # --- life ---

    async def open(self) -> None:
        """Open the logs and find the state that an earlier daemon left."""
        await self.log.open()
        await self.resources.open()
        self._last_life = next(reversed(await self.log.changes(1)), None)
        self._chronicle = Chronicle(self._last_life)
        self._show_settings()
        try:
            saved = read_json(self._state_file)
            if saved is not None:
                state = decode(saved["state"])
                self._life, self._guard = saved["life"], decode_guard(self._guard, saved["guard"])
                self._since = datetime.fromisoformat(saved["since"])
                self.turn = int(saved.get("turn", 0))
                self.checking.restore(saved.get("classes", {}))
                self.state, self.restored = state, True
        except (UnreadableFile, UnreadableState, KeyError, TypeError, ValueError) as error:
            self.log.write(
                "safekit", "C", f"the state before the restart cannot be read, the module counts as stopped: {error}"
            )
        if not self.restored:  # what a module did to itself before the machine went down counts as well
            past = await self.resources.history(LOOP, self._guard.maxloop + 1)
            self._guard = self._guard.remembered([one.value for one in past])
        if self.resources.get(LOOP) is None:
            self.resources.set(LOOP, self._guard.shown)

    async def resume(self) -> None:
        """Begin to work: on what was found, or in STOP."""
        if self.restored and self.state.role is not Role.STOP:
            self.log.write("safekit", "I", f"safekitd is back; the module is {self.state.role} {self.state.readiness}")
            await self._pick_up()
        self._note_restart_of_machine()
        vip = self.around.config.service.vip
        counted = [one.addr for one in vip.addresses if one.connections] if vip else []
        if counted:
            self.spawn(count_connections(counted, self.resources.set), "connections")
        self.spawn(self._loop(), "loop")
        self._events.put_nowait(Resumed())

    def _note_restart_of_machine(self) -> None:
        """The module is stopped though nobody stopped it: the machine went down under it."""
        last = self._last_life
        if last is not None and self.state.role is Role.STOP and last.state != Role.STOP:
            reason = f"the machine started again; before, the module was {last.state} {last.substate}"
            self._entered(Entered(self.state.role, self.state.readiness, reason, settled=True))

    async def close(self) -> None:
        """End the tasks; stop nothing of the application's."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.log.close()
        await self.resources.close()

    def put(self, event: object) -> None:
        """Give the automaton an event."""
        self._events.put_nowait(event)

    # --- what the node asks ---

    def command(self, command: Command) -> bool:
        """Take a command that `refusal` allowed. False: the module already is what is asked for."""
        guard, admitted = self._guard.admit(command, datetime.now(UTC).timestamp())
        self._count(guard)
        already = self._already(admitted)
        if admitted.action is Action.FORCESTOP:
            for script in self.around.scripts.running(self.around.name):
                self.spawn(self._end_script(script))
        if not already:
            starts = admitted.action not in (Action.STOP, Action.FORCESTOP)
            if admitted.identity not in NOT_WISHED:
                self.remember(replace(self.settings, started=starts))
            if admitted.action is Action.STOPSTART and self.around.config.service.automatic_reboot:
                self._restart_machine(admitted)
            else:
                self.put(admitted)
        return not already

    def _count(self, guard: LoopGuard) -> None:
        """The resource tells each automatic action, and that there was none since a command of a person."""
        if guard != self._guard:
            self._guard = guard
            self.resources.set(LOOP, guard.shown, again=guard.count > 0)

    def _restart_machine(self, command: Command) -> None:
        """`automatic_reboot`: the machine is restarted in order instead of the module, which its end stops (spec §3.2)."""
        if self.runs("machine"):
            return
        who = command.identity or command.user or "administrator"
        said = f"Action {command.action} called by {who}: this machine is restarted (automatic_reboot)"
        self.witness("safekit", "C", said)
        self.spawn(self._restart(command), "machine")

    async def _restart(self, command: Command) -> None:
        why = await self.around.restart_machine()
        if not why:
            await asyncio.sleep(GOES_DOWN_WITHIN_S)
            why = f"it still runs {GOES_DOWN_WITHIN_S} s after it was told to"
        self.log.write("safekit", "C", f"this machine cannot be restarted, the module alone is: {why}")
        self.forget_task("machine")
        self.put(command)

    def loop(self, what: str) -> LoopGuard:
        """`inc` counts an automatic action that a script did, `reset` begins anew (spec §6.5); the guard as it is then."""
        if what == "inc":
            self._count(self._guard.counted(datetime.now(UTC).timestamp()))
        elif what == "reset":
            self._count(self._guard.reset())
        self._save()
        return self._guard

    def _already(self, command: Command) -> bool:
        role, quiet = self.state.role, not self.state.plan
        match command.action:
            case Action.START:
                return self.state.wish is not Wish.STOPPED
            case Action.STOP | Action.FORCESTOP:
                return role is Role.STOP and quiet and self.state.wish is Wish.STOPPED
            case Action.PRIM:
                return role in (Role.PRIM, Role.ALONE)
            case Action.SECOND:
                return role is Role.SECOND
            case _:
                return False

    def remember(self, settings: Settings) -> None:
        """Keep the administrator's settings."""
        if settings != self.settings:
            before, self.settings = self.settings, settings
            write_settings(self.around.paths.module_var(self.around.name) / "settings.json", settings)
            for kind in KINDS:
                if getattr(before, kind) is not self._switched_on(kind):
                    self.checking.switch(kind, self._switched_on(kind))
            self._show_settings()

    def _switched_on(self, kind: str) -> bool:
        return bool(getattr(self.settings, kind))

    def _show_settings(self) -> None:
        for kind in KINDS:
            self.resources.set(f"usersetting.{kind}", "on" if self._switched_on(kind) else "off")

    async def wait_until(self, reached: Callable[[], bool], timeout: float) -> bool:
        """Wait until `reached()` after a change of state; False after `timeout` seconds."""
        async with self._moved:
            try:
                async with asyncio.timeout(timeout):
                    await self._moved.wait_for(reached)
            except TimeoutError:
                return False
            return True

    @property
    def life(self) -> str:
        """Names this life of the module: it outlives a restart of the daemon, not one of the machine."""
        return self._life

    @property
    def since(self) -> datetime:
        """When the present state and substate began."""
        return self._since

    # --- the loop ---

    async def _loop(self) -> None:
        while True:
            event = await self._events.get()
            if isinstance(event, StepDone | StepFailed):
                self._underway.ended(event.serial)
            before = self.state
            self.state, effects = self._step(before, event)
            if self.state != before:
                if (self.state.role, self.state.readiness) != (before.role, before.readiness):
                    self._since = datetime.now(UTC)
                self._save()
                self._note_resources()
                self._publish()
                self.around.changed()
                async with self._moved:
                    self._moved.notify_all()
            for effect in effects:
                match effect:
                    case Say(level, message, about):
                        self.witness(self._origin, level, message, about)
                    case Entered():
                        self._entered(effect)
                    case Perform(serial=serial):
                        if self._underway.begins(serial):
                            self.spawn(self._perform(effect, self.state))
                    case _:
                        self.spawn(self._effect(effect))

    def witness(self, origin: str, level: str, message: str, about: str = "") -> None:
        """A line of the module log that may explain what comes next; a later one about the same takes its place."""
        self.log.write(origin, level, message)
        if level != "I":
            self._chronicle.happened(datetime.now(UTC), message, about)

    def _entered(self, effect: Entered) -> None:
        """The log, and with what was heard before it, the chronicle of the module."""
        self.log.write(self._origin, "E", f"Local state {effect.role} {effect.readiness} ({effect.reason})")
        change = self._chronicle.changed(
            datetime.now(UTC),
            effect.role.value,
            effect.readiness.value,
            effect.reason,
            settled=effect.settled,
            named=self.checking.named_by(effect.reason),
        )
        self.log.write_change(change)

    async def _perform(self, effect: Perform, state: S) -> None:
        try:
            if isinstance(effect.step, Script):
                if effect.step.name == self._serves_from:
                    self.turn = zlib.crc32(f"{self._life}.{effect.serial}".encode())
                await self._run_script(effect.step, effect, state)
                answer: StepDone | None = None
            else:
                assert not isinstance(effect.step, Become)
                answer = await self._carry_out(effect.step, state)
            self.put(replace(answer, serial=effect.serial) if answer else StepDone(effect.serial))
        except (StepError, ChannelError) as error:
            self.put(StepFailed(effect.serial, str(error)))
        except OSError as error:
            self.put(StepFailed(effect.serial, f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")))

    async def _run_script(self, script: Script, effect: Perform, state: S) -> None:
        user = self.around.config.service.user
        if user is None:
            return
        if script.name == "prestart":
            await self.around.scripts.trim_logs(self.around.name, user.userlogsize)
        stops = script.name.startswith("stop_")
        limit = (user.forcestoptimeout if script.force else user.nicestoptimeout) if stops else None
        call = ScriptCall(
            module=self.around.name,
            name=script.name,
            state=effect.current,
            next_state=effect.next,
            action=effect.action,
            ticket=f"{self._life}.{effect.serial}",
            force=script.force,
            limit=limit,
            services=state.services if state.row.startswith("restart") else (),
            variables=dict(user.variables),
            keep_output=user.logging != "none",
        )
        result = await self.around.scripts.run(call)
        if result.outcome is Outcome.TIMED_OUT:
            raise StepError(f"it did not end within its time limit and was killed ({result.reason})")
        if result.outcome is Outcome.FAILED:
            raise StepError(result.reason or f"exit code {result.exit_code}")

    async def call_script(self, name: str) -> None:
        """Run a callback of the module: nothing waits for it, and its failure is a line in the log."""
        user, state = self.around.config.service.user, self.state
        if user is None:
            return
        result = await self.around.scripts.run(
            ScriptCall(
                module=self.around.name,
                name=name,
                state=state.role,
                next_state=state.role,
                action="rfs",
                ticket=f"{self._life}.{secrets.token_hex(4)}",
                limit=user.nicestoptimeout,
                variables=dict(user.variables),
                keep_output=user.logging != "none",
            )
        )
        if result.outcome in (Outcome.FAILED, Outcome.TIMED_OUT):
            self.log.write("userplug", "C", f"Script {name} failed: {result.reason or f'exit code {result.exit_code}'}")

    async def _end_script(self, name: str) -> None:
        if await self.around.scripts.end(self.around.name, name):
            self.log.write("userplug", "C", f"Script {name} was ended by forcestop")

    # --- checkers and failover rules ---

    def _set_checkers(self, when: str, up: bool) -> None:
        """Start or end one class of checkers (spec §6.1, rule 6)."""
        if up:
            self.checking.start(when)
        else:
            self.checking.stop(when)

    def judged(self, verdict: Verdict) -> None:
        """The failover rules were evaluated."""
        self._rules_held, self._pending = verdict.held, verdict.pending
        self._tell_held()

    def ask(self, action: Action, identity: str, sentence: str, services: tuple[str, ...] = ()) -> None:
        """A rule or errd wants an action; refused, it is not taken, and asked for again when it is wanted again."""
        if self.runs("machine"):
            return  # the machine goes down: nothing more is done, or counted
        self.witness("safekit", "C", sentence)
        command = Command(action, identity, services=services)
        if why := self.refusal(command):
            self.log.write("safekit", "C", f"Action {action} called by {identity} refused: {why}")
        else:
            self.command(command)

    def say(self, level: str, message: str) -> None:
        """A line of the module log."""
        self.log.write("safekit", level, message)

    def hold(self, rule: str, on: bool) -> None:
        """A wait-rule of the module's own holds, or no longer does."""
        self._own_held = self._own_held | {rule} if on else self._own_held - {rule}
        self._tell_held()

    def _tell_held(self) -> None:
        told = tuple(sorted({*self._rules_held, *self._own_held})), self._pending
        if told != self._told:
            self._told = told
            self._put_held(Held(*told))

    def _put_held(self, held: Held) -> None:
        self.put(held)

    def set_resource(self, name: str, value: str, by: str) -> bool:
        """Give a resource a value; the log says so when it changed."""
        changed = self.resources.set(name, value)
        if changed:
            self.checking.changed()
            sentence, now = f"Resource {name} set to {value} by {by}", datetime.now(UTC)
            self.log.write("safekit", "E" if value in ("up", "down") else "I", sentence)
            if value == "down":
                self._chronicle.holds(now, name, sentence)
            else:
                self._chronicle.over(now, name, sentence)
        return changed

    def _of_the_other_node(self) -> Mapping[str, str]:
        """Resources of the other node, as far as they are known: `remote.class.id`."""
        return {}

    # --- helpers ---

    def enable_errd(self, class_: str, on: bool) -> bool:
        """Watch the processes of a class, or not, until the module stops; False if it already was so."""
        changed = self.checking.enable(class_, on)
        if changed:
            self._save()
        return changed

    _origin = "heart"
    _serves_from = "start_both"
    """The script that begins the service of the application."""

    @property
    def _state_file(self) -> Any:
        return self.around.paths.module_run(self.around.name) / "state.json"

    def _save(self) -> None:
        write_json(
            self._state_file,
            {
                "format": FORMAT,
                "life": self._life,
                "since": self._since.isoformat(),
                "guard": {"began": self._guard.began, "count": self._guard.count},
                "turn": self.turn,
                "classes": dict(self.checking.classes),
                "state": encode(self.state),
            },
            durable=False,
        )

    def _note_resources(self) -> None:
        self.resources.set("state.local", f"{self.state.role} {self.state.readiness}")

    def spawn(self, work: Coroutine[Any, Any, None], name: str | None = None) -> None:
        """Run `work` until it ends or the daemon does; a named one replaces its predecessor."""
        if name is not None:
            self.end(name)
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if name is not None:
            self._named[name] = task

    def runs(self, name: str) -> bool:
        """Whether the task of this name was begun and neither ended nor forgotten."""
        return name in self._named

    def forget_task(self, name: str) -> None:
        """A task says of itself that it is at its end."""
        self._named.pop(name, None)

    def end(self, name: str) -> None:
        """End the task of this name, if there is one."""
        task = self._named.pop(name, None)
        if task is not None:
            task.cancel()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """A defect in one task must be seen, and must not end in silence."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.log.write("safekit", "C", f"internal error: {type(error).__name__}: {error}")
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"module {self.around.name}", "exception": error}
            )


def decode_guard(guard: LoopGuard, saved: Mapping[str, Any]) -> LoopGuard:
    """The counter of an earlier daemon under the present limits."""
    return replace(guard, began=float(saved["began"]), count=int(saved["count"]))
