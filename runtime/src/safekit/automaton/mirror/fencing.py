"""Policy `fence`: what becomes of a claim, before a program is run. Pure.

Only one claim needs the proof that the peer is off: to be sole holder beside a peer that holds everything too and is silent.
What both nodes know of each other decides the rest. A peer that is heard, and serves or could take over, is never shot:
who lost only the replication holds its writes, and its secondary gives way (`claims.blocked`).
"""

from __future__ import annotations

from enum import Enum

from safekit.automaton.data import Holder
from safekit.automaton.mirror import claims
from safekit.automaton.mirror.values import MirrorState
from safekit.automaton.register import Ground
from safekit.automaton.vocabulary import Ask, Role


class Ruling(Enum):
    """What becomes of a claim."""

    GRANTED = "granted"
    REFUSED = "refused"
    HEARD = "heard"  # not now: the peer is heard, and holds everything too
    PROVE = "prove"  # granted to who proves the peer off


def ruling(state: MirrorState, asked: Ask) -> Ruling:
    """What becomes of `asked`, as far as this node knows now."""
    mine, peer = claims.me(state), state.peer
    if asked.ground is not Ground.HOLDER or asked.wanted != mine or state.record.holder is Holder.ME:
        return Ruling.GRANTED
    if state.role is Role.WAIT:  # it holds with its peer and lost its memory: nobody remembers whom a fence named
        return Ruling.REFUSED
    if peer.alive is False:
        return Ruling.PROVE
    out = peer.role in claims.BOTH_OUT and peer.record.holder is not Holder.ME
    return Ruling.GRANTED if out or _began_anew(state) else Ruling.HEARD


def _began_anew(state: MirrorState) -> bool:
    """Whether the peer left after the stream broke, and is joining again: nobody but this node can make it a holder.

    Its word is newer than the break only if it answers the question that was put then.
    """
    serves = state.role in (Role.PRIM, Role.ALONE)
    return serves and state.answered and state.peer.is_(Role.SECOND) and state.peer.record.holder is Holder.PEER


def next_epoch(state: MirrorState, asked: Ask) -> int:
    """Of the register that the two nodes remember, when this claim is granted."""
    return max(asked.epoch, state.record.granted, state.register.epoch, state.grant) + 1
