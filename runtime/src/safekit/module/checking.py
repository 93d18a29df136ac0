"""The checkers of one module and its failover rules: starts and ends probes with the classes of spec §6.1, evaluates the
rules each period and after each change of a resource, and hands what they ask to the module.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from safekit.automaton.failover import FailoverMachine, Verdict
from safekit.automaton.vocabulary import Action, Role
from safekit.checkers import (
    AddressChecker,
    CustomChecker,
    Finding,
    InterfaceChecker,
    ModuleStateChecker,
    Sighting,
    address_probe,
    interface_probe,
    ping_probe,
    processes,
    tcp_probe,
)
from safekit.config import Proc, Service, failover_rules
from safekit.config.model import CustomCheck, IntfCheck, IpCheck, ModuleCheck, PingCheck, TcpCheck
from safekit.rules import resources_of
from safekit.store.resources import Resources

CLASSES = ("tcp.", "ping.", "intf.", "ip.", "custom.", "module.", "splitbrain.", "proc.")
"""Resources of checkers. `proc` is not among those that rules wait for: errd acts by itself."""

KINDS = ("checker", "errd")
"""What an administrator can turn off by itself."""

HANDLER_S = 60.0
"""How long a handler of errd may take."""

WINDOWS = ("pre", "prim", "second", "sec", "both")
"""Classes that the automaton opens and closes; any other one is enabled and disabled by command (spec §3.9)."""

Test = TcpCheck | PingCheck | IntfCheck | IpCheck | CustomCheck | ModuleCheck
_KIND: dict[type, str] = {
    TcpCheck: "tcp",
    PingCheck: "ping",
    IntfCheck: "intf",
    IpCheck: "ip",
    CustomCheck: "custom",
    ModuleCheck: "module",
}

_INIT_BY = "checkers"


class Checked(Protocol):
    """What the checkers ask of their module."""

    def set_resource(self, name: str, value: str, by: str) -> bool:
        """Set a resource; True when that changed it."""

    def ask(self, action: Action, identity: str, sentence: str, services: tuple[str, ...] = ()) -> None:
        """A rule or errd wants this; `sentence` is for the log, `services` limit a restart to some services."""

    def judged(self, verdict: Verdict) -> None:
        """The rules were evaluated: which count, and which resources are not tested yet."""

    def say(self, level: str, message: str) -> None:
        """A line of the module log."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run until it ends or the daemon does; replaces the one of the same name."""

    def end(self, name: str) -> None:
        """End what was spawned under this name."""


@dataclass(frozen=True)
class Place:
    """Where the module is: its name, its active `bin/`, the environment of its programs, and the modules beside it.

    look: what each node that is heard says of the module of a name. asked: the nodes that a `<module>` means.
    """

    module: str
    folder: Path
    environment: Mapping[str, str]
    look: Callable[[str], Iterable[Sighting]]
    asked: Callable[[ModuleCheck], Collection[str]]
    remote: Callable[[], Mapping[str, str]] = dict
    """Resources of the other node of a mirror, as far as they are known: `remote.class.id`."""


