"""An action that somebody asks for, as a command to the automaton (spec §4.3).

`swap nosync` is a `swap`: both copies hold everything before the roles change, so there is nothing to synchronise after it.
`secondforce` is a `second` that compares everything: what was changed since its date is copied, and an older file too
where it differs, since equal times are never taken for equal bytes.
"""

from __future__ import annotations

from datetime import datetime

from safekit.api.face import Action, ActionOptions, Caller, FaceError
from safekit.automaton.vocabulary import Action as Verb
from safekit.automaton.vocabulary import Command

_FORCED: dict[Action, Verb] = {"primforce": Verb.PRIM, "secondforce": Verb.SECOND}


def command_of(action: Action, caller: Caller, options: ActionOptions, now: datetime) -> Command:
    """The command. Raises FaceError for an option that the action does not know, or for one that it lacks."""
    _check(action, options, now)
    return Command(
        _FORCED.get(action) or Verb(action),
        caller.identity or "",
        options.fullsync or action in _FORCED,
        caller.user,
        force=action == "primforce",
    )


def _check(action: Action, options: ActionOptions, now: datetime) -> None:
    if options.nosync and action != "swap":
        raise FaceError("action.refused", f"`{action}` knows no nosync: only `swap` does")
    if options.fullsync and action not in ("prim", "second"):
        raise FaceError("action.refused", f"`{action}` knows no fullsync: only `prim` and `second` do")
    if options.date is not None and action != "secondforce":
        raise FaceError("action.refused", f"`{action}` knows no date: only `secondforce` does")
    if action != "secondforce":
        return
    if options.date is None:
        raise FaceError("request.invalid", "options: date is missing, `secondforce` needs one")
    if options.date > now:
        raise FaceError("request.invalid", f"options: date is {options.date.isoformat()}, expected one that has passed")
