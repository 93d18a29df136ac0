"""Small configurations that the tests bend: each is valid as it stands."""

from __future__ import annotations

from collections.abc import Mapping

from safekit.config import Cluster, ConfigError, UserConfig, load_cluster, load_userconfig

CLUSTER = """<cluster><lans>
  <lan name="default">
    <node name="n1" addr="192.0.2.11"/>
    <node name="n2" addr="192.0.2.12"/>
    <node name="n3" addr="192.0.2.13"/>
  </lan>
  <lan name="pair">
    <node name="n1" addr="198.51.100.11"/>
    <node name="n2" addr="198.51.100.12"/>
  </lan>
  <lan name="other">
    <node name="n2" addr="203.0.113.12"/>
    <node name="n3" addr="203.0.113.13"/>
  </lan>
</lans></cluster>
"""

HEART = '<heart><heartbeat name="pair"/></heart>'
FARM_LAN = '<farm><lan name="default"/></farm>'


def safe(service: str, *, macros: str = "") -> str:
    """A userconfig.xml around a `<service>`."""
    return f"<safe>{macros}{service}</safe>"


def mirror(inside: str = "", *, heart: str = HEART, attributes: str = "", macros: str = "") -> str:
    """A mirror with something inside."""
    return safe(f'<service mode="mirror" {attributes}>{heart}{inside}</service>', macros=macros)


def farm(inside: str = "", *, attributes: str = "", lan: str = FARM_LAN) -> str:
    """A farm with something inside."""
    return safe(f'<service mode="farm" {attributes}>{lan}{inside}</service>')


def light(inside: str = "") -> str:
    """A light module with something inside."""
    return safe(f'<service mode="light">{inside}</service>')


def mirror_vip(addresses: str, *, interface: str = "") -> str:
    """The `<vip>` of a mirror."""
    return (
        f"<vip><interface_list><interface {interface}><real_interface>{addresses}</real_interface></interface>"
        "</interface_list></vip>"
    )


def farm_vip(groups: str = "", *, addresses: str = "", type_: str = 'type="vmac_directed"') -> str:
    """The `<vip>` of a farm."""
    addresses = addresses or '<virtual_addr addr="192.0.2.30" where="alias"/>'
    balancing = f"<loadbalancing_list>{groups}</loadbalancing_list>" if groups else ""
    return (
        f"<vip><interface_list><interface><virtual_interface {type_}>{addresses}</virtual_interface></interface>"
        f"</interface_list>{balancing}</vip>"
    )


def rfs(*directories: str, attributes: str = "", flow: str = "") -> str:
    """An `<rfs>` of these directories."""
    replicated = "".join(f'<replicated dir="{directory}"/>' for directory in directories)
    return f"<rfs {attributes}>{flow}{replicated}</rfs>"


def cluster(text: str = CLUSTER) -> Cluster:
    """A loaded cluster."""
    return load_cluster(text)


def load(text: str, environment: Mapping[str, str] | None = None) -> UserConfig:
    """A loaded module."""
    return load_userconfig(text, "userconfig.xml", environment)


def refused(text: str | bytes, environment: Mapping[str, str] | None = None) -> ConfigError:
    """The error with which a userconfig.xml is refused."""
    try:
        load_userconfig(text, "userconfig.xml", environment)
    except ConfigError as error:
        return error
    raise AssertionError(f"accepted: {text!r}")


def refused_cluster(text: str | bytes) -> ConfigError:
    """The error with which a cluster.xml is refused."""
    try:
        load_cluster(text)
    except ConfigError as error:
        return error
    raise AssertionError(f"accepted: {text!r}")
