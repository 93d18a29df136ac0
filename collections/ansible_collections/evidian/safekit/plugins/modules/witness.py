#!/usr/bin/python
# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: witness
short_description: Make a node the witness of a cluster
version_added: 0.1.0
author:
  - The evidian.safekit contributors (@evidian)
description:
  - A witness remembers who may serve each mirror module of a cluster. It is any third node with the runtime; it needs no
    cluster of its own, and one witness may serve many clusters.
  - The role P(evidian.safekit.witness#role) takes name, nodes and key from the nodes of the cluster.
extends_documentation_fragment:
  - evidian.safekit._attributes
  - evidian.safekit._attributes.action_group
  - evidian.safekit._attributes.state_module
  - evidian.safekit._connection
attributes:
  idempotent:
    support: full
options:
  cluster:
    description:
      - The name of the cluster at the witness, as O(evidian.safekit.cluster#module:witness.cluster) says.
    type: str
    required: true
  state:
    description:
      - V(present) serves the cluster, V(absent) serves it no longer and forgets who may serve its modules.
    type: str
    choices: [present, absent]
    default: present
  key:
    description:
      - The cluster key in base64. Needed with O(state=present).
      - It is never logged nor shown in a diff.
    type: str
  nodes:
    description:
      - Every node of the cluster, by its name there. Needed with O(state=present).
    type: list
    elements: str
  port:
    description:
      - The UDP port for every cluster of this witness. Without it the node keeps its port, 4803 at first.
    type: int
  addr:
    description:
      - The only address on which the witness listens. Without it the node keeps what it has, every address at first.
    type: str
  replace_key:
    description:
      - Whether a key that differs from the one of O(cluster) replaces it.
      - Without it another key is refused, since it may be that of another cluster with the same name.
    type: bool
    default: false
seealso:
  - module: evidian.safekit.cluster
"""

EXAMPLES = r"""
---
- name: Remember who may serve the modules of a cluster
  evidian.safekit.witness:
    cluster: shop
    key: "{{ vault_cluster_key }}"
    nodes: [n1, n2]
  no_log: true

- name: Serve it no longer
  evidian.safekit.witness:
    cluster: shop
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: [serve the cluster shop as a witness]
clusters:
  description: The names of the clusters that the node serves; those before the change in check mode.
  returned: success
  type: list
  elements: str
error:
  description: The refusal of the node, with its stable C(code).
  returned: when the node refused
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.evidian.safekit.plugins.module_utils._client import Client, Transport
from ansible_collections.evidian.safekit.plugins.module_utils._connection import (
    CONNECTION_OPTIONS,
    EXPECTED_ERRORS,
    bare_node,
    carry_out,
    connect,
    fail,
)
from ansible_collections.evidian.safekit.plugins.module_utils._plan import Plan, Step, changed_values


def present_witness(client: Client, bare: bool) -> dict[str, t.Any]:
    """What the node serves."""
    return {"addr": None, "port": None, "clusters": []} if bare else client.get("witness")


def plan_witness(client: Client, params: dict[str, t.Any], before: dict[str, t.Any], bare: bool) -> Plan:
    """Reads only: the node is asked what serving the cluster would change, and changes nothing."""
    name = params["cluster"]
    path = f"/witness/clusters/{name}"
    nodes = next((sorted(cluster["nodes"]) for cluster in before["clusters"] if cluster["name"] == name), None)
    if params["state"] == "absent":
        if nodes is None:
            return Plan()
        step = Step(f"serve the cluster {name} as a witness no longer", "DELETE", path)
        return Plan((step,), changed_values({"nodes": nodes}, {"nodes": None}, name))
    body = {option: params[option] for option in ("key", "nodes", "port", "addr", "replace_key")}
    if not bare and not client.call("PUT", path, {**body, "check": True})["changed"]:
        return Plan()
    present = {
        "nodes": nodes,
        "port": before["port"],
        "addr": before["addr"],
        "key": "absent" if nodes is None else "present",
    }
    wanted = {"nodes": sorted(params["nodes"]), "key": "present"}
    for option in ("port", "addr"):
        wanted[option] = before[option] if params[option] is None else params[option]
    if nodes is not None and present == wanted:
        wanted["key"] = "replaced"
    step = Step(f"serve the cluster {name} as a witness", "PUT", path, {**body, "check": False})
    return Plan((step,), changed_values(present, wanted, name))


def main(transport: t.Optional[Transport] = None) -> None:
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "key": {"type": "str", "no_log": True},
            "nodes": {"type": "list", "elements": "str"},
            "port": {"type": "int"},
            "addr": {"type": "str"},
            "replace_key": {"type": "bool", "default": False, "no_log": False},
            **CONNECTION_OPTIONS,
        },
        required_if=[("state", "present", ("key", "nodes"))],
        supports_check_mode=True,
    )
    client = connect(module, transport)
    try:
        bare = bare_node(module, client)
        before = present_witness(client, bare)
        result, answers = carry_out(module, client, plan_witness(client, module.params, before, bare))
        after = present_witness(client, bare) if answers else before
    except EXPECTED_ERRORS as error:
        fail(module, error)
    module.exit_json(clusters=[cluster["name"] for cluster in after["clusters"]], **result)


if __name__ == "__main__":
    main()
