"""Which row comes next when no plan runs: one function for each major state. The first line that applies wins."""

from __future__ import annotations

from dataclasses import replace

from safekit.automaton import data
from safekit.automaton.data import Decision, Holder
from safekit.automaton.mirror import claims
from safekit.automaton.mirror.plans import PLANS
from safekit.automaton.mirror.values import DataPhase, MirrorState, PeerView, Policy
from safekit.automaton.register import Ground
from safekit.automaton.vocabulary import Connect, Effect, Entered, Readiness, Role, Say, Wish

T, R, NR = Readiness.TRANSIENT, Readiness.READY, Readiness.NOT_READY
STOP, WAIT, ALONE, PRIM, SECOND = Role.STOP, Role.WAIT, Role.ALONE, Role.PRIM, Role.SECOND


_SERVED = (PRIM, ALONE)

SECONDARY_RULES = ("rfs_syncat_wait",)
"""Wait-rules about being a secondary (spec §4.9.5): they do not hold a node that serves, or that must."""


SPLIT_BRAIN_RULE = "splitbrain_failure"
"""This node is cut off from the rest of the network (spec §4.6)."""


def _holding(state: MirrorState, serves: bool) -> tuple[str, ...]:
    return tuple(rule for rule in state.held if not (serves and rule in SECONDARY_RULES))


def said_by(peer: PeerView) -> str:
    """The peer's state as the log shows it (spec §11.1)."""
    return f"{peer.role} {peer.readiness}" if peer.alive else "UNKNOWN"


def _go(state: MirrorState, row: str, reason: str, **changes: object) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Begin a row, for a reason. What is asked of the witness was asked for something else."""
    state, withdrawn = claims.withdraw(state)
    return replace(state, plan=PLANS[row], row=row, reason=reason, **changes), withdrawn  # type: ignore[arg-type]


def _compare(state: MirrorState) -> Decision:
    """Which of the two nodes has the data, by their records.

    Who gave up because its lease ran out lost nothing: its record is not clean because nothing was written to it.
    """
    mine, theirs = state.record, state.peer.record
    return data.compare(
        replace(mine, clean=mine.clean or state.lapsed), replace(theirs, clean=theirs.clean or state.peer.lapsed)
    )


def _go_alone(state: MirrorState, row: str, reason: str) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Begin a row by which a primary becomes sole holder, when it may; else ask for it."""
    if state.record.holder is Holder.ME or claims.may_serve_alone(state):
        return _go(state, row, reason)
    return claims.ask(state, claims.me(state))


def published(state: MirrorState) -> bool:
    """Whether the primary says itself that this node holds everything, under the generation that it published."""
    theirs = state.peer.record
    return theirs.holder is Holder.BOTH and theirs.generation == state.record.generation


