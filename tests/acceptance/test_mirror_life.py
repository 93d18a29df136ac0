"""M1 to M8, M11, M14 to M16: a mirror that is started, stopped, moved and shut down by people."""

from __future__ import annotations

import re

from tests.acceptance.cases import asks_for, case, explains
from tests.acceptance.pair import Pair
from tests.nodes import Node, wait_for
from tests.system.mirror import FOLDER, NAME
from tests.system.product import main_pid, mark, messages, safekit, shown, state, wait_state
from tests.system.trees import content, fill

BIG = 110_000_000


@case("M1")
def test_m1_first_start_of_both_waits_for_a_person(bare_pair: Pair) -> None:
    bare_pair.anew()
    for node in bare_pair.nodes:
        safekit(node, f"start -m {NAME}")
    for node in bare_pair.nodes:
        wait_state(node, NAME, "WAIT", substate="NotReady")
        wait_for("it says why", lambda node=node: _waits_for_data(node), timeout=30)  # type: ignore[misc]
        assert "safekit prim" in safekit(node, f"state -m {NAME}").out
        assert "start_prim" not in bare_pair.names(node)
        assert not bare_pair.has_address(node)


def _waits_for_data(node: Node) -> bool:
    waiting = " ".join(state(node, NAME)["waiting_for"])
    return "rule rfs_notuptodate_server" in waiting and "never synchronised" in waiting


@case("M1b")
def test_m1b_prim_and_second_make_a_full_copy(bare_pair: Pair) -> None:
    bare_pair.anew()
    first, second = bare_pair.nodes
    fill(first, FOLDER, "kept")
    fill(second, FOLDER, "overwritten")
    safekit(first, f"prim -m {NAME}")
    wait_state(first, NAME, "ALONE")
    safekit(second, f"second -m {NAME}")
    bare_pair.wait_roles(first)
    assert bare_pair.states(second)[-2:] == ["SECOND Transient", "SECOND Ready"]
    assert bare_pair.said(first, "comparing everything")
    assert not any("overwritten" in line for line in content(second, FOLDER))
    bare_pair.assert_same_trees()


@case("M2")
def test_m2_later_start_of_both_needs_nobody(pair: Pair) -> None:
    primary, secondary = pair.roles()
    pair.stop(secondary, primary)
    pair.forget_calls()
    for node in pair.nodes:
        safekit(node, f"start -m {NAME}")
    pair.wait_roles(primary)
    assert pair.names(primary).count("start_prim") == 1
    assert "start_prim" not in pair.names(secondary)


@case("M3")
def test_m3_stop_of_the_primary_hands_over_at_once(pair: Pair) -> None:
    old, new = pair.roles()
    pair.forget_calls()
    seen = mark(new, NAME)
    safekit(old, f"stop -m {NAME}")
    wait_state(new, NAME, "ALONE")
    wait_state(old, NAME, "STOP", substate="NotReady")
    ended = next(date for date, name in pair.calls(old) if name == "stop_prim")
    began = next(date for date, name in pair.calls(new) if name == "start_prim")
    assert ended < began
    assert pair.said(new, "remote stop", seen)
    assert not pair.said(new, "no heartbeat", seen)
    explains(new, NAME, "ALONE Ready", "remote stop")
    explains(old, NAME, "STOP NotReady", "stop called by")


@case("M4")
def test_m4_who_rejoins_is_secondary_and_the_application_goes_on(pair: Pair) -> None:
    primary, other = pair.roles()
    pair.stop(other)
    wait_state(primary, NAME, "ALONE")
    pair.forget_calls()
    pair.writer.start()
    process = main_pid(primary, f"ledger-{NAME}")
    safekit(other, f"start -m {NAME}")
    pair.wait_roles(primary)
    pair.writer.await_promise()
    written = pair.writer.stop()
    assert written.trouble == ()
    assert main_pid(primary, f"ledger-{NAME}") == process != 0
    assert not {"start_prim", "stop_prim"} & set(pair.names(primary))
    pair.assert_kept(written.promised, other)


@case("M5")
def test_m5_restart_moves_no_role(pair: Pair) -> None:
    primary, secondary = pair.roles()
    pair.forget_calls()
    here, there = mark(primary, NAME), mark(secondary, NAME)
    safekit(primary, f"restart -m {NAME}")
    pair.wait_called(primary, "start_prim")
    wait_state(primary, NAME, "PRIM")
    assert pair.states(primary, here) == ["PRIM Transient", "PRIM Ready"]
    names = [name for name in pair.names(primary) if name.endswith("_prim")]
    assert names == ["stop_prim", "start_prim"]
    assert pair.states(secondary, there) == []
    assert shown(secondary, NAME) == "SECOND Ready"


