"""The application itself does not outlive the lease: what runs of it is killed before the other node starts it, also when
`safekitd` stands still and no stop script is ever called. Nothing else kills it: no end of a daemon.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.cuts import arbitrated, ready
from tests.nodes import Lab, Node, wait_for
from tests.system.mirror import FOLDER, NAME, Mirror
from tests.system.modules import NOTES, START, STOP, mirror_config, script
from tests.system.product import kill_and_await, shown

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 90.0

TICKS, PID = f"{NOTES}/ticks", f"{NOTES}/ticks.pid"
UNIT = f"ledger-{NAME}.service"
BY_ITSELF = f"""\
setsid sh -c 'echo $$ >{PID}; while :; do date +%s.%N; sleep 0.1; done >{TICKS}' &
"""


class Watched(Mirror):
    """Its application is a unit that errd names, and a process of its own that leaves the session of its script."""

    def files(self) -> dict[str, str]:
        """With a lease of 8 s: the margin between its end and the other node's start is one second."""
        errd = f'<errd><proc name="ledger-{NAME}" service="yes" class="prim" action="restart"/></errd>'
        config = mirror_config(self.address, FOLDER, parts=errd).replace('timeout="3s"', 'timeout="8s"')
        return {
            **super().files(),
            "conf/userconfig.xml": config,
            "bin/start_prim": script("start_prim", BY_ITSELF + START),
            "bin/stop_prim": script("stop_prim", f"kill $(cat {PID}) 2>/dev/null\n{STOP}"),
        }


@pytest.fixture
def mirror(cluster: Lab) -> Iterator[Watched]:
    """PRIM and SECOND; n3 is their witness, and would grant a failover."""
    with arbitrated(cluster, Watched) as mirror:
        assert isinstance(mirror, Watched)
        wait_for("the pair is whole, and the witness ready", lambda: ready(mirror), timeout=PATIENCE_S)
        mirror.forget_calls()
        yield mirror


def alive(node: Node) -> bool:
    """Whether the process that belongs to no unit lives."""
    return node.succeeds(f"kill -0 $(cat {PID})")


def test_it_is_killed_in_time_though_the_daemon_stands_still_and_by_nothing_else(mirror: Watched) -> None:
    primary, other = mirror.roles()
    pid = primary.out(f"cat {PID}")
    kill_and_await(primary, "safekitd")
    primary.run(["systemctl", "restart", "safekitd"])
    kill_and_await(primary, "safekit-pulse")
    wait_for("they are a pair", lambda: ready(mirror), timeout=PATIENCE_S)
    assert primary.out(f"cat {PID}") == pid and alive(primary)
    assert f"module-{NAME}" in primary.out(f"cat /proc/{pid}/cgroup")

    primary.run(["systemctl", "kill", "--kill-whom=main", "--signal=STOP", "safekitd"])
    mirror.lab.cut(primary.name)
    wait_for("the other serves", lambda: shown(other, NAME) == "ALONE Ready", timeout=PATIENCE_S)
    assert not alive(primary)
    assert not primary.succeeds(["systemctl", "is-active", "--quiet", UNIT])
    began = next(date for date, name in mirror.calls(other) if name == "start_prim")
    assert float(primary.out(f"tail -n 1 {TICKS}")) < began
    assert not mirror.calls(primary), "no stop script had a part in it"

    primary.run(["systemctl", "kill", "--kill-whom=main", "--signal=CONT", "safekitd"])
    wait_for("it waits", lambda: shown(primary, NAME).startswith("WAIT"), timeout=PATIENCE_S)
    mirror.lab.heal()
    wait_for("both are a pair again", mirror.are_ready, timeout=PATIENCE_S)
