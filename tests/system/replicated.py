"""Module `r`: a mirror without an address and without an application, whose `<rfs>` each test writes itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tests.nodes import Lab, Node, wait_for
from tests.system.modules import NOTES, script
from tests.system.product import ask, messages, package, safekit, state, wait_state

NAME = "r"
FOLDER = "/data/r"
_CALLBACKS = (
    "_rfs_primary",
    "_rfs_secondary",
    "_rfs_resync_begin",
    "_rfs_resync_end",
    "_rfs_peer_lost",
    "_rfs_stopped",
)


def replicated_module(attributes: str, inside: str = "", more: str = "", service: str = "") -> dict[str, str]:
    """Its configuration: attributes of `<rfs>`, what is inside its `<replicated>`, more of these, attributes of `<service>`."""
    config = (
        f'<safe><service mode="mirror" boot="off" {service}><heart pulse="200ms" timeout="3s"><heartbeat name="pair"/></heart>'
        f'<rfs {attributes}><replicated dir="{FOLDER}">{inside}</replicated>{more}</rfs>'
        "<user/></service></safe>\n"
    )
    return {"conf/userconfig.xml": config, **{f"bin/{name}": script(name) for name in _CALLBACKS}}


class Replicated:
    """The module on n1 and n2."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.nodes = (lab["n1"], lab["n2"])

    def install(
        self,
        attributes: str = "",
        inside: str = "",
        more: str = "",
        *,
        on: Sequence[Node] = (),
        folders: Sequence[str] = (),
        service: str = "",
        programs: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Put it in force on both nodes, or on some, with these programs in `bin/`; it is stopped, and its directory holds
        these empty folders.
        """
        files = replicated_module(attributes, inside, more, service)
        packed = package(files | {f"bin/{name}": text for name, text in programs.items()})
        for node in on or self.nodes:
            below = " ".join(f"{FOLDER}/{name}" for name in folders)
            node.run(f"mkdir -p {FOLDER} {FOLDER}2 {NOTES}; rm -rf {FOLDER}/* {FOLDER}2/*; rm -f {NOTES}/{NAME}.calls")
            node.run(f"mkdir -p {FOLDER} {below}")
            node.write("/tmp/r.safe", packed)
            safekit(node, f"module install -m {NAME} /tmp/r.safe -M 5 -r")
            safekit(node, f"config -m {NAME}")

    def uninstall(self) -> None:
        """Nothing of it is left on either node."""
        for node in self.nodes:
            if not node.is_on():
                node.power_on()
            safekit(node, f"forcestop -m {NAME}", check=False)
        for node in self.nodes:
            if not safekit(node, f"state -m {NAME}", check=False).ok:
                continue
            if state(node, NAME)["state"] != "NOT_CONFIGURED":
                wait_state(node, NAME, "STOP", substate="NotReady", timeout=60)
            safekit(node, f"module uninstall -m {NAME}")

    def first_start(self) -> None:
        """n1 has the data; n2 is told to be its secondary."""
        safekit(self.nodes[0], f"prim -m {NAME}")
        wait_state(self.nodes[0], NAME, "ALONE")
        safekit(self.nodes[1], f"second -m {NAME}")

    def ready(self) -> None:
        """n1 is PRIM, n2 is SECOND."""
        self.first_start()
        wait_state(self.nodes[0], NAME, "PRIM")
        wait_state(self.nodes[1], NAME, "SECOND")

    def stop(self, node: Node) -> None:
        """Stop it there."""
        safekit(node, f"stop -m {NAME}")
        wait_state(node, NAME, "STOP", substate="NotReady")

    def waits_for(self, node: Node, rule: str) -> None:
        """It is WAIT (NotReady) there, and says this rule."""
        wait_for(f"{node.name} waits: {rule}", lambda: self._waits(node, rule), timeout=40)

    def _waits(self, node: Node, rule: str) -> bool:
        now = state(node, NAME)
        return (now["state"], now["substate"]) == ("WAIT", "NotReady") and rule in " ".join(now["waiting_for"])

    def value(self, node: Node, resource: str) -> str:
        """The value of a resource."""
        found: dict[str, Any] = ask(node, f"modules/{NAME}/resources/{resource}")
        return str(found["value"])

    def said(self, node: Node, pattern: str, after: int = 0) -> bool:
        """Whether the log says something that matches."""
        return any(re.search(pattern, message) for message in messages(node, NAME, after))

    def await_said(self, node: Node, pattern: str, after: int = 0) -> None:
        """Wait until the log says it: what one node does is not over when the other one is ready. NotInTime otherwise."""
        wait_for(
            f"{node.name} says {pattern!r}",
            lambda: self.said(node, pattern, after),
            last_words=lambda: "\n".join(messages(node, NAME, after)),
        )

    def called(self, node: Node) -> list[str]:
        """The callbacks that ran there, oldest first."""
        lines = node.run(f"cat {NOTES}/{NAME}.calls", check=False).out.splitlines()
        return [line.split()[1] for line in lines]
