"""A module among others (spec §1.5, §10.3): its ports, and whether it fits the cluster and the modules beside it.

Still nothing of the machine: the same arguments give the same answer on every node. Whether an address lies in a
network of an interface, or a directory exists, is asked where the kernel is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from safekit.config.checks_rfs import overlap
from safekit.config.cluster import Cluster
from safekit.config.errors import ConfigError, Problems
from safekit.config.grammar import one_of
from safekit.config.model import ModuleCheck, Quorum, UserConfig
from safekit.config.values import Address

CONSOLE_PORTS = (9001, 9010, 9453)


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one module: `heart` and `farm` are UDP, `rfs` is TCP; None for what the module does not have."""

    heart: int | None
    rfs: int | None
    farm: int | None

    def used(self) -> Iterator[tuple[str, str, int]]:
        """Each port as (element, protocol, port)."""
        for element, protocol, port in (
            ("heart", "UDP", self.heart),
            ("rfs", "TCP", self.rfs),
            ("farm", "UDP", self.farm),
        ):
            if port is not None:
                yield element, protocol, port


def ports(userconfig: UserConfig, module_id: int) -> Ports:
    """The ports that a module uses: those it names, else those that follow from its id (spec §10.3).

    Raises `ConfigError` when the id is not positive or leads beyond port 65535.
    """
    service = userconfig.service
    if module_id < 1:
        raise userconfig.error(
            "config.id", f"{module_id} is not the id of a module", expected="a whole number from 1 on"
        )
    chosen = Ports(
        heart=(service.heart.port or 8888 + (module_id - 1)) if service.heart else None,
        rfs=5600 + (module_id - 1) * 4 if service.rfs else None,
        farm=(service.farm.port or 4803 + (module_id - 1) * 3) if service.farm else None,
    )
    for element, _, port in chosen.used():
        if port > 65535:
            raise userconfig.error(
                "config.id",
                f"the module id {module_id} leads to the port {port}",
                line=_line_of(userconfig, element),
                element=element,
                expected="a smaller id",
            )
    return chosen


def check_module(
    userconfig: UserConfig,
    cluster: Cluster,
    node_name: str,
    others: Mapping[str, UserConfig],
    module_id: int,
    ids: Mapping[str, int] | None = None,
) -> None:
    """Refuses a module that does not fit its surroundings.

    `node_name` is this node in the cluster; `others` are the other modules of the cluster by name and `ids` their ids
    (without them the ports of the others are not compared). Raises `ConfigError` with everything that is wrong.
    """
    problems = Problems(userconfig.file)
    _check_lans(userconfig, cluster, node_name, problems)
    if not problems.errors:
        _check_nodes(userconfig, cluster, problems)
    _check_addresses(userconfig, cluster, others, problems)
    _check_directories(userconfig, others, problems)
    _check_needed_modules(userconfig, cluster, others, problems)
    _check_witness(userconfig, cluster, problems)
    beside = {name: (others[name], module) for name, module in (ids or {}).items() if name in others}
    _check_ports(userconfig, cluster, module_id, beside, problems)
    problems.settle()


def module_nodes(userconfig: UserConfig, cluster: Cluster) -> tuple[str, ...]:
    """The nodes on which the module runs, in the order of the cluster: those on its lans; all, for a light one."""
    lans = userconfig.service.lans
    if userconfig.service.mode == "light":
        return cluster.node_names
    members = {name for lan in cluster.lans if lan.name in lans for name in lan.node_names}
    return tuple(name for name in cluster.node_names if name in members)


def quorum_of(userconfig: UserConfig, cluster: Cluster) -> Quorum:
    """Who decides for this mirror when its nodes no longer hear each other: a witness as soon as there is one, else the
    machines that `<splitbrain>` names.
    """
    service = userconfig.service
    pinged = service.check is not None and service.check.splitbrain is not None
    return service.quorum or ("witness" if cluster.witness else "ping" if pinged else "none")


def nodes_asked(check: ModuleCheck, cluster: Cluster, node_name: str) -> tuple[str, ...]:
    """The nodes whose word counts for a `<module>`: this one, the node of that address, or all for a virtual address."""
    if _is_this_machine(check.addr):
        return (node_name,)
    return _nodes_at(check.addr, cluster) or cluster.node_names


