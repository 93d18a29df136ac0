"""The inside of a datagram: what goes in comes out, and it always fits (spec §3.3: heartbeats carry all resource
states).
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekit.membership.beat import (
    Beat,
    Malformed,
    WireView,
    decode,
    decode_payload,
    encode,
    encode_payload,
    fit_payload,
    node_id,
    payload_limit,
)
from safekit.membership.channels import DATAGRAM_BYTES, PayloadTooLarge
from safekit.membership.sealed import Incarnation, Sealer
from tests.unit.membership.simulation import group_channel

numbers = st.integers(0, 2**32 - 1)
views = st.builds(WireView, st.integers(0, 2**64 - 1), numbers, st.frozensets(numbers, max_size=32))
beats = st.builds(
    Beat,
    st.integers(1, 3),
    st.binary(max_size=900),
    st.none() | st.integers(0, 2**31),
    views,
    st.frozensets(numbers, max_size=32),
)
payloads = st.dictionaries(
    st.text(max_size=12),
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(max_size=8), max_size=5),
)


@settings(deadline=None, max_examples=60)
@given(beats)
def test_beat_survives_the_wire(beat: Beat) -> None:
    assert decode(encode(beat)) == beat


@settings(deadline=None, max_examples=60)
@given(payloads)
def test_payload_survives_the_wire(payload: dict[str, object]) -> None:
    assert decode_payload(encode_payload(payload)) == payload


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300))
def test_body_that_is_no_beat_is_malformed_and_nothing_else(body: bytes) -> None:
    try:
        decode(body)
    except Malformed:
        return
    assert encode(decode(body)), "or it is a beat"


@pytest.mark.parametrize("encoded", [b"\0[1]", b"\0{", b"\1not deflated", b"\0\xff"])
def test_payload_of_another_kind_is_malformed(encoded: bytes) -> None:
    with pytest.raises(Malformed):
        decode_payload(encoded)


def test_repetitive_resources_are_compressed() -> None:
    payload = {f"tcp.check{number}": "up" for number in range(100)}
    assert len(encode_payload(payload)) < 600
    assert decode_payload(encode_payload(payload)) == payload


def test_payload_that_does_not_fit_is_refused_with_its_size_and_the_limit() -> None:
    channel = group_channel("n01", ["n01", "n02"])
    noise = {"noise": "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(1000))}
    with pytest.raises(
        PayloadTooLarge,
        match=rf"channel 'farm:web': payload is '\d+ bytes', expected at most {payload_limit(channel)} bytes",
    ):
        fit_payload(channel, noise)


def test_largest_payload_with_the_largest_view_fits_one_datagram() -> None:
    nodes = [f"n{number:02}" for number in range(1, 17)]
    channel = group_channel("n01", nodes)
    everybody = frozenset(map(node_id, nodes))
    beat = Beat(
        payload=bytes(payload_limit(channel)), view=WireView(2**40, 1, everybody), heard=everybody - {node_id("n01")}
    )
    seal = Sealer(channel.name, ["default"], channel.key, "n01", Incarnation(1, bytes(8)))
    assert DATAGRAM_BYTES - 8 <= len(seal.seal("default", encode(beat))) <= DATAGRAM_BYTES
