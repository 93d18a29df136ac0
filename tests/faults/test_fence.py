"""A mirror under `quorum="fence"`: the program of the module asks the lab to cut the power of the other node. Without its
proof nobody serves what the other may have.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.nodes import Lab, Node, wait_for
from tests.system.product import package, safekit, shown, state, wait_state, why
from tests.system.replicated import FOLDER, NAME, Replicated, replicated_module

ASKED, ANSWER = "/run/fence.asked", "/run/fence.answer"
PROGRAM = f"""#!/bin/sh
rm -f {ANSWER}
echo "$SAFEPEER $SAFEPEERADDR" >{ASKED}
for _ in $(seq 400); do
  [ -s {ANSWER} ] && exit "$(cat {ANSWER})"
  sleep 0.1
done
exit 9
"""


@pytest.fixture
def pair(cluster: Lab) -> Iterator[Replicated]:
    """Module `r` on n1 and n2, PRIM and SECOND, with a fence whose switch is this test."""
    pair = Replicated(cluster)
    pair.install(service='quorum="fence"', programs={"fence": PROGRAM})
    pair.ready()
    yield pair
    cluster.heal()
    pair.uninstall()


def outlook(node: Node) -> str:
    """Whether an automatic failover is possible now, in words."""
    return str(state(node, NAME)["automatic_failover"])


def asks_for(node: Node, other: Node) -> None:
    """The program runs on this node, and asks for the power of the other."""
    wait_for(f"{node.name} fences", lambda: node.succeeds(["test", "-s", ASKED]), timeout=60)
    assert node.out(f"cat {ASKED}; rm {ASKED}").split() == [other.name, other.address]


def together(pair: Replicated) -> bool:
    """Whether one node is PRIM and the other SECOND."""
    return sorted(shown(node, NAME) for node in pair.nodes) == ["PRIM Ready", "SECOND Ready"]


def test_without_its_program_nothing_is_configured(cluster: Lab) -> None:
    node = cluster["n1"]
    node.write("/tmp/r.safe", package(replicated_module("", service='quorum="fence"')))
    safekit(node, f"module install -m {NAME} /tmp/r.safe -M 5 -r")
    refused = safekit(node, f"config -m {NAME}", check=False)
    assert not refused.ok and "/opt/safekit/modules/r/bin/fence is not there, or not executable" in refused.err, refused
    safekit(node, f"module uninstall -m {NAME}")


@pytest.mark.timeout(600)
def test_a_node_serves_alone_only_once_the_other_is_proven_off(pair: Replicated) -> None:
    first, second = pair.nodes
    assert outlook(first) == "ready: n2 takes over once it has fenced this node; no split brain"
    assert outlook(second) == "ready: this node takes over once it has fenced n1; no split brain"
    first.run(f"echo one >{FOLDER}/a")

    pair.lab.cut("n1", "n2")
    held = first.start(f"echo two >{FOLDER}/b && sync {FOLDER}/b")
    asks_for(first, second)
    first.write(ANSWER, "3\n")
    asks_for(second, first)
    second.write(ANSWER, "3\n")
    pair.waits_for(second, "rule fence_failed")
    assert "fencing of n1 failed: exit code 3" in why(second, NAME)
    wait_for("the primary holds its writes", lambda: "(blocked)" in outlook(first), timeout=60)
    assert "fencing of n2 failed: exit code 3" in outlook(first)
    assert held.alive and shown(first, NAME) == "PRIM Ready"

    pair.lab.heal()
    wait_for("they are a pair again", lambda: together(pair), timeout=90)
    assert held.wait(60).ok
    assert second.out(f"cat {FOLDER}/b") == "two"

    for node in pair.nodes:
        node.run(f"rm -f {ASKED}")
    pair.lab.cut("n1", "n2")
    asks_for(second, first)
    assert shown(second, NAME) == "SECOND Transient"
    first.power_cut()
    second.write(ANSWER, "0\n")
    wait_state(second, NAME, "ALONE")
    assert second.out(f"cat {FOLDER}/a {FOLDER}/b") == "one\ntwo"
    assert pair.said(second, "n1 is off, says bin/fence")

    second.run(f"echo three >{FOLDER}/c && sync {FOLDER}/c")
    first.power_on()
    pair.lab.heal()
    safekit(first, f"start -m {NAME}")
    wait_state(first, NAME, "SECOND", timeout=90)
    assert shown(second, NAME) == "PRIM Ready"
    assert first.out(f"cat {FOLDER}/c") == "three"
