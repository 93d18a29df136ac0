"""From the typed tree of a `userconfig.xml` to its model, with the defaults that depend on other values (spec §3).

The tree follows the grammar already; every function here takes one element and returns one value of `model`.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from safekit.config import model
from safekit.config.document import Node

DEFAULT_PACKET = 8_388_608
SMALLEST_ZONE = 65_536


def macros(safe: Node) -> tuple[model.Macro, ...]:
    """§3.1."""
    return tuple(model.Macro(**_fields(node)) for node in safe.all("macro"))


def service(node: Node) -> model.Service:
    """§3.2."""
    mode = node.values["mode"]
    heart, farm, vip, rfs, user, vhost, errd, check, failover = (
        node.first(name) for name in ("heart", "farm", "vip", "rfs", "user", "vhost", "errd", "check", "failover")
    )
    return model.Service(
        **_fields(node),
        heart=_heart(heart) if heart else None,
        farm=_farm(farm) if farm else None,
        vip=_vip(vip) if vip else None,
        rfs=_rfs(rfs) if rfs else None,
        user=_user(user) if user else None,
        vhost=_vhost(vhost) if vhost else None,
        errd=_errd(errd) if errd else None,
        check=_check(check, mode) if check else None,
        failover_rules=_failover(failover) if failover else None,
    )


def _fields(node: Node, *left_out: str) -> dict[str, Any]:
    """The attributes of an element as fields, and its line."""
    reserved = {"async": "async_", "class": "class_"}
    fields = {reserved.get(name, name): value for name, value in node.values.items() if name not in left_out}
    return {**fields, "line": node.line}


def _heart(node: Node) -> model.Heart:
    return model.Heart(**_fields(node), heartbeats=tuple(_heartbeat(child, node) for child in node.children))


def _heartbeat(node: Node, heart: Node) -> model.Heartbeat:
    name = node.values["name"] or ""
    return model.Heartbeat(
        name=name,
        ident=node.values["ident"] or name,
        pulse=node.values["pulse"] or heart.values["pulse"],
        timeout=node.values["timeout"] or heart.values["timeout"],
        servers=tuple(server.values["addr"] for server in node.children),
        line=node.line,
    )


def _farm(node: Node) -> model.Farm:
    lans = tuple(
        model.FarmLan(
            name=lan.values["name"] or "",
            nodes=tuple(model.FarmNode(**_fields(member)) for member in lan.children),
            line=lan.line,
        )
        for lan in node.children
    )
    return model.Farm(**_fields(node), lans=lans)


def _vip(node: Node) -> model.Vip:
    interfaces, balancing = node.first("interface_list"), node.first("loadbalancing_list")
    return model.Vip(
        **_fields(node),
        interfaces=tuple(_interface(child) for child in interfaces.children) if interfaces else (),
        groups=tuple(_group(child) for child in balancing.children) if balancing else (),
    )


def _interface(node: Node) -> model.VipInterface:
    (holder,) = node.children
    addresses = tuple(model.VirtualAddr(**_fields(child)) for child in holder.children)
    if holder.name == "real_interface":
        return model.VipInterface(**_fields(node), kind="real", type=None, mac=None, addresses=addresses)
    mac = holder.values["addr"]
    if mac is None and holder.values["type"] == "vmac_invisible":
        mac = _derived_mac(addresses[0])
    return model.VipInterface(**_fields(node), kind="virtual", type=holder.values["type"], mac=mac, addresses=addresses)


def _derived_mac(first: model.VirtualAddr) -> str | None:
    """`5a:fe:` and the first address in hexadecimal: 192.168.56.20 gives 5a:fe:c0:a8:38:14 (spec §3.5)."""
    if not isinstance(first.addr, IPv4Address):
        return None
    return "5a:fe:" + first.addr.packed.hex(":")


def _group(node: Node) -> model.Group:
    cluster = node.first("cluster")
    return model.Group(
        **_fields(node),
        hosts=tuple(model.Host(**_fields(child)) for child in cluster.children) if cluster else (),
        rules=tuple(model.Rule(**_fields(child)) for child in node.all("rule")),
    )


def _rfs(node: Node) -> model.Rfs:
    flow = node.first("flow")
    fields = _fields(node)
    packet = fields["packetsize"]
    fields["reipacketsize"] = fields["reipacketsize"] or min(DEFAULT_PACKET, packet or DEFAULT_PACKET)
    if fields["ruzone_blocksize"] is None:
        packet = node.values["reipacketsize"] or DEFAULT_PACKET
        fields["ruzone_blocksize"] = packet * -(-SMALLEST_ZONE // packet)
    return model.Rfs(
        **fields,
        flow=flow.values["name"] if flow else None,
        replicated=tuple(_replicated(child) for child in node.all("replicated")),
    )


def _replicated(node: Node) -> model.Replicated:
    return model.Replicated(
        **_fields(node),
        tocheck=tuple(child.values["path"] for child in node.all("tocheck")),
        notreplicated=tuple(model.NotReplicated(**_fields(child)) for child in node.all("notreplicated")),
    )


def _user(node: Node) -> model.User:
    return model.User(**_fields(node), variables={var.values["name"]: var.values["value"] for var in node.children})


def _vhost(node: Node) -> model.Vhost:
    names = tuple(model.VirtualHostname(**_fields(child)) for child in node.children)
    return model.Vhost(virtualhostnames=names, line=node.line)


def _errd(node: Node) -> model.Errd:
    procs = tuple(
        model.Proc(**_fields(child, "restart_services"), restart_services=_list(child.values["restart_services"]))
        for child in node.children
    )
    return model.Errd(**_fields(node), procs=procs)


def _list(text: str | None) -> tuple[str, ...]:
    """A comma-separated list."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _check(node: Node, mode: str) -> model.Check:
    splitbrain = node.first("splitbrain")
    return model.Check(
        tcp=tuple(model.TcpCheck(**_probe(child, "restart")) for child in node.all("tcp")),
        ping=tuple(model.PingCheck(**_probe(child, "noaction")) for child in node.all("ping")),
        intf=tuple(model.IntfCheck(**_probe(child)) for child in node.all("intf")),
        ip=tuple(model.IpCheck(**_ip_check(child, mode)) for child in node.all("ip")),
        custom=tuple(model.CustomCheck(**_fields(child)) for child in node.all("custom")),
        module=tuple(_module_check(child) for child in node.all("module")),
        splitbrain=_splitbrain(splitbrain) if splitbrain else None,
        line=node.line,
    )


