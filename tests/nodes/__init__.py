"""The nodes: Debian machines with systemd as their first process, on one segment, that can be killed like real ones.

    lab = Lab.here()
    lab.ensure()                       # boots n1, n2, n3 and client, or finds them booted
    n1 = lab["n1"]
    n1.run("systemctl start nginx")
    lab.cut("n1", "n2")                # the two no longer hear each other; lab.heal() ends it
    n1.power_cut()                     # at once, and what was not synced is lost; n1.power_on()

The same library stands behind pytest (`tests/conftest.py`), molecule (`molecule/shared/`), the demo and
`python -m tests.nodes`. It needs nothing but the standard library. It knows nothing of the product, save `runtime.py`,
which installs it.
"""

from tests.nodes.engine import CommandFailed, Result
from tests.nodes.lab import Lab
from tests.nodes.node import Node, Running
from tests.nodes.waiting import NotInTime, wait_for

__all__ = ["CommandFailed", "Lab", "Node", "NotInTime", "Result", "Running", "wait_for"]
