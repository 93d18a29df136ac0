"""Whether an automatic failover of a mirror is possible now, in words. Pure."""

from __future__ import annotations

from safekit.automaton.data import Holder, why_not_alone
from safekit.automaton.mirror import DataPhase, MirrorState, Policy
from safekit.automaton.vocabulary import Readiness, Role

_UNARBITRATED = {
    Policy.NONE: "no witness",
    Policy.MANUAL: "nothing is replicated",
    Policy.PING: "a ping remembers nothing",
    Policy.WITNESS: "nothing is replicated, so the witness is not asked",
    Policy.FENCE: "nothing is replicated, so nobody is fenced",
}


def failover_outlook(state: MirrorState, names: tuple[str, ...] | None = None, trouble: str = "") -> str:
    """One sentence that begins with `ready` or `not possible`.

    `names` are the nodes that the register names as it was last seen (None: not seen), `trouble` since when and why the
    witness is not heard; both only under policy `witness`.
    """
    peer, ready = state.peer_node, state.readiness is Readiness.READY
    if not state.failover and state.role is not Role.STOP:
        return "not possible: failover is off (`safekit failover on`)"
    if state.policy is Policy.WITNESS and state.replicated:
        return _with_witness(state, names, trouble)
    if state.policy is Policy.FENCE and state.replicated:
        return _with_fence(state)
    if state.role is Role.PRIM and ready:
        if state.policy is Policy.MANUAL:
            return f'not possible: {peer} never takes over by itself (quorum="manual")'
        return f"ready: {peer} takes over; split brain possible ({_UNARBITRATED[state.policy]})"
    if state.role is Role.SECOND and ready:
        if state.policy is Policy.MANUAL and state.replicated:
            return (
                'not possible: this node never takes over by itself (quorum="manual"): '
                "run `safekit stop` and `safekit prim` here once the other node is down"
            )
        return f"ready: this node takes over; split brain possible ({_UNARBITRATED[state.policy]})"
    return _nobody_could(state)


def _nobody_could(state: MirrorState) -> str:
    if state.role is Role.SECOND:
        return "not possible: this node is not synchronised yet"
    if state.role is Role.ALONE:
        return f"not possible: {state.peer_node} is not a ready secondary"
    if state.replicated and not state.record.uptodate:
        return f"not possible: {why_not_alone(state.record)}"
    return "not possible: the module is not running here"


def _with_fence(state: MirrorState) -> str:
    """Who takes over proves the other off."""
    asked = state.silent or f"{state.peer_node} is being fenced"
    holds = state.data is DataPhase.LOST and state.record.holder is Holder.BOTH
    if state.role in (Role.PRIM, Role.ALONE) and holds:
        return f"not possible: {state.peer_node} is lost and {asked}; the writes of the application wait (blocked)"
    if state.role is Role.SECOND and state.row == "candidate":
        return f"not possible yet: {asked}"
    if state.role not in (Role.PRIM, Role.SECOND) or state.readiness is not Readiness.READY:
        return _nobody_could(state)
    who = f"{state.peer_node} takes over once it has fenced this node" if state.role is Role.PRIM else ""
    return f"ready: {who or f'this node takes over once it has fenced {state.peer_node}'}; no split brain"


def _with_witness(state: MirrorState, names: tuple[str, ...] | None, trouble: str) -> str:
    """The register has a word in it."""
    silence = f"the witness is silent since {trouble}" if trouble else ""
    holds = state.data is DataPhase.LOST and state.record.holder is Holder.BOTH
    if state.role in (Role.PRIM, Role.ALONE) and holds:
        why = silence or ("the witness is asked" if state.asked is not None else "the witness does not grant it")
        return f"not possible: {state.peer_node} is lost and {why}; the writes of the application wait (blocked)"
    if state.role is Role.SECOND and state.row == "candidate":
        return f"not possible yet: {silence or 'the witness is asked'}"
    if state.role not in (Role.PRIM, Role.SECOND) or state.readiness is not Readiness.READY:
        return _nobody_could(state)
    if silence:
        return f"not possible: {silence}"
    if names is None:
        return "not possible yet: the witness is not heard yet"
    if names != tuple(sorted((state.node, state.peer_node))):
        return f"not possible: the witness names {', '.join(names) or 'nobody'}"
    who = state.peer_node if state.role is Role.PRIM else "this node"
    return f"ready: {who} takes over; the witness decides, no split brain"
