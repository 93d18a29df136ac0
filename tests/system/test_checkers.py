"""Checkers and failover rules on a node: what they notice, what they ask, and what the log says of it (spec §6)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.nodes import Lab, wait_for
from tests.system.checked import NAME, PORT, UNIT, Watched
from tests.system.mirror import NAME as NEEDED
from tests.system.mirror import Mirror
from tests.system.modules import NOTES
from tests.system.product import kill_and_await, safekit, state, why

FAST = '<failover period="1s" handle_time="2s"/>'
TCP = (
    f'<check><tcp ident="web" when="both"><to addr="127.0.0.1" port="{PORT}" interval="1s" timeout="1s"/></tcp></check>'
)


@pytest.fixture
def watched(cluster: Lab) -> Iterator[Watched]:
    module = Watched(cluster["n3"])
    yield module
    module.uninstall()


def test_a_service_that_accepts_no_connection_is_restarted(watched: Watched) -> None:
    watched.install(TCP + FAST)
    watched.wait("UP")
    watched.wait_calls("start_both")
    watched.node.run(f"systemctl kill --signal=KILL {UNIT}")
    watched.wait_calls("start_both", "stop_both", "start_both")
    watched.wait("UP")
    assert "Resource tcp.web set to down by tcpcheck" in watched.log()
    assert "Action restart from failover rule t_web" in watched.log()
    assert "t_web" in state(watched.node, NAME)["reason"]
    assert why(watched.node, NAME).startswith(f"{NAME}: UP Ready: restart called by t_web, because: ")
    assert "Resource tcp.web set to down by tcpcheck" in why(watched.node, NAME)


def test_a_process_that_is_missing_restarts_the_module(watched: Watched) -> None:
    watched.install(
        '<errd polltimer="1s"><proc name="listener" nameregex="^python3$" argregex="/listener " class="both"/></errd>'
    )
    watched.wait("UP")
    watched.wait_calls("start_both")
    watched.node.run(f"systemctl kill --signal=KILL {UNIT}")
    watched.wait_calls("start_both", "stop_both", "start_both")
    watched.wait("UP")
    assert "Process listener not running" in watched.log()
    assert "Action stopstart called by errd: Process listener not running" in watched.log()
    assert "Process listener not running" in why(watched.node, NAME)


def test_a_handler_that_mends_the_matter_leaves_the_module_alone(watched: Watched) -> None:
    watched.install(
        '<errd polltimer="1s"><proc name="listener" nameregex="^python3$" argregex="/listener " class="both" '
        'action="mend"/></errd>'
    )
    watched.wait("UP")
    watched.node.run(f"systemctl kill --signal=KILL {UNIT}")
    watched.wait_calls("start_both", "mend")
    wait_for(
        "the process is back", lambda: "up" in safekit(watched.node, f"get -r proc.listener -m {NAME}").out, timeout=20
    )
    assert state(watched.node, NAME)["state"] == "UP"


def test_a_module_that_keeps_failing_is_stopped_by_maxloop(watched: Watched) -> None:
    watched.install(TCP + FAST, maxloop=2)
    watched.wait("UP")
    watched.node.run(f"touch {NOTES}/broken; systemctl kill --signal=KILL {UNIT}")
    watched.wait("STOP", "NotReady")
    assert watched.calls().count("stop_both") == 3
    assert "Action stop called by maxloop" in watched.log()
    assert why(watched.node, NAME).startswith(f"{NAME}: STOP NotReady: stop called by maxloop")


def test_while_the_router_does_not_answer_the_module_waits_and_then_starts_by_itself(
    watched: Watched, cluster: Lab
) -> None:
    router = f"{cluster.client.address.rsplit('.', 1)[0]}.119"
    watched.install(
        f'<check><ping ident="router"><to addr="{router}" interval="1s" timeout="1s"/></ping></check>{FAST}'
    )
    watched.wait("WAIT", "NotReady")
    assert "p_router" in state(watched.node, NAME)["reason"]
    assert "Resource ping.router set to down" in why(watched.node, NAME)
    assert watched.calls() == []
    cluster.client.run(
        f"ip address add {router}/24 dev $(ip -o route get {watched.node.address} | grep -o 'dev [^ ]*' | cut -d' ' -f2)"
    )
    try:
        watched.wait("UP")
    finally:
        cluster.client.run(
            f"ip address del {router}/24 dev $(ip -o route get {watched.node.address} | grep -o 'dev [^ ]*' | cut -d' ' -f2)"
        )
    watched.wait("WAIT", "NotReady")
    assert watched.calls() == ["start_both", "stop_both"]


def test_a_checker_of_the_module_sets_its_resource_and_ends_with_its_class(watched: Watched) -> None:
    watched.install(
        '<check><custom ident="health" when="both" exec="look" arg="look" action="restart"/></check>' + FAST
    )
    watched.wait("UP")
    wait_for("the checker speaks", lambda: "Resource custom.health set to up by look" in watched.log(), timeout=20)
    kill_and_await(watched.node, "safekitd")
    wait_for("one checker runs", lambda: _lookers(watched) == 1, timeout=20)
    watched.node.run(f"touch {NOTES}/ill")
    watched.wait_calls("start_both", "stop_both", "start_both")
    watched.node.run(f"rm {NOTES}/ill")
    watched.wait("UP")
    safekit(watched.node, f"stop -m {NAME}")
    watched.wait("STOP", "NotReady")
    wait_for("no checker runs", lambda: _lookers(watched) == 0, timeout=20)


def test_a_wrong_rule_is_refused_with_its_line(watched: Watched) -> None:
    watched.install("")
    wrong = (
        '<safe><service mode="light"><user/>\n<failover>\n<![CDATA[\n'
        "first: if (ip.? == down) then stop();\nsecond: if (ip.? = down) then stop();\n]]></failover></service></safe>"
    )
    watched.node.write(f"/opt/safekit/modules/{NAME}/conf/userconfig.xml", wrong.encode())
    refused = safekit(watched.node, f"confcheck -m {NAME}", check=False)
    assert not refused.ok
    assert "line 5" in refused.err and "column 18: '=' has no meaning here" in refused.err
    watched.wait("UP")


def _lookers(watched: Watched) -> int:
    return len(watched.node.run(["pgrep", "-f", "[b]in/look watched"], check=False).out.split())


def test_during_maintenance_nothing_is_tested_and_the_setting_outlives_a_stop(watched: Watched) -> None:
    def values() -> list[str]:
        names = ("tcp.web", "proc.listener")
        return [safekit(watched.node, f"get -r {name} -m {NAME}").out.strip() for name in names]

    errd = (
        '<errd polltimer="1s"><proc name="listener" nameregex="^python3$" argregex="/listener " class="both"/></errd>'
    )
    watched.install(errd + TCP + FAST)
    watched.wait("UP")
    wait_for("both are tested", lambda: values() == ["up", "up"], timeout=20)
    for name in ("checker", "errd"):
        assert safekit(watched.node, f"{name} off -m {NAME}").out == f"{NAME}: {name} off\n"
    watched.node.run(f"touch {NOTES}/broken; systemctl stop {UNIT}")
    safekit(watched.node, f"stop -m {NAME}")
    watched.wait("STOP", "NotReady")
    safekit(watched.node, f"start -m {NAME}")
    watched.wait("UP")
    assert values() == ["unknown", "unknown"]
    assert watched.calls() == ["start_both", "stop_both", "start_both"]

    watched.node.run(f"rm {NOTES}/broken")
    safekit(watched.node, f"checker on -m {NAME}")
    watched.wait_calls("start_both", "stop_both", "start_both", "stop_both", "start_both")
    watched.wait("UP")
    wait_for("only the checkers are on", lambda: values() == ["up", "unknown"], timeout=20)


def test_checkers_change_under_a_running_module_and_a_rule_does_not(watched: Watched) -> None:
    errd = (
        '<errd polltimer="1s"><proc name="gone" argregex="^no-such-process" class="mine" action="restart"/>'
        f'<proc name="{UNIT}.service" service="yes" class="both" action="restart" restart_services="a, b"/></errd>'
    )
    watched.install(FAST)
    watched.wait("UP")
    watched.edit(errd + FAST.replace('"2s"', '"3s"'))
    refused = safekit(watched.node, f"config -m {NAME}", check=False)
    assert (
        "line 3" in refused.err
        and "handle_time" in refused.err
        and "cannot change while the module runs" in refused.err
    )
    watched.edit(errd + '<check><intf ident="own"><to local_addr="127.0.0.1"/></intf></check>' + FAST)
    assert "updated" in safekit(watched.node, f"update -m {NAME}").out
    assert watched.calls() == ["start_both", "update"]

    def value(name: str) -> str:
        return safekit(watched.node, f"get -r {name} -m {NAME}", check=False).out.strip()

    wait_for("the new checkers speak", lambda: value("intf.own") == value(f"proc.{UNIT}.service") == "up", timeout=30)
    assert value("proc.gone") != "down"
    watched.node.run(f"systemctl kill --signal=KILL {UNIT}")
    watched.wait_calls("start_both", "update", "stop_both", "start_both")
    arguments = watched.node.run(f"grep start_both {NOTES}/{NAME}.calls | tail -n 1").out
    assert arguments.rstrip().endswith("-Services a, b")
    watched.wait("UP")
    safekit(watched.node, f"errd enable mine -m {NAME}")
    wait_for("the class is watched", lambda: "Process gone not running" in watched.log(), timeout=30)
    assert "Action restart called by errd: Process gone not running" in watched.log()


def test_a_module_waits_for_the_one_that_it_needs_and_follows_its_restart(watched: Watched, mirror: Mirror) -> None:
    primary, secondary = mirror.roles()
    watched.install(
        f'<check><module name="{NEEDED}" ident="it"><to addr="{primary.address}" interval="1s"/></module></check>{FAST}'
    )
    watched.wait("UP")
    safekit(primary, f"restart -m {NEEDED}")
    wait_for("it follows", lambda: watched.calls() == ["start_both", "stop_both", "start_both"], timeout=60)
    said = ("called by modulecheck: module m began its service anew", "Action wait from failover rule module_failure")
    assert any(sentence in line for line in watched.log() for sentence in said)  # the latter if it was away for long
    mirror.wait_roles(primary)
    watched.wait("UP")
    safekit(primary, f"swap -m {NEEDED}")
    watched.wait("WAIT", "NotReady")
    assert "module_failure" in state(watched.node, NAME)["reason"]
    mirror.wait_roles(secondary)
    safekit(secondary, f"swap -m {NEEDED}")
    watched.wait("UP")
