"""C1 to C12: the checkers and errd of a mirror, what they do, and what `safekit why` says of it."""

from __future__ import annotations

from tests.acceptance.cases import asks_for, case, explains
from tests.acceptance.checked import Checked
from tests.acceptance.pair import Pair
from tests.nodes import Node, wait_for
from tests.system.mirror import NAME
from tests.system.modules import NOTES, light_module
from tests.system.product import mark, messages, package, safekit, shown, wait_state

LEDGER = f"ledger-{NAME}"


@case("C1")
def test_c1_a_process_that_is_missing_restarts_here_or_moves_the_module(checked: Checked) -> None:
    pair = checked.pair
    primary, secondary = pair.roles()
    seen, there = mark(primary, NAME), mark(secondary, NAME)
    primary.run(["systemctl", "kill", "--signal=KILL", "aid-one"])
    pair.wait_called(primary, "start_prim")
    wait_state(primary, NAME, "PRIM")
    assert pair.said(primary, "Service aid-one.service not running", seen)
    assert pair.states(primary, seen) == ["PRIM Transient", "PRIM Ready"]
    assert pair.states(secondary, there) == []
    explains(primary, NAME, "PRIM Ready", "aid-one.service not running")

    seen = mark(primary, NAME)
    primary.run(["systemctl", "kill", "--signal=KILL", "aid-two"])
    wait_state(secondary, NAME, "ALONE,PRIM", timeout=60)
    pair.wait_roles(secondary)
    assert pair.said(primary, "Process aid-two not running", seen)
    assert pair.said(primary, "Action stopstart called by errd", seen)
    assert pair.said(primary, "Action start called automatically", seen)
    explains(primary, NAME, "SECOND Ready", "aid-two not running")
    explains(secondary, NAME, "PRIM Ready", "stopstart called by errd")


@case("C2")
def test_c2_a_port_that_nobody_serves_restarts_here_or_moves_the_module(checked: Checked) -> None:
    pair = checked.pair
    primary, secondary = pair.roles()
    seen = mark(primary, NAME)
    primary.run(["systemctl", "kill", "--signal=KILL", LEDGER])
    pair.wait_called(primary, "start_prim")
    wait_state(primary, NAME, "PRIM")
    assert pair.said(primary, "Resource tcp.ledger set to down by tcpcheck", seen)
    assert pair.said(primary, "Action restart from failover rule t_ledger", seen)
    explains(primary, NAME, "PRIM Ready", "t_ledger", "tcp.ledger set to down")
    wait_for("it is up again", lambda: pair.value(primary, "tcp.ledger") == "up", timeout=30)

    seen = mark(primary, NAME)
    primary.run(["systemctl", "stop", "aside"])
    wait_state(secondary, NAME, "ALONE,PRIM", timeout=60)
    pair.wait_roles(secondary)
    assert pair.said(primary, "Resource tcp.aside set to down by tcpcheck", seen)
    assert pair.said(primary, "Action stopstart from failover rule t_aside", seen)


@case("C3")
def test_c3_both_wait_for_an_external_service_and_go_on_by_themselves(checked: Checked) -> None:
    pair = checked.pair
    checked.end_outside()
    wait_for("both wait", lambda: pair.both_are("WAIT NotReady"), timeout=90)
    for node in pair.nodes:
        assert pair.value(node, "tcp.external") == "down"
        explains(node, NAME, "WAIT NotReady", "t_external", "tcp.external set to down")
        assert not pair.has_address(node)
    checked.serve_outside()
    wait_for("both serve again", pair.are_ready, timeout=90)


@case("C4")
def test_c4_a_pulled_cable_moves_the_module(checked: Checked) -> None:
    pair = checked.pair
    primary, secondary = pair.roles()
    seen = mark(primary, NAME)
    primary.pull_cable()
    wait_state(secondary, NAME, "ALONE", timeout=60)
    wait_state(primary, NAME, "WAIT", substate="NotReady", timeout=60)
    network = primary.address.rsplit(".", 1)[0] + ".0"
    assert pair.value(primary, f"intf.{network}") == "down"
    assert pair.said(primary, "rule interface_failure", seen) or pair.said(
        primary, "failover rule interface_failure", seen
    )
    explains(primary, NAME, "WAIT NotReady", "interface_failure", f"intf.{network}")
    primary.plug_cable()
    pair.wait_roles(secondary, timeout=90)


