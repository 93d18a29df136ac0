# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The round trip between data and XML, over hand-written documents and over many generated ones, and what a wrong input
# is told.

from __future__ import annotations

import random
import xml.etree.ElementTree

import pytest

from ansible_collections.evidian.safekit.plugins.module_utils._grammar import (
    AGREEMENT,
    CLUSTER,
    NUMBER,
    SWITCH,
    TIME,
    USERCONFIG,
)
from ansible_collections.evidian.safekit.plugins.module_utils._markup import (
    MarkupError,
    differences,
    from_xml,
    to_xml,
)

MIRROR = """<?xml version="1.0"?>
<!DOCTYPE safe>
<safe>
  <macro name="SERVICES" value="mydb, myapp"/>
  <!-- a comment is no part of the configuration -->
  <service mode="mirror" boot="on" defaultprim="alone" failover="on" maxloop="3" loop_interval="24h">
    <heart><heartbeat name="default"/><heartbeat name="repli" ident="flow"/></heart>
    <vip><interface_list><interface check="on" arpreroute="on"><real_interface>
      <virtual_addr addr="192.0.2.20" where="one_side_alias" check="on"/>
    </real_interface></interface></interface_list></vip>
    <rfs async="second" sendtimeout="2s" reiallowedbw="5000" syncat="0 1 * * *" verifyat="30 2 * * sun">
      <replicated dir="/srv/data" mode="read_only">
      <tocheck path="marker"/><notreplicated regexpath=".*\\.tmp$"/>
    </replicated></rfs>
    <user><var name="SERVICES" value="%SERVICES%"/></user>
    <errd><proc name="myapp" service="yes" action="restart" class="prim"/></errd>
    <check>
      <tcp ident="app" when="prim" action="restart"><to addr="127.0.0.1" port="8080"/></tcp>
      <splitbrain ident="witness" exec="ping" arg="192.0.2.1"/>
    </check>
    <failover extends="yes"><![CDATA[wait if (tcp.app == down);]]><![CDATA[--Lua Rules
if_then("x", 'a < b && c')
]]></failover>
  </service>
</safe>
"""

MIRROR_DATA = {
    "macro": {"SERVICES": "mydb, myapp"},
    "service": {
        "mode": "mirror",
        "boot": True,
        "defaultprim": "alone",
        "failover": True,
        "maxloop": 3,
        "loop_interval": "24h",
        "heart": {"heartbeat": [{"name": "default"}, {"name": "repli", "ident": "flow"}]},
        "vip": {
            "interface_list": [
                {
                    "check": True,
                    "arpreroute": True,
                    "real_interface": [{"addr": "192.0.2.20", "where": "one_side_alias", "check": True}],
                }
            ]
        },
        "rfs": {
            "async": "second",
            "sendtimeout": "2s",
            "reiallowedbw": 5000,
            "syncat": "0 1 * * *",
            "verifyat": "30 2 * * sun",
            "replicated": [
                {
                    "dir": "/srv/data",
                    "mode": "read_only",
                    "tocheck": ["marker"],
                    "notreplicated": [{"regexpath": ".*\\.tmp$"}],
                }
            ],
        },
        "user": {"var": {"SERVICES": "%SERVICES%"}},
        "errd": {"proc": [{"name": "myapp", "service": True, "action": "restart", "class": "prim"}]},
        "check": {
            "tcp": [{"ident": "app", "when": "prim", "action": "restart", "to": {"addr": "127.0.0.1", "port": 8080}}],
            "splitbrain": {"ident": "witness", "exec": "ping", "arg": "192.0.2.1"},
        },
        "failover_rules": {
            "extends": True,
            "rules": ["wait if (tcp.app == down);", "--Lua Rules\nif_then(\"x\", 'a < b && c')\n"],
        },
    },
}

FARM = """<safe>
  <service mode="farm" boot="auto">
    <farm><lan name="default"/></farm>
    <vip><interface_list><interface check="on" arpreroute="on"><virtual_interface type="vmac_directed">
      <virtual_addr addr="192.0.2.30" where="alias" check="on"/>
    </virtual_interface></interface></interface_list>
    <loadbalancing_list><group name="Web">
      <cluster><host name="n1" power="1"/><host name="n2" power="2"/></cluster>
      <rule proto="arp" filter="on_addr"/>
      <rule port="443" proto="tcp" filter="on_addr"/>
    </group></loadbalancing_list></vip>
    <user/>
  </service>
</safe>
"""

