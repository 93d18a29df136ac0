"""The mirror under test: module `d` on n1 and n2, an application behind a virtual address, clients on the machine beside."""

from __future__ import annotations

import base64
import json
import shlex
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tests.durability.checks import Tree
from tests.durability.direct import first_process, module_state
from tests.durability.journal import Operation, read_journal
from tests.nodes import CommandFailed, Lab, Node, Running, wait_for
from tests.system.audit import leaks
from tests.system.modules import mirror_vip
from tests.system.product import entries, package, safekit, state, wait_state

T = TypeVar("T")

NAME, NUMBER = "d", 4
FOLDER = "/data/d"
PORT = 7100
RFS_PORT = 5600 + 4 * (NUMBER - 1)
FAULTS = "test_faults"
PROGRAMS = Path(__file__).parent / "on_nodes"
ON_NODE = "/opt/durability"
"""Where the programs are on a node: beside what is replicated, and it outlives a loss of power."""

CALM = (200, 3000)
"""Milliseconds of pulse and time-out of the heartbeats, for a machine that does other work as well."""
FAST = (100, 1500)
"""The fast profile: a lost node is given up after a second and a half."""

_START = f"""\
#!/bin/sh
systemctl is-active --quiet application-$SAFEMODULE && exit 0
systemctl reset-failed application-$SAFEMODULE 2>/dev/null
exec systemd-run --quiet --collect --unit=application-$SAFEMODULE --property=Type=notify --property=NotifyAccess=all \\
    --property=Restart=always --property=RestartSec=100ms --property=StartLimitIntervalSec=0 \\
    python3 "$SAFEUSERBIN/application" {PORT} {FOLDER} /var/safekit/modules/$SAFEMODULE/data.json
"""

_STOP = """\
#!/bin/sh
[ "${1:-}" != force ] || systemctl kill --signal=KILL application-$SAFEMODULE 2>/dev/null
systemctl stop application-$SAFEMODULE 2>/dev/null
exit 0
"""

_TROUBLE = "Traceback|Sanitizer|runtime error:|dumped core|status=6/ABRT|status=11/SEGV|segfault"
"""What no journal of a node may say, whatever happened to it."""


def module_files(address: str, beats: tuple[int, int]) -> dict[str, str]:
    """The files of the module."""
    pulse, timeout = beats
    config = f"""\
<safe><service mode="mirror" boot="auto" maxloop="1000">
  <heart pulse="{pulse}ms" timeout="{timeout}ms"><heartbeat name="pair"/></heart>
  <rfs async="second"><replicated dir="{FOLDER}" mode="read_only"/></rfs>
  {mirror_vip(address)}
  <user nicestoptimeout="20s" forcestoptimeout="10s"/>
</service></safe>
"""
    return {
        "conf/userconfig.xml": config,
        "bin/application": (PROGRAMS / "application.py").read_text(),
        "bin/start_prim": _START,
        "bin/stop_prim": _STOP,
    }


