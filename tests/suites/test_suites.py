"""Applications' own suites on a replicated directory: no failure that a plain directory does not have, and two equal copies."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from tests.model.snapshot import differences, snapshot, without_holes
from tests.native.pair import Pair, opened
from tests.suites.postgresql import RegressionTests
from tests.suites.sqlite import Sqlite

pytestmark = [pytest.mark.native, pytest.mark.timeout(1800)]


async def equal_copies(pair: Pair) -> None:
    """In mirror to the end, and equal bit for bit after a handover."""
    assert (await pair.a.plane.status()).peer == "mirror", pair.a.events
    await pair.a.plane.handover()
    one, other = [await asyncio.to_thread(snapshot, side.data) for side in (pair.a, pair.b)]
    found = differences(without_holes(one), without_holes(other))
    assert not found, "\n".join(found)


async def test_postgresql_passes_its_regression_tests_on_a_replicated_directory(home: Path, binary: Path) -> None:
    suite = RegressionTests(home)
    (home / "pair").mkdir()
    async with opened(Pair(home / "pair", binary)) as pair:
        await pair.serve()
        await pair.mirror()
        ours = await asyncio.to_thread(suite.run, pair.a.data / "pg")
        assert ours.count > 150, ours.output
        await equal_copies(pair)
        for side in (pair.a, pair.b):
            await asyncio.to_thread(suite.verify, side.data / "pg")
    print(f"{ours.count} tests, {len(ours.failed)} failed: {', '.join(sorted(ours.failed))}")
    if ours.failed:
        plain = await asyncio.to_thread(suite.run, home / "plain")
        assert ours.failed <= plain.failed, ours.output


async def test_sqlite_bears_its_load_on_a_replicated_directory(home: Path, binary: Path) -> None:
    suite = Sqlite(home)
    (home / "pair").mkdir()
    async with opened(Pair(home / "pair", binary)) as pair:
        await pair.serve()
        await pair.mirror()
        for index, load in enumerate(suite.loads()):
            found = await asyncio.to_thread(suite.run, load, pair.a.data / f"{index}.db")
            if found:
                plain = await asyncio.to_thread(suite.run, load, home / f"{index}.db")
                assert plain, found
        await equal_copies(pair)
        for base in sorted(pair.b.data.glob("*.db")):
            copy = home / "copy.db"
            subprocess.run(["cp", base, copy], check=True)
            assert not suite.check(copy, only_read=True)
