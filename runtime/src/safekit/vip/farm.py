"""The virtual addresses of a farm: on every UP node, with the filter that gives each client one of them (spec §5.3,
§5.4).

Order is safety: the filter is in force before an address is set and until it is gone, so that at no moment two nodes
take one packet. What a node does follows from the configuration, the cluster's identity and the view only; nodes with
the same view agree. Groups that a configuration changes come into force when every member has them (`inforce.py`).

Which connections live where after buckets moved is told by memory (`kept.py`), which is kept in the record.

Buckets pass from a living member to another in turn. With `vmac_directed` one node receives a frame and decides about it: the
taker follows a view first, and asks the former owner about connections that it does not know (`ruleset.py`); the others hand
on to it when it said so. With `vmac_invisible` all receive a frame: the giver follows first, and the taker takes when it said so.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from safekit.vip import buckets, inforce, kept, netlink, sockets
from safekit.vip.addresses import Addresses
from safekit.vip.announce import Announcements
from safekit.vip.filter import FarmFilter
from safekit.vip.invisible import Heard
from safekit.vip.kept import Memory
from safekit.vip.ruleset import FarmRules
from safekit.vip.service import (
    AddressUse,
    BalancingGroup,
    FarmService,
    Flow,
    Member,
    Picture,
    Placement,
    Protocol,
    Released,
    Share,
    View,
    VipError,
)
from safekit.vip.services import ServiceMap, services

Owners = tuple[tuple[str | None, ...], ...]
Groups = tuple[BalancingGroup, ...]
RECORD = "farm.json"


class FarmRecord:
    """The last view, its groups and who owned their buckets, in the module's run directory: what a restarted daemon goes on
    with.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / RECORD

    def write(self, view: View, memory: Memory, groups: Groups) -> None:
        """Keep them; untouched if equal."""
        content = json.dumps(
            {
                "view": {
                    name: {"macs": dict(member.macs), "open": member.open} for name, member in sorted(view.items())
                },
                "groups": inforce.written(groups),
                "memory": kept.written(memory),
            }
        )
        if self._path.exists() and self._path.read_text() == content:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(content)
        temporary.replace(self._path)

    def read(self) -> tuple[dict[str, Member], Memory, Groups] | None:
        """What was kept; None if nothing was."""
        try:
            content = json.loads(self._path.read_text())
            view = {name: Member(entry["macs"], entry["open"]) for name, entry in content["view"].items()}
            groups = inforce.read(content["groups"])
            memory = kept.read(content["memory"])
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
            return None  # nobody's, or damaged: then the filter is written anew
        return view, memory, groups

    def forget(self) -> None:
        """The module is down."""
        self._path.unlink(missing_ok=True)