def _probe(node: Node, default_action: str = "") -> dict[str, Any]:
    """A checker with its target `<to>`. The default action before the start is `wait`, later the one given (§3.10)."""
    fields = {**node.children[0].values, **_fields(node)}
    if default_action and fields["action"] is None:
        fields["action"] = "wait" if fields["when"] == "pre" else default_action
    return fields


def _ip_check(node: Node, mode: str) -> dict[str, Any]:
    fields = _probe(node)
    fields["when"] = fields["when"] or ("prim" if mode == "mirror" else "both")
    return fields


def _module_check(node: Node) -> model.ModuleCheck:
    target = node.first("to")
    defaults = node.element.child("to")
    assert defaults is not None
    to = (
        target.values
        if target
        else {attribute.name: attribute.read(attribute.default or "") for attribute in defaults.attributes.values()}
    )
    ident = node.values["ident"] or f"{node.values['name']}_{to['addr']}"
    return model.ModuleCheck(name=node.values["name"], ident=ident, **to, line=node.line)


def _splitbrain(node: Node) -> model.SplitbrainCheck:
    return model.SplitbrainCheck(**_fields(node, "arg"), arg=tuple(node.values["arg"].split()))


def _failover(node: Node) -> model.FailoverRules:
    return model.FailoverRules(
        **_fields(node),
        sections=tuple(text for _, text in node.sections),
        section_lines=tuple(line for line, _ in node.sections),
    )
