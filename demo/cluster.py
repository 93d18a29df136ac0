"""What the demonstration asks the product: states, waits and log entries, through the `safekit` command of a node."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from tests.nodes.node import Node


def state(node: Node, module: str) -> dict[str, Any]:
    """The state of a module on a node."""
    answer: dict[str, Any] = _ask(node, f"/modules/{module}/state")
    return answer


def wait_state(node: Node, module: str, states: str, timeout: float) -> dict[str, Any]:
    """Wait until the module is in one of `states` (Ready)."""
    answer: dict[str, Any] = _ask(
        node, f"/modules/{module}/wait?state={states}&substate=Ready&timeout={timeout:g}", timeout, patient=True
    )
    if "error" in answer:
        raise TimeoutError(f"{node.name}: {answer['error']['message']}")
    return answer


def action(node: Node, module: str, name: str) -> None:
    """Ask for an action."""
    body = json.dumps({"identity": None, "options": {}})
    answer = _ask(node, f"/modules/{module}/actions/{name}", method="POST", body=body)
    if "error" in answer:
        raise RuntimeError(f"{node.name}: {answer['error']['message']}")


def log_after(node: Node, module: str, moment: float) -> list[tuple[float, str]]:
    """The log entries since `moment` (seconds since the epoch), oldest first."""
    entries = _ask(node, f"/modules/{module}/log?lines=500&verbose=true")["entries"]
    dated = [(datetime.fromisoformat(entry["date"]).timestamp(), str(entry["message"])) for entry in entries]
    return [(date, message) for date, message in dated if date >= moment]


def primary(nodes: list[Node], module: str) -> Node | None:
    """The node that serves a mirror module now."""
    for node in nodes:
        if state(node, module)["state"] in ("PRIM", "ALONE"):
            return node
    return None


def _ask(
    node: Node, path: str, timeout: float = 20, *, method: str = "GET", body: str | None = None, patient: bool = False
) -> Any:
    """Ask the local API of a node. `patient`: also a node that has just booted, whose daemon does not listen yet."""
    data = ["--header", "Content-Type: application/json", "--data", body] if body is not None else []
    socket = ["--unix-socket", "/run/safekit/safekitd.sock"]
    retry = ["--retry", "30", "--retry-delay", "1", "--retry-all-errors"] if patient else []
    url = f"http://localhost/api/v1{path}"
    done = node.run(["curl", "--silent", *retry, *socket, "--request", method, *data, url], timeout=timeout + 15)
    return json.loads(done.out)