@case("C5")
def test_c5_who_does_not_reach_the_router_waits(checked: Checked) -> None:
    pair = checked.pair
    primary, secondary = pair.roles()
    pair.lab.cut(primary.name, "client")
    wait_state(secondary, NAME, "ALONE", timeout=60)
    wait_state(primary, NAME, "WAIT", substate="NotReady", timeout=60)
    assert pair.value(primary, "ping.router") == "down"
    explains(primary, NAME, "WAIT NotReady", "p_router", "ping.router set to down")
    explains(secondary, NAME, "ALONE Ready", "remote stop")
    pair.lab.heal()
    pair.wait_roles(secondary, timeout=90)


@case("C7")
def test_c7_a_custom_checker_before_the_start_holds_the_module(checked: Checked) -> None:
    pair = checked.pair
    primary, secondary = pair.roles()
    checked.fall_ill(primary, "before")
    wait_state(secondary, NAME, "ALONE", timeout=60)
    wait_state(primary, NAME, "WAIT", substate="NotReady", timeout=60)
    explains(primary, NAME, "WAIT NotReady", "c_before", "custom.before set to down by look")
    checked.get_well(primary, "before")
    pair.wait_roles(secondary, timeout=90)


@case("C8")
def test_c8_a_custom_checker_acts_by_its_rule(checked: Checked) -> None:
    """`custom.ruled` has no action of its own: a written rule does what `action` would."""
    pair = checked.pair
    primary, secondary = pair.roles()
    for times, (ident, rule) in enumerate((("again", "c_again"), ("ruled", "r_ruled")), 1):
        seen = mark(primary, NAME)
        checked.fall_ill(primary, ident)
        pair.wait_called(primary, "start_prim", times)
        wait_state(primary, NAME, "PRIM")
        assert pair.said(primary, f"Action restart from failover rule {rule}", seen)
        explains(primary, NAME, "PRIM Ready", rule, f"custom.{ident} set to down by look")
        wait_for("it is up again", lambda ident=ident: pair.value(primary, f"custom.{ident}") == "up", timeout=30)  # type: ignore[misc]
    seen = mark(primary, NAME)
    checked.fall_ill(primary, "away")
    wait_state(secondary, NAME, "ALONE,PRIM", timeout=60)
    pair.wait_roles(secondary)
    assert pair.said(primary, "Action stopstart from failover rule c_away", seen)


@case("C9")
def test_c9_a_checker_that_acts_by_itself_is_counted_and_a_person_begins_anew(checked: Checked) -> None:
    pair = checked.pair
    primary, _ = pair.roles()
    safekit(primary, f"restart -m {NAME}")
    pair.wait_called(primary, "start_prim")
    wait_state(primary, NAME, "PRIM")
    wait_for("the checker runs", lambda: primary.succeeds("pgrep -f bin/call"), timeout=30)
    primary.run(["touch", f"{NOTES}/call"])
    pair.wait_called(primary, "start_prim", 2)
    wait_state(primary, NAME, "PRIM")
    explains(primary, NAME, "PRIM Ready", "restart called by call")
    for _ in range(2):
        checked.restart(primary, "-i call")
    checked.restart(primary)
    for _ in range(3):
        checked.restart(primary, "-i call")
    wait_state(primary, NAME, "PRIM")
    assert not pair.said(primary, "called by maxloop")
    safekit(primary, f"restart -m {NAME} -i call")
    wait_state(primary, NAME, "STOP", substate="NotReady")
    explains(primary, NAME, "STOP NotReady", "stop called by maxloop")


@case("C10")
def test_c10_a_module_that_keeps_failing_is_stopped_where_it_fails(checked: Checked) -> None:
    pair = checked.pair
    primary, secondary = pair.roles()
    safekit(primary, f"restart -m {NAME}")
    pair.wait_called(primary, "start_prim")
    wait_state(primary, NAME, "PRIM")
    pair.forget_calls()
    primary.run(f"touch {NOTES}/broken; systemctl kill --signal=KILL {LEDGER}")
    wait_state(primary, NAME, "STOP", substate="NotReady", timeout=120)
    assert pair.names(primary).count("start_prim") == 3
    assert pair.said(primary, "Action stop called by maxloop")
    explains(primary, NAME, "STOP NotReady", "stop called by maxloop")
    wait_state(secondary, NAME, "ALONE")