def _stay(state: MirrorState, readiness: Readiness, *waiting: str) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Stay in WAIT, and say why when the reason is new."""
    if state.readiness is readiness and state.waiting == waiting:
        return state, ()
    reason = "; ".join(waiting)
    entered = Entered(state.role, readiness, reason, settled=readiness is Readiness.NOT_READY)
    return replace(state, readiness=readiness, waiting=waiting, reason=reason), (entered,)


def decide(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    """No plan runs: which row comes next? One function per major state."""
    match state.role:
        case Role.STOP:
            return _decide_stop(state)
        case Role.WAIT:
            return _decide_wait(state)
        case Role.SECOND:
            return _decide_second(state)
        case _:
            return _decide_primary(state)


def _decide_stop(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    if state.rebound:
        state = replace(state, rebound=False, wish=Wish.AUTO, action="start", home=_comes_home(state))
        state, effects = _go(state, "start", "start called automatically", yielding=False)
        return state, (Say("E", "Action start called automatically"), *effects)
    if state.wish is Wish.STOPPED:
        return state, ()
    return _go(state, "start", state.reason, yielding=False, home=_comes_home(state))


def _comes_home(state: MirrorState) -> bool:
    """Whether this node, which starts, is to be primary when both run (spec §3.2 `defaultprim`)."""
    if state.defaultprim == "lastprim":
        return state.record.role in _SERVED
    return state.defaultprim == state.node


def _was_secondary(state: MirrorState) -> bool:
    """Without failover, who was secondary never becomes primary by itself (spec §4.7)."""
    return not state.failover and state.record.role is SECOND


def _decide_wait(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    peer, record = state.peer, state.record
    if state.wish is Wish.STOPPED:
        return _go(state, "stop", state.reason)
    arbitrated = claims.arbitrated(state)
    on_trust = state.trusted and peer.alive is False and data.may_start_on_trust(record) and not arbitrated
    if holding := _holding(state, on_trust):
        return _stay(state, NR, *(f"rule {r}" for r in holding))
    if state.pending:
        return _stay(state, T, *(f"{name} is not tested yet" for name in state.pending))
    if peer.alive is None:
        return _stay(state, T, "listening for the other node")
    if state.wish is Wish.PRIM:
        if peer.is_(ALONE, PRIM):
            return _give_up(state, f"prim refused: the other node is {said_by(peer)}")
        if not claims.may_serve_alone(state) and not state.silent and state.refused is None:
            return _ask_and_wait(state, Ground.ORDER)
        return _go(state, "alone", "prim called", wish=Wish.AUTO)
    if peer.is_(ALONE) and peer.degraded:
        return _stay(state, NR, f"rule degraded_server: the other node cannot replicate: {peer.degraded}")
    if peer.is_(ALONE):
        return _join(state)
    if peer.is_(PRIM, SECOND):
        return _stay(state, T, f"the other node is {said_by(peer)} and will take over")
    if state.wish is Wish.SECOND:
        if peer.is_(WAIT) and peer.readiness is T and not _never_primary_before_me(state):
            return _stay(state, T, f"the other node is {said_by(peer)}")
        return _give_up(state, f"second refused: the other node is not primary ({said_by(peer)})")
    if peer.is_(WAIT):
        return _decide_wait_both(state)
    if _was_secondary(state):
        return _stay(state, NR, f"rule failover_off: {_PROMOTE}")
    if arbitrated and state.not_proven and peer.alive is False:
        return _stay(state, NR, f"rule fence_failed: {state.not_proven}: {_IT_IS_OFF}")
    if arbitrated:
        return _decide_wait_by_register(state)
    if not state.replicated or data.may_start_alone(record):
        return _go(state, "alone", f"the other node is {said_by(peer)}")
    if on_trust:
        why = "rule rfs_forceuptodate: the other node is silent, and the last synchronisation is younger than syncdelta"
        state, effects = _go(state, "alone", why)
        return state, (Say("C", why), *effects)
    return _stay(state, NR, f"rule rfs_notuptodate_server: {data.why_not_alone(record)}")


def _decide_wait_by_register(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    """The peer is silent or stopped, and a witness decides.

    A node that lost its memory while both held is no holder in practice: not even with the consent of the peer, which was
    meant for what this node had then. It asks only whether it was named alone. Who gave up because its lease ran out lost
    nothing, and asks as it would have.
    """
    record, register = state.record, state.register
    if not record.consistent or record.holder not in (Holder.ME, Holder.BOTH):
        return _stay(state, NR, f"rule rfs_notuptodate_server: {data.why_not_alone(record)}")
    if claims.consented_anew(state) or claims.granted_alone(state):
        return _go(state, "alone", f"the other node is {said_by(state.peer)}")
    if claims.names_other(state):
        return _stay(state, NR, f"{claims.arbiter(state)} names {state.peer_node}: this node waits for its data")
    look = record.holder is Holder.BOTH and not claims.names_me(state) and not state.lapsed
    if look and state.refused is not None and register.holders:
        return _stay(state, NR, "this node lost its memory while both held the data: it waits for the other node")
    return _ask_and_wait(state, look=look)


def _ask_and_wait(
    state: MirrorState, ground: Ground = Ground.HOLDER, look: bool = False
) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Ask to serve alone, and say in words what is waited for."""
    state, asked = claims.ask(state, claims.me(state), ground, look)
    if state.silent:
        why = f"no automatic failover possible: {_trouble(state)}"
    elif state.asked is not None:
        why = f"{claims.arbiter(state)} is asked"
    elif not state.register.holders:
        why = "the witness has no register of this module: start the other node too, or run `safekit prim`"
    else:
        why = f"{claims.arbiter(state)} names {', '.join(state.register.holders)}"
    state, said = _stay(state, T if state.asked is not None and not state.silent else NR, why)
    return state, (*asked, *said)


def _trouble(state: MirrorState) -> str:
    """Why the arbiter does not answer."""
    return state.silent if state.policy is Policy.FENCE else f"the witness is silent since {state.silent}"


def _never_primary_before_me(state: MirrorState) -> bool:
    """`second` waits for a peer that is starting, but not for one that waits for this node."""
    if state.peer.wish is Wish.SECOND:
        return True
    return state.replicated and _compare(state) is Decision.MINE


