"""maxloop: a module that keeps failing on a node is stopped there."""

from __future__ import annotations

import pytest

from safekit.automaton.loopguard import LoopGuard
from safekit.automaton.vocabulary import Action, Command

RESTART = Command(Action.RESTART, "errd")


def admitted(guard: LoopGuard, *times: float) -> tuple[LoopGuard, list[Action]]:
    actions = []
    for now in times:
        guard, command = guard.admit(RESTART, now)
        actions.append(command.action)
    return guard, actions


def test_the_action_after_maxloop_within_the_interval_becomes_a_stop() -> None:
    guard, actions = admitted(LoopGuard(3, 100), 0, 10, 20, 30)
    assert actions == [Action.RESTART] * 3 + [Action.STOP]
    assert guard.admit(RESTART, 40)[1] == RESTART


def test_the_stop_names_maxloop() -> None:
    guard, _ = admitted(LoopGuard(1, 100), 0)
    assert guard.admit(RESTART, 1)[1] == Command(Action.STOP, "maxloop")


def test_after_the_interval_the_count_begins_anew() -> None:
    _, actions = admitted(LoopGuard(2, 100), 0, 10, 111, 112)
    assert actions == [Action.RESTART] * 4


def test_an_administrators_command_begins_anew() -> None:
    guard, _ = admitted(LoopGuard(2, 100), 0, 1)
    guard, command = guard.admit(Command(Action.STOPSTART), 2)
    assert command == Command(Action.STOPSTART) and guard.count == 0
    assert admitted(guard, 3, 4)[1] == [Action.RESTART] * 2


@pytest.mark.parametrize("action", [Action.STOP, Action.SWAP, Action.START])
def test_actions_that_cannot_loop_are_not_counted(action: Action) -> None:
    guard, command = LoopGuard(0, 100).admit(Command(action, "rule"), 0)
    assert command.action is action and guard == LoopGuard(0, 100)


def test_an_interval_of_zero_switches_the_guard_off() -> None:
    assert admitted(LoopGuard(1, 0), 0, 1, 2)[1] == [Action.RESTART] * 3


def test_what_a_handler_counts_is_counted_like_an_automatic_action() -> None:
    guard = LoopGuard(2, 100.0).counted(0.0)
    assert not guard.reached(1.0)
    guard, command = guard.admit(Command(Action.RESTART, "t_web"), 1.0)
    assert (command.action, guard.count, guard.reached(2.0), guard.reached(101.0)) == (Action.RESTART, 2, True, False)
    assert guard.admit(Command(Action.RESTART, "t_web"), 2.0)[1] == Command(Action.STOP, "maxloop")
    assert not guard.reset().reached(2.0)
    assert not LoopGuard(0, 0.0).counted(0.0).reached(0.0)


def test_the_history_of_the_resource_tells_of_the_count() -> None:
    guard, shown = LoopGuard(3, 100), ["0"]
    for now in (1000.7, 1010, 1020):
        guard = guard.counted(now)
        shown.append(guard.shown)
    again = LoopGuard(3, 100).remembered(shown[::-1])
    assert (again.began, again.count, again.reached(1030)) == (1000.0, 3, True)
    assert guard.reset().shown == "0"


@pytest.mark.parametrize("values", [[], ["0"], ["0", "1000", "1000"], ["somebody's"]])
def test_without_an_action_since_a_person_came_there_is_no_count(values: list[str]) -> None:
    assert LoopGuard(3, 100, 5.0, 2).remembered(values) == LoopGuard(3, 100)


def test_only_the_newest_series_counts() -> None:
    assert LoopGuard(3, 100).remembered(["2000", "2000", "1000", "0"]).count == 2
