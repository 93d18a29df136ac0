"""The controller's end of the data plane's unix socket: one coroutine per command, and the stream of events.

Every request is a connection of its own and gets exactly one answer; the stream of events is another connection.
Nothing here is needed for the data plane to go on working.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from safekit.replication.events import (
    Connected,
    DataPlaneError,
    DataPlaneGone,
    Event,
    Gone,
    Status,
    decode_connected,
    decode_event,
    decode_line,
    decode_status,
    encode_line,
)

_ANSWER_S: Final = 10.0
_CONNECT_S: Final = 20.0
_FIRST_RETRY_S: Final = 0.02
_LINE_LIMIT: Final = 64 * 1024
_QUESTIONS: Final = 5
_REPEATABLE: Final = frozenset({"status", "stats", "alone", "publish", "disconnect", "idle", "exit"})
"""What does no harm when it is carried out twice."""


class DataPlane:
    """One `safekit-rfs` process seen through its control socket. Holds no connection between calls."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def open(self, timeout: float = 5.0) -> Status:
        """Waits up to `timeout` seconds for the process to answer. Raises DataPlaneGone when it does not."""
        deadline = asyncio.get_running_loop().time() + timeout
        pause = _FIRST_RETRY_S
        while True:
            try:
                return await self.status()
            except DataPlaneGone:
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    raise
                await asyncio.sleep(min(pause, left))
                pause = min(pause * 2, 0.5)

    async def status(self) -> Status:
        """Role, peer, held answers, dirty set, progress. Raises DataPlaneGone."""
        return decode_status(await self._request("status", {}, _ANSWER_S))

    async def primary(self, *, generation: str, force: bool = False) -> None:
        """Mounts every directory over itself and serves it alone, tracking. `force`: even an inconsistent copy (§4.5)."""
        await self._request("primary", {"generation": generation, "force": force}, _CONNECT_S)

    async def connect(self, host: str, port: int, *, generation: str, full: bool = False) -> Connected:
        """Connects to a listening secondary and starts the resync. `full` compares everything. Raises DataPlaneError `unreachable`,
        `key` (the keys differ), `version`, `directories`, `refused`, or `state` when this is no primary or has a peer already."""
        arguments: dict[str, str | int | bool] = {"host": host, "port": port, "generation": generation, "full": full}
        return decode_connected(await self._request("connect", arguments, _CONNECT_S))

    async def disconnect(self) -> None:
        """Drops the peer. Answers are held when it was in mirror, as for any other loss."""
        await self._request("disconnect", {}, _ANSWER_S)

    async def alone(self, *, generation: str, leave: bool = False) -> None:
        """The grant: held writes are answered, the dirty set goes on counting. Can be repeated.

        `leave`: a secondary that is still connected is left at once, because it is known to be gone; without it, that is a
        DataPlaneError `state`.
        """
        await self._request("alone", {"generation": generation, "leave": leave}, _ANSWER_S)

    async def publish(self, *, generation: str) -> None:
        """Tells the secondary, in the stream, that its record may be `both`. Raises DataPlaneError `state` out of mirror."""
        await self._request("publish", {"generation": generation}, _ANSWER_S)

    async def secondary(self, address: str, port: int, *, generation: str, clean: bool = True) -> None:
        """Protects the directories, listens on `address`:`port` and applies. `clean=False`: this copy may lack something."""
        arguments: dict[str, str | int | bool] = {
            "address": address,
            "port": port,
            "generation": generation,
            "clean": clean,
        }
        await self._request("secondary", arguments, _ANSWER_S)

    async def handover(self, timeout: float = 30.0) -> None:
        """Flushes, makes both sides durable, unmounts; the role is idle and clean after it.

        Raises DataPlaneError `busy` and goes on serving when an application still uses a directory after `timeout` seconds,
        `state` when the peer is not in mirror, `peer_lost` when it was lost on the way."""
        await self._request("handover", {"timeout": int(timeout * 1000)}, timeout + _ANSWER_S)

    async def idle(self, *, force: bool = False) -> None:
        """Unmounts or stops listening. `busy` when an application still uses a directory, unless forced (its I/O then fails)."""
        await self._request("idle", {"force": force}, _CONNECT_S + _ANSWER_S)

    async def stats(self) -> dict[str, int | str]:
        """Counters and latencies, in the data plane's own names. Raises DataPlaneGone."""
        values = await self._request("stats", {}, _ANSWER_S)
        return {name: int(text) if text.lstrip("-").isdigit() else text for name, text in values.items()}

    async def compare(self, kind: str) -> None:
        """Begin to compare the copies: `verify` their contents, `diff` counts what a synchronisation would copy. Events
        tell the rest. Raises DataPlaneError `busy` while one runs, `state` without a peer."""
        await self._request(kind, {}, _CONNECT_S)

    async def external(self, role: str, uid: str, *, check: bool = True) -> None:
        """This copy, as it is now (`prim`) or was when it was restored (`second`), is the backup `uid`. `check`: what
        changed in it since, without us, is looked for."""
        word = {"prim": "external-primary", "second": "external-secondary"}[role]
        await self._request(word, {"uid": uid, "check": check}, _ANSWER_S)

    async def limit(self, bandwidth: int) -> None:
        """From now on a resynchronisation copies at most so many KB per second (`reiallowedbw`); 0: as fast as it can."""
        await self._request("limit", {"bandwidth": bandwidth}, _ANSWER_S)

    async def exit(self) -> None:
        """Idle, then the end of the process."""
        with suppress(DataPlaneGone):
            await self._request("exit", {}, _CONNECT_S + _ANSWER_S)

    async def events(self) -> AsyncIterator[Event]:
        """Events from now on; ends with `Gone` when the process does. Raises DataPlaneGone when there is none to begin with."""
        async with self.subscribe() as stream:
            async for event in stream:
                yield event

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[Event]]:
        """The same for who must not miss the first one: inside the block, every event since its beginning arrives."""
        reader, writer = await self._dial()
        try:
            writer.write(encode_line("subscribe", {}))
            if not await reader.readline():
                raise DataPlaneGone(f"subscribe: {self._socket} closed")
            yield _read_events(reader)
        finally:
            writer.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(str(self._socket), limit=_LINE_LIMIT)
        except (FileNotFoundError, ConnectionError) as error:
            raise DataPlaneGone(f"no data plane behind {self._socket}: {error.strerror}") from error

    async def _request(self, word: str, arguments: dict[str, str | int | bool], timeout: float) -> dict[str, str]:
        """Ask, and ask again when a worker died over the question and the question can be asked twice."""
        for _ in range(_QUESTIONS - 1):
            try:
                return await self._ask(word, arguments, timeout)
            except DataPlaneError as error:
                if error.code != "interrupted" or word not in _REPEATABLE:
                    raise
        return await self._ask(word, arguments, timeout)

    async def _ask(self, word: str, arguments: dict[str, str | int | bool], timeout: float) -> dict[str, str]:
        reader, writer = await self._dial()
        try:
            writer.write(encode_line(word, arguments))
            async with asyncio.timeout(timeout):
                line = await reader.readline()
        except TimeoutError as error:
            raise DataPlaneError("timeout", f"{word}: no answer from {self._socket} within {timeout:g} s") from error
        except ConnectionError as error:
            raise DataPlaneGone(f"{word}: {self._socket} closed") from error
        finally:
            writer.close()
        if not line:
            raise DataPlaneGone(f"{word}: {self._socket} closed without an answer")
        answer, values = decode_line(line)
        if answer == "ok":
            return values
        raise DataPlaneError(values.get("code", "unknown"), values.get("message", line.decode("utf-8", "replace")))


async def _read_events(reader: asyncio.StreamReader) -> AsyncIterator[Event]:
    with suppress(ConnectionError):
        while line := await reader.readline():
            word, values = decode_line(line)
            if word == "event":
                yield decode_event(values.pop("name"), values)
    yield Gone()
