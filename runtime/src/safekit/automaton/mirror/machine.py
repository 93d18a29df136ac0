"""How a mirror automaton moves.

It takes in events, carries plans out step by step, and asks `decisions` what comes next.
"""

from __future__ import annotations

from dataclasses import replace

from safekit.automaton import data
from safekit.automaton.data import DataRecord, Holder
from safekit.automaton.mirror import claims
from safekit.automaton.mirror.decisions import decide, published, said_by
from safekit.automaton.mirror.plans import PLANS
from safekit.automaton.mirror.values import (
    Answered,
    DataPhase,
    DataSaid,
    Degraded,
    Event,
    Failover,
    Lapsed,
    MirrorState,
    Named,
    PeerView,
    Policy,
    Recorded,
    ResyncBegan,
    Silent,
    Trusted,
)
from safekit.automaton.vocabulary import (
    Action,
    Become,
    Command,
    DataAlone,
    DataHandover,
    DataPrimary,
    DataSecondary,
    DataStop,
    Effect,
    Entered,
    Held,
    Links,
    Pair,
    Perform,
    Publish,
    Readiness,
    Record,
    RecordKind,
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

STOP, WAIT, ALONE, PRIM, SECOND = Role.STOP, Role.WAIT, Role.ALONE, Role.PRIM, Role.SECOND
R = Readiness.READY


def refusal(state: MirrorState, command: Command) -> str:
    """Why a command cannot be taken now, as one sentence; empty when it can."""
    action, role = command.action, state.role
    if action in (Action.PRIM, Action.SECOND, Action.START) and role is not STOP:
        done = {Action.PRIM: (PRIM, ALONE), Action.SECOND: (SECOND,), Action.START: tuple(Role)}[action]
        if role in done:
            return ""
        return f"`{action}` needs the module in STOP, and it is in {role} {state.readiness}"
    if action is Action.SWAP and role not in (PRIM, SECOND):
        return f"`swap` needs PRIM and SECOND, and this node is in {role} {state.readiness}"
    if action is Action.SWAP and not (state.readiness is R and state.peer.is_(PRIM, SECOND)):
        return f"`swap` needs both nodes Ready: this one is {role} {state.readiness}, the other {said_by(state.peer)}"
    if action is Action.RESTART and (role not in (ALONE, PRIM, SECOND) or state.readiness is not R):
        return f"`restart` needs ALONE, PRIM or SECOND (Ready), and the module is in {role} {state.readiness}"
    if action in (Action.STOPSTART, Action.WAIT) and role is STOP:
        return f"`{action}` needs a started module, and it is in STOP"
    if action is Action.PRIM and state.replicated and not state.record.consistent and not command.force:
        return "`prim` is refused: " + data.why_not_alone(state.record)
    return ""


def step(state: MirrorState, event: Event) -> tuple[MirrorState, tuple[Effect, ...]]:
    """The next value of the automaton and what must be done. Pure."""
    said: tuple[Effect, ...] = ()
    if isinstance(event, StepDone | StepFailed):
        if state.urgent and event.serial == state.urgent_serial:
            return _urgent_answer(state, event)
        if not state.plan or event.serial != state.serial:
            return state, ()  # an answer to a step that is no longer the current one
        if isinstance(event, StepFailed):
            state, said = _failed(state, event)
        else:
            state = _done(state, event)
    elif isinstance(event, Resumed) and (state.plan or state.urgent):
        state, asked = claims.ask_again(state)
        return state, _perform_urgent(state) + _perform(state) + asked
    else:
        state, said = _note(state, event)
        if state.plan:
            state, more = _release_held_writes(state)
            return state, said + more
    state, effects = _advance(state)
    if state.plan:
        state, more = _release_held_writes(state)
        effects += more
    return state, said + effects


def _release_held_writes(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    """The mirroring peer was lost in the middle of a plan.

    Go alone beside the plan, once the peer is known not to serve; when it serves, the held writes end in an error.
    Two records are never written at once: the later one must know of the earlier.
    """
    if state.urgent or state.data is not DataPhase.LOST:
        return state, ()
    if not claims.arbitrated(state) and (not state.answered or state.peer.taking_over):
        return state, ()
    if isinstance(state.plan[0], Record | DataAlone):
        return state, ()
    granted = state.record.holder is Holder.ME or claims.may_serve_alone(state)
    if claims.arbitrated(state) and not granted:
        leaves = state.row.startswith(("leave_", "yield_"))
        if not claims.names_other(state) and not (leaves and claims.blocked(state)):
            return claims.ask(state, claims.me(state))
        state = replace(state, urgent=(DataStop(),))
    elif state.peer.is_(ALONE, PRIM) and not claims.arbitrated(state):
        state = replace(state, urgent=(DataStop(),))
    else:
        state = replace(state, urgent=(Record(RecordKind.ALONE), DataAlone()))
    return state, _perform_urgent(state)


def _perform_urgent(state: MirrorState) -> tuple[Effect, ...]:
    if not state.urgent:
        return ()
    return (Perform(state.urgent[0], state.urgent_serial, state.role, state.role, state.action),)


def _urgent_answer(state: MirrorState, event: StepDone | StepFailed) -> tuple[MirrorState, tuple[Effect, ...]]:
    """One urgent step ended. Their failure leaves the writes held: the plan's own steps will say what is wrong."""
    current, rest = state.urgent[0], state.urgent[1:]
    state = replace(state, urgent=rest, urgent_serial=state.urgent_serial - 1)
    said: tuple[Effect, ...] = ()
    if isinstance(event, StepFailed):
        state, said = replace(state, urgent=()), (Say("C", f"{_name(current)} failed: {event.why}"),)
    elif isinstance(current, Record):
        state = _recorded(state, event)
        return state, _perform_urgent(state)
    else:
        state = replace(state, data=DataPhase.OFF if isinstance(current, DataStop) else DataPhase.ALONE)
    if not state.plan:
        state, effects = _advance(state)
        return state, said + effects
    if isinstance(state.plan[0], Record):
        return state, said + _perform(state)  # it was kept waiting
    return state, said


def _advance(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Carry out `Become` steps, ask for the next step, and decide when a plan has ended."""
    effects: list[Effect] = []
    while True:
        while state.plan and isinstance(state.plan[0], Become):
            head = state.plan[0]
            state = replace(_enter(state, head), plan=state.plan[1:], serial=state.serial + 1)
            settled = head.readiness is not Readiness.TRANSIENT and not state.rebound
            effects.append(Entered(head.role, head.readiness, state.reason, settled))
        if state.plan:
            return state, (*effects, *_perform(state))
        if state.urgent:
            return state, tuple(effects)
        state, more = decide(state)
        effects.extend(more)
        if not state.plan:
            return state, tuple(effects)


def _enter(state: MirrorState, become: Become) -> MirrorState:
    was = state.role if become.role is ALONE and state.role in (PRIM, SECOND) else state.was
    if become.role in (WAIT, STOP, PRIM):
        was = Role.STOP
    ends_handover = become.role is not SECOND or become.readiness is R
    return replace(
        state,
        role=become.role,
        readiness=become.readiness,
        was=was,
        waiting=(),
        swap=state.swap and become.role is state.role,
        refused=None,
        handed_over="" if ends_handover else state.handed_over,
        yielding=state.yielding and become.role is not WAIT,
        degraded=state.degraded if become.role is ALONE else "",
        home=state.home and become.role not in (ALONE, PRIM),
        forced=state.forced and become.role is not STOP,
        lapsed=state.lapsed and become.role is not STOP and not _begins(state, become),
    )


def _begins(state: MirrorState, become: Become) -> bool:
    """Whether a node in WAIT takes up a role."""
    return state.role is WAIT and become.role in (ALONE, SECOND)


def _perform(state: MirrorState) -> tuple[Effect, ...]:
    if not state.plan or (state.urgent and isinstance(state.plan[0], Record)):
        return ()
    following = next((s.role for s in state.plan if isinstance(s, Become)), state.role)
    return (Perform(state.plan[0], state.serial, state.role, following, state.action),)


def _done(state: MirrorState, event: StepDone) -> MirrorState:
    """The current step was carried out: note what it means, and drop it."""
    current = state.plan[0]
    state = replace(state, plan=state.plan[1:], serial=state.serial + 1)
    match current:
        case Record():
            return _recorded(state, event)
        case DataPrimary() | DataAlone():
            return replace(state, data=DataPhase.ALONE, forced=False)
        case DataSecondary():
            return replace(state, data=DataPhase.RECEIVING)
        case DataHandover():
            return replace(state, data=DataPhase.OFF, handed_over=state.record.generation or "nothing")
        case DataStop():
            return replace(state, data=DataPhase.OFF)
        case Publish():
            return replace(state, fullsync=False)
        case Links(False):
            return replace(state, peer=PeerView(), not_proven="")
        case _:
            return state


def _recorded(state: MirrorState, event: StepDone) -> MirrorState:
    """The record that is on disk now is the one that the answer carries, whatever was heard since the step began."""
    assert isinstance(event, Recorded)
    return replace(state, record=event.record)


def _failed(state: MirrorState, event: StepFailed) -> tuple[MirrorState, tuple[Effect, ...]]:
    """A step could not be carried out.

    A script that fails is the application's affair; everything else has a branch here.
    """
    current = state.plan[0]
    rest = replace(state, plan=state.plan[1:], serial=state.serial + 1)
    match current:
        case DataHandover() if state.row == "swap_out" and state.peer.is_(ALONE, PRIM):
            again = replace(state, plan=PLANS["yield_prim"], row="yield_prim", serial=state.serial + 1)
            return again, (Say("C", f"Swap given up, the other node serves already: {event.why}"),)
        case DataHandover() if state.row == "swap_out" and state.lapsed:
            again = replace(state, plan=PLANS["lapse_prim"], row="lapse_prim", serial=state.serial + 1)
            return again, (Say("C", f"Swap given up: {event.why}"),)
        case DataHandover() if state.row == "swap_out":
            row = "swap_undone" if claims.arbitrated(state) else "swap_failed"
            again = replace(state, plan=PLANS[row], row=row, serial=state.serial + 1)
            return again, (Say("C", f"Swap given up, this node stays primary: {event.why}"),)
        case DataHandover():
            return replace(rest, plan=(DataStop(), *rest.plan)), (
                Say("C", f"The secondary did not confirm the last data: {event.why}"),
            )
        case Pair():
            alone = replace(state, plan=PLANS["swap_in_alone"], row="swap_in_alone", serial=state.serial + 1)
            return alone, (Say("E", f"The former primary is not yet a secondary: {event.why}"),)
        case Record(RecordKind.LEFT):
            # The record before it claims no more than this node has; trying again for ever would help nobody.
            return rest, (Say("C", f"{_name(current)} failed: {event.why}"),)
        case Vip(True) | DataPrimary() | DataSecondary() | DataAlone() | Record() | Links(True):
            stopping = replace(
                state, plan=(), wish=Wish.STOPPED, rebound=False, serial=state.serial + 1, reason=event.why
            )
            return stopping, (Say("C", f"{type(current).__name__} failed, the module stops: {event.why}"),)
        case _:
            return rest, (Say("C", f"{_name(current)} failed: {event.why}"),)


def _name(step_: Step) -> str:
    return f"Script {step_.name}" if isinstance(step_, Script) else type(step_).__name__


def record_for(state: MirrorState, kind: RecordKind) -> DataRecord:
    """The record that a `Record` step writes; the module writes exactly this to disk before it answers."""
    record = state.record
    match kind:
        case RecordKind.ALONE:
            role = PRIM if state.role is PRIM else ALONE
            alone = data.alone(record, state.node, state.nonce, state.peer.record.epoch, role)
            return replace(alone, granted=state.grant) if claims.granted_alone(state) else alone
        case RecordKind.BOTH:
            both = data.both(record, PRIM)
            return replace(both, granted=state.grant) if claims.granted_pair(state) else both
        case RecordKind.ADOPTED:
            granted = state.peer.record.granted if published(state) else record.granted
            return replace(record, holder=Holder.BOTH, role=SECOND, clean=False, consistent=True, granted=granted)
        case RecordKind.JOINING:
            return data.yielded(record) if state.fullsync else data.joining(record)
        case RecordKind.LEFT:
            if state.yielding:
                return data.yielded(record)
            if state.role is PRIM and not state.handed_over:
                # What was written here and not acknowledged may be here only: the copy must be compared whole.
                mine = Holder.PEER if state.row == "yield_prim" else record.holder
                return replace(record, holder=mine, role=PRIM, clean=mine is Holder.ME)
            role = state.role if state.role in (PRIM, SECOND) else ALONE
            if state.row == "yield_alone" and record.holder is Holder.BOTH and claims.arbitrated(state):
                return replace(record, holder=Holder.PEER, role=role, clean=False)
            return data.left(record, role, bool(state.handed_over))


def _note(state: MirrorState, event: Event) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Take in what happened outside, as levels; nothing is decided here."""
    match event:
        case Command():
            return _command(state, event)
        case Held(rules, pending):
            said = tuple(Say("C", f"Action wait from failover rule {r}") for r in rules if r not in state.held)
            return replace(state, held=rules, pending=pending), said
        case PeerView():
            return _peer(state, event)
        case DataSaid():
            return _data(state, event)
        case ResyncBegan():
            return replace(state, record=data.resynchronising(state.record)), ()
        case Failover(on):
            return replace(state, failover=on), ()
        case Trusted(holds):
            return replace(state, trusted=holds), ()
        case Answered():
            return _answered(state, event)
        case Silent(since):
            return _silent(state, since)
        case Lapsed(why):
            return _lapsed(state, why)
        case Resumed():
            return claims.ask_again(state)
        case Degraded(why):
            said = (Say("C", f"the replication is degraded: {why}"),) if why and why != state.degraded else ()
            return replace(state, degraded=why), said
        case _:
            return state, ()


def _answered(state: MirrorState, answer: Answered) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Only the answer to the claim that is out counts."""
    asked = state.asked
    if asked is None or answer.number != asked.number:
        return state, ()
    state = replace(state, asked=None, silent="", register=Named(answer.epoch, answer.holders))
    names, who = ", ".join(answer.holders) or "nobody", "Fence" if state.policy is Policy.FENCE else "Witness"
    if answer.granted:
        said = Say("E", f"{who}: granted, epoch {answer.epoch} names {names}", about="the witness")
        return replace(state, grant=answer.epoch, refused=None), (said,)
    said = Say("E", f"{who}: refused, epoch {answer.epoch} names {names}", about="the witness")
    return replace(state, refused=replace(asked, number=0)), (said,)


def _silent(state: MirrorState, since: str) -> tuple[MirrorState, tuple[Effect, ...]]:
    if state.asked is None or since == state.silent:
        return state, ()
    told = f"Fence: {since}" if state.policy is Policy.FENCE else f"Witness: silent since {since}"
    said = (Say("C", told, about="the witness"),) if since else ()
    return replace(state, silent=since), said


_GOES_DOWN = ("leave_", "yield_", "lapse_", "swap_out")


def _lapsed(state: MirrorState, why: str) -> tuple[MirrorState, tuple[Effect, ...]]:
    """The lease ran out: what would start the application again is not done any more.

    A step under way is waited for. Who goes down already goes on to do so.
    """
    if state.role not in (ALONE, PRIM) or state.lapsed:
        return state, ()
    said = Say("C", f"the lease of this node ran out: {why}")
    state, withdrawn = claims.withdraw(replace(state, lapsed=True))
    if state.row.startswith(_GOES_DOWN) and state.plan:
        return state, (said, *withdrawn)
    state = replace(state, reason=f"the lease ran out: {why}")
    if state.plan:
        row = "lapse_prim" if state.role is PRIM else "lapse_alone"
        state = replace(state, row=row, plan=(state.plan[0], *PLANS[row]))
    return state, (said, *withdrawn)


def _command(state: MirrorState, command: Command) -> tuple[MirrorState, tuple[Effect, ...]]:
    why = refusal(state, command)
    who = command.identity or command.user or "administrator"
    if why:
        return state, (Say("C", f"Action {command.action} called by {who} refused: {why}"),)
    said = (Say("C" if command.identity else "U", f"Action {command.action} called by {who}"),)
    reason = f"{command.action} called by {who}"
    state = replace(state, action=command.action.value, reason=reason)
    match command.action:
        case Action.START | Action.PRIM | Action.SECOND:
            if state.role is not STOP:
                return state, said
            wish = {Action.START: Wish.AUTO, Action.PRIM: Wish.PRIM, Action.SECOND: Wish.SECOND}[command.action]
            fullsync = command.fullsync and command.action is not Action.START
            return replace(state, wish=wish, fullsync=fullsync, forced=command.force), said
        case Action.STOP | Action.FORCESTOP:
            return replace(state, wish=Wish.STOPPED, rebound=False, restart=False, swap=False), said
        case Action.STOPSTART:
            return replace(state, wish=Wish.STOPPED, rebound=True), said
        case Action.RESTART:
            running = bool(state.plan) and state.row.startswith("restart")
            services = services_to_restart(state.restart or running, state.services, command.services)
            return replace(state, restart=True, services=services), said
        case Action.SWAP:
            return replace(state, swap=True), said
        case Action.WAIT:
            return replace(state, wish=Wish.STOPPED, rebound=True, action="stopwait"), said


def _peer(state: MirrorState, peer: PeerView) -> tuple[MirrorState, tuple[Effect, ...]]:
    before, after = said_by(state.peer), said_by(peer)
    why = f" ({peer.reason})" if peer.alive and peer.reason else ""
    said = (
        (Say("E", f"Remote state {after}{why}", about="the other node"),)
        if before != after or state.peer.alive is None
        else ()
    )
    if before != after:
        state = replace(state, refused=None)
    if peer.alive:
        state = replace(state, not_proven="")
    return replace(state, peer=peer, register=claims.known(state, peer)), said


def _data(state: MirrorState, event: DataSaid) -> tuple[MirrorState, tuple[Effect, ...]]:
    said = (Say("I", f"Replication: {event.phase}{': ' + event.why if event.why else ''}"),)
    if event.phase is DataPhase.INSTEP and event.record is not None:
        epoch = max(state.record.epoch, event.record.epoch)
        record = replace(data.adopted(event.record), epoch=epoch, holder=Holder.PEER, granted=state.record.granted)
        # Nothing is lacking any more: who leaves now leaves a clean copy, and what is written on its taking part says so itself.
        return replace(state, data=event.phase, record=replace(record, clean=True)), said
    if event.phase in (DataPhase.LOST, DataPhase.CUT):
        said = (Say("C", f"Replication with the other node is interrupted: {event.why}"),)
        # Above every question of an earlier life that the peer may still answer.
        return replace(state, data=event.phase, asks=max(state.asks, state.peer.answers) + 1), said
    return replace(state, data=event.phase), said
