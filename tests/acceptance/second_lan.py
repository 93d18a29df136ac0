"""A second lan between n1 and n2: other addresses on the same wire, so that either lan can be lost without the other."""

from __future__ import annotations

from tests.nodes import Lab, Node
from tests.system.mirror import FAULTS

_UNIT = "second-lan.service"
_PLACE = f"/etc/systemd/system/{_UNIT}"


class SecondLan:
    """Lan `private` of n1 and n2. Its addresses come back with each boot."""

    def __init__(self, lab: Lab) -> None:
        self._nodes = (lab["n1"], lab["n2"])

    def config(self) -> str:
        """Its element of cluster.xml."""
        nodes = "".join(f'<node name="{node.name}" addr="{private(node)}"/>' for node in self._nodes)
        return f'  <lan name="private">{nodes}</lan>\n'

    def lay(self) -> None:
        """Give both nodes their address."""
        for node in self._nodes:
            unit = (
                "[Unit]\nBefore=safekit-pulse.service safekitd.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
                f"ExecStart=/usr/sbin/ip address replace {private(node)}/24 dev eth0\n"
                "[Install]\nWantedBy=multi-user.target\n"
            )
            node.write(_PLACE, unit)
            node.run(f"systemctl daemon-reload; systemctl enable --quiet {_UNIT}; systemctl restart {_UNIT}")

    def remove(self) -> None:
        """Take both addresses away."""
        for node in self._nodes:
            if node.is_on():
                node.run(f"systemctl disable --quiet --now {_UNIT}; rm -f {_PLACE}; systemctl daemon-reload")
                node.run(["ip", "address", "del", f"{private(node)}/24", "dev", "eth0"], check=False)


def private(node: Node) -> str:
    """The address of a node on the second lan."""
    _, _, third, last = node.address.split(".")
    return f"192.168.{third}.{last}"


def lose_production(node: Node, other: Node) -> None:
    """`node` and `other` no longer hear each other on the lan of their first addresses; `mend` of the pair ends it."""
    chains = [
        f"chain {way} {{ type filter hook {way} priority 0; ip saddr {other.address} drop; ip daddr {other.address} drop; }}"
        for way in ("input", "output")
    ]
    node.run(["nft", "-f", "-"], input="\n".join([f"table inet {FAULTS} {{", *chains, "}"]).encode())
