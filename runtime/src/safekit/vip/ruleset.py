"""The farm filter of one module as nftables text. Pure: `FarmRules` in, transactions out; `filter.py` loads them.

Three tables, all ours, all called `safekit_MODULE`:

`netdev`  before the node's own stack sees a frame, on each interface that carries a virtual address (`vmac_directed`,
spec §5.4):

    frame to a VIP -> from another member: decided already, taken (a frame is forwarded once, so there is no loop)
                   -> a fragment: no port to be seen, so whole datagrams go by the client's address
                   -> service (address . protocol . port, then address . protocol) -> hash of the client -> bucket
                   -> ping: by the client's address, in the first group, so that exactly one node answers
                   -> ICMP error: by the client in the quoted packet, in the group of the quoted service
                   -> no service: refused (TCP is reset, the rest dropped) by the node that received it

    bucket -> owner: mine -> taken; another's -> its MAC in, mine as source (or a switch would learn the client's on the
    wrong port),
              out again on the same wire; mine since the last change of the view -> second chance

    Second chance: a TCP segment of a bucket that became mine may belong to a former owner unless the connection began here.
    `fresh4`/`fresh6` hold the connections that began here (filled by their SYN, and from the sockets at each change);
    everything else goes on, with a small TTL, which is a word between members (`kept.py` says who has to be asked):
        1      you had this bucket before me: it is yours, or you know who else may have it
        1 + n  is it yours? If not, ask on, but nobody who is n nodes or more behind you in the ring of all nodes; if nobody is
               left, it is yours: what belongs to nobody is reset
    A word of the first kind is never answered by another such, and n only gets less: nothing goes in a circle. So a join, a
    drain or a new weight breaks no connection, however often a bucket moves. While a node has such buckets, what members
    forward to it is hashed again, for only the bucket tells.

    ARP and ND for a VIP are answered by one elected node; under an `arp` rule by the owner of the asking client, so that
    its frames come there at once. The others drop the question.

    A VIP with a virtual Ethernet address (`vmac_invisible`, `invisible.py`) comes to every node at once: what is another's
    is left to that one, and refused by the elected node alone. Only a second chance is still handed on.

`arp`     a node that answers clients from a VIP would ask for their MAC in the VIP's name, and so draw the VIP to
itself: it asks in its
          own. And an interface beside the VIP's (on the same wire) does not answer for it.
`ip6`     the same for neighbour solicitations.

The seed of the hash is explicit: without it the kernel draws one per rule and node.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from safekit.vip import invisible, kept
from safekit.vip.kept import ANYBODY
from safekit.vip.service import BalancingGroup, Flow, IPAddress, Placement, Protocol
from safekit.vip.services import ServiceMap, answering, services

_FAMILIES = (4, 6)
_INGRESS_PRIORITY = -500
_FLOWS = 1 << 20  # memory is taken as they come; when it is full, new clients go to the former owner
_IP = {4: "ip", 6: "ip6"}
_HOPS = {4: "ip ttl", 6: "ip6 hoplimit"}
_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
_PROTOCOL_FIELD = {4: "ip protocol", 6: "meta l4proto"}
_NUMBER = {Protocol.TCP: 6, Protocol.UDP: 17}
_ICMP = {4: "icmp", 6: "icmpv6"}
_ICMP_NUMBER = {4: 1, 6: 58}
# Where the packet quoted in an ICMP error says, in bits from the ICMP header: protocol, client, both ports.
_QUOTED = {
    4: ("@th,136,8", "@th,192,32", "@th,224,16", "@th,240,16"),
    6: ("@th,112,8", "@th,256,128", "@th,384,16", "@th,400,16"),
}
_ERRORS = {
    4: "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    6: "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
}
_NEIGHBOUR = "{ nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }"
_OPENING = "tcp flags & (fin | syn | rst | ack) == syn"


@dataclass(frozen=True)
class FarmRules:
    """Everything the filter of one module on one node depends on.

    `members`: the other live nodes, each with its MAC per interface of this node. `owners`: one table per group.
    `former`: per group, the buckets of this node in which others may hold connections, and whom to ask first. `answers`: the
    virtual addresses whose ARP and ND this node answers. `lost`: per group, the buckets about which their new owners ask this
    node, and in which others may hold connections too. `ring`: every node that may be there, the same everywhere.
    """

    module: str
    node: str
    seed: int
    placements: tuple[Placement, ...]
    groups: tuple[BalancingGroup, ...]
    members: Mapping[str, Mapping[str, str]]
    owners: tuple[tuple[str | None, ...], ...]
    former: tuple[Mapping[int, str], ...]
    answers: frozenset[IPAddress] = field(default_factory=frozenset)
    lost: tuple[frozenset[int], ...] = ()
    ring: tuple[str, ...] = ()

    @cached_property
    def answering(self) -> Mapping[IPAddress, int]:
        """The addresses under an `arp` rule: address -> group index."""
        return answering(self.groups, [placement.address for placement in self.placements])

    def of_family(self, family: int) -> tuple[Placement, ...]:
        """The placements of IPv4 or IPv6."""
        return tuple(p for p in self.placements if p.address.version == family)

    @cached_property
    def digest(self) -> str:
        """What tells this filter from every other: the table carries it as the name of an empty chain."""
        parts = {id(table): str(table) for table in (*self.verdicts, *self.seconds)}
        tables = "\0".join(parts[id(table)] for table in (*self.verdicts, *self.seconds))
        text = f"{self.standing}\0{self.following}\0{tables}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def standing(self) -> str:
        """The part of the rules that follows the configuration only."""
        return _standing(self)

    @cached_property
    def following(self) -> str:
        """The part of the rules that follows the view, without the buckets."""
        return _following(self)

    @cached_property
    def verdicts(self) -> list[dict[int, str]]:
        """Per group: bucket -> verdict. Buckets without owner have no element: their packets are refused."""
        return _verdicts(self)

    @cached_property
    def seconds(self) -> list[dict[int, str]]:
        """Per group: bucket -> verdict for what a member sends, where it is not simply taken."""
        return _seconds(self)

    @cached_property
    def next_in_ring(self) -> tuple[str, int] | None:
        """The member that is asked after this node, and how far behind it is in the ring."""
        return kept.after(self.node, (*self.ring, *self.members), self.members.keys())

    @cached_property
    def ring_size(self) -> int:
        """How many nodes are in the ring."""
        return len({*self.ring, *self.members, self.node})

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Each interface that carries a virtual address, once, in order."""
        return tuple(dict.fromkeys(p.interface for p in self.placements))


