"""One request to safekitd over its unix socket.

The few lines of HTTP that this takes are written out: checkers and scripts call the command all day, and the standard
library's client takes longer to load than the request to answer.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from safekit.cli.exit_codes import ExitCode, Failure, of_error

_CONNECT_S = 5.0
_ANSWER_S = 120.0


class ApiError(Failure):
    """The node refused. `error` holds what it says: code, message, facts."""

    def __init__(self, error: dict[str, Any]) -> None:
        others = error.get("others", [])
        super().__init__(of_error(str(error["code"])), str(error["message"]), *map(str, others))
        self.error = error


class NotRunning(Failure):
    """There is nobody to ask."""

    def __init__(self, why: str) -> None:
        super().__init__(ExitCode.NOT_RUNNING, why)


class Client:
    """Speaks to the daemon of this node. Each request is a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, *parts: str, patience: float = 0.0, **query: object) -> Any:
        """Read something; `patience` is how long the node itself may wait before it answers, in seconds."""
        written = {name: _written(value) for name, value in query.items() if value is not None}
        return self._ask("GET", parts, None, _ANSWER_S + patience, urlencode(written))

    def post(self, *parts: str, **body: object) -> Any:
        """Do something."""
        return self._ask("POST", parts, body, _ANSWER_S)

    def put(self, *parts: str, **body: object) -> Any:
        """Set something."""
        return self._ask("PUT", parts, body, _ANSWER_S)

    def delete(self, *parts: str) -> Any:
        """Remove something."""
        return self._ask("DELETE", parts, None, _ANSWER_S)

    def _ask(self, method: str, parts: tuple[str, ...], body: object, timeout: float, query: str = "") -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        target = "/api/v1/" + "/".join(quote(part, safe="") for part in parts) + (f"?{query}" if query else "")
        status, answer = self._send(method, target, content, timeout)
        try:
            value = json.loads(answer)
        except ValueError:
            raise Failure(ExitCode.DEFECT, f"safekitd answered what nobody understands: {answer[:80]!r}") from None
        if status >= 400:
            raise ApiError(value["error"])
        return value

    def _send(self, method: str, target: str, content: bytes, timeout: float) -> tuple[int, bytes]:
        """Status and body of the answer."""
        lines = (f"{method} {target} HTTP/1.1", "Host: safekit", "Connection: close", f"Content-Length: {len(content)}")
        head = "\r\n".join((*lines, "", ""))
        try:
            raw = self._exchange(head.encode("ascii") + content, timeout)
        except TimeoutError:
            raise NotRunning("safekitd does not answer: see `systemctl status safekitd`") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning("safekitd is not running on this node: `systemctl start safekitd`") from None
        except PermissionError:
            raise NotRunning("only root and the members of the group safekit may use this command") from None
        except ConnectionError:
            raise NotRunning("safekitd stopped before it answered: see `systemctl status safekitd`") from None
        header, found, answer = raw.partition(b"\r\n\r\n")
        if not found:
            raise NotRunning("safekitd stopped before it answered: see `systemctl status safekitd`")
        try:
            return int(header.split(b" ", 2)[1]), answer
        except (ValueError, IndexError):
            raise Failure(ExitCode.DEFECT, f"safekitd answered what nobody understands: {raw[:80]!r}") from None

    def _exchange(self, request: bytes, timeout: float) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_CONNECT_S)
            connection.connect(str(self._path))
            connection.settimeout(timeout)
            try:
                connection.sendall(request)
            except BrokenPipeError:
                pass  # the node had enough before the end; its answer says why
            chunks = []
            while chunk := connection.recv(1 << 16):
                chunks.append(chunk)
            return b"".join(chunks)


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
