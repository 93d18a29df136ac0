# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64

import pytest

from ansible_collections.evidian.safekit.plugins.module_utils._package import packed, rendered, unpacked
from ansible_collections.evidian.safekit.plugins.modules import module, module_info
from ansible_collections.evidian.safekit.tests.unit.plugins.modules.fake_node import FakeNode, Refusal, state_of
from ansible_collections.evidian.safekit.tests.unit.plugins.modules.running import four_calls, run

USERCONFIG = """<safe>
  <service mode="mirror" maxloop="3">
    <heart pulse="200ms"><heartbeat name="default"/></heart>
    <vip><interface_list><interface><real_interface>
      <virtual_addr addr="192.0.2.100" where="one_side_alias"/>
    </real_interface></interface></interface_list></vip>
    <user/>
  </service>
</safe>
"""
SCRIPTS = {"start_prim": "#!/bin/sh\nexit 0\n", "stop_prim": "#!/bin/sh\nexit 0\n"}
DB = {"name": "db", "userconfig": USERCONFIG, "scripts": SCRIPTS}


def running_node(monkeypatch):
    node = FakeNode()
    run(module.main, node, monkeypatch, **DB)
    node.modules["db"]["state"] = state_of("PRIM", "Ready")
    node.orders.clear()
    return node


def test_a_module_is_installed_and_applied_once(monkeypatch):
    node = FakeNode()
    result = four_calls(module.main, node, monkeypatch, id=7, **DB)
    assert result["actions"] == ["install module db", "apply the configuration of module db"]
    assert node.orders == ["PUT /modules/db", "POST /modules/db/config"]
    assert result["module"]["id"] == 7
    tree = unpacked(base64.b64decode(node.modules["db"]["package"]), "db")
    assert sorted(tree) == ["bin/start_prim", "bin/stop_prim", "conf/userconfig.xml"]


def test_present_installs_without_applying(monkeypatch):
    node = FakeNode()
    four_calls(module.main, node, monkeypatch, state="present", **DB)
    assert node.modules["db"]["applied"] is None
    result = four_calls(module.main, node, monkeypatch, **DB)
    assert result["actions"] == ["apply the configuration of module db"]


def test_a_changed_script_is_shown_and_applied(monkeypatch):
    node = FakeNode()
    run(module.main, node, monkeypatch, **DB)
    changed = {**DB, "scripts": {**SCRIPTS, "start_prim": "#!/bin/sh\nexit 1\n"}}
    result = four_calls(module.main, node, monkeypatch, **changed)
    assert result["actions"] == ["update module db", "apply the configuration of module db"]
    assert result["diff"][0] == {
        "before_header": "module db: bin/start_prim",
        "after_header": "module db: bin/start_prim",
        "before": "#!/bin/sh\nexit 0\n",
        "after": "#!/bin/sh\nexit 1\n",
    }


def test_a_package_and_a_directory_give_the_same_module(monkeypatch, tmp_path):
    tree = rendered(USERCONFIG, SCRIPTS, {"web/index.html": "<p>"})
    (tmp_path / "db.safe").write_bytes(packed(tree))
    for path, file in tree.items():
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(file.content)
    node = FakeNode()
    four_calls(module.main, node, monkeypatch, name="db", src=str(tmp_path / "db.safe"))
    for same in (
        {"src": str(tmp_path / "tree")},
        {"userconfig": USERCONFIG, "scripts": SCRIPTS, "files": {"web/index.html": "<p>"}},
    ):
        assert run(module.main, node, monkeypatch, name="db", **same)["changed"] is False


def test_a_running_module_takes_what_may_change_while_it_runs(monkeypatch):
    node = running_node(monkeypatch)
    changed = {**DB, "userconfig": USERCONFIG.replace("200ms", "300ms").replace('maxloop="3"', 'maxloop="5"')}
    four_calls(module.main, node, monkeypatch, **changed)
    assert node.orders == ["PUT /modules/db", "POST /modules/db/config"]


def test_a_running_module_is_never_stopped_and_says_what_cannot_change(monkeypatch):
    node = running_node(monkeypatch)
    changed = {**DB, "userconfig": USERCONFIG.replace(".100", ".101").replace("200ms", "300ms")}
    for check in (True, False):
        result = run(module.main, node, monkeypatch, check=check, **changed)
        assert result["failed"] and node.orders == []
        assert result["static_changes"] == ["service.vip.interface_list[0].real_interface[0].addr"]
        assert "'192.0.2.100' -> '192.0.2.101'" in result["msg"] and "Nothing was changed" in result["msg"]


def test_a_macro_counts_where_it_is_used(monkeypatch):
    node = FakeNode()
    with_macro = USERCONFIG.replace("<safe>", '<safe>\n<macro name="VIP" value="192.0.2.100"/>').replace(
        'addr="192.0.2.100"', 'addr="%VIP%"'
    )
    run(module.main, node, monkeypatch, name="db", userconfig=with_macro)
    node.modules["db"]["state"] = state_of("PRIM", "Ready")
    assert not run(module.main, node, monkeypatch, check=True, name="db", userconfig=USERCONFIG)["failed"]
    other = with_macro.replace("192.0.2.100", "192.0.2.200")
    assert run(module.main, node, monkeypatch, check=True, name="db", userconfig=other)["static_changes"]


def test_a_refused_configuration_puts_the_former_module_back(monkeypatch):
    node = running_node(monkeypatch)
    package = node.modules["db"]["package"]
    node.refuse["POST /modules/db/config"] = Refusal(409, "module.running", "module db must be stopped first")
    result = run(module.main, node, monkeypatch, **{**DB, "scripts": {"start_prim": "#!/bin/sh\n"}})
    assert result["failed"] and result["msg"] == "module db must be stopped first"
    assert node.orders == ["PUT /modules/db", "POST /modules/db/config", "PUT /modules/db"]
    assert node.modules["db"]["package"] == package