def table_name(module: str) -> str:
    """The name of the module's tables in every family."""
    return f"safekit_{module}"


def tables(rules: FarmRules) -> tuple[str, ...]:
    """The families in which these rules have a table."""
    return ("netdev", *(("arp",) if rules.of_family(4) else ()), *(("ip6",) if rules.of_family(6) else ()))


def removal(module: str) -> str:
    """The transaction after which nothing of the module's filter is there, whatever was there before."""
    name = table_name(module)
    return "".join(f"table {family} {name}\ndelete table {family} {name}\n" for family in ("netdev", "arp", "ip6"))


def replacement(rules: FarmRules, flows: Iterable[Flow] = ()) -> str:
    """The transaction that puts `rules` in the place of whatever is there. `flows`: connections held here, for the
    second chance.
    """
    elements = _elements(rules, rules.verdicts, rules.seconds, flows)
    return removal(rules.module) + rules.standing + rules.following + elements + _mark(rules, "add")


def difference(old: FarmRules, new: FarmRules, flows: Iterable[Flow] = ()) -> str | None:
    """The transaction that turns `old` into `new`: changed buckets and members only. None: it takes a `replacement`;
    empty: equal.
    """
    if old.standing != new.standing:
        return None
    if old.digest == new.digest:
        return ""
    table = f"netdev {table_name(new.module)}"
    sharing = set(new.answering.values())
    lines: list[str] = []
    changed: dict[str, list[dict[int, str]]] = {"owners": [], "second": []}
    found: dict[tuple[int, int], tuple[dict[int, str], list[int]]] = {}
    for kind, olds, news in (("owners", old.verdicts, new.verdicts), ("second", old.seconds, new.seconds)):
        for group, (was, now) in enumerate(zip(olds, news, strict=True)):
            if (id(was), id(now)) not in found:
                moved = {bucket: text for bucket, text in now.items() if was.get(bucket) != text}
                found[id(was), id(now)] = moved, [bucket for bucket in was if bucket in moved or bucket not in now]
            moved, gone = found[id(was), id(now)]
            if gone:
                lines.append(f"delete element {table} {kind}_{group} {{ {', '.join(map(str, gone))} }}\n")
            if kind == "owners" and group in sharing:
                shared = [bucket for bucket in gone if _is_mine(new, was[bucket])]
                if shared:
                    lines.append(f"delete element {table} mine_{group} {{ {', '.join(map(str, shared))} }}\n")
            changed[kind].append(moved)
    there = set(_parts(old.following))
    lines += [part for part in _parts(new.following) if part not in there]
    lines.append(_elements(new, changed["owners"], changed["second"], flows))
    for name in sorted(set(old.members) - set(new.members)):
        ways = ("handed", "chance", "node", *(("hand",) if invisible.virtual_macs(old.placements) else ()))
        lines += [f"delete chain {table} {way}_{_tag(name)}\n" for way in ways]
        lines.append(f"delete counter {table} forwarded_{_tag(name)}\n")
    return "".join(lines) + _mark(old, "delete") + _mark(new, "add")