FARM_DATA = {
    "service": {
        "mode": "farm",
        "boot": "auto",
        "farm": {"lan": ["default"]},
        "vip": {
            "interface_list": [
                {
                    "check": True,
                    "arpreroute": True,
                    "virtual_interface": {
                        "type": "vmac_directed",
                        "virtual_addr": [{"addr": "192.0.2.30", "where": "alias", "check": True}],
                    },
                }
            ],
            "loadbalancing_list": [
                {
                    "name": "Web",
                    "cluster": [{"name": "n1", "power": 1}, {"name": "n2", "power": 2}],
                    "rule": [
                        {"proto": "arp", "filter": "on_addr"},
                        {"port": 443, "proto": "tcp", "filter": "on_addr"},
                    ],
                }
            ],
        },
        "user": {},
    }
}


@pytest.mark.parametrize("document, data", [(MIRROR, MIRROR_DATA), (FARM, FARM_DATA)])
def test_a_document_is_read_as_declared(document, data):
    assert from_xml(document, USERCONFIG) == data


@pytest.mark.parametrize("data", [MIRROR_DATA, FARM_DATA])
def test_data_survives_the_round_trip(data):
    assert from_xml(to_xml(data, USERCONFIG), USERCONFIG) == data


def test_the_document_has_one_element_per_line_in_the_order_of_the_grammar():
    data = {
        "service": {
            "user": {"var": {"A": "<&>\"'\n\t"}},
            "heart": {"pulse": 200, "heartbeat": [{"name": "d"}]},
            "mode": "mirror",
        }
    }
    assert to_xml(data, USERCONFIG).splitlines() == [
        "<safe>",
        '  <service mode="mirror">',
        '    <heart pulse="200">',
        '      <heartbeat name="d"/>',
        "    </heart>",
        "    <user>",
        '      <var name="A" value="&lt;&amp;&gt;&quot;\'&#10;&#9;"/>',
        "    </user>",
        "  </service>",
        "</safe>",
    ]


ALPHABET = "abz09 .:/%*-_<>&\"'\n\t\r\u00e9\u4e16\U0001f600]["


def some_text(rng):
    return "".join(rng.choice(ALPHABET) for _index in range(rng.randint(0, 9)))


def some_value(rng, attribute):
    words = {SWITCH: [True, False], AGREEMENT: [True, False]}.get(attribute.kind, []) + list(attribute.words)
    if words:
        words = [int(word) for word in words] if attribute.kind == NUMBER else words
        return rng.choice([*words, "%MACRO%"])
    if attribute.kind == NUMBER:
        return rng.choice([0, 1, 65535, -1, 2**40, "*", "%PORT%", "007"])
    if attribute.kind == TIME:
        return rng.choice([0, 700, "200ms", "24h", "%T%"])
    return rng.choice([some_text(rng), "123", "on", "yes", "true"])


def some_data(rng, element):
    if element.wrapper:
        return [some_data(rng, element.children[0].element) for _index in range(rng.randint(0, 3))]
    data = {}
    for attribute in element.attributes:
        if element.pairs or rng.random() < 0.5:
            data[attribute.name] = some_value(rng, attribute)
    for child in element.children:
        if rng.random() < 0.6:
            if not child.many:
                data[child.key] = some_data(rng, child.element)
            elif child.element.pairs:
                data[child.key] = {some_text(rng): some_text(rng) for _index in range(rng.randint(1, 3))}
            else:
                data[child.key] = [some_data(rng, child.element) for _index in range(rng.randint(1, 3))]
    if element.sections is not None and rng.random() < 0.7:
        data[element.sections] = [
            some_text(rng).replace("\r", "").replace("]]", "") for _index in range(rng.randint(1, 3))
        ]
    if element.mark and list(data) == [element.attributes[0].name]:
        return data[element.attributes[0].name]
    return data


@pytest.mark.parametrize("grammar", [USERCONFIG, CLUSTER], ids=["userconfig", "cluster"])
@pytest.mark.parametrize("seed", range(300))
def test_any_data_of_the_grammar_survives_the_round_trip(seed, grammar):
    data = some_data(random.Random(seed), grammar)
    document = to_xml(data, grammar)
    assert from_xml(document, grammar) == data
    assert to_xml(from_xml(document, grammar), grammar) == document
    assert xml.etree.ElementTree.fromstring(document).tag == grammar.name


def every_element(element, seen=None):
    seen = [] if seen is None else seen
    seen.append(element)
    for child in element.children:
        every_element(child.element, seen)
    return seen


