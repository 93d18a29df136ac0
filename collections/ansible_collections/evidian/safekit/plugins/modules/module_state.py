#!/usr/bin/python
# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: module_state
short_description: Start, stop, swap and restart an application module
version_added: 0.1.0
author:
  - The evidian.safekit contributors (@evidian)
description:
  - Brings an application module on this node into a state and waits for it.
  - The module asks the node for the present state first, and does nothing when it is already what is wanted.
extends_documentation_fragment:
  - evidian.safekit._attributes
  - evidian.safekit._attributes.action_group
  - evidian.safekit._attributes.state_module
  - evidian.safekit._connection
  - evidian.safekit._wait
attributes:
  idempotent:
    support: partial
    details:
      - O(state=restarted), and O(state=swapped) without O(primary_node), are actions and happen at each run.
options:
  name:
    description: The name of the application module.
    type: str
    required: true
  state:
    description:
      - V(started) starts a stopped module; the nodes agree on the roles.
      - V(stopped) stops the module.
      - V(primary) makes this node the primary of a mirror. A stopped module is started as primary, which declares that
        this node holds the valid data; a ready secondary swaps roles; a module that waits for better data is refused.
      - V(secondary) makes this node the secondary of a mirror.
      - V(swapped) exchanges the roles of a mirror; with O(primary_node) only when another node is primary.
      - V(restarted) restarts the application where it runs, without a change of role.
    type: str
    choices: [started, stopped, primary, secondary, swapped, restarted]
    required: true
  primary_node:
    description:
      - With O(state=swapped), the name in the cluster definition of the node that shall be primary.
    type: str
  fullsync:
    description: With O(state=primary) or O(state=secondary) of a stopped module, have the secondary copy everything.
    type: bool
    default: false
  nosync:
    description: Accepted with O(state=swapped); after a swap there is nothing to synchronise.
    type: bool
    default: false
seealso:
  - module: evidian.safekit.module
  - module: evidian.safekit.module_info
"""

EXAMPLES = r"""
---
- name: The first start of a mirror, on the node that holds the valid data
  evidian.safekit.module_state:
    name: db
    state: primary

- name: The other node follows and is ready when its files are synchronised
  evidian.safekit.module_state:
    name: db
    state: started
    wait_timeout: 3600

- name: Move the service to n2, unless it is already there
  evidian.safekit.module_state:
    name: db
    state: swapped
    primary_node: n2
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: [swap module db]
before:
  description: The state before.
  returned: success
  type: dict
state:
  description:
    - The state after the wait.
    - It holds C(state), C(substate), C(since), C(reason), C(detail), C(remote_state), C(waiting_for) and C(progress).
  returned: always
  type: dict
log:
  description: The last messages of the application module.
  returned: when the state was not reached
  type: list
  elements: str
error:
  description: The refusal of the node, with its stable C(code).
  returned: when the node refused
  type: dict
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.evidian.safekit.plugins.module_utils._client import Transport
from ansible_collections.evidian.safekit.plugins.module_utils._connection import (
    CONNECTION_OPTIONS,
    EXPECTED_ERRORS,
    WAIT_OPTIONS,
    bare_node,
    carry_out,
    connect,
    fail,
)
from ansible_collections.evidian.safekit.plugins.module_utils._module import present_module
from ansible_collections.evidian.safekit.plugins.module_utils._module_state import (
    WANTED,
    WantedState,
    await_goal,
    plan_state,
)
from ansible_collections.evidian.safekit.plugins.module_utils._plan import PlanError

NOT_CONFIGURED: dict[str, t.Any] = {
    "state": "STOP",
    "substate": "NotReady",
    "since": None,
    "reason": "",
    "waiting_for": [],
}


def main(transport: t.Optional[Transport] = None) -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": list(WANTED), "required": True},
            "primary_node": {"type": "str"},
            "fullsync": {"type": "bool", "default": False},
            "nosync": {"type": "bool", "default": False},
            **WAIT_OPTIONS,
            **CONNECTION_OPTIONS,
        },
        supports_check_mode=True,
    )
    client = connect(module, transport)
    params = module.params
    wanted = WantedState(params["name"], params["state"], params["primary_node"], params["fullsync"], params["nosync"])
    try:
        bare = bare_node(module, client)
        info = present_module(client, wanted.name, bare)
        if info is None and not module.check_mode and wanted.state != "stopped":
            raise PlanError(f"module {wanted.name} is not installed on this node")
        before = NOT_CONFIGURED if info is None else info["state"]
        if info is not None and module.check_mode and before["state"] == "NOT_CONFIGURED":
            before = NOT_CONFIGURED
        node = None if bare or wanted.primary_node is None else client.get("node")["name"]
        plan, goal = plan_state(wanted, node, before, None if info is None else info["mode"])
        result, answers = carry_out(module, client, plan)
        after = answers[-1]["state"] if answers else before
        if params["wait"] and info is not None and not module.check_mode:
            after = await_goal(client, wanted.name, goal, before, params["wait_timeout"], time.monotonic, time.sleep)
    except EXPECTED_ERRORS as error:
        fail(module, error)
    module.exit_json(before=before, state=after, **result)


if __name__ == "__main__":
    main()
