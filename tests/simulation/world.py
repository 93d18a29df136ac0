"""Two machines and the network between them, from one seed; and the fair weather in which they must come to rest."""

from __future__ import annotations

from collections.abc import Callable

from safekit.automaton.mirror import Policy
from safekit.automaton.vocabulary import (
    Action,
    Command,
    DataPrimary,
    DataSecondary,
    Readiness,
    Role,
    Step,
    Vip,
    Wish,
)
from tests.simulation.clock import Clock
from tests.simulation.laws import Laws
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.witness import Witness

R = Readiness.READY


class World:
    """`stormy` once the network failed or a machine stood still, `forced` once an administrator overruled the records."""

    def __init__(
        self,
        seed: int = 0,
        *,
        replicated: bool = True,
        writes: bool = True,
        policy: Policy = Policy.NONE,
        timeout_s: float = 3.0,
    ) -> None:
        self.seed, self.policy = seed, policy
        self.clock = Clock(seed)
        self.network = Network(self.clock)
        self.replicated, self.writes = replicated, writes
        self.stormy = self.forced = self.ended = False
        self.timeout_s = timeout_s
        self.lease_s = timeout_s if policy is Policy.WITNESS and replicated else 0.0
        self.scripts_s = (0.05, 0.6)
        self.script_failures = 0.0
        self.step_failures = 0.0
        self.last_write = 0
        self._story: list[str] = []
        self.laws = Laws(self)
        self.nodes = {"n1": Node(self, "n1", "n2"), "n2": Node(self, "n2", "n1")}
        self.n1, self.n2 = self.nodes["n1"], self.nodes["n2"]
        self.witness = Witness(self)

    # --- chance -------------------------------------------------------------------------------------------------------

    def step_duration(self) -> float:
        """Seconds that a step which is no script takes."""
        return self.clock.between(0.005, 0.06)

    def script_duration(self) -> float:
        """Seconds that a script takes; now and then longer than a heartbeat time-out."""
        low, high = self.scripts_s
        return self.clock.between(low, high) * (8 if self.clock.chance(0.03) else 1)

    def script_fails(self, name: str) -> bool:
        """Whether a script ends with an error (a stop script has stopped the application all the same)."""
        return (
            bool(self.script_failures) and not name.startswith("stop_prim") and self.clock.chance(self.script_failures)
        )

    def step_fails(self, step: Step) -> bool:
        """Whether the machine refuses a step that may be refused."""
        if not self.step_failures or not isinstance(step, Vip | DataPrimary | DataSecondary):
            return False
        return step != Vip(False) and self.clock.chance(self.step_failures)

    # --- story --------------------------------------------------------------------------------------------------------

    def note(self, who: str, what: str) -> None:
        """One line of the story that a broken law tells."""
        self._story.append(f"{self.clock.now:8.2f} {who}: {what}")

    def story(self) -> str:
        """All that happened."""
        ends = (
            f"{node.name} at the end: {node.state}, plane {node.plane.mode} {node.plane.phase}"
            for node in self.nodes.values()
        )
        register = () if self.policy is Policy.NONE else (f"the register at the end: {self.witness.disk}",)
        return "\n".join((f"seed {self.seed} policy {self.policy}", *self._story, *ends, *register))

    # --- time ---------------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let this much time pass."""
        until = self.clock.now + seconds
        while self.clock.next(until):
            self.laws.hold()

    def until(self, reached: Callable[[], bool], within: float) -> bool:
        """Let time pass until it is so; False when it is not within so many seconds."""
        until = self.clock.now + within
        while not reached():
            if not self.clock.next(until):
                return reached()
            self.laws.hold()
        return True

    def states(self) -> str:
        """Both states as Appendix B of the specification writes them."""
        return "/".join(short(node) for node in self.nodes.values())

    # --- fair weather -------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything works again, and both modules are wished."""
        self.network.cuts.clear()
        self.network.loss = self.network.doubled = 0.0
        self.script_failures = self.step_failures = 0.0
        self.witness.boot()
        self.note("world", "healed")
        for node in self.nodes.values():
            node.wake()
            node.boot(start=True)
            node.restart_daemon()

    def wish_both(self) -> None:
        """What an administrator does when a module is stopped."""
        for node in self.nodes.values():
            if node.state.role is Role.STOP and not node.state.plan and node.state.wish is Wish.STOPPED:
                node.command(Command(Action.START))

    @property
    def at_rest(self) -> bool:
        """PRIM Ready and SECOND Ready, nothing under way."""
        roles = {node.state.role for node in self.nodes.values()}
        quiet = all(node.state.readiness is R and not node.state.plan for node in self.nodes.values())
        return roles == {Role.PRIM, Role.SECOND} and quiet

    def pair(self) -> None:
        """The first start: `prim` on n1, `second` on n2."""
        self.n1.command(Command(Action.PRIM))
        self.until(lambda: self.n1.state.role is Role.ALONE and self.n1.state.readiness is R, 120)
        self.n2.command(Command(Action.SECOND))
        if not self.until(lambda: self.at_rest, 240):
            self.laws.broken("the first start does not end in PRIM/SECOND")


def short(node: Node) -> str:
    """PRIM-r, WAIT-t, ...; (dark) without power."""
    if not node.up:
        return "(dark)"
    letters = {Readiness.READY: "-r", Readiness.TRANSIENT: "-t", Readiness.NOT_READY: "-nr"}
    role = node.state.role
    return str(role) if role is Role.STOP else f"{role}{letters[node.state.readiness]}"
