"""A mirror whose nodes a witness decides between: cut from each other, exactly one serves; without the witness nobody
goes on alone, and the state says so.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.arbiter import declare_witness, forget_witness
from tests.nodes import Lab, Node, wait_for
from tests.system.product import messages, shown, state
from tests.system.replicated import FOLDER, NAME, Replicated


@pytest.fixture
def pair(cluster: Lab) -> Iterator[Replicated]:
    """Module `r` on n1 and n2, PRIM and SECOND, and n3 is their witness; afterwards there is no witness."""
    n3 = cluster["n3"]
    declare_witness(cluster, n3)
    pair = Replicated(cluster)
    pair.install()
    pair.ready()
    yield pair
    n3.run("systemctl start safekitd")
    cluster.heal()
    pair.uninstall()
    forget_witness(cluster, n3)


def outlook(node: Node) -> str:
    """Whether an automatic failover is possible now, in words."""
    return str(state(node, NAME)["automatic_failover"])


def one_serves(pair: Replicated) -> bool:
    """Whether one node is ALONE and the other waits or is stopped."""
    return sorted(shown(node, NAME).split()[0] for node in pair.nodes) == ["ALONE", "WAIT"]


def together(pair: Replicated) -> bool:
    """Whether one node is PRIM and the other SECOND."""
    return sorted(shown(node, NAME) for node in pair.nodes) == ["PRIM Ready", "SECOND Ready"]


@pytest.mark.timeout(600)
def test_of_two_nodes_that_a_witness_hears_exactly_one_serves_and_without_it_none_goes_on_alone(
    pair: Replicated,
) -> None:
    first, _ = pair.nodes
    wait_for(
        "a failover is possible", lambda: outlook(first).startswith("ready: n2 takes over; the witness"), timeout=60
    )
    first.run(f"echo one >{FOLDER}/a")
    pair.lab.cut("n1", "n2")
    wait_for("one of them serves", lambda: one_serves(pair), timeout=60)
    serving = next(node for node in pair.nodes if shown(node, NAME).startswith("ALONE"))
    assert serving.out(f"cat {FOLDER}/a") == "one"
    pair.lab.heal()
    wait_for("they are a pair again", lambda: together(pair), timeout=90)

    primary = min(pair.nodes, key=lambda node: shown(node, NAME))
    wait_for("a failover is possible again", lambda: outlook(primary).startswith("ready"), timeout=60)
    pair.lab["n3"].run("systemctl stop safekitd")
    wait_for("it says that it is not", lambda: "the witness is silent since" in outlook(primary), timeout=40)
    assert together(pair)
    pair.lab.cut("n1", "n2")
    waiting = primary.start(f"echo two >{FOLDER}/b && sync {FOLDER}/b")
    wait_for("the primary, whom nobody hears, gives up", lambda: shown(primary, NAME).startswith("WAIT"), timeout=60)
    assert "the lease of this node ran out" in "".join(messages(primary, NAME))
    wait_for("both ask in vain", lambda: all(outlook(n).startswith("not possible") for n in pair.nodes), timeout=60)
    assert not {"ALONE", "PRIM"} & {shown(node, NAME).split()[0] for node in pair.nodes}
    pair.lab["n3"].run("systemctl start safekitd")
    wait_for("one of them serves", lambda: one_serves(pair), timeout=60)
    pair.lab.heal()
    wait_for("they are a pair again", lambda: together(pair), timeout=90)
    waiting.wait(60, check=False)
