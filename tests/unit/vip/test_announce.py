"""The frames and the moments of an announcement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from safekit.vip.announce import Announcements, frames, moments
from safekit.vip.service import ArpReroute, Placement

FOUR = Placement(ip_address("192.0.2.100"), "eth0", 2, "02:00:00:00:00:01", ip_address("192.0.2.1"))
SIX = Placement(ip_address("fd00::100"), "eth0", 2, "02:00:00:00:00:01", ip_address("fd00::1"))
MAC = "020000000001"


def test_gratuitous_arp_comes_as_request_and_as_reply_to_everybody() -> None:
    request, reply = (frame.hex() for frame in frames(FOUR))
    assert request == f"ffffffffffff{MAC}0806" + "0001080006040001" + MAC + "c0000264" + "000000000000" + "c0000264"
    assert reply == f"ffffffffffff{MAC}0806" + "0001080006040002" + MAC + "c0000264" + "ffffffffffff" + "c0000264"


def test_the_neighbour_advertisement_overrides_and_goes_to_all_nodes() -> None:
    (frame,) = frames(SIX)
    assert frame[:14].hex() == f"333300000001{MAC}86dd"
    source, target, icmp = frame[22:38], frame[38:54], frame[54:]
    assert (source, target) == (ip_address("fd00::100").packed, ip_address("ff02::1").packed)
    assert frame[21] == 255, "a router would have counted it down"
    assert icmp[0] == 136 and icmp[4] == 0x20 and icmp[8:24] == source and icmp[24:].hex() == f"0201{MAC}"
    pseudo = source + target + len(icmp).to_bytes(4, "big") + b"\0\0\0\x3a" + icmp
    total = sum(int.from_bytes(pseudo[start : start + 2], "big") for start in range(0, len(pseudo), 2))
    assert (total & 0xFFFF) + (total >> 16) in (0xFFFF, 0x1FFFE)


def test_an_announcement_is_repeated_after_one_two_and_four_seconds() -> None:
    assert list(moments(None)) == [1, 2, 4]


def test_arpreroute_goes_on_at_its_interval_until_it_elapses() -> None:
    assert list(moments(ArpReroute(60, 1200)))[3:] == [60.0 * count for count in range(1, 21)]


NOWHERE = replace(FOUR, interface="no-such-if")


@pytest.mark.parametrize(("reroute", "ends"), [(None, 4.0), (ArpReroute(10, 30), 30.0)])
async def test_the_clock_of_the_repeats(reroute: ArpReroute | None, ends: float) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    announcements = Announcements()
    announcements.begin([(NOWHERE, reroute), (replace(SIX, interface="no-such-if"), reroute)])
    await announcements.repeat(sleep)
    assert sum(slept) == ends


@pytest.mark.parametrize("something_else", [Announcements.end, lambda one: one.begin([(NOWHERE, None)])])
async def test_the_repeats_end_with_what_they_announce(something_else: Callable[[Announcements], None]) -> None:
    slept: list[float] = []
    announcements = Announcements()
    announcements.begin([(NOWHERE, None)])

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        something_else(announcements)

    await announcements.repeat(sleep)
    assert slept == [1.0]


async def test_who_announces_nothing_repeats_nothing() -> None:
    await Announcements().repeat()
