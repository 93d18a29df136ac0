"""The watchdog is open only while a lease is needed, and fed only while nothing can outlive one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from safekit.membership.keeper import LeaseKeeper
from safekit.membership.watchdog import Watchdog, configured


@dataclass
class Lease:
    """Of `length` seconds; as safe as it is told to be."""

    length: float = 8.0
    safe: bool = True

    def is_safe(self, _now: float, seconds: float) -> bool:
        assert 0 < seconds <= self.length / 2
        return self.safe


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A file in the place of a device: what was written to it is in it."""
    made = tmp_path / "watchdog0"
    made.touch()
    return made


def test_it_is_opened_when_a_lease_is_needed_fed_while_that_is_safe_and_closed_after_it(device: Path) -> None:
    said: list[str] = []
    watchdog, lease = Watchdog(str(device), said.append), Lease()
    watchdog.keep(100.0, ())
    assert device.read_bytes() == b"" and watchdog.due == float("inf")
    watchdog.keep(101.0, (lease, Lease(20.0)))
    assert device.read_bytes() == b"\0" and watchdog.due == 101.4
    watchdog.keep(101.1, (lease,))
    assert device.read_bytes() == b"\0"
    lease.safe = False
    for now in (101.4, 102.0, 110.0):
        watchdog.keep(now, (lease, Lease(20.0)))
        assert device.read_bytes() == b"\0" and watchdog.due > now
    lease.safe = True
    watchdog.keep(111.0, (lease, Lease(20.0)))
    assert device.read_bytes() == b"\0\0"
    watchdog.keep(111.1, ())
    assert device.read_bytes() == b"\0\0V" and watchdog.due == float("inf")
    watchdog.close()
    assert device.read_bytes() == b"\0\0V" and said == []


def test_one_lease_that_is_not_safe_is_enough(device: Path) -> None:
    Watchdog(str(device), pytest.fail).keep(100.0, (Lease(), Lease(safe=False)))
    assert device.read_bytes() == b""


def test_nothing_is_opened_unless_it_is_configured() -> None:
    watchdog = Watchdog(None, pytest.fail)
    watchdog.keep(100.0, (Lease(),))
    watchdog.close()
    assert watchdog.due == float("inf")


def test_a_device_that_is_not_there_yet_is_said_once_and_tried_again(tmp_path: Path) -> None:
    said: list[str] = []
    device = tmp_path / "watchdog0"
    watchdog = Watchdog(str(device), said.append)
    for now in (100.0, 101.0, 102.0):
        watchdog.keep(now, (Lease(),))
    assert said == [f"the watchdog {device} is not used: No such file or directory"]
    device.touch()
    watchdog.keep(103.0, (Lease(),))
    assert device.read_bytes() == b"\0"


def test_a_lease_that_is_too_short_leaves_the_device_closed(device: Path) -> None:
    said: list[str] = []
    Watchdog(str(device), said.append).keep(100.0, (Lease(1.5),))
    assert said == [f"the watchdog {device} is not used: a lease of 1.5 s is too short for it: it needs 2 s"]
    assert device.read_bytes() == b""


def test_the_file_names_a_device_or_says_what_is_wrong(tmp_path: Path) -> None:
    named = tmp_path / "watchdog"
    assert configured(named) is None
    named.write_text("/dev/watchdog0\n")
    assert configured(named) == "/dev/watchdog0"
    for wrong in ("yes\n", "", "/dev/a\n/dev/b\n"):
        named.write_text(wrong)
        with pytest.raises(ValueError, match=f"{named}: line 1: .*: expected one line with the path of a device"):
            configured(named)


def test_a_lease_outlasts_what_is_left_of_it_from_when_its_renewal_was_sent() -> None:
    made = LeaseKeeper("mirror:db")
    made.order(8.0, True)
    made.renewed(100.0)
    assert made.lasts(104.0, 4.0) and not made.lasts(104.1, 4.0)
