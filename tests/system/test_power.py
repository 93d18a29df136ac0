"""A mirror whose nodes lose their power, boot again, and are cut off from each other."""

from __future__ import annotations

from tests.nodes import Lab, wait_for
from tests.system.mirror import NAME, Mirror
from tests.system.modules import NOTES, light_module
from tests.system.product import ask, mark, messages, package, safekit, shown, state, wait_state, why


def test_power_cut_of_the_primary_loses_no_acknowledged_write(mirror: Mirror) -> None:
    victim, survivor = mirror.roles()
    mirror.writer.start()
    mirror.writer.await_promise(100)
    victim.power_cut()
    wait_state(survivor, NAME, "ALONE")
    mirror.writer.await_promise()
    written = mirror.writer.stop()
    assert written.trouble
    mirror.assert_kept(written.promised, survivor)
    assert why(survivor, NAME).startswith(f"{NAME}: ALONE Ready: no heartbeat, because: ")
    assert f"no heartbeat from {victim.name}" in why(survivor, NAME)

    victim.power_on()
    mirror.wait_roles(survivor)
    mirror.assert_same_trees()
    assert "the machine started again; before, the module was PRIM Ready" in safekit(victim, f"why -m {NAME} -s 3").out
    mirror.assert_kept(written.promised, victim)


def test_power_cut_of_the_secondary_disturbs_no_client_for_long(mirror: Mirror) -> None:
    primary, victim = mirror.roles()
    mirror.writer.start()
    victim.power_cut()
    wait_state(primary, NAME, "ALONE")
    mirror.writer.await_promise()
    written = mirror.writer.stop()
    assert not written.trouble
    victim.power_on()
    mirror.wait_roles(primary)
    mirror.assert_kept(written.promised, victim)
    mirror.assert_same_trees()


def test_power_cut_of_an_idle_secondary_leaves_the_primary_serving(mirror: Mirror) -> None:
    primary, victim = mirror.roles()
    victim.power_cut()
    wait_state(primary, NAME, "ALONE")
    mirror.writer.start()
    written = mirror.writer.stop()
    assert written.trouble == ()
    victim.power_on()
    mirror.wait_roles(primary)
    mirror.assert_kept(written.promised, victim)


def test_both_lose_power_and_nobody_serves_until_both_are_back_in_their_roles(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    mirror.writer.start()
    primary.power_cut()
    secondary.power_cut()
    written = mirror.writer.stop()
    for first, then in ((secondary, primary),):
        first.power_on()
        wait_state(first, NAME, "WAIT", substate="NotReady")
        then.power_on()
    mirror.wait_roles(primary)
    mirror.assert_same_trees()
    for node in mirror.nodes:
        mirror.assert_kept(written.promised, node)


def test_reboot_of_the_secondary_brings_a_started_module_back(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    seen = mark(primary, NAME)
    secondary.reboot()
    mirror.wait_roles(primary)
    assert not [said for said in messages(primary, NAME, seen) if "no heartbeat" in said]
    mirror.assert_same_trees()


def test_reboot_of_the_primary_hands_over_in_order(mirror: Mirror) -> None:
    old, new = mirror.roles()
    seen = mark(new, NAME)
    mirror.writer.start()
    old.reboot()
    mirror.wait_roles(new)
    mirror.writer.await_promise()
    written = mirror.writer.stop()
    assert not [said for said in messages(new, NAME, seen) if "no heartbeat" in said]
    for node in mirror.nodes:
        mirror.assert_kept(written.promised, node)
    mirror.assert_same_trees()


def test_boot_on_starts_a_stopped_module_and_boot_auto_leaves_it_stopped(cluster: Lab) -> None:
    node = cluster["n3"]
    for number, boot in enumerate(("on", "auto"), 21):
        node.write(f"/tmp/{boot}.safe", package(light_module(boot=boot, attributes='automatic_reboot="on"')))
        safekit(node, f"module install -m boot{boot} /tmp/{boot}.safe -M {number} -r")
        safekit(node, f"config -m boot{boot}")
    assert [shown(node, f"boot{boot}") for boot in ("on", "auto")] == ["STOP NotReady"] * 2
    node.reboot()
    wait_state(node, "booton", "UP")
    assert shown(node, "bootauto") == "STOP NotReady"
    safekit(node, "start -m bootauto")
    wait_state(node, "bootauto", "UP")
    safekit(node, "stopstart -m bootauto -i tester")  # automatic_reboot: of the machine, in order
    node.follow_reboot()
    wait_state(node, "bootauto", "UP")
    assert "Action stopstart called by tester: this machine is restarted (automatic_reboot)" in messages(
        node, "bootauto"
    )
    counted = ask(node, "modules/bootauto/resources/heart.stopstartloop", history=2)
    assert [one["value"] for one in counted["history"]] == [counted["value"], "0"] and counted["value"] != "0"
    for boot in ("on", "auto"):
        wait_state(node, f"boot{boot}", "UP")
        safekit(node, f"stop -m boot{boot}")
        wait_state(node, f"boot{boot}", "STOP", substate="NotReady")
        safekit(node, f"module uninstall -m boot{boot}")
    assert node.out(f"grep -c start_both {NOTES}/booton.calls") == "2"


def test_partition_then_healing_leaves_one_primary_and_equal_trees(mirror: Mirror) -> None:
    first, second = mirror.roles()
    mirror.lab.cut("n1", "n2")
    wait_state(first, NAME, "ALONE")
    wait_state(second, NAME, "ALONE")
    mirror.lab.heal()
    mirror.wait_roles(timeout=90)
    primary, secondary = mirror.roles()
    mirror.wait_gone(secondary)
    mirror.assert_same_trees()
    mirror.writer.start()
    mirror.assert_kept(mirror.writer.stop().promised, primary)


def test_loss_of_many_frames_moves_no_role(mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    mirror.lab.cut("n1", "n2", loss=30)
    mirror.writer.start()
    mirror.writer.await_promise(30, timeout=60)
    mirror.lab.heal()
    mirror.writer.stop()
    wait_for("both are Ready", mirror.are_ready, timeout=40)
    assert (state(primary, NAME)["state"], state(secondary, NAME)["state"]) == ("PRIM", "SECOND")
