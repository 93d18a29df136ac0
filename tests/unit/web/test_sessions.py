"""Sessions end, and guessing gets slow."""

from __future__ import annotations

import pytest

from safekit.web import sessions
from safekit.web.accounts import Account
from safekit.web.sessions import FREE_ATTEMPTS, IDLE_S, LONGEST_S, Attempts, Sessions

ADMIN = Account("admin", "admin", "hash")


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_session_is_found_by_its_cookie_only(clock: Clock) -> None:
    known = Sessions(clock)
    cookie = known.open(ADMIN, "192.0.2.1")
    found = known.find(cookie, use=True)
    assert found is not None and found.account == ADMIN
    assert known.find(cookie[:-1], use=True) is None and known.find("", use=True) is None
    known.close(cookie)
    assert known.find(cookie, use=True) is None


def test_a_session_ends_after_eight_hours_without_a_person(clock: Clock) -> None:
    known = Sessions(clock)
    cookie = known.open(ADMIN, "192.0.2.1")
    clock.now += IDLE_S - 1
    assert known.find(cookie, use=False) is not None  # the page asked by itself: that keeps nobody logged in
    clock.now += 2
    assert known.find(cookie, use=True) is None


def test_a_session_that_is_used_lasts_and_ends_all_the_same(clock: Clock) -> None:
    known = Sessions(clock)
    cookie, end = known.open(ADMIN, "192.0.2.1"), clock.now + LONGEST_S
    while clock.now + IDLE_S / 2 < end:
        clock.now += IDLE_S / 2
        assert known.find(cookie, use=True) is not None
    clock.now = end + 1
    assert known.find(cookie, use=True) is None


def test_the_number_of_sessions_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 3)
    known = Sessions(clock)
    cookies = [known.open(ADMIN, "192.0.2.1") for _ in range(4)]
    assert [known.find(cookie, use=True) is not None for cookie in cookies] == [False, True, True, True]


def test_each_session_has_a_token_of_its_own(clock: Clock) -> None:
    known = Sessions(clock)
    one, other = (known.find(known.open(ADMIN, "192.0.2.1"), use=True) for _ in range(2))
    assert one is not None and other is not None
    assert one.has_token(one.token)
    assert not one.has_token(other.token) and not one.has_token("") and not one.has_token("\udcff")


def test_each_failure_after_the_fifth_doubles_the_pause(clock: Clock) -> None:
    attempts = Attempts(clock)
    for _ in range(FREE_ATTEMPTS):
        assert attempts.pause("192.0.2.1", "admin") == 0
        attempts.failed("192.0.2.1", "admin")
    pauses = []
    for _ in range(12):
        pauses.append(attempts.pause("192.0.2.1", "admin"))
        clock.now += pauses[-1]
        assert attempts.pause("192.0.2.1", "admin") == 0
        attempts.failed("192.0.2.1", "admin")
    assert pauses[:4] == [2, 4, 8, 16] and pauses[-1] == 900


def test_a_user_is_kept_out_from_elsewhere_for_half_a_minute_only(clock: Clock) -> None:
    attempts = Attempts(clock)
    for number in range(40):
        attempts.failed(f"192.0.2.{number}", "admin")
    assert attempts.pause("198.51.100.1", "admin") == 30
    assert attempts.pause("198.51.100.1", "other") == 0


def test_a_network_of_version_six_is_one_address(clock: Clock) -> None:
    attempts = Attempts(clock)
    for number in range(FREE_ATTEMPTS):
        attempts.failed(f"2001:db8:1:2::{number:x}", f"user{number}")
    assert attempts.pause("2001:db8:1:2:ffff::1", "new") > 0
    assert attempts.pause("2001:db8:1:3::1", "new") == 0
    for number in range(FREE_ATTEMPTS):
        attempts.failed("::ffff:192.0.2.9", f"person{number}")
    assert attempts.pause("192.0.2.9", "new") > 0 and attempts.pause("::ffff:192.0.2.8", "new") == 0


def test_success_and_an_hour_forget(clock: Clock) -> None:
    attempts = Attempts(clock)
    for _ in range(FREE_ATTEMPTS + 3):
        attempts.failed("192.0.2.1", "admin")
    attempts.succeeded("192.0.2.1", "admin")
    assert attempts.pause("192.0.2.1", "admin") == 0
    for _ in range(FREE_ATTEMPTS - 1):
        attempts.failed("192.0.2.1", "admin")
    clock.now += sessions.FORGOTTEN_S + 1
    attempts.failed("192.0.2.1", "admin")
    assert attempts.pause("192.0.2.1", "admin") == 0


def test_what_is_remembered_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_KNOWN", 10)
    attempts = Attempts(clock)
    for number in range(100):
        attempts.failed(f"192.0.2.{number}", f"user{number}")
    for _ in range(FREE_ATTEMPTS):
        attempts.failed("203.0.113.1", "admin")
    assert attempts.pause("203.0.113.1", "admin") > 0
