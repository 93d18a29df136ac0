"""The answers of the node: states and modules in the words of the API (`api/face.py`)."""

from __future__ import annotations

from safekit.api.face import Progress, StateInfo
from safekit.automaton.vocabulary import Readiness, Role
from safekit.module.farm import FarmModule
from safekit.module.mirror import MirrorModule


def state_info(module: MirrorModule | FarmModule) -> StateInfo:
    """The state of a configured module on this node."""
    state = module.state
    common = {
        "state": state.role.value,
        "substate": state.readiness.value,
        "since": module.since,
        "reason": state.reason,
        "waiting_for": state.waiting if state.role is Role.WAIT else (),
        "automatic_failover": module.failover_sentence(),
    }
    if isinstance(module, FarmModule):
        shares = ", ".join(f"{percent:.0f}%" for percent in module.shares().values())
        return StateInfo(detail=shares, **common)  # type: ignore[arg-type]
    return StateInfo(
        detail=_mirror_detail(module),
        remote_state=_remote(module),
        progress=_progress(module),
        **common,  # type: ignore[arg-type]
    )


def _remote(module: MirrorModule) -> str:
    peer = module.state.peer
    return f"{peer.role} {peer.readiness}" if peer.alive else "UNKNOWN"


def _mirror_detail(module: MirrorModule) -> str:
    state = module.state
    if state.role is Role.WAIT and state.readiness is Readiness.NOT_READY and state.waiting:
        return state.waiting[0].split(":")[0]
    if not state.replicated:
        return ""
    return "uptodate" if state.record.uptodate else "not uptodate"


def _progress(module: MirrorModule) -> Progress | None:
    now = module.progress
    if now is None:
        return None
    percent = 100.0 * now.bytes_done / now.bytes_total if now.bytes_total else 0.0
    eta = float(now.eta_s) if now.eta_s >= 0 else None
    return Progress(
        round(percent, 1),
        now.files_done,
        now.files_total,
        now.bytes_done,
        now.bytes_total,
        float(now.rate_bps),
        eta,
    )
