"""What a node says of itself to its peer, in each heartbeat."""

from __future__ import annotations

from safekit.automaton.mirror.claims import blocked, promises
from safekit.automaton.mirror.values import DataPhase, MirrorState, PeerView
from safekit.automaton.vocabulary import Role


def spoken(state: MirrorState, version: int) -> PeerView:
    """What this node says of itself to its peer, in each heartbeat; `version` counts its different words.

    A primary connects only to a secondary that begins anew: one that was Ready has scripts to stop first.
    """
    return PeerView(
        alive=True,
        version=version,
        role=state.role,
        readiness=state.readiness,
        wish=state.wish,
        record=state.record,
        listening=state.role is Role.SECOND and state.data is DataPhase.RECEIVING,
        handed_over=state.handed_over,
        asks_swap=state.swap,
        was=state.was,
        asks=state.asks,
        answers=state.peer.asks,
        taking_over=state.row in ("failover", "promote") and bool(state.plan),
        degraded=state.degraded,
        reason=state.reason,
        register=state.register,
        blocked=blocked(state),
        leases=bool(state.lease),
        lapsed=state.lapsed,
        promise=state.peer.losses + 1 if promises(state) else 0,
    )