def _parts(following: str) -> list[str]:
    """The chains and sets of a text, each with what fills it."""
    return re.split(r"^(?=add chain |add counter |flush set )", following, flags=re.MULTILINE)


def _mark(rules: FarmRules, verb: str) -> str:
    return f"{verb} chain netdev {table_name(rules.module)} digest_{rules.digest}\n"


@lru_cache(maxsize=256)
def _tag(node: str) -> str:
    """A node's name as part of an nftables name."""
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", node):
        return node
    return "x" + hashlib.sha256(node.encode()).hexdigest()[:16]


def _verdicts(rules: FarmRules) -> list[dict[int, str]]:
    result: list[dict[int, str]] = []
    made: dict[tuple[int, int], dict[int, str]] = {}  # groups with the same weights have the same tables
    for owners, former in zip(rules.owners, rules.former, strict=True):
        if (same := made.get((id(owners), id(former)))) is not None:
            result.append(same)
            continue
        ways = {owner: f"goto node_{_tag(owner)}" for owner in set(owners) if owner is not None}
        texts = {bucket: ways[owner] for bucket, owner in enumerate(owners) if owner is not None}
        chances = {name: f"goto {_about('chance', name)}" for name in set(former.values())}
        texts.update((bucket, chances[name]) for bucket, name in former.items() if owners[bucket] == rules.node)
        made[id(owners), id(former)] = texts
        result.append(texts)
    return result


def _seconds(rules: FarmRules) -> list[dict[int, str]]:
    result: list[dict[int, str]] = []
    made: dict[tuple[int, int], dict[int, str]] = {}
    for former, lost in zip(rules.former, rules.lost or (frozenset[int](),) * len(rules.groups), strict=True):
        if (same := made.get((id(former), id(lost)))) is None:
            ways = {name: f"goto {_about('handed', name)}" for name in set(former.values())}
            same = {bucket: ways[name] for bucket, name in former.items()} | dict.fromkeys(sorted(lost), "goto lost")
            made[id(former), id(lost)] = same
        result.append(same)
    return result


def _about(way: str, name: str) -> str:
    """The chain for buckets that `name` owned before, or somebody whom nobody here knows."""
    return way if name == ANYBODY else f"{way}_{_tag(name)}"


def _is_mine(rules: FarmRules, text: str) -> bool:
    return text.startswith("goto chance") or text == f"goto node_{_tag(rules.node)}"


def _pairs(elements: Mapping[int, str]) -> str:
    pairs = [f"{bucket} : {text}" for bucket, text in sorted(elements.items())]
    return "".join(f"  {', '.join(pairs[start : start + 8])},\n" for start in range(0, len(pairs), 8))


def _elements(
    rules: FarmRules, owners: Sequence[Mapping[int, str]], seconds: Sequence[Mapping[int, str]], flows: Iterable[Flow]
) -> str:
    table = f"netdev {table_name(rules.module)}"
    lines: list[str] = []
    pairs: dict[int, str] = {}
    for group in range(len(owners)):
        for kind, elements in (("owners", owners[group]), ("second", seconds[group])):
            if elements:
                if id(elements) not in pairs:
                    pairs[id(elements)] = _pairs(elements)
                lines.append(f"add element {table} {kind}_{group} {{\n{pairs[id(elements)]}}}\n")
        mine = sorted(bucket for bucket, text in owners[group].items() if _is_mine(rules, text))
        if mine and group in rules.answering.values():
            lines.append(f"add element {table} mine_{group} {{ {', '.join(map(str, mine))} }}\n")
    held = list(flows)
    for family in _FAMILIES:
        keys = [f"{f.client} . {f.client_port} . {f.address} . {f.port}" for f in held if f.address.version == family]
        if keys:
            lines.append(f"add element {table} fresh{family} {{ {', '.join(keys)} }}\n")
    return "".join(lines)


