"""A claim travels from the automaton to the client of the witness, and its answer back; only the answer to the one that
is out.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from safekit.automaton.mirror import Answered, Silent
from safekit.automaton.register import Ground, Verdict
from safekit.automaton.vocabulary import Ask
from safekit.module.claimant import Claimant
from safekit.witness.client import Seen, boottime

PAIR = ("n1", "n2")


class Client:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def watch(self, module: str, _listener: object, _lease: float) -> None:
        self.said.append(("watch", module))

    def forget(self, module: str) -> None:
        self.said.append(("forget", module))

    def claim(self, module: str, epoch: int, holders: frozenset[str], wanted: frozenset[str], ground: Ground) -> int:
        self.said.append(("claim", module, epoch, sorted(holders), sorted(wanted), ground))
        return 70 + len(self.said)

    def withdraw(self, module: str) -> None:
        self.said.append(("withdraw", module))


class Module:
    """What a claimant uses of a module."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.replica = None
        self.state = SimpleNamespace(asked=None, lease=0.0)
        self.around = SimpleNamespace(name="m", changed=lambda: None)
        self.log = SimpleNamespace(write=lambda *_line: None)
        self.resources: dict[str, str] = {}

    def put(self, event: object) -> None:
        self.heard.append(event)

    def set_resource(self, name: str, value: str, _by: str) -> bool:
        self.resources[name] = value
        return True


def claimant() -> tuple[Claimant, Module, Client]:
    module, client = Module(), Client()
    return Claimant(module, client), module, client  # type: ignore[arg-type]


def verdict(number: int) -> Verdict:
    return Verdict(True, 4, frozenset({"n1"}), "n1", "boot", number)


def test_a_claim_is_put_and_only_its_own_answer_is_told() -> None:
    asking, module, client = claimant()
    asked = Ask(1, 3, PAIR, ("n1",))
    module.state.asked = asked
    asyncio.run(asking.ask(asked))
    assert client.said == [("watch", "m"), ("claim", "m", 3, list(PAIR), ["n1"], Ground.HOLDER)]
    asking.verdict(verdict(71), boottime())
    assert module.heard == []
    asking.verdict(verdict(72), boottime())
    asking.verdict(verdict(72), boottime())
    assert module.heard == [Answered(1, True, 4, ("n1",))]


def test_what_was_withdrawn_while_the_disk_was_synced_is_not_put() -> None:
    asking, _module, client = claimant()
    asyncio.run(asking.ask(Ask(1, 3, PAIR, ("n1",))))
    assert client.said == []


def test_an_answer_after_a_withdrawal_counts_no_longer() -> None:
    asking, module, _client = claimant()
    module.state.asked = asked = Ask(1, 3, PAIR, ("n1",))
    asyncio.run(asking.ask(asked))
    asking.withdraw()
    asking.verdict(verdict(72), boottime())
    assert module.heard == []


def test_silence_is_told_in_words_and_ends_when_the_witness_is_seen() -> None:
    asking, module, _client = claimant()
    asking.watch()
    asking.unavailable("the witness w does not answer", boottime())
    assert isinstance(module.heard[0], Silent) and module.heard[0].since.endswith("(the witness w does not answer)")
    assert module.resources == {"state.witness": "down"} and asking.names is None
    asking.seen(Seen(4, frozenset(PAIR), boottime()))
    assert module.heard[1:] == [Silent("")] and asking.names == PAIR
    assert module.resources == {"state.witness": "up"}
    asking.forget()
    assert asking.names is None
