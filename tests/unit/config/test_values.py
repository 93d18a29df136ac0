"""Lexical rules (spec §3.0): what a written value means."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekit.config import values
from safekit.config.values import MICROSECONDS, BadValue, duration, written_duration

units = st.sampled_from(sorted(MICROSECONDS))
amounts = st.integers(min_value=0, max_value=3000)


@given(amount=amounts, unit=units)
def test_a_bare_number_counts_in_the_unit_of_the_attribute(amount: int, unit: str) -> None:
    assert duration(str(amount), unit) == duration(f"{amount}{unit}", unit)


@given(amount=st.integers(min_value=0, max_value=10**9), suffix=units, unit=units)
def test_a_time_is_cut_down_to_whole_units_and_never_to_nothing(amount: int, suffix: str, unit: str) -> None:
    written = amount * MICROSECONDS[suffix]
    if written > values.LONGEST:
        with pytest.raises(BadValue, match="too long"):
            duration(f"{amount}{suffix}", unit)
    elif 0 < written < MICROSECONDS[unit]:
        with pytest.raises(BadValue, match=f"cut down to 0 {values.UNIT_NAMES[unit]}") as refusal:
            duration(f"{amount}{suffix}", unit)
        assert refusal.value.code == "config.duration"
    else:
        exact = timedelta(microseconds=written)
        kept = duration(f"{amount}{suffix}", unit)
        assert exact - timedelta(microseconds=MICROSECONDS[unit]) < kept <= exact
        assert kept % timedelta(microseconds=MICROSECONDS[unit]) == timedelta(0)


@given(amount=st.integers(min_value=0, max_value=values.LONGEST))
def test_a_time_written_out_reads_back_as_the_same_time(amount: int) -> None:
    length = timedelta(microseconds=amount)
    assert duration(written_duration(length), "us") == length


@pytest.mark.parametrize("text", ["", "s", "1.5s", "-1s", "1 s", "1h30m", "1S", "1min", "٣s", "0x10"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="not a time value"):
        duration(text, "s")


def test_a_number_of_a_million_digits_costs_nothing() -> None:
    with pytest.raises(BadValue, match="too long"):
        duration("9" * 1_000_000, "us")
    assert duration("0" * 1_000_000 + "5", "s") == timedelta(seconds=5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("192.0.2.1", ip_address("192.0.2.1")),
        ("[2001:db8::1]", ip_address("2001:db8::1")),
        ("2001:DB8::1", ip_address("2001:db8::1")),
        ("DB1.example.org", "db1.example.org"),
        ("db1.example.org.", "db1.example.org"),
        ("node-1", "node-1"),
        ("1node", "1node"),
    ],
)
def test_an_address_is_an_ip_address_or_a_dns_name(text: str, value: object) -> None:
    assert values.address(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "1.2.3",
        "1234",
        "192.0.2.256",
        "[192.0.2.1]",
        "2001:db8::g",
        "[2001:db8::1",
        "-a",
        "a..b",
        "a-.b",
        "a" * 64,
        "0.0.0.0",
    ]
    + ["::", "224.0.0.1", "ff02::1", ".".join(["a" * 60] * 5)],
)
def test_what_is_no_address_of_one_host_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        values.address(text)


@pytest.mark.parametrize("text", ["255.255.255.0", "255.255.255.255", "128.0.0.0"])
def test_a_network_mask_is_read(text: str) -> None:
    assert str(values.netmask(text)) == text


@pytest.mark.parametrize("text", ["255.0.255.0", "0.0.0.0", "0.0.0.255", "256.0.0.0"])
def test_what_is_no_network_mask_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="not a network mask"):
        values.netmask(text)


def test_a_virtual_mac_address_is_one_that_somebody_can_have() -> None:
    assert values.mac("5A:FE:C0:A8:38:14") == "5a:fe:c0:a8:38:14"
    assert values.mac("5B:FE:C0:A8:38:14") == "5b:fe:c0:a8:38:14"
    for text in ("FF:FF:FF:FF:FF:FF", "00:00:00:00:00:00"):
        with pytest.raises(BadValue, match="nobody's MAC address"):
            values.mac(text)


@pytest.mark.parametrize(
    ("text", "value"), [("/srv/data", "/srv/data"), ("/srv/data//", "/srv/data"), ("/a b/c", "/a b/c")]
)
def test_a_directory_is_an_absolute_path_and_may_hold_spaces(text: str, value: str) -> None:
    assert values.absolute_path(text) == value


@pytest.mark.parametrize("text", ["/", "//", "/a/../b", "/a/./b", "/a//b", "/a\x07"])
def test_a_directory_is_written_without_detours(text: str) -> None:
    with pytest.raises(BadValue):
        values.absolute_path(text)


@pytest.mark.parametrize("text", ["../x", "a/../b", ".", "a//b", "a\x7f"])
def test_a_relative_path_stays_below_its_directory(text: str) -> None:
    with pytest.raises(BadValue):
        values.relative_path(text)


def test_a_relative_path_may_name_a_directory() -> None:
    assert values.relative_path("lost+found/") == "lost+found"


@pytest.mark.parametrize("text", [r".*\.tmp$", "!^(a|b)+$", "[[:alpha:]]{2,3}", "é+"])
def test_a_posix_extended_regular_expression_is_accepted(text: str) -> None:
    assert values.ere(text) == text


@pytest.mark.parametrize("text", ["(", "[a", "a{2,1}", "[[:word:]]", "*" * 2000])
def test_what_the_c_library_cannot_match_with_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        values.ere(text)


@pytest.mark.parametrize(
    "text", ["(((a{1,99}){1,99}){1,99})", "(" * 500 + "a" + ")" * 500, "a{99999}", "(a{1,9999}){2,9999}"]
)
def test_an_expression_that_would_cost_gigabytes_is_never_compiled(text: str) -> None:
    with pytest.raises(BadValue, match="too complex"):
        values.ere(text)


def test_repetitions_within_reason_are_fine() -> None:
    for text in ("[0-9]{4}-[0-9]{2}-[0-9]{2}T([0-9]{2}:){2}[0-9]{2}", "x{1,255}", "a{2,}b{0}", "(a|(b|(c|d)))+"):
        assert values.ere(text) == text


def test_numbers_and_ports_are_bounded() -> None:
    assert values.number("2147483647") == 2**31 - 1
    assert values.port("65535") == 65535
    with pytest.raises(BadValue, match="too large"):
        values.number("2147483648")
    with pytest.raises(BadValue, match="not a port"):
        values.port("65536")


def test_a_star_means_any() -> None:
    assert values.port_or_any("*") is None
    assert values.port_or_any("80") == 80
    assert values.address_or_any("*") is None
    assert values.address_or_any("192.0.2.1") == ip_address("192.0.2.1")
