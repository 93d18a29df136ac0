"""Wrong input, each with the message that a person reads: file, line, element, attribute, value, what was expected."""

from __future__ import annotations

import pytest

from safekit.config import ConfigError
from safekit.config.errors import shortened
from tests.unit.config.samples import (
    FARM_LAN,
    farm,
    farm_vip,
    light,
    load,
    mirror,
    mirror_vip,
    refused,
    rfs,
    safe,
)

NAME = "1 to 63 letters, digits, '_', '.' or '-', the first a letter, a digit or '_'"
GROUP = '<group name="g">{}</group>'

# (the file, the code, the message behind "userconfig.xml, line 1: ")
FORM = {
    "no attribute of this name": (
        mirror(attributes='bot="on"'),
        "config.unknown_attribute",
        '<service bot="on">: <service> has no such attribute; expected one of mode, boot, boot_delay, failover, '
        "defaultprim, maxloop, loop_interval, automatic_reboot, quorum",
    ),
    "no element of this name": (
        mirror("<users/>"),
        "config.unknown_element",
        "<users>: not an element of <service>; expected one of <heart>, <farm>, <rfs>, <vip>, <user>, <vhost>, <errd>, "
        "<check>, <failover>",
    ),
    "an element of another namespace": (
        mirror('<x:user xmlns:x="urn:x"/>'),
        "config.unknown_element",
        "<user>: not an element of <service>; expected one of <heart>, <farm>, <rfs>, <vip>, <user>, <vhost>, <errd>, "
        "<check>, <failover>",
    ),
    "a child where none belongs": (
        mirror('<user><var name="A" value=""><x/></var></user>'),
        "config.unknown_element",
        "<x>: not an element of <var>; expected no element",
    ),
    "an attribute where none belongs": (
        mirror('<check a="1"/>'),
        "config.unknown_attribute",
        '<check a="1">: <check> has no such attribute; expected no attribute',
    ),
    "an attribute that is missing": (
        mirror("<rfs><replicated/></rfs>"),
        "config.missing",
        "<replicated dir>: the attribute is missing; expected an absolute path other than /, without '.' or '..' in it",
    ),
    "an element that is missing": (
        mirror("<rfs/>"),
        "config.missing",
        "<rfs>: the element <replicated> is missing; expected at least one <replicated> in <rfs>",
    ),
    "an element that stands twice": (
        mirror("<user/><user/>"),
        "config.too_many",
        "<user>: there is one already, in line 1; expected at most one <user> in <service>",
    ),
    "elements in the wrong order": (
        mirror('<rfs><replicated dir="/a"/><flow name="x"/></rfs>'),
        "config.order",
        "<flow>: it stands after <replicated> of line 1; expected the order <flow>, <replicated>",
    ),
    "neither a real nor a virtual interface": (
        mirror("<vip><interface_list><interface/></interface_list></vip>"),
        "config.missing",
        "<interface>: an element is missing; expected one of <real_interface>, <virtual_interface>",
    ),
    "a real and a virtual interface": (
        mirror(
            '<vip><interface_list><interface><real_interface><virtual_addr addr="192.0.2.1" where="alias"/></real_interface>'
            '<real_interface><virtual_addr addr="192.0.2.2" where="alias"/></real_interface></interface></interface_list></vip>'
        ),
        "config.too_many",
        "<real_interface>: <interface> holds one element only; expected one of <real_interface>, <virtual_interface>",
    ),
    "text with a macro between elements": (
        mirror("%PATH_OF% <user/>"),
        "config.text",
        "<service>: text has no meaning here: %PATH_OF%; expected attributes and elements only",
    ),
    "text between elements": (
        mirror("hello"),
        "config.text",
        "<service>: text has no meaning here: hello; expected attributes and elements only",
    ),
    "no value of the list": (
        safe('<service mode="mirrow"/>'),
        "config.value",
        '<service mode="mirrow">: no such value; expected one of mirror, farm, light',
    ),
    "neither on nor off": (
        mirror(attributes='failover="yes"'),
        "config.value",
        '<service failover="yes">: no such value; expected one of on, off',
    ),
    "not a time": (
        mirror(attributes='boot_delay="soon"'),
        "config.duration",
        '<service boot_delay="soon">: not a time value; expected 0, or a whole number followed by d, h, m, s, ms or us '
        "(without a suffix: seconds)",
    ),
    "a time that may not be zero": (
        mirror(heart='<heart pulse="0"><heartbeat name="a"/></heart>'),
        "config.duration",
        '<heart pulse="0">: not a time value; expected a whole number greater than 0 followed by d, h, m, s, ms or us '
        "(without a suffix: milliseconds)",
    ),
    "a time cut down to nothing": (
        mirror(attributes='boot_delay="500ms"'),
        "config.duration",
        '<service boot_delay="500ms">: the value would be cut down to 0 seconds; '
        "expected at least 1s: this attribute counts in seconds",
    ),
    "a time beyond reason": (
        mirror(attributes='boot_delay="99999d"'),
        "config.duration",
        '<service boot_delay="99999d">: too long a time; expected at most 3650d',
    ),
    "not a number": (
        mirror(attributes='maxloop="-1"'),
        "config.value",
        '<service maxloop="-1">: not a valid value; expected a whole number from 0 to 2147483647',
    ),
    "not a port": (
        mirror(heart='<heart port="70000"><heartbeat name="a"/></heart>'),
        "config.value",
        '<heart port="70000">: not a port number; expected a port number from 1 to 65535',
    ),
    "not a name": (
        mirror(heart='<heart><heartbeat name="my lan"/></heart>'),
        "config.value",
        f'<heartbeat name="my lan">: not a valid value; expected {NAME}',
    ),
    "an empty name": (
        mirror(heart='<heart><heartbeat name=""/></heart>'),
        "config.value",
        f'<heartbeat name="">: empty; expected {NAME}',
    ),
    "a relative directory": (
        mirror(rfs("srv/data")),
        "config.value",
        '<replicated dir="srv/data">: not a valid value; expected an absolute path other than /, '
        "without '.' or '..' in it",
    ),
    "a directory with a detour": (
        mirror(rfs("/srv/../etc")),
        "config.value",
        '<replicated dir="/srv/../etc">: not such a path; expected an absolute path other than /, '
        "without '.' or '..' in it",
    ),
    "a path to check that leaves the directory": (
        mirror('<rfs><replicated dir="/a"><tocheck path="../b"/></replicated></rfs>'),
        "config.value",
        '<tocheck path="../b">: not such a path; expected a path relative to the replicated directory, '
        "without '.' or '..' in it",
    ),
    "a regular expression that does not compile": (
        mirror('<rfs><replicated dir="/a"><notreplicated regexpath="(a"/></replicated></rfs>'),
        "config.value",
        '<notreplicated regexpath="(a">: not a regular expression (Unmatched ( or \\(); '
        "expected a POSIX extended regular expression without < and >",
    ),
    "a regular expression with a bracket of XML": (
        mirror('<rfs><replicated dir="/a"><notreplicated regexpath="a&lt;b"/></replicated></rfs>'),
        "config.value",
        '<notreplicated regexpath="a<b">: not a valid value; '
        "expected a POSIX extended regular expression without < and >",
    ),
    "not a schedule": (
        mirror(rfs("/a", attributes='syncat="daily"')),
        "config.value",
        '<rfs syncat="daily">: not a valid value; expected the five time fields of a crontab entry',
    ),
    "not an address": (
        mirror(mirror_vip('<virtual_addr addr="192.0.2.300" where="one_side_alias"/>')),
        "config.value",
        '<virtual_addr addr="192.0.2.300">: not an IP address; '
        "expected an IPv4 address, an [IPv6] address or a DNS name",
    ),
    "the address of many": (
        mirror(mirror_vip('<virtual_addr addr="224.0.0.1" where="one_side_alias"/>')),
        "config.value",
        '<virtual_addr addr="224.0.0.1">: not the address of one host; '
        "expected an IPv4 address, an [IPv6] address or a DNS name",
    ),
}

