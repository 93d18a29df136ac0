"""The right to serve alone: who needs it, who has it, what is asked of the witness. Pure.

Theory (`docs/architecture.md`, "Who may serve"). Under policy `witness` a node acknowledges alone only on one of these:

* a **grant**: the register (`automaton/register.py`) named it sole holder in an epoch that its record does not have yet,
  in the answer to the claim that it has out;
* its own record, which says `me`: it was granted before, in this life of the machine, or on
* the peer's **consent**: the peer has durably written that it is no holder, of the very generation that this node has.
  Such a record claims nothing until this node publishes to it anew, so what was said once stays true.

A grant that came is always carried out: nobody else may serve from then on. Before a node asks, nothing is acknowledged
any more (a primary holds its writes, a secondary has left the stream) and all that it has is durable; so a node that the
register names, and that lost its memory before it could write that down, has every acknowledged write all the same.

Policy `fence` is the same with another arbiter: a program of the module that proves the peer off (`module/fencer.py`). It
is asked only while the peer is silent, and its proof is the grant. The register is what the two nodes remember of it; a
node that lost its memory is not named by it, and whatever both nodes agree on while they hear each other is granted. A
secondary that cannot prove it gives way, which is consent; a primary goes on to try.

Silence of the witness changes nothing by itself: the claim stays out. A secondary that hears a primary which is blocked
so gives way: it leaves, which is consent.
"""

from __future__ import annotations

from dataclasses import replace

from safekit.automaton.data import Holder
from safekit.automaton.mirror.values import DataPhase, MirrorState, Named, PeerView, Policy
from safekit.automaton.register import Ground
from safekit.automaton.vocabulary import Ask, Effect, Role, Withdraw

BOTH_OUT = (Role.WAIT, Role.STOP)


def arbitrated(state: MirrorState) -> bool:
    """Whether an arbiter, a witness or a fence, decides about this module."""
    return state.replicated and state.policy in (Policy.WITNESS, Policy.FENCE)


def arbiter(state: MirrorState) -> str:
    """Who decides, in words."""
    return "the fence" if state.policy is Policy.FENCE else "the witness"


def me(state: MirrorState) -> tuple[str, ...]:
    """Holders: this node alone."""
    return (state.node,)


def pair(state: MirrorState) -> tuple[str, ...]:
    """Holders: both nodes."""
    return tuple(sorted((state.node, state.peer_node)))


def known(state: MirrorState, peer: PeerView) -> Named:
    """The register as the two nodes know it together: the newest of what each heard, and of what the peer's record tells.

    A primary that loses its power between the grant that names both and its word of it has only the record to tell.
    """
    told = Named(peer.record.granted, pair(state)) if peer.record.holder is Holder.BOTH else Named()
    return max(state.register, peer.register, told, key=lambda named: named.epoch)


def _granted(state: MirrorState, holders: tuple[str, ...]) -> bool:
    newer = state.grant > state.record.granted
    return newer and (state.register.epoch, state.register.holders) == (state.grant, holders)


def granted_alone(state: MirrorState) -> bool:
    """Whether the register named this node sole holder, and its record does not say so yet."""
    return _granted(state, me(state))


def granted_pair(state: MirrorState) -> bool:
    """Whether the register names both nodes by a claim of this one, and its record does not say so yet."""
    return _granted(state, pair(state))


def consented(state: MirrorState) -> bool:
    """Whether the peer has durably given up what this node holds.

    A word once said stays true until this node publishes to the peer anew, so the last word of a silent one counts too.
    What a joining secondary says is no consent: it may have been told since that it holds everything.
    """
    peer, record = state.peer, state.record
    if peer.record.holder is not Holder.PEER or not record.generation:
        return False
    if peer.role is Role.SECOND:
        return peer.handed_over == record.generation
    if peer.role not in BOTH_OUT:
        return False
    return peer.record.generation == record.generation or (record.holder is Holder.ME and peer.alive is True)


def consented_anew(state: MirrorState) -> bool:
    """The same for a node that waits: what it lost with its memory the peer may still have, so only `me` counts.

    Who gave up because its lease ran out lost nothing.
    """
    return (state.record.holder is Holder.ME or state.lapsed) and consented(state)


