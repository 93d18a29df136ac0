"""A primary that nobody hears any more gives its address up by itself before the other node serves, whether it was cut off or stood
still; what it acknowledged is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.faults.cuts import arbitrated, exactly_one, ready
from tests.nodes import Lab, Node, wait_for
from tests.system.mirror import NAME, Mirror
from tests.system.product import entries, messages, shown

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 90.0


@pytest.fixture
def mirror(cluster: Lab) -> Iterator[Mirror]:
    """PRIM and SECOND, written to from a third machine; n3 is their witness, and would grant a failover."""
    with arbitrated(cluster) as mirror:
        wait_for("the pair is whole, and the witness ready", lambda: ready(mirror), timeout=PATIENCE_S)
        mirror.forget_calls()
        mirror.writer.start()
        yield mirror


GAVE_UP = "the lease of this node ran out"


def gave_up(node: Node) -> bool:
    """Whether its log says that its lease ran out."""
    return any(GAVE_UP in message for message in messages(node, NAME))


def gave_up_at(node: Node) -> float:
    """When its log said so, in seconds since the epoch."""
    dates = [entry["date"] for entry in entries(node, NAME) if GAVE_UP in str(entry["message"])]
    return datetime.fromisoformat(dates[0]).timestamp()


def began(mirror: Mirror, node: Node, script: str) -> float:
    """When this script was first called there."""
    return next(date for date, name in mirror.calls(node) if name == script)


def whole_again(mirror: Mirror) -> None:
    """They are a pair again; the writer goes on; nothing that was acknowledged is missing."""
    wait_for("both are a pair again", mirror.are_ready, timeout=PATIENCE_S)
    mirror.writer.await_promise(timeout=PATIENCE_S)
    written = mirror.writer.stop()
    for node in mirror.nodes:
        mirror.assert_kept(written.promised, node)


def test_a_primary_cut_off_from_everybody_has_no_address_any_more_before_the_other_starts(mirror: Mirror) -> None:
    primary, other = mirror.roles()
    mirror.lab.cut(primary.name)
    wait_for("the other serves", lambda: shown(other, NAME) == "ALONE Ready", timeout=PATIENCE_S)
    mirror.wait_gone(primary, timeout=PATIENCE_S)
    wait_for("it waits", lambda: shown(primary, NAME).startswith("WAIT"), timeout=PATIENCE_S)
    assert gave_up(primary), messages(primary, NAME)
    assert gave_up_at(primary) < began(mirror, other, "start_prim")
    assert began(mirror, primary, "stop_prim") < began(mirror, other, "start_prim")
    mirror.lab.heal()
    whole_again(mirror)


def test_a_primary_that_stood_still_gives_up_by_itself_when_it_goes_on_and_nobody_is_heard(mirror: Mirror) -> None:
    primary, other = mirror.roles()
    mirror.lab.cut(primary.name)
    primary.freeze()
    wait_for("the other serves", lambda: shown(other, NAME) == "ALONE Ready", timeout=PATIENCE_S)
    primary.thaw()
    mirror.wait_gone(primary, timeout=PATIENCE_S)
    wait_for("it waits", lambda: shown(primary, NAME).startswith("WAIT"), timeout=PATIENCE_S)
    assert gave_up(primary), messages(primary, NAME)
    assert exactly_one(mirror) is other
    mirror.lab.heal()
    whole_again(mirror)


def test_a_primary_alone_with_the_witness_goes_on(mirror: Mirror) -> None:
    primary, other = mirror.roles()
    other.power_cut()
    wait_for("it serves alone", lambda: shown(primary, NAME) == "ALONE Ready", timeout=PATIENCE_S)
    mirror.writer.await_promise(timeout=PATIENCE_S)
    assert not gave_up(primary), messages(primary, NAME)
    assert not any(name.startswith("stop_prim") for _, name in mirror.calls(primary))
    other.power_on()
    whole_again(mirror)
