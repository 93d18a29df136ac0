"""The data plane is killed again and again under a database: the application sees no error, and both copies stay equal.

SAFEKIT_SUITES_KILLS says how often (100), SAFEKIT_SUITES_SEED which of both sides, and after how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
from pathlib import Path

import pytest

from safekit.replication import DataPlaneError, DataPlaneGone, Status
from tests.native.pair import Pair, Side, opened
from tests.suites.postgresql import Server
from tests.suites.test_suites import equal_copies

KILLS = int(os.environ.get("SAFEKIT_SUITES_KILLS", "100"))
SEED = int(os.environ.get("SAFEKIT_SUITES_SEED", "1"))
SCALE = 5
pytestmark = [pytest.mark.native, pytest.mark.timeout(1200)]


async def status_of(side: Side) -> Status:
    """Also of a worker that only begins."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await side.plane.status()
            except (DataPlaneError, DataPlaneGone):
                await asyncio.sleep(0.01)


async def killed(side: Side) -> None:
    """A worker is killed; returns when another one answers."""
    worker = side.worker
    os.kill(worker, signal.SIGKILL)
    async with asyncio.timeout(30):
        while (await status_of(side)).pid == worker:
            await asyncio.sleep(0.005)


async def again_in_mirror(pair: Pair) -> None:
    """The controller: it connects until the pair is a mirror; what was held is answered then."""
    async with asyncio.timeout(60):
        while (status := await status_of(pair.a)).peer != "mirror":
            if status.peer in ("none", "lost"):
                with contextlib.suppress(DataPlaneError, DataPlaneGone):
                    await pair.connect()
            await asyncio.sleep(0.01)


def load(server: Server) -> int:
    """A few seconds of transactions; how many. Fails when one failed."""
    ran = server.client("pgbench", "-c", "4", "-T", "5", "-n", check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert re.search(r"number of failed transactions: 0 ", ran.stdout), ran.stdout
    done = re.search(r"number of transactions actually processed: (\d+)", ran.stdout)
    assert done is not None, ran.stdout
    return int(done[1])


def balances(server: Server) -> set[str]:
    """What must be one and the same sum, four times."""
    tables = {"pgbench_accounts": "abalance", "pgbench_tellers": "tbalance", "pgbench_branches": "bbalance"}
    sums = [f"select coalesce(sum({column}), 0) from {table}" for table, column in tables.items()]
    sums.append("select coalesce(sum(delta), 0) from pgbench_history")
    return {server.client("psql", "-At", "-c", line, "postgres").stdout.strip() for line in sums}


async def test_a_database_does_not_notice_that_the_data_plane_is_killed(home: Path, binary: Path) -> None:
    server, chance = Server(home), random.Random(SEED)
    (home / "pair").mkdir()
    async with opened(Pair(home / "pair", binary)) as pair:
        await pair.serve()
        await pair.mirror()
        database = server.serving(pair.a.data / "pg")
        await asyncio.to_thread(database.__enter__)
        try:
            await asyncio.to_thread(server.client, "pgbench", "-i", "-q", "-s", str(SCALE), "postgres")
            transactions, kills = 0, 0
            working = asyncio.create_task(asyncio.to_thread(load, server))
            while kills < KILLS:
                await asyncio.sleep(chance.uniform(0.02, 0.25))
                if working.done():
                    transactions += await working
                    working = asyncio.create_task(asyncio.to_thread(load, server))
                if chance.random() < 0.2:
                    await pair.b.kill()
                    await pair.b.restart()
                    await pair.listen(pair.b)
                else:
                    await killed(pair.a)
                kills += 1
                await again_in_mirror(pair)
            transactions += await working
            assert len(await asyncio.to_thread(balances, server)) == 1
        finally:
            await asyncio.to_thread(database.__exit__, None, None, None)
        print(f"{kills} kills, {transactions} transactions, 0 failed")
        assert transactions > KILLS
        log = (home / "log").read_text()
        assert "PANIC" not in log and "could not" not in log, log[-3000:]
        await equal_copies(pair)
        for side in (pair.a, pair.b):
            await asyncio.to_thread(server.verify, side.data / "pg")
