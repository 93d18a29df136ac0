"""One operation as its client saw it. The clients keep this journal on their own machine, beside the nodes that fail. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Operation:
    """What a client asked of the application, and what it heard.

    workload: set | log | register | names | shapes. `target`: the file, register or directory (below the trial's own
    directory); `do` and `args`: what was asked. `sent` and `answered` in seconds of one clock; `answered` is None when no answer
    came: then nobody knows whether it happened. `error`: an errno, which is an answer too. `mirrored`: the node's own
    record said, after the operation and before the answer, that both nodes hold the data. `durable`: the application
    had it synced before it answered.
    """

    workload: str
    client: int
    target: str
    do: str
    args: tuple[str, ...]
    sent: float
    answered: float | None = None
    value: str | None = None
    error: int = 0
    node: str = ""
    mirrored: bool = False
    durable: bool = False
    note: str = ""

    @property
    def acknowledged(self) -> bool:
        """Whether the client was told that it is done."""
        return self.answered is not None and not self.error


_NAMES = frozenset(field.name for field in fields(Operation))


def read_journal(lines: Iterable[str]) -> tuple[Operation, ...]:
    """The operations of a journal, in the order in which they were sent."""
    found = [_operation(json.loads(line)) for line in lines if line.strip()]
    return tuple(sorted(found, key=lambda operation: operation.sent))


def _operation(entry: dict[str, Any]) -> Operation:
    entry["args"] = tuple(entry["args"])
    return Operation(**{name: value for name, value in entry.items() if name in _NAMES})
