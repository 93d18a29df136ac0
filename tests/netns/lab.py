"""A wire with three servers and a client, each in a network namespace of its own; nothing leaves them or stays behind.

A namespace lives in a thread that left the machine's network (`unshare`): it is gone with the thread, whatever ends the
tests. Code that runs in a node's thread, and every process and socket made there, is in that node's network.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")

VIP4 = "10.66.0.100"
VIP6 = "fd66::100"
CLIENTS = 64
FIRST_ANSWER_S = 5.0
"""How long a question waits for its first answer; then only its patience for one more."""


def _leave_the_network() -> None:
    if _libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")


class Node:
    """One network namespace and what was started in it."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.address4 = f"10.66.0.{number}"
        self.address6 = f"fd66::{number}"
        self.mac = f"02:66:00:00:00:{number:02x}"
        self._thread = ThreadPoolExecutor(1, initializer=_leave_the_network)
        self.thread_id = self.run(threading.get_native_id)
        self._servers: list[Server] = []

    def run(self, function: Callable[..., T], *arguments: Any, timeout: float = 30.0) -> T:
        """Call in this node's network."""
        return self.start(function, *arguments).result(timeout)

    def start(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begin to call in this node's network."""
        return self._thread.submit(function, *arguments)

    def addresses(self) -> str:
        """The interfaces and their addresses, however far the kernel is with the address that it gave itself."""
        return self.command("ip", "address").replace(" tentative", "")

    def command(self, *words: str, check: bool = True, text: str | None = None) -> str:
        """Run a program in this node's network; its output."""
        answer = self.run(
            lambda: subprocess.run(words, input=text, capture_output=True, text=True, timeout=20, check=False)
        )
        assert not check or answer.returncode == 0, f"{self.name}: {' '.join(words)}: {answer.stderr}"
        return answer.stdout

    def serve(self, port: int = 80, name: str | None = None) -> Server:
        """An application that answers its name, over TCP and UDP, IPv4 and IPv6."""
        server = self.run(Server, port, name or self.name)
        self._servers.append(server)
        return server

    def die(self) -> None:
        """The power goes: the cable answers no more."""
        self.command("ip", "link", "set", "eth0", "down")

    def close(self) -> None:
        for server in self._servers:
            server.close()
        self._thread.shutdown()


class Server:
    """Says its name to every line and datagram; holds connections until the client ends them."""

    def __init__(self, port: int, name: str) -> None:
        self._name = name.encode()
        self._selector = selectors.DefaultSelector()
        self._stop_reader, self._stop_writer = os.pipe()
        self._selector.register(self._stop_reader, selectors.EVENT_READ, "stop")
        stream = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stream.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        stream.bind(("::", port))
        stream.listen(512)
        self._selector.register(stream, selectors.EVENT_READ, "accept")
        for family in (socket.AF_INET, socket.AF_INET6):
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                datagrams.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
            datagrams.bind(("", port))
            self._selector.register(datagrams, selectors.EVENT_READ, "datagram")
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data == "stop":
                    return
                self._answer(key.fileobj, key.data)  # type: ignore[arg-type]

    def _answer(self, one: socket.socket, kind: str) -> None:
        if kind == "accept":
            connection, _ = one.accept()
            connection.sendall(self._name + b"\n")
            self._selector.register(connection, selectors.EVENT_READ, "line")
        elif kind == "datagram":
            data, ancillary, _, client = one.recvmsg(65536, 256)
            keep = [entry for entry in ancillary if entry[1] in (8, socket.IPV6_PKTINFO)]
            if one.family == socket.AF_INET:
                _, source, _ = struct.unpack("=I4s4s", keep[0][2])
                keep = [(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, source, bytes(4)))]
            one.sendmsg([self._name + b" " + data[:8]], keep, 0, client)
        else:
            try:
                data = one.recv(65536)
            except OSError:
                data = b""
            if data:
                one.sendall(self._name + b"\n")
            else:
                self._selector.unregister(one)
                one.close()

    def close(self) -> None:
        os.write(self._stop_writer, b"x")
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._stop_reader)
        os.close(self._stop_writer)


