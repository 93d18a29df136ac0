"""The daemons die, hang or are upgraded; applications and their clients do not notice."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.nodes import Node, wait_for
from tests.system.clients import refused
from tests.system.farm import NAME as FARM
from tests.system.farm import Farm
from tests.system.mirror import NAME, Mirror
from tests.system.modules import NOTES
from tests.system.product import entries, kill_and_await, mark, messages, safekit, shown, state, wait_state

KILLS = 10


def _told_states(node: Node, module: str, after: int) -> list[str]:
    return [said for said in messages(node, module, after) if said.startswith("Local state")]


@pytest.mark.parametrize("role", ["primary", "secondary"])
def test_ten_kills_of_safekitd_disturb_nobody(mirror: Mirror, role: str) -> None:
    primary, secondary = mirror.roles()
    victim = primary if role == "primary" else secondary
    marks = {node: mark(node, NAME) for node in mirror.nodes}
    since = {node: state(node, NAME)["since"] for node in mirror.nodes}
    mirror.forget_calls()
    mirror.writer.start()
    for _ in range(KILLS):
        kill_and_await(victim, "safekitd")
        mirror.writer.await_promise(1)
    wait_state(victim, NAME, "PRIM" if role == "primary" else "SECOND")
    written = mirror.writer.stop()
    assert written.trouble == ()
    for node in mirror.nodes:
        assert _told_states(node, NAME, marks[node]) == []
        assert mirror.calls(node) == []
        assert state(node, NAME)["since"] == since[node]
        mirror.assert_kept(written.promised, node)
    assert (shown(primary, NAME), shown(secondary, NAME)) == ("PRIM Ready", "SECOND Ready")
    # The daemon that came back decides again: a swap goes through.
    safekit(victim, f"swap -m {NAME}")
    mirror.wait_roles(secondary)


@pytest.mark.parametrize("unit", ["safekitd", "safekit-pulse"])
def test_restart_of_a_daemon_changes_no_state(mirror: Mirror, unit: str) -> None:
    primary, secondary = mirror.roles()
    marks = {node: mark(node, NAME) for node in mirror.nodes}
    mirror.writer.start()
    for node in mirror.nodes:
        node.run(["systemctl", "restart", unit])
        mirror.writer.await_promise(1)
    written = mirror.writer.stop()
    assert written.trouble == ()
    assert (shown(primary, NAME), shown(secondary, NAME)) == ("PRIM Ready", "SECOND Ready")
    assert {node.name: _told_states(node, NAME, marks[node]) for node in mirror.nodes} == {"n1": [], "n2": []}


def test_ten_kills_of_the_pulse_are_no_failover(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    marks = {node: mark(node, NAME) for node in mirror.nodes}
    mirror.writer.start()
    for number in range(KILLS):
        kill_and_await(mirror.nodes[number % 2], "safekit-pulse")
    mirror.writer.await_promise()
    written = mirror.writer.stop()
    assert written.trouble == ()
    assert (shown(primary, NAME), shown(secondary, NAME)) == ("PRIM Ready", "SECOND Ready")
    assert {node.name: _told_states(node, NAME, marks[node]) for node in mirror.nodes} == {"n1": [], "n2": []}


def test_kill_of_safekitd_within_a_script_runs_it_once_and_goes_on(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    primary.run(f"touch {NOTES}/hold-start_prim")
    mirror.forget_calls()
    safekit(primary, f"restart -m {NAME}")
    wait_for("start_prim runs", lambda: "start_prim" in [name for _, name in mirror.calls(primary)])
    kill_and_await(primary, "safekitd")
    kill_and_await(primary, "safekitd")
    assert shown(primary, NAME) == "PRIM Transient"
    primary.run(f"rm {NOTES}/hold-start_prim")
    wait_state(primary, NAME, "PRIM")
    assert [name for _, name in mirror.calls(primary)].count("start_prim") == 1
    assert primary.succeeds(["systemctl", "is-active", "--quiet", f"ledger-{NAME}"])
    assert shown(secondary, NAME) == "SECOND Ready"


def test_ten_kills_of_safekitd_in_a_farm_refuse_nobody(farm: Farm) -> None:
    victim = farm.nodes[0]
    before = farm.visitors.once()
    seen = mark(victim, FARM)
    running = farm.visitors.start()
    for _ in range(KILLS):
        kill_and_await(victim, "safekitd")
    wait_state(victim, FARM, "UP")
    rounds = farm.visitors.stop(running)
    assert rounds
    assert refused(rounds) == []
    assert (
        Counter((before[who], there) for answers in rounds for who, there in answers.items() if there != before[who])
        == {}
    )
    assert _told_states(victim, FARM, seen) == []
    assert entries(victim, FARM)


def test_a_daemon_that_was_away_reports_the_state_that_it_finds(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    primary.run(["systemctl", "stop", "safekitd"])
    read = safekit(primary, f"state -m {NAME}", check=False)
    assert read.code == 12
    assert "safekitd is not running on this node" in read.err
    assert "systemctl start safekitd" in read.err
    mirror.writer.start()
    secondary.power_cut()
    wait_for("the secondary is off", lambda: not secondary.is_on())
    primary.run(["systemctl", "start", "safekitd"])
    wait_state(primary, NAME, "ALONE")
    mirror.writer.await_promise()
    written = mirror.writer.stop()
    secondary.power_on()
    mirror.wait_roles(primary)
    for node in mirror.nodes:
        mirror.assert_kept(written.promised, node)
