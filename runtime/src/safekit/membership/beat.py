"""What is inside a sealed datagram: one beat, as bytes and as a value. No socket, no clock.

    kind (1) | daemon absent, seconds (4) | view: epoch (8), proposer (4), count (1), members (4 each)
             | heard: count (1), nodes (4 each) | payload encoding (1) | payload

Nodes are the CRC-32 of their names: short, and the same on nodes whose configurations differ for a moment. A payload
is compact JSON, compressed where that makes it smaller; it must fit, with a view of the whole group, into
`channels.DATAGRAM_BYTES`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safekit.membership import sealed
from safekit.membership.channels import DATAGRAM_BYTES, Channel, GroupChannel, PayloadTooLarge

BEAT, BYE, NOTICE = 1, 2, 3
"""A beat; the last one of a channel that is being removed; "your incarnation must exceed this" (in the epoch's
place).
"""

_HEAD = struct.Struct(">BIQIB")
_PRESENT = 0xFFFFFFFF
_PLAIN, _DEFLATED = b"\0", b"\1"
_LARGEST_INFLATED = 256 * 1024


class Malformed(ValueError):
    """An authentic datagram that holds no beat: the peer runs another release."""


@dataclass(frozen=True, slots=True)
class WireView:
    """A view as nodes tell it to each other. Only (epoch, proposer) identifies it."""

    epoch: int
    proposer: int
    members: frozenset[int]


NO_VIEW = WireView(0, 0, frozenset())


@dataclass(frozen=True, slots=True)
class Beat:
    """What a node says of itself: its payload (encoded), the view that it holds, and whom it hears."""

    kind: int = BEAT
    payload: bytes = b""
    absent_s: int | None = None
    view: WireView = NO_VIEW
    heard: frozenset[int] = frozenset()


def node_id(name: str) -> int:
    """The short name of a node on the wire."""
    return zlib.crc32(name.encode())


def encode_payload(payload: Mapping[str, Any]) -> bytes:
    """A payload as it travels: encoding byte and text."""
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    small = zlib.compress(text, 9) if len(text) > 200 else text
    return _DEFLATED + small if len(small) < len(text) else _PLAIN + text


def decode_payload(encoded: bytes) -> dict[str, Any]:
    """The payload of an authentic beat; raises `Malformed`."""
    try:
        text = encoded[1:]
        if encoded[:1] == _DEFLATED:
            text = zlib.decompressobj().decompress(text, _LARGEST_INFLATED)
        payload = json.loads(text)
    except (zlib.error, ValueError) as error:
        raise Malformed(f"payload: {error}") from None
    if not isinstance(payload, dict):
        raise Malformed(f"payload is a {type(payload).__name__}, expected an object")
    return payload


def payload_limit(channel: Channel) -> int:
    """How many encoded bytes a payload of this node may have on `channel`."""
    nodes = len(channel.nodes) if isinstance(channel, GroupChannel) else 0
    return DATAGRAM_BYTES - sealed.overhead(channel.node) - _HEAD.size - 1 - 8 * nodes


def fit_payload(channel: Channel, payload: Mapping[str, Any]) -> bytes:
    """The encoded payload, or `PayloadTooLarge`."""
    encoded = encode_payload(payload)
    if len(encoded) > payload_limit(channel):
        raise PayloadTooLarge(channel.name, len(encoded), payload_limit(channel))
    return encoded


def encode(beat: Beat) -> bytes:
    """A beat as the body of a datagram."""
    absent = _PRESENT if beat.absent_s is None else min(beat.absent_s, _PRESENT - 1)
    members, heard = sorted(beat.view.members), sorted(beat.heard)
    return b"".join(
        (
            _HEAD.pack(beat.kind, absent, beat.view.epoch, beat.view.proposer, len(members)),
            struct.pack(f">{len(members)}IB{len(heard)}I", *members, len(heard), *heard),
            beat.payload,
        )
    )


def decode(body: bytes) -> Beat:
    """The beat in an authentic body; raises `Malformed`."""
    try:
        kind, absent, epoch, proposer, count = _HEAD.unpack_from(body)
        at = _HEAD.size
        members = struct.unpack_from(f">{count}I", body, at)
        at += 4 * count
        heard = struct.unpack_from(f">{body[at]}I", body, at + 1)
        at += 1 + 4 * body[at]
    except (struct.error, IndexError) as error:
        raise Malformed(f"beat: {error}") from None
    return Beat(
        kind,
        body[at:],
        None if absent == _PRESENT else absent,
        WireView(epoch, proposer, frozenset(members)),
        frozenset(heard),
    )