@pytest.mark.parametrize("grammar", [USERCONFIG, CLUSTER], ids=["userconfig", "cluster"])
def test_no_attribute_hides_an_element(grammar):
    for element in every_element(grammar):
        assert len(set(element.keys)) == len(element.keys), element.name


@pytest.mark.parametrize(
    "data, message",
    [
        ({"service": {"hart": {}}}, "safe.service: unknown key 'hart', expected one of: mode, boot, "),
        (
            {"service": {"heart": {"heartbeat": {"name": "x"}}}},
            "safe.service.heart.heartbeat: expected a list, got a mapping",
        ),
        (
            {"service": {"heart": {"heartbeat": [3.5]}}},
            "safe.service.heart.heartbeat[0]: expected a mapping, got '3.5'",
        ),
        ({"service": {"mode": "miror"}}, "safe.service.mode: expected one of mirror, farm, light, got 'miror'"),
        ({"service": {"boot": "yes"}}, "safe.service.boot: expected one of on, off, auto, ignore, got 'yes'"),
        ({"service": {"boot": 1}}, "safe.service.boot: expected one of on, off, auto, ignore, got '1'"),
        (
            {"service": {"maxloop": True}},
            "safe.service.maxloop: expected an integer, got a boolean; write the value in quotes",
        ),
        ({"service": {"maxloop": [3]}}, "safe.service.maxloop: expected an integer, got a list"),
        (
            {"service": {"heart": {"pulse": 0.2}}},
            "safe.service.heart.pulse: expected a duration such as 200ms, 30s or 24h, got '0.2'",
        ),
        ({"macro": ["A"]}, "safe.macro: expected a mapping of names to values, got a list"),
        ({"macro": {"A": "\x00"}}, "safe.macro.A.value: the character U+0000 cannot stand in XML"),
        (
            {"service": {"failover_rules": {"rules": "x"}}},
            "safe.service.failover_rules.rules: expected a list of texts, got 'x'",
        ),
        (
            {"service": {"failover_rules": {"rules": ["]]>"]}}},
            "safe.service.failover_rules.rules[0]: a rule cannot hold ']]>'",
        ),
        ({"service": []}, "safe.service: expected a mapping, got a list"),
        (
            {"service": {"user": {"var": {"A": True}}}},
            "safe.service.user.var.A.value: expected a text, got a boolean; write the value in quotes",
        ),
    ],
)
def test_wrong_data_is_named_with_its_place(data, message):
    with pytest.raises(MarkupError) as caught:
        to_xml(data, USERCONFIG)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "document, message",
    [
        ("<safe>\n<service mode='mirror'>\n</safe>", "line 3: not well-formed XML: mismatched tag"),
        ("", "line 1: not well-formed XML: no element found"),
        ("<cluster/>", "line 1: expected <safe>, got <cluster>"),
        (
            "<safe>\n  <servise/>\n</safe>",
            "line 2: unknown element <servise> in <safe>, expected one of: macro, service",
        ),
        (
            "<safe>\n<service\nmod='x'/></safe>",
            "line 2: unknown attribute 'mod' of <service>, expected one of: mode, boot",
        ),
        ("<safe><service/>\n<service/></safe>", "line 2: a second <service>, expected one"),
        ("<safe><macro name='A' value='1'/>\n<macro name='A' value='2'/></safe>", "line 2: a second <macro> named 'A'"),
        ("<safe>\n<macro name='A'/></safe>", "line 2: <macro> without attribute 'value'"),
        ("<safe>\nhello</safe>", "line 2: unexpected text 'hello' in <safe>"),
        ("<!DOCTYPE safe [\n<!ENTITY a 'b'>]><safe/>", "line 2: the entity 'a' is refused"),
        ("<!DOCTYPE safe [<!ENTITY % p SYSTEM 'file:///etc/passwd'>]><safe/>", "line 1: the entity 'p' is refused"),
    ],
)
def test_wrong_xml_is_named_with_its_line(document, message):
    with pytest.raises(MarkupError) as caught:
        from_xml(document, USERCONFIG)
    assert str(caught.value).startswith(message)


def test_differences_name_each_place_once():
    before = {"a": {"b": 1, "gone": 2}, "list": [{"x": 1}, {"x": 2}], "same": 0, "grown": [1]}
    after = {"a": {"b": 5, "new": 3}, "list": [{"x": 1}, {"x": 9}], "same": 0, "grown": [1, 2]}
    assert differences(before, after) == [
        ("a.b", 1, 5),
        ("a.gone", 2, None),
        ("a.new", None, 3),
        ("list[1].x", 2, 9),
        ("grown", [1], [1, 2]),
    ]
