# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.evidian.safekit.plugins.module_utils._client import ApiError, Client, NoDaemon
from ansible_collections.evidian.safekit.plugins.module_utils._module_state import (
    Goal,
    WantedState,
    await_goal,
    plan_state,
)
from ansible_collections.evidian.safekit.plugins.module_utils._plan import PlanError
from ansible_collections.evidian.safekit.plugins.modules import module, module_state
from ansible_collections.evidian.safekit.tests.unit.plugins.modules.fake_node import FakeNode, state_of
from ansible_collections.evidian.safekit.tests.unit.plugins.modules.running import four_calls, run

USERCONFIG = '<safe><service mode="mirror"><heart><heartbeat name="default"/></heart></service></safe>'


def node_in(monkeypatch, name, substate="Ready", mode="mirror", **more):
    node = FakeNode()
    run(module.main, node, monkeypatch, name="db", userconfig=USERCONFIG)
    node.modules["db"]["mode"] = mode
    node.modules["db"]["state"] = state_of(name, substate, **more)
    node.orders.clear()
    return node


@pytest.mark.parametrize(
    "state, present, action",
    [
        ("started", "STOP", "start"),
        ("stopped", "PRIM", "stop"),
        ("stopped", "WAIT", "stop"),
        ("primary", "STOP", "prim"),
        ("primary", "SECOND", "swap"),
        ("secondary", "STOP", "second"),
        ("secondary", "PRIM", "swap"),
    ],
)
def test_the_action_is_taken_once(monkeypatch, state, present, action):
    node = node_in(monkeypatch, present, "NotReady" if present in ("STOP", "WAIT") else "Ready")
    result = four_calls(module_state.main, node, monkeypatch, name="db", state=state)
    assert result["actions"] == [f"{action} module db"]
    assert node.orders == [f"POST /modules/db/actions/{action}"]
    assert result["before"]["state"] == present


@pytest.mark.parametrize(
    "state, present",
    [
        ("started", "PRIM"),
        ("started", "SECOND"),
        ("started", "UP"),
        ("stopped", "STOP"),
        ("primary", "PRIM"),
        ("primary", "ALONE"),
        ("secondary", "SECOND"),
    ],
)
def test_nothing_is_done_when_the_state_is_already_reached(monkeypatch, state, present):
    node = node_in(monkeypatch, present, "NotReady" if present == "STOP" else "Ready")
    result = run(module_state.main, node, monkeypatch, name="db", state=state)
    assert not result["failed"] and result["changed"] is False and node.orders == []
    assert result["state"]["state"] == present


def test_a_swap_without_a_named_primary_happens_each_time(monkeypatch):
    node = node_in(monkeypatch, "PRIM")
    for state in ("SECOND", "PRIM"):
        result = run(module_state.main, node, monkeypatch, name="db", state="swapped")
        assert result["changed"] is True and result["state"]["state"] == state


@pytest.mark.parametrize(
    "present, primary, swaps", [("PRIM", "n1", 0), ("PRIM", "n2", 1), ("SECOND", "n2", 0), ("SECOND", "n1", 1)]
)
def test_a_swap_with_a_named_primary_happens_only_when_needed(monkeypatch, present, primary, swaps):
    node = node_in(monkeypatch, present)
    for index in range(2):
        result = run(module_state.main, node, monkeypatch, name="db", state="swapped", primary_node=primary)
        assert not result["failed"] and result["changed"] is (index == 0 and swaps == 1)
    assert len(node.orders) == swaps


def test_a_restart_keeps_the_role_and_is_waited_for(monkeypatch):
    node = node_in(monkeypatch, "PRIM")
    result = run(module_state.main, node, monkeypatch, name="db", state="restarted")
    assert result["changed"] is True and result["state"]["since"] == "later"
    assert node.orders == ["POST /modules/db/actions/restart"]


