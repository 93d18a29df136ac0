"""Tells a load balancer whether a module serves here (spec §5.5): `GET /var/modules/AM/ready.txt` on TCP port 9010, without
a login, is 200 while a mirror is PRIM or ALONE and a farm or light module is UP, and Ready; 404 otherwise.

A browser that asks for the first page is sent to the console of this machine, which speaks HTTPS on a port of its own
(`safekit.web`). Nothing else is answered here, and nothing else is told. A request is short and its connection ends with the
answer. A port that somebody else has keeps nobody from working: it is said once, and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable

from safekit.afar import PORT as CONSOLE_PORT
from safekit.api.face import FaceError, NodeFace

PORT = 9010
AGAIN_S = 30.0
REQUEST_S = 5.0
LONGEST_REQUEST = 8192
MOST_AT_ONCE = 64
_SERVES = frozenset({("PRIM", "Ready"), ("ALONE", "Ready"), ("UP", "Ready")})
_REQUEST = re.compile(rb"(GET|HEAD) (\S+) HTTP/1\.[01]\r?\n")
_QUESTION = re.compile(rb"/var/modules/([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})/ready\.txt(?:\?.*)?")
_CONSOLE = re.compile(rb"/(?:console(?:/.*)?)?")
_HOST = re.compile(rb"^Host:[ \t]*([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?[ \t]*\r$", re.I | re.M)
_WORDS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}

_logger = logging.getLogger("safekit.probe")


@contextlib.asynccontextmanager
async def answering(face: NodeFace, port: int = PORT) -> AsyncIterator[None]:
    """Answer on every address of this machine while the block runs."""
    listening = asyncio.create_task(_listen(Probe(face).answer, port))
    try:
        yield
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening


async def _listen(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], port: int) -> None:
    said = False
    while True:
        try:
            server = await asyncio.start_server(answer, None, port, limit=LONGEST_REQUEST)
        except OSError as error:
            if not said:
                _logger.warning("TCP port %d: %s; load balancers get no answer until it is free", port, error.strerror)
            said = True
            await asyncio.sleep(AGAIN_S)
            continue
        async with server:
            await server.serve_forever()


class Probe:
    """The answers; at most `MOST_AT_ONCE` connections, more are told to come again."""

    def __init__(self, face: NodeFace) -> None:
        self._face = face
        self._now = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._now += 1
        try:
            async with asyncio.timeout(REQUEST_S):
                status, head, place = (503, False, "") if self._now > MOST_AT_ONCE else await self._status(reader)
                text = f"{_WORDS[status]}\n"
                fields = f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\nCache-Control: no-store\r\nConnection: close"
                fields += f"\r\nLocation: {place}" if place else ""
                writer.write(f"HTTP/1.1 {status} {_WORDS[status]}\r\n{fields}\r\n\r\n{'' if head else text}".encode())
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._now -= 1
            writer.close()

    async def _status(self, reader: asyncio.StreamReader) -> tuple[int, bool, str]:
        """The status, whether only the head of the answer is wanted, and where the browser is sent."""
        try:
            text = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return 400, False, ""
        request = _REQUEST.match(text)
        if request is None:
            return 400, False, ""
        only_head = request[1] == b"HEAD"
        host = _HOST.search(text)
        if host is not None and _CONSOLE.fullmatch(request[2]):
            return 307, only_head, f"https://{host[1].decode()}:{CONSOLE_PORT}/"
        question = _QUESTION.fullmatch(request[2])
        serves = question is not None and await self._serves(question[1].decode())
        return (200 if serves else 404), only_head, ""

    async def _serves(self, am: str) -> bool:
        try:
            state = await self._face.module_state(am)
        except FaceError:
            return False
        return (state.state, state.substate) in _SERVES
