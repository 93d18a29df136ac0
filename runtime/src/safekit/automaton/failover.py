"""The failover machine (spec §6.1, §6.4): from the values of resources to what the module is asked to do.

Pure: `evaluate` is called once a period, and at once after each change of a resource, with the present values and the time.

- An action counts only after some rule has asked for it during the whole `handle_time`. Several that count: the first in
  the order stop, stopstart, wait, restart, swap is done (`rules.ACTIONS`); the others wait until it is over.
- An action is called once, and again only after it was not asked for in between.
- `wait` is a level, not a call: as long as such a rule counts, the module is held in WAIT. It ends as soon as the rule does
  (the spec's implicit wakeup). In WAIT nothing runs that a hasty answer could harm: there a wait-rule counts at once.
- In WAIT a module stays until each resource that a wait-rule names has been tested once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from safekit.automaton.vocabulary import Action
from safekit.rules import ACTIONS, Rule, holds, read_rules, unsettled

STATIC_RULES = read_rules(
    """
    module_failure:     if (module.? == down) then wait();
    interface_failure:  if (intf.? == down) then wait();
    ip_failure:         if (ip.? == down) then stopstart();
    splitbrain_failure: if (splitbrain.uptodate == down) then wait();
    """
)
"""The rules that every module has (spec §6.4), unless `<failover extends="no">` replaces them."""

_NEVER = float("inf")


@dataclass(frozen=True)
class Verdict:
    """What an evaluation says.

    `held`: labels of the wait-rules that count. `pending`: resources that a wait-rule names and nobody has tested yet.
    `label`, `action`: what to call now, None for nothing. `again_s`: in how many seconds time alone changes the answer.
    """

    held: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    label: str = ""
    action: Action | None = None
    again_s: float = _NEVER


@dataclass(frozen=True)
class FailoverMachine:
    """`since` says for each action that is asked for since when, `called` which of them was called since then."""

    handle_time_s: float
    rules: tuple[Rule, ...] = STATIC_RULES
    since: Mapping[str, float] = field(default_factory=dict)
    called: frozenset[str] = frozenset()

    def evaluate(
        self, resources: Mapping[str, str], now: float, waiting: bool = False
    ) -> tuple[FailoverMachine, Verdict]:
        """The next machine and its verdict. `waiting`: the module is in WAIT, nothing of the application runs."""
        asking = {action: _labels(self.rules, action, resources) for action in ACTIONS}
        since = {action: self.since.get(action, now) for action, labels in asking.items() if labels}
        machine = replace(self, since=since, called=self.called & since.keys())
        ripe = [action for action in ACTIONS if action in since and now - since[action] >= self.handle_time_s]
        first = ripe[0] if ripe else ""
        holding = bool(asking["wait"]) and (waiting or first == "wait")
        verdict = Verdict(
            held=asking["wait"] if holding else (),
            pending=_pending(self.rules, resources) if waiting else (),
            again_s=min(
                (at + self.handle_time_s - now for action, at in since.items() if action not in ripe), default=_NEVER
            ),
        )
        if first in ("", "wait") or first in machine.called:
            return machine, verdict
        machine = replace(machine, called=machine.called | {first})
        return machine, replace(verdict, label=asking[first][0], action=Action(first))


def _labels(rules: Iterable[Rule], action: str, resources: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(rule.label for rule in rules if rule.action == action and holds(rule.condition, resources))


def _pending(rules: Iterable[Rule], resources: Mapping[str, str]) -> tuple[str, ...]:
    found = {name for rule in rules if rule.action == "wait" for name in unsettled(rule.condition, resources)}
    return tuple(sorted(found))