@pytest.mark.parametrize(
    "state, present, substate, message",
    [
        ("primary", "WAIT", "NotReady", "module db waits on this node"),
        ("secondary", "ALONE", "Ready", "module db is primary on this node without a secondary"),
        ("swapped", "ALONE", "Ready", "module db cannot be swapped: it is ALONE (Ready) on this node"),
        ("swapped", "SECOND", "Transient", "module db cannot be swapped: it is SECOND (Transient) on this node"),
        ("restarted", "STOP", "NotReady", "module db cannot be restarted: it is STOP (NotReady) on this node"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_done(monkeypatch, state, present, substate, message):
    node = node_in(monkeypatch, present, substate)
    for check in (True, False):
        result = run(module_state.main, node, monkeypatch, check=check, name="db", state=state)
        assert result["failed"] and result["msg"].startswith(message) and result["state"]["state"] == present
    assert node.orders == []


@pytest.mark.parametrize("state", ["primary", "secondary", "swapped"])
def test_roles_belong_to_mirrors(monkeypatch, state):
    node = node_in(monkeypatch, "UP", mode="farm")
    result = run(module_state.main, node, monkeypatch, name="db", state=state)
    assert result["failed"] and result["msg"] == f"module db is a farm module: '{state}' is a state of mirror modules"


def test_an_unknown_module_is_stopped_but_cannot_be_started(monkeypatch):
    assert run(module_state.main, FakeNode(), monkeypatch, name="db", state="stopped")["changed"] is False
    result = run(module_state.main, FakeNode(), monkeypatch, name="db", state="started")
    assert result["failed"] and result["msg"] == "module db is not installed on this node"


def test_check_mode_before_the_module_exists_predicts_the_start(monkeypatch):
    assert run(module_state.main, FakeNode(), monkeypatch, check=True, name="db", state="started")["changed"] is True
    node = FakeNode()
    node.installed = False
    assert run(module_state.main, node, monkeypatch, check=True, name="db", state="primary")["actions"] == [
        "prim module db"
    ]


def test_without_waiting_the_answer_of_the_node_is_returned(monkeypatch):
    node = node_in(monkeypatch, "STOP", "NotReady")
    result = run(module_state.main, node, monkeypatch, name="db", state="started", wait=False)
    assert result["state"]["state"] == "WAIT" and result["state"]["substate"] == "Transient"


def test_a_module_that_stops_instead_of_starting_fails_at_once_with_its_log(monkeypatch):
    node = node_in(monkeypatch, "STOP", "NotReady")
    node.after_action["start"] = state_of("STOP", "NotReady", "later", reason="start_prim failed")
    result = run(module_state.main, node, monkeypatch, name="db", state="started", wait_timeout=100)
    assert result["failed"]
    assert result["msg"].startswith(
        "module db stopped instead of reaching PRIM or ALONE or SECOND or UP (Ready): it is STOP (NotReady)"
    )
    assert result["log"] == ["d heart E the script failed"]


def options_of(wanted):
    plan, _goal = plan_state(wanted, "n1", state_of("STOP", "NotReady"), "mirror")
    return plan.steps[0].body["options"]


def test_fullsync_goes_with_a_forced_role():
    assert options_of(WantedState("db", "primary", fullsync=True)) == {"fullsync": True, "nosync": False}
    assert options_of(WantedState("db", "started", fullsync=True)) == {"fullsync": False, "nosync": False}
    plan, _goal = plan_state(WantedState("db", "swapped", nosync=True), "n1", state_of("PRIM", "Ready"), "mirror")
    assert plan.steps[0].body["options"] == {"fullsync": False, "nosync": True}


class Clock:
    """A clock that only waiting moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def pause(self, seconds):
        self.now += seconds


class ScriptedClient(Client):
    """Answers each wait with the next of a list: a state, or an error to raise. Each wait lasts ten seconds."""

    def __init__(self, clock, answers):
        self.clock = clock
        self.answers = list(answers)

    def get(self, *parts, seconds=None, **query):
        if parts[-1] == "log":
            return {"entries": []}
        self.clock.now += 10
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def wait_with(answers, seconds=60.0):
    clock = Clock()
    before = state_of("STOP", "NotReady")
    return await_goal(
        ScriptedClient(clock, answers), "db", Goal(("PRIM", "ALONE"), "Ready"), before, seconds, clock, clock.pause
    )


def timeout(state):
    return ApiError(408, "wait.timeout", "not reached", {"state": state})


def test_the_wait_goes_on_while_the_daemon_is_restarted():
    away = NoDaemon("/run/x", "connection refused", installed=True)
    assert wait_with([away, timeout(state_of("WAIT", "Transient")), state_of("ALONE", "Ready")])["state"] == "ALONE"


def test_the_wait_ends_with_what_the_module_waits_for():
    waiting = state_of("WAIT", "NotReady", reason="not up to date", waiting_for=["n2"])
    with pytest.raises(PlanError) as caught:
        wait_with([timeout(waiting)], 30.0)
    assert str(caught.value) == (
        "module db did not within 30 s reach PRIM or ALONE (Ready): "
        "it is WAIT (NotReady): not up to date, waiting for n2"
    )
    assert caught.value.facts["state"] == waiting


def test_the_wait_says_when_the_daemon_stays_away():
    with pytest.raises(PlanError) as caught:
        wait_with([NoDaemon("/run/x", "connection refused", installed=True)], 30.0)
    assert str(caught.value) == "safekitd cannot be reached at /run/x: connection refused"


def test_another_refusal_ends_the_wait():
    with pytest.raises(ApiError):
        wait_with([ApiError(404, "module.unknown", "gone", {})])
