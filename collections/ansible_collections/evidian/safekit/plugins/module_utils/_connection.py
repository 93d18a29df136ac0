# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What every module of the collection shares: the option for the socket, the client made from it, and how an error ends
# a module.
#
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.evidian.safekit.plugins.module_utils._client import (
    DEFAULT_SOCKET,
    ApiError,
    Client,
    NoDaemon,
    SocketTransport,
    Transport,
)
from ansible_collections.evidian.safekit.plugins.module_utils._plan import Plan, PlanError, apply

NOT_INSTALLED = (
    "The runtime is not installed on this node yet: "
    "what would be done is computed for a node without any configuration."
)

CONNECTION_OPTIONS: dict[str, dict[str, t.Any]] = {"socket": {"type": "path", "default": DEFAULT_SOCKET}}
WAIT_OPTIONS: dict[str, dict[str, t.Any]] = {
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 300},
}


def connect(module: AnsibleModule, transport: t.Optional[Transport]) -> Client:
    """The client of this node; a test gives a transport of its own."""
    return Client(transport if transport is not None else SocketTransport(module.params["socket"]))


def bare_node(module: AnsibleModule, client: Client) -> bool:
    """Whether there is no runtime yet, which only check mode accepts."""
    try:
        client.get("node")
    except NoDaemon as error:
        if error.installed or not module.check_mode:
            raise
        module.warn(NOT_INSTALLED)
        return True
    return False


def carry_out(module: AnsibleModule, client: Client, plan: Plan) -> tuple[dict[str, t.Any], list[dict[str, t.Any]]]:
    """Apply the plan unless in check mode; the common part of the result, and the answers (none in check mode)."""
    for warning in plan.warnings:
        module.warn(warning)
    result: dict[str, t.Any] = {"changed": plan.changed, "actions": plan.actions}
    if module._diff:
        result["diff"] = plan.diff
    answers: list[dict[str, t.Any]] = []
    if plan.changed and not module.check_mode:
        answers = apply(client, plan)
    return result, answers


def fail(module: AnsibleModule, error: Exception) -> t.NoReturn:
    """End the module with what the error knows."""
    if isinstance(error, ApiError):
        module.fail_json(msg=error.describe(), error={"code": error.code, "message": error.message, **error.facts})
    if isinstance(error, PlanError):
        module.fail_json(msg=str(error), **error.facts)
    module.fail_json(msg=str(error))


EXPECTED_ERRORS = (ApiError, NoDaemon, PlanError)
