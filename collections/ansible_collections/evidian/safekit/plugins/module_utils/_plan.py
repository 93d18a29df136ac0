# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# A plan: what would be done, computed by reading only, before anything acts. Check mode stops here; apply() is the only
# place of the collection's modules that changes a node.
#
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.evidian.safekit.plugins.module_utils._client import Client


class PlanError(Exception):
    """What is asked for cannot be done; the sentence says why and what to do. ``facts`` go into the result."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts


@dataclass(frozen=True)
class Step:
    """One order to the node and its name in the result. ``undo`` puts back what it did when a later one is refused."""

    text: str
    method: str
    path: str
    body: Optional[Mapping[str, Any]] = None
    undo: Optional[Step] = None


@dataclass(frozen=True)
class Plan:
    """Steps in order, with what they change (``diff`` as ansible shows it) and what the node warned of."""

    steps: tuple[Step, ...] = ()
    diff: list[dict[str, Any]] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    @property
    def actions(self) -> list[str]:
        return [step.text for step in self.steps]


def apply(client: Client, plan: Plan) -> list[dict[str, Any]]:
    """Do every step; the answers. When one is refused, those before it are undone, and the refusal is raised."""
    answers: list[dict[str, Any]] = []
    done: list[Step] = []
    for step in plan.steps:
        try:
            answers.append(client.call(step.method, step.path, step.body))
        except Exception:
            for earlier in reversed(done):
                if earlier.undo is not None:
                    client.call(earlier.undo.method, earlier.undo.path, earlier.undo.body)
            raise
        done.append(step)
    return answers


def changed_values(before: Mapping[str, Any], after: Mapping[str, Any], header: str) -> list[dict[str, Any]]:
    """The diff of two mappings, holding only the entries that differ; empty when none does."""
    names = [
        name
        for name in list(before) + [name for name in after if name not in before]
        if before.get(name) != after.get(name)
    ]
    if not names:
        return []
    return [
        {
            "before_header": header,
            "after_header": header,
            "before": {name: before[name] for name in names if name in before},
            "after": {name: after[name] for name in names if name in after},
        }
    ]
