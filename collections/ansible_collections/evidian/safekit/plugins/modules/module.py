#!/usr/bin/python
# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: module
short_description: Install, configure and remove an application module
version_added: 0.1.0
author:
  - The evidian.safekit contributors (@evidian)
description:
  - An application module is one protected application, its C(userconfig.xml) and its scripts.
  - The module is installed from a C(.safe) package or a directory on the node, or from content, and is then applied.
  - A running application module is never stopped. When a setting cannot be changed while it runs, nothing is changed
    and the error lists these settings.
  - When the node refuses the configuration, the former tree of the module is put back.
extends_documentation_fragment:
  - evidian.safekit._attributes
  - evidian.safekit._attributes.action_group
  - evidian.safekit._attributes.state_module
  - evidian.safekit._connection
attributes:
  idempotent:
    support: full
options:
  name:
    description: The name of the application module.
    type: str
    required: true
  state:
    description:
      - V(configured) installs the module and applies its configuration.
      - V(present) installs the module and leaves the applied configuration as it is.
      - V(absent) removes the module, which must be stopped.
    type: str
    choices: [configured, present, absent]
    default: configured
  id:
    description:
      - The number of the module, equal on every node, from which its ports are derived.
      - Without it a new module gets the next free number and an installed one keeps its own.
    type: int
  src:
    description:
      - A C(.safe) package or a directory on the node.
      - Exactly one of O(src) and O(userconfig) is needed unless O(state=absent).
    type: path
  userconfig:
    description: The text of C(userconfig.xml), for example from P(evidian.safekit.to_userconfig#filter).
    type: str
  scripts:
    description: The scripts of the module by name. Used with O(userconfig).
    type: dict
    default: {}
  files:
    description: Other files of the module by path, for example C(web/index.html). Used with O(userconfig).
    type: dict
    default: {}
seealso:
  - module: evidian.safekit.module_info
  - module: evidian.safekit.module_state
  - plugin: evidian.safekit.to_userconfig
    plugin_type: filter
"""

EXAMPLES = r"""
---
- name: A mirror from content
  evidian.safekit.module:
    name: db
    id: 1
    userconfig: "{{ db_userconfig | evidian.safekit.to_userconfig }}"
    scripts:
      prestart: "{{ lookup('ansible.builtin.file', 'db/prestart') }}"
      start_prim: "{{ lookup('ansible.builtin.file', 'db/start_prim') }}"
      stop_prim: "{{ lookup('ansible.builtin.file', 'db/stop_prim') }}"

- name: A module from a package that lies on the node
  evidian.safekit.module:
    name: web
    src: /root/web.safe

- name: Remove a stopped module
  evidian.safekit.module:
    name: web
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: [install module db, apply the configuration of module db]
module:
  description:
    - The module as the node has it, with C(id), C(mode), C(configured), C(signature), C(state) and more.
    - The one before the change in check mode; V(null) when it is not installed.
  returned: success
  type: dict
static_changes:
  description: The settings that cannot be changed while the module runs.
  returned: when the module runs and such a setting was to be changed
  type: list
  elements: str
  sample: [service.vip.interface_list]
error:
  description:
    - The refusal of the node, with its stable C(code).
    - It holds C(file), C(line), C(element), C(attribute), C(value) and C(expected) when they are known.
  returned: when the node refused
  type: dict
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.evidian.safekit.plugins.module_utils._client import Transport
from ansible_collections.evidian.safekit.plugins.module_utils._connection import (
    CONNECTION_OPTIONS,
    EXPECTED_ERRORS,
    bare_node,
    carry_out,
    connect,
    fail,
)
from ansible_collections.evidian.safekit.plugins.module_utils._module import (
    WantedModule,
    plan_module,
    present_module,
)
from ansible_collections.evidian.safekit.plugins.module_utils._package import (
    PackedFile,
    from_directory,
    rendered,
    unpacked,
)
from ansible_collections.evidian.safekit.plugins.module_utils._plan import PlanError


def wanted_tree(params: dict[str, t.Any]) -> t.Optional[t.Mapping[str, PackedFile]]:
    if params["state"] == "absent":
        return None
    if params["userconfig"] is not None:
        for option in ("scripts", "files"):
            for name, content in params[option].items():
                if not isinstance(content, str):
                    raise PlanError(f"{option}: the content of '{name}' must be a text")
        return rendered(params["userconfig"], params["scripts"], params["files"])
    if os.path.isdir(params["src"]):
        return from_directory(params["src"])
    try:
        with open(params["src"], "rb") as stream:
            return unpacked(stream.read(), params["src"])
    except OSError as error:
        raise PlanError("cannot read {}: {}".format(params["src"], error.strerror)) from None


def main(transport: t.Optional[Transport] = None) -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["configured", "present", "absent"], "default": "configured"},
            "id": {"type": "int"},
            "src": {"type": "path"},
            "userconfig": {"type": "str"},
            "scripts": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
            **CONNECTION_OPTIONS,
        },
        mutually_exclusive=[("src", "userconfig")],
        required_if=[
            ("state", "configured", ("src", "userconfig"), True),
            ("state", "present", ("src", "userconfig"), True),
        ],
        supports_check_mode=True,
    )
    client = connect(module, transport)
    params = module.params
    try:
        wanted = WantedModule(params["name"], wanted_tree(params), params["state"] == "configured", params["id"])
        bare = bare_node(module, client)
        before = present_module(client, params["name"], bare)
        plan = plan_module(client, wanted, before, bare)
        result, answers = carry_out(module, client, plan)
        after = present_module(client, params["name"], bare) if answers else before
    except EXPECTED_ERRORS as error:
        fail(module, error)
    warnings = [warning for answer in answers for warning in answer.get("warnings", ()) if warning not in plan.warnings]
    for warning in dict.fromkeys(warnings):
        module.warn(warning)
    module.exit_json(module=after, **result)


if __name__ == "__main__":
    main()
