"""The failover rules' language (spec §6.3, §6.4) in its simple form, pure: text in, rules out; rules and values in, truth out.

`language.py` what a rule is, `reader.py` from text to rules with errors that name line and column, `lua.py` the answer to
rules written in Lua. Imported by the configuration (which refuses what cannot be read) and by the failover machine.
"""

from safekit.rules.language import (
    ACTIONS,
    CLASSES,
    STATES,
    Both,
    Compare,
    Either,
    Expression,
    Not,
    Resource,
    Rule,
    State,
    holds,
    resources_of,
    unsettled,
)
from safekit.rules.reader import RuleError, read_rules

__all__ = [
    "ACTIONS",
    "CLASSES",
    "STATES",
    "Both",
    "Compare",
    "Either",
    "Expression",
    "Not",
    "Resource",
    "Rule",
    "RuleError",
    "State",
    "holds",
    "read_rules",
    "resources_of",
    "unsettled",
]
