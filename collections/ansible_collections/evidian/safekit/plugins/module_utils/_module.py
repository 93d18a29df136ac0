# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The plan of the module `module`: from the application module that the node has to the one that is wanted. A running
# module is never stopped here; what cannot be changed while it runs is refused before anything is done.
#
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.evidian.safekit.plugins.module_utils._client import ApiError, Client, path_of
from ansible_collections.evidian.safekit.plugins.module_utils._grammar import USERCONFIG
from ansible_collections.evidian.safekit.plugins.module_utils._markup import MarkupError, differences, from_xml
from ansible_collections.evidian.safekit.plugins.module_utils._package import (
    USERCONFIG_PATH,
    PackedFile,
    packed,
    unpacked,
)
from ansible_collections.evidian.safekit.plugins.module_utils._plan import Plan, PlanError, Step, changed_values

# What may change while the module runs (spec §3: the parameters marked "dyn").
_DYNAMIC = re.compile(
    r"service\.("
    r"boot|boot_delay|maxloop|loop_interval|automatic_reboot|heart|user|errd|check"
    r"|rfs\.(async|nbrei|reitimeout|reidetail|flow)"
    r")(?=[.\[]|\Z)"
)


@dataclass(frozen=True)
class WantedModule:
    """``tree`` None: no module of this name. ``configured``: the tree is also applied."""

    name: str
    tree: Optional[Mapping[str, PackedFile]]
    configured: bool = True
    id: Optional[int] = None


def present_module(client: Client, name: str, bare: bool) -> Optional[dict[str, Any]]:
    """What the node says of the module; None when it is not installed."""
    if bare:
        return None
    try:
        return client.get("modules", name)
    except ApiError as error:
        if error.code == "module.unknown":
            return None
        raise


def runs(info: Optional[Mapping[str, Any]]) -> bool:
    return info is not None and info["state"]["state"] not in ("STOP", "NOT_CONFIGURED")


def plan_module(client: Client, wanted: WantedModule, before: Optional[Mapping[str, Any]], bare: bool) -> Plan:
    """Reads only: the node validates the package and says what installing it would change."""
    if wanted.tree is None:
        return _plan_removal(wanted, before)
    userconfig = wanted.tree.get(USERCONFIG_PATH)
    if userconfig is None:
        raise PlanError(f"the package of module {wanted.name} holds no {USERCONFIG_PATH}")
    after_data = _declared(userconfig.text)

    present_package: Optional[str] = None
    present_tree: Mapping[str, PackedFile] = {}
    if before is not None:
        present_package = client.get("modules", wanted.name, "package")["package"]
        present_tree = unpacked(base64.b64decode(present_package), f"the installed module {wanted.name}")

    body = {
        "package": base64.b64encode(packed(wanted.tree)).decode("ascii"),
        "id": wanted.id,
        "replace": True,
    }
    installing, warnings, identifier = True, (), wanted.id
    if not bare:
        answer = client.call("PUT", path_of("modules", wanted.name), {**body, "check": True})
        installing, warnings, identifier = bool(answer["changed"]), tuple(answer.get("warnings", ())), answer["id"]
    applying = wanted.configured and (
        installing or before is None or not before["configured"] or before["signature"] != before["edited_signature"]
    )
    if applying and runs(before):
        _refuse_static_changes(wanted.name, before, after_data)

    steps = []
    if installing:
        steps.append(_install_step(wanted.name, body, before, present_package))
    if applying:
        text = f"apply the configuration of module {wanted.name}"
        steps.append(Step(text, "POST", path_of("modules", wanted.name, "config"), {"check": False}))
    diff = _file_diff(wanted.name, present_tree, wanted.tree) if installing else []
    diff += changed_values(
        {} if before is None else {"id": before["id"], "applied": before["configured"] and not _edited(before)},
        {
            "id": identifier,
            "applied": wanted.configured or (not installing and before is not None and before["configured"]),
        },
        f"module {wanted.name}",
    )
    return Plan(tuple(steps), diff if steps else [], warnings)


def _named(state: Mapping[str, Any]) -> str:
    return "{}, {}".format(state["state"], state["substate"])


def _edited(info: Mapping[str, Any]) -> bool:
    return bool(info["signature"] != info["edited_signature"])


def _plan_removal(wanted: WantedModule, before: Optional[Mapping[str, Any]]) -> Plan:
    if before is None:
        return Plan()
    if runs(before):
        state = before["state"]
        raise PlanError(
            f"module {wanted.name} runs on this node ({_named(state)}): stop it first, "
            f"with evidian.safekit.module_state or 'safekit stop -m {wanted.name}'",
            state=state,
        )
    steps = []
    if before["configured"]:
        text = f"remove the applied configuration of module {wanted.name}"
        steps.append(Step(text, "POST", path_of("modules", wanted.name, "deconfig"), {}))
    steps.append(Step(f"remove module {wanted.name}", "DELETE", path_of("modules", wanted.name)))
    values = {"id": before["id"], "mode": before["mode"], "applied": before["configured"]}
    return Plan(tuple(steps), changed_values(values, {}, f"module {wanted.name}"))


def _install_step(
    name: str, body: Mapping[str, Any], before: Optional[Mapping[str, Any]], package: Optional[str]
) -> Step:
    path = path_of("modules", name)
    if before is None:
        undo = Step(f"remove module {name} again", "DELETE", path)
        return Step(f"install module {name}", "PUT", path, {**body, "check": False}, undo)
    old = {"package": package, "id": before["id"], "check": False, "replace": True}
    undo = Step(f"put back the former module {name}", "PUT", path, old)
    return Step(f"update module {name}", "PUT", path, {**body, "check": False}, undo)


def _refuse_static_changes(name: str, before: Optional[Mapping[str, Any]], after: Any) -> None:
    if before is None or not before.get("userconfig_xml"):
        return
    changes = differences(_expanded(_declared(before["userconfig_xml"])), _expanded(after))
    static = [(place, old, new) for place, old, new in changes if not _DYNAMIC.match(place)]
    if static:
        state = before["state"]
        listed = "; ".join(f"{place} ({old!r} -> {new!r})" for place, old, new in static)
        raise PlanError(
            f"module {name} runs on this node ({_named(state)}) "
            f"and these settings cannot be changed while it runs: {listed}. "
            "Nothing was changed; stop the module on its nodes (the secondary first) to change them.",
            static_changes=[place for place, _old, _new in static],
            state=state,
        )


def _expanded(data: Any) -> Any:
    """The service with its macros replaced (spec §3.0)."""
    macros = data.get("macro", {}) if isinstance(data, dict) else {}

    def expand(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: expand(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [expand(inner) for inner in value]
        if isinstance(value, str):
            return re.sub(r"%([^%\s]+)%", lambda found: macros.get(found.group(1), found.group(0)), value)
        return value

    return {name: expand(value) for name, value in data.items() if name != "macro"}


def _declared(xml: str) -> Any:
    try:
        return from_xml(xml, USERCONFIG)
    except MarkupError as error:
        raise PlanError(f"userconfig.xml: {error}") from None


def _file_diff(name: str, before: Mapping[str, PackedFile], after: Mapping[str, PackedFile]) -> list[dict[str, Any]]:
    found = []
    for path in sorted(set(before) | set(after)):
        old, new = before.get(path), after.get(path)
        if old != new:
            header = f"module {name}: {path}"
            found.append(
                {
                    "before_header": header,
                    "after_header": header,
                    "before": "" if old is None else old.text,
                    "after": "" if new is None else new.text,
                }
            )
    return found
