"""`cluster.xml` (spec §2): its model, and what a schema cannot say about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from safekit.config import document
from safekit.config.errors import ConfigWarning, Problems
from safekit.config.grammar import cluster_grammar
from safekit.config.signature import xml_signature
from safekit.config.values import Address


@dataclass(frozen=True, slots=True)
class Node:
    """A node on one lan: `addr` as the others see it, `laddr` as the node itself does (they differ under NAT only)."""

    name: str
    addr: Address
    laddr: Address
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Lan:
    """A logical network. Modules name it; `command` makes it the one for distributed commands."""

    name: str
    command: bool
    nodes: tuple[Node, ...]
    line: int = field(default=0, compare=False, repr=False)

    @property
    def node_names(self) -> tuple[str, ...]:
        """The nodes on this lan, in the order of the file."""
        return tuple(node.name for node in self.nodes)

    def node(self, name: str) -> Node | None:
        """The node of this name on this lan."""
        return next((node for node in self.nodes if node.name == name), None)


@dataclass(frozen=True, slots=True)
class Witness:
    """The third place that remembers who may serve. `cluster` is the name of this cluster there: it may serve many."""

    name: str
    addr: Address
    port: int
    cluster: str
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes that share one `cluster.xml`. `signature` identifies its meaning: layout and comments do not count."""

    lans: tuple[Lan, ...]
    port: int
    pulse: timedelta
    mlost_count: int
    slost_count: int
    signature: str
    witness: Witness | None = None
    file: str = field(default="", compare=False)
    warnings: tuple[ConfigWarning, ...] = field(default=(), compare=False)

    @property
    def node_names(self) -> tuple[str, ...]:
        """Every node once, in the order of the file."""
        return tuple(dict.fromkeys(node.name for lan in self.lans for node in lan.nodes))

    def lan(self, name: str) -> Lan | None:
        """The lan of this name."""
        return next((lan for lan in self.lans if lan.name == name), None)

    @property
    def command_lan(self) -> Lan:
        """The lan for distributed commands: the one with `command="on"`, else the first that holds every node."""
        everyone = set(self.node_names)
        complete = [lan for lan in self.lans if set(lan.node_names) == everyone]
        return next((lan for lan in self.lans if lan.command), complete[0])


def load_cluster(content: str | bytes, file: str = "cluster.xml") -> Cluster:
    """Reads a `cluster.xml`. `file` is the name that messages show. Raises `ConfigError`."""
    problems = Problems(file)
    source = document.read(content, cluster_grammar(), problems, environment=None)
    lans, witness = source.root.children[0], source.root.first("witness")
    cluster = Cluster(
        lans=tuple(_lan(lan) for lan in lans.children),
        port=lans.values["port"],
        pulse=lans.values["pulse"],
        mlost_count=lans.values["mlost_count"],
        slost_count=lans.values["slost_count"],
        signature=xml_signature(source.tree),
        witness=Witness(**witness.values, line=witness.line) if witness else None,
        file=file,
        warnings=tuple(problems.warnings),
    )
    _check_names(cluster, problems)
    _check_addresses(cluster, problems)
    _check_reach(cluster, lans.line, problems)
    problems.settle()
    return cluster


def _lan(lan: document.Node) -> Lan:
    nodes = tuple(
        Node(node.values["name"], node.values["addr"], node.values["laddr"] or node.values["addr"], node.line)
        for node in lan.children
    )
    return Lan(lan.values["name"], lan.values["command"], nodes, lan.line)


def _check_names(cluster: Cluster, problems: Problems) -> None:
    """A lan has a name of its own; a node stands once on a lan."""
    seen: dict[str, int] = {}
    for lan in cluster.lans:
        if lan.name in seen:
            problems.error(
                "config.duplicate",
                f"there is a lan of this name already, in line {seen[lan.name]}",
                line=lan.line,
                element="lan",
                attribute="name",
                value=lan.name,
                expected="a name of its own for each lan",
            )
        seen.setdefault(lan.name, lan.line)
        nodes: dict[str, int] = {}
        for node in lan.nodes:
            if node.name in nodes:
                problems.error(
                    "config.duplicate",
                    f"this node is on the lan {lan.name} already, in line {nodes[node.name]}",
                    line=node.line,
                    element="node",
                    attribute="name",
                    value=node.name,
                    expected="each node once on a lan",
                )
            nodes.setdefault(node.name, node.line)


def _check_addresses(cluster: Cluster, problems: Problems) -> None:
    """No address belongs to two nodes."""
    owners: dict[Address, Node] = {}
    for node in (node for lan in cluster.lans for node in lan.nodes):
        owner = owners.setdefault(node.addr, node)
        if owner.name != node.name:
            problems.error(
                "config.duplicate",
                f"this address is that of node {owner.name} already, in line {owner.line}",
                line=node.line,
                element="node",
                attribute="addr",
                value=str(node.addr),
                expected="an address of its own for each node",
            )


def _check_reach(cluster: Cluster, line: int, problems: Problems) -> None:
    """Two nodes at least, one lan that reaches them all, one lan at most for commands."""
    everyone = cluster.node_names
    if len(everyone) < 2:
        problems.error(
            "config.missing",
            f"the cluster has one node only, {everyone[0]}",
            line=line,
            element="lans",
            expected="at least two nodes",
        )
    if not any(set(lan.node_names) == set(everyone) for lan in cluster.lans):
        problems.error(
            "config.reference",
            "no lan holds every node",
            line=line,
            element="lans",
            expected="one lan at least with the nodes " + ", ".join(everyone),
        )
    commands = [lan for lan in cluster.lans if lan.command]
    for lan in commands[1:]:
        problems.error(
            "config.duplicate",
            f"the lan {commands[0].name} of line {commands[0].line} carries the commands already",
            line=lan.line,
            element="lan",
            attribute="command",
            value="on",
            expected='command="on" on one lan at most',
        )
    for lan in commands:
        absent = [name for name in everyone if name not in lan.node_names]
        if absent:
            problems.error(
                "config.reference",
                f"the lan {lan.name} carries the commands and does not reach {', '.join(absent)}",
                line=lan.line,
                element="lan",
                attribute="command",
                value="on",
                expected="every node on this lan",
            )