def _is_this_machine(address: Address) -> bool:
    return address == "localhost" if isinstance(address, str) else address.is_loopback


def _nodes_at(address: Address, cluster: Cluster) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(node.name for lan in cluster.lans for node in lan.nodes if address in (node.addr, node.laddr))
    )


def _check_witness(userconfig: UserConfig, cluster: Cluster, problems: Problems) -> None:
    """A mirror that is decided by a witness has one, and it is a third place."""
    service, witness = userconfig.service, cluster.witness
    if service.mode != "mirror" or quorum_of(userconfig, cluster) != "witness":
        return
    if witness is None:
        reason, expected = "the cluster has no witness", 'a <witness> in cluster.xml, or quorum="none"'
    else:
        beside = set(_nodes_at(witness.addr, cluster)) & set(module_nodes(userconfig, cluster))
        if not beside:
            return
        reason = (
            f"the witness {witness.name} is the node {min(beside)} of this module: it would be lost together with it"
        )
        expected = 'a witness that is no node of this module, or quorum="none"'
    problems.error(
        "config.reference",
        reason,
        line=service.line,
        element="service",
        attribute="quorum",
        value=service.quorum,
        expected=expected,
    )


def _check_needed_modules(
    userconfig: UserConfig, cluster: Cluster, others: Mapping[str, UserConfig], problems: Problems
) -> None:
    """A module that is needed is one of this cluster: nodes tell each other only of their own cluster's."""
    check = userconfig.service.check
    for needed in check.module if check else ():
        other = others.get(needed.name)
        virtual = {address.addr for address in other.service.vip.addresses} if other and other.service.vip else set()
        if _is_this_machine(needed.addr) or _nodes_at(needed.addr, cluster) or needed.addr in virtual:
            continue
        problems.error(
            "config.reference",
            f"neither a node of this cluster nor a virtual address of the module {needed.name} on this node",
            line=needed.line,
            element="to",
            attribute="addr",
            value=str(needed.addr),
            expected="127.0.0.1, the address of a node of this cluster, or a virtual address of the module",
        )


def _line_of(userconfig: UserConfig, element: str) -> int:
    part = {"heart": userconfig.service.heart, "farm": userconfig.service.farm, "rfs": userconfig.service.rfs}[element]
    return part.line if part else 0


def _check_lans(userconfig: UserConfig, cluster: Cluster, node_name: str, problems: Problems) -> None:
    """Every lan is one of the cluster; this node is on all lans of a mirror, and on one lan of a farm at least."""
    if node_name not in cluster.node_names:
        problems.error(
            "config.reference",
            f"this node, {node_name}, is not in the cluster",
            expected=one_of(cluster.node_names),
        )
        return
    service = userconfig.service
    element = "heartbeat" if service.heart else "lan"
    named = [(element, part.name, part.line) for part in (service.heart.heartbeats if service.heart else ())]
    named += [(element, part.name, part.line) for part in (service.farm.lans if service.farm else ())]
    if service.rfs and service.rfs.flow:
        named.append(("flow", service.rfs.flow, service.rfs.line))
    absent = []
    for element, name, line in named:
        lan = cluster.lan(name)
        if lan is None:
            problems.error(
                "config.reference",
                f"{cluster.file} has no lan of this name",
                line=line,
                element=element,
                attribute="name",
                value=name,
                expected=one_of(tuple(known.name for known in cluster.lans)),
            )
        elif lan.node(node_name) is None:
            absent.append((element, name, line))
    if service.farm and len(absent) < len(named):
        return
    for element, name, line in absent:
        problems.error(
            "config.reference",
            f"the node {node_name} is not on this lan",
            line=line,
            element=element,
            attribute="name",
            value=name,
            expected=f"a lan of {cluster.file} with the node {node_name}",
        )


