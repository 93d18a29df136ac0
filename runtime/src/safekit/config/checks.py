"""What a schema cannot say about one `userconfig.xml` (spec §3): values that must agree with each other.

Each function looks at one element and notes every problem that it finds. What needs the cluster or the other modules
is in `placement`; what needs the kernel is not configuration and is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from ipaddress import IPv6Address

from safekit.config import model
from safekit.config.checks_rfs import check_rfs
from safekit.config.document import Node
from safekit.config.errors import Problems
from safekit.config.grammar import one_of
from safekit.config.rules import check_rules
from safekit.config.values import Address, written_duration

ACTIONS_BEFORE_START = ("wait", "noaction")
ACTIONS_AFTER_START = ("stop", "stopstart", "restart", "noaction")
LONGEST_COMMAND_NAME = 15


def check_modes(service: Node, problems: Problems) -> None:
    """Elements and attributes that the mode of the module has no use for; the element that it cannot do without."""
    mode = service.values["mode"]
    needed = {"mirror": "heart", "farm": "farm"}.get(mode)
    if needed and service.first(needed) is None:
        problems.error(
            "config.missing",
            f"a module of mode {mode} needs <{needed}>",
            line=service.line,
            element="service",
            expected=f"one <{needed}> in <service>",
        )
    _check_place(service, mode, problems)


def _check_place(node: Node, mode: str, problems: Problems) -> None:
    if node.element.modes is not None and mode not in node.element.modes:
        problems.error(
            "config.mode",
            f"<{node.name}> has no place in a module of mode {mode}",
            line=node.line,
            element=node.name,
            expected=f"a module of mode {' or '.join(node.element.modes)}",
        )
        return
    for name, text in node.written.items():
        modes = node.element.attributes[name].modes
        if modes is not None and mode not in modes:
            problems.warn(
                "config.no_effect",
                f"has no effect in a module of mode {mode}",
                line=node.line,
                element=node.name,
                attribute=name,
                value=text,
            )
    for child in node.children:
        _check_place(child, mode, problems)


def _below(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _below(child)


def check_written(service: Node, problems: Problems) -> None:
    """What the model no longer tells: a choice that must be made, a variable or a split-brain checker twice."""
    for node in _below(service):
        if node.name == "ping" and node.values["when"] != "pre" and node.values["action"] is None:
            problems.error(
                "config.missing",
                "the attribute is missing",
                line=node.line,
                element="ping",
                attribute="action",
                expected=one_of(ACTIONS_AFTER_START),
            )
        for surplus in node.all("splitbrain")[1:]:
            problems.error(
                "config.too_many",
                f"there is one already, in line {node.all('splitbrain')[0].line}",
                line=surplus.line,
                element="splitbrain",
                expected="one <splitbrain> with all the witnesses",
            )
        if node.name == "module":
            _check_asked(node, problems)
        if node.name == "user":
            _unique(((var.values["name"], var.line) for var in node.children), "var", "name", problems)


def _check_asked(node: Node, problems: Problems) -> None:
    """Nodes of one cluster tell each other of their modules, sealed, whether anybody asks or not."""
    for target in node.all("to"):
        for name in ("port", "timeout", "secure"):
            if name in target.written:
                problems.warn(
                    "config.no_effect",
                    "has no effect between the nodes of one cluster",
                    line=target.line,
                    element="to",
                    attribute=name,
                    value=target.written[name],
                )


def check_service(service: model.Service, problems: Problems) -> None:
    """Everything about one module that can be told from its own file."""
    if service.heart:
        _check_heart(service.heart, service.rfs is not None, problems)
    if service.farm:
        _check_farm(service.farm, problems)
    if service.vip:
        _check_vip(service.vip, service.mode, problems)
    if service.rfs:
        check_rfs(service.rfs, problems)
    if service.errd:
        _check_errd(service.errd, service.user is not None, problems)
    if service.check:
        _check_check(service.check, service.mode, problems)
    _check_quorum(service, problems)
    _check_reboot(service, problems)
    if service.failover_rules:
        _check_failover(service.failover_rules, problems)
        check_rules(service, problems)


def _check_quorum(service: model.Service, problems: Problems) -> None:
    splitbrain = service.check.splitbrain if service.check else None
    if service.quorum == "ping" and splitbrain is None:
        problems.error(
            "config.missing",
            "there is no machine to ping",
            line=service.line,
            element="service",
            attribute="quorum",
            value="ping",
            expected='<splitbrain arg="ADDRESS …"/> in <check>',
        )
    if service.quorum == "fence" and service.rfs is None:
        problems.error(
            "config.missing",
            "only a mirror that replicates is fenced",
            line=service.line,
            element="service",
            attribute="quorum",
            value="fence",
            expected='an <rfs>, or quorum="none"',
        )
    if splitbrain is not None and service.quorum not in (None, "ping"):
        problems.warn(
            "config.no_effect",
            f'the machines are not pinged, because quorum="{service.quorum}" decides',
            line=splitbrain.line,
            element="splitbrain",
        )


def _check_reboot(service: model.Service, problems: Problems) -> None:
    if not service.automatic_reboot:
        return

    def warn(what: str, attribute: str, value: str) -> None:
        problems.warn("config.no_effect", what, line=service.line, element="service", attribute=attribute, value=value)

    if service.boot == "off":
        warn("after an automatic reboot the module stays stopped", "boot", "off")
    if not service.loop_interval:
        warn("nothing ends a series of automatic reboots", "loop_interval", "0")


def _unique(named: Iterable[tuple[object, int]], element: str, attribute: str, problems: Problems) -> None:
    """Notes each value that stands a second time."""
    seen: dict[object, int] = {}
    for value, line in named:
        if value in seen:
            problems.error(
                "config.duplicate",
                f"this value stands in line {seen[value]} already",
                line=line,
                element=element,
                attribute=attribute,
                value=str(value),
                expected="a different value",
            )
        seen.setdefault(value, line)


def _check_legacy(element: str, name: str, legacy: str, is_legacy: bool, line: int, problems: Problems) -> None:
    """A lan is named; the syntax from before 7.2 wrote addresses instead, and the two do not mix."""
    if name and is_legacy:
        problems.error(
            "config.mixed",
            f"<{legacy}> is the syntax from before 7.2 and does not mix with the name of a lan",
            line=line,
            element=element,
            attribute="name",
            value=name,
            expected=f"no <{legacy}>",
        )
    elif not name and not is_legacy:
        problems.error(
            "config.missing",
            "the attribute is missing",
            line=line,
            element=element,
            attribute="name",
            expected="the name of a lan of cluster.xml",
        )


def _check_heart(heart: model.Heart, replicates: bool, problems: Problems) -> None:
    for heartbeat in heart.heartbeats:
        _check_legacy("heartbeat", heartbeat.name, "server", bool(heartbeat.servers), heartbeat.line, problems)
        if heartbeat.timeout <= heartbeat.pulse:
            problems.error(
                "config.value",
                f"the peer would be lost before its next heartbeat, {written_duration(heartbeat.pulse)} later",
                line=heartbeat.line,
                element="heartbeat",
                attribute="timeout",
                value=written_duration(heartbeat.timeout),
                expected="a timeout longer than the pulse",
            )
        if heartbeat.ident == "flow" and not replicates:
            problems.warn(
                "config.flow",
                "names the network of a replication that the module does not have: its start will wait for ever",
                line=heartbeat.line,
                element="heartbeat",
                attribute="ident",
                value="flow",
            )
    named = [heartbeat for heartbeat in heart.heartbeats if heartbeat.name]
    _unique(((heartbeat.ident, heartbeat.line) for heartbeat in named), "heartbeat", "ident", problems)
    _unique(((heartbeat.name, heartbeat.line) for heartbeat in named), "heartbeat", "name", problems)


def _check_farm(farm: model.Farm, problems: Problems) -> None:
    for lan in farm.lans:
        _check_legacy("lan", lan.name, "node", bool(lan.nodes), lan.line, problems)
    _unique(((lan.name, lan.line) for lan in farm.lans if lan.name), "lan", "name", problems)


def _check_vip(vip: model.Vip, mode: model.Mode, problems: Problems) -> None:
    _unique(((address.addr, address.line) for address in vip.addresses), "virtual_addr", "addr", problems)
    for interface in vip.interfaces:
        if interface.type == "vmac_directed" and interface.mac:
            problems.error(
                "config.value",
                "a virtual MAC address belongs to the type vmac_invisible",
                line=interface.line,
                element="virtual_interface",
                attribute="addr",
                value=interface.mac,
                expected="no MAC address with vmac_directed",
            )
        for address in interface.addresses:
            _check_virtual_addr(address, interface, mode, problems)
    _unique(((group.name, group.line) for group in vip.groups), "group", "name", problems)
    directed = any(interface.type == "vmac_directed" for interface in vip.interfaces)
    own = {address.addr for address in vip.addresses}
    for group in vip.groups:
        _check_group(group, own, directed, problems)
    _check_traffic([rule for group in vip.groups for rule in group.rules], problems)


def _check_traffic(rules: list[model.Rule], problems: Problems) -> None:
    """The same traffic is split by one rule."""
    seen: dict[tuple[object, ...], int] = {}
    for rule in rules:
        traffic = (rule.proto, rule.port, rule.virtual_addr)
        if traffic in seen:
            shown = f"{rule.proto}, port {rule.port or '*'}, address {rule.virtual_addr or '*'}"
            problems.error(
                "config.duplicate",
                f"another rule for {shown} stands in line {seen[traffic]}",
                line=rule.line,
                element="rule",
                expected="one rule for the same traffic",
            )
        seen.setdefault(traffic, rule.line)


def _check_virtual_addr(
    address: model.VirtualAddr, interface: model.VipInterface, mode: model.Mode, problems: Problems
) -> None:
    allowed: tuple[str, ...] = ("alias",)
    if mode == "mirror":
        allowed = ("one_side_alias", "one_side") if interface.kind == "real" else ("one_side_alias",)
    if address.where not in allowed:
        problems.error(
            "config.value",
            f"no place for an address on a {interface.kind} interface in a module of mode {mode}",
            line=address.line,
            element="virtual_addr",
            attribute="where",
            value=address.where,
            expected=one_of(allowed),
        )
    if address.netmask and isinstance(address.addr, IPv6Address):
        problems.error(
            "config.value",
            "a network mask belongs to an IPv4 address",
            line=address.line,
            element="virtual_addr",
            attribute="netmask",
            value=str(address.netmask),
            expected="no mask with an IPv6 address",
        )


def _check_group(group: model.Group, own: set[Address], directed: bool, problems: Problems) -> None:
    _unique(((host.name, host.line) for host in group.hosts), "host", "name", problems)
    if group.hosts and not any(host.power for host in group.hosts):
        problems.error(
            "config.value",
            f"no host of the group {group.name} takes traffic",
            line=group.hosts[0].line,
            element="host",
            attribute="power",
            value="0",
            expected="a power above 0 for one host at least",
        )
    for rule in group.rules:
        _check_rule(rule, own, directed, problems)


def _check_rule(rule: model.Rule, own: set[Address], directed: bool, problems: Problems) -> None:
    def wrong(attribute: str, value: object, reason: str, expected: str) -> None:
        problems.error(
            "config.value",
            reason,
            line=rule.line,
            element="rule",
            attribute=attribute,
            value=str(value),
            expected=expected,
        )

    if rule.virtual_addr is not None and rule.virtual_addr not in own:
        problems.error(
            "config.reference",
            "not a virtual address of this module",
            line=rule.line,
            element="rule",
            attribute="virtual_addr",
            value=str(rule.virtual_addr),
            expected=one_of(("*", *sorted(str(address) for address in own))),
        )
    if rule.proto == "arp":
        if rule.filter != "on_addr":
            wrong(
                "filter",
                rule.filter,
                "the answers to ARP are shared by address only",
                'filter="on_addr" with proto="arp"',
            )
        if rule.port is not None:
            wrong("port", rule.port, "ARP has no port", 'port="*" with proto="arp"')
        if not directed:
            wrong("proto", "arp", "the answers to ARP are shared with vmac_directed only", 'type="vmac_directed"')
    if rule.filter == "on_ipid":
        if rule.proto != "udp":
            wrong("filter", "on_ipid", "the IP id is a hash key of UDP only", one_of(("on_addr", "on_port")))
        if isinstance(rule.virtual_addr, IPv6Address) or not any(not isinstance(addr, IPv6Address) for addr in own):
            wrong("filter", "on_ipid", "IPv6 has no IP id", one_of(("on_addr", "on_port")))


def _check_errd(errd: model.Errd, has_user: bool, problems: Problems) -> None:
    if not has_user:
        problems.error(
            "config.missing",
            "processes are watched between the scripts that start and stop them",
            line=errd.line,
            element="errd",
            expected="<user> in <service>",
        )
    _unique(((proc.name, proc.line) for proc in errd.procs), "proc", "name", problems)
    for proc in errd.procs:
        if not (proc.service or proc.nameregex or proc.argregex) and len(proc.name) > LONGEST_COMMAND_NAME:
            problems.error(
                "config.value",
                f"the kernel keeps {LONGEST_COMMAND_NAME} characters of a command name: this one would never be found",
                line=proc.line,
                element="proc",
                attribute="name",
                value=proc.name,
                expected=f'at most {LONGEST_COMMAND_NAME} characters, or service="yes", nameregex or argregex',
            )
        if proc.restart_services and not (proc.service and proc.action == "restart"):
            problems.error(
                "config.value",
                "only the restart of a service can be limited to services",
                line=proc.line,
                element="proc",
                attribute="restart_services",
                value=", ".join(proc.restart_services),
                expected='service="yes" and action="restart"',
            )


def _check_check(check: model.Check, mode: model.Mode, problems: Problems) -> None:
    moments = ("pre", "prim", "second", "both") if mode == "mirror" else ("pre", "both")
    probes: list[tuple[str, model.TcpCheck | model.PingCheck | model.CustomCheck]] = [
        *(("tcp", probe) for probe in check.tcp),
        *(("ping", probe) for probe in check.ping),
        *(("custom", probe) for probe in check.custom),
    ]
    for element, probe in probes:
        actions = ACTIONS_BEFORE_START if probe.when == "pre" else ACTIONS_AFTER_START
        _check_choice(element, "when", probe.when, moments, f"in a module of mode {mode}", probe.line, problems)
        _check_choice(element, "action", probe.action, actions, f'with when="{probe.when}"', probe.line, problems)
    for address in check.ip:
        moment = ("prim",) if mode == "mirror" else ("both",)
        _check_choice("ip", "when", address.when, moment, f"in a module of mode {mode}", address.line, problems)
    for element, family in (("tcp", check.tcp), ("ping", check.ping), ("intf", check.intf), ("ip", check.ip)):
        _unique(((member.ident, member.line) for member in family), element, "ident", problems)
    _unique(((custom.ident, custom.line) for custom in check.custom), "custom", "ident", problems)
    _unique(((other.ident, other.line) for other in check.module), "module", "ident", problems)


def _check_choice(
    element: str, attribute: str, value: str, allowed: tuple[str, ...], where: str, line: int, problems: Problems
) -> None:
    if value not in allowed:
        problems.error(
            "config.value",
            f"has no meaning {where}",
            line=line,
            element=element,
            attribute=attribute,
            value=value,
            expected=one_of(allowed),
        )


def _check_failover(rules: model.FailoverRules, problems: Problems) -> None:
    if rules.handle_time % rules.period != timedelta(0):
        problems.error(
            "config.value",
            f"not a multiple of the period, {written_duration(rules.period)}",
            line=rules.line,
            element="failover",
            attribute="handle_time",
            value=written_duration(rules.handle_time),
            expected="a multiple of the period",
        )
