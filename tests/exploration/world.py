"""Two machines, the ways between them and the witness, as one value; `Draft` is that value while something happens.

What decides is the code of production: `step`, `record_for`, `spoken` and `register.decide`. What surrounds it is as small as it
can be: scripts, addresses and checkers are done at once; every step that touches a record or a copy is a thing of its own that
may happen late or never.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import ClassVar, NamedTuple

from safekit.automaton.data import BLANK, DataRecord, Holder
from safekit.automaton.mirror import (
    Answered,
    DataPhase,
    DataSaid,
    Event,
    MirrorState,
    PeerView,
    Policy,
    Recorded,
    ResyncBegan,
    record_for,
    spoken,
    step,
)
from safekit.automaton.register import Register
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
    Entered,
    Links,
    Pair,
    Perform,
    Publish,
    Readiness,
    Record,
    RecordKind,
    Role,
    Say,
    Script,
    Step,
    StepDone,
    StepFailed,
    Vip,
)

NAMES = ("n1", "n2")
OTHER = {"n1": "n2", "n2": "n1"}
UNHEARD = PeerView()


class Broken(AssertionError):
    """A law does not hold in a world that can be reached; `label` is what happened last."""

    def __init__(self, sentence: str, label: str = "") -> None:
        super().__init__(sentence)
        self.label = label


class Doing(NamedTuple):
    """A step under way; `record` is what it will write, or has sent."""

    step: Step
    record: DataRecord | None = None


class Automaton:
    """The value of one automaton, as one object however often it is reached: compared and hashed by what it is."""

    __slots__ = ("after", "value", "word")
    _all: ClassVar[dict[MirrorState, Automaton]] = {}

    def __init__(self, value: MirrorState) -> None:
        self.value = value
        self.word = replace(spoken(value, 0), reason="")
        self.after: dict[Event, tuple[Automaton, tuple[Effect, ...]]] = {}

    @classmethod
    def of(cls, value: MirrorState) -> Automaton:
        """The only one of this value."""
        known = cls._all.get(value)
        if known is None:
            known = cls._all[value] = cls(value)
        return known

    @classmethod
    def forget_all(cls) -> None:
        """The rules changed."""
        cls._all.clear()

    def step(self, event: Event) -> tuple[Automaton, tuple[Effect, ...]]:
        """What the code of production makes of an event."""
        known = self.after.get(event)
        if known is None:
            state, effects = step(self.value, event)
            known = self.after[event] = (
                Automaton.of(calm(state)),
                tuple(e for e in effects if not isinstance(e, Say | Entered)),
            )
        return known


class Node(NamedTuple):
    """One machine. `memory` is what its copy holds, `disk` what of it survives the power."""

    automaton: Automaton
    up: bool = True
    record: DataRecord = BLANK
    memory: frozenset[int] = frozenset()
    disk: frozenset[int] = frozenset()
    partial: bool = False
    mode: str = "idle"
    phase: str = "alone"
    published: DataRecord | None = None
    pending: tuple[int, ...] = ()
    running: bool = False
    vip: bool = False
    doing: Doing | None = None
    urgent: Doing | None = None
    connecting: bool = False
    links: bool = False
    old: PeerView | None = None
    """A word that is still under way though there is a newer one."""
    said: PeerView = UNHEARD
    claims: tuple[Ask, ...] = ()
    """What is under way to the witness."""
    answers: tuple[Answered, ...] = ()
    """What is under way from it."""
    boots: int = 0

    @property
    def state(self) -> MirrorState:
        """What its automaton knows."""
        return self.automaton.value

    @property
    def free(self) -> bool:
        """Whether it would answer a write without its peer."""
        return self.mode == "primary" and self.phase in ("alone", "resync")


class Stream(NamedTuple):
    """One connection: who its primary is, which ends are open, what is under way in each direction."""

    primary: str
    open: frozenset[str] = frozenset(NAMES)
    out: tuple[tuple[object, ...], ...] = ()
    back: tuple[tuple[object, ...], ...] = ()
    broken: bool = False


class Write(NamedTuple):
    """An acknowledged write; `lost_by`: the machines that lost their memory since."""

    number: int
    mirrored: bool
    node: str
    lost_by: frozenset[str] = frozenset()

    @property
    def durable(self) -> bool:
        """Every second write is an fsync."""
        return self.number % 2 == 0


class World(NamedTuple):
    """Everything. `newest` is the last claim that the witness took from each node."""

    n1: Node
    n2: Node
    register: Register | None = None
    newest: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    stream: Stream | None = None
    cut: bool = False
    witness: bool = True
    writes: int = 0
    acked: tuple[Write, ...] = ()
    faults: int = 0


def calm(state: MirrorState) -> MirrorState:
    """Without what is said to people, and without counters that only tell one answer from another."""
    return replace(state, serial=0, urgent_serial=-1, reason="", waiting=(), action="start", services=())


def fresh(name: str, record: DataRecord, boots: int) -> MirrorState:
    """The automaton of a machine that was switched on."""
    return MirrorState(name, OTHER[name], f"{name}{boots}", True, record=record, policy=Policy.WITNESS)


class Draft:
    """A world while something happens to it; `world` is what came of it."""

    def __init__(self, world: World, label: str = "") -> None:
        self._before, self.label = world, label
        self.n = {"n1": world.n1, "n2": world.n2}
        self.stream = world.stream
        self.acked = world.acked
        self.changes: dict[str, object] = {}
        self._due: deque[tuple[str, Step]] = deque()

    def world(self) -> World:
        """The world after it; raises `Broken` when a law does not hold there."""
        for name in NAMES:
            self._speak(name)
        n1, n2 = self.n["n1"], self.n["n2"]
        if n1.free and n2.free:
            raise Broken("two nodes may answer writes without each other", self.label)
        for node in (n1, n2):
            if node.vip and node.state.role in (Role.STOP, Role.WAIT, Role.SECOND):
                raise Broken(f"{node.state.node} holds the virtual address in {node.state.role}", self.label)
        known = {"n1": n1, "n2": n2, "stream": self.stream, "acked": self.acked}
        return self._before._replace(**known, **self.changes)  # type: ignore[arg-type]

    def set(self, name: str, **changes: object) -> None:
        """Change a node."""
        self.n[name] = self.n[name]._replace(**changes)  # type: ignore[arg-type]

    def _speak(self, name: str) -> None:
        node = self.n[name]
        if not node.up or not node.links:
            return
        word = node.automaton.word
        if word != node.said:
            heard = self.n[OTHER[name]].state.peer
            late = node.said if node.said is not UNHEARD and heard != node.said else node.old
            self.n[name] = node._replace(said=word, old=late)

    # --- events in, effects out ---

    def tell(self, name: str, event: Event) -> None:
        """An event for the automaton of a node, and whatever follows from it at once."""
        self._tell(name, event)
        while self._due:
            where, what = self._due.popleft()
            match what:
                case Script("start_prim"):
                    self.set(where, running=True)
                case Script("stop_prim"):
                    self.set(where, running=False, pending=())
                case Vip(up):
                    self.set(where, vip=up)
                case Links(up):
                    self.set(where, links=up, said=UNHEARD, old=None)
            self._tell(where, StepDone(0))

    def _tell(self, name: str, event: Event) -> None:
        node = self.n[name]
        if not node.up:
            return
        before = node.state
        automaton, effects = node.automaton.step(event)
        state = automaton.value
        self.n[name] = node._replace(automaton=automaton)
        if isinstance(event, ResyncBegan):
            self._write(name, state.record)
        ready = (Role.SECOND, Readiness.READY)
        if (state.role, state.readiness) == ready != (before.role, before.readiness):
            self._second_ready(name)
        for effect in effects:
            self._carry_out(name, effect)

    def _carry_out(self, name: str, effect: Effect) -> None:
        node = self.n[name]
        match effect:
            case Perform(step=Script() | Vip() | Links() | Checkers() as done):
                self._due.append((name, done))
            case Perform(step=what, serial=serial):
                record = record_for(node.state, what.kind) if isinstance(what, Record) else None
                self.set(name, **{"urgent" if serial < 0 else "doing": Doing(what, record)})
            case Connect():
                self.set(name, connecting=True)
            case Ask():
                self._before_asking(name)
                self.set(name, claims=(*self.n[name].claims[-1:], effect))
            case _:
                pass

    def _before_asking(self, name: str) -> None:
        """Who asks has everything on its disk first."""
        self.sync(name)

    def sync(self, name: str) -> None:
        """What is in memory survives the power from here on."""
        self.set(name, disk=self.n[name].memory)

    # --- steps ---

    def perform(self, name: str, urgent: bool) -> None:
        """What a node does is done now."""
        node = self.n[name]
        doing = node.urgent if urgent else node.doing
        assert doing is not None
        answer: StepDone | StepFailed = StepDone(-1 if urgent else 0)
        match doing.step:
            case Record(kind):
                assert doing.record is not None
                if kind is RecordKind.ALONE:
                    self.sync(name)
                self._write(name, doing.record)
                answer = Recorded(answer.serial, doing.record)
            case Publish():
                stream = self.stream
                if node.phase == "mirror" and stream is not None and name in stream.open:
                    self.stream = stream._replace(out=(*stream.out, ("published", node.state.record)))
                    self.set(name, doing=Doing(doing.step, node.state.record))
                    return
                answer = StepFailed(0, "nobody mirrors")
            case _:
                why = self._data(name, doing.step)
                answer = StepFailed(answer.serial, why) if why else answer
        self.set(name, **{"urgent" if urgent else "doing": None})
        self.tell(name, answer)

    def _data(self, name: str, what: Step) -> str:
        """A step of the data plane; why it cannot be done, or nothing."""
        node = self.n[name]
        match what:
            case DataPrimary():
                if node.partial:
                    return "the data are inconsistent"
                if node.mode != "primary":
                    self.drop(name)
                    self.set(name, mode="primary", phase="alone", published=None)
                self._serves(name)
            case DataSecondary():
                self.drop(name)
                self.set(name, mode="secondary", phase="alone", published=None)
            case DataAlone():
                if node.mode != "primary":
                    return "it is not primary"
                self.drop(name)
                self.set(name, phase="alone")
                self.answer_all(name)
            case DataStop():
                self.idle(name)
            case DataHandover():
                return self._hand_over(name)
            case Pair():
                return "" if node.phase == "mirror" else "the other node does not mirror in time"
        return ""

    def _hand_over(self, name: str) -> str:
        node, stream = self.n[name], self.stream
        whole = (
            stream is not None and stream.open == frozenset(NAMES) and not (stream.broken or stream.out or stream.back)
        )
        if node.phase != "mirror" or not whole or self._before.cut or node.pending:
            return "the secondary does not mirror"
        self.sync(OTHER[name])
        self.idle(name)
        return ""

    def idle(self, name: str) -> None:
        """Unmounted or no longer listening; held writes end in an error."""
        self.drop(name)
        self.sync(name)
        self.set(name, mode="idle", phase="alone", published=None, pending=())

    def drop(self, name: str) -> None:
        """This end of the stream is gone; the other one notices by itself."""
        stream, node = self.stream, self.n[name]
        if stream is None or name not in stream.open:
            return
        rest = stream.open - {name}
        self.stream = stream._replace(open=rest, out=(), back=()) if rest else None
        if node.doing is not None and isinstance(node.doing.step, Publish) and node.doing.record is not None:
            self.set(name, doing=Doing(Publish()))  # it will be found to have failed

    def notice(self, name: str) -> None:
        """A node finds that its stream is broken."""
        self.drop(name)
        node = self.n[name]
        if node.mode == "secondary":
            self.tell(name, DataSaid(DataPhase.CUT))
        elif node.mode == "primary":
            held = node.phase == "mirror"
            self.set(name, phase="held" if held else "alone")
            if not held:
                self.answer_all(name)
            self.tell(name, DataSaid(DataPhase.LOST if held else DataPhase.ALONE))

    # --- laws ---

    def _write(self, name: str, record: DataRecord) -> None:
        before = self.n[name].record
        if record.epoch < before.epoch:
            raise Broken(f"the epoch of {name} goes back from {before.epoch} to {record.epoch}", self.label)
        if record.granted < before.granted:
            raise Broken(
                f"the register's epoch of {name} goes back from {before.granted} to {record.granted}", self.label
            )
        self.set(name, record=record)

    def answer_all(self, name: str) -> None:
        """Nobody but this node has what it answers now."""
        for number in self.n[name].pending:
            self.acknowledge(name, number, mirrored=False)
        self.set(name, pending=())

    def acknowledge(self, name: str, number: int, mirrored: bool) -> None:
        """The application hears that its write is done."""
        if number % 2 == 0:
            self.sync(name)
        mirrored &= all(node.record.holder is Holder.BOTH for node in self.n.values())
        without = frozenset(other for other, node in self.n.items() if mirrored and number not in node.memory)
        self.acked = (*self.acked, Write(number, mirrored, name, without))

    def crash(self, name: str) -> None:
        """The power goes: all that was not synced is lost."""
        node = self.n[name]
        lost = node.memory - node.disk
        self.acked = tuple(
            write._replace(lost_by=write.lost_by | {name}) if write.number in lost or not write.durable else write
            for write in self.acked
        )
        self.drop(name)
        automaton = Automaton.of(calm(fresh(name, node.record, node.boots + 1)))
        self.n[name] = Node(
            automaton, False, node.record, node.disk, node.disk, node.partial, boots=node.boots + 1, claims=node.claims
        )

    def boot(self, name: str) -> None:
        """The power is back."""
        self.set(name, up=True)
        if self.n[name].partial and self.n[name].state.record.consistent:
            self.tell(name, ResyncBegan())
        self.tell(name, Command(Action.START))

    def _must_survive(self, write: Write) -> bool:
        if not write.mirrored:
            return write.node not in write.lost_by
        return write.durable or len(write.lost_by) < 2

    def _serves(self, name: str) -> None:
        missing = [w.number for w in self.acked if w.number not in self.n[name].memory and self._must_survive(w)]
        if missing:
            raise Broken(f"{name} serves without the acknowledged writes {missing}", self.label)

    def overwrite(self, name: str, content: frozenset[int]) -> None:
        """A copy replaces what a node has."""
        source, kept = self.n[OTHER[name]], []
        for write in self.acked:
            if write.number in self.n[name].memory - content and self._must_survive(write):
                raise Broken(f"the copy removes the acknowledged write {write.number} from {name}", self.label)
            has = {name, OTHER[name]} if write.number in source.memory else {name}
            kept.append(write._replace(lost_by=write.lost_by - has) if write.number in content else write)
        self.acked = tuple(kept)
        self.set(name, memory=content, disk=content, partial=False)

    def _second_ready(self, name: str) -> None:
        node, register = self.n[name], self._before.register
        if node.record.holder is not Holder.BOTH:
            raise Broken(f"{name} is SECOND Ready and its record says {node.record.holder}", self.label)
        at_it = register is not None and register.epoch == node.record.granted
        if node.record.granted == 0 or (register is not None and at_it and name not in register.holders):
            raise Broken(f"{name} is SECOND Ready and the register does not name it", self.label)
