"""The farm that tests share: module `w` on n1, n2 and n3."""

from __future__ import annotations

from collections import Counter

from tests.nodes import CommandFailed, Lab, Node, wait_for
from tests.system.clients import Answers, Visitors
from tests.system.modules import NOTES, farm_module
from tests.system.product import package, safekit, shown, state, wait_state

NAME = "w"
PORT = 80
DRAIN_S = 90
"""How long a stop waits for clients at most: longer than a test that they end in time needs."""


class Farm:
    """Module `w`: each node says its name behind one virtual address."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.nodes = lab.nodes
        self.address = f"{lab.client.address.rsplit('.', 1)[0]}.101"
        self.visitors = Visitors(lab.client, self.address, PORT)

    def files(self) -> dict[str, str]:
        """What is installed."""
        made = farm_module(self.address, port=PORT)
        config = "conf/userconfig.xml"
        return made | {config: made[config].replace("<vip>", f'<vip drain="{DRAIN_S}s">')}

    def install(self) -> None:
        """Install and configure it on every node."""
        packed = package(self.files())
        for node in self.nodes:
            node.run(["mkdir", "-p", NOTES])
            node.write("/tmp/w.safe", packed)
            safekit(node, f"module install -m {NAME} /tmp/w.safe -M 2 -r")
            safekit(node, f"config -m {NAME}")

    def uninstall(self) -> None:
        """Stop and remove it everywhere."""
        for node in self.nodes:
            safekit(node, f"forcestop -m {NAME}", check=False)
        for node in self.nodes:
            if safekit(node, f"state -m {NAME}", check=False).ok:
                if state(node, NAME)["state"] != "NOT_CONFIGURED":
                    wait_state(node, NAME, "STOP", substate="NotReady")
                safekit(node, f"module uninstall -m {NAME}")

    def make_ready(self) -> None:
        """UP everywhere, and every client is answered."""
        self.lab.heal()
        for node in self.nodes:
            if not node.is_on():
                node.power_on()
            if self.shown(node) != "UP Ready":
                safekit(node, f"start -m {NAME}", check=False)
        for node in self.nodes:
            wait_state(node, NAME, "UP")
        self.wait_shared({node.name for node in self.nodes})

    def shown(self, node: Node) -> str:
        """`UP Ready`."""
        try:
            return shown(node, NAME)
        except CommandFailed:
            return "UNKNOWN"

    def wait_shared(self, names: set[str], timeout: float = 30) -> Answers:
        """Wait until exactly these nodes answer, each of them somebody, and nobody gets no answer."""
        last: Answers = {}

        def shared() -> bool:
            nonlocal last
            last = self.visitors.once()
            assert set(last.values()) == names, dict(Counter(last.values()))
            return True

        wait_for(f"{', '.join(sorted(names))} share the clients", shared, timeout=timeout, every=0.3)
        return last
