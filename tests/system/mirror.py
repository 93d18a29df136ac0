"""The pair of nodes that the tests of mirrors share: one module `m` on n1 and n2, put right before each test."""

from __future__ import annotations

from tests.nodes import CommandFailed, Lab, Node, wait_for
from tests.system.clients import Writer
from tests.system.modules import LEDGER_PORT, NOTES, mirror_module
from tests.system.product import package, safekit, shown, state, wait_state
from tests.system.trees import content

NAME = "m"
FOLDER = "/data/m"
FAULTS = "test_faults"
RFS_PORT = 5600


class Mirror:
    """Module `m`: a ledger behind a virtual address, in a replicated directory."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.nodes = (lab["n1"], lab["n2"])
        self.address = f"{lab.client.address.rsplit('.', 1)[0]}.100"
        self.writer = Writer(lab.client, self.address, LEDGER_PORT)

    # --- life

    def files(self) -> dict[str, str]:
        """What is installed."""
        return mirror_module(self.address, FOLDER)

    def install(self) -> None:
        """Install and configure it on both nodes; it is stopped and was never synchronised."""
        packed = package(self.files())
        for node in self.nodes:
            node.run(f"mkdir -p {FOLDER} {NOTES}; rm -rf {FOLDER}/* {NOTES}/*")
            node.write("/tmp/m.safe", packed)
            safekit(node, f"module install -m {NAME} /tmp/m.safe -M 1 -r")
            safekit(node, f"config -m {NAME}")

    def uninstall(self) -> None:
        """Stop and remove it on both nodes."""
        for node in self.nodes:
            if safekit(node, f"state -m {NAME}", check=False).ok:
                safekit(node, f"forcestop -m {NAME}", check=False)
        for node in self.nodes:
            if safekit(node, f"state -m {NAME}", check=False).ok:
                if state(node, NAME)["state"] != "NOT_CONFIGURED":
                    wait_state(node, NAME, "STOP", substate="NotReady")
                safekit(node, f"module uninstall -m {NAME}")

    def first_start(self, primary: Node) -> None:
        """The valid data are those of `primary`."""
        safekit(primary, f"prim -m {NAME}")
        wait_state(primary, NAME, "ALONE")
        safekit(self.peer(primary), f"second -m {NAME}")
        self.wait_roles(primary)

    def make_ready(self) -> None:
        """PRIM and SECOND Ready, whatever an earlier test left: a gentle way first, a new installation otherwise."""
        self.lab.heal()
        self.writer.abandon()
        for node in self.nodes:
            tidy = f"rm -f {NOTES}/hang-* {NOTES}/hold-*; nft delete table inet {FAULTS} 2>/dev/null"
            if not node.run(tidy, check=False).ok and not node.is_on():
                node.power_on()
        if self.are_ready():
            return
        try:
            for node in self.nodes:
                safekit(node, f"start -m {NAME}")
            wait_for("the pair is right or blocked", lambda: self.are_ready() or self.are_blocked(), timeout=20)
            assert self.are_ready()
        except (AssertionError, CommandFailed):
            self.uninstall()
            self.install()
            self.first_start(self.nodes[0])

    # --- state

    def roles(self) -> tuple[Node, Node]:
        """The primary (or the node that is alone), and the other."""
        for node in self.nodes:
            if node.is_on() and state(node, NAME)["state"] in ("PRIM", "ALONE"):
                return node, self.peer(node)
        raise AssertionError(f"nobody serves: {', '.join(f'{n.name} {shown(n, NAME)}' for n in self.nodes)}")

    def peer(self, node: Node) -> Node:
        """The other node of the pair."""
        return self.nodes[1] if node is self.nodes[0] else self.nodes[0]

    def are_ready(self) -> bool:
        """Whether one is PRIM and the other SECOND, both Ready."""
        try:
            return sorted(shown(node, NAME) for node in self.nodes) == ["PRIM Ready", "SECOND Ready"]
        except CommandFailed:
            return False

    def are_blocked(self) -> bool:
        """Whether both wait for a person."""
        return all(shown(node, NAME) in ("WAIT NotReady", "STOP NotReady") for node in self.nodes)

    def wait_roles(self, primary: Node | None = None, *, timeout: float = 60) -> None:
        """Wait until one node (`primary`, when it is given) is PRIM and the other SECOND, both Ready."""
        if primary is not None:
            wait_state(primary, NAME, "PRIM", timeout=timeout)
            wait_state(self.peer(primary), NAME, "SECOND", timeout=timeout)
            return
        for node in self.nodes:
            wait_state(node, NAME, "PRIM,SECOND", timeout=timeout)
        assert self.are_ready(), [shown(node, NAME) for node in self.nodes]

    # --- data

    def assert_same_trees(self) -> None:
        """Both nodes hold the same, bit for bit."""
        first, second = (content(node, FOLDER) for node in self.nodes)
        differing = sorted(set(first) ^ set(second))
        assert not differing, f"{len(differing)} entries differ, for example {differing[:4]}"

    def ledger(self, node: Node) -> set[int]:
        """The numbers in the ledger of a node."""
        lines = node.out(f"cat {FOLDER}/ledger").splitlines()
        return {int(line) for line in lines if line.isdigit()}

    def assert_kept(self, promised: frozenset[int], node: Node) -> None:
        """Everything that was acknowledged is on the node."""
        assert promised
        missing = sorted(promised - self.ledger(node))
        assert not missing, f"{len(missing)} acknowledged writes are missing on {node.name}, for example {missing[:5]}"

    # --- what the scripts noted

    def calls(self, node: Node) -> list[tuple[float, str]]:
        """When which script was called (with `force` where it was), oldest first."""
        found = []
        for line in node.run(f"cat {NOTES}/{NAME}.calls", check=False).out.splitlines():
            date, name, *words = line.split()
            found.append((float(date), f"{name} force" if words[:1] == ["force"] else name))
        return found

    def forget_calls(self) -> None:
        """Begin the notes anew."""
        for node in self.nodes:
            node.run(f"rm -f {NOTES}/{NAME}.calls")

    # --- faults

    def cut_replication(self, node: Node) -> None:
        """The replication stream is lost on its way; heartbeats pass."""
        rules = f"tcp dport {RFS_PORT} drop; tcp sport {RFS_PORT} drop;"
        chains = [f"chain {way} {{ type filter hook {way} priority 0; {rules} }}" for way in ("input", "output")]
        node.run(["nft", "-f", "-"], input="\n".join([f"table inet {FAULTS} {{", *chains, "}"]).encode())

    def heal_replication(self, node: Node) -> None:
        """It passes again."""
        node.run(["nft", "delete", "table", "inet", FAULTS])

    def wait_gone(self, node: Node, timeout: float = 20) -> None:
        """Wait until the ledger's address is not on the node."""
        wait_for(
            f"{node.name} gives {self.address} back",
            lambda: not node.succeeds(f"ip -o addr show | grep -q ' {self.address}/'"),
            timeout=timeout,
        )
