"""Which group decides about a packet: the rules of all groups spread over the addresses (spec §3.5). Pure.

A rule for one address goes before a rule for `*`. Two rules for the same traffic are an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from safekit.vip.service import BalancingGroup, BalancingRule, HashKey, IPAddress, Protocol, VipError


@dataclass(frozen=True)
class ServiceMap:
    """Where each service goes: (address, protocol, port or None for every port) -> (key, group index)."""

    entries: Mapping[tuple[IPAddress, Protocol, int | None], tuple[HashKey, int]]

    def of(self, address: IPAddress, protocol: Protocol, port: int) -> tuple[HashKey, int] | None:
        """What decides about this service; None: refused."""
        return self.entries.get((address, protocol, port)) or self.entries.get((address, protocol, None))


def services(groups: Sequence[BalancingGroup], addresses: Sequence[IPAddress]) -> ServiceMap:
    """Where each service of these addresses goes. VipError if two rules contradict, or one can match nothing.

    `on_ipid` exists for UDP on IPv4 only (spec §3.5): for `*` it covers the IPv4 addresses.
    """
    entries: dict[tuple[IPAddress, Protocol, int | None], tuple[HashKey, int]] = {}
    specific: dict[tuple[IPAddress, Protocol, int | None], bool] = {}
    for index, group in enumerate(groups):
        for rule in group.rules:
            where = f"{rule.protocol} port {'*' if rule.port is None else rule.port}"
            if rule.key is HashKey.ON_IPID and (
                rule.protocol is not Protocol.UDP or isinstance(rule.address, IPv6Address)
            ):
                raise _wrong(group, rule, f"the rule for {where} has filter on_ipid, which exists for udp on IPv4 only")
            for address in _meant(group, rule, where, addresses):
                if rule.key is HashKey.ON_IPID and address.version == 6:
                    continue
                entry = (address, rule.protocol, rule.port)
                if entry in entries and specific[entry] == (rule.address is not None):
                    raise _wrong(group, rule, f"a second rule decides about {where} of {address}")
                if specific.get(entry, False):
                    continue
                entries[entry] = (rule.key, index)
                specific[entry] = rule.address is not None
    return ServiceMap(entries)


def answering(groups: Sequence[BalancingGroup], addresses: Sequence[IPAddress]) -> Mapping[IPAddress, int]:
    """The addresses whose ARP and ND are answered by the owner of the asking client, after the `arp` rules: address ->
    group index. For the others one elected node answers.
    """
    found: dict[IPAddress, int] = {}
    specific: dict[IPAddress, bool] = {}
    for index, group in enumerate(groups):
        for rule in (BalancingRule(Protocol.ARP, HashKey.ON_ADDR, address) for address in group.asked):
            for address in _meant(group, rule, "arp", addresses):
                if address in found and specific[address] == (rule.address is not None):
                    raise _wrong(group, rule, f"a second rule decides about arp of {address}")
                if specific.get(address, False):
                    continue
                found[address] = index
                specific[address] = rule.address is not None
    return found


def _meant(
    group: BalancingGroup, rule: BalancingRule, where: str, addresses: Sequence[IPAddress]
) -> Iterator[IPAddress]:
    if rule.address is None:
        yield from addresses
    elif rule.address in addresses:
        yield rule.address
    else:
        raise _wrong(group, rule, f"the rule for {where} names {rule.address}, no address of this module")


def _wrong(group: BalancingGroup, rule: BalancingRule, what: str) -> VipError:
    facts = {"group": group.name, "virtual_addr": str(rule.address or "*"), "port": str(rule.port or "*")}
    return VipError("vip.service", f'group "{group.name}": {what}', **facts)
