"""From the text of an attribute to its value (spec §3.0): times, addresses, ports, paths, regular expressions.

What a text must look like stands in the schema; here is only what a pattern cannot say. Each reader gets a text that
already matches its pattern, and raises `BadValue` with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import prod

Address = IPv4Address | IPv6Address | str
"""An IP address, or the DNS name that is resolved when the configuration is applied."""

MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}
UNIT_NAMES = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds"}
LONGEST = 3650 * MICROSECONDS["d"]
LARGEST = 2**31 - 1

_DURATION = re.compile(r"([0-9]+)(d|h|m|s|ms|us)?", re.ASCII)
_DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.?",
    re.ASCII | re.IGNORECASE,
)
_LONGEST_REGEX = 1024
_DEEPEST_REGEX = 32
_LARGEST_REGEX = 100_000
_REPETITION = re.compile(r"\{([0-9]*),?([0-9]*)\}", re.ASCII)


class BadValue(Exception):
    """A text that is no value of its type. `expected` replaces the schema's sentence where it says more."""

    def __init__(self, reason: str, *, code: str = "config.value", expected: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.expected = expected


def duration(text: str, unit: str) -> timedelta:
    """A time value. A bare number counts in `unit`; the result is truncated to a whole number of `unit` (spec §3.0)."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise BadValue("not a time value", code="config.duration", expected=duration_expected(unit))
    # Bounded before it is a number: a text of a million digits must not cost a second.
    digits = match[1].lstrip("0")
    written = int(digits or "0") if len(digits) <= 20 else LONGEST + 1
    length = written * MICROSECONDS[match[2] or unit]
    if length > LONGEST:
        raise BadValue("too long a time", code="config.duration", expected="at most 3650d")
    whole = length // MICROSECONDS[unit] * MICROSECONDS[unit]
    if length and not whole:
        raise BadValue(
            f"the value would be cut down to 0 {UNIT_NAMES[unit]}",
            code="config.duration",
            expected=f"at least 1{unit}: this attribute counts in {UNIT_NAMES[unit]}",
        )
    return timedelta(microseconds=whole)


def duration_expected(unit: str, *, zero: bool = True) -> str:
    """What an error says about a time value of this unit."""
    least = "0, or a whole number" if zero else "a whole number greater than 0"
    return f"{least} followed by d, h, m, s, ms or us (without a suffix: {UNIT_NAMES[unit]})"


def written_duration(length: timedelta) -> str:
    """The shortest exact text of a time value: the inverse of `duration`."""
    total = length // timedelta(microseconds=1)
    if not total:
        return "0s"
    suffix = next(suffix for suffix, size in MICROSECONDS.items() if total % size == 0)
    return f"{total // MICROSECONDS[suffix]}{suffix}"


def number(text: str) -> int:
    """A whole number from -1 to 2147483647."""
    value = int(text)
    if value > LARGEST:
        raise BadValue("too large a number")
    return value


def port(text: str) -> int:
    """A TCP or UDP port."""
    value = int(text)
    if value > 65535:
        raise BadValue("not a port number")
    return value


def port_or_any(text: str) -> int | None:
    """A port; None for `*`."""
    return None if text == "*" else port(text)


def ip(text: str) -> IPv4Address | IPv6Address:
    """An IPv4 or IPv6 address, the latter with or without brackets."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ip_address(bare)
    except ValueError:
        raise BadValue("not an IP address") from None
    if bare != text and address.version == 4:
        raise BadValue("only an IPv6 address stands in brackets")
    if address.is_unspecified or address.is_multicast:
        raise BadValue("not the address of one host")
    return address


def address(text: str) -> Address:
    """An IP address or a DNS name (in lower case)."""
    if ":" in text or "[" in text or text.replace(".", "").isdigit():
        return ip(text)
    if _DNS_NAME.fullmatch(text) is None:
        raise BadValue("neither an IP address nor a DNS name")
    return text.lower().rstrip(".")


def address_or_any(text: str) -> Address | None:
    """An address; None for `*`."""
    return None if text == "*" else address(text)


def netmask(text: str) -> IPv4Address:
    """A contiguous IPv4 mask."""
    try:
        mask = IPv4Address(text)
    except ValueError:
        raise BadValue("not a network mask") from None
    host_bits = ~int(mask) & 0xFFFFFFFF
    if host_bits & (host_bits + 1) or not int(mask):
        raise BadValue("not a network mask")
    return mask


def mac(text: str) -> str:
    """A MAC address in lower case; a multicast one is for interfaces that take no second unicast one."""
    if text.lower() in ("ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"):
        raise BadValue("nobody's MAC address")
    return text.lower()


def absolute_path(text: str) -> str:
    """An absolute path without a trailing slash; spaces are allowed (the reference refuses them)."""
    path = text.rstrip("/")
    parts = path.split("/")[1:]
    if not path or not all(parts) or "." in parts or ".." in parts or _has_control(text):
        raise BadValue("not such a path")
    return path


def relative_path(text: str) -> str:
    """A path that stays below its directory, without a trailing slash."""
    path = text.rstrip("/")
    parts = path.split("/")
    if not all(parts) or "." in parts or ".." in parts or _has_control(text):
        raise BadValue("not such a path")
    return path


def ere(text: str) -> str:
    """A POSIX extended regular expression: the C library, which will match with it, compiles it.

    What it would compile into gigabytes, or die of, is refused first: glibc unrolls repetitions and recurses on parentheses.
    """
    if len(text) > _LONGEST_REGEX:
        raise BadValue(f"longer than {_LONGEST_REGEX} characters")
    counts = (max(int(least or "1"), int(most or "1"), 1) for least, most in _REPETITION.findall(text))
    unrolled = len(text) * prod(counts)
    if unrolled > _LARGEST_REGEX or text.count("(") > _DEEPEST_REGEX:
        raise BadValue("too complex a regular expression")
    import ctypes  # only configurations with a regular expression pay for it

    libc = ctypes.CDLL(None)
    compiled = ctypes.create_string_buffer(1024)  # regex_t has 64 bytes in glibc and musl
    extended, no_captures = 1, 8
    failed = libc.regcomp(compiled, ctypes.c_char_p(text.encode()), extended | no_captures)
    if failed:
        explanation = ctypes.create_string_buffer(256)
        libc.regerror(failed, compiled, explanation, 256)
        raise BadValue(f"not a regular expression ({explanation.value.decode(errors='replace')})")
    libc.regfree(compiled)
    return text


def _has_control(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)


READERS: dict[str, Callable[[str], object]] = {
    "onoff": lambda text: text == "on",
    "yesno": lambda text: text == "yes",
    "port": port,
    "port_or_any": port_or_any,
    "positive": number,
    "natural": number,
    "natural_or_ignored": number,
    "address": address,
    "address_or_any": address_or_any,
    "ip": ip,
    "netmask": netmask,
    "mac": mac,
    "absolute_path": absolute_path,
    "relative_path": relative_path,
    "ere": ere,
}
"""The reader of each simple type of the schema; time values have their own, every other type is its text."""
