"""The language of the failover rules: what can be written, what it means, and what is said of what cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekit.rules import (
    ACTIONS,
    STATES,
    Both,
    Compare,
    Either,
    Expression,
    Not,
    Resource,
    Rule,
    RuleError,
    State,
    holds,
    read_rules,
    resources_of,
    unsettled,
)
from safekit.rules.lua import as_simple_rules, is_lua


def condition(text: str) -> Expression:
    (rule,) = read_rules(f"x: if ({text}) then wait();")
    return rule.condition


def test_a_section_holds_rules_and_comments() -> None:
    rules = read_rules(
        """
        /* the router
           is the judge */
        p_router: if (ping.router == down) then wait();
        web: if (tcp.web == down && ping.router == up) then restart(); /* local */
        """,
        line=10,
    )
    assert [(rule.label, rule.action, rule.line) for rule in rules] == [
        ("p_router", "wait", 13),
        ("web", "restart", 14),
    ]


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_of_the_specification_can_be_asked_for(action: str) -> None:
    assert read_rules(f"r: if (custom.x == down) then {action}();")[0].action == action


def test_names_of_resources_may_be_addresses() -> None:
    assert condition("ip.192.168.4.10 == down") == Compare(Resource("ip", "192.168.4.10"), "==", State("down"))
    assert condition("ip.fd00::10 == down") == Compare(Resource("ip", "fd00::10"), "==", State("down"))
    assert condition("remote.custom.my-check != local.custom.x") == Compare(
        Resource("custom", "my-check", remote=True), "!=", Resource("custom", "x")
    )


def test_and_binds_stronger_than_or_and_not_strongest() -> None:
    a, b, c = (Resource("custom", name) for name in "abc")
    assert condition("custom.a || custom.b && !custom.c") == Either(a, Both(b, Not(c)))
    assert condition("(custom.a || custom.b) && custom.c") == Both(Either(a, b), c)


def test_cluster_stands_for_every_heartbeat() -> None:
    lost = condition("cluster() == down")
    assert holds(lost, {"heartbeat.a": "down", "heartbeat.b": "down"}) is True
    assert holds(lost, {"heartbeat.a": "down", "heartbeat.b": "up"}) is False


def test_a_question_mark_means_any_and_a_star_means_all() -> None:
    values = {"ip.a": "down", "ip.b": "up", "tcp.x": "down"}
    assert holds(condition("ip.? == down"), values) is True
    assert holds(condition("ip.* == down"), values) is False
    assert holds(condition("ip.* != up"), values) is False
    assert holds(condition("ping.? == down"), values) is None
    assert holds(condition("ping.* == down"), values) is None


def test_what_is_not_known_decides_nothing_unless_something_else_does() -> None:
    values = {"tcp.a": "init", "tcp.b": "down"}
    assert holds(condition("tcp.a == down"), values) is None
    assert holds(condition("!tcp.a"), values) is None
    assert holds(condition("tcp.a == down || tcp.b == down"), values) is True
    assert holds(condition("tcp.a == down && tcp.b == up"), values) is False
    assert holds(condition("tcp.never_set == down"), values) is None


def test_a_rule_may_ask_for_init_and_unknown_by_name() -> None:
    assert holds(condition("tcp.a == init"), {"tcp.a": "init"}) is True
    assert holds(condition("tcp.a != unknown"), {"tcp.a": "up"}) is True
    assert holds(condition("remote.state.x == unknown"), {}) is True


def test_what_is_not_tested_yet_is_named() -> None:
    values = {"tcp.a": "init", "tcp.b": "init", "ping.c": "up"}
    assert unsettled(condition("tcp.? == down || ping.c == down"), values) == ("tcp.a", "tcp.b")
    assert unsettled(condition("tcp.b == down"), values) == ("tcp.b",)


@pytest.mark.parametrize(
    ("text", "line", "column", "value", "message", "expected"),
    [
        ("a if (tcp.x == down) then wait();", 1, 3, "if", "`if` does not belong here", "`:`"),
        ("a: if (tcp.x == down) then reboot();", 1, 28, "reboot", "not an action of a rule", "restart() or swap()"),
        ("a: if (tcp.x == broken) then wait();", 1, 17, "broken", "neither a resource nor a state", "class.name, or init, up"),
        ("a: if (tpc.x == down) then wait();", 1, 8, "tpc.x", "there is no class 'tpc' of resources", ""),
        ("a: if (tcp.x == down then wait();", 1, 22, "then", "`then` does not belong here", "`)`"),
        ("a: if (tcp.x == down) then wait()", 1, 34, "", "the rules end here", "`;`"),
        ("\n\n  a: if (down) then wait();", 3, 10, "down", "a state alone says nothing", "a resource, or resource == state"),
        ("a: if (tcp.x = down) then wait();", 1, 14, "=", "'=' has no meaning here", ""),
        ("/* never ends", 1, 1, "/*", "a comment that does not end", "*/"),
        ("a: if (tcp.x) then wait(); a: if (tcp.x) then stop();", 1, 28, "a", "line 1 has a rule of this label", "another label"),
        ("a.b: if (tcp.x) then wait();", 1, 1, "a.b", "not a label", "letters, digits and _"),
    ],
)  # fmt: skip
def test_the_first_thing_that_is_wrong_is_named_with_its_place(
    text: str, line: int, column: int, value: str, message: str, expected: str
) -> None:
    with pytest.raises(RuleError) as caught:
        read_rules(text)
    error = caught.value
    assert (error.line, error.column, error.value, error.message) == (line, column, value, message)
    assert expected in error.expected


def test_rules_in_lua_are_shown_as_simple_rules() -> None:
    text = """
    --Lua Rules
    Rules = Rules + { web_down=if_then("tcp.web","down",Action.stopstart), _group="checker" }
    """
    assert is_lua(text)
    assert as_simple_rules(text) == ("web_down: if (tcp.web == down) then stopstart();",)
    assert [rule.action for rule in read_rules(as_simple_rules(text)[0])] == ["stopstart"]
    assert not is_lua("a: if (tcp.x) then wait();")


names = st.sampled_from(["web", "db", "10.0.0.1", "?", "*"])
resources = st.builds(Resource, st.sampled_from(["tcp", "ping", "custom"]), names, st.booleans())
states = st.builds(State, st.sampled_from(STATES))
compares = st.builds(Compare, resources, st.sampled_from(["==", "!="]), resources | states)
expressions = st.recursive(
    resources | compares,
    lambda inner: st.builds(Not, inner) | st.builds(Both, inner, inner) | st.builds(Either, inner, inner),
    max_leaves=8,
)
values = st.dictionaries(
    st.sampled_from(["tcp.web", "tcp.db", "ping.10.0.0.1", "remote.custom.web"]), st.sampled_from(STATES)
)


@given(st.builds(Rule, st.from_regex(r"[a-z_]{1,8}", fullmatch=True), expressions, st.sampled_from(ACTIONS)))
def test_a_rule_that_is_written_out_is_read_back(rule: Rule) -> None:
    assert read_rules(str(rule)) == (rule,)


@given(expressions, values)
def test_a_condition_and_its_opposite_never_agree(expression: Expression, known: dict[str, str]) -> None:
    one, other = holds(expression, known), holds(Not(expression), known)
    assert (one is None and other is None) or (one is (not other))


@given(expressions, values)
def test_what_decides_goes_on_deciding_when_more_is_known(expression: Expression, known: dict[str, str]) -> None:
    """Only conditions without patterns and without `init` and `unknown` by name: those ask for ignorance itself."""
    if any(state in str(expression) for state in ("init", "unknown", "?", "*")):
        return
    told = {name: value for name, value in known.items() if value in ("up", "down")}
    before = holds(expression, told)
    more = {str(resource): "up" for resource in resources_of(expression)} | told
    assert before is None or holds(expression, more) is before
