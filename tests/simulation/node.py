"""One machine of the simulated pair: its disk, its daemon, its addresses and its application.

The daemon is the automaton of production and a shell that performs its steps as `safekit.module` does: a step takes
time, a script runs once whatever happens to the daemon, a record is on disk before the step is answered, and what the
application wrote before a record that says `alone`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safekit.automaton.codec import decode, encode
from safekit.automaton.data import BLANK, DataRecord
from safekit.automaton.mirror import (
    DataPhase,
    DataSaid,
    Event,
    Lapsed,
    MirrorState,
    PeerView,
    Policy,
    Recorded,
    ResyncBegan,
    record_for,
    spoken,
    step,
)
from safekit.automaton.vocabulary import (
    Action,
    Ask,
    Checkers,
    Command,
    Connect,
    DataAlone,
    DataHandover,
    DataPrimary,
    DataSecondary,
    DataStop,
    Effect,
    Held,
    Links,
    Pair,
    Perform,
    Publish,
    Record,
    RecordKind,
    Resumed,
    Role,
    Say,
    Script,
    StepDone,
    StepFailed,
    Vip,
    Wish,
    Withdraw,
)
from tests.simulation.fence import Fence
from tests.simulation.guard import Guard
from tests.simulation.plane import Copy, Plane, Refused
from tests.simulation.pulse import Pulse
from tests.simulation.witness import Claimant

if TYPE_CHECKING:
    from tests.simulation.world import World

DATA_STEPS = (DataPrimary, DataSecondary, DataAlone, DataHandover, DataStop, Pair, Publish)
PAIRING_S = 8.0
RETRY_S = 1.0
SCRIPT_LIMIT_S = 40.0
"""A script that ends later was blocked by a write that nobody answers."""


class Node:
    """One machine. `up` with power, `paused` frozen, `daemon` whether safekitd lives."""

    def __init__(self, world: World, name: str, peer_name: str) -> None:
        self.world, self.name, self.peer_name = world, name, peer_name
        self.clock, self.network = world.clock, world.network
        self.up = self.daemon = True
        self.paused = False
        self.copy = Copy()
        self.record_on_disk: DataRecord = BLANK
        self.running = False
        """Whether the application runs here."""
        self.vip = False
        self.boots = 0
        self.life = 0
        self.version = 0
        self.scripts: list[str] = []
        """Every script that was begun, in order; `stop_prim force` for the second call."""
        self.order: list[str] = []
        """Scripts, address and record in the order in which they were done."""
        self.trace: list[str] = []
        """The states that were entered."""
        self._script: tuple[tuple[int, int], float | None, str] | None = None
        self._saved = ""
        self._waiting: deque[Callable[[], None]] = deque()
        self.configuration: dict[str, Any] = {}
        """What a `<service>` says beside its defaults: `failover`, `defaultprim`."""
        self.plane = Plane(self, self.copy)
        self.pulse = Pulse(self)
        self.guard = Guard(self, world.lease_s)
        self.claimant = self._claims()
        self.state = self._fresh()

    @property
    def peer(self) -> Node:
        """The other machine."""
        return self.world.nodes[self.peer_name]

    def _claims(self) -> Claimant | Fence:
        return Fence(self) if self.world.policy is Policy.FENCE else Claimant(self)

    def _fresh(self) -> MirrorState:
        nonce = f"{self.name}{self.boots}"
        known = (self.name, self.peer_name, nonce, self.world.replicated)
        return MirrorState(
            *known, record=self.record_on_disk, policy=self.world.policy, lease=self.world.lease_s, **self.configuration
        )

    # --- events in, effects out ---------------------------------------------------------------------------------------

    def hold(self, rules: tuple[str, ...]) -> None:
        """Which wait-rules hold; a node that waits no more listens before it takes silence for the peer's end."""
        if (
            not self.paused
            and self.daemon
            and self.up
            and self.state.role is Role.WAIT
            and self.state.held
            and not rules
        ):
            self.pulse.listen_anew()
        self.tell(Held(rules))

    def tell(self, event: Event) -> None:
        """An event for the automaton: lost when no daemon is there, late when the machine stands still."""
        if self.paused:
            self._waiting.append(lambda: self.tell(event))
            return
        if not self.daemon or not self.up:
            return
        before = self.state
        self.state, effects = step(before, event)
        if isinstance(event, ResyncBegan):
            self._write(self.state.record)
        if self.state is not before:
            self._note(before)
        for effect in effects:
            self._carry_out(effect)

    def _note(self, before: MirrorState) -> None:
        state = self.state
        if (state.role, state.readiness) != (before.role, before.readiness):
            self.world.note(
                self.name, f"{before.role}-{before.readiness} > {state.role}-{state.readiness} ({state.reason})"
            )
            self.trace.append(f"{state.role} {state.readiness}")
        word = spoken(state, self.version)
        if word != self.pulse.word:
            self.version += 1
            self.pulse.say(replace(word, version=self.version))
        self.guard.told()
        self.world.laws.moved(self, before)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Say(level, message):
                if level == "C":
                    self.world.note(self.name, message)
            case Perform():
                self._perform(effect)
            case Connect():
                self.later(0.05, self._connect)
            case Ask():
                self.later(self.world.step_duration(), lambda: self._ask(effect))
            case Withdraw():
                self.claimant.withdraw()

    def _ask(self, asked: Ask) -> None:
        """Who asks has everything on its disk first."""
        if self.state.asked == asked:
            self.copy.sync()
            self.claimant.ask(asked)

    def when_awake(self, what: Callable[[], None]) -> None:
        """Something that a machine which stands still finds when it goes on."""
        self._waiting.append(what)

    def later(self, delay: float, what: Callable[[], None]) -> None:
        """Something that the daemon does in `delay` seconds, if this same daemon still lives then."""
        life = self.life
        self.clock.after(delay, lambda: self._if_alive(life, what))

    def _if_alive(self, life: int, what: Callable[[], None]) -> None:
        if life != self.life or not self.up:
            return
        if self.paused:
            self._waiting.append(lambda: self._if_alive(life, what))
            return
        what()

    def _connect(self) -> None:
        try:
            self.plane.connect()
        except Refused as why:
            reason = str(why)
            self.later(RETRY_S, lambda: self.tell(DataSaid(DataPhase.ALONE, reason)))

    # --- steps --------------------------------------------------------------------------------------------------------

    def _perform(self, perform: Perform) -> None:
        serial, delay = perform.serial, self.world.step_duration()
        if isinstance(perform.step, DATA_STEPS) and not self.world.replicated:
            self.later(delay, lambda: self.tell(StepDone(serial)))
            return
        match perform.step:
            case Script():
                self._begin_script(perform.step, serial)
            case Record(kind):
                self._begin_record(kind, serial, delay)
            case Pair():
                self.later(delay, lambda: self._pair(serial, self.clock.now + PAIRING_S))
            case Publish():
                record = self.state.record
                self.later(delay, lambda: self.plane.publish(record, self._answer(serial)))
            case DataHandover():
                self.later(delay, lambda: self.plane.handover(self._answer(serial)))
            case _:
                self.later(delay, lambda: self._do(perform))

    def _answer(self, serial: int) -> Callable[[str], None]:
        life = self.life

        def answer(why: str) -> None:
            event = StepFailed(serial, why) if why else StepDone(serial)
            self._if_alive(life, lambda: self.tell(event))

        return answer

    def _do(self, perform: Perform) -> None:
        step_ = perform.step
        try:
            if self.world.step_fails(step_):
                raise Refused("no luck")
            if self.guard.cut and step_ == Vip(True):
                raise Refused("the lease of this node ran out")
            match step_:
                case Vip(up):
                    self.vip = up
                    self.order.append(f"vip {'up' if up else 'down'}")
                case Links(True):
                    self.pulse.open()
                    self._note(self.state)
                case Links(False):
                    self.pulse.close(goodbye=True)
                case DataPrimary():
                    self.plane.primary()
                    self.world.laws.serves(self)
                case DataAlone():
                    self.plane.alone()
                case DataSecondary():
                    self.plane.secondary()
                case DataStop():
                    self.plane.idle()
                case Checkers():
                    pass
        except Refused as why:
            self.world.note(self.name, f"{step_} refused: {why}")
            self.tell(StepFailed(perform.serial, str(why)))
            return
        self.tell(StepDone(perform.serial))

    def _begin_record(self, kind: RecordKind, serial: int, delay: float) -> None:
        record = record_for(self.state, kind)

        def write() -> None:
            if kind is RecordKind.ALONE:
                self.copy.sync()
            self._write(record)
            self.order.append(f"record {kind}")
            self.later(delay / 2, lambda: self.tell(Recorded(serial, record)))

        self.later(delay / 2, write)

    def _write(self, record: DataRecord) -> None:
        self.world.laws.recorded(self, record)
        self.record_on_disk = record

    def _pair(self, serial: int, until: float) -> None:
        if self.plane.phase == "mirror":
            self.tell(StepDone(serial))
        elif self.clock.now >= until:
            self.tell(StepFailed(serial, "the other node does not mirror in time"))
        else:
            if self.state.peer.listening and self.state.peer.is_(Role.SECOND) and self.plane.phase == "alone":
                try:
                    self.plane.connect()
                except Refused:
                    pass
            self.later(0.2, lambda: self._pair(serial, until))

    # --- scripts ------------------------------------------------------------------------------------------------------

    def _begin_script(self, script: Script, serial: int) -> None:
        ticket = (self.boots, serial)
        if self._script is not None and self._script[0] == ticket:
            self._await_script(serial)  # begun by the daemon before this one: waited for, not run twice
            return
        name = f"{script.name} force" if script.force else script.name
        self.scripts.append(name)
        self.order.append(name)
        if script.name == "start_prim" and not self.guard.cut:
            self.running = True
            self.world.laws.application_started(self)
            self._write_now_and_then(self.boots)
        ends = self.clock.now + self.world.script_duration()
        self._script = (ticket, ends, script.name)
        boot = self.boots
        self.clock.after(ends - self.clock.now, lambda: self._end_script(boot, ticket, self.clock.now + SCRIPT_LIMIT_S))
        self._await_script(serial)

    def _end_script(self, boot: int, ticket: tuple[int, int], limit: float) -> None:
        if boot != self.boots or self._script is None or self._script[0] != ticket:
            return
        if self.paused:
            self._waiting.append(lambda: self._end_script(boot, ticket, limit))
            return
        name = self._script[2]
        if name == "stop_prim" and self.running and self.plane.pending:
            # The application ends when its last write is answered.
            if self.clock.now < limit:
                self.clock.after(0.1, lambda: self._end_script(boot, ticket, limit))
                return
            self.world.laws.script_blocked(self)
        if name == "stop_prim":
            self.running = False
        self._script = (ticket, None, name)

    def _await_script(self, serial: int) -> None:
        if self._script is None or self._script[1] is None:
            failed = self._script is not None and self.world.script_fails(self._script[2])
            self.tell(StepFailed(serial, "exit code 1") if failed else StepDone(serial))
            return
        self.later(max(self._script[1] - self.clock.now, 0.05), lambda: self._await_script(serial))

    def _write_now_and_then(self, boot: int) -> None:
        if boot != self.boots or not self.running or self.world.ended:
            return
        if not self.paused and self.plane.mode == "primary" and len(self.plane.pending) < 3 and self.world.writes:
            self.world.last_write += 1
            self.plane.write(self.world.last_write, fsync=self.clock.chance(0.3))
            if self.clock.chance(0.2):
                self.copy.disk |= {w for w in self.copy.memory if self.clock.chance(0.5)}
        self.clock.after(self.clock.between(0.2, 2.0), lambda: self._write_now_and_then(boot))

    # --- misfortune and administrators --------------------------------------------------------------------------------

    def command(self, command: Command) -> None:
        """An administrator or a script asks."""
        self.world.note(self.name, f"command {command.action} {command.identity}")
        self.tell(command)

    def kill_daemon(self) -> None:
        """SIGKILL of safekitd: scripts, addresses, pulse and data plane go on."""
        if self.daemon and self.up:
            self.world.note(self.name, "daemon killed")
            self._saved = json.dumps(encode(self.state))
            self.daemon, self.life = False, self.life + 1

    def restart_daemon(self) -> None:
        """A new daemon on what it finds."""
        if self.daemon or not self.up:
            return
        self.world.note(self.name, "daemon back")
        self.daemon = True
        state = decode(json.loads(self._saved))
        assert isinstance(state, MirrorState)
        assert state == self.state, "the codec changed the state"
        self.state = state
        self.claimant = self._claims()
        if self.guard.cut:
            self.tell(Lapsed("while the daemon was away"))
        self.tell(self.pulse.view)
        if self.world.replicated and state.data is not DataPhase.OFF:
            found = self.plane.status()
            if found.phase is DataPhase.RECEIVING and state.data is DataPhase.INSTEP:
                found = DataSaid(DataPhase.CUT)
            if found.phase is not state.data:
                self.tell(found)
        if self.copy.partial and self.state.record.consistent:
            self.tell(ResyncBegan())
        self.tell(Resumed())

    def kill_plane(self) -> None:
        """SIGKILL of safekit-rfs: the mount is gone, the application's writes end in errors."""
        if self.up and self.plane.mode != "idle":
            self.world.note(self.name, "data plane killed")
            self.plane.killed(with_the_machine=False)
            self.tell(DataSaid(DataPhase.FAILED, "killed"))

    def crash(self) -> None:
        """The power goes: what was not synced is lost, more or less of it."""
        if not self.up:
            return
        self.world.note(self.name, "CRASH")
        survives = self.copy.disk | {w for w in self.copy.memory if self.clock.chance(0.4)}
        self.world.laws.crashed(self, self.copy.memory - survives)
        self.copy.memory, self.copy.disk = set(survives), set(survives)
        self.up = self.daemon = self.paused = self.running = self.vip = False
        self.guard.stop()
        self._script = None
        self._waiting.clear()
        self.plane.killed(with_the_machine=True)
        self.pulse.close(goodbye=False)
        self.life += 1
        self.boots += 1

    def boot(self, start: bool) -> None:
        """Power again: the record is read, state.json is gone."""
        if self.up:
            return
        self.world.note(self.name, f"boot, record {self.record_on_disk.generation} {self.record_on_disk.holder}")
        self.up = self.daemon = True
        self.pulse.word, self.version = PeerView(), self.boots * 100_000
        self.claimant = self._claims()
        self.state = self._fresh()
        self.trace.append("boot")
        if self.copy.partial and self.state.record.consistent:
            self.tell(ResyncBegan())
        if start:
            self.tell(Command(Action.START))

    def pause(self) -> None:
        """The whole machine stands still."""
        if self.up:
            self.world.note(self.name, "paused")
            self.paused = True

    def wake(self) -> None:
        """It goes on, and finds what came meanwhile."""
        if not self.paused:
            return
        self.world.note(self.name, "awake")
        self.paused = False
        self.guard.woke()
        self.pulse.woke()
        while self._waiting and not self.paused:
            self._waiting.popleft()()

    @property
    def settled(self) -> bool:
        """Whether nothing is under way and nothing is wished."""
        return self.up and self.daemon and not self.state.plan and self.state.wish is not Wish.STOPPED
