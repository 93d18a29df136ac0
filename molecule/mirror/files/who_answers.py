"""Asks the segment over and over who has an address, and notes each answer: run on a host outside the cluster.

    who_answers.py watch ADDRESS INTERFACE FILE     until it is told to end
    who_answers.py judge FILE                       what it saw, as JSON

A request is broadcast five times a second. Two answers to one request are two owners; no answer is a gap. Gratuitous
announcements are no answers.
"""

import fcntl
import json
import signal
import socket
import struct
import sys
import time

ETHERTYPE_ARP = 0x0806
REQUEST, REPLY = 1, 2
WINDOW_S = 0.2


def interface_address(interface, command, length):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe.fileno(), command, struct.pack("256s", interface.encode()[:15]))
    return answer[18:24] if length == 6 else answer[20:24]


def watch(address, interface, path):
    here_mac = interface_address(interface, 0x8927, 6)
    here_ip = interface_address(interface, 0x8915, 4)
    wanted = socket.inet_aton(address)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ARP))
    wire.bind((interface, ETHERTYPE_ARP))
    request = b"\xff" * 6 + here_mac + struct.pack("!HHHBBH", ETHERTYPE_ARP, 1, 0x0800, 6, 4, REQUEST)
    request += here_mac + here_ip + b"\x00" * 6 + wanted
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    with open(path, "w", buffering=1, encoding="ascii") as notes:
        while not ended:
            asked = time.monotonic()
            wall = time.time()
            wire.send(request)
            owners = set()
            while (left := asked + WINDOW_S - time.monotonic()) > 0:
                wire.settimeout(left)
                try:
                    frame = wire.recv(2048)
                except TimeoutError:
                    break
                if len(frame) < 42 or frame[:6] != here_mac or struct.unpack("!H", frame[20:22])[0] != REPLY:
                    continue
                if frame[28:32] == wanted:
                    owners.add(frame[22:28].hex(":"))
            notes.write(json.dumps({"at": round(wall, 3), "owners": sorted(owners)}) + "\n")


def judge(path):
    with open(path, encoding="ascii") as notes:
        samples = [json.loads(line) for line in notes if line.endswith("\n")]
    silence = longest = 0.0
    since = None
    doubles, turns = [], []
    for sample in samples:
        if len(sample["owners"]) > 1:
            doubles.append(sample)
        if sample["owners"]:
            since = None
            if not turns or turns[-1] != sample["owners"]:
                turns.append(sample["owners"])
        else:
            since = sample["at"] if since is None else since
            silence = sample["at"] - since + WINDOW_S
            longest = max(longest, silence)
    print(json.dumps({"samples": len(samples), "doubles": doubles, "longest_silence_s": round(longest, 1), "turns": turns}))


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(*sys.argv[2:])
    else:
        judge(*sys.argv[2:])
