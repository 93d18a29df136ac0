"""M9, M10, M13, M17 to M19, M24: a mirror that loses power, networks, processes and keys."""

from __future__ import annotations

import pytest

from tests.acceptance.cases import case, explains
from tests.acceptance.pair import Pair
from tests.acceptance.second_lan import lose_production
from tests.faults.cuts import exactly_one, ready
from tests.nodes import CommandFailed, wait_for
from tests.system.mirror import FOLDER, NAME
from tests.system.product import mark, messages, safekit, shown, state, wait_state
from tests.system.replicated import NAME as R
from tests.system.replicated import Replicated


@case("M9")
def test_m9_power_cut_of_the_primary(pair: Pair) -> None:
    victim, survivor = pair.roles()
    assert [pair.value(survivor, f"heartbeat.{ident}") for ident in ("pair", "flow")] == ["up", "up"]
    pair.forget_calls()
    pair.writer.start()
    victim.power_cut()
    wait_state(survivor, NAME, "ALONE", timeout=30)
    assert [pair.value(survivor, f"heartbeat.{ident}") for ident in ("pair", "flow")] == ["down", "down"]
    assert pair.value(survivor, "state.remote") == "UNKNOWN"
    assert pair.names(survivor).count("start_prim") == 1
    explains(survivor, NAME, "ALONE Ready", f"no heartbeat from {victim.name}")
    pair.writer.await_promise()
    written = pair.writer.stop()
    victim.power_on()
    pair.wait_roles(survivor)
    pair.assert_same_trees()
    pair.assert_kept(written.promised, victim)


@pytest.mark.timeout(1200)
@case("M10", ours="only without a witness; with one exactly one node serves, and nothing is lost")
def test_m10_both_serve_after_a_cut_and_the_former_secondary_yields(pair: Pair) -> None:
    """Under the policy `none`, the reference's own; then ours, where there is nothing to recover from."""
    first, second = pair.roles()
    pair.forget_calls()
    pair.lab.cut("n1", "n2")
    wait_state(first, NAME, "ALONE")
    wait_state(second, NAME, "ALONE")
    explains(second, NAME, "ALONE Ready", f"no heartbeat from {first.name}")
    assert pair.names(second).count("start_prim") == 1
    second.run(f"echo lost >{FOLDER}/of-the-second")
    first.run(f"echo kept >{FOLDER}/of-the-first")
    seen = mark(second, NAME)
    pair.lab.heal()
    pair.wait_roles(first, timeout=90)
    assert pair.said(second, "Split brain recovery: exiting alone", seen)
    assert "stop_prim" in pair.names(second) and "stop_prim" not in pair.names(first)
    assert second.out(f"ls {FOLDER}/of-*") == f"{FOLDER}/of-the-first"
    pair.assert_same_trees()
    explains(second, NAME, "SECOND Ready")
    with pair.under_a_witness():
        _one_serves_under_a_witness(pair)


def _one_serves_under_a_witness(pair: Pair) -> None:
    wait_for("the witness would grant a failover", lambda: ready(pair), timeout=60)
    marks = {node: mark(node, NAME) for node in pair.nodes}
    pair.writer.start()
    pair.lab.cut("n1", "n2")
    serves = wait_for("exactly one serves", lambda: exactly_one(pair), timeout=60)
    assert serves is not None
    pair.writer.await_promise()
    assert exactly_one(pair) is serves
    explains(pair.peer(serves), NAME, "WAIT")
    pair.lab.heal()
    pair.wait_roles(serves, timeout=90)
    written = pair.writer.stop()
    for node in pair.nodes:
        assert not pair.said(node, "Split brain recovery", marks[node])
        pair.assert_kept(written.promised, node)


@case("M13", ours="a replication process that dies is taken over: no degraded node, both keep their roles")
def test_m13_a_killed_replication_process_costs_no_role_and_no_write(pair: Pair) -> None:
    primary, secondary = pair.roles()
    pair.forget_calls()
    pair.writer.start()
    seen = mark(primary, NAME)
    group = primary.out(["systemctl", "show", "--property=ControlGroup", "--value", f"safekit-rfs@{NAME}"])
    supervisor = primary.out(["systemctl", "show", "--property=MainPID", "--value", f"safekit-rfs@{NAME}"])
    primary.run(f'kill -9 $(grep -vx "{supervisor}" "/sys/fs/cgroup{group}/cgroup.procs")')
    pair.wait_said(primary, "was taken over by a new process", seen)
    pair.writer.await_promise()
    pair.wait_roles(primary)
    written = pair.writer.stop()
    assert written.trouble == ()
    assert "stop_prim" not in pair.names(primary) and "start_prim" not in pair.names(secondary)
    assert pair.value(primary, "rfs.degraded") == "down"
    pair.assert_kept(written.promised, primary)
    pair.assert_kept(written.promised, secondary)


