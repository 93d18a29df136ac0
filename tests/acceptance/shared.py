"""The farm of the cases: each connection is answered with the name of the node that took it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Self

from tests.acceptance.cases import asks_for
from tests.nodes import Lab, Node, wait_for
from tests.system.clients import Visitors
from tests.system.farm import NAME, Farm
from tests.system.modules import farm_config, farm_module
from tests.system.product import ask, safekit, wait_state

PORT = 8010
GROUP = "web"

_ASK = """\
import socket, sys
address, port, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for _ in range(times):
    with socket.create_connection((address, port), timeout=5) as connection:
        print(b"".join(iter(lambda: connection.recv(100), b"")).decode())
"""


class Shared(Farm):
    """Module `w`; `become` puts it in force with a filter, weights or a `<vip>` of a case's own."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.visitors = Visitors(lab.client, self.address, PORT)

    filter = "on_port"
    inside = ""
    replaced: tuple[str, str] = ("", "")
    scripts: Mapping[str, str] = {}
    _in_force: tuple[object, ...] = ()

    def files(self) -> dict[str, str]:
        """What is installed."""
        config = farm_config(self.address, filter_=self.filter, port=PORT, inside=self.inside)
        config = config.replace('boot="auto"', 'boot="on"').replace(*self.replaced)
        return farm_module(self.address, port=PORT) | {"conf/userconfig.xml": config} | dict(self.scripts)

    def become(
        self,
        filter_: str = "on_port",
        inside: str = "",
        replaced: tuple[str, str] = ("", ""),
        *,
        scripts: Mapping[str, str] | None = None,
        feature: str = "",
    ) -> Self:
        """UP everywhere with this configuration; NotBuilt for `feature` when the product does not know it.

        replaced: words of the configuration, and those in their place. scripts: files in place of the module's own.
        """
        self.filter, self.inside, self.replaced, self.scripts = filter_, inside, replaced, scripts or {}
        wanted = (filter_, inside, replaced, dict(self.scripts))
        self.lab.heal()
        for node in self.nodes:
            if not node.is_on():
                node.power_on()
        if self._in_force != wanted:
            self._in_force = ()
            self.uninstall()
            with asks_for(feature):
                self.install()
            self._in_force = wanted
        for node in self.nodes:
            if self.shown(node) != "UP Ready":
                safekit(node, f"start -m {NAME}", check=False)
        for node in self.nodes:
            wait_state(node, NAME, "UP")
        wait_for("all have their share", lambda: abs(sum(self.shares().values()) - 100) < 0.5, timeout=30)
        return self

    def change(self, inside: str) -> None:
        """Have other weights on one node after the other, while it serves."""
        self.inside = inside
        for node in self.nodes:
            config = self.files()["conf/userconfig.xml"].encode()
            node.write(f"/opt/safekit/modules/{NAME}/conf/userconfig.xml", config)
            safekit(node, f"config -m {NAME}")
        self._in_force = (self.filter, inside, self.replaced, dict(self.scripts))

    def stop(self, *nodes: Node) -> None:
        """Stop it on these nodes."""
        for node in nodes:
            safekit(node, f"stop -m {NAME}")
        for node in nodes:
            wait_state(node, NAME, "STOP", substate="NotReady")

    def start(self, *nodes: Node) -> None:
        """Start it on these nodes."""
        for node in nodes:
            safekit(node, f"start -m {NAME}")
        for node in nodes:
            wait_state(node, NAME, "UP")

    def share(self, node: Node) -> float:
        """The share of a node, in per cent, as it says itself."""
        value = str(ask(node, f"modules/{NAME}/resources/farm.{GROUP}_0")["value"])
        return float(value.removesuffix("%"))

    def shares(self) -> dict[str, float]:
        """The share of each node."""
        return {node.name: self.share(node) for node in self.nodes}

    def wait_shares(self, *percent: float) -> None:
        """Wait until n1, n2 and n3 have these shares."""

        def right() -> bool:
            found = self.shares()
            assert all(abs(one - wanted) <= 0.1 for one, wanted in zip(found.values(), percent, strict=True)), found
            return True

        wait_for(f"shares of {percent}", right, timeout=40)

    def answers(self, times: int) -> Counter[str]:
        """So many connections of one client, each from a port of its own: who answered how often."""
        said = self.lab.client.out(["python3", "-c", _ASK, self.address, str(PORT), str(times)], timeout=120)
        return Counter(said.split())

    def ask_each(self) -> dict[str, str]:
        """Sixty clients, each with an address of its own: who answers whom."""
        return self.visitors.once()

    def calls(self, node: Node) -> list[str]:
        """The scripts that were called there, oldest first, without the calls with `force`."""
        done = node.run(f"cat /var/test/{NAME}.calls", check=False).out
        return [line.split()[1] for line in done.splitlines() if line.split()[2:3] != ["force"]]

    def forget_calls(self) -> None:
        """Begin the notes anew."""
        for node in self.nodes:
            node.run(["rm", "-f", f"/var/test/{NAME}.calls"])
