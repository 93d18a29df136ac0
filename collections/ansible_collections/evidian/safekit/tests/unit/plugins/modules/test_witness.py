# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64

from ansible_collections.evidian.safekit.plugins.modules import witness
from ansible_collections.evidian.safekit.tests.unit.plugins.modules.fake_node import FakeNode
from ansible_collections.evidian.safekit.tests.unit.plugins.modules.running import four_calls, run

KEY = base64.b64encode(b"k" * 32).decode()
OTHER_KEY = base64.b64encode(b"o" * 32).decode()
SHOP = {"cluster": "shop", "key": KEY, "nodes": ["n2", "n1"]}


def test_a_cluster_is_served_once_and_its_key_is_never_shown(monkeypatch):
    node = FakeNode()
    result = four_calls(witness.main, node, monkeypatch, **SHOP)
    assert result["actions"] == ["serve the cluster shop as a witness"]
    assert result["clusters"] == ["shop"]
    assert result["diff"][0]["after"] == {"nodes": ["n1", "n2"], "key": "present"}
    assert KEY not in repr(result)


def test_more_nodes_and_another_port_are_a_change_of_their_own(monkeypatch):
    node = FakeNode()
    run(witness.main, node, monkeypatch, **SHOP)
    more = {**SHOP, "nodes": ["n1", "n2", "n3"], "port": 4900, "addr": "192.0.2.9"}
    result = four_calls(witness.main, node, monkeypatch, **more)
    assert result["diff"][0]["before"] == {"nodes": ["n1", "n2"], "port": 4803, "addr": None}
    assert result["diff"][0]["after"] == {"nodes": ["n1", "n2", "n3"], "port": 4900, "addr": "192.0.2.9"}


def test_another_key_is_refused_until_it_is_asked_for(monkeypatch):
    node = FakeNode()
    run(witness.main, node, monkeypatch, **SHOP)
    refused = run(witness.main, node, monkeypatch, **{**SHOP, "key": OTHER_KEY})
    assert refused["failed"] and refused["error"]["code"] == "witness.other_key"
    result = four_calls(witness.main, node, monkeypatch, **{**SHOP, "key": OTHER_KEY, "replace_key": True})
    assert result["diff"][0]["after"] == {"key": "replaced"}


def test_one_witness_serves_many_clusters_and_forgets_one(monkeypatch):
    node = FakeNode()
    run(witness.main, node, monkeypatch, **SHOP)
    run(witness.main, node, monkeypatch, **{**SHOP, "cluster": "bank", "key": OTHER_KEY})
    result = four_calls(witness.main, node, monkeypatch, cluster="shop", state="absent")
    assert result["clusters"] == ["bank"]


def test_check_mode_works_where_the_runtime_is_not_installed(monkeypatch):
    node = FakeNode()
    node.installed = False
    assert run(witness.main, node, monkeypatch, check=True, **SHOP)["changed"] is True
    assert run(witness.main, node, monkeypatch, check=True, cluster="shop", state="absent")["changed"] is False


def test_key_and_nodes_are_needed(monkeypatch):
    result = run(witness.main, FakeNode(), monkeypatch, cluster="shop")
    assert result["failed"] and "key, nodes" in result["msg"]
