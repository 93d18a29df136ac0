"""The balancing groups that are in force, written and read again. Pure.

A configuration that changes while its module runs reaches the nodes one after the other. Were each to follow at once, two of
them would send a client back and forth for as long as that takes. So a node goes on with the groups that are in force, which
it keeps in its record, until every member has the new ones (`digest`); then all change, each in one transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from safekit.vip.service import BalancingGroup, BalancingRule, HashKey, IPAddress, Protocol

Written = list[dict[str, Any]]


def written(groups: Iterable[BalancingGroup]) -> Written:
    """The groups as JSON has them."""
    return [
        {
            "name": group.name,
            "powers": dict(sorted(group.powers.items())),
            "rules": [[rule.protocol.value, rule.key.value, _text(rule.address), rule.port] for rule in group.rules],
            "asked": [_text(address) for address in group.asked],
        }
        for group in groups
    ]


def read(groups: Sequence[Mapping[str, Any]]) -> tuple[BalancingGroup, ...]:
    """The opposite. ValueError, KeyError, TypeError if it was not written here."""
    return tuple(
        BalancingGroup(
            str(group["name"]),
            tuple(
                BalancingRule(Protocol(protocol), HashKey(key), _address(address), port)
                for protocol, key, address, port in group["rules"]
            ),
            {str(name): int(power) for name, power in group["powers"].items()},
            tuple(_address(address) for address in group["asked"]),
        )
        for group in groups
    )


def digest(groups: Iterable[BalancingGroup]) -> str:
    """What tells these groups from others; the same on every node."""
    return hashlib.sha256(json.dumps(written(groups)).encode()).hexdigest()[:16]


def _text(address: IPAddress | None) -> str | None:
    return None if address is None else str(address)


def _address(text: str | None) -> IPAddress | None:
    return None if text is None else ip_address(text)