AGREEMENT = {
    "a mirror without heartbeats": (
        safe('<service mode="mirror"/>'),
        "config.missing",
        "<service>: a module of mode mirror needs <heart>; expected one <heart> in <service>",
    ),
    "a farm without membership": (
        safe('<service mode="farm"/>'),
        "config.missing",
        "<service>: a module of mode farm needs <farm>; expected one <farm> in <service>",
    ),
    "heartbeats in a farm": (
        farm('<heart><heartbeat name="a"/></heart>'),
        "config.mode",
        "<heart>: <heart> has no place in a module of mode farm; expected a module of mode mirror",
    ),
    "a virtual address in a light module": (
        light(mirror_vip('<virtual_addr addr="192.0.2.1" where="alias"/>')),
        "config.mode",
        "<vip>: <vip> has no place in a module of mode light; expected a module of mode mirror or farm",
    ),
    "a loss declared before the next heartbeat": (
        mirror(heart='<heart pulse="1s" timeout="1s"><heartbeat name="a"/></heart>'),
        "config.value",
        '<heartbeat timeout="1s">: the peer would be lost before its next heartbeat, 1s later; '
        "expected a timeout longer than the pulse",
    ),
    "two heartbeats of one name": (
        mirror(heart='<heart><heartbeat name="a" ident="x"/><heartbeat name="b" ident="x"/></heart>'),
        "config.duplicate",
        '<heartbeat ident="x">: this value stands in line 1 already; expected a different value',
    ),
    "two heartbeats on one lan": (
        mirror(heart='<heart><heartbeat name="a"/><heartbeat name="a" ident="x"/></heart>'),
        "config.duplicate",
        '<heartbeat name="a">: this value stands in line 1 already; expected a different value',
    ),
    "a heartbeat on no lan": (
        mirror(heart="<heart><heartbeat/></heart>"),
        "config.missing",
        "<heartbeat name>: the attribute is missing; expected the name of a lan of cluster.xml",
    ),
    "the old syntax beside the new": (
        mirror(heart='<heart><heartbeat name="a"><server addr="192.0.2.1"/></heartbeat></heart>'),
        "config.mixed",
        '<heartbeat name="a">: <server> is the syntax from before 7.2 and does not mix with the name of a lan; '
        "expected no <server>",
    ),
    "two memberships on one lan": (
        farm(lan='<farm><lan name="a"/><lan name="a"/></farm>'),
        "config.duplicate",
        '<lan name="a">: this value stands in line 1 already; expected a different value',
    ),
    "one virtual address twice": (
        mirror(mirror_vip('<virtual_addr addr="192.0.2.1" where="one_side_alias"/>' * 2)),
        "config.duplicate",
        '<virtual_addr addr="192.0.2.1">: this value stands in line 1 already; expected a different value',
    ),
    "an address everywhere in a mirror": (
        mirror(mirror_vip('<virtual_addr addr="192.0.2.1" where="alias"/>')),
        "config.value",
        '<virtual_addr where="alias">: no place for an address on a real interface in a module of mode mirror; '
        "expected one of one_side_alias, one_side",
    ),
    "an address on one side of a farm": (
        farm(farm_vip(addresses='<virtual_addr addr="192.0.2.1" where="one_side_alias"/>')),
        "config.value",
        '<virtual_addr where="one_side_alias">: no place for an address on a virtual interface in a module of mode farm; '
        "expected alias",
    ),
    "a real interface in a farm": (
        farm(mirror_vip('<virtual_addr addr="192.0.2.1" where="alias"/>')),
        "config.mode",
        "<real_interface>: <real_interface> has no place in a module of mode farm; expected a module of mode mirror",
    ),
    "a mask with an IPv6 address": (
        mirror(mirror_vip('<virtual_addr addr="[2001:db8::1]" where="one_side_alias" netmask="255.255.255.0"/>')),
        "config.value",
        '<virtual_addr netmask="255.255.255.0">: a network mask belongs to an IPv4 address; '
        "expected no mask with an IPv6 address",
    ),
    "a MAC address that nothing answers with": (
        farm(farm_vip(type_='type="vmac_directed" addr="5a:fe:00:00:00:01"')),
        "config.value",
        '<virtual_interface addr="5a:fe:00:00:00:01">: a virtual MAC address belongs to the type vmac_invisible; '
        "expected no MAC address with vmac_directed",
    ),
    "two groups of one name": (
        farm(
            farm_vip(
                GROUP.format('<rule proto="tcp" filter="on_addr"/>')
                + GROUP.format('<rule proto="udp" filter="on_addr"/>')
            )
        ),
        "config.duplicate",
        '<group name="g">: this value stands in line 1 already; expected a different value',
    ),
    "a host twice in a group": (
        farm(
            farm_vip(
                GROUP.format('<cluster><host name="a"/><host name="a"/></cluster><rule proto="tcp" filter="on_addr"/>')
            )
        ),
        "config.duplicate",
        '<host name="a">: this value stands in line 1 already; expected a different value',
    ),
    "a group that takes no traffic": (
        farm(
            farm_vip(GROUP.format('<cluster><host name="a" power="0"/></cluster><rule proto="tcp" filter="on_addr"/>'))
        ),
        "config.value",
        '<host power="0">: no host of the group g takes traffic; expected a power above 0 for one host at least',
    ),
    "one rule twice": (
        farm(
            farm_vip(
                GROUP.format(
                    '<rule port="80" proto="tcp" filter="on_addr"/><rule port="80" proto="tcp" filter="on_port"/>'
                )
            )
        ),
        "config.duplicate",
        "<rule>: another rule for tcp, port 80, address * stands in line 1; expected one rule for the same traffic",
    ),
    "a rule for the address of another": (
        farm(farm_vip(GROUP.format('<rule virtual_addr="192.0.2.99" proto="tcp" filter="on_addr"/>'))),
        "config.reference",
        '<rule virtual_addr="192.0.2.99">: not a virtual address of this module; expected one of *, 192.0.2.30',
    ),
    "ARP by port": (
        farm(farm_vip(GROUP.format('<rule proto="arp" filter="on_port"/>'))),
        "config.value",
        '<rule filter="on_port">: the answers to ARP are shared by address only; expected filter="on_addr" with proto="arp"',
    ),
    "ARP on a port": (
        farm(farm_vip(GROUP.format('<rule proto="arp" port="80" filter="on_addr"/>'))),
        "config.value",
        '<rule port="80">: ARP has no port; expected port="*" with proto="arp"',
    ),
    "ARP where one MAC answers": (
        farm(farm_vip(GROUP.format('<rule proto="arp" filter="on_addr"/>'), type_='type="vmac_invisible"')),
        "config.value",
        '<rule proto="arp">: the answers to ARP are shared with vmac_directed only; expected type="vmac_directed"',
    ),
    "the IP id of TCP": (
        farm(farm_vip(GROUP.format('<rule proto="tcp" filter="on_ipid"/>'))),
        "config.value",
        '<rule filter="on_ipid">: the IP id is a hash key of UDP only; expected one of on_addr, on_port',
    ),
    "the IP id of IPv6": (
        farm(
            farm_vip(
                GROUP.format('<rule proto="udp" filter="on_ipid"/>'),
                addresses='<virtual_addr addr="[2001:db8::1]" where="alias"/>',
            )
        ),
        "config.value",
        '<rule filter="on_ipid">: IPv6 has no IP id; expected one of on_addr, on_port',
    ),
    "a packet too large": (
        mirror(rfs("/a", attributes='packetsize="1000" reipacketsize="2000"')),
        "config.value",
        '<rfs reipacketsize="2000">: larger than packetsize, 1000; expected at most packetsize',
    ),
    "a wait for the secondary that nobody wants": (
        mirror(rfs("/a", attributes='locktimeout="2h"')),
        "config.value",
        '<rfs locktimeout="2h">: a secondary that is gone would be waited for that long; expected at most 1h',
    ),
    "a resynchronisation that is waited for too long": (
        mirror(rfs("/a", attributes='reitimeout="25h"')),
        "config.value",
        '<rfs reitimeout="25h">: a secondary that is gone would be waited for that long; expected at most 1d',
    ),
    "a zone too small": (
        mirror(rfs("/a", attributes='reipacketsize="4096" ruzone_blocksize="4096"')),
        "config.value",
        '<rfs ruzone_blocksize="4096">: not possible; expected from 65536 to 1073741824 bytes',
    ),
    "more threads than anybody has": (
        mirror(rfs("/a", attributes='nbrei="65"')),
        "config.value",
        '<rfs nbrei="65">: not possible; expected from 1 to 64 threads',
    ),
    "a schedule that never comes": (
        mirror(rfs("/a", attributes='syncat="0 0 31 2 *"')),
        "config.value",
        '<rfs syncat="0 0 31 2 *">: this day never comes; expected the five time fields of a crontab entry',
    ),
    "a zone of uneven packets": (
        mirror(rfs("/a", attributes='reipacketsize="1000" ruzone_blocksize="1500"')),
        "config.value",
        '<rfs ruzone_blocksize="1500">: not a multiple of reipacketsize, 1000; expected a multiple of reipacketsize',
    ),
    "one directory twice": (
        mirror(rfs("/srv/data", "/srv/data/")),
        "config.duplicate",
        '<replicated dir="/srv/data">: the same tree as /srv/data of line 1, or one inside the other; '
        "expected directories apart from each other",
    ),
    "a directory inside another": (
        mirror(rfs("/srv/data/deep", "/srv/database", "/srv/data")),
        "config.duplicate",
        '<replicated dir="/srv/data">: the same tree as /srv/data/deep of line 1, or one inside the other; '
        "expected directories apart from each other",
    ),
    "nothing to exclude": (
        mirror('<rfs><replicated dir="/a"><notreplicated/></replicated></rfs>'),
        "config.missing",
        "<notreplicated>: what is excluded is one path or one regular expression; expected either path or regexpath",
    ),
    "two things to exclude": (
        mirror('<rfs><replicated dir="/a"><notreplicated path="b" regexpath="c"/></replicated></rfs>'),
        "config.mixed",
        "<notreplicated>: what is excluded is one path or one regular expression; expected either path or regexpath",
    ),
    "one variable twice": (
        mirror('<user><var name="A" value="1"/><var name="A" value="2"/></user>'),
        "config.duplicate",
        '<var name="A">: this value stands in line 1 already; expected a different value',
    ),
    "processes without scripts": (
        mirror('<errd><proc name="a" class="prim"/></errd>'),
        "config.missing",
        "<errd>: processes are watched between the scripts that start and stop them; expected <user> in <service>",
    ),
    "a command name that the kernel cuts": (
        mirror('<user/><errd><proc name="a-very-long-command" class="prim"/></errd>'),
        "config.value",
        '<proc name="a-very-long-command">: the kernel keeps 15 characters of a command name: this one would never be '
        'found; expected at most 15 characters, or service="yes", nameregex or argregex',
    ),
    "services of a process": (
        mirror('<user/><errd><proc name="a" class="prim" restart_services="b"/></errd>'),
        "config.value",
        '<proc restart_services="b">: only the restart of a service can be limited to services; '
        'expected service="yes" and action="restart"',
    ),
    "a restart before the start": (
        mirror('<check><tcp ident="a" when="pre" action="restart"><to addr="b" port="1"/></tcp></check>'),
        "config.value",
        '<tcp action="restart">: has no meaning with when="pre"; expected one of wait, noaction',
    ),
    "a wait after the start": (
        mirror('<check><custom ident="a" when="prim" exec="x" action="wait"/></check>'),
        "config.value",
        '<custom action="wait">: has no meaning with when="prim"; expected one of stop, stopstart, restart, noaction',
    ),
    "a primary in a farm": (
        farm('<check><tcp ident="a" when="prim"><to addr="b" port="1"/></tcp></check>'),
        "config.value",
        '<tcp when="prim">: has no meaning in a module of mode farm; expected one of pre, both',
    ),
    "an address checked on a secondary": (
        mirror('<check><ip ident="a" when="both"><to addr="192.0.2.1"/></ip></check>'),
        "config.value",
        '<ip when="both">: has no meaning in a module of mode mirror; expected prim',
    ),
    "a ping with no action": (
        mirror('<check><ping ident="a" when="prim"><to addr="b"/></ping></check>'),
        "config.missing",
        "<ping action>: the attribute is missing; expected one of stop, stopstart, restart, noaction",
    ),
    "two checkers of one name": (
        mirror('<check><module name="a" ident="x"/><module name="b" ident="x"/></check>'),
        "config.duplicate",
        '<module ident="x">: this value stands in line 1 already; expected a different value',
    ),
    "two split-brain checkers": (
        mirror('<check><splitbrain arg="192.0.2.1"/><splitbrain arg="192.0.2.2"/></check>'),
        "config.too_many",
        "<splitbrain>: there is one already, in line 1; expected one <splitbrain> with all the witnesses",
    ),
    "a witness in a farm": (
        farm('<check><splitbrain arg="192.0.2.1"/></check>'),
        "config.mode",
        "<splitbrain>: <splitbrain> has no place in a module of mode farm; expected a module of mode mirror",
    ),
    "an action handled between two evaluations": (
        mirror('<failover period="4s"/>'),
        "config.value",
        '<failover handle_time="15s">: not a multiple of the period, 4s; expected a multiple of the period',
    ),
}

