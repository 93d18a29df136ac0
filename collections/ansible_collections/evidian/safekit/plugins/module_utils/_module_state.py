# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The plan of the module `module_state`: from the state that an application module is in to the one that is wanted, and
# the wait for it. The table below is the whole decision; the waiting has its clock and its pause given to it.
#
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.evidian.safekit.plugins.module_utils._client import ApiError, Client, NoDaemon, path_of
from ansible_collections.evidian.safekit.plugins.module_utils._plan import Plan, PlanError, Step, changed_values

PRIMARY = ("PRIM", "ALONE")
SECONDARY = ("SECOND",)
SERVING = (*PRIMARY, *SECONDARY, "UP")

WANTED = ("started", "stopped", "primary", "secondary", "swapped", "restarted")

_POLL_SECONDS = 10.0
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Goal:
    """Where the module shall arrive: one of ``states``, with ``substate``, not begun at ``newer_than``."""

    states: tuple[str, ...]
    substate: str
    newer_than: Optional[str] = None

    def reached(self, state: Mapping[str, Any]) -> bool:
        return (
            state["state"] in self.states
            and state["substate"] == self.substate
            and (self.newer_than is None or state["since"] != self.newer_than)
        )

    def __str__(self) -> str:
        return "{} ({})".format(" or ".join(self.states), self.substate)


_STOPPED = Goal(("STOP",), "NotReady")
_SERVES = Goal(SERVING, "Ready")
_IS_PRIMARY = Goal(PRIMARY, "Ready")
_IS_SECONDARY = Goal(SECONDARY, "Ready")


@dataclass(frozen=True)
class WantedState:
    """``primary_node`` makes ``swapped`` a statement: that node is primary, this one (``node``) is or is not it."""

    name: str
    state: str
    primary_node: Optional[str] = None
    fullsync: bool = False
    nosync: bool = False


def plan_state(
    wanted: WantedState, node: Optional[str], state: Mapping[str, Any], mode: Optional[str]
) -> tuple[Plan, Goal]:
    """Pure: the action that the present state asks for (none when it is what is wanted), and the goal of the wait."""
    target = wanted.state
    if target in ("primary", "secondary", "swapped") and mode is not None and mode != "mirror":
        raise PlanError(f"module {wanted.name} is a {mode} module: '{target}' is a state of mirror modules")
    if state["state"] == "NOT_CONFIGURED":
        if target == "stopped":
            return Plan(), Goal(("STOP", "NOT_CONFIGURED"), "NotReady")
        raise PlanError(f"module {wanted.name} is installed on this node but its configuration was never applied")
    if target == "swapped" and wanted.primary_node is not None:
        target = "primary" if wanted.primary_node == node else "secondary"
        if state["state"] == "STOP":
            raise PlanError(f"module {wanted.name} is stopped on this node: a swap needs PRIM and SECOND", state=state)

    action, goal = _DECISIONS[target](wanted, state)
    if action is None:
        return Plan(), goal
    body = {"identity": None, "options": _options(action, wanted)}
    text = f"{action} module {wanted.name}"
    step = Step(text, "POST", path_of("modules", wanted.name, "actions", action), body)
    diff = changed_values({"state": state["state"]}, {"state": "/".join(goal.states)}, f"module {wanted.name}")
    if not diff:
        diff = changed_values({"action": None}, {"action": action}, f"module {wanted.name}")
    return Plan((step,), diff), goal


def _start(_wanted: WantedState, state: Mapping[str, Any]) -> tuple[Optional[str], Goal]:
    return ("start" if state["state"] == "STOP" else None), _SERVES


def _stop(_wanted: WantedState, state: Mapping[str, Any]) -> tuple[Optional[str], Goal]:
    return (None if state["state"] == "STOP" else "stop"), _STOPPED


def _primary(wanted: WantedState, state: Mapping[str, Any]) -> tuple[Optional[str], Goal]:
    now = state["state"]
    if now in PRIMARY:
        return None, _IS_PRIMARY
    if now == "STOP":
        return "prim", _IS_PRIMARY
    if now == "SECOND":
        return _swap(wanted, state)[0], _IS_PRIMARY
    if state["substate"] == "Transient":
        return None, _IS_PRIMARY
    raise PlanError(
        f"module {wanted.name} waits on this node ({_why(state)}). "
        "Making it primary now may lose data that the other node holds: start the other "
        "node, or stop the module here first and ask for 'primary' again to accept that.",
        state=state,
    )


