"""The farm and light automata (spec §5.1): a node is STOP, WAIT or UP; a light module is a farm of one without an
address.

Theory. As in `mirror.py`: a plan runs, or `_decide` looks at what is wished and what holds the module. The other
nodes do not matter here: a change of the group changes the shares (`module/farm.py`), never a state, and runs no
script.

Invariant: `Vip(True)`, which opens this node's share, stands before `start_both`; `Vip(False)` after `stop_both`. With
scriptcontrol="on" scripts open it after the one and close it before the other ends (`module/farm.py`). A person's stop waits
for the connections that are there (`Drain`); whatever else makes a node leave does not, nor does a stop that is overruled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from safekit.automaton.vocabulary import (
    Action,
    Become,
    Checkers,
    Command,
    Drain,
    Effect,
    Entered,
    Held,
    Links,
    Perform,
    Readiness,
    Resumed,
    Role,
    Say,
    Script,
    Step,
    StepDone,
    StepFailed,
    Vip,
    Wish,
    services_to_restart,
)

T, R, NR = Readiness.TRANSIENT, Readiness.READY, Readiness.NOT_READY
STOP, WAIT, UP = Role.STOP, Role.WAIT, Role.UP

PLANS: dict[str, tuple[Step, ...]] = {
    # STOP -> WAIT
    "start": (Become(WAIT, T), Script("transition"), Script("prestart"), Links(True), Checkers("pre", True)),
    # WAIT -> UP
    "up": (
        Become(UP, T),
        Script("transition"),
        Vip(True),
        Script("start_both"),
        Checkers("both", True),
        Become(UP, R),
    ),
    # restart: stays in the farm
    "restart": (
        Become(UP, T),
        Checkers("both", False),
        Script("stop_both"),
        Script("stop_both", True),
        Script("start_both"),
        Checkers("both", True),
        Become(UP, R),
    ),
    # UP -> WAIT
    "leave": (
        Become(UP, T),
        Checkers("both", False),
        Drain(),
        Script("stop_both"),
        Vip(False),
        Become(WAIT, T),
        Script("transition"),
    ),
    # WAIT -> STOP
    "stop": (
        Script("stop_both", True),
        Script("poststop"),
        Script("transition"),
        Checkers("pre", False),
        Become(STOP, NR),
        Links(False),
    ),
}

Event = Command | StepDone | StepFailed | Held | Resumed


@dataclass(frozen=True)
class FarmState:
    """All that a farm or light module knows when it decides."""

    node: str
    role: Role = Role.STOP
    readiness: Readiness = Readiness.NOT_READY
    reason: str = "never started"
    wish: Wish = Wish.STOPPED
    rebound: bool = False
    restart: bool = False
    drains: bool = False
    """Whether a stop may wait for the connections that are there."""
    services: tuple[str, ...] = ()
    """What the restart that is asked for, or runs, is limited to."""
    held: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    plan: tuple[Step, ...] = ()
    row: str = ""
    action: str = "start"
    serial: int = 0
    waiting: tuple[str, ...] = ()


def refusal(state: FarmState, command: Command) -> str:
    """Why a command cannot be taken now, as one sentence; empty when it can."""
    action, role = command.action, state.role
    if action in (Action.PRIM, Action.SECOND, Action.SWAP):
        return f"`{action}` is for mirror modules"
    if action is Action.RESTART and (role is not UP or state.readiness is not R):
        return f"`restart` needs UP (Ready), and the module is in {role} {state.readiness}"
    if action in (Action.STOPSTART, Action.WAIT) and role is STOP:
        return f"`{action}` needs a started module, and it is in STOP"
    return ""


def step(state: FarmState, event: Event) -> tuple[FarmState, tuple[Effect, ...]]:
    """The next value of the automaton and what must be done. Pure."""
    said: tuple[Effect, ...] = ()
    match event:
        case StepDone(serial) | StepFailed(serial):
            if not state.plan or serial != state.serial:
                return state, ()
            state, said = _answered(state, event)
        case Resumed():
            if state.plan:
                return state, _perform(state)
        case Command():
            state, said = _command(state, event)
        case Held(rules, pending):
            said = tuple(Say("C", f"Action wait from failover rule {r}") for r in rules if r not in state.held)
            state = replace(state, held=rules, pending=pending)
    if state.plan and not isinstance(event, StepDone | StepFailed):
        return state, said
    state, effects = _advance(state)
    return state, said + effects


def _advance(state: FarmState) -> tuple[FarmState, tuple[Effect, ...]]:
    effects: list[Effect] = []
    while True:
        while state.plan and isinstance(state.plan[0], Become):
            head = state.plan[0]
            state = replace(
                state,
                role=head.role,
                readiness=head.readiness,
                waiting=(),
                plan=state.plan[1:],
                serial=state.serial + 1,
            )
            settled = head.readiness is not Readiness.TRANSIENT and not state.rebound
            effects.append(Entered(head.role, head.readiness, state.reason, settled))
        if state.plan:
            return state, (*effects, *_perform(state))
        state, more = _decide(state)
        effects.extend(more)
        if not state.plan:
            return state, tuple(effects)


def _perform(state: FarmState) -> tuple[Effect, ...]:
    following = next((s.role for s in state.plan if isinstance(s, Become)), state.role)
    return (Perform(state.plan[0], state.serial, state.role, following, state.action),)


def _answered(state: FarmState, event: StepDone | StepFailed) -> tuple[FarmState, tuple[Effect, ...]]:
    current = state.plan[0]
    rest = replace(state, plan=state.plan[1:], serial=state.serial + 1)
    if isinstance(event, StepDone):
        return rest, ()
    match current:
        case Vip(True) | Links(True):
            stopping = replace(rest, plan=(), wish=Wish.STOPPED, rebound=False, reason=event.why)
            return stopping, (Say("C", f"{type(current).__name__} failed, the module stops: {event.why}"),)
        case Script(name):
            return rest, (Say("C", f"Script {name} failed: {event.why}"),)
        case _:
            return rest, (Say("C", f"{type(current).__name__} failed: {event.why}"),)


def _command(state: FarmState, command: Command) -> tuple[FarmState, tuple[Effect, ...]]:
    why = refusal(state, command)
    who = command.identity or command.user or "administrator"
    if why:
        return state, (Say("C", f"Action {command.action} called by {who} refused: {why}"),)
    said = (Say("C" if command.identity else "U", f"Action {command.action} called by {who}"),)
    drains = command.action is Action.STOP and not command.identity
    state = replace(state, action=command.action.value, reason=f"{command.action} called by {who}", drains=drains)
    match command.action:
        case Action.START:
            return replace(state, wish=Wish.AUTO), said
        case Action.RESTART:
            running = bool(state.plan) and state.row.startswith("restart")
            services = services_to_restart(state.restart or running, state.services, command.services)
            return replace(state, restart=True, services=services), said
        case Action.STOPSTART | Action.WAIT:
            action = "stopwait" if command.action is Action.WAIT else state.action
            return replace(state, wish=Wish.STOPPED, rebound=True, action=action), said
        case _:
            return replace(state, wish=Wish.STOPPED, rebound=False, restart=False), said


def _decide(state: FarmState) -> tuple[FarmState, tuple[Effect, ...]]:
    if state.role is STOP:
        if state.rebound:
            state = replace(state, rebound=False, wish=Wish.AUTO, action="start", reason="start called automatically")
            return _go(state, "start", Say("E", "Action start called automatically"))
        return _go(state, "start") if state.wish is Wish.AUTO else (state, ())
    if state.role is WAIT:
        if state.wish is Wish.STOPPED:
            return _go(state, "stop")
        if state.held:
            return _blocked(state, NR, *(f"rule {rule}" for rule in state.held))
        if state.pending:
            return _blocked(state, Readiness.TRANSIENT, *(f"{name} is not tested yet" for name in state.pending))
        return _go(state, "up")
    if state.wish is Wish.STOPPED:
        return _go(state, "leave")
    if state.held:
        return _go(replace(state, reason=f"rule {state.held[0]}"), "leave")
    if state.restart:
        return _go(replace(state, restart=False), "restart")
    return state, ()


def _go(state: FarmState, row: str, *said: Effect) -> tuple[FarmState, tuple[Effect, ...]]:
    return replace(state, plan=PLANS[row], row=row), said


def _blocked(state: FarmState, readiness: Readiness, *waiting: str) -> tuple[FarmState, tuple[Effect, ...]]:
    if state.readiness is readiness and state.waiting == waiting:
        return state, ()
    reason = "; ".join(waiting)
    return replace(state, readiness=readiness, waiting=waiting, reason=reason), (
        Entered(WAIT, readiness, reason, settled=readiness is NR),
    )
