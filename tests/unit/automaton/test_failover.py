"""The static rules: what a resource that is down asks for, and when."""

from __future__ import annotations

from safekit.automaton.failover import FailoverMachine
from safekit.automaton.vocabulary import Action


def test_a_rule_counts_only_after_the_answer_stayed_the_same_for_its_time() -> None:
    machine = FailoverMachine(15)
    for now in (0.0, 5.0, 10.0):
        machine, held, actions = machine.evaluate({"intf.eth0": "down"}, now)
        assert (held, actions) == ((), ())
    machine, held, actions = machine.evaluate({"intf.eth0": "down"}, 15.0)
    assert (held, actions) == (("interface_failure",), ())


def test_a_short_interruption_begins_the_time_anew() -> None:
    machine = FailoverMachine(15)
    machine, _, _ = machine.evaluate({"intf.eth0": "down"}, 0)
    machine, _, _ = machine.evaluate({"intf.eth0": "up"}, 10)
    machine, _, _ = machine.evaluate({"intf.eth0": "down"}, 12)
    machine, held, _ = machine.evaluate({"intf.eth0": "down"}, 20)
    assert held == ()


def test_leaving_a_wait_counts_at_once() -> None:
    machine = FailoverMachine(0)
    machine, held, _ = machine.evaluate({"intf.eth0": "down"}, 0)
    assert held == ("interface_failure",)
    _, held, _ = machine.evaluate({"intf.eth0": "up"}, 1)
    assert held == ()


def test_an_action_is_called_once_while_its_rule_stays_true() -> None:
    machine = FailoverMachine(15)
    machine, _, _ = machine.evaluate({"ip.10.0.0.1": "down"}, 0)
    machine, _, actions = machine.evaluate({"ip.10.0.0.1": "down"}, 15)
    assert actions == (("ip_failure", Action.STOPSTART),)
    machine, _, actions = machine.evaluate({"ip.10.0.0.1": "down"}, 20)
    assert actions == ()
    machine, _, _ = machine.evaluate({"ip.10.0.0.1": "up"}, 25)
    machine, _, _ = machine.evaluate({"ip.10.0.0.1": "down"}, 30)
    machine, _, actions = machine.evaluate({"ip.10.0.0.1": "down"}, 45)
    assert actions == (("ip_failure", Action.STOPSTART),)


def test_other_resources_and_init_ask_for_nothing() -> None:
    _machine, held, actions = FailoverMachine(0).evaluate({"intf.eth0": "init", "custom.x": "down"}, 0)
    assert (held, actions) == ((), ())
