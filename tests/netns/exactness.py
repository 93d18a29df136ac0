"""Every packet is accepted by exactly one node: many packets of varied identities while the farm is reconfigured.

    python -m tests.netns.exactness [--packets 1000000] [--seed 1]

IPv4 and IPv6, TCP and UDP; openings, segments of connections that nobody knows, ends. Packets go to the node that answers for
the address; while the farm changes, also to the one that did before. A round is a stable view, in which each packet is
accepted by exactly one node (UDP and openings by the one that the model names), then a change: a node leaves, dies, joins,
is closed or opened, each node following in a drawn order, and packets all the while. None may be accepted twice.

What a node accepts is what its stack delivers locally: raw sockets get it before a checksum is looked at, and every packet has
a wrong one, so no stack answers.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from safekit.vip.service import BalancingGroup, BalancingRule, HashKey, Member, Protocol
from tests.netns.conftest import Farm
from tests.netns.lab import VIP4, VIP6, Node, wire

REPORT = Path(__file__).resolve().parents[2] / "build" / "reports" / "farm.json"
PACKETS, SEED, STABLE, PERIOD_S = 1_000_000, 1, 2500, 0.2
PATIENCE_S = 10.0
_BURST, _PAUSE_S = 250, 0.005
_ROOM = 64 << 20
_RCVBUFFORCE = 33
_GROUPS = (
    BalancingGroup(
        "web",
        (
            BalancingRule(Protocol.TCP, HashKey.ON_PORT, None, 80),
            BalancingRule(Protocol.UDP, HashKey.ON_PORT, None, 80),
        ),
    ),
    BalancingGroup(
        "mail",
        (
            BalancingRule(Protocol.TCP, HashKey.ON_ADDR, None, 25),
            BalancingRule(Protocol.UDP, HashKey.ON_ADDR, None, 25),
        ),
        {"n1": 1, "n2": 2, "n3": 3},
    ),
)
_SYN, _ACK, _FIN, _PSH = 2, 16, 1, 8
_VIP4, _VIP6 = ip_address(VIP4).packed, ip_address(VIP6).packed
_CLIENT4, _CLIENT6 = int(ip_address("10.130.0.0")), int(ip_address("fd77::1"))
_FLAGS = (_SYN, _ACK, _ACK | _PSH, _ACK | _FIN)


@dataclass(frozen=True)
class Packet:
    """One packet: who sends it, to which service, and what it is."""

    number: int
    client: int
    port: int
    six: bool
    service: int
    flags: int
    """Of TCP; 0 is UDP."""

    @property
    def source(self) -> IPv4Address | IPv6Address:
        """The client's address."""
        return IPv6Address(_CLIENT6 + self.client) if self.six else IPv4Address(_CLIENT4 + self.client)

    @property
    def follows_the_table(self) -> bool:
        """Whether the table alone decides who takes it: no former owner is asked."""
        return self.flags in (0, _SYN)

    def frame(self, source_mac: bytes, target_mac: bytes) -> bytes:
        """On the wire."""
        number = struct.pack(">Q", self.number)
        if self.flags:
            inside = struct.pack(">HHIIBBHHH", self.port, self.service, 1, 1, 0x50, self.flags, 512, 0xDEAD, 0) + number
        else:
            inside = struct.pack(">HHHH", self.port, self.service, 16, 0xDEAD) + number
        protocol = 6 if self.flags else 17
        if self.six:
            head = struct.pack(">IHBB", 6 << 28, len(inside), protocol, 64) + self.source.packed + _VIP6
            return target_mac + source_mac + b"\x86\xdd" + head + inside
        first = struct.pack(">BBHHHBB", 0x45, 0, 20 + len(inside), 0, 0, 64, protocol)
        addresses = self.source.packed + _VIP4
        total = sum(struct.unpack(">9H", first + addresses))
        total = (total & 0xFFFF) + (total >> 16)
        return target_mac + source_mac + b"\x08\0" + first + struct.pack(">H", ~total & 0xFFFF) + addresses + inside