EVERYTHING = FORM | AGREEMENT


@pytest.mark.parametrize(("text", "code", "message"), EVERYTHING.values(), ids=EVERYTHING.keys())
def test_it_is_refused_with_one_clear_sentence(text: str, code: str, message: str) -> None:
    error = refused(text)
    assert error.messages == (f"userconfig.xml, line 1: {message}",)
    assert error.code == code


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    error = refused(
        '<safe>\n<service mode="mirror" boot="never">\n<heart pulse="x"><heartbeat name="a"/></heart>\n<usr/>\n</service></safe>'
    )
    assert [(found.code, found.line, found.element, found.attribute) for found in (error, *error.others)] == [
        ("config.value", 2, "service", "boot"),
        ("config.duration", 3, "heart", "pulse"),
        ("config.unknown_element", 4, "usr", ""),
    ]


def test_an_error_knows_its_parts() -> None:
    error = refused(mirror(attributes='boot_delay="500ms"'))
    assert error.as_dict() == {
        "code": "config.duration",
        "message": error.message,
        "file": "userconfig.xml",
        "line": 1,
        "element": "service",
        "attribute": "boot_delay",
        "value": "500ms",
        "expected": "at least 1s: this attribute counts in seconds",
    }
    assert str(error) == error.message


def test_an_error_shows_the_others_beside_it() -> None:
    both = refused(mirror("<a/><b/>")).as_dict()
    assert both["others"] == [refused(mirror("<b/>")).message]
    assert "value" not in both
    assert refused(mirror(heart='<heart><heartbeat name=""/></heart>')).as_dict()["value"] == ""