class FarmVip:
    """One farm module on one node. Every method may be repeated; a new object continues an old one's work."""

    def __init__(
        self, module: str, service: FarmService, node: str, identity: str, run: Path, nodes: Iterable[str] = ()
    ) -> None:
        """`identity` and `nodes` (every node that may be UP) are the same on every node."""
        self.module = module
        self.node = node
        self._service = service
        self._wanted = service.groups
        self._nodes = tuple(nodes)
        self._identity = f"{identity}|{module}"
        self._seed = buckets.hash_seed(self._identity)
        self._addresses = Addresses(run)
        self._filter = FarmFilter(module)
        self._heard = Heard(run)
        self._services: ServiceMap = services(service.groups, [one.address for one in service.addresses])
        self._record = FarmRecord(run)
        self._rules: FarmRules | None = None
        self._memory = Memory()
        self._meant: Mapping[str, tuple[str | None, ...]] = {}
        """Per group: the owners that the last view asks for, also where another is waited for."""
        self._announcements = Announcements()
        self._changing = threading.Lock()
        self.waiting_for: frozenset[str] = frozenset()
        """The members that have to follow before this node does all that a view asks of it."""

    def plan(self) -> tuple[Placement, ...]:
        """Where each address goes. VipError if one cannot be placed or belongs to another. Touches nothing."""
        return self._addresses.place(self._service.addresses)

    def macs(self) -> dict[str, str]:
        """This node's part of the membership payload: virtual address -> Ethernet address."""
        return {str(placement.address): placement.mac for placement in self.plan()}

    def was_open(self) -> bool:
        """Whether this node took its share when the filter was written last; for a daemon that was restarted."""
        recorded = self._record.read()
        return recorded is not None and self.node in recorded[0] and recorded[0][self.node].open

    @property
    def invisible(self) -> bool:
        """Whether every node hears what goes to an address of this module (`vmac_invisible`)."""
        return any(one.vmac for one in self._service.addresses)

    @property
    def wanted(self) -> str:
        """What tells the groups of the configuration from others."""
        return inforce.digest(self._wanted)

    @property
    def in_force(self) -> str:
        """The same of the groups that are in force, which the configuration may have left behind."""
        return inforce.digest(self._service.groups)

    def up(self, view: View, following: Container[str] | None = None, agreed: bool = True) -> None:
        """Filter in force, addresses set, announced. `view`: every UP node with this one. `following`: the members
        whose filter follows this view already, None if nobody has to be waited for. `agreed`: every member has the groups
        of this configuration; until then those that were in force stay so.
        """
        with self._changing:
            self._follow(view, following, agreed)

    def update(self, view: View, following: Container[str] | None = None, agreed: bool = True) -> bool:
        """Follow a new view; also puts back what a stranger removed. True if the kernel was changed."""
        with self._changing:
            return self._follow(view, following, agreed)

    def down(self, tcpreset: bool) -> Released:
        """Reset the connections if asked, remove the addresses, then the filter; also after a crash or with another
        configuration.
        """
        self._announcements.end()
        self._rules, self._memory, self._meant = None, Memory(), {}
        mine = sorted({one.address for one in self._service.addresses} | self._addresses.recorded(), key=str)
        held = [address for address in mine if self._addresses.has(address)]
        count, note = sockets.reset_connections(held) if tcpreset else (0, "")
        removed = self._addresses.remove(mine)
        self._heard.end()
        self._filter.remove()
        self._record.forget()
        return Released(tuple(map(str, removed)), count, note)

    def held(self) -> bool:
        """True if every address is here and the filter of the last view is in force. Asked in the middle of a change, it
        answers after it.
        """
        with self._changing:
            rules = self._rules
            if rules is None or not self._addresses.held(self._service.addresses):
                return False
            return self._filter.in_force(rules) == rules.digest

    def shares(self) -> dict[str, Share]:
        """What this node serves of each group; nothing before `up` and after `down`."""
        if self._rules is None:
            return {group.name: Share(0, 0.0) for group in self._service.groups}
        tables = zip(self._rules.groups, self._rules.owners, strict=True)
        return {group.name: buckets.share(owners, self.node) for group, owners in tables}

    def owners(self) -> dict[str, dict[str, int]]:
        """Per group: how many of the 4,096 buckets each node owns."""
        if self._rules is None:
            return {group.name: {} for group in self._service.groups}
        nodes = sorted({self.node, *self._rules.members})
        tables = zip(self._rules.groups, self._rules.owners, strict=True)
        return {group.name: {node: owners.count(node) for node in nodes} for group, owners in tables}

    def counters(self) -> dict[str, int]:
        """Packets since the filter was first loaded, by what became of them."""
        return self._filter.counters()

    def picture(self) -> Picture | None:
        """All of it for a person: owners, addresses with their connections, packets. None before `up` and after `down`."""
        rules = self._rules
        if rules is None:
            return None
        nodes = tuple(sorted({self.node, *rules.members}))
        here = {one.address for one in netlink.addresses()}
        uses = []
        for placement in rules.placements:
            address = placement.address
            held = sockets.flows((address,), established=True)
            elsewhere = sum(flow.client not in here and self._owner_of(rules, flow) != self.node for flow in held)
            by_asker = address in rules.answering
            resolved_by = None if by_asker else buckets.elect(nodes, address, self._identity)
            uses.append(AddressUse(address, resolved_by, len(held), elsewhere))
        owners = {group.name: table for group, table in zip(rules.groups, rules.owners, strict=True)}
        return Picture(nodes, owners, tuple(uses), self.counters())

    def connections(self) -> int:
        """How many connections of clients on other machines this node has, but those that already end."""
        here = {one.address for one in netlink.addresses()}
        addresses = tuple(one.address for one in self._service.addresses)
        return sum(flow.client not in here for flow in sockets.flows(addresses, established=True))

    async def keep_announcing(self) -> None:
        """Repeat the announcements of the addresses that this node answers for; ends by itself, at the next view, or
        when cancelled.
        """
        await self._announcements.repeat()

    def _follow(self, view: View, following: Container[str] | None, agreed: bool) -> bool:
        if self.node not in view:
            raise VipError(
                "vip.member", f"the view {sorted(view)} does not hold this node, {self.node}", node=self.node
            )
        placements = self.plan()
        silent = self._rules is None
        if silent:
            self._adopt(placements)
        if agreed:
            self._put_in_force(self._wanted)
        meant = owners = self._owners_in(view)
        self.waiting_for = frozenset()
        if following is not None:
            owners = self._in_turn(view, owners, following)
        memory = self._remembering(view, owners)
        rules = self._rules_for(view, placements, owners, memory)
        first = self._rules is None
        lost = not rules.members if self._rules is None else not set(self._rules.members) <= set(rules.members)
        self._record.write(view, memory, rules.groups)
        try:
            changed = self._filter.apply(rules, self._kept(rules))
            changed = self._heard.hear(placements) or changed
            changed = bool(self._addresses.add(placements)) or changed
        except VipError:
            if first:
                self._heard.end()
                self._filter.remove()
                self._record.forget()
            raise
        self._rules, self._memory = rules, memory
        self._meant = {group.name: table for group, table in zip(rules.groups, meant, strict=True)}
        if changed or silent:
            reroutes = {one.address: one.reroute for one in self._service.addresses}
            # Under an `arp` rule an announcement would draw everybody to one node: only a node that is gone is worth that.
            quiet = () if lost else rules.answering
            mine = [p for p in placements if p.address in rules.answers and p.address not in quiet]
            self._announcements.begin((placement, reroutes[placement.address]) for placement in mine)
        return changed

    def _adopt(self, placements: tuple[Placement, ...]) -> None:
        """Go on with the view of an earlier daemon, if its filter is in force: then this node does not join, it never
        left.
        """
        recorded = self._record.read()
        if recorded is None:
            return
        view, memory, groups = recorded
        if self.node not in view or len(memory.trails) != len(groups):
            return
        try:
            self._put_in_force(groups)
            rules = self._rules_for(view, placements, self._owners_in(view), memory)
        except VipError:
            self._put_in_force(self._wanted)
            return  # the configuration has another address now
        if self._filter.adopt(rules):
            self._rules, self._memory = rules, memory

    def _put_in_force(self, groups: Groups) -> None:
        """Decide by these groups from now on."""
        self._services = services(groups, [one.address for one in self._service.addresses])
        self._service = replace(self._service, groups=groups)

    def _rules_for(self, view: View, placements: tuple[Placement, ...], owners: Owners, memory: Memory) -> FarmRules:
        former: list[Mapping[int, str]] = []
        lost: list[frozenset[int]] = []
        made: dict[tuple[int, int], tuple[dict[int, str], frozenset[int]]] = {}
        for table, trail in zip(owners, memory.trails, strict=True):
            if (id(table), id(trail)) not in made:  # groups with the same weights have the same tables
                about = self.node, table, trail, memory.strangers
                made[id(table), id(trail)] = kept.former(*about), kept.lost(*about)
            former.append(made[id(table), id(trail)][0])
            lost.append(made[id(table), id(trail)][1])
        answers = frozenset(
            p.address for p in placements if buckets.elect(sorted(view), p.address, self._identity) == self.node
        )
        return FarmRules(
            module=self.module,
            node=self.node,
            seed=self._seed,
            placements=placements,
            groups=self._service.groups,
            members={name: self._wires(name, view, placements) for name in view if name != self.node},
            owners=owners,
            former=tuple(former),
            answers=answers,
            lost=tuple(lost),
            ring=self._nodes,
        )

    def _owners_in(self, view: View) -> Owners:
        result = []
        for group in self._service.groups:
            live = {name: group.power_of(name) if member.open else 0 for name, member in view.items()}
            known = {name: group.power_of(name) for name in {*self._nodes, *group.powers, *view}}
            result.append(buckets.assign(live, self._identity, known))
        return tuple(result)

    def _wires(self, name: str, view: View, placements: tuple[Placement, ...]) -> Mapping[str, str]:
        """The Ethernet address of a member on each of our wires: what it gives for the addresses that we have there."""
        wires: dict[str, str] = {}
        for placement in placements:
            mac = view[name].macs.get(str(placement.address))
            if mac is None:
                message = (
                    f"node {name} gives no Ethernet address for VIP {placement.address}: is its configuration the same?"
                )
                raise VipError("vip.member", message, node=name, address=str(placement.address))
            wires.setdefault(placement.interface, mac)
        return wires

    def _owners_before(self, view: View) -> Owners:
        """Who owned what before this view. A group that was not there before had no owners."""
        if self._rules is not None:
            tables = zip(self._rules.groups, self._rules.owners, strict=True)
            before = {group.name: owners for group, owners in tables}
            nobody = (None,) * buckets.BUCKETS
            return tuple(before.get(group.name, nobody) for group in self._service.groups)
        return self._owners_in({name: member for name, member in view.items() if name != self.node})

    def _in_turn(self, view: View, owners: Owners, following: Container[str]) -> Owners:
        """The owners, but a bucket stays its former owner's until the one who is to act first has followed: who lets it go
        where all hear a frame, who takes it where one decides. A node that is gone is waited for by nobody.
        """
        awaited = {name for name in view if name != self.node and name not in following}
        if not awaited:
            return owners
        found = set()
        giver_first = self.invisible

        def turn(now: str | None, was: str | None) -> str | None:
            first = (was if now == self.node else None) if giver_first else now
            if now == was or was not in view or first not in awaited:
                return now
            found.add(first)
            return was

        made: dict[tuple[int, int], tuple[str | None, ...]] = {}  # groups with the same weights have the same tables
        tables = []
        for table, before in zip(owners, self._owners_before(view), strict=True):
            if (id(table), id(before)) not in made:
                turned = tuple(map(turn, table, before))
                made[id(table), id(before)] = table if turned == table else turned
            tables.append(made[id(table), id(before)])
        self.waiting_for = frozenset(found)
        return tuple(tables)

    def _remembering(self, view: View, owners: Owners) -> Memory:
        """The memory once these owners are in force.

        A node that joins saw nothing: who was there before it are strangers, and the owners in their view had its buckets. Who
        was to have a bucket while another was waited for may have taken some of its clients.
        """
        if self._rules is None:
            strangers = frozenset(view) - {self.node}
            trails = {group.name: kept.NOBODY for group in self._service.groups}
            meant = dict(zip(trails, self._owners_before(view), strict=True))
        else:
            strangers = self._memory.strangers & frozenset(view)
            trails = {g.name: trail for g, trail in zip(self._rules.groups, self._memory.trails, strict=True)}
            meant = dict(self._meant)
        result = []
        made: dict[tuple[int, int, int], kept.Trail] = {}  # groups with the same weights have the same tables
        for group, table in zip(self._service.groups, owners, strict=True):
            trail, before = trails.get(group.name, kept.NOBODY), meant.get(group.name, table)
            key = id(trail), id(before), id(table)
            if key not in made:
                first = trail if before is table else kept.followed(trail, before, view.keys())
                made[key] = kept.followed(first, table, view.keys())
            result.append(made[key])
        return Memory(tuple(result), strangers)

    def _owner_of(self, rules: FarmRules, flow: Flow) -> str | None:
        """Who takes new connections of this client to this service; this node where no rule names it."""
        target = self._services.of(flow.address, Protocol.TCP, flow.port)
        if target is None:
            return self.node
        key, group = target
        return rules.owners[group][buckets.bucket_of(flow.client, flow.client_port, key, self._seed)]

    def _kept(self, rules: FarmRules) -> list[Flow]:
        """Connections that this node holds in buckets in which others may hold some too: the filter must know that they
        began here. With one other node only those in buckets of this node: what that one sends is not its own.
        """
        several = len(rules.members) > 1
        if not several and not any(rules.former):
            return []
        held = []
        for flow in sockets.flows(p.address for p in rules.placements):
            target = self._services.of(flow.address, Protocol.TCP, flow.port)
            if target is None:
                continue
            key, group = target
            bucket = buckets.bucket_of(flow.client, flow.client_port, key, self._seed)
            if bucket in rules.former[group] or (several and rules.owners[group][bucket] != self.node):
                held.append(flow)
        return held
