"""The clients of the application, on a machine that does not fail. Each operation is one line of the journal, with its outcome.

usage: clients ADDRESS PORT FOLDER TRIAL SEED

FOLDER gets `journal`; they end when FOLDER/stop is there. Every client has its own connection and does one thing at a
time. After an answer that did not come, or said that something went wrong, nobody knows what happened: the client leaves that
file or directory alone and takes a new one, so that no late effect of the lost request can be taken for one of a later one.
"""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import sys
import threading
import time
import zlib
from typing import Any, TextIO

PATIENCE = 9.0
"""Seconds until a client gives up waiting for an answer."""
PAUSE = 0.03
ANSWERS_ABOUT_NAMES = (
    errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL, errno.EPERM,
)  # fmt: skip
REGISTERS = ("put-durable", "put", "poke-durable", "poke")


def element(number: int) -> str:
    """A member of the set, as a line."""
    return f"{number} {zlib.crc32(str(number).encode()):08x}\n"


def record(target: str, number: int) -> str:
    """The record `number` of a log: its number, a payload of some length, a checksum."""
    draw = random.Random(f"{target} {number}")
    text = f"{number} {draw.randbytes(draw.choice((5, 40, 400, 3000))).hex()}"
    return f"{text} {zlib.crc32(text.encode()):08x}\n"