class Lab:
    """The wire: a bridge, servers n1 n2 n3, one client with many addresses."""

    def __init__(self) -> None:
        self.switch = Node("switch", 250)
        self.servers = {f"n{number}": Node(f"n{number}", 10 + number) for number in (1, 2, 3)}
        self.client = Node("client", 200)
        self.switch.command("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        self.switch.command("ip", "link", "set", "br0", "up")
        for node in [*self.servers.values(), self.client]:
            self.plug(node)
        lines = [f"address add {client4(number)}/16 dev eth0" for number in range(CLIENTS)]
        lines += [f"address add {client6(number)}/64 dev eth0 nodad" for number in range(CLIENTS)]
        self.client.command("ip", "-batch", "-", text="\n".join(lines))

    def plug(self, node: Node) -> None:
        """Connect a node to the switch, and give it its addresses."""
        port = f"p-{node.name}"
        peer = ["peer", "name", "eth0", "address", node.mac, "netns", str(node.thread_id)]
        self.switch.command("ip", "link", "add", port, "type", "veth", *peer)
        self.switch.command("ip", "link", "set", port, "master", "br0", "up")
        node.command("sysctl", "-qw", "net.ipv6.conf.default.accept_ra=0", "net.ipv6.conf.eth0.accept_ra=0")
        node.command("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0", "net.ipv4.icmp_ratelimit=0")
        lines = ["link set lo up", "link set eth0 up", f"address add {node.address4}/16 dev eth0"]
        lines.append(f"address add {node.address6}/64 dev eth0 nodad")
        node.command("ip", "-batch", "-", text="\n".join(lines))

    def close(self) -> None:
        for node in [*self.servers.values(), self.client, self.switch]:
            node.close()


@contextmanager
def wire() -> Iterator[Lab]:
    """A lab for one test."""
    lab = Lab()
    try:
        yield lab
    finally:
        lab.close()


# What a client does; each runs in the client's network.


def client4(number: int) -> str:
    return f"10.66.1.{number}"


def client6(number: int) -> str:
    return f"fd66::1:{number:x}"


def connect(source: str, target: str, port: int = 80, source_port: int = 0, timeout: float = 5.0) -> socket.socket:
    """An open connection; its first line is the server's name."""
    return socket.create_connection((target, port), timeout, (source, source_port))


def who_serves(source: str, target: str, port: int = 80, source_port: int = 0, timeout: float = 5.0) -> str:
    """The name of the server that accepts this client."""
    with connect(source, target, port, source_port, timeout) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # the port is free at once
        return connection.makefile().readline().strip()


def still_served_by(connection: socket.socket) -> str:
    """Send a line on an open connection; the name that answers."""
    connection.sendall(b"?\n")
    data = b""
    while not data.endswith(b"\n"):
        part = connection.recv(100)
        if not part:
            raise ConnectionError("closed by the server")
        data += part
    return data.decode().strip().splitlines()[-1]


def datagram_answers(
    clients: Mapping[str, int], target: str, size: int = 8, patience: float = 0.5
) -> dict[str, list[str]]:
    """Send a datagram from each (address, port 0 = any); collect every answer until none comes for `patience`."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    answers: dict[str, list[str]] = {}
    selector = selectors.DefaultSelector()
    for source, port in clients.items():
        one = socket.socket(family, socket.SOCK_DGRAM)
        one.bind((source, port))
        answers[source] = []
        selector.register(one, selectors.EVENT_READ, source)
        one.sendto(b"q" * size, (target, 80))
    while ready := selector.select(patience):
        for key, _ in ready:
            data, sender = key.fileobj.recvfrom(100)  # type: ignore[union-attr]
            assert sender[0] == target
            answers[key.data].append(data.decode().split()[0])
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return answers


def ping_answers(source: str, target: str, patience: float = 0.2) -> int:
    """Send one echo request; how many replies come."""
    six = ":" in target
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.bind((source, 0))
        body = struct.pack(">BBHHH", 128 if six else 8, 0, 0, 0x5AFE, 1)
        if not six:
            total = sum(struct.unpack(">4H", body))
            total = (total & 0xFFFF) + (total >> 16)
            body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
        raw.sendto(body, (target, 0))
        count = 0
        until = time.monotonic() + 10
        while time.monotonic() < until:
            raw.settimeout(patience if count else FIRST_ANSWER_S)
            try:
                data, sender = raw.recvfrom(2000)
            except TimeoutError:
                break
            icmp = data if six else data[20:]
            count += sender[0] == target and icmp[0] == (129 if six else 0) and icmp[4:6] == b"\x5a\xfe"
        return count


def arp_answers(mac: str, source: str, target: str, patience: float = 0.3) -> list[str]:
    """Ask by ARP for `target`; the Ethernet address of each answer."""
    own = bytes.fromhex(mac.replace(":", ""))
    question = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + own + socket.inet_aton(source) + bytes(6)
    frame = b"\xff" * 6 + own + b"\x08\x06" + question + socket.inet_aton(target)
    return _raw_answers(
        0x0806, frame, patience, lambda data: data[20:22] == b"\0\2" and data[28:32] == socket.inet_aton(target)
    )


def neighbour_answers(mac: str, source: str, target: str, patience: float = 0.3) -> list[str]:
    """Ask by neighbour discovery for `target`; the Ethernet address of each answer."""
    own = bytes.fromhex(mac.replace(":", ""))
    asker, wanted = (socket.inet_pton(socket.AF_INET6, one) for one in (source, target))
    group = bytes.fromhex("ff0200000000000000000001ff") + wanted[13:]
    body = struct.pack(">BBHI", 135, 0, 0, 0) + wanted + b"\x01\x01" + own
    total = sum(struct.unpack(f">{(len(body) + 40) // 2}H", asker + group + struct.pack(">II", len(body), 58) + body))
    total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]
    packet = struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + asker + group + body
    frame = b"\x33\x33\xff" + wanted[13:] + own + b"\x86\xdd" + packet
    return _raw_answers(0x86DD, frame, patience, lambda data: data[54] == 136 and data[62:78] == wanted)


def _raw_answers(kind: int, frame: bytes, patience: float, wanted: Callable[[bytes], bool]) -> list[str]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as raw:
        raw.bind(("eth0", kind))
        raw.send(frame)
        answers: list[str] = []
        until = time.monotonic() + 10
        while time.monotonic() < until:
            raw.settimeout(patience if answers else FIRST_ANSWER_S)
            try:
                data = raw.recv(2000)
            except TimeoutError:
                break
            if data[:6] == frame[6:12] and wanted(data):
                answers.append(data[6:12].hex(":"))
        return answers


def send_datagrams(
    mac: str, target: str, flows: Sequence[tuple[Any, int]], vip: Any, port: int = 9, identification: bool = False
) -> None:
    """One empty datagram per (source, port) to a port of the VIP, in frames of our own making.

    identification: the number of a flow is the IPv4 identification too.
    """
    head = bytes.fromhex(target.replace(":", "") + mac.replace(":", "")) + (
        b"\x08\0" if vip.version == 4 else b"\x86\xdd"
    )
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        for source, number in flows:
            udp = struct.pack(">HHHH", number, port, 8, 0)
            if vip.version == 4:
                mark = number if identification else 0
                ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28, mark, 0, 64, 17, 0, source.packed, vip.packed)
                total = sum(struct.unpack(">10H", ip))
                total = (total & 0xFFFF) + (total >> 16)
                ip = ip[:10] + struct.pack(">H", ~total & 0xFFFF) + ip[12:]
            else:
                ip = struct.pack(">IHBB", 6 << 28, 8, 17, 64) + source.packed + vip.packed
            wire.send(head + ip + udp)


@contextmanager
def watch_rules(node: Node) -> Iterator[list[int]]:
    """The kernel's notices of changed nftables in the node while the block runs; complete when the block has ended.

    The kernel tells at the commit, before the writer is answered: nothing has to be awaited.
    """
    netfilter, group_of_nftables = 12, 7
    listener = node.run(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, netfilter)
    seen: list[int] = []
    with listener:
        listener.bind((0, 1 << (group_of_nftables - 1)))
        listener.setblocking(False)
        node.command("nft", "add table ip seen; delete table ip seen")
        assert _notices(listener), "the listener is deaf"
        yield seen
        seen.extend(_notices(listener))


def _notices(listener: socket.socket) -> list[int]:
    found: list[int] = []
    while True:
        try:
            data = listener.recv(1 << 20)
        except BlockingIOError:
            return found
        found.append(struct.unpack_from("=IH", data)[1])
