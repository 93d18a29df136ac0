#!/usr/bin/python
# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cluster
short_description: Define the cluster that a node belongs to
version_added: 0.1.0
author:
  - The evidian.safekit contributors (@evidian)
description:
  - Applies C(cluster.xml) and the cluster key on a node, or removes both.
  - Every node of a cluster needs the same definition and the same key.
    The role P(evidian.safekit.cluster#role) takes care of the key.
extends_documentation_fragment:
  - evidian.safekit._attributes
  - evidian.safekit._attributes.action_group
  - evidian.safekit._attributes.state_module
  - evidian.safekit._connection
attributes:
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) applies the definition, V(absent) removes it together with the key.
    type: str
    choices: [present, absent]
    default: present
  cluster_xml:
    description:
      - The definition as an XML document.
      - Exactly one of O(cluster_xml) and O(lans) is needed with O(state=present).
    type: str
  lans:
    description: The definition as declarative data, with the names of C(cluster.xml).
    type: dict
    suboptions:
      port:
        description: The UDP port of the membership protocol. The node's default is 4800.
        type: int
      pulse:
        description: The interval between membership heartbeats, for example V(100ms).
        type: str
      mlost_count:
        description: Missed beats before a new leader is elected.
        type: int
      slost_count:
        description: Missed beats before a follower is declared offline.
        type: int
      lan:
        description: The networks.
        type: list
        elements: dict
        required: true
        suboptions:
          name:
            description: The logical name of the network, used by modules.
            type: str
            required: true
          command:
            description: Whether distributed commands use this network.
            type: bool
          node:
            description: The nodes on this network.
            type: list
            elements: dict
            required: true
            suboptions:
              name:
                description: The name of the node, the same on every network.
                type: str
                required: true
              addr:
                description: The address of the node as other nodes see it.
                type: str
                required: true
              laddr:
                description: The local address of the node, only with address translation.
                type: str
  witness:
    description:
      - The third place that remembers who may serve a mirror, see P(evidian.safekit.witness#role). Only with O(lans).
    type: dict
    suboptions:
      name:
        description: Its name in messages.
        type: str
        required: true
      addr:
        description: Its address as the nodes see it.
        type: str
        required: true
      port:
        description: The UDP port on which it listens. The node's default is 4803.
        type: int
      cluster:
        description: The name of this cluster at the witness, which may serve many. The node's default is V(cluster).
        type: str
  key:
    description:
      - The cluster key in base64.
      - Without it the node keeps its key, or makes one when it has none.
      - It is never logged nor shown in a diff.
    type: str
  locked:
    description:
      - Whether the node refuses later definitions until it is unlocked.
      - A locked node takes a new definition only when this option is given.
    type: bool
seealso:
  - module: evidian.safekit.cluster_info
  - plugin: evidian.safekit.to_cluster
    plugin_type: filter
"""

EXAMPLES = r"""
---
- name: Two nodes on one network
  evidian.safekit.cluster:
    lans:
      lan:
        - name: default
          node:
            - name: n1
              addr: 192.0.2.11
            - name: n2
              addr: 192.0.2.12

- name: A definition kept in a file, with a key from the vault
  evidian.safekit.cluster:
    cluster_xml: "{{ lookup('ansible.builtin.file', 'cluster.xml') }}"
    key: "{{ vault_cluster_key }}"

- name: Leave the cluster
  evidian.safekit.cluster:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: [apply the cluster configuration]
signature:
  description: The signature of the definition that the node applies; the one before the change in check mode.
  returned: success
  type: str
node:
  description: The name of this node in the definition.
  returned: when the node has a definition
  type: str
  sample: n1
error:
  description: The refusal of the node, with its stable C(code) and the place in the definition.
  returned: when the node refused
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.evidian.safekit.plugins.module_utils._client import Transport
from ansible_collections.evidian.safekit.plugins.module_utils._cluster import (
    WantedCluster,
    plan_cluster,
    present_cluster,
)
from ansible_collections.evidian.safekit.plugins.module_utils._connection import (
    CONNECTION_OPTIONS,
    EXPECTED_ERRORS,
    bare_node,
    carry_out,
    connect,
    fail,
)
from ansible_collections.evidian.safekit.plugins.module_utils._grammar import CLUSTER
from ansible_collections.evidian.safekit.plugins.module_utils._markup import MarkupError, to_xml
from ansible_collections.evidian.safekit.plugins.module_utils._plan import PlanError

NODE_OPTIONS = {
    "name": {"type": "str", "required": True},
    "addr": {"type": "str", "required": True},
    "laddr": {"type": "str"},
}
LAN_OPTIONS = {
    "name": {"type": "str", "required": True},
    "command": {"type": "bool"},
    "node": {"type": "list", "elements": "dict", "required": True, "options": NODE_OPTIONS},
}
LANS_OPTIONS = {
    "port": {"type": "int"},
    "pulse": {"type": "str"},
    "mlost_count": {"type": "int"},
    "slost_count": {"type": "int"},
    "lan": {"type": "list", "elements": "dict", "required": True, "options": LAN_OPTIONS},
}


WITNESS_OPTIONS = {
    "name": {"type": "str", "required": True},
    "addr": {"type": "str", "required": True},
    "port": {"type": "int"},
    "cluster": {"type": "str"},
}


def wanted_cluster(params: dict[str, t.Any]) -> WantedCluster:
    if params["state"] == "absent":
        return WantedCluster(None)
    xml = params["cluster_xml"]
    if xml is None:
        try:
            parts = {part: params[part] for part in ("lans", "witness") if params[part] is not None}
            xml = to_xml(parts, CLUSTER)
        except MarkupError as error:
            raise PlanError(str(error)) from None
    return WantedCluster(xml, params["key"], params["locked"])


def main(transport: t.Optional[Transport] = None) -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "cluster_xml": {"type": "str"},
            "lans": {"type": "dict", "options": LANS_OPTIONS},
            "witness": {"type": "dict", "options": WITNESS_OPTIONS},
            "key": {"type": "str", "no_log": True},
            "locked": {"type": "bool"},
            **CONNECTION_OPTIONS,
        },
        mutually_exclusive=[("cluster_xml", "lans"), ("cluster_xml", "witness")],
        required_if=[("state", "present", ("cluster_xml", "lans"), True)],
        supports_check_mode=True,
    )
    client = connect(module, transport)
    try:
        wanted = wanted_cluster(module.params)
        bare = bare_node(module, client)
        before = present_cluster(client, bare)
        plan = plan_cluster(client, wanted, before, bare)
        result, answers = carry_out(module, client, plan)
        after = present_cluster(client, bare) if answers else before
    except EXPECTED_ERRORS as error:
        fail(module, error)
    module.exit_json(signature=after.get("signature"), node=after.get("node"), **result)


if __name__ == "__main__":
    main()