class Client(threading.Thread):
    """One client. A subclass says what it does in `step`."""

    workload = ""

    def __init__(self, clients: Clients, number: int) -> None:
        super().__init__(daemon=True)
        self.clients, self.number = clients, number
        self.draw = random.Random(f"{clients.seed} {self.workload} {number}")
        self._connection: socket.socket | None = None
        self._stream: Any = None
        self._rolled = 0

    def run(self) -> None:
        """Until it is stopped."""
        while not self.clients.stopped():
            self.step()
            time.sleep(PAUSE)
        self._hang_up()

    def step(self) -> None:
        """One operation."""
        raise NotImplementedError

    def target(self) -> str:
        """The present file or directory of this client, a new one after each doubt."""
        return f"{self.workload}/{self.number}.{self._rolled}"

    def ask(
        self, target: str, do: str, args: tuple[str, ...], durable: bool, request: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Send a request and write down what came of it; None when nobody knows."""
        entry: dict[str, Any] = {
            "workload": self.workload, "client": self.number, "target": target, "do": do, "args": args, "durable": durable,
        }  # fmt: skip
        answer = None
        try:
            stream = self._connected()
            entry["sent"] = time.time()
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            line = stream.readline()
            if not line.endswith(b"\n"):
                raise OSError("closed before the answer")
            answer = json.loads(line)
            entry["answered"] = time.time()
        except OSError as trouble:
            entry["note"] = str(trouble)
            self._hang_up()
        if "sent" not in entry:  # it never left
            time.sleep(0.05)
            return {"unsent": True}
        if answer is not None:
            entry |= {"node": answer["node"], "mirrored": answer["mirrored"], "value": answer.get("value")}
            entry |= {"error": answer.get("errno", 0), "note": answer.get("note", "")}
        self.clients.note(entry)
        return answer

    def roll(self) -> None:
        """Leave the present file or directory alone."""
        self._rolled += 1

    def _connected(self) -> Any:
        if self._connection is None:
            address = (self.clients.address, self.clients.port)
            self._connection = socket.create_connection(address, timeout=2)
            self._connection.settimeout(PATIENCE)
            self._stream = self._connection.makefile("rwb")
        return self._stream

    def _hang_up(self) -> None:
        if self._connection is not None:
            try:
                self._stream.close()
            except OSError:
                pass
            self._connection.close()
            self._connection = None

    def ensure_folder(self, path: str) -> bool:
        """Have a directory; whether the application says so."""
        try:
            stream = self._connected()
            stream.write(json.dumps({"do": "folder", "path": f"{self.clients.trial}/{path}"}).encode() + b"\n")
            stream.flush()
            return "errno" not in json.loads(stream.readline() or b'{"errno": 5}')
        except (OSError, ValueError):
            self._hang_up()
            time.sleep(0.05)
            return False


class Adder(Client):
    """Adds numbers to a set, none twice: as a line of a file, or as a file. Not synced."""

    workload = "set"

    def __init__(self, clients: Clients, number: int) -> None:
        super().__init__(clients, number)
        self._next = number * 1_000_000

    def step(self) -> None:
        self._next += 1
        if self.draw.random() < 0.7:
            target, text = self.target(), element(self._next)
            request = {"do": "append", "path": f"{self.clients.trial}/{target}", "text": text, "sync": False}
        else:
            target = f"set/files/{self._next}"
            request = {"do": "make", "path": f"{self.clients.trial}/{target}", "text": element(self._next)}
        answer = self.ask(target, "add", (str(self._next),), False, request)
        if answer is None or "errno" in answer:
            self.roll()


class Logger(Client):
    """Appends numbered records with checksums to a log, each synced."""

    workload = "log"

    def __init__(self, clients: Clients, number: int) -> None:
        super().__init__(clients, number)
        self._last = 0

    def step(self) -> None:
        target, number = self.target(), self._last + 1
        text = record(target, number)
        request = {"do": "append", "path": f"{self.clients.trial}/{target}", "text": text, "sync": True}
        answer = self.ask(target, "append", (str(number),), True, request)
        if answer is None or "errno" in answer:
            self.roll()
            self._last = 0
        elif "unsent" not in answer:
            self._last = number


class Register(Client):
    """Reads and writes small files that others read and write as well: replaced whole, or overwritten in place."""

    workload = "register"

    def __init__(self, clients: Clients, number: int) -> None:
        super().__init__(clients, number)
        self._written = 0

    def step(self) -> None:
        kind = self.draw.choice(REGISTERS)
        target = f"register/{kind}"
        path = f"{self.clients.trial}/{target}"
        if self.draw.random() < 0.5:
            self.ask(target, "get", (), False, {"do": "get", "path": path})
            return
        self._written += 1
        value = f"{self.number}.{self._written}".ljust(
            16, "."
        )  # of one length, so that one never shows through another
        do, _, durable = kind.partition("-")
        request = {"do": do, "path": path, "text": value, "sync": bool(durable)}
        self.ask(target, "set", (value,), bool(durable), request)


class Namer(Client):
    """Makes, moves and removes names in a directory of its own."""

    workload = "names"
    FEW = ("a", "b", "c", "d/a", "d/b", "d", "e", "e/a", "e/d", "e/d/a")

    def __init__(self, clients: Clients, number: int) -> None:
        super().__init__(clients, number)
        self._made = ""

    def step(self) -> None:
        target = self.target()
        if self._made != target:
            if not self.ensure_folder(target):
                self.roll()
                return
            self._made = target
        do = self.draw.choice(
            ("mkdir", "create", "create", "symlink", "unlink", "rmdir", "link", "rename", "rename", "sync")
        )
        if do == "sync" and self.draw.random() < 0.7:
            do = "create"
        count = {"sync": 0, "link": 2, "rename": 2}.get(do, 1)
        args = tuple(self.draw.choice(self.FEW) for _ in range(count))
        request = {"do": "name", "path": f"{self.clients.trial}/{target}", "name": do, "args": args}
        answer = self.ask(target, do, args, do == "sync", request)
        if answer is None or answer.get("errno", 0) not in (0, *ANSWERS_ABOUT_NAMES):
            self.roll()


class Shaper(Client):
    """Changes what files are: holes, owners, modes, attributes, times, links. Only the trees say whether that was kept."""

    workload = "shapes"

    def step(self) -> None:
        request = {"do": "shape", "path": f"{self.clients.trial}/shapes", "seed": self.draw.randrange(1 << 40)}
        self.ask("shapes", "shape", (), False, request)


class Clients:
    """All of them, and their journal."""

    def __init__(self, address: str, port: int, folder: str, trial: str, seed: str) -> None:
        self.address, self.port, self.trial, self.seed = address, port, trial, seed
        self._stop = f"{folder}/stop"
        self._journal: TextIO = open(f"{folder}/journal", "a", buffering=1)  # noqa: SIM115 (open as long as they live)
        self._lock = threading.Lock()

    def note(self, entry: dict[str, Any]) -> None:
        """One line of the journal."""
        with self._lock:
            self._journal.write(json.dumps(entry) + "\n")

    def stopped(self) -> bool:
        """Whether it is time to end."""
        return os.path.exists(self._stop)

    def run(self) -> None:
        """Have the directories, then work until the end."""
        first = Client(self, 0)
        folders = ("set/files", "log", "register", "names", "shapes")
        for folder in folders:
            while not first.ensure_folder(folder) and not self.stopped():
                time.sleep(0.2)
        kinds = (Adder, Adder, Logger, Logger, Register, Register, Register, Namer, Namer, Shaper)
        working = [kind(self, number) for number, kind in enumerate(kinds, 1)]
        for client in working:
            client.start()
        for client in working:
            client.join()


if __name__ == "__main__":
    Clients(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]).run()