class Pair:
    """Module `d` and the two nodes that it lives on."""

    def __init__(self, lab: Lab, beats: tuple[int, int] = CALM) -> None:
        self.lab, self.beats = lab, beats
        self.nodes = (lab["n1"], lab["n2"])
        prefix = lab.client.address.rsplit(".", 1)[0]
        self.address = f"{prefix}.104"
        self.virtual = frozenset({self.address})
        self.clients = ClientsOnNode(lab.client, self.address)

    def each(self, action: Callable[[Node], T]) -> list[T]:
        """Do it on both nodes at once."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(action, self.nodes))

    # --- life

    def install(self) -> None:
        """Install and start it anew; n1 has the valid data (none)."""
        packed = package(module_files(self.address, self.beats))

        def put(node: Node) -> None:
            node.run(f"mkdir -p {FOLDER} {ON_NODE}; rm -rf {FOLDER}/*")
            for program in ("look", "await_phase", "writer"):
                node.write(f"{ON_NODE}/{program}", (PROGRAMS / f"{program}.py").read_text())
            node.write("/tmp/d.safe", packed)
            safekit(node, f"module install -m {NAME} /tmp/d.safe -M {NUMBER} -r")
            safekit(node, f"config -m {NAME}")

        self.each(put)
        first, second = self.nodes
        safekit(first, f"prim -m {NAME}")
        wait_state(first, NAME, "ALONE")
        safekit(second, f"second -m {NAME}")
        wait_state(second, NAME, "SECOND")
        wait_state(first, NAME, "PRIM")

    def uninstall(self) -> None:
        """Stop and remove it."""

        def remove(node: Node) -> None:
            if safekit(node, f"state -m {NAME}", check=False).ok:
                safekit(node, f"forcestop -m {NAME}", check=False)
                wait_state(node, NAME, "STOP", substate="NotReady")
                safekit(node, f"module uninstall -m {NAME}")

        self.each(remove)

    # --- state

    def shown(self, node: Node) -> str:
        """`PRIM Ready`, or why it cannot be asked."""
        return module_state(node, NAME)

    def are_ready(self) -> bool:
        """Whether one is PRIM and the other SECOND, both Ready."""
        return sorted(self.each(self.shown)) == ["PRIM Ready", "SECOND Ready"]

    def peer(self, node: Node) -> Node:
        """The other one."""
        return self.nodes[1] if node is self.nodes[0] else self.nodes[0]

    def roles(self, timeout: float = 40) -> tuple[Node, Node]:
        """Who serves, and the other. Waits until somebody does."""

        def serving() -> Node | None:
            found = self.each(self.shown)
            return next(
                (n for n, said in zip(self.nodes, found, strict=True) if said.startswith(("PRIM", "ALONE"))), None
            )

        primary = wait_for("somebody serves", serving, timeout=timeout, last_words=self.last_words)
        assert primary is not None
        return primary, self.peer(primary)

    def last_words(self) -> str:
        """The states of both nodes and the ends of their logs."""
        found = []
        for node in self.nodes:
            found.append(f"{node.name}: {self.shown(node)}")
            try:
                if node.is_on():
                    found += [f"    {e['date']} {e['level']} {e['message']}" for e in entries(node, NAME)[-25:]]
            except (CommandFailed, ValueError) as trouble:
                found.append(f"    its log cannot be read: {trouble}")
        return "\n".join(found)

    # --- data

    def tree(self, node: Node, trial: str) -> Tree:
        """All that the node holds below the replicated directory, read beside the mount; content of what the checks read."""
        folders = " ".join(f"{trial}/{workload}" for workload in ("set", "log", "register"))
        look = f"mount --bind /data /mnt && exec python3 {ON_NODE}/look /mnt/d {folders}"
        seen = json.loads(node.out(["unshare", "--mount", "sh", "-c", look], timeout=120))
        return Tree(seen["entries"], seen["content"])

    def ask_application(self, node: Node, **request: object) -> None:
        """One request to the application on the node itself; its answer must come, and be good."""
        words = f"import socket; s = socket.create_connection(('127.0.0.1', {PORT}), 30); s.settimeout(60); "
        words += "import sys; s.sendall(sys.argv[1].encode() + b'\\n'); l = s.makefile().readline(); "
        words += "sys.exit(0 if l and 'errno' not in l else l or 'no answer')"
        node.run(["python3", "-c", words, json.dumps(request)], timeout=90)

    # --- audit

    def audit(self, since: float) -> list[str]:
        """What is wrong on the nodes: something leaked, nobody or two hold the address, a journal says what it must not."""
        found = [leak for node in self.each(lambda node: leaks(node, self.virtual)) for leak in node]
        holders = [n.name for n in self.nodes if n.succeeds(f"ip -o addr show | grep -q ' {self.address}/'")]
        if len(holders) != 1:
            found.append(f"the address is held by {holders or 'nobody'}")
        grep = f"journalctl --boot --no-pager --output=short --since=@{since:.0f} | grep -E '{_TROUBLE}' | head -3"
        for node in self.nodes:
            found += [f"{node.name}: journal: {line}" for line in node.run(grep, check=False).out.splitlines()]
        return found


class ClientsOnNode:
    """The clients of one trial, on the machine beside the nodes."""

    def __init__(self, client: Node, address: str) -> None:
        self._client, self._address = client, address
        self._folder = ""
        self._running: Running | None = None

    def start(self, trial: str) -> None:
        """Begin."""
        self._folder = f"/tmp/durability/{trial}"
        self._client.run(f"rm -rf /tmp/durability; mkdir -p {self._folder}")
        self._client.write(f"{self._folder}/clients.py", (PROGRAMS / "clients.py").read_text())
        words = ["python3", f"{self._folder}/clients.py", self._address, str(PORT), self._folder, trial, trial]
        self._running = self._client.start(words)

    def count(self) -> int:
        """How many requests were answered well so far."""
        journal = shlex.quote(f"{self._folder}/journal")
        return int(self._client.run(f"grep -c '\"error\": 0' {journal}", check=False).out.strip() or 0)

    def await_answers(self, more: int = 60, timeout: float = 40) -> None:
        """Wait until so many further requests were answered well."""
        wanted = self.count() + more
        wait_for(f"{more} more requests are answered", lambda: self.count() >= wanted, timeout=timeout, every=0.3)

    def stop(self) -> tuple[Operation, ...]:
        """End, and the journal."""
        self._client.run(["touch", f"{self._folder}/stop"])
        if self._running is not None:
            self._running.wait(40)
            self._running = None
        packed = self._client.out(f"gzip -c {self._folder}/journal | base64 -w0")
        return read_journal(_unpacked(packed))

    def save_journal(self, target: Path) -> None:
        """Copy the journal as it is to this machine, to look for the cause of a failure."""
        if self._folder and self._client.succeeds(["test", "-e", f"{self._folder}/journal"]):
            self._client.get(f"{self._folder}/journal", target)

    def abandon(self) -> None:
        """End clients that a failed trial left behind."""
        if self._running is not None:
            self._running.stop()
            self._running = None


def _unpacked(packed: str) -> list[str]:
    import gzip

    return gzip.decompress(base64.b64decode(packed)).decode().splitlines()


def settled(pair: Pair, *, two_histories: bool, timeout: float = 75) -> list[str]:
    """Wait until the pair is PRIM and SECOND, both Ready, with the help that an administrator would give.

    A node without power gets it back and a stopped module is started. Only when `two_histories` are to be expected is one of them
    given up, as the log advises. What the administrator did, one sentence each; NotInTime with the logs when it does not help.
    """
    did: list[str] = []
    for node in pair.nodes:
        if not first_process(node):
            node.power_on(wait=False)
    stopped: dict[str, float] = {}

    def whole() -> bool:
        said = pair.each(pair.shown)
        if sorted(said) == ["PRIM Ready", "SECOND Ready"]:
            return True
        for node, words in zip(pair.nodes, said, strict=True):
            if words != "STOP NotReady":
                stopped.pop(node.name, None)
            elif time.monotonic() - stopped.setdefault(node.name, time.monotonic()) > 2:  # it does not start by itself
                del stopped[node.name]
                safekit(node, f"start -m {NAME}", check=False)
                did.append(f"start on {node.name}")
        if two_histories:
            did.extend(_decided(pair, said))
        return False

    wait_for("both nodes are Ready", whole, timeout=timeout, every=0.3, last_words=pair.last_words)
    return did


def _decided(pair: Pair, said: list[str]) -> list[str]:
    """Two histories wait for a person: the one that does not serve is given up."""
    waiting = [n for n, words in zip(pair.nodes, said, strict=True) if words == "WAIT NotReady"]
    blocked = [n for n in waiting if "second fullsync" in str(state(n, NAME))]
    did = []
    if len(blocked) == 2:
        first = blocked.pop(0)
        _stopped(first)
        _stopped(pair.peer(first))
        safekit(first, f"prim -m {NAME}")
        wait_state(first, NAME, "ALONE")
        did.append(f"prim on {first.name}")
    for node in blocked:
        _stopped(node)
        safekit(node, f"second fullsync -m {NAME}", check=False)
        did.append(f"second fullsync on {node.name}")
    return did


def _stopped(node: Node) -> None:
    safekit(node, f"stop -m {NAME}", check=False)
    wait_state(node, NAME, "STOP", substate="NotReady")
