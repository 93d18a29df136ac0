"""What a schema cannot say about `<rfs>` (spec §3.6): values that must agree, values that are possible, and a word where
the replication here works another way than the reference's. A part of `checks`.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import PurePosixPath

from safekit.config import model
from safekit.config.build import SMALLEST_ZONE
from safekit.config.errors import Problems
from safekit.config.values import written_duration

LONGEST_TIMEOUTS = {
    "locktimeout": timedelta(hours=1),
    "sendtimeout": timedelta(hours=1),
    "reitimeout": timedelta(days=1),
}
DEFAULT_THREADS = 6
DEFAULT_SUFFIX = "_For_SafeKit_Replication"


def check_rfs(rfs: model.Rfs, problems: Problems) -> None:
    """Everything about `<rfs>` that can be told from the file."""
    _check_rfs_timeouts(rfs, problems)
    _warn_of_other_ways(rfs, problems)
    if rfs.packetsize and rfs.reipacketsize > rfs.packetsize:
        problems.error(
            "config.value",
            f"larger than packetsize, {rfs.packetsize}",
            line=rfs.line,
            element="rfs",
            attribute="reipacketsize",
            value=str(rfs.reipacketsize),
            expected="at most packetsize",
        )
    if rfs.ruzone_blocksize % rfs.reipacketsize:
        problems.error(
            "config.value",
            f"not a multiple of reipacketsize, {rfs.reipacketsize}",
            line=rfs.line,
            element="rfs",
            attribute="ruzone_blocksize",
            value=str(rfs.ruzone_blocksize),
            expected="a multiple of reipacketsize",
        )
    _check_rfs_bounds(rfs, problems)
    for index, later in enumerate(rfs.replicated):
        for earlier in rfs.replicated[:index]:
            if overlap(earlier.dir, later.dir):
                problems.error(
                    "config.duplicate",
                    f"the same tree as {earlier.dir} of line {earlier.line}, or one inside the other",
                    line=later.line,
                    element="replicated",
                    attribute="dir",
                    value=later.dir,
                    expected="directories apart from each other",
                )
        for excluded in later.notreplicated:
            if (excluded.path is None) == (excluded.regexpath is None):
                problems.error(
                    "config.missing" if excluded.path is None else "config.mixed",
                    "what is excluded is one path or one regular expression",
                    line=excluded.line,
                    element="notreplicated",
                    expected="either path or regexpath",
                )


def _check_rfs_timeouts(rfs: model.Rfs, problems: Problems) -> None:
    for attribute, longest in LONGEST_TIMEOUTS.items():
        length: timedelta = getattr(rfs, attribute)
        if length > longest:
            problems.error(
                "config.value",
                "a secondary that is gone would be waited for that long",
                line=rfs.line,
                element="rfs",
                attribute=attribute,
                value=written_duration(length),
                expected=f"at most {written_duration(longest)}",
            )


RFS_BOUNDS = {
    "ruzone_blocksize": (SMALLEST_ZONE, 1 << 30, "bytes"),
    "nbrei": (1, 64, "threads"),
    "reiallowedbw": (1, 1_000_000_000, "KB/s"),
    "reicommit": (0, 1_000_000, "packets"),
}


def _check_rfs_bounds(rfs: model.Rfs, problems: Problems) -> None:
    for attribute, (least, most, unit) in RFS_BOUNDS.items():
        value: int | None = getattr(rfs, attribute)
        if value is not None and not least <= value <= most:
            problems.error(
                "config.value",
                "not possible",
                line=rfs.line,
                element="rfs",
                attribute=attribute,
                value=str(value),
                expected=f"from {least} to {most} {unit}",
            )


def _warn_of_other_ways(rfs: model.Rfs, problems: Problems) -> None:
    """What the reference needs and the replication here does another way: accepted, and said."""

    def warn(attribute: str, value: str, reason: str) -> None:
        problems.warn("config.no_effect", reason, line=rfs.line, element="rfs", attribute=attribute, value=value)

    if rfs.mountoversuffix != DEFAULT_SUFFIX:
        warn("mountoversuffix", rfs.mountoversuffix, "nothing is renamed here: a directory is mounted over itself")
    if rfs.nbremconn > 1:
        warn("nbremconn", str(rfs.nbremconn), "one connection carries the ordered stream of the replication")
    if rfs.packetsize is not None:
        warn("packetsize", str(rfs.packetsize), "no NFS is in the way here: requests have the size that they have")
    if rfs.nbrei != DEFAULT_THREADS:
        warn(
            "nbrei",
            str(rfs.nbrei),
            "counts the threads that read trees; one compares, and the secondary applies in parallel",
        )
    if rfs.reicommit:
        warn("reicommit", str(rfs.reicommit), "the secondary commits what it gets every second, and at the end")
    if rfs.namespacepolicy in ("1", "3"):
        warn("namespacepolicy", rfs.namespacepolicy, "has a meaning on Windows only; here it is as 4")


def overlap(one: str, other: str) -> bool:
    """The two absolute paths are the same, or one is below the other."""
    first, second = PurePosixPath(one), PurePosixPath(other)
    return first.is_relative_to(second) or second.is_relative_to(first)
