"""The product on one node as a person meets it: the `safekit` command, and the API's socket where a script would use it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from safekit.config.package import Package, PackagedFile, write_package
from tests.nodes import CommandFailed, Node, NotInTime, Result

SOCKET = "/run/safekit/safekitd.sock"


def package(files: Mapping[str, str]) -> bytes:
    """A `.safe` with these files; what stands in bin/ can be run."""
    packaged = (PackagedFile(path, text.encode(), path.startswith("bin/")) for path, text in sorted(files.items()))
    return write_package(Package(tuple(packaged)))


def safekit(node: Node, line: str, *, check: bool = True, timeout: float = 60) -> Result:
    """Run `safekit LINE` on the node."""
    return node.run(["safekit", *shlex.split(line)], check=check, timeout=timeout)


def ask(node: Node, path: str, *, limit: float = 30, **query: object) -> Any:
    """GET from the API of the node; a daemon that is being restarted is asked again. CommandFailed with its error."""
    url = f"http://safekit/api/v1/{path}" + (f"?{urlencode(query)}" if query else "")
    patient = ["--retry", "40", "--retry-delay", "1", "--retry-all-errors", "--retry-max-time", f"{limit:g}"]
    words = ["curl", "--silent", "--show-error", *patient, "--unix-socket", SOCKET, url]
    done = node.run(words, timeout=limit + 15)
    answer = json.loads(done.out)
    if "error" in answer:
        raise CommandFailed(Result(url, 1, done.out, answer["error"]["message"]))
    return answer


def state(node: Node, module: str) -> dict[str, Any]:
    """The module's StateInfo."""
    found: dict[str, Any] = ask(node, f"modules/{module}/state")
    return found


def shown(node: Node, module: str) -> str:
    """`PRIM Ready`."""
    now = state(node, module)
    return f"{now['state']} {now['substate']}"


def wait_state(node: Node, module: str, states: str, *, substate: str = "Ready", timeout: float = 40) -> str:
    """Wait until the module is in one of `states` (separated by commas); its state. NotInTime with its last log."""
    query = {"state": states, "substate": substate, "timeout": f"{timeout:g}"}
    try:
        reached = ask(node, f"modules/{module}/wait", limit=timeout + 5, **query)
    except CommandFailed as failure:
        log = "\n".join(messages(node, module)[-25:]) if node.is_on() else "it is powered off"
        raise NotInTime(f"{node.name}: {failure.result.err}\n{log}") from None
    return str(reached["state"])


def entries(node: Node, module: str) -> list[dict[str, Any]]:
    """The module's log, oldest first, every level."""
    found: list[dict[str, Any]] = ask(node, f"modules/{module}/log", lines=2000, verbose="true")["entries"]
    return found


def messages(node: Node, module: str, after: int = 0) -> list[str]:
    """What the module's log says after the entry `after` (see `mark`)."""
    return [str(entry["message"]) for entry in entries(node, module) if int(entry["id"]) > after]


def why(node: Node, module: str) -> str:
    """The one line that says why the module is in its state."""
    return safekit(node, f"why -m {module} -1").out.strip()


def mark(node: Node, module: str) -> int:
    """The number of the last entry of the module's log."""
    found = entries(node, module)
    return int(found[-1]["id"]) if found else 0


def main_pid(node: Node, unit: str) -> int:
    """The process of a unit, 0 when it does not run."""
    return int(node.out(["systemctl", "show", "--property=MainPID", "--value", unit]))


def kill_and_await(node: Node, unit: str) -> None:
    """kill -9 the process of a unit that restarts by itself, and wait until another one is ready."""
    node.run(
        f'old=$(systemctl show --property=MainPID --value {unit}); kill -9 "$old"; '
        f"for _ in $(seq 300); do new=$(systemctl show --property=MainPID --value {unit}); "
        f'if [ "$new" != "$old" ] && [ "$new" != 0 ] && systemctl is-active --quiet {unit}; then exit 0; fi; '
        "sleep 0.1; done; exit 1",
        timeout=40,
    )
