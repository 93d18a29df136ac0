"""What the table consists of: rows with their units, and what is promised of them (design: replication, targets)."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import recovery, scale
from benchmarks.places import ALONE, BOUND, GLUSTER, LOCAL
from benchmarks.workloads import (
    SmallFiles,
    Work,
    cached_read,
    cold_read,
    random_write,
    random_write_four_files,
    random_write_one_file,
    random_write_synced,
    sequential_write,
)


@dataclass(frozen=True)
class Row:
    """One line of the table. `work` measures it in every place; a row without one comes from a group of
    `RECOVERIES`."""

    key: str
    title: str
    unit: str
    work: Work | None = None


@dataclass(frozen=True)
class Promise:
    """Ours against `reference` at least `limit` times; without a reference the figure itself, at least or at most."""

    row: str
    reference: str
    limit: float
    at_most: bool = False


def rows(transactions: Work, sqlite: Work) -> tuple[Row, ...]:
    """Every row, in the order of the table."""
    small = SmallFiles()
    return (
        Row("random", "random write 4 KiB, 1 job", "IOPS", random_write),
        Row("random4", "random write 4 KiB, 4 jobs, 4 files", "IOPS", random_write_four_files),
        Row("random1", "random write 4 KiB, 4 jobs, one file", "IOPS", random_write_one_file),
        Row("fsync", "random write 4 KiB + fsync each", "IOPS", random_write_synced),
        Row("write", "sequential write 1 MiB", "MB/s", sequential_write),
        Row("cold", "sequential read, cold", "MB/s", cold_read),
        Row("cached", "sequential read, cached", "MB/s", cached_read),
        Row("create", "create + 4 KiB + close", "files/s", small.step("create")),
        Row("stat", "stat", "files/s", small.step("stat")),
        Row("unlink", "unlink", "files/s", small.step("unlink")),
        Row("pgbench", "pgbench, 4 clients", "tps", transactions),
        Row("sqlite", "SQLite, rollback journal", "tps", sqlite),
        Row("reintegration", "reintegration of one large file", "MB/s"),
        Row("rejoin", "rejoin after a crash of the primary", "s"),
        Row("rejoin-share", "rejoin, share of the tree compared", "of 1"),
        Row("sparse", "50 changes in a sparse file, written", "MiB"),
        Row("cost", "pgbench p99, reintegration beside it", "x"),
        Row("cost-rate", "rate of that reintegration", "of alone"),
        Row("compare", "many files, full compare of metadata", "files/s"),
        Row("changed", "many files, 100 changed, clean stop", "s"),
        Row("crash", "many files, rejoin after a crash", "s"),
        Row("crash-share", "many files, share compared after it", "of 1"),
        Row("known", "memory, every one of many files known", "MiB"),
        Row("terabyte", "memory, one file of 1 TiB", "MiB"),
    )


@dataclass(frozen=True)
class Group:
    """Rows that one function measures. Those `at_scale` belong to the second part of the run."""

    keys: tuple[str, ...]
    work: recovery.Recovery
    at_scale: bool


RECOVERIES = (
    Group(("reintegration",), recovery.reintegration, at_scale=False),
    Group(("rejoin", "rejoin-share"), recovery.rejoin, at_scale=False),
    Group(("terabyte",), recovery.terabyte, at_scale=False),
    Group(("sparse",), scale.sparse, at_scale=True),
    Group(("cost", "cost-rate"), scale.cost, at_scale=True),
    Group(("compare", "changed", "crash", "crash-share", "known"), recovery.million, at_scale=True),
)

PROMISES = (
    Promise("random", BOUND, 0.85),
    Promise("random", GLUSTER, 4),
    Promise("random4", BOUND, 0.75),
    Promise("random4", GLUSTER, 7),
    Promise("random1", GLUSTER, 5),
    Promise("fsync", ALONE, 0.85),
    Promise("fsync", GLUSTER, 3),
    Promise("write", BOUND, 0.6),
    Promise("write", GLUSTER, 2),
    Promise("cold", LOCAL, 0.9),
    Promise("cached", LOCAL, 0.9),
    Promise("create", GLUSTER, 12),
    Promise("stat", GLUSTER, 25),
    Promise("unlink", GLUSTER, 8),
    Promise("pgbench", LOCAL, 0.9),
    Promise("pgbench", GLUSTER, 2),
    Promise("reintegration", BOUND, 0.9),
    Promise("rejoin", "", 2, at_most=True),
    Promise("rejoin-share", "", 0.01, at_most=True),
    Promise("sparse", "", 6.5, at_most=True),
    Promise("cost", "", 2, at_most=True),
    Promise("cost-rate", "", 0.5),
    Promise("crash", "", 2, at_most=True),
    Promise("crash-share", "", 0.01, at_most=True),
    Promise("changed", "", 5, at_most=True),
    Promise("compare", "", 150_000),
    Promise("known", "", 250, at_most=True),
    Promise("terabyte", "", 65, at_most=True),
)
