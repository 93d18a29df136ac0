"""I1 to I8: what is on a node after the installation, and what a person meets first."""

from __future__ import annotations

from tests.acceptance.cases import NotBuilt, case
from tests.acceptance.pair import Pair
from tests.nodes import Lab, Node
from tests.system.mirror import NAME
from tests.system.product import SOCKET, ask, safekit

NOT_RUNNING = 12
CONSOLE_PORT = 9010
COMMANDS = (
    "state", "state -m m", "log -m m", "cmdlog", "level", "why -m m", "module list", "module listid", "cluster state",
    "cluster confinfo", "start -m m", "stop -m m", "restart -m m", "swap -m m", "prim -m m", "config -m m",
    "boot status -m m", "checker status -m m", "errd status -m m", "get -m m -r state.local", "rfsverify -m m",
)  # fmt: skip


@case("I1")
def test_i1_the_command_says_where_things_are(cluster: Lab) -> None:
    for node in cluster.nodes:
        said = safekit(node, "-p").out.splitlines()
        assert {"SAFE=/opt/safekit", "SAFEVAR=/var/safekit"} <= set(said)
        assert node.succeeds("test -x /opt/safekit/safekit && test -d /var/safekit")


@case("I2", ours="a licence that is no key: nothing stops after three days")
def test_i2_level_names_host_system_version_and_licence(cluster: Lab) -> None:
    for node in cluster.nodes:
        said = safekit(node, "level").out
        version = node.out(["/opt/safekit/venv/bin/python", "-c", "import safekit; print(safekit.__version__)"])
        assert f"safekit {version}\n" in said
        assert f"on host {node.name}\n" in said
        assert "Debian" in said
        assert "licence GPL-3.0-or-later" in said


@case("I3")
def test_i3_the_service_runs_at_boot_and_without_it_every_command_says_so(cluster: Lab) -> None:
    node = cluster["n3"]
    for word, answer in (("is-active", "active"), ("is-enabled", "enabled")):
        assert node.out(["systemctl", word, "safekitd"]) == answer
    node.run(["systemctl", "stop", "safekitd"])
    try:
        for line in COMMANDS:
            done = safekit(node, line, check=False)
            assert done.code == NOT_RUNNING, (line, done)
            assert "safekitd is not running on this node" in done.err, (line, done)
    finally:
        node.run(["systemctl", "start", "safekitd"])
    node.wait_for("it answers", "safekit level")


@case("I4")
def test_i4_without_the_web_service_only_the_local_command_works(cluster: Lab) -> None:
    _needs_port(
        cluster["n1"], "the web service: console, distributed commands (-H), checkers of other servers' modules"
    )


@case("I5")
def test_i5_the_state_can_be_asked_for_by_snmp(cluster: Lab) -> None:
    node = cluster["n1"]
    if not node.succeeds(["systemctl", "cat", "safekit-snmp.service"]):
        raise NotBuilt("an SNMP agent (optional in the reference)")
    assert node.out(["systemctl", "is-active", "safekit-snmp.service"]) == "active"


@case("I6")
def test_i6_boot_setting_state_and_ids_are_the_same_everywhere(pair: Pair) -> None:
    ids = {safekit(node, "module listid").out for node in pair.nodes}
    assert len(ids) == 1 and f"1 {NAME}\n" in ids.pop()
    for node in pair.nodes:
        assert safekit(node, f"boot status -m {NAME}").out == f"{NAME}: boot on\n"
        shown = safekit(node, "state").out
        assert all(word in shown for word in (NAME, "PRIM", "SECOND", "n1", "n2")), shown


@case("I7")
def test_i7_the_processes_of_a_running_module_are_there(pair: Pair) -> None:
    for node in pair.nodes:
        assert node.succeeds(["systemctl", "is-active", "--quiet", f"safekit-rfs@{NAME}"])
        # As `ps -ef | grep AM` finds them: two processes of the data plane, each able to replace the other.
        listed = node.out(["ps", "-eo", "args"]).splitlines()
        assert sum("safekit-rfs" in line and f"/modules/{NAME}/" in line for line in listed) == 2, listed
    primary, _ = pair.roles()
    assert "/private/modules/m/bin/ledger" in primary.out(["ps", "-eo", "args"])


@case("I8")
def test_i8_a_browser_meets_a_login(cluster: Lab) -> None:
    assert ask(cluster["n1"], "node")["name"] == "n1", SOCKET
    _needs_port(cluster["n1"], "the web console")


def _needs_port(node: Node, what: str) -> None:
    if not node.succeeds(f"ss -Hltn sport = :{CONSOLE_PORT} | grep -q ."):
        raise NotBuilt(f"{what} (nobody listens on TCP port {CONSOLE_PORT})")
    answer = node.out(f"curl --silent --location http://{node.address}:{CONSOLE_PORT}/")
    if "Not Found" in answer:
        raise NotBuilt(f"{what} (TCP port {CONSOLE_PORT} answers the probes of load balancers only)")
    assert "login" in answer.lower(), answer[:200]
