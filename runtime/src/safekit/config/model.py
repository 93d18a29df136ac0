"""The model of `userconfig.xml` (spec §3): a frozen value per element, a field per attribute, under the spec's names.

A name that Python reserves ends with an underscore (`async_`, `class_`). `line` is where the element stands in its
file, for messages of later checks; it takes no part in comparisons. Time values are `timedelta`, on/off are `bool`. The
tests hold these classes and the schema together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Address
from typing import Literal

from safekit.config.crontab import Crontab
from safekit.config.errors import ConfigError, ConfigWarning
from safekit.config.values import Address

Mode = Literal["mirror", "farm", "light"]
When = Literal["pre", "prim", "second", "both"]
Quorum = Literal["witness", "fence", "manual", "ping", "none"]
"""Who decides when the nodes of a mirror no longer hear each other."""
Action = Literal["wait", "stop", "stopstart", "restart", "noaction"]


@dataclass(frozen=True, slots=True)
class Macro:
    """§3.1. `value` with the macros above it expanded."""

    name: str
    value: str
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """§3.3. One network of the heartbeat; `pulse` and `timeout` are those of `<heart>` where it says nothing.

    `servers` is the syntax from before 7.2, refused as not supported.
    """

    name: str
    ident: str
    pulse: timedelta
    timeout: timedelta
    servers: tuple[Address, ...] = ()
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Heart:
    """§3.3. `port` is None when it follows from the module's id (§10.3)."""

    port: int | None
    pulse: timedelta
    timeout: timedelta
    permanent_arp: bool
    heartbeats: tuple[Heartbeat, ...]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FarmNode:
    """§3.4, the syntax from before 7.2, refused as not supported."""

    name: str
    addr: Address
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FarmLan:
    """§3.4. One network of the farm's membership."""

    name: str
    nodes: tuple[FarmNode, ...] = ()
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Farm:
    """§3.4. `port` is None when it follows from the module's id (§10.3)."""

    port: int | None
    pulse: timedelta
    mlost_count: int
    slost_count: int
    lans: tuple[FarmLan, ...]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class VirtualAddr:
    """§3.5. One virtual address; `netmask` is None when it is that of the interface."""

    addr: Address
    where: Literal["alias", "one_side_alias", "one_side"]
    check: bool
    connections: bool
    netmask: IPv4Address | None
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class VipInterface:
    """§3.5. `name` is None when the interface is the one whose network holds the address.

    `kind` is "real" or "virtual"; `type` and `mac` belong to the latter, `mac` to vmac_invisible only (None too when it
    cannot be derived from the first address).
    """

    check: bool
    arpreroute: bool
    arpinterval: timedelta
    arpelapse: timedelta
    name: str | None
    kind: Literal["real", "virtual"]
    type: Literal["vmac_directed", "vmac_invisible"] | None
    mac: str | None
    addresses: tuple[VirtualAddr, ...]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Host:
    """§3.5. A member of a group and its weight; 0 takes no traffic."""

    name: str
    power: int
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """§3.5. `virtual_addr` and `port` are None for `*`."""

    virtual_addr: Address | None
    port: int | None
    proto: Literal["tcp", "udp", "arp"]
    filter: Literal["on_addr", "on_port", "on_ipid"]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Group:
    """§3.5. No host: every node of the farm, with equal weight."""

    name: str
    hosts: tuple[Host, ...]
    rules: tuple[Rule, ...]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Vip:
    """§3.5. `drain`: how long a stop waits for the connections of a farm node, once new clients go to the others."""

    tcpreset: bool
    scriptcontrol: bool
    interfaces: tuple[VipInterface, ...]
    groups: tuple[Group, ...]
    drain: timedelta = timedelta(0)
    line: int = field(default=0, compare=False, repr=False)

    @property
    def addresses(self) -> tuple[VirtualAddr, ...]:
        """Every virtual address of the module."""
        return tuple(address for interface in self.interfaces for address in interface.addresses)


