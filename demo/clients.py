"""Many clients of the web farm: each with an address of its own, all on the node `client`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from tests.nodes.node import Node, Running

FIRST, LAST = 130, 249
PROGRAM_FILE = "/tmp/web_clients.py"

_PROGRAM = """
import http.client, json, sys, time
address, prefix, first, last, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
end = time.time() + seconds
while True:
    answers = {}
    for number in range(first, last + 1):
        source = f"{prefix}.{number}"
        try:
            connection = http.client.HTTPConnection(address, 80, timeout=2, source_address=(source, 0))
            connection.request("GET", "/node")
            answer = connection.getresponse()
            text = answer.read().decode().strip()
            answers[source] = text if answer.status == 200 else f"error: HTTP {answer.status}"
            connection.close()
        except OSError as error:
            answers[source] = f"error: {error}"
    print(json.dumps({"time": time.time(), "answers": answers}), flush=True)
    if time.time() >= end:
        break
"""


@dataclass(frozen=True)
class Round:
    """One request of every client: who answered."""

    answers: dict[str, str]

    @property
    def shares(self) -> dict[str, int]:
        """Requests per node that answered."""
        return dict(sorted(Counter(node for node in self.answers.values() if not node.startswith("error")).items()))

    @property
    def served_pct(self) -> float:
        """How many clients got an answer."""
        good = sum(not answer.startswith("error") for answer in self.answers.values())
        return round(100.0 * good / len(self.answers), 2)

    def moved_from(self, before: Round, survivors: set[str]) -> list[str]:
        """Clients that a survivor served before, and that another node serves now."""
        return [
            client
            for client, node in before.answers.items()
            if node in survivors and self.answers[client] != node and not self.answers[client].startswith("error")
        ]


class WebClients:
    """The clients of the farm."""

    def __init__(self, client: Node, address: str) -> None:
        self._client = client
        self._address = address
        self._prefix = client.address.rsplit(".", 1)[0]

    def prepare(self) -> None:
        """Give the client node the addresses of all its clients."""
        numbers = " ".join(str(number) for number in range(FIRST, LAST + 1))
        self._client.write(PROGRAM_FILE, _PROGRAM)
        self._client.run(f"for i in {numbers}; do ip addr replace {self._prefix}.$i/24 dev eth0; done")

    def ask(self) -> Round:
        """Every client asks once."""
        return self._rounds(self._client.out(self._command(0), timeout=300))[-1]

    def start(self, seconds: float) -> Running:
        """Every client asks again and again for `seconds`."""
        return self._client.start(self._command(seconds))

    def rounds(self, running: Running) -> list[Round]:
        """What `start` saw."""
        return self._rounds(running.wait(timeout=300).out)

    def _command(self, seconds: float) -> str:
        return f"python3 {PROGRAM_FILE} {self._address} {self._prefix} {FIRST} {LAST} {seconds:g}"

    @staticmethod
    def _rounds(text: str) -> list[Round]:
        return [Round(json.loads(line)["answers"]) for line in text.splitlines()]
