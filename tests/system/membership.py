"""Makes three nodes one cluster: the same cluster.xml and the same key everywhere, and no module."""

from __future__ import annotations

from tests.nodes import Lab
from tests.system.modules import cluster_config
from tests.system.product import safekit


def form_cluster(lab: Lab, more: str = "") -> None:
    """One cluster of n1, n2 and n3 (with `more` lans), bare of modules, whatever was there before."""
    first, *others = lab.nodes
    lab.client.run(
        "pkill -f '/tmp/writer-|/tmp/visitors-|/tmp/probe-'", check=False
    )  # of a run of the tests that was broken off
    for node in lab.nodes:
        names = safekit(node, "module list").out.split()
        for name in names:
            safekit(node, f"forcestop -m {name}", check=False)
        for name in names:
            safekit(node, f"waitstop -m {name} -t 30", check=False)
            safekit(node, f"module uninstall -m {name}")
        node.run("rm -rf /var/test /data/*; mkdir -p /var/test")
    first.write("/tmp/cluster.xml", cluster_config({node.name: node.address for node in lab.nodes}, more))
    safekit(first, "cluster config /tmp/cluster.xml")
    safekit(first, "cluster package /tmp/cluster.zip")
    packed = first.run(["base64", "-w0", "/tmp/cluster.zip"]).out
    for node in others:
        node.run("base64 -d >/tmp/cluster.zip", input=packed.encode())
        safekit(node, "cluster config /tmp/cluster.zip")