def test_a_refused_first_configuration_leaves_no_module(monkeypatch):
    node = FakeNode()
    node.refuse["POST /modules/db/config"] = Refusal(422, "config.unsupported", "not supported yet: vhost")
    assert run(module.main, node, monkeypatch, **DB)["failed"]
    assert node.modules == {}


def test_the_node_validates_before_anything_is_installed(monkeypatch):
    node = FakeNode()
    node.refuse["PUT /modules/db check"] = Refusal(
        422,
        "config.value",
        "bad time",
        file="userconfig.xml",
        line=3,
        element="heart",
        attribute="pulse",
        value="fast",
        expected="a time",
    )
    for check in (True, False):
        result = run(module.main, node, monkeypatch, check=check, **DB)
        assert result["failed"] and result["error"]["value"] == "fast" and "line: 3" in result["msg"]
    assert node.orders == []


def test_a_stopped_module_is_removed_once(monkeypatch):
    node = FakeNode()
    run(module.main, node, monkeypatch, **DB)
    result = four_calls(module.main, node, monkeypatch, name="db", state="absent")
    assert result["actions"] == ["remove the applied configuration of module db", "remove module db"]
    assert node.modules == {}


def test_a_running_module_is_not_removed(monkeypatch):
    node = running_node(monkeypatch)
    result = run(module.main, node, monkeypatch, name="db", state="absent")
    assert result["failed"] and node.orders == []
    assert result["msg"].startswith("module db runs on this node (PRIM, Ready): stop it first")


def test_check_mode_works_where_the_runtime_is_not_installed(monkeypatch):
    node = FakeNode()
    node.installed = False
    result = run(module.main, node, monkeypatch, check=True, **DB)
    assert result["changed"] is True and result["module"] is None
    assert run(module.main, node, monkeypatch, check=True, name="db", state="absent")["changed"] is False


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"userconfig": "<safe>\n<servise/></safe>"},
            "userconfig.xml: line 2: unknown element <servise> in <safe>, expected one of: macro, service",
        ),
        (
            {"userconfig": USERCONFIG, "scripts": {"../evil": "x"}},
            "'bin/../evil' is no path inside a package: expected a relative path such as bin/start_prim",
        ),
        (
            {"userconfig": USERCONFIG, "files": {"/etc/passwd": "x"}},
            "'/etc/passwd' is no path inside a package: expected a relative path such as bin/start_prim",
        ),
        (
            {"userconfig": USERCONFIG, "scripts": {"start_prim": 5}},
            "scripts: the content of 'start_prim' must be a text",
        ),
        ({"src": "/nowhere.safe"}, "cannot read /nowhere.safe: No such file or directory"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_done(monkeypatch, options, message):
    node = FakeNode()
    result = run(module.main, node, monkeypatch, name="db", **options)
    assert result["failed"] and result["msg"] == message and node.orders == []


def test_a_package_that_is_no_zip_is_named(monkeypatch, tmp_path):
    (tmp_path / "bad.safe").write_text("hello")
    result = run(module.main, FakeNode(), monkeypatch, name="db", src=str(tmp_path / "bad.safe"))
    assert result["failed"] and result["msg"] == "%s is not a package: File is not a zip file" % (tmp_path / "bad.safe")


def test_a_directory_with_a_link_is_refused(monkeypatch, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/userconfig.xml").write_text(USERCONFIG)
    (tmp_path / "conf/link").symlink_to("/etc/passwd")
    result = run(module.main, FakeNode(), monkeypatch, name="db", src=str(tmp_path))
    assert result["failed"] and "is a symbolic link" in result["msg"]


def test_a_binary_file_is_named_in_the_diff(monkeypatch, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/userconfig.xml").write_text(USERCONFIG)
    (tmp_path / "helper").write_bytes(b"\xff\xfe\x00")
    result = four_calls(module.main, FakeNode(), monkeypatch, name="db", src=str(tmp_path))
    assert [part["after"] for part in result["diff"] if part["after_header"].endswith("helper")] == [
        "(binary, 3 bytes)"
    ]


def test_a_package_is_always_the_same_bytes():
    assert packed(rendered(USERCONFIG, SCRIPTS, {})) == packed(
        rendered(USERCONFIG, dict(reversed(SCRIPTS.items())), {})
    )


def test_info_feeds_the_module_without_a_change(monkeypatch):
    node = FakeNode()
    run(module.main, node, monkeypatch, **DB)
    info = run(module_info.main, node, monkeypatch)["modules"][0]
    again = run(
        module.main,
        node,
        monkeypatch,
        name=info["name"],
        id=info["id"],
        userconfig=info["userconfig_xml"],
        scripts=SCRIPTS,
    )
    assert again["changed"] is False


def test_info_gives_resources_and_log_when_asked(monkeypatch):
    node = FakeNode()
    run(module.main, node, monkeypatch, **DB)
    plain = run(module_info.main, node, monkeypatch, name="db")["modules"][0]
    assert "resources" not in plain and "log" not in plain
    full = run(module_info.main, node, monkeypatch, name="db", resources=True, log=5)["modules"][0]
    assert full["resources"][0]["name"] == "rfs.uptodate" and full["log"][0]["message"] == "the script failed"
    assert run(module_info.main, node, monkeypatch, name="other")["modules"] == []


def test_info_of_a_bare_node_is_an_answer_when_allowed(monkeypatch):
    node = FakeNode()
    node.installed = False
    assert run(module_info.main, node, monkeypatch)["failed"]
    result = run(module_info.main, node, monkeypatch, allow_missing=True)
    assert result["installed"] is False and result["modules"] == []
