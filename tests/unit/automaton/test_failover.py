"""The failover machine: what values of resources ask for, and when."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekit.automaton.failover import STATIC_RULES, FailoverMachine, Verdict
from safekit.automaton.vocabulary import Action
from safekit.rules import ACTIONS, read_rules


def verdicts(
    machine: FailoverMachine, *moments: tuple[float, Mapping[str, str]], waiting: bool = False
) -> list[Verdict]:
    """What the machine says at each moment."""
    said = []
    for now, values in moments:
        machine, verdict = machine.evaluate(values, now, waiting)
        said.append(verdict)
    return said


DOWN, UP = {"intf.eth0": "down"}, {"intf.eth0": "up"}


def test_a_rule_counts_only_after_the_answer_stayed_the_same_for_its_time() -> None:
    *early, ripe = verdicts(FailoverMachine(15), (0.0, DOWN), (5.0, DOWN), (10.0, DOWN), (15.0, DOWN))
    assert [verdict.held for verdict in early] == [(), (), ()]
    assert ripe.held == ("interface_failure",)


def test_a_short_interruption_begins_the_time_anew() -> None:
    assert verdicts(FailoverMachine(15), (0, DOWN), (10, UP), (12, DOWN), (20, DOWN))[-1].held == ()


def test_leaving_a_wait_counts_at_once() -> None:
    held, free = verdicts(FailoverMachine(0), (0, DOWN), (1, UP))
    assert (held.held, free.held) == (("interface_failure",), ())


def test_in_wait_nothing_runs_that_a_hasty_answer_could_harm_so_a_wait_rule_counts_at_once() -> None:
    assert verdicts(FailoverMachine(15), (0, DOWN), waiting=True)[0].held == ("interface_failure",)


def test_an_action_is_called_once_while_a_rule_asks_for_it() -> None:
    down, up = {"ip.10.0.0.1": "down"}, {"ip.10.0.0.1": "up"}
    said = verdicts(FailoverMachine(15), (0, down), (15, down), (20, down), (25, up), (30, down), (45, down))
    assert [verdict.action for verdict in said] == [None, Action.STOPSTART, None, None, None, Action.STOPSTART]
    assert said[1].label == "ip_failure"


def test_a_resource_that_was_not_tested_yet_or_is_not_known_asks_for_nothing() -> None:
    machine = FailoverMachine(0, read_rules("a: if (tcp.web != up) then restart(); b: if (!ping.x) then stop();"))
    assert verdicts(machine, (0, {"tcp.web": "init"}))[0] == Verdict()
    assert verdicts(machine, (0, {"tcp.web": "unknown", "ping.x": "init"}))[0] == Verdict()


def test_while_a_resource_of_a_wait_rule_is_not_tested_the_module_stays_in_wait() -> None:
    values = {"intf.eth0": "init", "intf.eth1": "up", "ip.10.0.0.1": "init"}
    assert verdicts(FailoverMachine(15), (0, values), waiting=True)[0].pending == ("intf.eth0",)
    assert verdicts(FailoverMachine(15), (0, values))[0].pending == ()


@pytest.mark.parametrize(("stronger", "weaker"), [(a, b) for i, a in enumerate(ACTIONS) for b in ACTIONS[i + 1 :]])
def test_when_several_rules_hold_the_stronger_action_is_taken(stronger: str, weaker: str) -> None:
    rules = read_rules(f"w: if (custom.x == down) then {weaker}(); s: if (custom.x == down) then {stronger}();")
    said = verdicts(FailoverMachine(0, rules), (0, {"custom.x": "down"}))[0]
    if stronger == "wait":
        assert (said.held, said.action) == (("s",), None)
    else:
        assert (said.label, said.action, said.held) == ("s", Action(stronger), ())


def test_it_says_when_time_alone_changes_the_answer() -> None:
    said = verdicts(FailoverMachine(15), (0, DOWN), (11, DOWN), (15, DOWN))
    assert [verdict.again_s for verdict in said] == [15, 4, float("inf")]


def test_the_static_rules_are_those_of_the_specification() -> None:
    assert [str(rule) for rule in STATIC_RULES] == [
        "module_failure: if (module.? == down) then wait();",
        "interface_failure: if (intf.? == down) then wait();",
        "ip_failure: if (ip.? == down) then stopstart();",
        "splitbrain_failure: if (splitbrain.uptodate == down) then wait();",
    ]


@given(
    st.lists(
        st.tuples(
            st.floats(0, 10),
            st.fixed_dictionaries(
                {name: st.sampled_from(["up", "down", "init"]) for name in ("ip.a", "intf.b", "custom.c")}
            ),
        ),
        max_size=30,
    )
)
def test_nothing_is_called_that_was_not_asked_for_during_the_whole_time(
    steps: list[tuple[float, dict[str, str]]],
) -> None:
    machine = FailoverMachine(7, (*STATIC_RULES, *read_rules("c: if (custom.c == down) then restart();")))
    now, down_since = 0.0, dict.fromkeys(("ip.a", "intf.b", "custom.c"), float("inf"))
    for later, values in steps:
        now += later
        down_since = {name: min(down_since[name], now) if values[name] == "down" else float("inf") for name in values}
        machine, verdict = machine.evaluate(values, now)
        asked = {Action.STOPSTART: "ip.a", Action.RESTART: "custom.c"}
        if verdict.action:
            assert now - down_since[asked[verdict.action]] >= 7
        assert not verdict.held or now - down_since["intf.b"] >= 7