def _following(rules: FarmRules) -> str:
    """The parts that follow the view: members, their chains, who answers ARP and ND. Written over themselves at each
    change.
    """
    table = f"netdev {table_name(rules.module)}"
    lines: list[str] = []

    def chain(name: str, *body: str) -> None:
        lines.append(f"add chain {table} {name}\nflush chain {table} {name}\n")
        lines.extend(f"add rule {table} {name} {rule}\n" for rule in body)

    macs = sorted({mac for wires in rules.members.values() for mac in wires.values()})
    lines.append(f"flush set {table} members\n")
    if macs:
        lines.append(f"add element {table} members {{ {', '.join(macs)} }}\n")
    own = {placement.interface: placement.mac for placement in rules.placements}
    for name, wires in sorted(rules.members.items()):
        tag = _tag(name)
        lines.append(f"add counter {table} forwarded_{tag}\n")
        ways = [
            f'iifname "{wire}" ether saddr set {own[wire]} ether daddr set {wires[wire]} fwd to "{wire}"'
            for wire in rules.interfaces
            if wire in wires
        ]
        handed = (f"counter name forwarded_{tag}", *ways, "drop")
        if invisible.virtual_macs(rules.placements):
            chain(f"hand_{tag}", *handed)
            chain(f"node_{tag}", *_to_unseen(rules, "goto left"), f"goto hand_{tag}")
        else:
            chain(f"node_{tag}", *handed)
    for name, body in _asking(rules).items():
        chain(name, *body)
    alone = [p for p in rules.placements if p.address in rules.answers and p.address not in rules.answering]
    answered4 = [str(p.address) for p in alone if p.address.version == 4]
    answered6 = [f"{int(p.address):#034x}" for p in alone if p.address.version == 6]
    chain("elected4", *([f"arp daddr ip {{ {', '.join(answered4)} }} accept"] if answered4 else []), "drop")
    chain("elected6", *([f"@th,64,128 {{ {', '.join(answered6)} }} accept"] if answered6 else []), "drop")
    if invisible.virtual_macs(rules.placements):
        chain("refused_elsewhere", *_to_unseen(rules, "drop", but=rules.answers))
    return "".join(lines)


def _asking(rules: FarmRules) -> dict[str, list[str]]:
    """The chains for segments of connections that may live elsewhere, in the order in which they may be written."""
    me = f"goto node_{_tag(rules.node)}"
    way = "hand" if invisible.virtual_macs(rules.placements) else "node"
    size, following = rules.ring_size, rules.next_in_ring
    began = [f"meta l4proto != tcp {me}"]
    for family in _FAMILIES:
        began.append(f"meta protocol {_IP[family]} {_OPENING} update @fresh{family} {{ {_flow(family)} }} {me}")
    around, ask_on = ["drop"], list[str]()
    if following is not None:
        name, far = following
        on = f"goto {way}_{_tag(name)}"
        around = [f"{_hops(family)} set {1 + size - far}" for family in _FAMILIES] + [on]
        ask_on = [
            f"{_hops(family)} {word} {_HOPS[family]} set {word - far} {on}"
            for word in range(far + 2, size + 1)
            for family in _FAMILIES
        ]
    had = [f"{_hops(family)} 1 goto had" for family in _FAMILIES]
    found = {
        "around": around,
        "had": [*_living("goto kept"), "counter name second_chance", "goto around"],
        "asked": ["meta l4proto != tcp return", f"{_OPENING} return", *_living("goto kept"), *ask_on, "goto kept"],
        "lost": [*had, "goto kept"],
        "chance": [*began, *_living(me), "counter name second_chance", "goto around"],
        "handed": [*had, "goto chance"],
    }
    for name in sorted(rules.members):
        tag = _tag(name)
        yours = [f"{_hops(family)} set 1" for family in _FAMILIES]
        found[f"chance_{tag}"] = [*began, *_living(me), "counter name second_chance", *yours, f"goto {way}_{tag}"]
        found[f"handed_{tag}"] = [*had, f"goto chance_{tag}"]
    second = any(rules.seconds)
    for family in _FAMILIES:
        asked = [f"{_HOPS[family]} 2-{size} goto asked"] if len(rules.members) > 1 else []
        found[f"arrived{family}"] = asked if second else [*asked, "counter name taken accept"]
    return found


