"""The farm and light automata: the rows of section 5.1, and whatever an administrator, a rule or a machine does to them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest

from safekit.automaton.farm import Event, FarmState, refusal, step
from safekit.automaton.vocabulary import (
    Action,
    Become,
    Checkers,
    Command,
    Drain,
    Entered,
    Held,
    Links,
    Perform,
    Readiness,
    Resumed,
    Role,
    Say,
    Script,
    StepDone,
    StepFailed,
    Vip,
)

R, NR = Readiness.READY, Readiness.NOT_READY


@dataclass
class Node:
    """A node that performs every step at once, unless it must fail."""

    state: FarmState = field(default_factory=lambda: FarmState("n1"))
    done: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    fails: frozenset[str] = frozenset()
    waits: bool = False
    asked: Perform | None = None
    taken: set[str] = field(default_factory=set)

    def tell(self, event: Event) -> None:
        events = [event]
        while events:
            self.state, effects = step(self.state, events.pop(0))
            for effect in effects:
                match effect:
                    case Say(_, message):
                        self.said.append(message)
                    case Perform():
                        self.asked = effect
                        if not self.waits:
                            events.append(self.perform(effect))
                    case Entered():
                        pass
                    case _:
                        raise AssertionError(effect)

    def perform(self, perform: Perform) -> StepDone | StepFailed:
        match perform.step:
            case Script(name, force):
                named = f"{name} force" if force else name
            case Vip(up):
                named = f"vip {'up' if up else 'down'}"
                self._take("vip", up and named not in self.fails)
            case Links(up):
                named = f"links {'up' if up else 'down'}"
                self._take("links", up and named not in self.fails)
            case Checkers(when, up):
                named = f"checkers {when} {'up' if up else 'down'}"
                self._take(f"checkers {when}", up)
            case Drain():
                named = "drain"
            case other:
                raise AssertionError(other)
        self.done.append(named)
        if named in self.fails:
            return StepFailed(perform.serial, "no luck")
        return StepDone(perform.serial)

    def _take(self, what: str, up: bool) -> None:
        (self.taken.add if up else self.taken.discard)(what)

    def command(self, action: Action, identity: str = "") -> None:
        self.tell(Command(action, identity))


@pytest.fixture
def node() -> Node:
    return Node()


def is_(node: Node, role: Role, readiness: Readiness) -> bool:
    """Where the node is now."""
    return (node.state.role, node.state.readiness) == (role, readiness)


def waiting(node: Node) -> tuple[str, ...]:
    """Why it waits."""
    return node.state.waiting


@pytest.fixture
def up(node: Node) -> Node:
    node.command(Action.START)
    assert is_(node, Role.UP, R)
    node.done.clear()
    node.said.clear()
    return node


def test_start_opens_the_share_before_start_both(node: Node) -> None:
    node.command(Action.START)
    assert node.done == [
        "transition", "prestart", "links up", "checkers pre up",
        "transition", "vip up", "start_both", "checkers both up",
    ]  # fmt: skip
    assert is_(node, Role.UP, R)


def test_stop_gives_the_share_up_after_stop_both(up: Node) -> None:
    up.command(Action.STOP)
    assert up.done == [
        "checkers both down", "drain", "stop_both", "vip down", "transition",
        "stop_both force", "poststop", "transition", "checkers pre down", "links down",
    ]  # fmt: skip
    assert is_(up, Role.STOP, NR)
    assert not up.taken


def test_only_a_stop_of_a_person_waits_for_connections_and_any_other_command_ends_that(up: Node) -> None:
    up.waits = True
    up.command(Action.STOP)
    assert up.state.drains
    for action in (Action.FORCESTOP, Action.START):
        up.command(action)
        assert not up.state.drains
        up.command(Action.STOP)
        assert up.state.drains
    for identity in ("errd", "shutdown", "start_both"):
        up.command(Action.STOP, identity)
        assert not up.state.drains, identity


def test_restart_stays_in_the_farm(up: Node) -> None:
    up.command(Action.RESTART)
    assert up.done == ["checkers both down", "stop_both", "stop_both force", "start_both", "checkers both up"]
    assert "vip" in up.taken and is_(up, Role.UP, R)


@pytest.mark.parametrize("action", [Action.STOPSTART, Action.WAIT])
def test_stopstart_and_wait_go_through_stop_and_start_again(up: Node, action: Action) -> None:
    up.command(action, "errd")
    assert "poststop" in up.done and up.done[-1] == "checkers both up"
    assert "Action start called automatically" in up.said
    assert is_(up, Role.UP, R)


def test_wait_rule_leaves_the_farm_and_comes_back_when_it_no_longer_holds(up: Node) -> None:
    up.tell(Held(("interface_failure",)))
    assert is_(up, Role.WAIT, NR) and waiting(up) == ("rule interface_failure",)
    assert up.done == ["checkers both down", "drain", "stop_both", "vip down", "transition"]
    assert "Action wait from failover rule interface_failure" in up.said
    up.tell(Held(("interface_failure",)))
    up.tell(Held(("interface_failure", "ip_failure")))
    assert waiting(up) == ("rule interface_failure", "rule ip_failure")
    up.tell(Held(()))
    assert is_(up, Role.UP, R)


def test_a_held_module_can_be_stopped(up: Node) -> None:
    up.tell(Held(("interface_failure",)))
    up.command(Action.STOP)
    assert is_(up, Role.STOP, NR) and not up.taken


def test_address_that_cannot_be_taken_stops_the_module_and_says_why(node: Node) -> None:
    node.fails = frozenset({"vip up"})
    node.command(Action.START)
    assert is_(node, Role.STOP, NR) and node.state.reason == "no luck" and not node.taken
    assert "Vip failed, the module stops: no luck" in node.said
    assert "vip down" in node.done


def test_membership_that_cannot_start_stops_the_module(node: Node) -> None:
    node.fails = frozenset({"links up"})
    node.command(Action.START)
    assert is_(node, Role.STOP, NR) and "start_both" not in node.done


@pytest.mark.parametrize("failing", ["start_both", "checkers pre up", "vip down"])
def test_other_failures_are_said_and_the_plan_goes_on(node: Node, failing: str) -> None:
    node.fails = frozenset({failing})
    node.command(Action.START)
    assert is_(node, Role.UP, R)
    node.command(Action.STOP)
    assert is_(node, Role.STOP, NR)
    assert any("failed: no luck" in line for line in node.said)


@pytest.mark.parametrize(
    ("state", "action", "sentence"),
    [
        (FarmState("n1"), Action.PRIM, "`prim` is for mirror modules"),
        (FarmState("n1"), Action.SECOND, "`second` is for mirror modules"),
        (FarmState("n1"), Action.SWAP, "`swap` is for mirror modules"),
        (FarmState("n1"), Action.RESTART, "`restart` needs UP (Ready), and the module is in STOP NotReady"),
        (FarmState("n1"), Action.STOPSTART, "`stopstart` needs a started module, and it is in STOP"),
        (FarmState("n1"), Action.WAIT, "`wait` needs a started module, and it is in STOP"),
        (FarmState("n1", role=Role.UP, readiness=R), Action.RESTART, ""),
        (FarmState("n1", role=Role.UP, readiness=R), Action.STOPSTART, ""),
        (FarmState("n1"), Action.START, ""),
        (FarmState("n1"), Action.STOP, ""),
    ],
)
def test_refusals_say_what_is_needed(state: FarmState, action: Action, sentence: str) -> None:
    assert refusal(state, Command(action)) == sentence


def test_refused_command_changes_nothing_and_is_logged(node: Node) -> None:
    before = node.state
    node.command(Action.SWAP)
    assert node.state == before
    assert node.said == ["Action swap called by administrator refused: `swap` is for mirror modules"]


def test_an_answer_to_a_step_that_is_no_longer_asked_is_ignored(up: Node) -> None:
    before = up.state
    up.tell(StepDone(3))
    up.tell(StepFailed(99, "late"))
    up.tell(Resumed())
    assert up.state == before


def test_daemon_restart_asks_for_the_running_step_again(node: Node) -> None:
    node.waits = True
    node.command(Action.START)
    asked = node.asked
    assert asked is not None and asked.step == Script("transition")
    _, again = step(node.state, Resumed())
    assert again == (asked,)
    assert (asked.current, asked.next, asked.action) == (Role.WAIT, Role.WAIT, "start")


def test_what_happens_during_a_plan_is_only_noted(node: Node) -> None:
    node.waits = True
    node.command(Action.START)
    first = node.asked
    assert first is not None
    node.command(Action.STOP)
    node.tell(Held(("interface_failure",)))
    assert node.asked == first
    node.waits = False
    node.tell(node.perform(first))
    assert is_(node, Role.STOP, NR) and "start_both" not in node.done


@pytest.mark.parametrize("seed", range(200))
def test_what_is_taken_is_released_at_stop_whatever_happened(seed: int) -> None:
    random = Random(seed)
    node = Node(waits=True)
    names = [
        "vip up",
        "start_both",
        "stop_both",
        "stop_both force",
        "links up",
        "poststop",
        "prestart",
        "checkers pre up",
    ]
    for _ in range(200):
        happening = random.random()
        if happening < 0.55 and node.state.plan and node.asked is not None:
            node.fails = frozenset(random.sample(names, 2)) if random.random() < 0.1 else frozenset()
            node.tell(node.perform(node.asked))
        elif happening < 0.75:
            node.command(random.choice(tuple(Action)), random.choice(("", "errd")))
        elif happening < 0.85:
            node.tell(Held(random.choice(((), ("interface_failure",)))))
        else:
            node.tell(Resumed())
        assert not isinstance(node.state.plan[0] if node.state.plan else None, Become)
        if node.state.role is Role.UP and node.state.readiness is R:
            assert {"vip", "links", "checkers pre"} <= node.taken
        if not node.state.plan and node.state.role in (Role.WAIT, Role.STOP):
            assert "vip" not in node.taken
    node.fails = frozenset()
    node.tell(Held(()))
    node.command(Action.STOP)
    while node.state.plan:
        assert node.asked is not None
        node.tell(node.perform(node.asked))
    assert is_(node, Role.STOP, NR) and not node.state.rebound
    assert not node.taken, node.taken


def test_reason_follows_the_last_command(up: Node) -> None:
    up.command(Action.STOP)
    assert up.state.reason == "stop called by administrator"
    assert replace(up.state, reason="") != up.state
