"""A proof is good for one request, once, on one connection's certificate, for who has the key of the cluster."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekit.afar import is_person, possible, web_key
from safekit.web import proof
from safekit.web.proof import Challenges, first_certificate

KEY = web_key(b"k" * 32)
REQUEST = (KEY, b"shown", "challenge", "root@n1", "POST", "/api/v1/modules/db/actions/stop", b"{}")


@pytest.mark.parametrize("place", range(len(REQUEST)))
def test_a_proof_covers_every_part_of_a_request(place: int) -> None:
    other = list(REQUEST)
    part = REQUEST[place]
    other[place] = part + "x" if isinstance(part, str) else part + b"x"
    assert proof.of_request(*other) != proof.of_request(*REQUEST)  # type: ignore[arg-type]


@given(st.lists(st.text(max_size=4), min_size=3, max_size=3), st.lists(st.text(max_size=4), min_size=3, max_size=3))
def test_parts_cannot_be_moved_into_each_other(one: list[str], other: list[str]) -> None:
    proofs = [proof.of_request(KEY, b"", *parts, "/", b"") for parts in (one, other)]
    assert (proofs[0] == proofs[1]) == (one == other)


def test_an_answer_is_proven_apart_from_its_request() -> None:
    answers = [
        proof.of_answer(KEY, b"shown", "challenge", 200, b"{}"),
        proof.of_answer(KEY, b"shown", "challenge", 201, b"{}"),
        proof.of_answer(KEY, b"shown", "challenge", 200, b"{ }"),
        proof.of_answer(KEY, b"shown", "other", 200, b"{}"),
        proof.of_answer(KEY, b"other", "challenge", 200, b"{}"),
        proof.of_answer(web_key(b"x" * 32), b"shown", "challenge", 200, b"{}"),
        proof.of_request(*REQUEST),
    ]
    assert all(one != other for one, other in itertools.combinations(answers, 2))


def test_the_key_does_not_show_the_key_of_the_cluster() -> None:
    assert web_key(b"k" * 32) not in (b"k" * 32, web_key(b"l" * 32)) and len(KEY) == 32


def test_a_challenge_is_good_once_and_for_half_a_minute() -> None:
    now = [100.0]
    challenges = Challenges(lambda: now[0])
    one, other = challenges.make(), challenges.make()
    assert one != other and challenges.is_good(one) and challenges.is_good(other)
    challenges.use(one)
    assert not challenges.is_good(one) and challenges.is_good(other)
    now[0] += proof.GOOD_FOR_S + 1
    assert not challenges.is_good(other) and not challenges.is_good(one)
    challenges.use(other)
    now[0] += proof.GOOD_FOR_S + 1
    challenges.use(challenges.make())
    assert len(challenges._used) == 1


@given(st.text())
def test_what_is_no_challenge_of_ours_is_not_good(text: str) -> None:
    challenges = Challenges(lambda: 100.0)
    assert not challenges.is_good(text)
    assert not challenges.is_good(challenges.make() + text) or text == ""
    assert not challenges.is_good(Challenges(lambda: 100.0).make())


def test_a_file_without_a_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="certificate in PEM"):
        first_certificate("-----END CERTIFICATE----------BEGIN CERTIFICATE-----")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/node"),
        ("GET", "/modules"),
        ("GET", "/modules/db"),
        ("GET", "/modules/db/log"),
        ("GET", "/modules/db/resources/custom.a/b"),
        ("POST", "/modules/db/actions/swap"),
        ("POST", "/modules/db/config"),
        ("PUT", "/modules/db/boot"),
        ("PUT", "/modules/db/errd/critical"),
    ],
)
def test_looking_and_moving_is_possible_from_afar(method: str, path: str) -> None:
    assert possible(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/cluster/key"),
        ("GET", "/cluster/webkey"),
        ("POST", "/cluster/key"),
        ("PUT", "/cluster"),
        ("DELETE", "/cluster"),
        ("PUT", "/modules/db"),
        ("DELETE", "/modules/db"),
        ("GET", "/modules/db/package"),
        ("POST", "/modules/db/deconfig/../../../cluster/key"),
        ("GET", "/modules/db/resources/../../../cluster/key"),
        ("GET", "/modules/../cluster/key"),
        ("GET", "/witness"),
        ("PUT", "/witness/clusters/c"),
        ("get", "/node"),
        ("GET", "/node\n"),
        ("GET", "/modules/db/log?lines=3"),
        ("GET", ""),
    ],
)
def test_nothing_else_is(method: str, path: str) -> None:
    assert not possible(method, path)


def test_who_asks_is_one_word() -> None:
    assert is_person("admin@192.0.2.7") and is_person("root@n1") and is_person("a@fe80::1%eth0")
    assert not any(is_person(text) for text in ("", "a b", "a\r\nx: y", "x" * 129, "ä"))
