"""Stops every module of this node in order and waits: run by `safekit-shutdown.service` before the machine goes down
(spec §11.7).

It speaks to the local API like any other client; a
daemon that does not answer is not waited for.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
from typing import Any

from safekit.paths import Paths

LIMIT_S = 900


class _Local(http.client.HTTPConnection):
    """HTTP over the unix socket of the daemon."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=LIMIT_S + 30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ask(method: str, path: str, body: object = None) -> Any:
    connection = _Local(str(Paths().api_socket))
    content = json.dumps(body).encode() if body is not None else None
    connection.request(method, f"/api/v1{path}", content, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return json.loads(answer.read() or b"{}")


def main() -> None:
    """Stop all, then wait for all."""
    try:
        names = [
            m["name"]
            for m in _ask("GET", "/modules")["modules"]
            if m["state"]["state"] not in ("STOP", "NOT_CONFIGURED")
        ]
        for name in names:
            _ask("POST", f"/modules/{name}/actions/stop", {"identity": "shutdown"})
        for name in names:
            _ask("GET", f"/modules/{name}/wait?state=STOP&timeout={LIMIT_S}")
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"the modules could not be stopped: {error}")


if __name__ == "__main__":
    main()
