"""The line format between the daemon and the data plane."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekit.replication import Connected, Failure, Other, PeerLost, Resumed
from safekit.replication.events import decode_event, decode_line, decode_status, encode_line


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.text(alphabet=st.characters(codec="utf-8"))))
def test_any_value_comes_back_as_it_was(values: dict[str, str]) -> None:
    line = encode_line("word", values)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode_line(line) == ("word", values)


def test_flags_and_numbers_have_one_form() -> None:
    assert encode_line("primary", {"force": True, "port": 7000}) == b"primary force=yes port=7000\n"


def test_an_event_is_typed() -> None:
    assert decode_event("peer_lost", {"reason": "gone", "held": "yes"}) == PeerLost(reason="gone", held=True)
    assert decode_event("error", {"code": "c", "message": "m"}) == Failure(code="c", message="m")
    assert decode_event("connected", {"incremental": "no", "reason": "", "peer_generation": "g"}) == Connected(
        incremental=False, reason="", peer_generation="g"
    )


def test_a_newer_data_plane_is_understood_as_far_as_it_goes() -> None:
    assert decode_event("news", {"a": "1"}) == Other("news", {"a": "1"})
    assert decode_event("resumed", {}) == Resumed("")
    assert decode_event("resumed", {"reason": "killed", "more": "x"}) == Resumed("killed")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="PeerLost: held is missing"):
        decode_event("peer_lost", {"reason": "gone"})
    with pytest.raises(ValueError, match="Status: module is missing"):
        decode_status({})
    with pytest.raises(ValueError, match="not key=value: 'rubbish'"):
        decode_line(b"ok rubbish\n")
