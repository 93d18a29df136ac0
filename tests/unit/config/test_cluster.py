"""`cluster.xml` (spec §2)."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

import pytest

from safekit.config import load_cluster
from tests.unit.config.samples import CLUSTER, cluster, refused_cluster

APPENDIX_A = """<cluster><lans>
  <lan name="default"><node name="n1" addr="192.0.2.11"/><node name="n2" addr="192.0.2.12"/></lan>
  <lan name="repli"  ><node name="n1" addr="198.51.100.11"/><node name="n2" addr="198.51.100.12"/></lan>
</lans></cluster>
"""

TWO_NODES = '<node name="n1" addr="192.0.2.11"/><node name="n2" addr="192.0.2.12"/>'


def test_the_example_of_the_spec_is_a_cluster_of_two_nodes_on_two_lans() -> None:
    loaded = load_cluster(APPENDIX_A)
    assert loaded.node_names == ("n1", "n2")
    assert [lan.name for lan in loaded.lans] == ["default", "repli"]
    repli = loaded.lan("repli")
    assert repli is not None
    assert repli.node_names == ("n1", "n2")
    assert loaded.warnings == ()


def test_defaults_are_those_of_the_spec() -> None:
    loaded = load_cluster(APPENDIX_A)
    assert (loaded.port, loaded.mlost_count, loaded.slost_count) == (4800, 20, 10)
    assert loaded.pulse == timedelta(milliseconds=100)
    assert [lan.command for lan in loaded.lans] == [False, False]


def test_every_attribute_is_read() -> None:
    loaded = load_cluster(
        '<cluster><lans port="4900" pulse="1s" mlost_count="30" slost_count="15"><lan name="l" command="on">'
        '<node name="n1" addr="db1.example.org" laddr="10.0.0.1"/><node name="n2" addr="[2001:db8::2]"/>'
        "</lan></lans></cluster>"
    )
    assert (loaded.port, loaded.pulse, loaded.mlost_count, loaded.slost_count) == (4900, timedelta(seconds=1), 30, 15)
    first, second = loaded.lans[0].nodes
    assert (first.addr, first.laddr) == ("db1.example.org", ip_address("10.0.0.1"))
    assert second.addr == second.laddr == ip_address("2001:db8::2")
    assert loaded.lans[0].command


def test_the_local_address_is_the_address_unless_it_is_written() -> None:
    assert all(node.laddr == node.addr for lan in cluster().lans for node in lan.nodes)


def test_commands_go_over_the_lan_that_says_so() -> None:
    assert load_cluster(APPENDIX_A.replace('"repli"  >', '"repli" command="on">')).command_lan.name == "repli"


def test_commands_go_over_the_first_complete_lan_when_none_says_so() -> None:
    assert cluster().command_lan.name == "default"
    reordered = CLUSTER.replace('"default"', '"x"').replace('"pair"', '"default"').replace('"x"', '"pair"')
    assert load_cluster(reordered).command_lan.name == "pair"


def test_an_unknown_name_has_no_lan_and_no_node() -> None:
    assert cluster().lan("nowhere") is None
    assert cluster().lans[1].node("n3") is None


def test_obsolete_attributes_are_ignored_with_a_warning_that_names_them() -> None:
    text = APPENDIX_A.replace('name="default"', 'name="default" console="on" framework="on"')
    loaded = load_cluster(text, "cluster.xml")
    assert [warning.message for warning in loaded.warnings] == [
        'cluster.xml, line 2: <lan console="on">: obsolete and ignored',
        'cluster.xml, line 2: <lan framework="on">: obsolete and ignored',
    ]
    assert loaded.warnings[0].code == "config.obsolete"
    assert loaded.lans == load_cluster(APPENDIX_A).lans


def test_elements_remember_their_line() -> None:
    default, pair, _ = cluster().lans
    assert (default.line, default.nodes[2].line, pair.line, pair.nodes[1].line) == (2, 5, 7, 9)


def test_the_signature_is_that_of_the_meaning() -> None:
    commented = "<!-- ours -->" + APPENDIX_A.replace("\n", "\n\n").replace("<node", "<!-- x --> <node")
    swapped = APPENDIX_A.replace('name="n1" addr="192.0.2.11"', 'addr="192.0.2.11" name="n1"')
    other = APPENDIX_A.replace("192.0.2.12", "192.0.2.13")
    signature = load_cluster(APPENDIX_A).signature
    assert load_cluster(commented).signature == load_cluster(swapped).signature == signature
    assert load_cluster(other).signature != signature
    assert len(signature) == 16 and int(signature, 16)


def test_text_and_bytes_are_the_same_configuration() -> None:
    declared = '<?xml version="1.0" encoding="ISO-8859-1"?>' + APPENDIX_A
    assert load_cluster(declared) == load_cluster(declared.encode("latin-1")) == load_cluster(APPENDIX_A)


WRONG = [
    (
        f'<cluster><lans><lan name="a">{TWO_NODES}</lan><lan name="a">{TWO_NODES}</lan></lans></cluster>',
        "config.duplicate",
        '<lan name="a">: there is a lan of this name already, in line 1; expected a name of its own for each lan',
    ),
    (
        f'<cluster><lans><lan name="a">{TWO_NODES}<node name="n1" addr="192.0.2.19"/></lan></lans></cluster>',
        "config.duplicate",
        '<node name="n1">: this node is on the lan a already, in line 1; expected each node once on a lan',
    ),
    (
        '<cluster><lans><lan name="a"><node name="n1" addr="192.0.2.1"/><node name="n2" addr="192.0.2.1"/></lan></lans></cluster>',
        "config.duplicate",
        '<node addr="192.0.2.1">: this address is that of node n1 already, in line 1; '
        "expected an address of its own for each node",
    ),
    (
        '<cluster><lans><lan name="a"><node name="n1" addr="192.0.2.1"/></lan></lans></cluster>',
        "config.missing",
        "<lans>: the cluster has one node only, n1; expected at least two nodes",
    ),
    (
        '<cluster><lans><lan name="a"><node name="n1" addr="192.0.2.1"/></lan>'
        '<lan name="b"><node name="n2" addr="192.0.2.2"/></lan></lans></cluster>',
        "config.reference",
        "<lans>: no lan holds every node; expected one lan at least with the nodes n1, n2",
    ),
    (
        f'<cluster><lans><lan name="a" command="on">{TWO_NODES}</lan><lan name="b" command="on">{TWO_NODES}</lan>'
        "</lans></cluster>",
        "config.duplicate",
        '<lan command="on">: the lan a of line 1 carries the commands already; expected command="on" on one lan at most',
    ),
    (
        f'<cluster><lans><lan name="a">{TWO_NODES}</lan>'
        '<lan name="b" command="on"><node name="n1" addr="192.0.2.1"/></lan></lans></cluster>',
        "config.reference",
        '<lan command="on">: the lan b carries the commands and does not reach n2; expected every node on this lan',
    ),
    (
        f'<cluster><lans port="0"><lan name="a">{TWO_NODES}</lan></lans></cluster>',
        "config.value",
        '<lans port="0">: not a valid value; expected a port number from 1 to 65535',
    ),
    (
        '<cluster><lans><lan name="a"><node name="n1" addr="300.1.1.1"/><node name="n2" addr="192.0.2.2"/></lan></lans></cluster>',
        "config.value",
        '<node addr="300.1.1.1">: not an IP address; expected an IPv4 address, an [IPv6] address or a DNS name',
    ),
    (
        f"<cluster><lans><lan>{TWO_NODES}</lan></lans></cluster>",
        "config.missing",
        "<lan name>: the attribute is missing; expected 1 to 63 letters, digits, '_', '.' or '-', "
        "the first a letter, a digit or '_'",
    ),
    ("<safe/>", "config.unknown_element", "<safe>: not the root element of this file; expected <cluster>"),
    ("<cluster/>", "config.missing", "<cluster>: the element <lans> is missing; expected one <lans> in <cluster>"),
    (
        "<cluster><lans/><lans/></cluster>",
        "config.too_many",
        "<lans>: there is one already, in line 1; expected at most one <lans> in <cluster>",
    ),
]


@pytest.mark.parametrize(("text", "code", "message"), WRONG, ids=lambda value: value if len(value) < 40 else "…")
def test_a_wrong_cluster_is_refused_with_one_clear_sentence(text: str, code: str, message: str) -> None:
    error = refused_cluster(text)
    assert f"cluster.xml, line 1: {message}" in error.messages
    assert code in {found.code for found in (error, *error.others)}


def test_a_cluster_has_no_macros() -> None:
    error = refused_cluster(APPENDIX_A.replace("192.0.2.11", "%ADDRESS%"))
    assert error.code == "config.value"
    assert error.value == "%ADDRESS%"


def test_a_cluster_may_have_a_witness() -> None:
    assert load_cluster(APPENDIX_A).witness is None
    witness = load_cluster(APPENDIX_A.replace("</cluster>", '<witness name="w" addr="192.0.2.9"/></cluster>')).witness
    assert witness is not None
    assert (witness.name, witness.addr, witness.port, witness.cluster) == (
        "w",
        ip_address("192.0.2.9"),
        4803,
        "cluster",
    )
    written = '<witness name="w" addr="w.example.org" port="99" cluster="shop"/></cluster>'
    witness = load_cluster(APPENDIX_A.replace("</cluster>", written)).witness
    assert witness is not None
    assert (witness.addr, witness.port, witness.cluster) == ("w.example.org", 99, "shop")


def test_a_second_witness_is_refused() -> None:
    twice = '<witness name="w" addr="192.0.2.9"/><witness name="v" addr="192.0.2.8"/></cluster>'
    assert "<witness>" in str(refused_cluster(APPENDIX_A.replace("</cluster>", twice)))
