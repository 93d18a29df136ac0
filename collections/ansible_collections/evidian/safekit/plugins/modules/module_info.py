#!/usr/bin/python
# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: module_info
short_description: Read the application modules of a node
version_added: 0.1.0
author:
  - The evidian.safekit contributors (@evidian)
description:
  - Returns the application modules that are installed on the node, with their configuration and state.
  - RV(modules[].userconfig_xml) given to P(evidian.safekit.from_userconfig#filter) is its declarative configuration.
extends_documentation_fragment:
  - evidian.safekit._attributes
  - evidian.safekit._attributes.action_group
  - evidian.safekit._attributes.info_module
  - evidian.safekit._connection
options:
  name:
    description: The name of one module. Without it every module is returned.
    type: str
  resources:
    description: Whether to return the resources of each module.
    type: bool
    default: false
  log:
    description: How many of the last messages of each module to return.
    type: int
    default: 0
  allow_missing:
    description:
      - Whether a node without the runtime is an answer (RV(installed=false)) instead of a failure.
    type: bool
    default: false
seealso:
  - module: evidian.safekit.module
  - module: evidian.safekit.module_state
"""

EXAMPLES = r"""
---
- name: Read every module
  evidian.safekit.module_info:
  register: node

- name: Show each state
  ansible.builtin.debug:
    msg: "{{ item.name }} is {{ item.state.state }} ({{ item.state.substate }})"
  loop: "{{ node.modules }}"
  loop_control:
    label: "{{ item.name }}"

- name: Read one module with its last messages
  evidian.safekit.module_info:
    name: db
    log: 20
"""

RETURN = r"""
installed:
  description: Whether the runtime runs on the node.
  returned: success
  type: bool
modules:
  description: The modules. Empty when O(name) is not installed.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the module.
      type: str
    id:
      description: The number of the module.
      type: int
    mode:
      description: V(mirror), V(farm) or V(light).
      type: str
    configured:
      description: Whether a configuration is applied.
      type: bool
    signature:
      description: The signature of the applied configuration.
      type: str
    edited_signature:
      description: The signature of the installed tree; not RV(modules[].signature) when it is not applied yet.
      type: str
    date:
      description: When the configuration was applied.
      type: str
    state:
      description:
        - The state.
        - It holds C(state), C(substate), C(since), C(reason), C(detail), C(remote_state), C(waiting_for), C(progress).
      type: dict
    ports:
      description: The ports that the module uses.
      type: dict
    boot:
      description: Whether the module starts with the node.
      type: str
    userconfig_xml:
      description: The text of its C(userconfig.xml).
      type: str
    resources:
      description: The resources, each with C(name), C(value) and C(date).
      returned: when O(resources=true)
      type: list
      elements: dict
    log:
      description: The last messages, each with C(date), C(origin), C(level) and C(message).
      returned: when O(log) is not 0
      type: list
      elements: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.evidian.safekit.plugins.module_utils._client import Client, NoDaemon, Transport
from ansible_collections.evidian.safekit.plugins.module_utils._connection import (
    CONNECTION_OPTIONS,
    EXPECTED_ERRORS,
    connect,
    fail,
)
from ansible_collections.evidian.safekit.plugins.module_utils._module import present_module


def read_modules(client: Client, params: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    if params["name"] is None:
        modules = list(client.get("modules")["modules"])
    else:
        found = present_module(client, params["name"], bare=False)
        modules = [] if found is None else [found]
    for item in modules:
        if params["resources"]:
            item["resources"] = client.get("modules", item["name"], "resources")["resources"]
        if params["log"]:
            item["log"] = client.get("modules", item["name"], "log", lines=params["log"])["entries"]
    return modules


def main(transport: t.Optional[Transport] = None) -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "resources": {"type": "bool", "default": False},
            "log": {"type": "int", "default": 0},
            "allow_missing": {"type": "bool", "default": False},
            **CONNECTION_OPTIONS,
        },
        supports_check_mode=True,
    )
    client = connect(module, transport)
    installed = True
    modules: list[dict[str, t.Any]] = []
    try:
        modules = read_modules(client, module.params)
    except NoDaemon as error:
        if error.installed or not module.params["allow_missing"]:
            fail(module, error)
        installed = False
    except EXPECTED_ERRORS as error:
        fail(module, error)
    module.exit_json(changed=False, installed=installed, modules=modules)


if __name__ == "__main__":
    main()
