"""Waits until the data plane of this node is in a phase of a resynchronisation, then says so.

usage: await_phase SOCKET PHASE SECONDS     PHASE: scan | copy | any (of these) | mirror. Exit code 1 when it was never seen.
"""

from __future__ import annotations

import socket
import sys
import time


def status(path: str) -> dict[str, str]:
    """What the data plane says of itself; nothing when it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            connection.connect(path)
            connection.sendall(b"status\n")
            line = connection.makefile().readline()
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def reached(now: dict[str, str], phase: str) -> bool:
    """Whether it is there."""
    if phase == "mirror":
        return now.get("peer") == "mirror"
    if now.get("role") == "secondary":  # it does not know how far its primary is, only that it is not done
        return now.get("inconsistent") == "yes"
    present = now.get("phase", "")
    return present == phase or (phase == "any" and bool(present))


def main(path: str, phase: str, seconds: float) -> int:
    """Ask again and again."""
    end = time.monotonic() + seconds
    begun = phase != "mirror"  # that one counts from a moment when it was not
    while time.monotonic() < end:
        now = status(path)
        if begun and reached(now, phase):
            return 0
        begun = begun or not reached(now, phase)
        time.sleep(0.002)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