@case("M6")
def test_m6_the_address_is_on_the_primary_and_maps_to_its_hardware(pair: Pair) -> None:
    for _ in range(2):
        primary, secondary = pair.roles()
        for address in (primary.address, secondary.address, pair.address):
            pair.lab.client.run(["ping", "-c", "1", "-W", "5", address])
        assert pair.has_address(primary) and not pair.has_address(secondary)
        assert pair.neighbour() == primary.mac
        safekit(primary, f"stopstart -m {NAME}")
        wait_state(secondary, NAME, "ALONE,PRIM")
        pair.wait_roles(secondary)


@case("M7")
def test_m7_files_are_on_both_nodes_and_only_the_primary_writes(pair: Pair) -> None:
    old, new = pair.roles()
    old.run(f"echo one >{FOLDER}/file1; rm -f {FOLDER}/file2")
    assert new.out(f"cat {FOLDER}/file1") == "one"
    assert not new.succeeds(f"rm {FOLDER}/file1")
    pair.stop(old)
    wait_state(new, NAME, "ALONE")
    new.run(f"head -c {BIG} /dev/urandom >{FOLDER}/file2")
    assert not old.succeeds(f"test -e {FOLDER}/file2")
    seen = mark(old, NAME)
    safekit(old, f"start -m {NAME}")
    pair.wait_roles(new, timeout=120)
    states = pair.states(old, seen)
    assert states.index("SECOND Transient") < states.index("SECOND Ready")
    assert old.out(f"sha256sum <{FOLDER}/file2") == new.out(f"sha256sum <{FOLDER}/file2")
    said = messages(old, NAME, seen)
    assert any(re.match(r"Updating directory tree", message) for message in said)
    ended = next(
        found for message in said if (found := re.match(r"Reintegration ended \(.*?([\d.]+) MB copied", message))
    )
    assert float(ended[1]) >= BIG / 1e6
    new.run(["rm", f"{FOLDER}/file2"])


@case("M8")
def test_m8_shutdown_of_the_machine_of_the_primary_hands_over(pair: Pair) -> None:
    old, new = pair.roles()
    seen, before = mark(new, NAME), mark(old, NAME)
    old.power_off()
    wait_state(new, NAME, "ALONE")
    assert not pair.said(new, "no heartbeat", seen)
    old.power_on()
    pair.wait_roles(new)
    said = messages(old, NAME, before)
    wanted = (
        "Action stop called by shutdown",
        "Script stop_prim",
        "Local state STOP NotReady",
        "Action start called at boot time",
        "Local state SECOND Ready",
    )
    places = [next(i for i, message in enumerate(said) if message.startswith(words)) for words in wanted]
    assert places == sorted(places), said


@case("M11")
def test_m11_who_missed_the_last_writes_waits_for_who_has_them(pair: Pair) -> None:
    good, stale = pair.roles()
    pair.stop(stale)
    wait_state(good, NAME, "ALONE")
    good.run(f"echo newer >{FOLDER}/newer; sync")
    pair.stop(good)
    safekit(stale, f"start -m {NAME}")
    wait_state(stale, NAME, "WAIT", substate="NotReady")
    assert "not up to date" in safekit(stale, f"state -m {NAME}").out
    assert pair.value(stale, "rfs.uptodate") == "down"
    safekit(good, f"start -m {NAME}")
    pair.wait_roles(good)
    assert stale.out(f"cat {FOLDER}/newer") == "newer"


@case("M14")
def test_m14_without_failover_only_a_person_promotes(bare_pair: Pair) -> None:
    pair = bare_pair.become('failover="off"', feature='failover="off"')
    old, other = pair.roles()
    pair.stop(old)
    wait_state(other, NAME, "WAIT", substate="NotReady")
    assert pair.said(other, "failover-off") or pair.said(other, "failover off")
    safekit(old, f"start -m {NAME}")
    pair.wait_roles(old)
    pair.stop(old)
    wait_state(other, NAME, "WAIT", substate="NotReady")
    pair.stop(other)
    safekit(other, f"prim -m {NAME}")
    wait_state(other, NAME, "ALONE")


@case("M15")
def test_m15_the_default_primary_takes_its_role_back(bare_pair: Pair) -> None:
    pair = bare_pair.become('defaultprim="n1"', feature='defaultprim="n1"')
    first, second = pair.nodes
    wait_state(first, NAME, "PRIM")
    first.power_cut()
    wait_state(second, NAME, "ALONE")
    seen = mark(second, NAME)
    first.power_on()
    pair.wait_roles(first, timeout=120)
    assert any("defaultprim" in message for message in messages(second, NAME, seen) + messages(first, NAME))


@case("M16")
def test_m16_swap_stops_here_before_it_starts_there(pair: Pair) -> None:
    old, new = pair.roles()
    pair.forget_calls()
    with asks_for("swap"):
        safekit(old, f"swap -m {NAME}")
    pair.wait_roles(new)
    stopped = [date for date, name in pair.calls(old) if name.startswith("stop_prim")]
    started = [date for date, name in pair.calls(new) if name == "start_prim"]
    assert len(started) == 1 and stopped and max(stopped) < started[0]
