"""Sealed datagrams: what is accepted, what is refused, and that no nonce is ever used twice (spec §10.3)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekit.membership.sealed import WINDOW, Incarnation, Opened, Opener, Refusal, Sealer, overhead

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
LIFE = Incarnation(1_000, b"saltsalt")
LINKS = ("default", "repli")


def sealer(key: bytes = KEY, channel: str = "mirror:db", sender: str = "n1", life: Incarnation = LIFE) -> Sealer:
    return Sealer(channel, LINKS, key, sender, life)


def opener(floors: object = None) -> Opener:
    return Opener("mirror:db", LINKS, KEY, ["n1"], floors)  # type: ignore[arg-type]


def reason(result: Opened | Refusal) -> str:
    assert isinstance(result, Refusal)
    return result.reason


def test_what_was_sealed_is_opened() -> None:
    datagram = sealer().seal("default", b"beat")
    assert opener().open("default", datagram) == Opened("n1", 1_000, 1, b"beat")
    assert len(datagram) == len(b"beat") + overhead("n1")
    assert b"beat" not in datagram


def test_another_key_is_refused_as_such() -> None:
    assert reason(opener().open("default", sealer(OTHER_KEY).seal("default", b"beat"))) == "key differs"


def test_another_module_another_link_another_node_are_refused_by_name() -> None:
    assert reason(opener().open("default", sealer(channel="mirror:web").seal("default", b""))) == "channel differs"
    assert reason(opener().open("default", sealer().seal("repli", b""))) == "channel differs"
    refusal = opener().open("default", sealer(sender="n9").seal("default", b""))
    assert refusal == Refusal("not a member", "n9")


def test_replayed_datagram_is_refused() -> None:
    seal, receiver = sealer(), opener()
    first, second = seal.seal("default", b"1"), seal.seal("default", b"2")
    assert isinstance(receiver.open("default", first), Opened)
    assert isinstance(receiver.open("default", second), Opened)
    assert [reason(receiver.open("default", old)) for old in (first, second, first)] == ["replayed"] * 3


def test_earlier_life_is_never_accepted_after_a_later_one() -> None:
    receiver = opener()
    early, late = sealer(), sealer(life=Incarnation(2_000, b"SALTSALT"))
    before, after = early.seal("default", b"early"), early.seal("default", b"early, not seen yet")
    assert isinstance(receiver.open("default", before), Opened)
    assert isinstance(receiver.open("default", late.seal("default", b"late")), Opened)
    assert receiver.open("default", after) == Refusal("old incarnation", "n1", 2_000)
    assert receiver.open("repli", early.seal("repli", b"early")) == Refusal("old incarnation", "n1", 2_000)


def test_claim_of_a_later_life_without_the_key_changes_nothing() -> None:
    receiver = opener()
    forged = Sealer("mirror:db", LINKS, OTHER_KEY, "n1", Incarnation(9_000, b"forgery!")).seal("default", b"")
    assert reason(receiver.open("default", forged)) == "key differs"
    assert isinstance(receiver.open("default", sealer().seal("default", b"beat")), Opened)


def test_opener_that_was_restarted_still_refuses_what_it_had_accepted() -> None:
    seal, receiver = sealer(), opener()
    datagrams = [seal.seal("default", bytes([number])) for number in range(5)]
    for datagram in datagrams[:4]:
        receiver.open("default", datagram)
    restarted = opener(receiver.floors())
    assert [reason(restarted.open("default", old)) for old in datagrams[:4]] == ["replayed"] * 4
    assert isinstance(restarted.open("default", datagrams[4]), Opened)


def test_reordered_datagrams_are_accepted_within_the_window_and_not_beyond() -> None:
    seal, receiver = sealer(), opener()
    datagrams = [seal.seal("default", b"") for _ in range(WINDOW + 1)]
    assert isinstance(receiver.open("default", datagrams[-1]), Opened)
    assert isinstance(receiver.open("default", datagrams[1]), Opened)
    assert reason(receiver.open("default", datagrams[0])) == "replayed"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3 * WINDOW), min_size=1, max_size=200), st.integers(0, 2**32))
def test_no_order_of_arrival_gets_a_datagram_accepted_twice(arrivals: list[int], seed: int) -> None:
    seal, receiver = sealer(), opener()
    datagrams = [seal.seal("default", b"") for _ in range(3 * WINDOW + 1)]
    accepted: set[int] = set()
    newest = -1
    for number in arrivals + random.Random(seed).sample(arrivals, len(arrivals)):
        taken = isinstance(receiver.open("default", datagrams[number]), Opened)
        assert taken == (number not in accepted and number > newest - WINDOW)
        if taken:
            accepted.add(number)
        newest = max(newest, number)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_whatever_arrives_is_refused_and_never_raises(noise: bytes) -> None:
    assert isinstance(opener().open("default", noise), Refusal)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_bit_of_a_datagram_can_be_changed(position: int, change: int) -> None:
    datagram = bytearray(sealer().seal("default", b"a beat of this node"))
    datagram[position % len(datagram)] ^= change
    assert isinstance(opener().open("default", bytes(datagram)), Refusal)


@pytest.mark.parametrize("life", [Incarnation(1_001, b"saltsalt"), Incarnation(1_000, b"SALTSALT")])
def test_another_life_seals_with_another_key(life: Incarnation) -> None:
    header = overhead("n1") - 16
    assert sealer().seal("default", bytes(64))[header:] != sealer(life=life).seal("default", bytes(64))[header:]


def test_counter_is_shared_by_the_links_so_that_no_nonce_repeats() -> None:
    seal = sealer()
    opened = [opener().open(link, seal.seal(link, b"")) for link in ("default", "repli", "default")]
    assert [one.counter for one in opened if isinstance(one, Opened)] == [1, 2, 3]


def test_incarnations_grow_also_when_the_clock_goes_back() -> None:
    assert Incarnation.after(500, 900).number == 900
    assert Incarnation.after(900, 500).number == 901
    assert Incarnation.after(0, 1).salt != Incarnation.after(0, 1).salt
