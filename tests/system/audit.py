"""What a node may hold: exactly what the states of its modules say. Anything else has leaked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.nodes import Node

_LOOK = """\
ip -o addr show | awk '$2 != "lo" { sub("/.*", "", $4); print "address", $4 }'
nft list tables | awk '$3 ~ /^safekit_/ { print "table", $3 }'
awk '$3 == "fuse.safekit" { print "mount", $2 }' /proc/self/mounts
pgrep -f '^[^ ]*/safekit-rfs ' | sed 's/^/rfs /'
systemctl list-units --no-legend --plain --all 'safekit-rfs@*' | awk '{ print "unit", $1 }'
printf 'modules '
curl --silent --unix-socket /run/safekit/safekitd.sock http://safekit/api/v1/modules || echo '{"modules": []}'
"""


@dataclass(frozen=True)
class Permitted:
    """What of ours may be on a node."""

    addresses: frozenset[str]
    tables: frozenset[str]
    mounts: frozenset[str]
    units: frozenset[str]


def leaks(node: Node, virtual: frozenset[str]) -> list[str]:
    """What is on the node that should not be, one sentence each: the node's own word against what its modules say."""
    found: dict[str, list[str]] = {"address": [], "table": [], "mount": [], "rfs": [], "unit": [], "modules": []}
    for line in node.out(_LOOK).splitlines():
        kind, _, what = line.partition(" ")
        found[kind].append(what)
    may = permitted(json.loads(found["modules"][0])["modules"])
    surplus = [
        *(f"virtual address {name}" for name in (set(found["address"]) & virtual) - may.addresses),
        *(f"nft table {name}" for name in set(found["table"]) - may.tables),
        *(f"mount {name}" for name in set(found["mount"]) - may.mounts),
        *(f"unit {name}" for name in set(found["unit"]) - may.units),
    ]
    if len(found["rfs"]) > 2 * len(may.units):  # each a worker and its supervisor
        surplus.append(f"{len(found['rfs'])} processes of data planes, {len(may.units)} modules replicate")
    return [f"{node.name}: {what}" for what in surplus]


def permitted(modules: Sequence[Mapping[str, Any]]) -> Permitted:
    """What a node may hold, after what its modules say of themselves."""
    addresses, tables, mounts, units = set(), set(), set(), set()
    for module in modules:
        xml = module["userconfig_xml"] or ""
        role = module["state"]["state"] if module["configured"] else "STOP"
        if role in ("PRIM", "ALONE", "UP"):
            addresses.update(re.findall(r'virtual_addr addr="([^"]+)"', xml))
        if role == "UP" and "<virtual_interface" in xml:
            tables.add(f"safekit_{module['name']}")
        if module["configured"] and "<replicated" in xml:
            units.add(f"safekit-rfs@{module['name']}.service")
            if role != "STOP":
                mounts.update(re.findall(r'replicated dir="([^"]+)"', xml))
    return Permitted(frozenset(addresses), frozenset(tables), frozenset(mounts), frozenset(units))
