# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64

from ansible_collections.evidian.safekit.plugins.modules import cluster, cluster_info
from ansible_collections.evidian.safekit.tests.unit.plugins.modules.fake_node import FakeNode, Refusal
from ansible_collections.evidian.safekit.tests.unit.plugins.modules.running import four_calls, run

LANS = {
    "pulse": "100ms",
    "lan": [
        {
            "name": "default",
            "command": True,
            "node": [{"name": "n1", "addr": "192.0.2.1"}, {"name": "n2", "addr": "192.0.2.2"}],
        }
    ],
}
XML = """<cluster>
  <lans pulse="100ms">
    <lan name="default" command="on">
      <node name="n1" addr="192.0.2.1"/>
      <node name="n2" addr="192.0.2.2"/>
    </lan>
  </lans>
</cluster>
"""
KEY = base64.b64encode(b"k" * 32).decode()
OTHER_KEY = base64.b64encode(b"o" * 32).decode()


def test_a_cluster_is_defined_once(monkeypatch):
    node = FakeNode()
    result = four_calls(cluster.main, node, monkeypatch, lans=LANS)
    assert result["actions"] == ["apply the cluster configuration"]
    assert result["node"] == "n1"
    assert node.cluster == XML


def test_a_cluster_has_the_witness_that_it_names(monkeypatch):
    node = FakeNode()
    four_calls(
        cluster.main, node, monkeypatch, lans=LANS, witness={"name": "w", "addr": "192.0.2.9", "cluster": "shop"}
    )
    assert '<witness name="w" addr="192.0.2.9" cluster="shop"/>' in node.cluster


def test_the_xml_document_and_the_data_are_the_same_definition(monkeypatch):
    node = FakeNode()
    run(cluster.main, node, monkeypatch, lans=LANS)
    assert run(cluster.main, node, monkeypatch, cluster_xml=XML)["changed"] is False


def test_the_key_is_applied_and_never_shown(monkeypatch):
    node = FakeNode()
    result = four_calls(cluster.main, node, monkeypatch, lans=LANS, key=KEY)
    assert node.key == KEY
    assert KEY not in repr(result)


def test_no_key_keeps_the_present_one(monkeypatch):
    node = FakeNode()
    run(cluster.main, node, monkeypatch, lans=LANS, key=KEY)
    run(cluster.main, node, monkeypatch, lans={"lan": LANS["lan"]})
    assert node.key == KEY


def test_another_key_replaces_the_present_one(monkeypatch):
    node = FakeNode()
    run(cluster.main, node, monkeypatch, lans=LANS, key=KEY)
    result = four_calls(cluster.main, node, monkeypatch, lans=LANS, key=OTHER_KEY)
    assert node.key == OTHER_KEY
    assert result["diff"][0]["before"] == {"key": "present"}
    assert result["diff"][0]["after"] == {"key": "replaced"}


def test_the_diff_holds_both_definitions(monkeypatch):
    node = FakeNode()
    run(cluster.main, node, monkeypatch, lans=LANS)
    changed = run(cluster.main, node, monkeypatch, check=True, lans={**LANS, "pulse": "200ms"})
    assert changed["diff"][0]["before"]["cluster"]["lans"]["pulse"] == "100ms"
    assert changed["diff"][0]["after"]["cluster"]["lans"]["pulse"] == "200ms"


def test_the_lock_is_set_and_removed(monkeypatch):
    node = FakeNode()
    four_calls(cluster.main, node, monkeypatch, lans=LANS, locked=True)
    assert node.locked
    result = four_calls(cluster.main, node, monkeypatch, lans=LANS, locked=False)
    assert result["actions"] == ["unlock the cluster configuration"]
    assert not node.locked


def test_a_locked_node_refuses_another_definition(monkeypatch):
    node = FakeNode()
    run(cluster.main, node, monkeypatch, lans=LANS, locked=True)
    result = run(cluster.main, node, monkeypatch, lans={**LANS, "pulse": "200ms"})
    assert result["failed"] and result["error"]["code"] == "cluster.locked"


def test_a_locked_node_takes_another_definition_when_asked_to_and_is_locked_again(monkeypatch):
    node = FakeNode()
    run(cluster.main, node, monkeypatch, lans=LANS, locked=True)
    result = four_calls(cluster.main, node, monkeypatch, lans={**LANS, "pulse": "200ms"}, locked=True)
    assert result["actions"] == ["apply the cluster configuration", "lock the cluster configuration"]
    assert node.locked and "200ms" in node.cluster


def test_a_cluster_is_removed_once(monkeypatch):
    node = FakeNode()
    run(cluster.main, node, monkeypatch, lans=LANS)
    four_calls(cluster.main, node, monkeypatch, state="absent")
    assert node.cluster is None and node.key is None


def test_check_mode_works_where_the_runtime_is_not_installed(monkeypatch):
    node = FakeNode()
    node.installed = False
    assert run(cluster.main, node, monkeypatch, check=True, lans=LANS)["changed"] is True
    assert run(cluster.main, node, monkeypatch, check=True, state="absent")["changed"] is False


def test_without_the_runtime_the_socket_is_named(monkeypatch):
    node = FakeNode()
    node.installed = False
    result = run(cluster.main, node, monkeypatch, lans=LANS)
    assert result["failed"]
    assert result["msg"] == "safekitd cannot be reached at /run/safekit/safekitd.sock: no such socket"


def test_the_refusal_of_the_node_is_passed_on_with_its_place(monkeypatch):
    node = FakeNode()
    node.refuse["PUT /cluster check"] = Refusal(
        422,
        "config.value",
        "a bad address",
        file="cluster.xml",
        line=4,
        element="node",
        attribute="addr",
        value="x",
        expected="an address",
    )
    result = run(cluster.main, node, monkeypatch, lans=LANS)
    assert result["failed"] and node.orders == []
    assert (
        result["msg"]
        == "a bad address (file: cluster.xml, line: 4, element: node, attribute: addr, value: x, expected: an address)"
    )
    assert result["error"]["line"] == 4


def test_a_document_that_is_no_cluster_is_refused_before_the_node_is_asked(monkeypatch):
    node = FakeNode()
    result = run(cluster.main, node, monkeypatch, cluster_xml="<cluster>\n<lan/></cluster>")
    assert result["failed"] and node.orders == []
    assert result["msg"] == "cluster.xml: line 2: unknown element <lan> in <cluster>, expected one of: lans, witness"


def test_exactly_one_form_of_the_definition_is_needed(monkeypatch):
    node = FakeNode()
    assert run(cluster.main, node, monkeypatch)["failed"]
    assert run(cluster.main, node, monkeypatch, lans=LANS, cluster_xml=XML)["failed"]


def test_info_gives_no_key_unless_asked(monkeypatch):
    node = FakeNode()
    run(cluster.main, node, monkeypatch, lans=LANS, key=KEY)
    plain = run(cluster_info.main, node, monkeypatch)
    assert plain["cluster"]["configured"] and "key" not in plain and plain["changed"] is False
    full = run(cluster_info.main, node, monkeypatch, nodes=True, with_key=True)
    assert full["key"] == KEY
    assert [item["name"] for item in full["nodes"]] == ["n1"]


def test_info_of_a_bare_node_is_an_answer_when_allowed(monkeypatch):
    node = FakeNode()
    node.installed = False
    assert run(cluster_info.main, node, monkeypatch)["failed"]
    assert run(cluster_info.main, node, monkeypatch, allow_missing=True, with_key=True) == {
        "failed": False,
        "changed": False,
        "installed": False,
        "key": None,
    }