@case("M17")
def test_m17_after_a_general_power_loss_the_first_one_back_waits(pair: Pair, replicated: Replicated) -> None:
    """Module `r` has `syncdelta`: its first node back may serve alone."""
    first, second = pair.nodes
    if pair.roles()[0] is not first:
        safekit(first, f"swap -m {NAME}")
        pair.wait_roles(first)
    replicated.install('syncdelta="10m"')
    first.run("echo kept >/data/r/file")
    replicated.ready()
    first.power_cut()
    second.power_cut()
    first.power_on()
    wait_state(first, NAME, "WAIT", substate="NotReady")
    safekit(first, f"start -m {R}")
    wait_state(first, R, "ALONE", timeout=60)
    assert replicated.said(first, "rule rfs_forceuptodate")
    assert shown(first, NAME) == "WAIT NotReady"
    second.power_on()
    pair.wait_roles(first)
    pair.assert_same_trees()
    safekit(second, f"start -m {R}")
    wait_state(second, R, "SECOND", timeout=60)
    wait_state(first, R, "PRIM", timeout=60)
    replicated.stop(second)
    assert second.out("cat /data/r/file") == "kept"


@case("M18")
def test_m18_only_who_sees_the_witness_serves(bare_pair: Pair) -> None:
    witness = bare_pair.lab.client
    checker = f'<check><splitbrain ident="witness" exec="ping" arg="{witness.address}"/></check>'
    pair = bare_pair.become(parts=checker, feature="<splitbrain>")
    primary, secondary = pair.roles()
    pair.lab.cut(secondary.name)
    wait_state(primary, NAME, "ALONE")
    wait_state(secondary, NAME, "WAIT", substate="NotReady")
    explains(secondary, NAME, "WAIT NotReady", "splitbrain")
    explains(primary, NAME, "ALONE Ready", f"no heartbeat from {secondary.name}")
    pair.lab.heal()
    pair.wait_roles(primary)

    pair.lab.cut(primary.name)
    wait_state(secondary, NAME, "ALONE")
    wait_state(primary, NAME, "WAIT", substate="NotReady")
    pair.lab.heal()
    pair.wait_roles(secondary)

    pair.lab.cut(primary.name)
    pair.lab.cut(secondary.name)
    for node in pair.nodes:
        wait_state(node, NAME, "WAIT", substate="NotReady")
        assert not pair.has_address(node)
        explains(node, NAME, "WAIT NotReady", "splitbrain")


@case("M19")
def test_m19_loss_of_the_production_lan_alone_moves_no_role(pair: Pair) -> None:
    primary, secondary = pair.roles()
    pair.writer.start()
    marks = {node: mark(node, NAME) for node in pair.nodes}
    lose_production(primary, secondary)
    for node in pair.nodes:
        wait_for("its heartbeat is lost", lambda node=node: pair.value(node, "heartbeat.pair") == "down", timeout=30)  # type: ignore[misc]
        assert pair.value(node, "heartbeat.flow") == "up"
    pair.writer.await_promise()
    assert pair.are_ready()
    pair.mend_lan()
    for node in pair.nodes:
        wait_for("it is back", lambda node=node: pair.value(node, "heartbeat.pair") == "up", timeout=30)  # type: ignore[misc]
        assert pair.states(node, marks[node]) == []
    written = pair.writer.stop()
    assert written.trouble == ()
    pair.assert_kept(written.promised, secondary)


@case("M24", ours="the key is the cluster's: modules have none of their own")
def test_m24_nodes_with_different_keys_ignore_each_other(pair: Pair) -> None:
    first, second = pair.roles()
    pair.stop(second, first)
    for node in pair.nodes:
        _wait_nothing_runs(pair, node.name)
    first.run("safekit cluster package /tmp/right.zip")
    right = first.out("base64 -w0 /tmp/right.zip; rm /tmp/right.zip")
    marks = {node: mark(node, NAME) for node in pair.nodes}
    safekit(second, "cluster genkey")
    try:
        for node in pair.nodes:
            safekit(node, f"start -m {NAME}")
        wait_state(first, NAME, "ALONE")
        wait_state(second, NAME, "WAIT", substate="NotReady")
        for node in pair.nodes:
            said = messages(node, NAME, marks[node])
            assert any("are refused: key" in message for message in said), said
        assert state(first, NAME)["remote_state"] in (None, "UNKNOWN")
    finally:
        pair.stop(second)
        second.run("base64 -d >/tmp/right.zip", input=right.encode())
        safekit(second, "cluster config /tmp/right.zip")
        second.run("rm /tmp/right.zip")
    safekit(second, f"start -m {NAME}")
    pair.wait_roles(first)


def _wait_nothing_runs(pair: Pair, name: str) -> None:
    """No module runs on the node: only then the cluster's key may change."""

    def quiet() -> bool:
        try:
            out = safekit(pair.lab[name], "module list").out.split()
            return all(state(pair.lab[name], module)["state"] in ("STOP", "NOT_CONFIGURED") for module in out)
        except CommandFailed:
            return False

    wait_for(f"nothing runs on {name}", quiet, timeout=30)
