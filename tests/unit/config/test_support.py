"""What the runtime does not do yet is refused by name; what asks for the behaviour there is passes."""

from __future__ import annotations

import pytest

from safekit.config import unsupported
from tests.unit.config.samples import farm, farm_vip, light, load, mirror, mirror_vip, rfs
from tests.unit.config.test_userconfig import FARM, MIRROR

ADDRESS = '<virtual_addr addr="192.0.2.20" where="one_side_alias"/>'
GROUP = '<group name="g">{}</group>'


def _messages(text: str) -> list[str]:
    return [item.message.removeprefix("userconfig.xml, line 1: ") for item in unsupported(load(text))]


SUPPORTED = {
    "a mirror": mirror(),
    "a light module": light("<user/>"),
    "boot and loops": mirror(attributes='boot="auto" boot_delay="5s" maxloop="0" loop_interval="1h"'),
    "the defaults, written": mirror(attributes='failover="on" defaultprim="alone" automatic_reboot="off"'),
    "a reboot": mirror(attributes='automatic_reboot="on"'),
    "no failover": mirror(attributes='failover="off"'),
    "a preferred primary": mirror(attributes='defaultprim="n1"'),
    "a witness": mirror(attributes='quorum="witness"'),
    "fencing": mirror(rfs("/a"), attributes='quorum="fence"'),
    "no quorum": mirror(attributes='quorum="none"'),
    "heartbeats": mirror(
        heart='<heart port="9000" pulse="100" timeout="1s" permanent_arp="off"><heartbeat name="a" ident="x" pulse="50"/></heart>'
    ),
    "a virtual address": mirror(
        mirror_vip(
            '<virtual_addr addr="192.0.2.20" where="one_side_alias" check="off" connections="on" netmask="255.255.255.0"/>',
            interface='name="eth0" check="on" arpreroute="on" arpinterval="5s" arpelapse="0"',
        )
    ),
    "replication": mirror(
        '<rfs async="none"><replicated dir="/a b" mode="read_only"><tocheck path="x"/><notreplicated path="b"/>'
        '<notreplicated regexpath="!x"/></replicated></rfs>'
    ),
    "replication with everything": mirror(
        rfs(
            "/a",
            attributes='acl="on" async="none" locktimeout="100" sendtimeout="30s" namespacepolicy="0" reidetail="on" '
            'nbremconn="4" nbrei="8" reitimeout="60s" reicommit="2" packetsize="16777216" reipacketsize="1048576" '
            'ruzone_blocksize="2097152" reiallowedbw="100" checktime="5s" checkintv="2m" scripts="on" syncdelta="5m" '
            'syncat="0 1 * * *" verifyat="0 2 * * *" '
            'mountoversuffix="_x"',
            flow='<flow name="x"/>',
        )
    ),
    "a farm": farm(
        '<user nicestoptimeout="1" forcestoptimeout="2" logging="none" userlogsize="1"><var name="A" value=""/></user>'
        + farm_vip(
            GROUP.format(
                '<cluster><host name="n1" power="3"/></cluster><rule virtual_addr="192.0.2.30" port="80" proto="tcp" '
                'filter="on_port"/><rule proto="udp" filter="on_addr"/><rule proto="udp" port="514" filter="on_ipid"/>'
                '<rule proto="arp" filter="on_addr"/>'
            )
        )
    ),
    "an empty check, errd and failover": mirror("<user/><check/><errd/><failover/>"),
    "processes": mirror('<user/><errd polltimer="5s"><proc name="a" class="prim"/></errd>'),
    "checkers": mirror(
        '<check><ping ident="a"><to addr="192.0.2.1" interval="1s"/></ping><custom ident="c" when="pre" exec="x"/>'
        '<tcp ident="b" when="prim"><to addr="192.0.2.1" port="80"/></tcp></check>'
    ),
    "what is there without a virtual address": mirror(
        '<check><intf ident="a"><to local_addr="192.0.2.1"/></intf><ip ident="b"><to addr="192.0.2.1"/></ip></check>'
    ),
    "another module": mirror('<check><module name="db"><to addr="192.0.2.1" interval="1s"/></module></check>'),
    "a targeted restart": mirror(
        '<user/><errd><proc name="a" class="x" service="yes" action="restart" restart_services="a"/></errd>'
    ),
    "scripts that open the traffic": farm(farm_vip().replace("<vip>", '<vip scriptcontrol="on">')),
    "an invisible MAC": farm(farm_vip(type_='type="vmac_invisible"')),
    "an invisible MAC of one's own": farm(farm_vip(type_='type="vmac_invisible" addr="5a:fe:00:00:00:01"')),
    "witnesses": mirror('<check><splitbrain ident="witness" exec="ping" arg="192.0.2.1 router"/></check>'),
    "rules": mirror(
        '<failover extends="no" period="1s" handle_time="2s">a: if (custom.c == down) then stop();</failover>'
    ),
}

REFUSED = {
    "a pinned neighbour": (
        mirror(heart='<heart permanent_arp="on"><heartbeat name="a"/></heart>'),
        '<heart permanent_arp="on"> (supported: off)',
    ),
    "old heartbeats": (
        mirror(heart='<heart><heartbeat ident="a"><server addr="192.0.2.1"/></heartbeat></heart>'),
        "<server>",
    ),
    "old farms": (farm(lan='<farm><lan><node name="n1" addr="192.0.2.1"/></lan></farm>'), "<node>"),
    "the source address": (
        mirror(mirror_vip('<virtual_addr addr="192.0.2.20" where="one_side"/>')),
        '<virtual_addr where="one_side"> (supported: one of alias, one_side_alias)',
    ),
    "a virtual interface in a mirror": (
        mirror(
            '<vip><interface_list><interface><virtual_interface type="vmac_directed">'
            + ADDRESS
            + "</virtual_interface></interface></interface_list></vip>"
        ),
        "<virtual_interface> in a module of mode mirror",
    ),
    "a virtual name": (
        mirror('<vhost><virtualhostname name="a" envfile="b"/></vhost>'),
        "<virtualhostname>",
    ),
}


@pytest.mark.parametrize("text", SUPPORTED.values(), ids=SUPPORTED.keys())
def test_it_is_supported(text: str) -> None:
    assert _messages(text) == []


@pytest.mark.parametrize(("text", "what"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_by_name(text: str, what: str) -> None:
    assert _messages(text) == [f"not supported yet: {what}"]


def test_an_item_knows_its_place() -> None:
    (first,) = unsupported(load(MIRROR.replace('where="one_side_alias"', 'where="one_side"')))
    assert (first.element, first.attribute, first.value) == ("virtual_addr", "where", "one_side")
    assert first.line > 1
    assert first.message == (
        f'userconfig.xml, line {first.line}: not supported yet: <virtual_addr where="one_side"> '
        "(supported: one of alias, one_side_alias)"
    )


@pytest.mark.parametrize("text", [MIRROR, FARM], ids=["mirror", "farm"])
def test_nothing_of_the_examples_of_the_spec_is_missing(text: str) -> None:
    assert unsupported(load(text)) == ()
