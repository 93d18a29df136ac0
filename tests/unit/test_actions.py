"""What a person asks for, as the command that the automaton gets."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from safekit.api.face import Action, ActionOptions, Caller, FaceError
from safekit.automaton.vocabulary import Action as Verb
from safekit.automaton.vocabulary import Command
from safekit.node.actions import command_of

ROOT = Caller("root", 0, 7)
NOW = datetime(2026, 11, 23, tzinfo=UTC)
NOTHING = ActionOptions()


@pytest.mark.parametrize(
    ("action", "options", "command"),
    [
        ("stopstart", NOTHING, Command(Verb.STOPSTART, user="root")),
        ("prim", ActionOptions(fullsync=True), Command(Verb.PRIM, fullsync=True, user="root")),
        ("primforce", NOTHING, Command(Verb.PRIM, fullsync=True, user="root", force=True)),
        ("secondforce", ActionOptions(date=NOW), Command(Verb.SECOND, fullsync=True, user="root")),
        ("swap", ActionOptions(nosync=True), Command(Verb.SWAP, user="root")),
    ],
)
def test_an_action_is_a_command(action: Action, options: ActionOptions, command: Command) -> None:
    assert command_of(action, ROOT, options, NOW) == command


@pytest.mark.parametrize(
    ("action", "options", "said"),
    [
        ("prim", ActionOptions(nosync=True), "`prim` knows no nosync: only `swap` does"),
        ("swap", ActionOptions(fullsync=True), "`swap` knows no fullsync: only `prim` and `second` do"),
        ("second", ActionOptions(date=NOW), "`second` knows no date: only `secondforce` does"),
        ("secondforce", NOTHING, "date is missing"),
        ("secondforce", ActionOptions(date=NOW.replace(year=2027)), "expected one that has passed"),
    ],
)
def test_an_option_that_an_action_does_not_know_is_refused(action: Action, options: ActionOptions, said: str) -> None:
    with pytest.raises(FaceError, match=said):
        command_of(action, ROOT, options, NOW)
