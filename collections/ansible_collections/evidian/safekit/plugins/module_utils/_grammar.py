# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The elements and attributes of cluster.xml and userconfig.xml, as one table: what may stand where, and how a value is
# written in YAML. Nothing here reads or writes; see _markup.py. The node validates in full; this table only gives
# names.
#
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

TEXT = "text"  # any string, never taken for a number
SWITCH = "switch"  # on | off, a boolean in YAML
AGREEMENT = "agreement"  # yes | no, a boolean in YAML
NUMBER = "number"  # an integer, or a word that the node knows (a port may be "*")
TIME = "time"  # 200ms, 30s, 24h; a bare number counts the attribute's own unit


@dataclass(frozen=True)
class Attribute:
    """An attribute: its name, the kind of its value, and the words that it may hold when they are few."""

    name: str
    kind: str = TEXT
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Child:
    """An element inside another. ``key`` is its name in YAML, ``many`` whether it may be repeated."""

    element: Element
    key: str
    many: bool


@dataclass(frozen=True)
class Element:
    """An element: attributes, children, and whether it carries CDATA sections (``sections`` is then their key in YAML).

    Three shapes of it are shorter in YAML than in XML:
    a *wrapper* (no attribute, one child that is repeated) is the list of its children;
    a *mark* (one attribute says it all) is the value of that attribute;
    *pairs* (``name`` and ``value``, repeated) are a mapping.
    """

    name: str
    attributes: tuple[Attribute, ...] = ()
    children: tuple[Child, ...] = ()
    sections: Optional[str] = None
    pairs: bool = False
    mark: bool = False

    @property
    def wrapper(self) -> bool:
        return not self.attributes and len(self.children) == 1 and self.children[0].many and self.sections is None

    def attribute(self, name: str) -> Optional[Attribute]:
        return next((attribute for attribute in self.attributes if attribute.name == name), None)

    def child(self, name: str) -> Optional[Child]:
        return next((child for child in self.children if child.element.name == name), None)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that the element may have in YAML."""
        extra = () if self.sections is None else (self.sections,)
        return (
            tuple(attribute.name for attribute in self.attributes) + tuple(child.key for child in self.children) + extra
        )


def _one(element: Element, key: Optional[str] = None) -> Child:
    return Child(element, key or element.name, many=False)


def _many(element: Element, key: Optional[str] = None) -> Child:
    return Child(element, key or element.name, many=True)


def _text(*names: str) -> tuple[Attribute, ...]:
    return tuple(Attribute(name) for name in names)


def _switch(*names: str) -> tuple[Attribute, ...]:
    return tuple(Attribute(name, SWITCH) for name in names)


def _number(*names: str) -> tuple[Attribute, ...]:
    return tuple(Attribute(name, NUMBER) for name in names)


def _time(*names: str) -> tuple[Attribute, ...]:
    return tuple(Attribute(name, TIME) for name in names)


def _word(name: str, *words: str) -> tuple[Attribute, ...]:
    return (Attribute(name, TEXT, words),)


# cluster.xml (spec §2)

# Of older releases; the node ignores them.
_OBSOLETE = _text("console", "framework", "connect")

_NODE = Element("node", _text("name", "addr", "laddr") + _OBSOLETE)
_LAN = Element("lan", _text("name") + _switch("command") + _OBSOLETE, (_many(_NODE),))
_LANS = Element(
    "lans", _number("port") + _time("pulse") + _number("mlost_count", "slost_count") + _OBSOLETE, (_many(_LAN),)
)
_WITNESS = Element("witness", _text("name", "addr") + _number("port") + _text("cluster"))
CLUSTER = Element("cluster", (), (_one(_LANS), _one(_WITNESS)))

# userconfig.xml (spec §3)

_MACRO = Element("macro", _text("name", "value"), pairs=True)

_SERVER = Element("server", _text("addr"), mark=True)
_HEARTBEAT = Element("heartbeat", _text("name", "ident") + _time("pulse", "timeout"), (_many(_SERVER),))
_HEART = Element("heart", _number("port") + _time("pulse", "timeout") + _switch("permanent_arp"), (_many(_HEARTBEAT),))

_FARM_NODE = Element("node", _text("name", "addr"))
_FARM_LAN = Element("lan", _text("name"), (_many(_FARM_NODE),), mark=True)
_FARM = Element("farm", _number("port") + _time("pulse") + _number("mlost_count", "slost_count"), (_many(_FARM_LAN),))

_VIRTUAL_ADDR = Element(
    "virtual_addr",
    _text("addr")
    + _word("where", "alias", "one_side_alias", "one_side")
    + _switch("check", "connections")
    + _text("netmask"),
)
_REAL_INTERFACE = Element("real_interface", (), (_many(_VIRTUAL_ADDR),))
_VIRTUAL_INTERFACE = Element(
    "virtual_interface", _word("type", "vmac_directed", "vmac_invisible") + _text("addr"), (_many(_VIRTUAL_ADDR),)
)
_INTERFACE = Element(
    "interface",
    _switch("check", "arpreroute") + _time("arpinterval", "arpelapse") + _text("name"),
    (_one(_REAL_INTERFACE), _one(_VIRTUAL_INTERFACE)),
)
_INTERFACE_LIST = Element("interface_list", (), (_many(_INTERFACE),))
_HOST = Element("host", _text("name") + _number("power"))
_GROUP_CLUSTER = Element("cluster", (), (_many(_HOST),))
_RULE = Element(
    "rule",
    _text("virtual_addr")
    + _number("port")
    + _word("proto", "tcp", "udp", "arp")
    + _word("filter", "on_addr", "on_port", "on_ipid"),
)
_GROUP = Element("group", _text("name"), (_one(_GROUP_CLUSTER), _many(_RULE)))
_LOADBALANCING_LIST = Element("loadbalancing_list", (), (_many(_GROUP),))
_VIP = Element(
    "vip", _switch("tcpreset", "scriptcontrol") + _time("drain"), (_one(_INTERFACE_LIST), _one(_LOADBALANCING_LIST))
)

_TOCHECK = Element("tocheck", _text("path"), mark=True)
_NOTREPLICATED = Element("notreplicated", _text("path", "regexpath"))
_REPLICATED = Element("replicated", _text("dir") + _word("mode", "read_only"), (_many(_TOCHECK), _many(_NOTREPLICATED)))
_FLOW = Element("flow", _text("name"), mark=True)
_RFS = Element(
    "rfs",
    _text("mountoversuffix")
    + _switch("acl")
    + _word("async", "second", "none")
    + _number("packetsize", "reipacketsize", "ruzone_blocksize")
    + _time("locktimeout", "sendtimeout")
    + _number("nbrei")
    + (Attribute("namespacepolicy", NUMBER, ("0", "1", "3", "4")),)
    + _time("reitimeout")
    + _number("reicommit")
    + _switch("reidetail")
    + _number("nbremconn")
    + _time("checktime", "checkintv")
    + _switch("scripts")
    + _number("reiallowedbw")
    + _time("syncdelta")
    + _text("syncat", "verifyat")
    + _text("mountover", "iotimeout", "roflags", "allocthreshold", "nfsbox_options"),
    (_one(_FLOW), _many(_REPLICATED)),
)

_VAR = Element("var", _text("name", "value"), pairs=True)
_USER = Element(
    "user",
    _time("nicestoptimeout", "forcestoptimeout") + _word("logging", "userlog", "none") + _number("userlogsize"),
    (_many(_VAR),),
)

_VIRTUALHOSTNAME = Element("virtualhostname", _text("name", "envfile") + _word("when", "prim", "second", "both"))
_VHOST = Element("vhost", (), (_many(_VIRTUALHOSTNAME),))

_PROC = Element(
    "proc",
    _text("name")
    + (Attribute("service", AGREEMENT),)
    + _text("nameregex", "argregex")
    + _number("atleast", "atmax")
    + _text("action", "restart_services", "class")
    + _number("start_after"),
)
_ERRD = Element("errd", _time("polltimer"), (_many(_PROC),))

_WHEN = _word("when", "pre", "prim", "second", "both")
_ONLY_PRE = _word("when", "pre")
_ACTION = _word("action", "wait", "stop", "stopstart", "restart", "noaction")
_TCP = Element(
    "tcp",
    _text("ident") + _WHEN + _ACTION,
    (_one(Element("to", _text("addr") + _number("port") + _time("interval", "timeout"))),),
)
_PING = Element(
    "ping",
    _text("ident") + _WHEN + _ACTION,
    (_one(Element("to", _text("addr") + _time("interval", "timeout"))),),
)
_INTF = Element("intf", _text("ident") + _ONLY_PRE, (_one(Element("to", _text("local_addr"))),))
_IP = Element(
    "ip", _text("ident") + _word("when", "prim", "both"), (_one(Element("to", _text("addr") + _time("interval"))),)
)
_CUSTOM = Element("custom", _text("ident") + _WHEN + _text("exec", "arg") + _ACTION)
_MODULE = Element(
    "module",
    _text("name", "ident"),
    (_one(Element("to", _text("addr") + _number("port") + _time("interval", "timeout") + _switch("secure"))),),
)
_SPLITBRAIN = Element("splitbrain", _word("ident", "witness") + _ONLY_PRE + _word("exec", "ping") + _text("arg"))
_CHECK = Element(
    "check",
    (),
    (_many(_TCP), _many(_PING), _many(_INTF), _many(_IP), _many(_CUSTOM), _many(_MODULE), _one(_SPLITBRAIN)),
)

_FAILOVER = Element("failover", (Attribute("extends", AGREEMENT),) + _time("period", "handle_time"), sections="rules")

# ``failover`` is an attribute of <service> and an element in it: in YAML the element is ``failover_rules``.
_SERVICE = Element(
    "service",
    _word("mode", "mirror", "farm", "light")
    + (Attribute("boot", SWITCH, ("auto", "ignore")),)
    + _time("boot_delay")
    + _switch("failover")
    + _text("defaultprim")
    + _number("maxloop")
    + _time("loop_interval")
    + _switch("automatic_reboot")
    + _word("quorum", "witness", "fence", "manual", "ping", "none"),
    (
        _one(_HEART),
        _one(_FARM),
        _one(_RFS),
        _one(_VIP),
        _one(_USER),
        _one(_VHOST),
        _one(_ERRD),
        _one(_CHECK),
        _one(_FAILOVER, "failover_rules"),
    ),
)
USERCONFIG = Element("safe", (), (_many(_MACRO), _one(_SERVICE)))
