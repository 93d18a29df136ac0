"""A mirror on two nodes: first start, start and stop, changes of role, and what its data are at each moment."""

from __future__ import annotations

import time

from tests.nodes import wait_for
from tests.system.mirror import FOLDER, NAME, Mirror
from tests.system.modules import NOTES
from tests.system.product import mark, messages, safekit, shown, state, wait_state
from tests.system.trees import content, fill


def test_first_start_waits_for_a_person_then_copies_the_chosen_data_bit_for_bit(mirror: Mirror) -> None:
    first, second = mirror.nodes
    mirror.uninstall()
    mirror.install()
    fill(first, FOLDER, "kept")
    fill(second, FOLDER, "overwritten")
    for node in mirror.nodes:
        safekit(node, f"start -m {NAME}")
    for node in mirror.nodes:
        wait_state(node, NAME, "WAIT", substate="NotReady")
        read = safekit(node, f"state -m {NAME}").out
        assert "never synchronised" in read
        assert "safekit prim" in read
        assert not node.succeeds(f"ip -o addr show | grep -q ' {mirror.address}/'")
    assert all("start_prim" not in name for node in mirror.nodes for _, name in mirror.calls(node))
    for node in mirror.nodes:
        safekit(node, f"stop -m {NAME}")
        wait_state(node, NAME, "STOP", substate="NotReady")
    mirror.first_start(first)
    assert any("'kept/" in line for line in content(first, FOLDER))
    assert not any("overwritten" in line for line in content(second, FOLDER))
    mirror.assert_same_trees()
    fill(first, FOLDER, "written while both are Ready")
    mirror.assert_same_trees()
    assert state(second, NAME)["detail"] == "uptodate"


def test_secondary_refuses_writes_in_the_replicated_directory(mirror: Mirror) -> None:
    _, secondary = mirror.roles()
    before = content(secondary, FOLDER)
    assert not secondary.succeeds(f"echo x >{FOLDER}/by-mistake")
    assert not secondary.succeeds(f"rm {FOLDER}/ledger")
    assert content(secondary, FOLDER) == before


def test_stop_of_the_primary_hands_over_at_once_and_in_order(mirror: Mirror) -> None:
    old, new = mirror.roles()
    mirror.writer.start()
    mirror.forget_calls()
    seen = mark(new, NAME)
    safekit(old, f"stop -m {NAME}")
    wait_state(new, NAME, "ALONE")
    wait_state(old, NAME, "STOP", substate="NotReady")
    mirror.writer.await_promise()
    written = mirror.writer.stop()
    assert not [said for said in messages(new, NAME, seen) if "no heartbeat" in said]
    ended = max(date for date, name in mirror.calls(old) if name.startswith("stop_prim"))
    began = min(date for date, name in mirror.calls(new) if name == "start_prim")
    assert ended < began
    mirror.assert_kept(written.promised, new)
    fill(new, FOLDER, f"alone {time.time_ns()}")

    safekit(old, f"start -m {NAME}")
    mirror.wait_roles(new)
    mirror.assert_same_trees()
    mirror.assert_kept(written.promised, old)


def test_swap_both_ways_keeps_what_was_written_in_between(mirror: Mirror) -> None:
    one, other = mirror.roles()
    mirror.writer.start()
    for primary in (other, one):
        safekit(mirror.peer(primary), f"swap -m {NAME}")
        mirror.wait_roles(primary)
        mirror.writer.await_promise()
        fill(primary, FOLDER, f"swapped {time.time_ns()}")
    written = mirror.writer.stop()
    mirror.assert_same_trees()
    mirror.assert_kept(written.promised, one)
    mirror.assert_kept(written.promised, other)


def test_restart_restarts_the_application_and_moves_no_role(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    mirror.forget_calls()
    safekit(primary, f"restart -m {NAME}")
    wait_for("start_prim ran", lambda: "start_prim" in [name for _, name in mirror.calls(primary)])
    wait_state(primary, NAME, "PRIM")
    names = [name for _, name in mirror.calls(primary)]
    assert names.index("stop_prim") < names.index("start_prim")
    assert shown(secondary, NAME) == "SECOND Ready"
    assert not mirror.calls(secondary)


def test_stopstart_of_the_primary_hands_over_and_comes_back_as_secondary(mirror: Mirror) -> None:
    old, new = mirror.roles()
    safekit(old, f"stopstart -m {NAME}")
    wait_state(new, NAME, "ALONE,PRIM")
    mirror.wait_roles(new)
    mirror.assert_same_trees()


def test_forcestop_ends_a_script_that_hangs(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    safekit(secondary, f"stop -m {NAME}")
    wait_state(secondary, NAME, "STOP", substate="NotReady")
    primary.run(["touch", f"{NOTES}/hang-start_prim"])
    safekit(primary, f"restart -m {NAME}")
    wait_for("start_prim hangs", lambda: primary.succeeds(["pgrep", "-f", "^sleep 600"]))
    safekit(primary, f"forcestop -m {NAME}")
    wait_state(primary, NAME, "STOP", substate="NotReady", timeout=30)
    assert not primary.succeeds(["pgrep", "-f", "^sleep 600"])
    assert not primary.succeeds(f"ip -o addr show | grep -q ' {mirror.address}/'")


def test_stale_node_never_starts_by_itself(mirror: Mirror) -> None:
    stale, good = mirror.roles()
    safekit(stale, f"stop -m {NAME}")
    wait_state(stale, NAME, "STOP", substate="NotReady")
    wait_state(good, NAME, "ALONE")
    good.run(f"echo newer >{FOLDER}/newer; sync")
    safekit(good, f"stop -m {NAME}")
    wait_state(good, NAME, "STOP", substate="NotReady")

    safekit(stale, f"start -m {NAME}")
    wait_state(stale, NAME, "WAIT", substate="NotReady")
    assert "not up to date" in safekit(stale, f"state -m {NAME}").out
    safekit(good, f"start -m {NAME}")
    mirror.wait_roles(good)
    assert stale.out(f"cat {FOLDER}/newer") == "newer"


def test_cut_of_the_replication_only_leaves_one_primary_and_heals(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    mirror.writer.start()
    mirror.cut_replication(secondary)
    wait_state(primary, NAME, "ALONE", timeout=30)
    mirror.writer.await_promise()
    assert state(secondary, NAME)["state"] not in ("ALONE", "PRIM")
    mirror.heal_replication(secondary)
    mirror.wait_roles(primary)
    written = mirror.writer.stop()
    mirror.assert_same_trees()
    mirror.assert_kept(written.promised, secondary)
