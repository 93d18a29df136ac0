"""The failover machine (spec §6.1, §6.4) in its first form: the static rules, from resources to wishes.

Pure: `evaluate` is called once a period with the present values and the time; an answer must stay the same for
`handle_time` before it counts. Leaving a wait (the implicit wakeup) counts at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from safekit.automaton.vocabulary import Action

STATIC_RULES: Mapping[str, tuple[str, Action]] = {
    "interface_failure": ("intf.", Action.WAIT),
    "ip_failure": ("ip.", Action.STOPSTART),
}
"""Label of the rule: any resource of this class that is down asks for this action (`class.?`)."""


@dataclass(frozen=True)
class FailoverMachine:
    """`since` says for each rule that is true since when; `fired` which of them were acted upon."""

    handle_time_s: float
    since: Mapping[str, float] = field(default_factory=dict)
    fired: frozenset[str] = frozenset()

    def evaluate(
        self, resources: Mapping[str, str], now: float
    ) -> tuple[FailoverMachine, tuple[str, ...], tuple[tuple[str, Action], ...]]:
        """Returns the next machine, the wait-rules that hold now, and the actions to call now with the rule that
        asks.
        """
        true = {
            label: action
            for label, (prefix, action) in STATIC_RULES.items()
            if any(name.startswith(prefix) and value == "down" for name, value in resources.items())
        }
        since = {label: self.since.get(label, now) for label in true}
        ripe = {label for label in true if now - since[label] >= self.handle_time_s}
        held = tuple(sorted(label for label in ripe if true[label] is Action.WAIT))
        fresh = tuple(sorted(label for label in ripe - self.fired if true[label] is not Action.WAIT))
        machine = replace(self, since=since, fired=frozenset(ripe))
        return machine, held, tuple((label, true[label]) for label in fresh)
