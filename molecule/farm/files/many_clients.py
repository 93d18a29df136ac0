"""Speaks for many clients of a farm and notes which node answers each: run on a host outside the cluster.

    many_clients.py watch ADDRESS INTERFACE FILE FIRST COUNT     until it is told to end
    many_clients.py judge FILE                                   what it saw, as JSON

The clients are the COUNT addresses from FIRST on, added to the interface for as long as it runs. Four times a second
each of them sends one echo request to ADDRESS; the hardware addresses that the answers come from are the nodes that
took the request. Two answers to one request are two owners.
"""

import ipaddress
import json
import signal
import socket
import struct
import subprocess
import sys
import time

ETHERTYPE_IP = 0x0800
ECHO_REPLY, ECHO_REQUEST = 0, 8
ROUND_S = 0.25
LATE_S = 2.0


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(identity, sequence):
    plain = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identity, sequence)
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum(plain), identity, sequence)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=False, capture_output=True, timeout=10)


class Watch:
    """One raw socket per client to send, one packet socket for every answer."""

    def __init__(self, address, interface, first, count):
        self.address = address
        self.interface = interface
        start = ipaddress.ip_address(first)
        self.clients = [str(start + index) for index in range(count)]
        self.identity = 0x5AFE
        self.answers = {}
        self.senders = {}
        self.wire = None

    def begin(self):
        for client in self.clients:
            ip("address", "add", f"{client}/32", "dev", self.interface)
            sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            sender.bind((client, 0))
            self.senders[client] = sender
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_IP))
        self.wire.bind((self.interface, ETHERTYPE_IP))

    def end(self):
        for client in self.clients:
            ip("address", "del", f"{client}/32", "dev", self.interface)

    def ask(self, sequence):
        for client, sender in self.senders.items():
            self.answers[client, sequence] = set()
            try:
                sender.sendto(echo_request(self.identity, sequence), (self.address, 0))
            except OSError:
                pass  # no way to the farm: nobody answers

    def listen(self, until):
        while (left := until - time.monotonic()) > 0:
            self.wire.settimeout(left)
            try:
                frame = self.wire.recv(2048)
            except TimeoutError:
                return
            self.note(frame)

    def note(self, frame):
        header = 14 + (frame[14] & 15) * 4
        if len(frame) < header + 8 or frame[23] != socket.IPPROTO_ICMP:
            return
        kind, _code, _sum, identity, sequence = struct.unpack("!BBHHH", frame[header : header + 8])
        owners = self.answers.get((socket.inet_ntoa(frame[30:34]), sequence))
        if kind == ECHO_REPLY and identity == self.identity and owners is not None:
            owners.add(frame[6:12].hex(":"))


def watch(address, interface, path, first, count):
    here = Watch(address, interface, first, int(count))
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    here.begin()
    pending = []
    sequence = 0
    try:
        with open(path, "w", buffering=1, encoding="ascii") as notes:
            while not ended or pending:
                now = time.monotonic()
                if not ended:
                    sequence = sequence % 65535 + 1
                    here.ask(sequence)
                    pending.append((now, time.time(), sequence))
                here.listen(now + ROUND_S)
                while pending and (time.monotonic() - pending[0][0] > LATE_S or ended):
                    _asked, wall, old = pending.pop(0)
                    owners = {client: sorted(here.answers.pop((client, old))) for client in here.clients}
                    notes.write(json.dumps({"at": round(wall, 3), "owners": owners}) + "\n")
    finally:
        here.end()


def judge(path):
    with open(path, encoding="ascii") as notes:
        rounds = [json.loads(line) for line in notes if line.endswith("\n")]
    clients = {client: {"doubles": 0, "silence": 0.0, "owners": []} for client in rounds[0]["owners"]}
    since = {}
    for taken in rounds:
        for client, owners in taken["owners"].items():
            seen = clients[client]
            if len(owners) > 1:
                seen["doubles"] += 1
            if owners:
                since.pop(client, None)
                if not seen["owners"] or seen["owners"][-1] != owners[0]:
                    seen["owners"].append(owners[0])
            else:
                begun = since.setdefault(client, taken["at"])
                seen["silence"] = round(max(seen["silence"], taken["at"] - begun + ROUND_S), 2)
    print(json.dumps({"rounds": len(rounds), "clients": clients}))


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(*sys.argv[2:])
    else:
        judge(*sys.argv[2:])
