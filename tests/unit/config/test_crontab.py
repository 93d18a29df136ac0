"""Schedules of `syncat`: when they come, and what is refused."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekit.config.crontab import crontab
from safekit.config.values import BadValue
from tests.unit.config.samples import load, mirror, refused, rfs

NOON = datetime(2026, 11, 22, 12, 0, 30)  # a Sunday

COMES = {
    "* * * * *": "2026-11-22 12:01",
    "0 1 * * *": "2026-11-23 01:00",
    "30 12 * * *": "2026-11-22 12:30",
    "0 12 * * *": "2026-11-23 12:00",
    "*/20 13-14 * * *": "2026-11-22 13:00",
    "5,50 * * * *": "2026-11-22 12:05",
    "0 0 1 * *": "2026-12-01 00:00",
    "0 0 * * mon": "2026-11-23 00:00",
    "0 0 * * 7": "2026-11-29 00:00",
    "0 0 * * 0": "2026-11-29 00:00",
    "0 0 * * MON-FRI": "2026-11-23 00:00",
    "0 0 * jan *": "2027-01-01 00:00",
    "0 0 29 2 *": "2028-02-29 00:00",
    "0 0 1 * tue": "2026-11-24 00:00",  # either of the two
    "0 0 */2 * tue": "2026-12-01 00:00",  # a step of * restricts both
    "1-10/3 * * * *": "2026-11-22 12:01",
}

WRONG = {
    "* * * *": "4 fields",
    "60 * * * *": "the minute is '60', not 0 to 59",
    "* 24 * * *": "the hour is '24', not 0 to 23",
    "* * 0 * *": "the day of the month is '0', not 1 to 31",
    "* * * 13 *": "the month is '13', not 1 to 12 or jan to dec",
    "* * * * mon-xyz": "the day of the week is 'xyz', not 0 to 7 or sun to sat",
    "5/10 * * * *": "the minute: a step belongs behind * or a range, and stands behind '5'",
    "*/0 * * * *": "the minute: the step '0' is no number from 1 to 59",
    "*/x * * * *": "the minute: the step 'x' is no number from 1 to 59",
    "9-5 * * * *": "the minute: the range '9-5' ends before it begins",
    "1,,2 * * * *": "the minute is '', not 0 to 59",
    "0 0 30 2 *": "this day never comes",
}


@pytest.mark.parametrize(("text", "expected"), COMES.items(), ids=COMES)
def test_it_comes_next(text: str, expected: str) -> None:
    assert crontab(text).after(NOON) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(("text", "reason"), WRONG.items(), ids=WRONG)
def test_what_no_cron_takes_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadValue) as wrong:
        crontab(text)
    assert wrong.value.reason == reason


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    st.integers(0, 59),
    st.integers(0, 23),
    st.integers(0, 6),
)
def test_every_named_minute_comes_once_and_none_is_left_out(at: datetime, minute: int, hour: int, day: int) -> None:
    schedule = crontab(f"{minute} {hour} * * {day}")
    first = schedule.after(at)
    assert first > at and (first.minute, first.hour, first.isoweekday() % 7) == (minute, hour, day)
    assert first - at <= timedelta(days=7, minutes=1)
    assert schedule.after(first) == first + timedelta(days=7)


def test_a_configuration_has_its_schedules() -> None:
    replication = load(mirror(rfs("/a", attributes='syncat="0 1 * * *" verifyat="30 2 * * sun"'))).service.rfs
    assert replication is not None
    assert (replication.syncat, replication.verifyat) == (crontab("0 1 * * *"), crontab("30 2 * * sun"))


def test_a_wrong_schedule_is_named() -> None:
    assert refused(mirror(rfs("/a", attributes='syncat="0 25 * * *"'))).message == (
        "userconfig.xml, line 1: <rfs syncat=\"0 25 * * *\">: the hour is '25', not 0 to 23; "
        "expected the five time fields of a crontab entry"
    )