class Checking:
    """The checkers of a module.

    `vip` is its virtual addresses, None if it has none; `role` says its state now; `allowed` whether one of `KINDS` is
    turned on.
    """

    def __init__(
        self,
        service: Service,
        place: Place,
        vip: Any,
        resources: Resources,
        module: Checked,
        role: Callable[[], Role],
        allowed: Callable[[str], bool],
    ) -> None:
        self._allowed = allowed
        self._active: set[str] = set()
        self._service, self._place, self._vip = service, place, vip
        self._resources, self._module, self._role = resources, module, role
        rules = service.failover_rules
        self._period = rules.period.total_seconds() if rules else 5.0
        handle_time = rules.handle_time.total_seconds() if rules else 15.0
        self._machine = FailoverMachine(handle_time, failover_rules(service, FailoverMachine(0).rules))
        self._classes: dict[str, bool] = {}
        self._watched_since: dict[str, float] = {}
        self._remote = [
            resource for rule in self._machine.rules for resource in resources_of(rule.condition) if resource.remote
        ]
        self._changed = asyncio.Event()
        self._evaluating = False

    def start(self, when: str) -> None:
        """A class of checkers begins: its resources are `init` until they are tested."""
        if when == "pre":
            self._forget_others()
        self._active.add(when)
        for kind in KINDS:
            if self._allowed(kind):
                self._begin(kind, when)
        if when == "pre":
            self._evaluating = True
            self._evaluate()
            self._module.spawn(self._evaluate_always(), "rules")

    def stop(self, when: str) -> None:
        """A class of checkers ends: what it said is not known any more."""
        self._active.discard(when)
        if when == "pre":
            self._evaluating = False
            self._module.end("rules")
        for kind in KINDS:
            if self._allowed(kind):
                self._end(kind, when, "init")
        if when == "pre":
            self._classes = {}
            self._module.judged(Verdict())

    @property
    def classes(self) -> Mapping[str, bool]:
        """Which classes of processes a command enabled or disabled since the module started."""
        return self._classes

    def restore(self, classes: Mapping[str, bool]) -> None:
        """What an earlier daemon was told."""
        self._classes = dict(classes)

    def enable(self, class_: str, on: bool) -> bool:
        """Watch the processes of a class, or not, until the module stops; False if it already was so."""
        if self.enabled(class_) is on:
            return False
        self._classes[class_] = on
        if self._allowed("errd"):
            for when in sorted(self._active):
                if any(proc.class_ == class_ for proc in self._of_window(when)):
                    self._end("errd", when, "unknown")
                    self._begin("errd", when)
        return True

    def watched(self) -> tuple[Proc, ...]:
        """Every process of the configuration, watched now or not."""
        return self._service.errd.procs if self._service.errd else ()

    def enabled(self, class_: str) -> bool:
        """Whether the processes of a class are watched while its window is open."""
        return self._classes.get(class_, class_ in WINDOWS)

    def switch(self, kind: str, on: bool) -> None:
        """An administrator turned the checkers, or errd, on or off (spec §6.1, rule 7): rules see `unknown` while off."""
        for when in sorted(self._active):
            if on:
                self._begin(kind, when)
            else:
                self._end(kind, when, "unknown")
        if kind == "checker" and not on:
            for resource in self._resources.all():
                if resource.name.startswith(("intf.", "ip.")):
                    self._module.set_resource(resource.name, "unknown", _INIT_BY)

    def _begin(self, kind: str, when: str) -> None:
        for name in self._resources_of(kind, when):
            self._module.set_resource(name, "init", _INIT_BY)
        if kind == "checker":
            for number, work in enumerate(self._work(when)):
                self._module.spawn(work, f"check:{when}:{number}")
        elif procs := self._of_window(when):
            for proc in procs:
                self._watched_since.pop(proc.name, None)
            self._module.spawn(self._watch(when), f"errd:{when}")

    def _end(self, kind: str, when: str, value: str) -> None:
        if kind == "checker":
            for number in range(sum(1 for _ in self._tests(when)) + 1):
                self._module.end(f"check:{when}:{number}")
        else:
            self._module.end(f"errd:{when}")
        if kind == "errd":
            for proc in self._of_window(when):
                ended = value if self.enabled(proc.class_) else "unknown"
                self._module.set_resource(f"proc.{proc.name}", ended, _INIT_BY)
            return
        for name in self._resources_of(kind, when):
            self._module.set_resource(name, value, _INIT_BY)

    def changed(self) -> None:
        """A resource has another value: the rules are evaluated at once."""
        self._changed.set()

    def for_the_other_node(self) -> dict[str, str]:
        """The resources of this node that the rules ask of the other one: both have the same rules."""
        asked = {f"{resource.kind}.{resource.name}" for resource in self._remote}
        if not asked:
            return {}
        return {
            resource.name: resource.value
            for resource in self._resources.all()
            if resource.name in asked or asked & {f"{resource.name.partition('.')[0]}.{any_}" for any_ in ("?", "*")}
        }

    def named_by(self, reason: str) -> frozenset[str]:
        """Patterns of the resources of the rules that a reason names."""
        return frozenset(
            f"{resource.kind}.*" if resource.name in ("?", "*") else str(resource)
            for rule in self._machine.rules
            if rule.label in reason.replace(";", " ").split()
            for resource in resources_of(rule.condition)
        )

    # --- which ---

    def _tests(self, when: str) -> Iterator[Test]:
        check = self._service.check
        if check is not None:
            tests: tuple[TcpCheck | PingCheck | IntfCheck | IpCheck | CustomCheck, ...]
            tests = (*check.tcp, *check.ping, *check.intf, *check.ip, *check.custom)
            yield from (test for test in tests if _within(test.when, when))
            if when == "pre":
                yield from check.module

    def _work(self, when: str) -> Iterator[Coroutine[Any, Any, None]]:
        report = self._module.set_resource
        for test in self._tests(when):
            match test:
                case TcpCheck():
                    yield tcp_probe(test).run(report)
                case PingCheck():
                    yield ping_probe(test).run(report)
                case IntfCheck():
                    yield interface_probe(test, _carrying).run(report)
                case IpCheck():
                    yield address_probe(test, _carrying).run(report)
                case ModuleCheck():
                    place = self._place
                    yield ModuleStateChecker(test, place.look, place.asked(test), report, self._start_anew).run()
                case CustomCheck():
                    yield CustomChecker(
                        test,
                        self._place.module,
                        self._place.folder,
                        self._place.environment,
                        report,
                        lambda sentence: self._module.say("C", sentence),
                    ).run()
        if self._service.vip is not None and self._vip is not None:
            if when == "pre":
                yield InterfaceChecker(self._service.vip, self._vip, report).run()
            elif when in ("prim", "both"):
                yield AddressChecker(self._service.vip, self._vip, report).run()

    def _start_anew(self, why: str) -> None:
        """What this module needs began anew. In WAIT nothing of this module has to."""
        if self._role() not in (Role.WAIT, Role.STOP):
            self._module.ask(Action.STOPSTART, "modulecheck", f"Action stopstart called by modulecheck: {why}")

    def _of_window(self, when: str) -> list[Proc]:
        """The processes of the classes that this window carries; it carries those of other names from `pre` on."""
        procs = self._service.errd.procs if self._service.errd else ()
        return [
            proc
            for proc in procs
            if _within(proc.class_, when)
            or (proc.class_ == "sec" and when in ("prim", "second"))
            or (proc.class_ not in WINDOWS and when == "pre")
        ]

    def _procs(self, when: str) -> list[Proc]:
        """Those of them that are watched: `sec` is from after start_sec until before stop_sec, not beside a secondary."""
        return [
            proc
            for proc in self._of_window(when)
            if self.enabled(proc.class_) and not (proc.class_ == "sec" and self._role() is Role.PRIM)
        ]

    def _resources_of(self, kind: str, when: str) -> Iterator[str]:
        if kind == "errd":
            yield from (f"proc.{proc.name}" for proc in self._procs(when))
            return
        for test in self._tests(when):
            yield f"{_KIND[type(test)]}.{test.ident}"

    def _forget_others(self) -> None:
        """What a checker of an earlier configuration said must not hold this one."""
        now = {
            name
            for kind in KINDS
            if self._allowed(kind)
            for when in ("pre", "prim", "second", "both")
            for name in self._resources_of(kind, when)
        }
        for resource in self._resources.all():
            if resource.name.startswith(CLASSES) and resource.name not in now and resource.value != "unknown":
                self._module.set_resource(resource.name, "unknown", _INIT_BY)

    # --- the rules ---

    async def _evaluate_always(self) -> None:
        wait = 0.0
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            wait = min(self._period, self._evaluate())

    def _evaluate(self) -> float:
        """Evaluate the rules now; in how many seconds time alone changes the answer."""
        values = {resource.name: resource.value for resource in self._resources.all()} | dict(self._place.remote())
        now = asyncio.get_running_loop().time()
        self._machine, verdict = self._machine.evaluate(values, now, waiting=self._role() is Role.WAIT)
        self._module.judged(verdict)
        if verdict.action is not None:
            self._module.ask(
                verdict.action, verdict.label, f"Action {verdict.action} from failover rule {verdict.label}"
            )
        return verdict.again_s

    # --- errd ---

    async def _watch(self, when: str) -> None:
        assert self._service.errd is not None
        poll = self._service.errd.polltimer.total_seconds()
        while True:
            for finding in await processes.look(self._due(when, poll)):
                changed = self._module.set_resource(
                    f"proc.{finding.proc.name}", "up" if finding.right else "down", "errd"
                )
                if changed and not finding.right:
                    self._module.say("C", finding.sentence)
                if not finding.right:
                    await self._act(finding)
            await asyncio.sleep(poll)

    def _due(self, when: str, poll: float) -> list[Proc]:
        """Whom to look at now: who is watched, `start_after` polls after the watch over it began."""
        now = asyncio.get_running_loop().time()
        watched = self._procs(when)
        for proc in self._of_window(when):
            if proc in watched:
                self._watched_since.setdefault(proc.name, now)
            elif self._watched_since.pop(proc.name, None) is not None:
                self._module.set_resource(f"proc.{proc.name}", "unknown", _INIT_BY)
        return [p for p in watched if now - self._watched_since[p.name] >= max(0, p.start_after - 1) * poll]

    async def _act(self, finding: Finding) -> None:
        action = finding.proc.action
        if action == "noaction":
            return
        if action not in ("stop", "stopstart", "restart"):
            if await self._handled(shlex.split(action), finding):
                return
            action = "stopstart"
        services = finding.proc.restart_services if action == "restart" else ()
        only = f" of {', '.join(services)}" if services else ""
        self._module.ask(
            Action(action), "errd", f"Action {action}{only} called by errd: {finding.sentence}", services=services
        )

    async def _handled(self, command: list[str], finding: Finding) -> bool:
        """Run a handler of the module; True when it says that it mended the matter."""
        try:
            program = await asyncio.create_subprocess_exec(
                str(self._place.folder / command[0]),
                *command[1:],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=dict(self._place.environment),
                start_new_session=True,
            )
        except OSError as error:
            self._module.say("C", f"Handler {command[0]} of errd cannot run: {error.strerror or error}")
            return False
        try:
            async with asyncio.timeout(HANDLER_S):
                code = await program.wait()
        except TimeoutError:
            os.killpg(program.pid, 9)
            await program.wait()
            self._module.say("C", f"Handler {command[0]} of errd did not end within {HANDLER_S:.0f} s and was killed")
            return False
        self._module.say("E", f"Handler {command[0]} of errd ended with {code}: {finding.sentence}")
        return code == 0


def _within(configured: str, when: str) -> bool:
    """Whether a checker of this class runs when this class begins; `both` is either role of a mirror."""
    return configured == when or (configured == "both" and when in ("prim", "second"))


def _carrying(address: str) -> str | None:
    """The interface of this node that has an address."""
    from safekit.vip import netlink

    wanted = ip_address(address.partition("%")[0])
    index = next((entry.index for entry in netlink.addresses() if entry.address == wanted), None)
    return next((link.name for link in netlink.links() if link.index == index), None)
