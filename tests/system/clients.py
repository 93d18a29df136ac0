"""Clients of the modules, on the node `client`: they remember each promise and each refusal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise

from tests.nodes import Node, Running, wait_for

PATIENCE_S = 4.0
"""How long a writer waits for an answer: three seconds until silent heartbeats are a lost node, and one for who goes alone."""

_WRITER = """\
import os, socket, sys, time
address, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
promised = open(f"{folder}/promised", "a", buffering=1)
trouble = open(f"{folder}/trouble", "a", buffering=1)
number = int(sys.argv[4])
while not os.path.exists(f"{folder}/stop"):
    try:
        with socket.create_connection((address, port), timeout=float(sys.argv[5])) as connection:
            stream = connection.makefile("rwb")
            while not os.path.exists(f"{folder}/stop"):
                number += 1
                stream.write(b"%d\\n" % number)
                stream.flush()
                if stream.readline() != b"ok %d\\n" % number:
                    raise OSError("closed before the answer")
                promised.write(f"{number} {time.time()}\\n")
                time.sleep(0.005)
    except OSError as error:
        trouble.write(f"{time.time()} {number}: {error}\\n")
        time.sleep(0.05)
"""

_VISITORS = """\
import json, os, socket, sys, time
address, port, folder, prefix = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
first, last, once = int(sys.argv[5]), int(sys.argv[6]), sys.argv[7] == "once"
while True:
    answers = {}
    for number in range(first, last + 1):
        source = f"{prefix}.{number}"
        try:
            with socket.create_connection((address, port), timeout=2, source_address=(source, 0)) as connection:
                connection.shutdown(socket.SHUT_WR)
                answers[source] = b"".join(iter(lambda: connection.recv(100), b"")).decode() or "error: nothing"
        except OSError as error:
            answers[source] = f"error: {error}"
    print(json.dumps(answers), flush=True)
    if once or os.path.exists(f"{folder}/stop"):
        break
    time.sleep(0.05)
"""

_STAYER = """\
import os, socket, sys, time
address, port, source, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
with socket.create_connection((address, port), timeout=60, source_address=(source, 0)) as connection:
    while not os.path.exists(f"{folder}/stop"):
        name = connection.recv(100).decode() or "closed"
        with open(f"{folder}/answers", "a") as answers:
            answers.write(name + "\\n")
        time.sleep(0.05)
        connection.sendall(b"?")