def names_other(state: MirrorState) -> bool:
    """Whether the register went on without this node."""
    register = state.register
    return bool(register.holders) and register.epoch > state.record.granted and state.node not in register.holders


def names_me(state: MirrorState) -> bool:
    """Whether the register names this node alone, as far as is known, and its copy is what was meant."""
    register, record = state.register, state.record
    holds = record.consistent and record.holder in (Holder.ME, Holder.BOTH)
    return holds and register.holders == me(state) and register.epoch >= record.granted


def named_beside_server(state: MirrorState) -> bool:
    """Whether the register names this node alone, which has durably given up, and the peer serves.

    An old claim of this node was granted after it had consented.
    """
    serves = state.peer.is_(Role.ALONE) and state.peer.record.holder is Holder.ME
    return serves and state.record.holder is Holder.PEER and state.register.holders == me(state)


def may_serve_alone(state: MirrorState) -> bool:
    """Whether this node may become sole holder now, beside what its record says."""
    return not arbitrated(state) or granted_alone(state) or consented(state)


def blocked(state: MirrorState) -> bool:
    """Whether a primary holds its writes and the witness does not help."""
    if not arbitrated(state) or state.role not in (Role.ALONE, Role.PRIM) or state.data is not DataPhase.LOST:
        return False
    if names_other(state) or state.record.holder is Holder.ME:
        return False
    return bool(state.silent) or state.refused is not None


def keeps_leases(state: MirrorState) -> bool:
    """Whether both nodes know of leases."""
    return state.replicated and state.policy is Policy.WITNESS and bool(state.lease) and state.peer.leases


def leased(state: MirrorState) -> bool:
    """Whether this node may run the application only while its lease lasts: the register could name the other node."""
    if not keeps_leases(state) or state.role not in (Role.ALONE, Role.PRIM):
        return False
    return state.record.holder is Holder.BOTH and not may_serve_alone(state)


def keeps_lease(state: MirrorState) -> bool:
    """Whether this node has its lease renewed: it needs it, or is about to, and then it must have it already."""
    if leased(state):
        return True
    joins = state.data in (DataPhase.JOINING, DataPhase.MIRROR)
    return keeps_leases(state) and joins and state.role in (Role.ALONE, Role.PRIM)


FOLLOWS = ("second", "second_ready", "restart_second", "leave_second", "swap_out")
"""Rows of a secondary that has nothing under way to take over, nor after them without a look at its peer."""


def promises(state: MirrorState) -> bool:
    """Whether this node is a secondary that acts on no silence but one that its pulse has told."""
    follows = state.role is Role.SECOND and state.row in FOLLOWS and state.peer.is_(Role.PRIM, Role.ALONE)
    return keeps_leases(state) and follows


def ask(
    state: MirrorState, wanted: tuple[str, ...], ground: Ground = Ground.HOLDER, look: bool = False
) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Put a claim to the witness, unless it is out already or was refused as it stands.

    `look`: a claim that is granted only if the register names this node alone; its refusal shows what it says.
    """
    register, record = state.register, state.record
    if register.holders and register.epoch >= record.granted and not (look and register.holders != me(state)):
        epoch, holders = register.epoch, register.holders
    elif record.granted == 0 and not look:
        epoch, holders = 0, ()
    else:
        alone = look or record.holder is Holder.ME
        epoch, holders = record.granted, me(state) if alone else pair(state)
    claim = Ask(0, epoch, holders, wanted, ground)
    if state.refused == claim or (state.asked is not None and replace(state.asked, number=0) == claim):
        return state, ()
    claim = replace(claim, number=state.number + 1)
    return replace(state, asked=claim, number=claim.number, refused=None), (claim,)


def ask_again(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    """The daemon was restarted: what was out is put anew, and an answer to the old one no longer counts."""
    if state.asked is None:
        return state, ()
    claim = replace(state.asked, number=state.number + 1)
    return replace(state, asked=claim, number=claim.number, silent=""), (claim,)


def withdraw(state: MirrorState) -> tuple[MirrorState, tuple[Effect, ...]]:
    """Nothing is asked any more."""
    if state.asked is None:
        return state, ()
    return replace(state, asked=None, silent=""), (Withdraw(),)
