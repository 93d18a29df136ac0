"""What the filter of a farm costs: a packet, by the number of services and of virtual addresses, over an empty chain; and the
processor and time that it takes to follow a change of the group.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from safekit.vip.farm import FarmVip
from safekit.vip.service import BalancingGroup, BalancingRule, FarmService, HashKey, Member, Protocol, VirtualAddress
from tests.netns.lab import Node
from tests.nodes.engine import ROOT

EMPTY = "empty"
FORWARDED = "handed on"
CASES = {
    EMPTY: (0, 0),
    "1": (1, 1),
    "100 services": (100, 1),
    "1000 services": (1000, 1),
    "100 VIPs": (1, 100),
    FORWARDED: (1, 1),
}
"""Case -> services, virtual addresses."""
BURSTS = 1000
_PORT = 9999
_FRAMES = ROOT / "build" / "benchmarks" / "frames"
_EMPTY = (
    'table netdev empty { chain ingress { type filter hook ingress device "eth0" priority -500; policy accept; }; }'
)
_END = "table inet sink { chain in { type filter hook prerouting priority -400; udp dport 9999 drop; }; }"
"""Behind the filter nothing of the stack is measured."""


class Wires:
    """One sender, a wire of its own to a receiver for each case."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        subprocess.run(["make", "-s", "-C", str(ROOT / "benchmarks" / "native")], check=True)
        self._sender = Node("sender", 200)
        stack.callback(self._sender.close)
        self._receivers: dict[str, Node] = {}
        for number, (case, (services, addresses)) in enumerate(CASES.items(), 1):
            node = Node(f"case{number}", number)
            stack.callback(node.close)
            self._receivers[case] = node
            peer = ["peer", "name", "eth0", "address", node.mac, "netns", str(node.thread_id)]
            self._sender.command("ip", "link", "add", node.name, "type", "veth", *peer)
            self._sender.command("ip", "link", "set", node.name, "up")
            node.command(
                "ip", "-batch", "-", text=f"link set lo up\nlink set eth0 up\naddress add {_own(node)}/16 dev eth0"
            )
            node.command("nft", _END)
            if case == EMPTY:
                node.command("nft", _EMPTY)
            else:
                self._filter(node, folder / node.name, services, addresses, case == FORWARDED)

    def nanoseconds(self, case: str) -> float:
        """A frame to the first virtual address of the case: what a tenth of all bursts do not exceed."""
        return self._send(self._receivers[case], BURSTS)

    def _send(self, node: Node, bursts: int) -> float:
        words = [str(_FRAMES), node.name, self._sender.mac, node.mac, "10.66.1.0", str(_PORT), str(bursts)]
        answer = self._sender.run(
            lambda: subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        )
        if answer.returncode:
            raise RuntimeError(answer.stderr)
        return float(json.loads(answer.stdout)["p10"])

    def _filter(self, node: Node, run: Path, services: int, addresses: int, away: bool) -> None:
        """The filter of a node that takes everything, or hands everything on to another (`away`)."""
        rules = [BalancingRule(Protocol.UDP, HashKey.ON_PORT, None, _PORT)]
        rules += [BalancingRule(Protocol.TCP, HashKey.ON_ADDR, None, 10_000 + number) for number in range(services - 1)]
        vips = tuple(VirtualAddress(ip_address("10.66.1.0") + number) for number in range(addresses))
        names = [node.name, "other"] if away else [node.name]
        group = BalancingGroup("web", tuple(rules), {names[-1]: 1})
        vip = FarmVip("web", FarmService(vips, (group,)), node.name, "b", run, names)
        view = {node.name: Member(node.run(vip.macs))}
        if away:
            view["other"] = Member({str(address.address): "02:66:00:00:0f:01" for address in vips})
        node.run(vip.up, view)
        counter = "forwarded_other" if away else "local"
        before = node.run(vip.counters)[counter]
        self._send(node, 10)
        assert node.run(vip.counters)[counter] == before + 640, f"{node.name}: the frames are not {counter}"


def _own(node: Node) -> IPv4Address:
    return IPv4Address("10.66.0.0") + int(node.address4.rsplit(".", 1)[1])


@contextmanager
def wires(folder: Path) -> Iterator[Wires]:
    """The sender and every receiver; nothing is left afterwards."""
    with ExitStack() as stack:
        yield Wires(folder, stack)


@dataclass(frozen=True)
class Change:
    """One change of the group, until the new filter is in force: seconds on the clock, and of processor (`nft` included)."""

    seconds: float
    processor: float


def changes(folder: Path, count: int, nodes: int = 16, groups: int = 10) -> list[Change]:
    """A node of many leaves, then it comes back, again and again: what one of the others does each time."""
    node = Node("n1", 1)
    try:
        links = ("link set lo up", "link add eth0 type veth peer name far", "link set far up", "link set eth0 up")
        lines = (*links, "address add 10.66.0.1/16 dev eth0", "address add fd66::1/64 dev eth0 nodad")
        node.command("ip", "-batch", "-", text="\n".join(lines))
        tables = tuple(
            BalancingGroup(f"g{number}", (BalancingRule(Protocol.TCP, HashKey.ON_PORT, None, 8000 + number),))
            for number in range(groups)
        )
        addresses = (VirtualAddress(ip_address("10.66.0.100")), VirtualAddress(ip_address("fd66::100")))
        names = [f"n{number}" for number in range(1, nodes + 1)]
        vip = FarmVip("web", FarmService(addresses, tables), "n1", "benchmark", folder / "changes", names)
        view = {
            name: Member(dict.fromkeys(("10.66.0.100", "fd66::100"), f"02:66:00:00:01:{number:02x}"))
            for number, name in enumerate(names)
        }
        view["n1"] = Member(node.run(vip.macs))
        node.run(vip.up, view)
        found = []
        for number in range(count):
            gone = names[1 + number // 2 % (nodes - 1)]
            now = {name: member for name, member in view.items() if name != gone or number % 2}
            found.append(node.run(_timed, vip, now))
        return found
    finally:
        node.close()


def _timed(vip: FarmVip, view: dict[str, Member]) -> Change:
    begun, used = time.monotonic(), _processor()
    assert vip.update(view), "nothing was written"
    return Change(time.monotonic() - begun, _processor() - used)


def _processor() -> float:
    children, own = resource.getrusage(resource.RUSAGE_CHILDREN), os.times()
    return children.ru_utime + children.ru_stime + own.user + own.system
