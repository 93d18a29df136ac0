"""What travels between a node and its witness comes out as it went in, and any other bytes are refused."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekit.automaton.register import Claim, Ground
from safekit.membership.channels import DATAGRAM_BYTES
from safekit.membership.sealed import overhead
from safekit.witness.messages import (
    BODY_BYTES,
    Malformed,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

names = st.sampled_from(("A", "_b", "node-1.example", "9" * 63))
lives = st.sampled_from(("", "0", "cafe" * 10))
whole = st.integers(0, 2**63 - 1)
holders = st.frozensets(names, max_size=4)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    module, boot, number = draw(names), draw(lives), draw(whole)
    grounds = st.sampled_from(Ground)
    claim = Claim("shop", module, draw(whole), draw(holders), draw(holders), "A", boot, number, draw(grounds))
    return Request(draw(lives), module, boot, number, draw(st.sampled_from((None, claim))), draw(whole))


replies = st.one_of(
    st.builds(Reply, lives),
    st.builds(Reply, lives, exceed=whole),
    st.builds(Reply, lives, names, lives, st.integers(1, 2**63 - 1), whole, holders),
    st.builds(Reply, lives, names, lives, st.integers(1, 2**63 - 1), whole, holders, st.just(True)),
    st.builds(Reply, lives, names, lives, st.integers(1, 2**63 - 1), whole, holders, st.just(False), names),
    st.builds(Reply, lives, names, lives, st.integers(1, 2**63 - 1), trouble=names),
)


@given(requests())
def test_a_request_arrives_as_it_was_sent(request: Request) -> None:
    assert decode_request(encode_request(request), "shop", "A") == request


@given(replies)
def test_a_reply_arrives_as_it_was_sent(reply: Reply) -> None:
    assert decode_reply(encode_reply(reply)) == reply


def test_the_largest_message_fits_one_datagram() -> None:
    long = "n" * 63
    four = frozenset(str(number) + long[1:] for number in range(4))
    claim = Claim("shop", "m" * 64, 2**63 - 1, four, four, long, "f" * 16, 2**63 - 1, Ground.TOGETHER)
    encode_request(Request("f" * 40, "m" * 64, "f" * 16, 2**63 - 1, claim, 2**63 - 1))
    encode_reply(Reply("f" * 40, "m" * 64, "f" * 16, 2**63 - 1, 2**63 - 1, four, False, '"' * 9999))
    encode_reply(Reply("f" * 40, "m" * 64, "f" * 16, 2**63 - 1, trouble="€" * 9999))
    assert BODY_BYTES + overhead(long) <= DATAGRAM_BYTES


def test_who_asks_is_who_sealed_the_request() -> None:
    claim = Claim("other", "db", 1, frozenset("AB"), frozenset("A"), "A", "aa", 1)
    read = decode_request(encode_request(Request("aa", "db", "aa", 1, claim)), "shop", "B").claim
    assert read is not None
    assert (read.cluster, read.node) == ("shop", "B")


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_understood(body: bytes) -> None:
    for decode in (lambda: decode_request(body, "shop", "A"), lambda: decode_reply(body)):
        try:
            decode()
        except Malformed:
            pass


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("lmbnehwgxtvy"), anything))
def test_any_object_is_refused_or_understood(value: dict[str, object]) -> None:
    body = json.dumps(value).encode()
    for decode in (lambda: decode_request(body, "shop", "A"), lambda: decode_reply(body)):
        try:
            message: Request | Reply = decode()
        except Malformed:
            continue
        assert all(getattr(message, field.name) is not Ellipsis for field in fields(message))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 5000,
        b"null",
        b'{"l":"aa","m":"..","b":"aa","n":1}',
        b'{"l":"aa","m":"a/b","b":"aa","n":1}',
        b'{"l":"aa","m":"db","b":"aa","n":true}',
        b'{"l":"aa","m":"db","b":"aa","n":-1}',
        b'{"l":"aa","m":"db","b":"aa","n":1,"e":1,"h":["A"],"w":["A"],"g":"because"}',
        b'{"l":"aa","m":"db","b":"aa","n":1,"e":1,"h":["A"],"w":["a b"],"g":"holder"}',
    ],
)
def test_a_request_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode_request(body, "shop", "A")


def test_what_the_witness_says_cannot_write_control_characters_into_a_log() -> None:
    body = json.dumps({"l": "aa", "m": "db", "b": "aa", "n": 1, "t": "one\ntwo\x1b[2J"}).encode()
    assert decode_reply(body).trouble == "one?two?[2J"
