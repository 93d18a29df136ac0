"""Rules in Lua (spec §6.4) are not carried out. Their usual form says the same as a simple rule, and that is what the
refusal shows.
"""

from __future__ import annotations

import re

HEADER = re.compile(r"\s*--\s*Lua\s+Rules\b", re.IGNORECASE)
_IF_THEN = re.compile(
    r"(?P<label>\w+)\s*=\s*if_then\s*\(\s*[\"'](?P<resource>[^\"']+)[\"']\s*,\s*[\"'](?P<state>\w+)[\"']\s*,"
    r"\s*Action\s*\.\s*(?P<action>\w+)"
)


def is_lua(text: str) -> bool:
    """Whether a section says of itself that it is Lua."""
    return HEADER.match(text) is not None


def as_simple_rules(text: str) -> tuple[str, ...]:
    """The simple rules that say the same as the `if_then` entries of a section; empty when there are none."""
    return tuple(
        f"{found['label']}: if ({found['resource']} == {found['state']}) then {found['action']}();"
        for found in _IF_THEN.finditer(text)
    )
