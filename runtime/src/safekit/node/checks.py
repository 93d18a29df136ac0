"""What only this machine can say about a configuration, before it is applied: networks, directories, ports, names.

Each function raises ConfigError with the file, the line and what was expected; nothing has been changed when it does.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path

from safekit.config import Cluster, ConfigError, UserConfig, ports
from safekit.paths import Paths
from safekit.replication.directories import DirectoryError, ReplicatedDirectory, check_directories
from safekit.vip.service import VipError


def find_node(cluster: Cluster, hostname: str, addresses: Iterable[str], file: str) -> str:
    """Which node of the cluster this machine is: the one with an address of ours, else the one with our host name."""
    ours = {ip_address(address) for address in addresses}
    for lan in cluster.lans:
        for node in lan.nodes:
            if (node.laddr or node.addr) in ours:
                return node.name
    if hostname in cluster.node_names:
        return hostname
    shown = ", ".join(sorted(str(address) for address in ours if not address.is_loopback)) or "no address"
    raise ConfigError(
        "config.reference",
        f"this machine ({hostname}, {shown}) is no node of this cluster ({', '.join(cluster.node_names)})",
        file=file,
        element="node",
        attribute="addr",
        expected="an address or the host name of this machine",
    )


def check_machine(
    config: UserConfig,
    cluster: Cluster,
    node: str,
    name: str,
    number: int,
    others: Mapping[str, UserConfig],
    paths: Paths,
    running: UserConfig | None = None,
) -> None:
    """All that can be checked here. `running`: what a module that runs has in force, which it holds already."""
    _check_needed(config, name)
    _check_fence(config, name, paths)
    if running is None:
        _check_addresses(config, node, name, paths)
        _check_folders(config, others)
    if running is None or ports(running, number) != ports(config, number):
        _check_ports(config, cluster, node, number)


def _check_needed(config: UserConfig, name: str) -> None:
    check = config.service.check
    for needed in check.module if check else ():
        if needed.name == name:
            raise config.error(
                "config.reference",
                "a module that waits for itself never starts",
                line=needed.line,
                element="module",
                attribute="name",
                value=name,
                expected="another module",
            )


def _check_fence(config: UserConfig, name: str, paths: Paths) -> None:
    program = paths.module(name) / "bin" / "fence"
    if config.service.quorum == "fence" and not os.access(program, os.X_OK):
        raise config.error(
            "config.reference",
            f"{program} is not there, or not executable",
            line=config.service.line,
            element="service",
            attribute="quorum",
            value="fence",
            expected="a program bin/fence of the module that switches the other node off",
        )


def _check_addresses(config: UserConfig, node: str, name: str, paths: Paths) -> None:
    vip = config.service.vip
    if vip is None or not vip.interfaces:
        return
    from safekit.vip.farm import FarmVip
    from safekit.vip.from_config import farm_service, mirror_addresses
    from safekit.vip.mirror import MirrorVip

    try:
        if config.service.mode == "farm":
            FarmVip(name, farm_service(vip), node, name, paths.module_run(name)).plan()
        else:
            MirrorVip(name, mirror_addresses(vip), paths.module_run(name)).plan()
    except VipError as error:
        wrong = error.facts.get("address", "")
        line = next((address.line for address in vip.addresses if str(address.addr) == wrong), vip.line)
        raise config.error(
            f"config.{error.code.replace('.', '_')}",
            error.message,
            line=line,
            element="virtual_addr",
            attribute="addr",
            value=wrong or None,
            expected=error.facts.get("expected", "an address inside a network of this node"),
        ) from error


def _check_folders(config: UserConfig, others: Mapping[str, UserConfig]) -> None:
    rfs = config.service.rfs
    if rfs is None:
        return
    taken = [Path(r.dir) for other in others.values() if other.service.rfs for r in other.service.rfs.replicated]
    try:
        check_directories((ReplicatedDirectory(Path(r.dir), r.tocheck) for r in rfs.replicated), taken=taken)
    except DirectoryError as error:
        line = next((r.line for r in rfs.replicated if r.dir == error.path), rfs.line)
        raise config.error(
            f"config.directory_{error.code}",
            str(error),
            line=line,
            element="replicated",
            attribute="dir",
            value=error.path,
            expected=error.expected,
        ) from error


def _check_ports(config: UserConfig, cluster: Cluster, node: str, number: int) -> None:
    service, used = config.service, ports(config, number)
    wanted: list[tuple[int | None, int, str, int]] = [
        (used.heart, socket.SOCK_DGRAM, "heart", service.heart.line if service.heart else 0),
        (used.farm, socket.SOCK_DGRAM, "farm", service.farm.line if service.farm else 0),
        (used.rfs, socket.SOCK_STREAM, "rfs", service.rfs.line if service.rfs else 0),
    ]
    for port, kind, element, line in wanted:
        if port is None:
            continue
        for lan in cluster.lans:
            for mine in lan.nodes:
                if mine.name == node and lan.name in (*service.lans, service.replication_lan):
                    address = str(mine.laddr or mine.addr)
                    if _in_use(address, port, kind):
                        protocol = "TCP" if kind == socket.SOCK_STREAM else "UDP"
                        raise config.error(
                            "config.port_in_use",
                            f"{protocol} port {port} of {address} is in use by another program",
                            line=line,
                            element=element,
                            attribute="port",
                            value=str(port),
                            expected="a free port",
                        )


def check_cluster_port(cluster: Cluster, node: str, file: str) -> None:
    """Whether the membership can use its port on each of our addresses."""
    for lan in cluster.lans:
        for mine in lan.nodes:
            address = str(mine.laddr or mine.addr)
            if mine.name == node and _in_use(address, cluster.port, socket.SOCK_DGRAM):
                raise ConfigError(
                    "config.port_in_use",
                    f"UDP port {cluster.port} of {address} is in use by another program",
                    file=file,
                    element="lans",
                    attribute="port",
                    value=str(cluster.port),
                    expected="a free port",
                )


def _in_use(address: str, port: int, kind: int) -> bool:
    """Whether somebody else has the port. An address that is not here, or a name, is not judged."""
    try:
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    except ValueError:
        return False
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
