"""Questions to a data plane whose worker dies over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from safekit.replication import DataPlane, DataPlaneError

INTERRUPTED = b"error code=interrupted message=ask%20again\n"


@asynccontextmanager
async def answering(socket: Path, *answers: bytes) -> AsyncIterator[list[bytes]]:
    """A control socket that gives these answers, one for each connection; what it was asked."""
    asked: list[bytes] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(left.pop(0))
        writer.close()

    async with await asyncio.start_unix_server(serve, str(socket)):
        yield asked


async def test_a_question_that_was_interrupted_is_asked_again(tmp_path: Path) -> None:
    async with answering(tmp_path / "s", INTERRUPTED, INTERRUPTED, b"ok sent_bytes=5 role=primary\n") as asked:
        assert await DataPlane(tmp_path / "s").stats() == {"sent_bytes": 5, "role": "primary"}
    assert asked == [b"stats\n"] * 3


async def test_what_must_not_happen_twice_is_not_asked_twice(tmp_path: Path) -> None:
    async with answering(tmp_path / "s", INTERRUPTED) as asked:
        with pytest.raises(DataPlaneError, match="ask again"):
            await DataPlane(tmp_path / "s").connect("h", 1, generation="g")
    assert len(asked) == 1


async def test_it_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with answering(tmp_path / "s", *[INTERRUPTED] * 9) as asked:
        with pytest.raises(DataPlaneError, match="ask again"):
            await DataPlane(tmp_path / "s").alone(generation="g")
    assert len(asked) == 5


async def test_a_comparison_and_a_backup_are_asked_for_in_the_words_of_the_data_plane(tmp_path: Path) -> None:
    async with answering(tmp_path / "s", b"ok\n", b"ok\n", b"ok\n") as asked:
        plane = DataPlane(tmp_path / "s")
        await plane.compare("verify")
        await plane.external("prim", "monday")
        await plane.external("second", "monday", check=False)
    assert asked == [
        b"verify\n",
        b"external-primary uid=monday check=yes\n",
        b"external-secondary uid=monday check=no\n",
    ]
