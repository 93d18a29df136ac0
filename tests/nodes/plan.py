"""Who is on the segment: names, addresses, hardware addresses. Pure.

`SAFEKIT_LAB_NUMBER` (0 to 9, default 0) gives a second person on the same machine nodes of their own: other containers,
another segment, the same names inside.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

CLUSTER = {"n1": 11, "n2": 12, "n3": 13}
CLIENT = {"client": 20}


@dataclass(frozen=True)
class NodePlan:
    """One node as it shall be. `group` is the number that its port on the bridge carries."""

    name: str
    container: str
    address: str
    address6: str
    mac: str
    group: int


@dataclass(frozen=True)
class LabPlan:
    """The segment and who is on it."""

    number: int
    network: str
    subnet: str
    subnet6: str
    nodes: tuple[NodePlan, ...]


def lab_plan(number: int) -> LabPlan:
    """The plan of lab `number` (0 to 9)."""
    if not 0 <= number <= 9:
        raise ValueError(f"SAFEKIT_LAB_NUMBER={number}: expected 0 to 9")
    third = 77 + number
    suffix = f"-{number}" if number else ""
    return LabPlan(
        number=number,
        network=f"safekit-lab{suffix}",
        subnet=f"10.89.{third}.0/24",
        subnet6=f"fd00:89:{third}::/64",
        nodes=tuple(
            NodePlan(
                name=name,
                container=f"{name}{suffix}",
                address=f"10.89.{third}.{last}",
                address6=f"fd00:89:{third}::{last}",
                mac=f"02:00:0a:59:{third:02x}:{last:02x}",
                group=77_000 + 100 * number + last,
            )
            for name, last in (CLUSTER | CLIENT).items()
        ),
    )


def plan_here() -> LabPlan:
    """The plan that the environment asks for."""
    return lab_plan(int(os.environ.get("SAFEKIT_LAB_NUMBER") or 0))
