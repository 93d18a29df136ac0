"""The words of a mirror's heartbeat: what a node says of itself, as JSON that fits in one datagram. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from safekit.automaton.codec import decode, encode
from safekit.automaton.data import DataRecord
from safekit.automaton.mirror import MirrorState, Named, PeerView, arbitrated, spoken
from safekit.automaton.vocabulary import Readiness, Role, Wish
from safekit.membership.channels import PROMISE


def write_payload(state: MirrorState) -> dict[str, Any]:
    """What this node says of itself in each heartbeat. Short names: it must fit in one datagram."""
    word = spoken(state, 0)
    payload = {
        "r": word.role.value,
        "s": word.readiness.value,
        "w": word.wish.value,
        "d": encode(word.record),
        "p": state.data.value,
        "l": word.listening,
        "h": word.handed_over,
        "x": word.asks_swap,
        "a": word.was.value,
        "q": word.asks,
        "n": word.answers,
        "t": word.taking_over,
        "g": word.degraded[:160],
        "y": word.reason[:160],
    }
    if arbitrated(state):
        payload |= {"e": word.register.epoch, "o": list(word.register.holders), "b": word.blocked}
    if word.leases:
        payload |= {PROMISE: word.promise, "k": word.lapsed}
    return payload


def read_payload(payload: Mapping[str, Any], peer: PeerView) -> PeerView:
    """The peer's view of itself; what another version of the product adds or lacks changes nothing."""
    record = decode(payload["d"])
    assert isinstance(record, DataRecord)
    return replace(
        peer,
        role=Role(payload["r"]),
        readiness=Readiness(payload["s"]),
        wish=Wish(payload["w"]),
        record=record,
        listening=bool(payload["l"]),
        handed_over=str(payload["h"]),
        asks_swap=bool(payload["x"]),
        was=Role(payload["a"]),
        asks=int(payload.get("q", 0)),
        answers=int(payload.get("n", 0)),
        taking_over=bool(payload.get("t", False)),
        degraded=str(payload.get("g", "")),
        reason=str(payload.get("y", "")),
        register=Named(int(payload.get("e", 0)), tuple(str(node) for node in payload.get("o", ()))),
        blocked=bool(payload.get("b", False)),
        leases=PROMISE in payload,
        lapsed=bool(payload.get("k", False)),
    )
