"""The clusters that a witness serves: `witness.json`, replaced whole and readable by root only, for it holds the keys."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from safekit.files import UnreadableFile, read_json, write_json

FORMAT = 1
PORT = 4803
KEY_BYTES = 32
MOST_CLUSTERS = 256
MOST_NODES = 64

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,62}", re.ASCII)


class ServedError(ValueError):
    """A witness cannot serve as asked: field, value and what was expected are in the text."""


@dataclass(frozen=True)
class ServedCluster:
    """One cluster: its name at the witness, its key, all its nodes."""

    name: str
    key: bytes = field(repr=False)
    nodes: frozenset[str]

    def __post_init__(self) -> None:
        for what, name in (("the name of the cluster", self.name), *(("a node", node) for node in sorted(self.nodes))):
            if _NAME.fullmatch(name) is None:
                raise ServedError(f"{what} is {name!r}, expected 1 to 63 letters, digits, '_', '.' or '-'")
        if len(self.key) != KEY_BYTES:
            raise ServedError(f"the key of cluster {self.name} has {len(self.key)} bytes, expected {KEY_BYTES}")
        if not 2 <= len(self.nodes) <= MOST_NODES:
            raise ServedError(f"cluster {self.name} has {len(self.nodes)} nodes, expected 2 to {MOST_NODES}")


@dataclass(frozen=True)
class Serving:
    """What one node serves as a witness. `addr` None: on every address of the node; `port` 0: on any that is free."""

    clusters: tuple[ServedCluster, ...] = ()
    port: int = PORT
    addr: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ServedError(f"the port of the witness is {self.port}, expected 0 to 65535")
        if self.addr is not None:
            try:
                ip_address(self.addr)
            except ValueError:
                raise ServedError(f"the address of the witness is {self.addr!r}, expected an IP address") from None
        names = [cluster.name for cluster in self.clusters]
        if len(set(names)) != len(names):
            raise ServedError(f"clusters {', '.join(names)}: expected a name of its own for each")
        if len(names) > MOST_CLUSTERS:
            raise ServedError(f"{len(names)} clusters, expected at most {MOST_CLUSTERS}")

    def cluster(self, name: str) -> ServedCluster | None:
        """The cluster of this name."""
        return next((cluster for cluster in self.clusters if cluster.name == name), None)

    def with_cluster(self, cluster: ServedCluster) -> Serving:
        """The same, with this cluster added or replaced."""
        others = tuple(other for other in self.clusters if other.name != cluster.name)
        return Serving((*others, cluster), self.port, self.addr)

    def without(self, name: str) -> Serving:
        """The same, without the cluster of this name."""
        return Serving(tuple(other for other in self.clusters if other.name != name), self.port, self.addr)


def read_serving(path: Path) -> Serving | None:
    """What `write_serving` wrote; None if this node is no witness. Raises UnreadableFile."""
    value = read_json(path)
    if value is None:
        return None
    try:
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']!r}, expected {FORMAT}")
        clusters = tuple(_cluster(name, entry) for name, entry in value["clusters"].items())
        return Serving(clusters, int(value["port"]), value["addr"])
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise UnreadableFile(path, f"not what a witness serves: {error!r}") from error


def _cluster(name: str, entry: Any) -> ServedCluster:
    return ServedCluster(name, base64.b64decode(entry["key"], validate=True), frozenset(map(str, entry["nodes"])))


def write_serving(path: Path, serving: Serving) -> None:
    """Replace the file; durable when this returns. Raises OSError."""
    clusters = {
        cluster.name: {"key": base64.b64encode(cluster.key).decode(), "nodes": sorted(cluster.nodes)}
        for cluster in sorted(serving.clusters, key=lambda cluster: cluster.name)
    }
    value = {"format": FORMAT, "addr": serving.addr, "port": serving.port, "clusters": clusters}
    write_json(path, value, durable=True)