def _secondary(wanted: WantedState, state: Mapping[str, Any]) -> tuple[Optional[str], Goal]:
    now = state["state"]
    if now == "STOP":
        return "second", _IS_SECONDARY
    if now == "PRIM":
        return _swap(wanted, state)[0], _IS_SECONDARY
    if now == "ALONE":
        raise PlanError(
            f"module {wanted.name} is primary on this node without a secondary: no other node can take over",
            state=state,
        )
    return None, _IS_SECONDARY


def _swap(wanted: WantedState, state: Mapping[str, Any]) -> tuple[Optional[str], Goal]:
    now = state["state"]
    if now not in ("PRIM", "SECOND") or state["substate"] != "Ready":
        raise PlanError(
            f"module {wanted.name} cannot be swapped: it is {_why(state)} on this node, "
            "and a swap needs PRIM (Ready) and SECOND (Ready)",
            state=state,
        )
    return "swap", _IS_SECONDARY if now == "PRIM" else _IS_PRIMARY


def _restart(wanted: WantedState, state: Mapping[str, Any]) -> tuple[Optional[str], Goal]:
    now = state["state"]
    if now not in SERVING:
        raise PlanError(f"module {wanted.name} cannot be restarted: it is {_why(state)} on this node", state=state)
    return "restart", Goal(PRIMARY if now in PRIMARY else (now,), "Ready", newer_than=state["since"])


_DECISIONS: dict[str, Callable[[WantedState, Mapping[str, Any]], tuple[Optional[str], Goal]]] = {
    "started": _start,
    "stopped": _stop,
    "primary": _primary,
    "secondary": _secondary,
    "swapped": _swap,
    "restarted": _restart,
}


def _options(action: str, wanted: WantedState) -> dict[str, bool]:
    return {
        "fullsync": wanted.fullsync and action in ("prim", "second"),
        "nosync": wanted.nosync and action == "swap",
    }


def _why(state: Mapping[str, Any]) -> str:
    words = "{} ({})".format(state["state"], state["substate"])
    if state.get("reason"):
        words += ": {}".format(state["reason"])
    if state.get("waiting_for"):
        words += ", waiting for {}".format(", ".join(state["waiting_for"]))
    return words


def await_goal(
    client: Client,
    name: str,
    goal: Goal,
    before: Mapping[str, Any],
    seconds: float,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> dict[str, Any]:
    """The state in which the goal is reached; PlanError when it is not within ``seconds``, or at once when the module
    stopped instead. A daemon that is restarted meanwhile is waited for."""
    deadline = clock() + seconds
    state = dict(before)
    trouble = ""
    while True:
        left = deadline - clock()
        turn = max(0.0, min(left, _POLL_SECONDS))
        try:
            state = client.get(
                "modules",
                name,
                "wait",
                state=",".join(dict.fromkeys(goal.states)),
                substate=goal.substate,
                timeout=f"{turn:.1f}",
                seconds=turn + 30.0,
            )
            trouble = ""
        except ApiError as error:
            if error.code != "wait.timeout":
                raise
            told = error.facts.get("state")
            state = told if isinstance(told, dict) else client.get("modules", name, "state")
            trouble = ""
        except NoDaemon as error:
            trouble = str(error)
        if not trouble and goal.reached(state):
            return state
        stopped = state["state"] == "STOP" and state["since"] != before["since"] and "STOP" not in goal.states
        if stopped or clock() >= deadline:
            break
        pause(_PAUSE_SECONDS)
    waited = "stopped instead of reaching" if stopped else f"did not within {seconds:g} s reach"
    message = f"module {name} {waited} {goal}: it is {_why(state)}"
    raise PlanError(trouble or message, state=state, log=_last_log(client, name))


def _last_log(client: Client, name: str) -> list[str]:
    try:
        entries = client.get("modules", name, "log", lines=10).get("entries", [])
    except (ApiError, NoDaemon):
        return []
    return ["{} {} {} {}".format(entry["date"], entry["origin"], entry["level"], entry["message"]) for entry in entries]