def _flow(family: int) -> str:
    return f"{_IP[family]} saddr . tcp sport . {_IP[family]} daddr . tcp dport"


def _hops(family: int) -> str:
    return f"meta protocol {_IP[family]} {_HOPS[family]}"


def _living(verdict: str) -> list[str]:
    """A segment of a connection that began here gets `verdict`.

    An end leaves the connection two minutes. Data prolongs it, a bare acknowledgement does not: the last one comes after the
    end.
    """
    lines = []
    for family in _FAMILIES:
        flow, fresh = _flow(family), f"@fresh{family}"
        lines.append(f"{flow} {fresh} tcp flags & (fin | rst) != 0 update {fresh} {{ {flow} timeout 2m }} {verdict}")
        lines.append(f"{flow} {fresh} tcp flags & psh != 0 update {fresh} {{ {flow} }} {verdict}")
        lines.append(f"{flow} {fresh} {verdict}")
    return lines


def _to_unseen(rules: FarmRules, verdict: str, but: Container[IPAddress] = ()) -> list[str]:
    """A rule per family for what goes to an address with a virtual Ethernet address."""
    lines = []
    for family in _FAMILIES:
        if found := [str(p.address) for p in rules.of_family(family) if p.vmac and p.address not in but]:
            lines.append(f"{_IP[family]} daddr {{ {', '.join(found)} }} {verdict}")
    return lines


def _standing(rules: FarmRules) -> str:
    """The parts that follow the configuration only."""
    name = table_name(rules.module)
    size = max((len(owners) for owners in rules.owners), default=1)
    lines = [f"table netdev {name} {{"]
    lines += [f"  counter {counter} {{ }}" for counter in ("local", "taken", "second_chance", "refused")]
    lines.append("  set members { type ether_addr; }")
    for family in _FAMILIES:
        key = f"{_TYPE[family]} . inet_service . {_TYPE[family]} . inet_service"
        lines.append(f"  set fresh{family} {{ type {key}; size {_FLOWS}; flags dynamic, timeout; timeout 1d; }}")
    for group in range(len(rules.groups)):
        lines.append(f"  map owners_{group} {{ type mark : verdict; size {size}; }}")
        lines.append(f"  map second_{group} {{ type mark : verdict; size {size}; }}")
    for group in sorted(set(rules.answering.values())):
        lines.append(f"  set mine_{group} {{ type mark; size {size}; }}")
    chains = ("elected4", "elected6", "arrived4", "arrived6", "asked", "had", "around", "lost", "chance", "handed")
    lines += [f"  chain {following} {{ }}" for following in chains]
    lines += _chain("kept", "counter name taken", "meta mark set 0 accept")
    lines += _chain(f"node_{_tag(rules.node)}", "counter name local", "meta mark set 0 accept")
    refusing = ["counter name refused", "meta l4proto tcp reject with tcp reset", "drop"]
    if invisible.virtual_macs(rules.placements):
        lines += ["  counter left { }", "  chain refused_elsewhere { }"]
        lines += _chain("left", "counter name left", "drop")
        refusing.insert(0, "jump refused_elsewhere")
    lines += _chain("refused", *refusing)
    for group in range(len(rules.groups)):
        lines += _chain(
            f"again_{group}", f"meta mark vmap @second_{group}", "counter name taken", "meta mark set 0 accept"
        )
        again, owner = f"ether saddr @members goto again_{group}", f"meta mark vmap @owners_{group}"
        lines += _chain(f"bucket_{group}", again, owner, "counter name refused", "drop")
    service_map = services(rules.groups, [p.address for p in rules.placements])
    for family in _FAMILIES:
        if rules.of_family(family):
            entry = _entry_chain(rules, family, service_map)
            lines += _hash_chains(rules, family, set(re.findall(r"goto (\w+)", "\n".join(entry)))) + entry
            lines += _asked_chains(rules, family)
    lines += [_base_chain(rules, number, wire) for number, wire in enumerate(rules.interfaces)]
    lines.append("}")
    lines += _source_tables(rules)
    return "\n".join(lines) + "\n"


