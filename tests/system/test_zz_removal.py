"""What is left when the product is removed: nothing. Last, because it takes the product away from the nodes."""

from __future__ import annotations

from tests.nodes import Lab, Node
from tests.nodes.runtime import install_runtime
from tests.system.farm import Farm
from tests.system.mirror import FOLDER, Mirror
from tests.system.product import safekit

_LEFT = """\
find / -xdev \\( -path /proc -o -path /sys -o -path /tmp -o -path /var/test -o -path /data -o -path /var/log \\) -prune \
    -o -iname '*safekit*' -print 2>/dev/null
find /var /opt /run -xdev \\( -path /var/test -o -path /var/log \\) -prune -o -iname '*safekit*' -print 2>/dev/null
systemctl list-unit-files --no-legend 'safekit*' | awk '{ print "unit", $1 }'
systemctl list-units --all --no-legend --plain 'safekit*' | awk '{ print "loaded", $1 }'
nft list tables | grep safekit
awk '$3 == "fuse.safekit"' /proc/self/mounts
pgrep -af safekit | grep -v 'bash -c'
"""


def _remove(node: Node, *, check: bool = True) -> tuple[int, str]:
    done = node.run(["/opt/safekit/venv/bin/python", "-m", "safekit.install", "--remove"], check=check)
    return done.code, done.out + done.err


def test_removal_is_refused_while_modules_are_installed_then_leaves_nothing(
    cluster: Lab, mirror: Mirror, farm: Farm
) -> None:
    node = cluster["n1"]
    code, said = _remove(node, check=False)
    assert code != 0
    assert "modules are still installed (m, w)" in said
    assert safekit(node, "state -m m").ok

    mirror.uninstall()
    farm.uninstall()
    for one in cluster.nodes:
        assert _remove(one) == (0, "changed\n")
        assert one.run(_LEFT, check=False).out == ""
        for virtual in (mirror.address, farm.address):
            assert not one.succeeds(f"ip -o addr show | grep -q ' {virtual}/'")
        assert not one.succeeds(["command", "-v", "safekit"])
    assert mirror.nodes[0].succeeds(["test", "-d", FOLDER])
    install_runtime(cluster.nodes)
    assert safekit(node, "module list").out == ""
