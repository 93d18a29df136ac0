"""One sequence of requests, made of the mount and of a plain directory at once, with everything that must be equal afterwards."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from tests.model.application import Application
from tests.model.ground import Ground, Trees
from tests.model.snapshot import differences, snapshot, without_holes, without_now

Request = tuple[str, dict[str, Any]]
_CREATE = os.O_RDWR | os.O_CREAT
PREPARED: tuple[Request, ...] = (
    ("make_folder", {"path": b"d", "mode": 0o777, "umask": 0}),
    ("make_folder", {"path": b"e", "mode": 0o755}),
    ("make_folder", {"path": b"e/f", "mode": 0o755}),
    ("write_file", {"path": b"a", "flags": os.O_CREAT, "mode": 0o666, "umask": 0, "seed": 1, "size": 10_000}),
    ("write_file", {"path": b"b", "flags": os.O_CREAT, "mode": 0o600, "seed": 2, "size": 200_000, "user": 1}),
    ("write_file", {"path": b"e/f/c", "flags": os.O_CREAT, "mode": 0o644, "seed": 3, "size": 100}),
    ("make_symlink", {"path": b"link", "text": b"a"}),
    ("make_special", {"path": b"fifo", "mode": stat.S_IFIFO | 0o644, "device": 0}),
    ("open", {"slot": 0, "path": b"a", "flags": os.O_RDWR}),
    ("open", {"slot": 1, "path": b"d/a", "flags": _CREATE, "mode": 0o666, "umask": 0}),
)
"""What every sequence begins with."""
FAULTS = ("lose_secondary", "rejoin", "swap", "take_over", "kill_worker")


class Difference(AssertionError):
    """What was not equal, after which requests."""

    def __init__(self, what: str, requests: list[Request]) -> None:
        lines = "".join(f"    {request!r},\n" for request in requests)
        self.what = what
        self.requests = list(requests)
        super().__init__(f"{what}\nafter these requests, as a case of tests/model/cases.py:\n[\n{lines}]")


class Trial:
    """Runs on a ground; `do` each request, then `finish` once."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.requests: list[Request] = []
        self.trees = ground.begin()
        self.name = self.trees.mount.name
        self.resynchronised = False
        self._open()
        for request, arguments in PREPARED:
            self.do(request, **arguments)
        self.requests.clear()

    def _open(self) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY
        self.mount = Application(os.open(self.trees.mount, flags))
        self.plain = Application(os.open(self.trees.plain, flags))

    def do(self, request: str, **arguments: Any) -> None:
        """One request of both. Raises Difference."""
        self.requests.append((request, arguments))
        expected = self.plain.ask(request, **arguments)
        given = self.mount.ask(request, **arguments)
        if given != expected:
            raise self._failed(f"{request} gave {_short(given)}, a plain directory gives {_short(expected)}")

    def fault(self, fault: str, **arguments: Any) -> None:
        """Something happens to the pair. What needs every file closed closes them."""
        self.requests.append((fault, arguments))
        closes = fault in ("swap", "take_over")
        if closes:
            self._close()
        if fault in ("rejoin", "kill_worker"):
            self.resynchronised = True
        try:
            getattr(self.ground, fault)(**arguments)
        except Exception as error:
            raise self._failed(f"{fault}: {error!r}") from error
        if closes:
            self.resynchronised = True
            self.trees = self.ground.trees(self.name)
            self._open()

    def finish(self) -> None:
        """Every file is closed and every tree compared, then all is removed. Raises Difference."""
        self._close()
        if not self.ground.mirrored():
            raise self._failed(f"the secondary was lost: {self.ground.primary.events[-3:]}")
        self._compare(self.trees)
        self.ground.end(self.trees)

    def _close(self) -> None:
        self.mount.close_all()
        self.plain.close_all()

    def _compare(self, trees: Trees) -> None:
        plain, primary, secondary = snapshot(trees.plain), snapshot(trees.primary), snapshot(trees.secondary)
        if self.resynchronised:  # a resync may make holes of zeros
            plain, primary, secondary = without_holes(plain), without_holes(primary), without_holes(secondary)
        found = differences(primary, secondary)
        if found:
            raise self._failed("the copies differ (primary, secondary):\n" + "\n".join(found))
        found = differences(without_now(primary), without_now(plain))
        if found:  # under load ext4 was seen to show blocks where the plain file has a hole, once
            subprocess.run(["sync", "--file-system", self.trees.plain], check=True)
            plain = snapshot(trees.plain)
            plain = without_holes(plain) if self.resynchronised else plain
            found = differences(without_now(primary), without_now(plain))
        if found:
            raise self._failed("the copy differs from a plain directory (copy, plain):\n" + "\n".join(found))
        found = differences(without_holes(snapshot(trees.mount)), without_holes(primary))
        if found:
            raise self._failed("the mount shows something else than its copy (mount, copy):\n" + "\n".join(found))

    def _failed(self, what: str) -> Difference:
        self.mount.close_all()
        self.plain.close_all()
        self.ground.doubted = self.trees
        return Difference(what, self.requests)


def run(ground: Ground, requests: Sequence[Request]) -> None:
    """A whole sequence, requests and faults. Raises Difference."""
    trial = Trial(ground)
    for request, arguments in requests:
        if request in FAULTS:
            trial.fault(request, **arguments)
        else:
            trial.do(request, **arguments)
    trial.finish()


def shrunk(ground: Ground, found: Difference, seconds: float) -> Difference:
    """The same trouble with as few requests as can be found in that time. What happened to the pair stays as it was."""
    limit = time.monotonic() + seconds
    kind = found.what.split(" ")[:3]
    size = len(found.requests) // 2
    while size:
        at = 0
        while at < len(found.requests) and time.monotonic() < limit:
            cut = [request for request in found.requests[at : at + size] if request[0] in FAULTS]
            fewer = found.requests[:at] + cut + found.requests[at + size :]
            try:
                if len(fewer) < len(found.requests):
                    run(ground, fewer)
            except Difference as other:
                if other.what.split(" ")[:3] == kind:
                    found = other
                    continue
            at += size
        size //= 2
    return found


def _short(outcome: tuple[str, object]) -> str:
    kind, value = outcome
    text = repr(value)
    return f"{kind} {text if len(text) < 200 else text[:200] + f'... ({len(text)} characters)'}"