class Ear:
    """What one node accepts: raw sockets for TCP and UDP, IPv4 and IPv6."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._sockets = [
            (node.run(socket.socket, family, socket.SOCK_RAW, protocol), family, protocol)
            for family in (socket.AF_INET, socket.AF_INET6)
            for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
        ]
        for one, _, _ in self._sockets:
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _ROOM)

    def heard(self) -> Iterator[int]:
        """The numbers of the packets that were accepted since it was asked last."""
        for one, family, protocol in self._sockets:
            at = (20 if family == socket.AF_INET else 0) + (20 if protocol == socket.IPPROTO_TCP else 8)
            while True:
                try:
                    data = one.recv(200)
                except BlockingIOError:
                    break
                if len(data) == at + 8:  # nothing but ours is as long
                    yield int.from_bytes(data[at:], "big")

    def dropped(self) -> int:
        """Packets that were accepted and found no room here: then nothing can be said."""
        lines = [
            line.split()
            for name in ("raw", "raw6")
            for line in self.node.command("cat", f"/proc/thread-self/net/{name}").splitlines()[1:]
        ]
        return sum(int(words[-1]) for words in lines)

    def close(self) -> None:
        """Hear no more."""
        for one, _, _ in self._sockets:
            one.close()


@dataclass
class Result:
    """What was counted. `wrong`: the first packets that were not accepted as they must be."""

    packets: int = 0
    stable: int = 0
    changing: int = 0
    lost_while_changing: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """For the report."""
        return {
            "packets": self.packets,
            "in_stable_views_accepted_once": self.stable,
            "while_changing_accepted_at_most_once": self.changing,
            "while_changing_accepted_by_nobody": self.lost_while_changing,
            "changes": dict(sorted(self.changes.items())),
            "kinds": dict(sorted(self.kinds.items())),
            "wrong": self.wrong,
            "seconds": round(self.seconds, 1),
        }


Step = tuple[Node, Callable[..., object], tuple[object, ...]]


class Trial:
    """A farm of three nodes, changed again and again under packets. `run` until `packets` were sent."""

    def __init__(self, farm: Farm, seed: int, stack: ExitStack) -> None:
        self._farm, self._lab = farm, farm.lab
        self._draw = random.Random(seed)
        self._names = tuple(farm.lab.servers)
        self._present: tuple[str, ...] = self._names
        self._closed: frozenset[str] = frozenset()
        self._dead: frozenset[str] = frozenset()
        self._ears = {name: Ear(node) for name, node in farm.lab.servers.items()}
        for ear in self._ears.values():
            stack.callback(ear.close)
        client = self._lab.client
        self._wire = client.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)
        stack.callback(self._wire.close)
        client.run(self._wire.bind, ("eth0", 0))
        self._mac = bytes.fromhex(client.mac.replace(":", ""))
        self._times, self._by = bytearray(), bytearray()
        """Of each packet: how often it was accepted, and by whom last."""
        self._moving: list[range] = []
        self._result = Result()
        self._follow(self._names)

    def run(self, packets: int, stable: int = STABLE) -> Result:
        """Rounds of a stable view and a change; the first one that is wrong ends it."""
        begun, result = time.monotonic(), self._result
        self._times, self._by = bytearray(packets), bytearray(packets)
        while result.packets < packets and not result.wrong:
            self._stable(min(stable, packets - result.packets))
            if result.packets < packets and not result.wrong:
                self._changing(packets - result.packets)
        while self._listen():
            time.sleep(0.05)
        for number, times in enumerate(self._times):
            if times > 1:
                self._wrong(f"packet {number} was accepted {times} times")
        result.lost_while_changing = sum(self._times[start.start : start.stop].count(0) for start in self._moving)
        dropped = {name: ear.dropped() for name, ear in self._ears.items()}
        assert not any(dropped.values()), f"sockets of the test were full: {dropped}"
        result.seconds = time.monotonic() - begun
        return result

    # --- a stable view ---

    def _stable(self, count: int) -> None:
        targets = self._answering(self._present)
        sent: list[Packet] = []
        while len(sent) < count:
            burst = [self._packet() for _ in range(min(_BURST, count - len(sent)))]
            self._send(burst, targets)
            sent += burst
            self._listen()
        self._wait_for(sent)
        for packet in sent:
            times, by = self._times[packet.number], self._names[self._by[packet.number]]
            expected = self._owner(packet) if packet.follows_the_table else by
            if times != 1 or by != expected:
                where = f"view {', '.join(self._present)}, closed {', '.join(sorted(self._closed)) or 'nobody'}"
                found = f"accepted {times} times" + (f", last by {by}" if times else "")
                self._wrong(f"{packet}: {found}, expected once by {expected if times else 'its owner'}; {where}")
        self._result.stable += len(sent)

    # --- a change ---

    def _changing(self, most: int) -> None:
        begun, sent = time.monotonic(), 0
        before = self._answering(self._present)
        steps = self._change()
        after = self._answering(self._present)
        for node, function, arguments in steps:
            going = node.start(function, *arguments)
            while not going.done():
                burst = [self._packet() for _ in range(min(_BURST, most - sent))]
                self._send(burst, before if self._draw.random() < 0.5 else after)
                sent += len(burst)
                self._listen()
                wait((going,), _PAUSE_S)
            going.result()
        self._result.changing += sent
        self._moving.append(range(self._result.packets - sent, self._result.packets))
        time.sleep(max(0.0, PERIOD_S - (time.monotonic() - begun)))

    def _change(self) -> list[Step]:
        """Draw what changes; the steps by which the nodes follow, in a drawn order."""
        absent = [name for name in self._names if name not in self._present]
        kinds = ["open", "close"] if len(self._present) > 1 else []
        kinds += ["join"] * 2 if absent else []
        kinds += ["leave", "die"] if len(self._present) > 1 else []
        kind = self._draw.choice(kinds)
        leaving = joining = ""
        if kind in ("leave", "die"):
            leaving = self._draw.choice(self._present)
            self._present = tuple(name for name in self._present if name != leaving)
        elif kind == "join":
            joining = self._draw.choice(absent)
            self._present = tuple(sorted((*self._present, joining)))
        self._closed &= frozenset(self._present)
        if kind in ("open", "close"):
            one = self._draw.choice(self._present)
            self._closed = self._closed - {one} if kind == "open" else self._closed | {one}
        if self._closed >= set(self._present):
            self._closed -= {self._draw.choice(self._present)}
        self._result.changes[kind] += 1
        view = self._view()
        vips, nodes, switch = self._farm.vips, self._lab.servers, self._lab.switch
        steps: list[Step] = []
        if joining in self._dead:  # it comes back as after a reboot: without the address and the filter
            self._dead -= {joining}
            steps += [(nodes[joining], vips[joining].down, (True,)), (switch, _cable, (joining, "up"))]
        if joining:
            steps.append((nodes[joining], vips[joining].up, (view,)))
        followers = [name for name in self._present if name != joining]
        self._draw.shuffle(followers)
        steps += [(nodes[name], vips[name].update, (view,)) for name in followers]
        if kind == "die":
            self._dead |= {leaving}
            steps.insert(0, (switch, _cable, (leaving, "down")))
        elif leaving:
            steps.insert(self._draw.randrange(len(steps) + 1), (nodes[leaving], vips[leaving].down, (True,)))
        return steps

    # --- the farm as the model has it ---

    def _view(self) -> Mapping[str, Member]:
        view = self._farm.view(*self._present)
        return {name: Member(member.macs, name not in self._closed) for name, member in view.items()}

    def _follow(self, names: tuple[str, ...]) -> None:
        for name in names:
            self._farm.node(name).run(self._farm.vips[name].up, self._view())

    def _owner(self, packet: Packet) -> str | None:
        group, key = (0, HashKey.ON_PORT) if packet.service == 80 else (1, HashKey.ON_ADDR)
        opened = tuple(name for name in self._present if name not in self._closed)
        return self._farm.owners(opened, group)[self._farm.bucket(str(packet.source), packet.port, key)]

    def _answering(self, names: tuple[str, ...]) -> dict[bool, bytes]:
        """Of IPv4 and of IPv6 (True): the Ethernet address that answers for the virtual one."""
        return {
            ":" in vip: bytes.fromhex(self._farm.node(self._farm.elected(names, vip)).mac.replace(":", ""))
            for vip in (VIP4, VIP6)
        }

    # --- packets ---

    def _packet(self) -> Packet:
        draw, number = self._draw, self._result.packets
        self._result.packets += 1
        flags = draw.choice(_FLAGS) if draw.random() < 0.5 else 0
        six, service = draw.random() < 0.5, draw.choice((80, 25))
        self._result.kinds[f"IPv{6 if six else 4} {'TCP' if flags else 'UDP'}"] += 1
        return Packet(number, draw.randrange(60_000), draw.randrange(1024, 65536), six, service, flags)

    def _send(self, packets: list[Packet], targets: Mapping[bool, bytes]) -> None:
        send = self._wire.send
        for packet in packets:
            send(packet.frame(self._mac, targets[packet.six]))

    def _listen(self) -> bool:
        """Count what the nodes accepted; False: nothing."""
        heard = False
        for place, name in enumerate(self._names):
            for number in self._ears[name].heard():
                heard = True
                self._times[number] += 1
                self._by[number] = place
        return heard

    def _wait_for(self, sent: list[Packet]) -> None:
        """Until each was accepted by somebody, or nothing came for long."""
        last = time.monotonic()
        while time.monotonic() - last < PATIENCE_S and not all(self._times[packet.number] for packet in sent):
            if self._listen():
                last = time.monotonic()
            else:
                time.sleep(0.001)

    def _wrong(self, what: str) -> None:
        if len(self._result.wrong) < 10:
            self._result.wrong.append(what)


def _cable(name: str, state: str) -> None:
    subprocess.run(["ip", "link", "set", f"p-{name}", state], check=True, capture_output=True, timeout=20)


def trial(packets: int, seed: int, folder: Path, stable: int = STABLE) -> Result:
    """One run in namespaces of its own."""
    with wire() as lab, ExitStack() as stack:
        return Trial(Farm(lab, folder, _GROUPS), seed, stack).run(packets, stable)


def main() -> int:
    """The long run; its counts go into build/reports/farm.json."""
    parser = argparse.ArgumentParser(prog="tests.netns.exactness", description="Every packet is accepted once.")
    parser.add_argument("--packets", type=int, default=PACKETS, help="%(default)s")
    parser.add_argument("--seed", type=int, default=SEED, help="of packets and changes (%(default)s)")
    given = parser.parse_args()
    if given.packets < 1:
        parser.error("--packets: expected at least 1")
    with tempfile.TemporaryDirectory(prefix="safekit-exact-") as made:
        result = trial(given.packets, given.seed, Path(made))
    found = {"seed": given.seed, **result.as_dict()}
    try:
        told = json.loads(REPORT.read_text())
    except (FileNotFoundError, ValueError):
        told = {}
    told["exactness"] = found
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return 1 if result.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
