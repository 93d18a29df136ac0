"""n3 as the witness of n1 and n2: how the cluster is told, and how it is put back."""

from __future__ import annotations

from tests.nodes import Lab, Node
from tests.system.membership import form_cluster
from tests.system.modules import cluster_config
from tests.system.product import safekit


def declare_witness(cluster: Lab, third: Node, more: str = "") -> None:
    """The cluster (with `more` lans) names this node as its witness, and the node is one."""
    form_cluster(cluster, more)
    config = cluster_config({node.name: node.address for node in cluster.nodes}, more)
    config = config.replace("</lans>", f'</lans><witness name="w" addr="{third.address}"/>')
    third.run("base64 -d >/tmp/cluster.key", input=key_of(cluster["n1"]).encode())
    safekit(third, "witness serve cluster n1 n2 n3 --key /tmp/cluster.key")
    for node in cluster.nodes:
        node.write("/tmp/cluster.xml", config)
        safekit(node, "cluster config /tmp/cluster.xml")


def forget_witness(cluster: Lab, third: Node, more: str = "") -> None:
    """There is no witness any more, and no module."""
    form_cluster(cluster, more)
    safekit(third, "witness forget cluster")


def key_of(node: Node) -> str:
    """The cluster's key, in base64."""
    return node.out("base64 -w0 /var/safekit/cluster/cluster.key")
