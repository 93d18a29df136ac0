"""How long an application's write waits when the secondary is lost, in each way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.durability.nemesis import KILLS, Nemesis, cut_stream
from tests.durability.pair import FOLDER, NAME, ON_NODE, Pair, settled
from tests.nodes import Node, wait_for
from tests.system.product import mark, messages, safekit

LIMIT_S = {
    "power cut": 2.5,
    "cut off": 2.5,
    "stream cut off": 2.5,
    "data plane killed": 2.5,
    "its worker killed": 2.5,
    "stopped in order": 0.25,
}
"""The longest that a write may wait. Stopped in order is no stall: what is allowed there is the breath of a loaded machine."""


def measure(pair: Pair, repetitions: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The stalls of each way to lose the secondary, in seconds: every one, the p99 and the limit."""
    ways: dict[str, Callable[[Node, Node], None]] = {
        "power cut": lambda _primary, secondary: secondary.power_cut(),
        "cut off": lambda primary, secondary: pair.lab.cut(primary.name, secondary.name),
        "stream cut off": lambda _primary, secondary: cut_stream(secondary),
        "data plane killed": lambda _primary, secondary: _kill(secondary, "rfs"),
        "its worker killed": lambda _primary, secondary: _kill(secondary, "rfs-worker"),
        "stopped in order": lambda _primary, secondary: _stop(secondary),
    }
    report: dict[str, Any] = {}
    for way, lose in ways.items():
        stalls, errors = [], 0
        for number in range(repetitions):
            seen = _once(pair, lose)
            stalls.append(round(seen["longest_s"], 4))
            errors += seen["errors"]
            say(
                f"{way} {number + 1}: longest write {seen['longest_s']:.3f} s of {seen['writes']}, {seen['errors']} errors"
            )
        worst = sorted(stalls)[min(len(stalls) - 1, int(len(stalls) * 0.99))]
        met = worst <= LIMIT_S[way] and not errors
        report[way] = {"stalls_s": stalls, "p99_s": worst, "limit_s": LIMIT_S[way], "errors": errors, "met": met}
    return report


def _kill(node: Node, what: str) -> None:
    node.run(KILLS[what])


def _stop(node: Node) -> None:
    safekit(node, f"stop -m {NAME}")


def _once(pair: Pair, lose: Callable[[Node, Node], None]) -> dict[str, Any]:
    primary, secondary = pair.roles()
    stop = "/run/durability-stop"
    primary.run(["rm", "-f", stop])
    writing = primary.start(["python3", f"{ON_NODE}/writer", f"{FOLDER}/stall", stop])
    time.sleep(1)
    before = mark(primary, NAME)
    lose(primary, secondary)

    def was_alone() -> bool:  # perhaps only for a moment: a data plane that was killed is there again at once
        return any("Local state ALONE Ready" in said for said in messages(primary, NAME, before))

    wait_for("the primary went alone", was_alone, timeout=30)
    time.sleep(0.5)
    primary.run(["touch", stop])
    seen: dict[str, Any] = json.loads(writing.wait(30).out)
    Nemesis(pair, lambda _what: None).clear()
    settled(pair, two_histories=True)
    return seen