@dataclass(frozen=True, slots=True)
class NotReplicated:
    """§3.6. Exactly one of the two is set; a leading `!` of `regexpath` inverts it."""

    path: str | None
    regexpath: str | None
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Replicated:
    """§3.6. One replicated tree; `mode` is "read_only" or None (writable on the secondary)."""

    dir: str
    mode: Literal["read_only"] | None
    tocheck: tuple[str, ...]
    notreplicated: tuple[NotReplicated, ...]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Rfs:
    """§3.6. Sizes are bytes, `reiallowedbw` is KB/s; None: no limit, or what the system has.

    `verifyat` is ours: when the copies are compared (`rfs.verify`).
    """

    mountoversuffix: str
    acl: bool
    async_: Literal["second", "none"]
    packetsize: int | None
    reipacketsize: int
    ruzone_blocksize: int
    locktimeout: timedelta
    sendtimeout: timedelta
    nbrei: int
    namespacepolicy: Literal["0", "1", "3", "4"]
    reitimeout: timedelta
    reicommit: int
    reidetail: bool
    nbremconn: int
    checktime: timedelta
    checkintv: timedelta
    scripts: bool
    reiallowedbw: int | None
    syncdelta: timedelta
    syncat: Crontab | None
    verifyat: Crontab | None
    flow: str | None
    replicated: tuple[Replicated, ...]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class User:
    """§3.7. `userlogsize` in KB; `variables` are exported to the scripts, in the order of the file."""

    nicestoptimeout: timedelta
    forcestoptimeout: timedelta
    logging: Literal["userlog", "none"]
    userlogsize: int
    variables: Mapping[str, str] = field(hash=False)
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class VirtualHostname:
    """§3.8."""

    name: str
    envfile: str
    when: Literal["prim", "second", "both"]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Vhost:
    """§3.8."""

    virtualhostnames: tuple[VirtualHostname, ...]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Proc:
    """§3.9. `atleast` and `atmax` ignore with -1; `action` is an action or a handler below the module's `bin`."""

    name: str
    service: bool
    nameregex: str | None
    argregex: str | None
    atleast: int
    atmax: int
    action: str
    restart_services: tuple[str, ...]
    class_: str
    start_after: int
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Errd:
    """§3.9."""

    polltimer: timedelta
    procs: tuple[Proc, ...]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """§3.10. Connects to `addr`:`port`."""

    ident: str
    when: When
    action: Action
    addr: Address
    port: int
    interval: timedelta
    timeout: timedelta
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PingCheck:
    """§3.10. ICMP echo to `addr`."""

    ident: str
    when: When
    action: Action
    addr: Address
    interval: timedelta
    timeout: timedelta
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IntfCheck:
    """§3.10. The link of the interface that carries `local_addr`."""

    ident: str
    when: Literal["pre"]
    local_addr: Address
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IpCheck:
    """§3.10. `addr` is configured on this node."""

    ident: str
    when: Literal["prim", "both"]
    addr: Address
    interval: timedelta
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CustomCheck:
    """§3.10. A program of the module that sets its resource itself."""

    ident: str
    when: When
    exec: str
    arg: str
    action: Action
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ModuleCheck:
    """§3.10. Another module, asked at the node `addr`."""

    name: str
    ident: str
    addr: Address
    port: int
    interval: timedelta
    timeout: timedelta
    secure: bool
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SplitbrainCheck:
    """§3.10. The witnesses to ping when the peer is lost."""

    ident: str
    when: Literal["pre"]
    exec: str
    arg: tuple[str, ...]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Check:
    """§3.10."""

    tcp: tuple[TcpCheck, ...]
    ping: tuple[PingCheck, ...]
    intf: tuple[IntfCheck, ...]
    ip: tuple[IpCheck, ...]
    custom: tuple[CustomCheck, ...]
    module: tuple[ModuleCheck, ...]
    splitbrain: SplitbrainCheck | None
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FailoverRules:
    """§3.11. `sections` are the texts as they stand, one per CDATA section, each in a language of its own (§6.4)."""

    extends: bool
    period: timedelta
    handle_time: timedelta
    sections: tuple[str, ...]
    section_lines: tuple[int, ...] = field(default=(), compare=False, repr=False)
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Service:
    """§3.2. What is absent from the file is None."""

    mode: Mode
    boot: Literal["on", "off", "auto", "ignore"]
    boot_delay: timedelta
    failover: bool
    defaultprim: str
    maxloop: int
    loop_interval: timedelta
    automatic_reboot: bool
    quorum: Quorum | None
    heart: Heart | None
    farm: Farm | None
    vip: Vip | None
    rfs: Rfs | None
    user: User | None
    vhost: Vhost | None
    errd: Errd | None
    check: Check | None
    failover_rules: FailoverRules | None
    line: int = field(default=0, compare=False, repr=False)

    @property
    def lans(self) -> tuple[str, ...]:
        """The lans of the cluster that the module uses, in the order of the file."""
        if self.heart:
            return tuple(dict.fromkeys(heartbeat.name for heartbeat in self.heart.heartbeats))
        return tuple(dict.fromkeys(lan.name for lan in self.farm.lans)) if self.farm else ()

    @property
    def replication_lan(self) -> str | None:
        """The lan of the replication: `<flow>`, else the heartbeat `flow`, else the first one; None without `<rfs>`."""
        if self.rfs is None or self.heart is None:
            return None
        flows = [heartbeat.name for heartbeat in self.heart.heartbeats if heartbeat.ident == "flow"]
        return self.rfs.flow or (flows or [self.heart.heartbeats[0].name])[0]


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Something valid that the runtime does not do yet; a module that uses it is refused."""

    line: int
    element: str
    attribute: str
    value: str | None
    message: str


@dataclass(frozen=True, slots=True)
class UserConfig:
    """A `userconfig.xml`. `expanded` is the whole of it as XML, macros replaced, defaults written (`safeconf.xml`)."""

    macros: tuple[Macro, ...]
    service: Service
    expanded: str = field(default="", compare=False, repr=False)
    not_supported: tuple[Unsupported, ...] = field(default=(), compare=False, repr=False)
    file: str = field(default="userconfig.xml", compare=False)
    warnings: tuple[ConfigWarning, ...] = field(default=(), compare=False)

    def error(
        self,
        code: str,
        reason: str,
        *,
        line: int = 0,
        element: str = "",
        attribute: str = "",
        value: str | None = None,
        expected: str = "",
    ) -> ConfigError:
        """An error about this file, for a check made elsewhere (to raise, with the `line` of the element at fault)."""
        return ConfigError(
            code,
            reason,
            file=self.file,
            line=line,
            element=element,
            attribute=attribute,
            value=value,
            expected=expected,
        )
