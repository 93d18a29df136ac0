"""From `<vip>` as the configuration has it (spec §3.5) to what this room works with; alone knows `safekit.config`.

What the runtime does not do yet (`one_side`) is refused where a configuration is applied;
it is refused here again, so that nothing of it is ever ignored in silence. Names are resolved here, on this node, now.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Network, ip_address

from safekit.config import Address, Rule, Vip, VipInterface
from safekit.vip.invisible import derived_mac
from safekit.vip.service import (
    ArpReroute,
    BalancingGroup,
    BalancingRule,
    FarmService,
    HashKey,
    IPAddress,
    Protocol,
    VipError,
    VirtualAddress,
)


def mirror_addresses(vip: Vip) -> tuple[VirtualAddress, ...]:
    """The addresses of a mirror, in the order of the file."""
    return tuple(one for interface in vip.interfaces for one in _addresses(interface))


def farm_service(vip: Vip) -> FarmService:
    """The addresses, groups and rules of a farm."""
    groups = tuple(
        BalancingGroup(
            group.name,
            tuple(_rule(rule) for rule in group.rules if rule.proto != "arp"),
            {host.name: host.power for host in group.hosts},
            tuple(_scope(rule) for rule in group.rules if rule.proto == "arp"),
        )
        for group in vip.groups
    )
    return FarmService(mirror_addresses(vip), groups)


def resolved(address: Address) -> IPAddress:
    """The address itself, or the first that its name stands for."""
    if not isinstance(address, str):
        return address
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise VipError(
            "vip.name", f'the name "{address}" of a VIP cannot be resolved: {error}', name=address
        ) from error
    return ip_address(found[0][4][0])


def _addresses(interface: VipInterface) -> list[VirtualAddress]:
    reroute = None
    if interface.arpreroute:
        reroute = ArpReroute(interface.arpinterval.total_seconds(), interface.arpelapse.total_seconds())
    found: list[VirtualAddress] = []
    vmac = interface.mac or ""
    for one in interface.addresses:
        if one.where == "one_side":
            raise _unsupported('<virtual_addr where="one_side">')
        prefix = None if one.netmask is None else IPv4Network((0, str(one.netmask))).prefixlen
        address = resolved(one.addr)
        if interface.type == "vmac_invisible" and not vmac:
            vmac = derived_mac(address)
        found.append(VirtualAddress(address, interface.name, prefix, reroute, vmac))
    return found


def _rule(rule: Rule) -> BalancingRule:
    return BalancingRule(Protocol(rule.proto), HashKey(rule.filter), _scope(rule), rule.port)


def _scope(rule: Rule) -> IPAddress | None:
    return None if rule.virtual_addr is None else resolved(rule.virtual_addr)


def _unsupported(what: str) -> VipError:
    return VipError("vip.unsupported", f"not supported yet: {what}", what=what)
