"""Which interface a virtual address goes to (spec §3.5 `name`, `netmask`)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from safekit.vip.addresses import place
from safekit.vip.netlink import Link, LocalAddress
from safekit.vip.service import VipError, VirtualAddress

LO = Link(1, "lo", "", True, True)
ETH0 = Link(2, "eth0", "02:00:00:00:00:01", True, False)
ETH1 = Link(3, "eth1", "02:00:00:00:00:02", True, False)
OFF = Link(4, "eth2", "02:00:00:00:00:03", False, False)
TUN = Link(5, "tun0", "", True, False)
LINKS = (LO, ETH0, ETH1, OFF, TUN)
PRESENT = (
    LocalAddress(ip_address("127.0.0.1"), 8, 1, False),
    LocalAddress(ip_address("10.89.77.11"), 24, 2, False),
    LocalAddress(ip_address("10.0.0.9"), 8, 3, False),
    LocalAddress(ip_address("192.168.7.1"), 24, 4, False),
    LocalAddress(ip_address("172.16.0.1"), 24, 5, False),
    LocalAddress(ip_address("fd00::11"), 64, 2, False),
)


def choose(address: str, interface: str | None = None, prefix: int | None = None) -> tuple[str, str]:
    (found,) = place([VirtualAddress(ip_address(address), interface, prefix)], LINKS, PRESENT)
    return found.interface, str(found.source)


def test_the_narrowest_network_that_contains_the_address_wins() -> None:
    assert choose("10.89.77.100") == ("eth0", "10.89.77.11")
    assert choose("10.1.2.3") == ("eth1", "10.0.0.9")
    assert choose("fd00::100") == ("eth0", "fd00::11")


def test_a_forced_interface_or_netmask_goes_before() -> None:
    assert choose("10.89.77.100", interface="eth1") == ("eth1", "10.0.0.9")
    assert choose("10.89.77.100", prefix=8) == ("eth1", "10.0.0.9")


@pytest.mark.parametrize(
    ("address", "interface", "prefix", "code", "message"),
    [
        (
            "203.0.113.5",
            None,
            None,
            "vip.network",
            "VIP 203.0.113.5 is in no network of this node (eth0 10.89.77.11/24, eth1 10.0.0.9/8): "
            "give it an address of one of these networks",
        ),
        (
            "10.1.2.3",
            "eth0",
            None,
            "vip.network",
            "VIP 10.1.2.3 is in no network of interface eth0 (eth0 10.89.77.11/24): "
            "give it an address of one of these networks",
        ),
        (
            "10.89.77.100",
            None,
            16,
            "vip.network",
            "VIP 10.89.77.100 is in no network of this node with a mask of 16 bits "
            "(eth0 10.89.77.11/24, eth1 10.0.0.9/8): give it an address of one of these networks",
        ),
        (
            "fd00::100",
            "eth1",
            None,
            "vip.network",
            "VIP fd00::100 is in no network of interface eth1 (it has no IPv6 network): "
            "give the interface an address first",
        ),
        (
            "10.1.2.3",
            "bond0",
            None,
            "vip.interface",
            "this node has no interface bond0 (it has eth0, eth1, eth2, tun0)",
        ),
        ("192.168.7.9", "eth2", None, "vip.interface", "interface eth2 is down"),
        ("172.16.0.9", "tun0", None, "vip.interface", "interface tun0 has no Ethernet address"),
    ],
)
def test_an_address_that_cannot_be_placed_is_named_with_what_there_is(
    address: str, interface: str | None, prefix: int | None, code: str, message: str
) -> None:
    with pytest.raises(VipError) as refused:
        choose(address, interface, prefix)
    assert refused.value.code == code
    assert str(refused.value) == message
    assert refused.value.facts.get("address", address) == address


def test_neither_an_interface_that_is_down_nor_one_without_ethernet_nor_loopback_gives_a_network() -> None:
    for address in ("192.168.7.9", "172.16.0.9", "127.0.0.9"):
        with pytest.raises(VipError, match="is in no network of this node"):
            choose(address)


def test_virtual_addresses_give_no_network() -> None:
    ours = LocalAddress(ip_address("203.0.113.1"), 24, 2, True)
    with pytest.raises(VipError, match=r"203\.0\.113\.5 is in no network"):
        place([VirtualAddress(ip_address("203.0.113.5"))], LINKS, (*PRESENT, ours))
