"""From `userconfig.xml` to addresses, groups and rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address, ip_address

import pytest

from safekit.config import Group, Host, Rule, Vip, VipInterface, VirtualAddr
from safekit.vip.from_config import farm_service, mirror_addresses
from safekit.vip.service import ArpReroute, HashKey, Protocol, VipError


def interface(*addresses: VirtualAddr, reroute: bool = False, technique: str | None = "vmac_directed") -> VipInterface:
    return VipInterface(
        check=True,
        arpreroute=reroute,
        arpinterval=timedelta(seconds=30),
        arpelapse=timedelta(minutes=10),
        name="eth0",
        kind="virtual" if technique else "real",
        type=technique,  # type: ignore[arg-type]
        mac=None,
        addresses=addresses,
    )


def address(text: str, where: str = "alias", netmask: str | None = None) -> VirtualAddr:
    mask = None if netmask is None else IPv4Address(netmask)
    return VirtualAddr(ip_address(text), where, True, False, mask)  # type: ignore[arg-type]


def test_addresses_carry_what_their_interface_says() -> None:
    vip = Vip(
        True,
        False,
        (interface(address("192.0.2.9", "one_side_alias", "255.255.254.0"), reroute=True, technique=None),),
        (),
    )
    (one,) = mirror_addresses(vip)
    assert one.address == ip_address("192.0.2.9")
    assert (one.interface, one.prefix_length, one.reroute) == ("eth0", 23, ArpReroute(30.0, 600.0))


def test_a_farm_has_the_groups_rules_and_powers_of_the_file() -> None:
    group = Group("web", (Host("n1", 2), Host("n2", 0)), (Rule(None, 80, "tcp", "on_port"),))
    service = farm_service(Vip(True, False, (interface(address("192.0.2.9"), address("fd00::9")),), (group,)))
    assert [str(one.address) for one in service.addresses] == ["192.0.2.9", "fd00::9"]
    (web,) = service.groups
    assert [web.power_of(node) for node in ("n1", "n2", "n3")] == [2, 0, 0]
    (rule,) = web.rules
    assert web.asked == ()
    assert (rule.protocol, rule.key, rule.address, rule.port) == (Protocol.TCP, HashKey.ON_PORT, None, 80)


def test_arp_rules_stand_apart_from_those_of_services() -> None:
    rules = (Rule(None, None, "arp", "on_addr"), Rule(ip_address("192.0.2.9"), None, "arp", "on_addr"))
    group = Group("web", (), (*rules, Rule(None, 514, "udp", "on_ipid")))
    (web,) = farm_service(Vip(True, False, (interface(address("192.0.2.9")),), (group,))).groups
    assert web.asked == (None, ip_address("192.0.2.9"))
    assert [(rule.protocol, rule.key, rule.port) for rule in web.rules] == [(Protocol.UDP, HashKey.ON_IPID, 514)]


def test_a_group_without_hosts_is_everybody_with_equal_power() -> None:
    service = farm_service(Vip(True, False, (interface(address("192.0.2.9")),), (Group("web", (), ()),)))
    assert [service.groups[0].power_of(node) for node in ("n1", "n9")] == [1, 1]


@pytest.mark.parametrize(
    ("vip", "what"),
    [
        (Vip(True, False, (interface(address("192.0.2.9", "one_side")),), ()), 'where="one_side"'),
    ],
)
def test_what_is_not_built_yet_is_refused_by_name(vip: Vip, what: str) -> None:
    with pytest.raises(VipError, match=f"not supported yet: .*{what}") as refused:
        farm_service(vip)
    assert refused.value.code == "vip.unsupported"


def test_the_addresses_of_an_invisible_interface_share_one_ethernet_address() -> None:
    unseen = interface(address("fd00::1:2:9"), address("192.0.2.9"), technique="vmac_invisible")
    own = replace(unseen, mac="5a:fe:00:00:00:01", addresses=(address("192.0.2.10"),))
    directed = interface(address("192.0.2.11"))
    service = farm_service(Vip(True, False, (unseen, own, directed), ()))
    derived = "5a:fe:00:02:00:09"
    assert [one.vmac for one in service.addresses] == [derived, derived, "5a:fe:00:00:00:01", ""]


def test_a_name_without_an_address_is_named() -> None:
    named = VirtualAddr("vip.invalid", "alias", True, False, None)
    with pytest.raises(VipError, match=r'the name "vip\.invalid" of a VIP cannot be resolved'):
        mirror_addresses(Vip(True, False, (interface(named),), ()))