def test_an_error_without_place_is_a_sentence_too() -> None:
    assert ConfigError("config.x", "it is wrong").message == "it is wrong"
    assert ConfigError("config.x", "it is wrong", line=3, element="a").message == "line 3: <a>: it is wrong"


def test_a_long_value_is_shown_in_part() -> None:
    error = refused(mirror(heart=f'<heart><heartbeat name="{"x" * 5000}"/></heart>'))
    assert len(error.message) < 300
    assert error.value == "x" * 5000
    assert shortened("a\n  b") == "a b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "userconfig.xml, line 1: the file is empty; expected an XML document <safe>"),
        ("  \n", "the file is empty; expected an XML document <safe>"),
        ("hello", "userconfig.xml, line 1: not well-formed XML (Start tag expected, '<' not found, column 1)"),
        ("<safe>\n<service>\n</safe>", "userconfig.xml, line 3: not well-formed XML (Opening and ending tag mismatch"),
        (
            "<safe>\n<![CDATA[\nabc",
            "userconfig.xml, line 3: not well-formed XML (CData section not finished a, column 4)",
        ),
        ("<safe a='1' a='2'/>", "userconfig.xml, line 1: not well-formed XML (Attribute a redefined"),
        ("<safe>&nothing;</safe>", "userconfig.xml, line 1: not well-formed XML (Entity 'nothing' not defined"),
        (b"\xff\xfe\x00", "userconfig.xml"),
        (b"<safe>\xe9</safe>", "userconfig.xml, line 1: not well-formed XML ("),
        ("<safe>\ud800</safe>", "userconfig.xml, line 1: not well-formed XML ("),
        ("<cluster/>", "userconfig.xml, line 1: <cluster>: not the root element of this file; expected <safe>"),
    ],
)
def test_what_is_no_document_is_refused(content: str | bytes, message: str) -> None:
    error = refused(content)
    assert message in error.message
    assert error.message.count("\n") == 0


