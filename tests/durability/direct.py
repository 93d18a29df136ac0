"""Asks the daemon of a node by its socket, from beside the node.

A trial asks some hundred times, and starting a process of the engine for each question costs more than all the rest. Only
root may look into a node that way; for others the engine is asked as everywhere else.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from typing import Any

from tests.nodes import CommandFailed, Node
from tests.system.product import SOCKET, shown

_PIDS: dict[str, int] = {}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("safekit", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(self._path)


def first_process(node: Node) -> int:
    """The node's first process as this machine numbers it; 0 when the node has no power."""
    known = _PIDS.get(node.container, 0)
    with contextlib.suppress(OSError):
        if known and os.path.exists(f"/proc/{known}/root/run/systemd/system"):
            return known
    said = node.engine.run("inspect", "--format", "{{.State.Pid}}", node.container, check=False).out.strip()
    _PIDS[node.container] = int(said) if said.isdigit() else 0
    return _PIDS[node.container]


def ask(node: Node, path: str) -> Any:
    """GET from the API of the node, once. OSError or ValueError when there is no answer."""
    pid = first_process(node)
    if not pid:
        raise OSError(f"{node.name} is powered off")
    connection = _Connection(f"/proc/{pid}/root{SOCKET}")
    try:
        connection.request("GET", f"/api/v1/{path}")
        answer = json.loads(connection.getresponse().read())
    except http.client.HTTPException as trouble:
        raise OSError(f"{node.name}: {trouble}") from trouble
    finally:
        connection.close()
    if "error" in answer:
        raise ValueError(answer["error"]["message"])
    return answer


def module_state(node: Node, module: str) -> str:
    """`PRIM Ready`, or why the node cannot be asked."""
    if os.geteuid():
        try:
            return shown(node, module) if node.is_on() else "powered off"
        except (CommandFailed, ValueError):
            return "no answer"
    try:
        now = ask(node, f"modules/{module}/state")
        return f"{now['state']} {now['substate']}"
    except (OSError, ValueError) as trouble:
        return "powered off" if "powered off" in str(trouble) else "no answer"