def _chain(name: str, *rules: str) -> list[str]:
    return [f"  chain {name} {{", *(f"    {rule}" for rule in rules), "  }"]


def _hash_chains(rules: FarmRules, family: int, used: set[str]) -> list[str]:
    """Only those that are used: at each change the kernel follows every way through the table to every bucket."""
    ip = _IP[family]
    _, client, _, client_port = _QUOTED[family]
    keys = {
        "addr": f"{ip} saddr",
        "port": f"{ip} saddr . th sport",
        "quoted_addr": client,
        "quoted_port": f"{client} . {client_port}",
    }
    if family == 4:
        keys["ipid"] = "ip id"
    lines: list[str] = []
    for group, owners in enumerate(rules.owners):
        for kind, key in keys.items():
            hashed = f"meta mark set jhash {key} mod {len(owners)} seed {rules.seed:#x} goto bucket_{group}"
            if (name := f"{kind}{family}_{group}") in used:
                lines += _chain(name, hashed)
    return lines


def _asked_chains(rules: FarmRules, family: int) -> list[str]:
    """Who answers ARP or ND for an address: the owner of the asker where a rule says so, else the elected node."""
    asker, target = ("arp saddr ip", "arp daddr ip") if family == 4 else ("ip6 saddr", "@th,64,128")
    lines: list[str] = []
    ways: list[str] = []
    for group in sorted(set(rules.answering.values())):
        asked = [p.address for p in rules.of_family(family) if rules.answering.get(p.address) == group]
        if asked:
            names = ", ".join(str(a) if family == 4 else f"{int(a):#034x}" for a in asked)
            ways.append(f"{target} {{ {names} }} goto asked{family}_{group}")
            size = len(rules.owners[group])
            hashed = f"meta mark set jhash {asker} mod {size} seed {rules.seed:#x}"
            mine = f"meta mark @mine_{group} meta mark set 0 accept"
            lines += _chain(f"asked{family}_{group}", hashed, mine, "drop")
    return lines + _chain(f"asked{family}", *ways, f"goto elected{family}")


def _entry_chain(rules: FarmRules, family: int, service_map: ServiceMap) -> list[str]:
    ip, protocol_field, icmp = _IP[family], _PROTOCOL_FIELD[family], _ICMP[family]
    quoted_protocol, _, quoted_port, _ = _QUOTED[family]
    addresses = [p.address for p in rules.of_family(family)]
    mine = {entry: target for entry, target in service_map.entries.items() if entry[0].version == family}
    exact: list[str] = []
    whole: list[str] = []
    fragments: dict[tuple[IPAddress, str], int] = {}
    quoted: list[tuple[bool, str]] = []
    for (address, protocol, port), (key, group) in mine.items():
        kind = key.value.removeprefix("on_")
        chain = f"{kind}{family}_{group}"
        if port is None:
            whole.append(f"{address} . {protocol} : goto {chain}")
        else:
            exact.append(f"{address} . {protocol} . {port} : goto {chain}")
        fragments.setdefault((address, str(protocol)), group)
        about = f"{ip} daddr {address} {quoted_protocol} {_NUMBER[protocol]}"
        about += "" if port is None else f" {quoted_port} {port}"
        quoted.append((port is None, f"    {about} goto quoted_{'port' if kind == 'port' else 'addr'}{family}_{group}"))
    ping: list[str] = []
    if rules.groups:
        ping = [f"    {icmp} type echo-request goto addr{family}_0"]
        fragments.update({(address, "ipv6-icmp" if family == 6 else "icmp"): 0 for address in addresses})
        quoted.append((True, f"    {quoted_protocol} {_ICMP_NUMBER[family]} goto quoted_addr{family}_0"))
    pieces = [f"{address} . {protocol} : goto addr{family}_{group}" for (address, protocol), group in fragments.items()]
    fragment = "ip frag-off & 0x3fff != 0" if family == 4 else "exthdr frag exists"
    lines = [
        _map(f"services{family}", f"{_TYPE[family]} . inet_proto . inet_service", exact),
        _map(f"protocols{family}", f"{_TYPE[family]} . inet_proto", whole),
        _map(f"fragments{family}", f"{_TYPE[family]} . inet_proto", pieces),
        f"  chain errors{family} {{",
        *(text for _, text in sorted(quoted, key=lambda pair: pair[0])),  # a rule for one port goes before one for all
        "    counter name refused",
        "    drop",
        "  }",
        f"  chain entry{family} {{",
        "    meta pkttype { broadcast, multicast } drop",  # would be served by every node
        "    meta pkttype other accept",  # flooded copy of a frame to another station: not ours to forward
    ]
    if family == 6:
        lines.append(f"    icmpv6 type {_NEIGHBOUR} accept")
    lines += [
        f"    ether saddr @members jump arrived{family}",
        f"    {fragment} {ip} daddr . {protocol_field} vmap @fragments{family}",
        f"    {fragment} goto refused",
        f"    {ip} daddr . {protocol_field} . th dport vmap @services{family}",
        f"    {ip} daddr . {protocol_field} vmap @protocols{family}",
        *ping,
        f"    {_ERRORS[family]} goto errors{family}",
        "    goto refused",
        "  }",
    ]
    return lines


