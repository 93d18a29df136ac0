# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The plan of the module `cluster`: from what the node has applied to what is wanted. The key is compared, never shown.
#
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.evidian.safekit.plugins.module_utils._client import Client
from ansible_collections.evidian.safekit.plugins.module_utils._grammar import CLUSTER
from ansible_collections.evidian.safekit.plugins.module_utils._markup import MarkupError, from_xml
from ansible_collections.evidian.safekit.plugins.module_utils._plan import Plan, PlanError, Step, changed_values

UNCONFIGURED: dict[str, Any] = {"configured": False, "signature": None, "locked": False, "xml": None, "node": None}


@dataclass(frozen=True)
class WantedCluster:
    """``xml`` None: no cluster. ``key`` None: the present key, or a new one of the node. ``locked`` None: as it is."""

    xml: Optional[str]
    key: Optional[str] = None
    locked: Optional[bool] = None


def present_cluster(client: Client, bare: bool) -> dict[str, Any]:
    return dict(UNCONFIGURED) if bare else client.get("cluster")


def plan_cluster(client: Client, wanted: WantedCluster, before: Mapping[str, Any], bare: bool) -> Plan:
    """Reads only: the node is asked what applying would change, and changes nothing."""
    if wanted.xml is None:
        return _plan_removal(before)
    after_data = _declared(wanted.xml)
    before_data = _declared(before["xml"]) if before.get("xml") else None
    has_key, new_key = _compare_key(client, wanted, before)
    locked_before = bool(before.get("locked"))
    locked_after = locked_before if wanted.locked is None else wanted.locked

    warnings: tuple[str, ...] = ()
    content_changed = True
    if not bare:
        rehearsal: dict[str, Any] = {"xml": wanted.xml, "key": wanted.key, "check": True, "lock": None}
        if locked_before and wanted.locked is not None:
            rehearsal["lock"] = "unlock"
        answer = client.call("PUT", "/cluster", rehearsal)
        warnings = tuple(answer.get("warnings", ()))
        content_changed = not before.get("configured") or before_data != after_data or new_key
        if rehearsal["lock"] is None:
            content_changed = content_changed or bool(answer["changed"])

    diff = changed_values(
        {"cluster": before_data, "key": "present" if has_key else "absent", "locked": locked_before},
        {"cluster": after_data, "key": "replaced" if has_key and new_key else "present", "locked": locked_after},
        "cluster",
    )
    return Plan(tuple(_steps(wanted, content_changed, locked_before, locked_after)), diff, warnings)


def _plan_removal(before: Mapping[str, Any]) -> Plan:
    if not before.get("configured"):
        return Plan()
    present = {"cluster": _declared(before["xml"]) if before.get("xml") else None, "key": "present"}
    absent = {"cluster": None, "key": "absent"}
    return Plan(
        (Step("remove the cluster configuration and its key", "DELETE", "/cluster"),),
        changed_values(present, absent, "cluster"),
    )


def _steps(wanted: WantedCluster, content_changed: bool, locked_before: bool, locked_after: bool) -> list[Step]:
    body = {"xml": wanted.xml, "key": wanted.key, "check": False}
    steps = []
    if content_changed:
        lock = None
        if wanted.locked is not None and locked_before:
            lock = "unlock"
        elif locked_after and not locked_before:
            lock = "lock"
        steps.append(Step("apply the cluster configuration", "PUT", "/cluster", {**body, "lock": lock}))
        if locked_before and wanted.locked:
            steps.append(Step("lock the cluster configuration", "PUT", "/cluster", {**body, "lock": "lock"}))
    elif locked_after and not locked_before:
        steps.append(Step("lock the cluster configuration", "PUT", "/cluster", {**body, "lock": "lock"}))
    elif locked_before and not locked_after:
        steps.append(Step("unlock the cluster configuration", "PUT", "/cluster", {**body, "lock": "unlock"}))
    return steps


def _compare_key(client: Client, wanted: WantedCluster, before: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the node has a key, and whether the wanted one is another."""
    if not before.get("configured"):
        return False, wanted.key is not None
    present = client.get("cluster", "key").get("key")
    return present is not None, wanted.key is not None and wanted.key != present


def _declared(xml: str) -> Any:
    try:
        return from_xml(xml, CLUSTER)
    except MarkupError as error:
        raise PlanError(f"cluster.xml: {error}") from None