"""

_PROBE = """\
import os, select, socket, sys, time
address, port, folder, interval = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
answers = open(f"{folder}/answers", "a", buffering=1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
    door.setblocking(False)
    due = time.monotonic()
    while not os.path.exists(f"{folder}/stop"):
        try:
            door.sendto(b"who", (address, port))
        except OSError:
            pass
        due = max(due + interval, time.monotonic())
        while (left := due - time.monotonic()) > 0:
            if select.select([door], [], [], left)[0]:
                try:
                    name = door.recv(100).decode()
                except OSError:
                    continue
                answers.write(f"{time.time()} {name}\\n")
"""
"""Datagrams, because each stands for itself: a connection that was begun in the silence would only be tried again after
a second."""


@dataclass(frozen=True)
class Written:
    """What the writer saw: numbers that were acknowledged, and complaints."""

    promised: frozenset[int]
    trouble: tuple[str, ...]
    longest_silence: float = 0.0
    """Seconds between two acknowledgements, at most."""


class Writer:
    """Sends one number after the other to the ledger behind an address; each is acknowledged when it is on disk."""

    _last = 0

    def __init__(self, client: Node, address: str, port: int) -> None:
        self._client = client
        self._folder = f"/tmp/writer-{address}"
        self._promised = f"{self._folder}/promised"
        self._command = ["python3", f"{self._folder}/writer.py", address, str(port), self._folder]
        self._running: Running | None = None

    def start(self) -> None:
        """Begin, and wait for the first promise."""
        self._client.run(f"rm -rf {self._folder}")
        self._client.write(f"{self._folder}/writer.py", _WRITER)
        Writer._last += 1_000_000  # no number is sent twice in a run of the suite
        self._running = self._client.start([*self._command, str(Writer._last), str(PATIENCE_S)])
        self.await_promise()

    def count(self) -> int:
        """How many numbers were acknowledged so far."""
        return int(self._client.out(f"cat {self._folder}/promised 2>/dev/null | wc -l"))

    def await_promise(self, more: int = 20, timeout: float = 30) -> None:
        """Wait until `more` further numbers are acknowledged."""
        wanted = self.count() + more
        wait_for(f"{more} more writes are acknowledged", lambda: self.count() >= wanted, timeout=timeout)

    def first_after(self, moment: float) -> float | None:
        """When the first number after `moment` (seconds since the epoch) was acknowledged; None: not yet."""
        found = self._client.out(["awk", "-v", f"since={moment}", "$2 > since { print $2; exit }", self._promised])
        return float(found) if found else None

    def stop(self) -> Written:
        """End, and say what was seen."""
        self._client.run(["touch", f"{self._folder}/stop"])
        if self._running is not None:
            self._running.wait(30)
            self._running = None
        lines = [line.split() for line in self._client.out(f"cat {self._promised}").splitlines()]
        trouble = self._client.out(f"cat {self._folder}/trouble").splitlines()
        silence = max((float(later[1]) - float(earlier[1]) for earlier, later in pairwise(lines)), default=0.0)
        return Written(frozenset(int(words[0]) for words in lines), tuple(trouble), silence)

    def abandon(self) -> None:
        """End a writer that a failed test left behind."""
        if self._running is not None:
            self._running.stop()
            self._running = None


class Probe:
    """Asks an address every 20 ms who is there, by a datagram, and notes each answer."""

    EVERY_S = 0.02

    def __init__(self, client: Node, address: str, port: int) -> None:
        self._client = client
        self._folder = f"/tmp/probe-{address}"
        self._answers = f"{self._folder}/answers"
        self._command = ["python3", f"{self._folder}/probe.py", address, str(port), self._folder, str(self.EVERY_S)]
        self._running: Running | None = None

    def start(self) -> None:
        """Begin, and wait for the first answer."""
        self._client.run(f"rm -rf {self._folder}")
        self._client.write(f"{self._folder}/probe.py", _PROBE)
        self._running = self._client.start(self._command)
        self._client.wait_for("somebody answers", ["test", "-s", self._answers])

    def since(self, moment: float) -> list[str]:
        """Every answer after `moment`, in seconds since the epoch: `date node`, oldest first."""
        return self._client.out(["awk", "-v", f"since={moment}", "$1 > since", self._answers]).splitlines()

    def await_answer_of(self, node: Node, moment: float, timeout: float = 30) -> None:
        """Wait until this node has answered after `moment`."""
        words = [
            "awk",
            "-v",
            f"since={moment}",
            f'$1 > since && $2 == "{node.name}" {{ seen = 1 }} END {{ exit !seen }}',
        ]
        self._client.wait_for(f"{node.name} answers", [*words, self._answers], timeout=timeout)

    def stop(self) -> None:
        """End."""
        if self._running is not None:
            self._client.run(["touch", f"{self._folder}/stop"])
            self._running.wait(30, check=False)
            self._running = None


Answers = dict[str, str]


class Visitors:
    """Sixty clients of a farm, each with an address of its own."""

    FIRST, LAST = 130, 189

    def __init__(self, client: Node, address: str, port: int) -> None:
        self._client = client
        self._folder = f"/tmp/visitors-{address}"
        prefix = client.address.rsplit(".", 1)[0]
        client.run(
            f"rm -rf {self._folder}; for i in $(seq {self.FIRST} {self.LAST}); do "
            f"ip addr replace {prefix}.$i/24 dev {self._device()}; done"
        )
        client.write(f"{self._folder}/visitors.py", _VISITORS)
        self._command = [
            *("python3", f"{self._folder}/visitors.py", address, str(port), self._folder, prefix),
            *(str(self.FIRST), str(self.LAST)),
        ]

    def _device(self) -> str:
        words = self._client.out(["ip", "-json", "route", "get", self._client.address.rsplit(".", 1)[0] + ".11"])
        return str(json.loads(words)[0]["dev"])

    def once(self) -> Answers:
        """Each of them asks once: who answered whom."""
        answers: Answers = json.loads(self._client.out([*self._command, "once"], timeout=150))
        return answers

    def start(self) -> Running:
        """They ask again and again until `stop`."""
        self._client.run(["rm", "-f", f"{self._folder}/stop"])
        return self._client.start([*self._command, "on"])

    def stop(self, running: Running) -> list[Answers]:
        """End; each round."""
        self._client.run(["touch", f"{self._folder}/stop"])
        return [json.loads(line) for line in running.wait(150).out.splitlines()]


def refused(rounds: list[Answers]) -> list[str]:
    """Every question that was not answered."""
    return [f"{who}: {said}" for answers in rounds for who, said in answers.items() if said.startswith("error")]


class Stayer:
    """A client of a farm whose connection stays, and asks again and again who answers."""

    def __init__(self, client: Node, address: str, port: int, source: str) -> None:
        self._client = client
        self._folder = f"/tmp/stayer-{address}"
        client.run(f"rm -rf {self._folder}")
        client.write(f"{self._folder}/stayer.py", _STAYER)
        command = ["python3", f"{self._folder}/stayer.py", address, str(port), source, self._folder]
        self._running = client.start(command)

    def __enter__(self) -> Stayer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running.alive:
            self._running.stop()

    def await_answers(self, more: int = 3) -> None:
        """Wait until it was answered a few more times."""
        wanted = len(self._answers()) + more
        wait_for(f"{more} more answers", lambda: len(self._answers()) >= wanted, timeout=60)

    def end(self) -> set[str]:
        """End in order; who answered."""
        self._client.run(["touch", f"{self._folder}/stop"])
        self._running.wait(60)
        return set(self._answers())

    def _answers(self) -> list[str]:
        return self._client.out(f"cat {self._folder}/answers 2>/dev/null; true").split()