def _check_nodes(userconfig: UserConfig, cluster: Cluster, problems: Problems) -> None:
    """A mirror has two nodes, the same on all its lans; a preferred primary and the hosts of groups are nodes of it."""
    service = userconfig.service
    nodes = module_nodes(userconfig, cluster)
    for heartbeat in service.heart.heartbeats if service.heart else ():
        lan = cluster.lan(heartbeat.name)
        members = lan.node_names if lan else ()
        if len(members) != 2 or set(members) != set(nodes):
            problems.error(
                "config.nodes",
                f"a mirror module has two nodes, the same on all its lans; this lan has {', '.join(members)}",
                line=heartbeat.line,
                element="heartbeat",
                attribute="name",
                value=heartbeat.name,
                expected=f"a lan of {cluster.file} with exactly the two nodes of the module",
            )
    if service.mode == "mirror" and service.defaultprim not in ("alone", "lastprim", *nodes):
        problems.error(
            "config.reference",
            "not a node of this module",
            line=service.line,
            element="service",
            attribute="defaultprim",
            value=service.defaultprim,
            expected=one_of(("alone", "lastprim", *nodes)),
        )
    for group in service.vip.groups if service.vip else ():
        for host in group.hosts:
            if host.name not in nodes:
                problems.error(
                    "config.reference",
                    "not a node of this module",
                    line=host.line,
                    element="host",
                    attribute="name",
                    value=host.name,
                    expected=one_of(nodes),
                )


def _check_addresses(
    userconfig: UserConfig, cluster: Cluster, others: Mapping[str, UserConfig], problems: Problems
) -> None:
    """A virtual address belongs to one module, and to no node."""
    owners: dict[Address, str] = {}
    for lan in cluster.lans:
        for node in lan.nodes:
            owners[node.addr] = owners[node.laddr] = f"the address of the node {node.name}"
    for name, other in others.items():
        for virtual in other.service.vip.addresses if other.service.vip else ():
            owners[virtual.addr] = f"a virtual address of the module {name}"
    for virtual in userconfig.service.vip.addresses if userconfig.service.vip else ():
        if virtual.addr in owners:
            problems.error(
                "config.duplicate",
                f"this is {owners[virtual.addr]} already",
                line=virtual.line,
                element="virtual_addr",
                attribute="addr",
                value=str(virtual.addr),
                expected="an address that nothing else uses",
            )


def _check_directories(userconfig: UserConfig, others: Mapping[str, UserConfig], problems: Problems) -> None:
    """A tree is replicated by one module."""
    for replicated in userconfig.service.rfs.replicated if userconfig.service.rfs else ():
        for name, other in others.items():
            for foreign in other.service.rfs.replicated if other.service.rfs else ():
                if overlap(replicated.dir, foreign.dir):
                    same = "this directory" if replicated.dir == foreign.dir else f"{foreign.dir}, which overlaps it,"
                    problems.error(
                        "config.duplicate",
                        f"the module {name} replicates {same} already",
                        line=replicated.line,
                        element="replicated",
                        attribute="dir",
                        value=replicated.dir,
                        expected="a directory apart from those of the other modules",
                    )


def _check_ports(
    userconfig: UserConfig,
    cluster: Cluster,
    module_id: int,
    others: Mapping[str, tuple[UserConfig, int]],
    problems: Problems,
) -> None:
    """An id and a port belong to one module; the ports of the cluster and of the console to none."""
    taken = {("UDP", cluster.port): "the membership of the cluster"}
    taken.update({("TCP", port): "the console" for port in CONSOLE_PORTS})
    for name, (other, other_id) in others.items():
        if other_id == module_id:
            problems.error(
                "config.id", f"the module {name} has the id {module_id} already", expected="an id of its own"
            )
        taken.update({(protocol, port): f"the module {name}" for _, protocol, port in ports(other, other_id).used()})
    try:
        own = ports(userconfig, module_id)
    except ConfigError as error:
        problems.errors.append(error)
        return
    for element, protocol, port in own.used():
        if (protocol, port) in taken:
            problems.error(
                "config.port",
                f"the {protocol} port {port} is that of {taken[protocol, port]} already",
                line=_line_of(userconfig, element),
                element=element,
                attribute="" if element == "rfs" else "port",
                value=str(port),
                expected="a port that nothing else uses",
            )
