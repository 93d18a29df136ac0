"""The data plane of one node as `safekit.replication` promises it.

A copy is the set of writes that it holds: `Copy.memory` what a read would find, `Copy.disk` what survives the power.
The stream is one FIFO in each direction; a broken one is noticed on each side by itself, at its own time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safekit.automaton.data import DataRecord
from safekit.automaton.mirror import DataPhase, DataSaid, ResyncBegan

if TYPE_CHECKING:
    from tests.simulation.node import Node


class Refused(Exception):
    """The data plane cannot do what it was asked; the text says why."""


@dataclass
class Copy:
    """The replicated directories of one node. `partial`: a resynchronisation has begun and not ended (durable)."""

    memory: set[int] = field(default_factory=set)
    disk: set[int] = field(default_factory=set)
    partial: bool = False

    def sync(self) -> None:
        """All that is in memory survives the power from here on."""
        self.disk = set(self.memory)


class Stream:
    """One connection between a primary and a secondary."""

    def __init__(self, primary: Plane, secondary: Plane) -> None:
        self.ends = (primary, secondary)
        self.open = {primary.node.name: True, secondary.node.name: True}
        self._queues: dict[str, deque[tuple[object, ...]]] = {name: deque() for name in self.open}
        self._moving = {name: False for name in self.open}

    def other(self, plane: Plane) -> Plane:
        """The plane at the other end."""
        return self.ends[1] if plane is self.ends[0] else self.ends[0]

    def send(self, sender: Plane, *message: object) -> None:
        """Put a message into the stream."""
        name = sender.node.name
        self._queues[name].append(message)
        if not self._moving[name]:
            self._moving[name] = True
            self._later(sender)

    def _later(self, sender: Plane) -> None:
        clock = sender.node.clock
        clock.after(clock.random.random() * sender.node.network.delay_s, lambda: self._move(sender))

    def _move(self, sender: Plane) -> None:
        """Deliver the oldest message, unless the network or the receiver stands still."""
        name, receiver = sender.node.name, self.other(sender)
        queue = self._queues[name]
        if not self.open[receiver.node.name] or not queue:
            self._moving[name] = False
            return
        if receiver.node.paused or not sender.node.network.data_flows(name):
            sender.node.clock.after(0.3, lambda: self._move(sender))
            return
        message = queue.popleft()
        receiver.hear(self, message)
        if queue:
            self._later(sender)
        else:
            self._moving[name] = False

    def close(self, plane: Plane, silently: bool = False) -> None:
        """This end is gone. The other learns it at once from a living kernel, by a time-out from a dead one or through a cut."""
        if not self.open[plane.node.name]:
            return
        self.open[plane.node.name] = False
        other = self.other(plane)
        clock = plane.node.clock
        if silently or not plane.node.network.data_flows(plane.node.name):
            clock.after(clock.between(0.5, 5), lambda: other.lost(self, "no answer within the time limit"))
        else:
            clock.after(
                clock.random.random() * plane.node.network.delay_s, lambda: other.lost(self, "closed by the other node")
            )

    def watch_cut(self) -> None:
        """The network was cut: each end gives up by itself if it lasts."""
        for plane in self.ends:
            self._watch(plane)

    def _watch(self, plane: Plane) -> None:
        plane.node.clock.after(plane.node.clock.between(0.5, 5), lambda: self._give_up(plane))

    def _give_up(self, plane: Plane) -> None:
        if self.open[plane.node.name] and not plane.node.network.data_flows(*self.open):
            plane.lost(self, "no answer within the time limit")
            self.open[plane.node.name] = False


class Plane:
    """`safekit-rfs` of one node. `told` receives the events that its controller hears."""

    def __init__(self, node: Node, copy: Copy) -> None:
        self.node = node
        self.copy = copy
        self.mode = "idle"
        self.phase = "alone"  # alone, resync, barrier, mirror, held
        self.stream: Stream | None = None
        self.pending: list[tuple[int, bool]] = []
        self.published: DataRecord | None = None
        self.handed_over = False
        self._publishing: Callable[[str], None] | None = None
        self._handing_over: Callable[[str], None] | None = None

    @property
    def free(self) -> bool:
        """Whether it would answer a write without its peer."""
        return self.mode == "primary" and self.phase in ("alone", "resync")

    # --- what the controller asks -------------------------------------------------------------------------------------

    def primary(self) -> None:
        """Mount, writable, alone and tracking."""
        if self.copy.partial:
            raise Refused("the data are inconsistent")
        if self.mode == "primary":
            return
        self._drop_stream()
        self.handed_over = False
        self.mode, self.phase, self.published = "primary", "alone", None

    def secondary(self) -> None:
        """Listen."""
        if self.mode == "primary":
            raise Refused("it serves as primary")
        self._drop_stream()
        self.handed_over = False
        self.mode, self.published = "secondary", None

    def alone(self) -> None:
        """What is held is answered; a peer is dropped."""
        if self.mode != "primary":
            raise Refused("it is not primary")
        self._drop_stream()
        self.phase = "alone"
        self._answer_all("alone")

    def idle(self) -> None:
        """Unmount or stop listening; held writes end in an error."""
        self._drop_stream()
        self.copy.sync()
        self.pending.clear()
        self.mode, self.phase, self.published = "idle", "alone", None

    def connect(self) -> None:
        """Connect to the peer's plane, which listens, and bring it up to date."""
        other, network = self.node.peer.plane, self.node.network
        reachable = (
            self.node.peer.up and not self.node.peer.paused and network.data_flows(self.node.name, other.node.name)
        )
        if self.mode != "primary" or self.phase != "alone":
            raise Refused("it is not a primary alone")
        if not reachable or other.mode != "secondary" or other.stream is not None:
            raise Refused("nobody listens there")
        self.stream = other.stream = Stream(self, other)
        self.phase, other.published = "resync", None
        self.stream.send(self, "begin")
        clock, stream = self.node.clock, self.stream
        clock.after(clock.between(0.1, 3), lambda: self._last_pass(stream))

    def _last_pass(self, stream: Stream) -> None:
        if self.stream is stream and self.phase == "resync":
            self.phase = "barrier"
            stream.send(self, "copy", frozenset(self.copy.memory))

    def publish(self, record: DataRecord, answer: Callable[[str], None]) -> None:
        """Tell the secondary; `answer` receives why not, or nothing."""
        if self.phase != "mirror" or self.stream is None:
            answer("nobody mirrors")
            return
        self._publishing = answer
        self.stream.send(self, "published", record)

    def handover(self, answer: Callable[[str], None]) -> None:
        """All durable on both sides, then idle; `answer` receives why not, or nothing."""
        if self.handed_over:
            answer("")  # asked again by a daemon that did not hear the first answer
        elif self.phase != "mirror" or self.stream is None or self.pending:
            answer("the secondary does not mirror")
        else:
            self._handing_over = answer
            self.stream.send(self, "flush")

    # --- what the application does ------------------------------------------------------------------------------------

    def write(self, write: int, fsync: bool) -> None:
        """Local first, ship, wait for the peer, answer."""
        self.copy.memory.add(write)
        self.node.world.laws.begun(write)
        if self.phase in ("alone", "resync"):
            if fsync:
                self.copy.sync()
            self.node.world.laws.acknowledged(write, self.node.name, mirrored=False, fsync=fsync)
            return
        self.pending.append((write, fsync))
        if self.stream is not None and self.phase != "held":
            self.stream.send(self, "write", write, fsync)

    def _answer_all(self, kind: str) -> None:
        for write, fsync in self.pending:
            if fsync:
                self.copy.sync()
            self.node.world.laws.acknowledged(write, self.node.name, mirrored=kind == "mirror", fsync=fsync)
        self.pending.clear()

    # --- what the stream says -----------------------------------------------------------------------------------------

    def hear(self, stream: Stream, message: tuple[object, ...]) -> None:
        """One message of the peer's plane."""
        if stream is not self.stream:
            return
        match message:
            case ("begin",):
                self.copy.partial = True
                self.node.tell(ResyncBegan())
            case ("copy", frozenset() as content):
                self.node.world.laws.overwritten(self.node, stream.other(self).node, content)
                self.copy.memory = set(content)
                self.copy.sync()
                self.copy.partial = False
                stream.send(self, "equal")
            case ("equal",):
                if self.phase == "barrier":
                    self.copy.sync()
                    self.phase = "mirror"
                    self.node.tell(DataSaid(DataPhase.MIRROR))
            case ("write", int(write), bool(fsync)):
                self.copy.memory.add(write)
                if fsync:
                    self.copy.sync()
                stream.send(self, "applied", write)
            case ("applied", int(write)):
                self._applied(write)
            case ("published", DataRecord() as record):
                self.published = record
                self.node.tell(DataSaid(DataPhase.INSTEP, record=record))
                stream.send(self, "told")
            case ("told",):
                self._end_publishing("")
            case ("flush",):
                self.copy.sync()
                stream.send(self, "flushed")
            case ("flushed",):
                self._handed_over()

    def _applied(self, write: int) -> None:
        for index, (number, fsync) in enumerate(self.pending):
            if number == write:
                del self.pending[index]
                if fsync:
                    self.copy.sync()
                mirrored = self.phase == "mirror"
                self.node.world.laws.acknowledged(write, self.node.name, mirrored=mirrored, fsync=fsync)
                return

    def _handed_over(self) -> None:
        answer, self._handing_over = self._handing_over, None
        if answer is None:
            return
        self.copy.sync()
        self._drop_stream()
        self.mode, self.phase, self.handed_over = "idle", "alone", True
        answer("")

    def _end_publishing(self, why: str) -> None:
        answer, self._publishing = self._publishing, None
        if answer is not None:
            answer(why)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def lost(self, stream: Stream, why: str) -> None:
        """The stream broke, as this side sees it."""
        if stream is not self.stream:
            return
        self.stream = None
        stream.close(self)
        if self.mode == "secondary":
            self.node.tell(DataSaid(DataPhase.CUT, why))
            return
        held = self.phase == "mirror"
        self.phase = "held" if held else "alone"
        self._fail_requests(why)
        if not held:
            self._answer_all("alone")
        self.node.tell(DataSaid(DataPhase.LOST if held else DataPhase.ALONE, why))

    def _fail_requests(self, why: str) -> None:
        self._end_publishing(why)
        answer, self._handing_over = self._handing_over, None
        if answer is not None:
            answer(why)

    def _drop_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close(self)
            self._fail_requests("the connection was ended")

    def killed(self, with_the_machine: bool) -> None:
        """The process is gone; a machine without power sends no reset either."""
        stream, self.stream = self.stream, None
        self.pending.clear()
        self.handed_over = False
        self.mode, self.phase, self.published = "idle", "alone", None
        self._fail_requests("the data plane does not answer")
        if stream is not None:
            stream.close(self, silently=with_the_machine)

    def status(self) -> DataSaid:
        """What a daemon that was restarted finds."""
        if self.mode == "secondary":
            if self.stream is not None and self.published is not None:
                return DataSaid(DataPhase.INSTEP, record=self.published)
            return DataSaid(DataPhase.RECEIVING if self.published is None else DataPhase.CUT)
        if self.mode == "primary":
            phases = {"mirror": DataPhase.MIRROR, "held": DataPhase.LOST, "alone": DataPhase.ALONE}
            return DataSaid(phases.get(self.phase, DataPhase.JOINING))
        return DataSaid(DataPhase.FAILED, "the data plane is gone")