@case("C11")
def test_c11_an_address_that_somebody_removes_moves_the_module(checked: Checked) -> None:
    pair = checked.pair
    primary, secondary = pair.roles()
    seen = mark(primary, NAME)
    held = f"ip -o address show to {pair.address} | awk '{{ print $4, \"dev\", $2 }}'"
    primary.run(f"ip address del $({held})")
    wait_state(secondary, NAME, "ALONE,PRIM", timeout=60)
    pair.wait_roles(secondary)
    assert pair.said(primary, f"Resource ip.{pair.address} set to down", seen)
    assert pair.said(primary, "Action stopstart from failover rule ip_failure", seen)
    explains(primary, NAME, "SECOND Ready", f"ip.{pair.address} set to down")
    explains(secondary, NAME, "PRIM Ready", "called by ip_failure")


@case("C12")
def test_c12_during_maintenance_nothing_acts_and_the_setting_outlives_a_stop(checked: Checked) -> None:
    pair = checked.pair
    primary, _ = pair.roles()
    names = ("tcp.ledger", "proc.aid-two")
    try:
        for name in ("checker", "errd"):
            safekit(primary, f"{name} off -m {NAME}")
        seen = mark(primary, NAME)
        primary.run(f"touch {NOTES}/broken; systemctl stop {LEDGER} aid-one aid-two")
        wait_for(
            "nothing is said of it", lambda: [pair.value(primary, n) for n in names] == ["unknown"] * 2, timeout=30
        )
        checked.restart(primary)
        wait_state(primary, NAME, "PRIM")
        assert not primary.succeeds(["systemctl", "is-active", "--quiet", LEDGER])
        assert [pair.value(primary, name) for name in names] == ["unknown"] * 2
        safekit(primary, f"stop -m {NAME}")
        wait_state(primary, NAME, "STOP", substate="NotReady")
        safekit(primary, f"start -m {NAME}")
        wait_state(primary, NAME, "SECOND")
        assert not pair.said(primary, "from failover rule", seen) and not pair.said(primary, "called by errd", seen)
        for name in ("checker", "errd"):
            assert safekit(primary, f"{name} status -m {NAME}").out == f"{NAME}: {name} off\n"
            assert pair.value(primary, f"usersetting.{name}") == "off"
        explains(primary, NAME, "SECOND Ready", "switched off: checker, errd")
    finally:
        primary.run(f"rm -f {NOTES}/broken")
        for name in ("checker", "errd"):
            safekit(primary, f"{name} on -m {NAME}")


@case("C6", ours="the nodes tell each other of their modules: no web service is asked")
def test_c6_a_module_that_needs_another_one_follows_it(pair: Pair) -> None:
    node, _ = pair.roles()
    files = light_module(boot="off")
    files["conf/userconfig.xml"] = (
        f'<safe><service mode="light" boot="off"><user/>'
        f'<check><module name="{NAME}"/></check>'
        '<failover period="1s" handle_time="2s"/></service></safe>\n'
    )
    pair.stop(pair.peer(node))
    node.write("/tmp/follower.safe", package(files))
    safekit(node, "module install -m follower /tmp/follower.safe -M 8 -r")
    try:
        with asks_for("<module>"):
            safekit(node, "config -m follower")
        safekit(node, "start -m follower")
        wait_state(node, "follower", "UP")
        pair.stop(node)
        wait_state(node, "follower", "WAIT", substate="NotReady", timeout=60)
        explains(node, "follower", "WAIT NotReady", "module_failure", f"module.{NAME}")
        safekit(node, f"start -m {NAME}")
        wait_state(node, NAME, "ALONE")
        wait_state(node, "follower", "UP", timeout=60)
        seen = mark(node, "follower")
        safekit(node, f"restart -m {NAME}")
        wait_for("it follows", lambda: _restarted(node, seen), timeout=60)
        wait_state(node, "follower", "UP", timeout=60)
        explains(node, "follower", "UP Ready", NAME)
    finally:
        safekit(node, "forcestop -m follower", check=False)
        if shown(node, "follower") not in ("STOP NotReady", "NOT_CONFIGURED NotReady"):
            wait_state(node, "follower", "STOP", substate="NotReady")
        safekit(node, "module uninstall -m follower")


def _restarted(node: Node, after: int) -> bool:
    return any("Action stopstart" in message for message in messages(node, "follower", after))