def _decide_wait_both(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Both nodes wait, each knows the other's record: the same pure function says on both who goes first."""
    peer = state.peer
    if peer.wish is Wish.PRIM:
        return _stay(state, T, "the other node starts as primary")
    if peer.wish is Wish.STOPPED:
        return _stay(state, T, "the other node is stopping")
    if _was_secondary(state) and peer.record.role in _SERVED:
        mine = state.replicated and _compare(state) is Decision.MINE
        if mine:
            return _stay(
                state, NR, f"rule failover_off: this node has more of the data than the former primary: {_PROMOTE}"
            )
        return _stay(state, T, "the other node was primary and goes first")
    if not state.replicated and not state.failover and peer.record.role is SECOND and state.record.role in _SERVED:
        return _go(state, "alone", "failover is off, and this node was primary")
    if not state.replicated:
        first = peer.record.role is not PRIM and (state.record.role is PRIM or state.node < state.peer_node)
        if first:
            return _go(state, "alone", state.reason)
        return _stay(state, T, "the other node goes first")
    decision = _compare(state)
    if claims.arbitrated(state):
        return _decide_wait_both_by_register(state, decision)
    if decision is Decision.MINE and state.record.generation:
        return _go(state, "alone", "both nodes are back; this one has the data")
    if decision is Decision.THEIRS:
        return _stay(state, T, "the other node has the data and goes first")
    if decision in (Decision.SPLIT, Decision.FOREIGN):
        return _stay(state, NR, _TWO_HISTORIES[decision])
    return _stay(state, NR, f"rule rfs_notuptodate_server: {data.why_not_alone(state.record)}")


_IT_IS_OFF = "once the other node is off, run `safekit stop` and `safekit prim` here"
_PROMOTE = "failover is off: start the other node, or run `safekit stop` and `safekit prim` here"


def _decide_wait_both_by_register(state: MirrorState, decision: Decision) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Whom the register names alone has every acknowledged write, whatever the records say of the rest."""
    if state.lapsed and claims.consented_anew(state):
        return _go(state, "alone", "both nodes are back; this one lost nothing, and the other one gave way")
    mine = decision is Decision.MINE and bool(state.record.generation)
    if mine or claims.names_me(state):
        if claims.may_serve_alone(state):
            return _go(state, "alone", "both nodes are back; this one has the data")
        if not claims.names_other(state):
            return _ask_and_wait(state, Ground.TOGETHER)
        return _stay(state, NR, f"{claims.arbiter(state)} names {state.peer_node}")
    if decision is Decision.THEIRS:
        return _stay(state, T, "the other node has the data and goes first")
    if decision in (Decision.SPLIT, Decision.FOREIGN):
        return _stay(state, NR, _TWO_HISTORIES[decision])
    return _stay(state, NR, f"rule rfs_notuptodate_server: {data.why_not_alone(state.record)}")


_TWO_HISTORIES = {
    Decision.SPLIT: "both nodes served alone and their data differ: "
    "run `safekit second fullsync` on the node to overwrite",
    Decision.FOREIGN: "the data of the two nodes have nothing in common: "
    "run `safekit second fullsync` on the node to overwrite",
}


def _give_up(state: MirrorState, why: str) -> tuple[MirrorState, tuple[Effect, ...]]:
    state, effects = _go(state, "stop", why, wish=Wish.STOPPED)
    return state, (Say("C", why), *effects)


def _join(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    """The peer serves: become its secondary, unless that would overwrite a history of our own."""
    reason = f"the other node is {said_by(state.peer)}"
    if state.replicated and not state.fullsync:
        decision = _compare(state)
        if decision in (Decision.SPLIT, Decision.FOREIGN):
            return _stay(state, NR, _TWO_HISTORIES[decision])
    return _go(state, "second", reason, wish=Wish.AUTO)


def _decide_second(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    peer, arbitrated = state.peer, claims.arbitrated(state)
    if arbitrated and claims.granted_alone(state) and state.row == "candidate":
        # nobody else may serve now, whatever is wished
        return _go(state, "promote", f"{claims.arbiter(state)} named this node")
    if state.wish is Wish.STOPPED or state.held:
        reason = state.reason if state.wish is Wish.STOPPED else f"rule {state.held[0]}"
        return _go(state, "leave_second", reason)
    if state.row == "candidate":
        return _decide_candidate(state)
    if state.data is DataPhase.FAILED:
        return _go(state, "leave_second", "the data plane stopped")
    if state.readiness is T:
        if peer.is_(ALONE) and peer.degraded:
            return _go(state, "leave_second", "the other node cannot replicate")
        if arbitrated and state.data is DataPhase.INSTEP and not published(state) and peer.is_(ALONE, PRIM):
            return state, ()  # it has published; its next word says in which epoch
        if state.data is DataPhase.INSTEP or (not state.replicated and peer.is_(ALONE, PRIM)):
            return _go(state, "second_ready", "synchronised with the primary", fullsync=False)
        if arbitrated and claims.named_beside_server(state):
            return claims.ask(state, claims.pair(state))
        if peer.is_(ALONE, PRIM) and not (state.data is DataPhase.CUT and state.answered):
            return state, ()
        if peer.is_(SECOND) and state.handed_over:
            return state, ()
        return _go(state, "leave_second", "the primary is gone before the end of the synchronisation")
    if _went_on_without_me(state):
        return _go(state, "leave_second", "the primary went on without this node")
    if arbitrated and state.data is DataPhase.CUT and peer.is_(ALONE, PRIM) and peer.blocked:
        return _go(state, "leave_second", "the primary is blocked without a witness: this node gives way")
    if (gone := _gone(peer)) and not state.failover:
        state, effects = _go(state, "leave_second", f"{gone}, and failover is off", wish=Wish.STOPPED, rebound=True)
        return state, (Say("C", f"Action stopstart called by failover-off: {gone}"), *effects)
    if gone:
        return _take_over(state, gone)
    if peer.is_(SECOND) and peer.handed_over and (peer.handed_over == state.record.generation or not state.replicated):
        return _go(state, "failover" if arbitrated else "swap_in", "swap", swap=False)
    if state.home and peer.is_(PRIM) and peer.readiness is R:
        said = Say("E", "Transition SWAP from defaultprim")
        return replace(state, home=False, swap=True, reason="swap called by defaultprim"), (said,)
    if state.restart:
        return _go(state, "restart_second", state.reason, restart=False)
    return state, ()


def _gone(peer: PeerView) -> str:
    """Why the other node is no half of the pair any more, as the log says it; empty while it is."""
    if peer.alive is False:
        return "no heartbeat"
    return "remote stop" if peer.is_(STOP, WAIT) else ""


def _take_over(state: MirrorState, reason: str) -> tuple[MirrorState, tuple[Effect, ...]]:
    """The primary is gone: what the policy makes of it."""
    silent = state.peer.alive is False and not claims.consented(state)
    if state.policy is Policy.MANUAL and state.replicated and silent:
        return state, ()
    if claims.may_serve_alone(state):
        return _go(state, "failover", reason)
    return _go(state, "candidate", reason)


def _decide_candidate(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Out of the stream, everything durable: the witness or the peer says what comes next."""
    peer = state.peer
    if claims.consented(state):
        return _go(state, "promote", "remote stop")
    if claims.names_other(state):
        return _go(state, "leave_second", f"{claims.arbiter(state)} named {state.peer_node}")
    if _went_on_without_me(state):
        return _go(state, "leave_second", "the primary went on without this node")
    if peer.is_(ALONE, PRIM) and (peer.blocked or state.silent):
        why = f"{claims.arbiter(state)} is silent, and the primary is back: this node gives way"
        return _go(state, "leave_second", why)
    if state.policy is Policy.FENCE and state.silent:
        return _go(state, "leave_second", state.silent, not_proven=state.silent)
    if peer.is_(WAIT) and peer.lapsed and state.silent:
        return _go(state, "leave_second", "the witness is silent, and the former primary is back: this node gives way")
    return claims.ask(state, claims.me(state))


def _went_on_without_me(state: MirrorState) -> bool:
    """Whether the peer has said that it alone holds the latest data, under a generation that this node does not
    have.
    """
    theirs = state.peer.record
    return state.replicated and theirs.holder is Holder.ME and state.record.generation in theirs.history


def _decide_primary(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    peer, prefix = state.peer, "prim" if state.role is PRIM else "alone"
    if state.lapsed:
        return _go(state, f"lapse_{prefix}", state.reason)
    if state.data is DataPhase.FAILED:
        state = replace(state, wish=Wish.STOPPED, rebound=state.wish is not Wish.STOPPED)
        return _go(state, f"leave_{prefix}", "the data plane stopped")
    if _must_yield(state):
        said = Say("C", f"Split brain recovery: exiting {state.role.lower()} (the other node is {said_by(peer)})")
        row = "yield_prim" if state.role is PRIM else "yield_alone"
        state, effects = _go(
            state,
            row,
            "split brain recovery: exiting alone",
            yielding=state.record.holder is Holder.ME,
            wish=Wish.AUTO if state.wish is not Wish.STOPPED else Wish.STOPPED,
        )
        return state, (said, *effects)
    if _passed_over(state):
        wish = Wish.AUTO if state.wish is not Wish.STOPPED else Wish.STOPPED
        row = "yield_prim" if state.role is PRIM else "yield_alone"
        return _go(state, row, f"{claims.arbiter(state)} named {state.peer_node}", yielding=False, wish=wish)
    if state.replicated and state.data is DataPhase.OFF:
        return _go(state, f"leave_{prefix}", "the data plane was stopped beside a plan")
    holding = _holding(state, True)
    if state.wish is Wish.STOPPED or holding:
        reason = state.reason if state.wish is Wish.STOPPED else f"rule {holding[0]}"
        cut_off = SPLIT_BRAIN_RULE in holding  # the peer may serve: writes that this node holds end in an error
        return _go(state, f"yield_{prefix}" if cut_off else f"leave_{prefix}", reason)
    if state.role is PRIM:
        return _decide_prim(state)
    return _decide_alone(state)


def _passed_over(state: MirrorState) -> bool:
    """Whether the register went on without this node, which still counts on its peer's acknowledgement."""
    return (
        claims.arbitrated(state)
        and state.record.holder is Holder.BOTH
        and claims.names_other(state)
        and not claims.consented(state)
    )


def _must_yield(state: MirrorState) -> bool:
    """Both nodes serve.

    The one that did not go on alone yields (it loses nothing); else the former primary stays (spec §4.6).
    """
    peer = state.peer
    if not peer.is_(ALONE) and not (peer.is_(PRIM) and peer.readiness is R):
        return False
    if state.replicated and state.record.holder is Holder.BOTH and peer.record.holder is Holder.ME:
        return state.record.generation in peer.record.history
    in_mine = state.record.holder is Holder.ME and peer.record.generation in state.record.history
    if state.replicated and in_mine and peer.record.holder is Holder.BOTH:
        return False  # the same question, seen from the other side: it yields
    if state.role is PRIM or peer.role is PRIM:
        return False
    mine, theirs = state.was is PRIM, peer.was is PRIM
    if mine != theirs:
        return theirs
    return state.record.generation < peer.record.generation


def _decide_prim(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    peer = state.peer
    if claims.arbitrated(state):
        if state.data in (DataPhase.LOST, DataPhase.ALONE):
            return _go_alone(state, "lost", _gone(peer) or "the secondary no longer acknowledges")
        if state.record.granted == 0 and peer.is_(SECOND) and peer.readiness is R:
            return _found(state)
    elif peer.alive is False:
        return _go(state, "lost", "no heartbeat")
    elif peer.is_(STOP, WAIT):
        return _go(state, "lost", "remote stop")
    elif (
        state.data in (DataPhase.LOST, DataPhase.ALONE) and state.replicated and state.answered and not peer.taking_over
    ):
        return _go(state, "lost", "the secondary no longer acknowledges")
    if state.swap or peer.asks_swap:
        if peer.is_(SECOND) and peer.readiness is R:
            return _go(state, "swap_out", "swap", swap=False)
        return replace(state, swap=False), ()
    if state.restart:
        return _go(state, "restart_prim", state.reason, restart=False)
    return state, ()


def _found(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    """A pair that serves already has a witness now: both nodes are heard and hold everything."""
    if claims.granted_pair(state):
        return _go(state, "founded", state.reason)
    return claims.ask(state, claims.pair(state), Ground.TOGETHER)


def _decide_alone(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    peer, arbitrated = state.peer, claims.arbitrated(state)
    if state.data is DataPhase.LOST and (arbitrated or (state.answered and not peer.taking_over)):
        return _go_alone(state, "lost_early", "the secondary went away")
    if state.data is DataPhase.ALONE and state.record.holder is Holder.BOTH:
        return _go_alone(state, "lost_early", "the secondary went away")
    if state.restart:
        return _go(state, "restart_alone", state.reason, restart=False)
    if not peer.is_(SECOND):
        return state, ()
    if state.data is DataPhase.MIRROR and state.record.holder is Holder.ME:
        if arbitrated and not claims.granted_pair(state):
            return claims.ask(state, claims.pair(state), Ground.TOGETHER)
        return _go(state, "publish", state.reason)
    if peer.readiness is R and (not state.replicated or state.data is DataPhase.MIRROR):
        return _go(state, "prim", "the other node is SECOND Ready")
    if state.replicated and state.data is DataPhase.ALONE and peer.listening and not state.degraded:
        incremental = peer.record.clean and peer.record.consistent and not state.fullsync
        return replace(state, data=DataPhase.JOINING), (Connect(peer.record.generation, incremental),)
    return state, ()
