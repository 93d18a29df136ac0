"""Asks `safekitd` of this node, on the socket that it has for the web service."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safekit.afar import FOR

API = "/api/v1"
ANSWER_S = 20.0
LONGEST_ANSWER = 64 * 1024 * 1024
_KEY_S = 2.0


class NotRunning(Exception):
    """safekitd does not answer; the text says it in words."""


class Refused(Exception):
    """safekitd says no; the text is its sentence."""


class Local:
    """Each request is a connection of its own."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._key: tuple[float, bytes | None] = (float("-inf"), None)

    async def ask(
        self, person: str, method: str, target: str, body: bytes = b"", timeout: float = ANSWER_S
    ) -> tuple[int, bytes]:
        """Status and body. `target`: path with query, nothing in it that ends a line. NotRunning."""
        if any(character <= " " or character > "~" for character in f"{target}{person}"):
            raise ValueError("a target has printable characters only")
        fields = f"Host: safekit\r\nConnection: close\r\n{FOR}: {person}\r\nContent-Length: {len(body)}"
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                try:
                    writer.write(f"{method} {target} HTTP/1.1\r\n{fields}\r\n\r\n".encode("ascii") + body)
                    return await _answer(reader)
                finally:
                    writer.close()
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning("safekitd is not running on this node") from None
        except TimeoutError:
            raise NotRunning("safekitd does not answer") from None
        except PermissionError:
            raise NotRunning("safekitd does not know the web service yet: it must be restarted once") from None
        except (OSError, EOFError, ValueError):
            raise NotRunning("safekitd stopped before it answered") from None

    async def get(self, person: str, path: str) -> Any:
        """Read something (path without `/api/v1`). NotRunning, Refused."""
        return understood(*await self.ask(person, "GET", API + path))

    async def key(self) -> bytes | None:
        """The key with which nodes vouch for requests; None outside of a cluster. NotRunning."""
        asked, key = self._key
        now = self._clock()
        if now - asked > _KEY_S:
            text = (await self.get("safekit-web", "/cluster/webkey"))["key"]
            key = None if text is None else base64.b64decode(text)
            self._key = (now, key)
        return key


def understood(status: int, content: bytes) -> Any:
    """What an answer of the API says. Refused with its sentence."""
    try:
        value = json.loads(content)
        if status >= 400:
            raise Refused(str(value["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        raise Refused(f"an answer that nobody understands (status {status})") from None
    return value


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    expected = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", head)
    chunks, length = [], 0
    while chunk := await reader.read(1 << 16):
        chunks.append(chunk)
        length += len(chunk)
        if length > LONGEST_ANSWER:
            raise ValueError("too long")
    if expected is None or int(expected[1]) != length:
        raise ValueError("cut off")
    return status, b"".join(chunks)
