"""The mirror of the cases: the ledger of `tests/system`, started at boot, heard over two lans, replicated on the second."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tests.acceptance.cases import asks_for
from tests.acceptance.second_lan import SecondLan
from tests.faults.arbiter import declare_witness, forget_witness
from tests.nodes import CommandFailed, Node, wait_for
from tests.system.mirror import FAULTS, FOLDER, NAME, Mirror
from tests.system.modules import NOTES, mirror_config, mirror_module
from tests.system.product import ask, messages, safekit, shown, wait_state

HEARTBEATS = '<heartbeat name="pair"/><heartbeat name="private" ident="flow"/>'


class Pair(Mirror):
    """Module `m`; `become` puts it in force with attributes and parts of its service of a case's own."""

    attributes = ""
    parts = ""
    programs: dict[str, str] = {}  # noqa: RUF012 # replaced, never changed
    _in_force: tuple[object, ...] = ()

    def files(self) -> dict[str, str]:
        """What is installed."""
        config = mirror_config(
            self.address,
            FOLDER,
            boot="on",
            attributes=self.attributes,
            heartbeats=HEARTBEATS,
            parts=self.parts,
        )
        return mirror_module(self.address, FOLDER) | self.programs | {"conf/userconfig.xml": config}

    def become(
        self, attributes: str = "", parts: str = "", programs: dict[str, str] | None = None, *, feature: str = ""
    ) -> Self:
        """PRIM and SECOND Ready with this configuration; NotBuilt for `feature` when the product does not know it."""
        self.attributes, self.parts, self.programs = attributes, parts, programs or {}
        wanted = (attributes, parts, self.programs)
        if self._in_force == wanted:
            self.make_ready()
            return self
        self.anew(feature)
        self.first_start(self.nodes[0])
        self._in_force = wanted
        return self

    def anew(self, feature: str = "") -> None:
        """Stopped on both nodes, and never synchronised."""
        self.mend()
        self._in_force = ()
        self.uninstall()
        with asks_for(feature):
            self.install()

    @contextmanager
    def under_a_witness(self) -> Iterator[None]:
        """PRIM and SECOND in a cluster whose witness is n3; afterwards there is none, and no module."""
        third, lan = self.lab["n3"], SecondLan(self.lab).config()
        declare_witness(self.lab, third, lan)
        self._in_force = ()
        try:
            self.become()
            yield
        finally:
            self.mend()
            self._in_force = ()
            forget_witness(self.lab, third, lan)

    def mend(self) -> None:
        """Every fault that a case made ends."""
        self.lab.heal()
        self.writer.abandon()
        for node in self.lab.everyone:
            if not node.is_on():
                node.power_on()
            node.plug_cable()
        self.mend_lan()

    def mend_lan(self) -> None:
        """The lan that was lost inside of a node is back."""
        for node in self.nodes:
            node.run(f"rm -f {NOTES}/hang-* {NOTES}/hold-*; nft delete table inet {FAULTS} 2>/dev/null", check=False)

    # --- what cases ask ---

    def stop(self, *nodes: Node) -> None:
        """Stop it on these nodes, one after the other."""
        for node in nodes:
            safekit(node, f"stop -m {NAME}")
            wait_state(node, NAME, "STOP", substate="NotReady")

    def names(self, node: Node) -> list[str]:
        """The scripts that were called there, oldest first, without the calls with `force`."""
        return [name for _, name in self.calls(node) if not name.endswith(" force")]

    def wait_called(self, node: Node, name: str, times: int = 1) -> None:
        """Wait until a script was called so often."""
        wait_for(f"{name} on {node.name}", lambda: self.names(node).count(name) >= times, timeout=60)

    def said(self, node: Node, words: str, after: int = 0) -> bool:
        """Whether the log says these words."""
        return any(words in message for message in messages(node, NAME, after))

    def wait_said(self, node: Node, words: str, after: int = 0) -> None:
        """Wait until the log says these words."""
        wait_for(f"{node.name} says: {words}", lambda: self.said(node, words, after), timeout=60)

    def states(self, node: Node, after: int = 0) -> list[str]:
        """The states that it went through there, as the log names them: `PRIM Transient`."""
        found = [message for message in messages(node, NAME, after) if message.startswith("Local state ")]
        return [" ".join(message.split()[2:4]) for message in found]

    def has_address(self, node: Node) -> bool:
        """Whether the virtual address is on the node."""
        return node.succeeds(f"ip -o addr show | grep -q ' {self.address}/'")

    def neighbour(self) -> str:
        """Which hardware address the client has for the virtual address, asked anew."""
        self.lab.client.run(f"ip neigh flush to {self.address}; ping -c 1 -W 5 {self.address}")
        known = json.loads(self.lab.client.out(["ip", "-json", "neigh", "show", "to", self.address]))
        return str(known[0]["lladdr"])

    def value(self, node: Node, resource: str) -> str:
        """The value of a resource."""
        return str(ask(node, f"modules/{NAME}/resources/{resource}")["value"])

    def both_are(self, words: str) -> bool:
        """Whether both nodes are in this state."""
        try:
            return all(shown(node, NAME) == words for node in self.nodes)
        except CommandFailed:
            return False