def test_a_file_too_large_is_not_parsed() -> None:
    error = refused("<safe>" + " " * (5 * 1024 * 1024) + "</safe>")
    assert (error.code, error.expected) == ("config.malformed", "at most 4194304 bytes")


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE safe [<!ENTITY a "b">]>',
        '<!DOCTYPE safe [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        "<!DOCTYPE safe [<!ELEMENT safe ANY>]>",
        '<!DOCTYPE safe [<!ATTLIST service boot CDATA "on">]>',
        "<!DOCTYPE cluster>",
    ],
)
def test_a_doctype_may_only_name_the_root(doctype: str) -> None:
    error = refused(doctype + mirror())
    assert error.code == "config.doctype"
    assert error.message == (
        "userconfig.xml, line 1: a DOCTYPE may only name the root element; expected <!DOCTYPE safe> or no DOCTYPE"
    )


def test_a_doctype_is_accepted_and_never_fetched() -> None:
    load('<!DOCTYPE safe SYSTEM "file:///nowhere/safe.dtd">' + mirror())
    load("<!DOCTYPE safe>" + mirror())


def test_entities_that_grow_do_not_cost_memory() -> None:
    bomb = "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 12))
    error = refused(f'<!DOCTYPE safe [<!ENTITY x0 "aaaaaaaaaa">{bomb}]><safe><macro name="A" value="&x11;"/></safe>')
    assert error.code in ("config.doctype", "config.malformed")


def test_deep_nesting_is_refused_by_the_parser() -> None:
    assert refused("<safe>" * 100_000).code == "config.malformed"


def test_one_farm_lan_is_enough() -> None:
    assert load(farm(lan=FARM_LAN)).service.lans == ("default",)
