#!/usr/bin/python
# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cluster_info
short_description: Read the cluster that a node belongs to
version_added: 0.1.0
author:
  - The evidian.safekit contributors (@evidian)
description:
  - Returns the definition that the node applies, and on request what the node knows of the others, or the cluster key.
extends_documentation_fragment:
  - evidian.safekit._attributes
  - evidian.safekit._attributes.action_group
  - evidian.safekit._attributes.info_module
  - evidian.safekit._connection
options:
  nodes:
    description: Whether to return the nodes of the cluster and their modules as this node sees them.
    type: bool
    default: false
  with_key:
    description:
      - Whether to return the cluster key. Use C(no_log) on such a task.
    type: bool
    default: false
  allow_missing:
    description:
      - Whether a node without the runtime is an answer (RV(installed=false)) instead of a failure.
    type: bool
    default: false
seealso:
  - module: evidian.safekit.cluster
"""

EXAMPLES = r"""
---
- name: Ask a node for its cluster and the other nodes
  evidian.safekit.cluster_info:
    nodes: true
  register: cluster

- name: Every node is there
  ansible.builtin.assert:
    that: cluster.nodes | rejectattr('reachable') | length == 0
"""

RETURN = r"""
installed:
  description: Whether the runtime runs on the node.
  returned: success
  type: bool
cluster:
  description: The definition that the node applies.
  returned: when RV(installed=true)
  type: dict
  contains:
    configured:
      description: Whether the node belongs to a cluster.
      type: bool
    signature:
      description: The signature of the definition; equal on every node.
      type: str
    date:
      description: When it was applied.
      type: str
    locked:
      description: Whether later definitions are refused.
      type: bool
    xml:
      description: The XML document.
      type: str
    node:
      description: The name of this node.
      type: str
    lans:
      description: The networks with their nodes.
      type: list
      elements: dict
nodes:
  description: The nodes of the cluster, each with C(name), C(reachable), C(signature) and C(modules).
  returned: when O(nodes=true) and the node belongs to a cluster
  type: list
  elements: dict
key:
  description: The cluster key in base64; V(null) when there is none.
  returned: when O(with_key=true)
  type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.evidian.safekit.plugins.module_utils._client import NoDaemon, Transport
from ansible_collections.evidian.safekit.plugins.module_utils._connection import (
    CONNECTION_OPTIONS,
    EXPECTED_ERRORS,
    connect,
    fail,
)


def main(transport: t.Optional[Transport] = None) -> None:
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "bool", "default": False},
            "with_key": {"type": "bool", "default": False, "no_log": False},
            "allow_missing": {"type": "bool", "default": False},
            **CONNECTION_OPTIONS,
        },
        supports_check_mode=True,
    )
    client = connect(module, transport)
    result: dict[str, t.Any] = {"installed": True}
    try:
        result["cluster"] = client.get("cluster")
        if module.params["nodes"] and result["cluster"]["configured"]:
            result["nodes"] = client.get("cluster", "state")["nodes"]
        if module.params["with_key"]:
            result["key"] = client.get("cluster", "key")["key"]
    except NoDaemon as error:
        if error.installed or not module.params["allow_missing"]:
            fail(module, error)
        result = {"installed": False, **({"key": None} if module.params["with_key"] else {})}
    except EXPECTED_ERRORS as error:
        fail(module, error)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