def _map(name: str, key: str, elements: Sequence[str]) -> str:
    content = f" elements = {{ {', '.join(elements)} }};" if elements else ""
    return f"  map {name} {{ type {key} : verdict;{content} }}"


def _base_chain(rules: FarmRules, number: int, wire: str) -> str:
    here = [p for p in rules.placements if p.interface == wire]
    found = _sorted_out(here)
    lines = []
    if unseen := [p for p in here if p.vmac]:
        lines += _chain(f"unseen_{number}", invisible.made_own(unseen[0]), *_sorted_out(unseen), "drop")
        found.insert(0, f"{invisible.to_any(unseen)} goto unseen_{number}")
    hook = f'type filter hook ingress device "{wire}" priority {_INGRESS_PRIORITY}; policy accept;'
    return "\n".join([*lines, *_chain(f"ingress_{number}", hook, *found)])


def _sorted_out(placements: Sequence[Placement]) -> list[str]:
    """What leads to the chains of the virtual addresses."""
    four = [str(p.address) for p in placements if p.address.version == 4]
    six = [p.address for p in placements if p.address.version == 6]
    lines = []
    if four:
        lines.append(f"arp operation request arp daddr ip {{ {', '.join(four)} }} goto asked4")
        lines.append(f"ip daddr {{ {', '.join(four)} }} goto entry4")
    if six:
        targets = ", ".join(f"{int(address):#034x}" for address in six)
        lines.append(f"icmpv6 type nd-neighbor-solicit @th,64,128 {{ {targets} }} goto asked6")
        # The elected node's: not a duplicate.
        lines.append(f"icmpv6 type nd-neighbor-advert @th,64,128 {{ {targets} }} drop")
        lines.append(f"ip6 daddr {{ {', '.join(map(str, six))} }} goto entry6")
    return lines


def _source_tables(rules: FarmRules) -> list[str]:
    name = table_name(rules.module)
    lines: list[str] = []
    if four := rules.of_family(4):
        lines += [f"table arp {name} {{", "  chain output {", "    type filter hook output priority 0; policy accept;"]
        for p in four:
            asks = f'oifname "{p.interface}" arp operation request arp saddr ip {p.address}'
            lines.append(f"    {asks} arp daddr ip != {p.address} arp saddr ip set {p.source}")
        lines += [f"    {invisible.spoken4(p)}" for p in four if p.vmac]
        lines += ["  }", "  chain input {", "    type filter hook input priority 0; policy accept;"]
        lines += [f'    iifname != "{p.interface}" arp operation request arp daddr ip {p.address} drop' for p in four]
        lines += ["  }", "}"]
    if six := rules.of_family(6):
        lines += [
            f"table ip6 {name} {{",
            "  chain output {",
            "    type filter hook output priority -150; policy accept;",
        ]
        for p in six:
            asks = f'oifname "{p.interface}" icmpv6 type nd-neighbor-solicit ip6 saddr {p.address}'
            lines.append(f"    {asks} ip6 saddr set {p.source}")
        lines += [f"    {invisible.spoken6(p)}" for p in six if p.vmac]
        lines += ["  }", "}"]
    return lines
