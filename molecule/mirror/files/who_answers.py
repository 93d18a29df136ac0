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
    begun = {}
    longest = {"none": 0.0, "two": 0.0}
    turns = []
    for sample in samples:
        owners = sample["owners"]
        state = "one" if len(owners) == 1 else "two" if owners else "none"
        begun = {state: begun.get(state, sample["at"])}
        if state != "one":
            longest[state] = max(longest[state], round(sample["at"] - begun[state] + WINDOW_S, 1))
        elif not turns or turns[-1] != owners[0]:
            turns.append(owners[0])
    print(json.dumps({"samples": len(samples), "turns": turns, "none_s": longest["none"], "two_s": longest["two"]}))


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(*sys.argv[2:])
    else:
        judge(*sys.argv[2:])
