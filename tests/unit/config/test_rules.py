"""Failover rules in a configuration: those that checkers bring, those that are written, and what is wrong with them."""

from __future__ import annotations

import pytest

from safekit.config import failover_rules
from safekit.rules import read_rules
from tests.unit.config.samples import farm, light, load, mirror
from tests.unit.config.test_wrong_input import refused

CHECKS = (
    '<check><tcp ident="web" when="prim"><to addr="192.0.2.1" port="80"/></tcp>'
    '<ping ident="router"><to addr="192.0.2.254"/></ping>'
    '<custom ident="quiet" when="prim" exec="look"/>'
    '<custom ident="loud" when="prim" exec="look" action="stopstart"/></check>'
)
STATIC = read_rules("ip_failure: if (ip.? == down) then stopstart();")


def test_every_checker_with_an_action_brings_its_rule() -> None:
    rules = failover_rules(load(mirror(CHECKS)).service, STATIC)
    assert [str(rule) for rule in rules] == [
        "ip_failure: if (ip.? == down) then stopstart();",
        "t_web: if (tcp.web == down) then restart();",
        "p_router: if (ping.router == down) then wait();",
        "c_loud: if (custom.loud == down) then stopstart();",
    ]


def test_a_rule_of_the_file_takes_the_place_of_one_with_its_label() -> None:
    service = load(mirror(CHECKS + "<failover>t_web: if (tcp.web == down) then stop();</failover>")).service
    assert {rule.label: rule.action for rule in failover_rules(service, STATIC)}["t_web"] == "stop"


def test_extends_no_leaves_only_the_rules_of_the_file() -> None:
    text = '<failover extends="no">mine: if (ping.router == down) then wait();</failover>'
    assert [rule.label for rule in failover_rules(load(mirror(CHECKS + text)).service, STATIC)] == ["mine"]


@pytest.mark.parametrize(
    ("rules", "line", "value", "reason"),
    [
        ("\n\na: if (custom.x = down) then stop();", 3, "=", "column 17: '=' has no meaning here"),
        ("a: if (tcp.wbe == down) then stop();", 1, "tcp.wbe", "there is no <tcp> with this ident; expected web"),
        ("a: if (ping.x == down) then stop();", 1, "ping.x", "there is no <ping> with this ident; expected router"),
        ("a: if (remote.tcp.wbe == down) then stop();", 1, "remote.tcp.wbe", "there is no <tcp> with this ident"),
        ("\n--Lua Rules\nRules = Rules + { a=if_then('ip.x','down',Action.stop) }", 1, None, "a: if (ip.x == down) then stop();"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_named_with_its_line(rules: str, line: int, value: str | None, reason: str) -> None:
    error = refused(mirror(f"{CHECKS}<failover><![CDATA[{rules}]]></failover>"))
    assert (error.code, error.line, error.element, error.value) == ("config.rule", line, "failover", value)
    assert reason in str(error)


def test_two_sections_share_their_labels() -> None:
    error = refused(
        mirror("<failover><![CDATA[a: if (ip.x) then stop();]]>\n<![CDATA[a: if (ip.y) then stop();]]></failover>")
    )
    assert (error.line, error.value) == (2, "a")
    assert "line 1 has a rule of this label" in str(error)


def test_a_farm_has_nobody_to_swap_with() -> None:
    assert "swap()" in str(refused(farm("<failover>a: if (custom.x == down) then swap();</failover>")))


def test_only_a_mirror_has_another_node_whose_resources_it_knows() -> None:
    rule = "<failover><![CDATA[a: if (remote.custom.x == down) then stop();]]></failover>"
    assert load(mirror(rule)).service.failover_rules is not None
    assert "only a mirror knows resources of its other node" in refused(light(rule)).message
