"""I1 to I8: what is on a node after the installation, and what a person meets first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.acceptance.browser import Browser
from tests.acceptance.cases import NotBuilt, case
from tests.acceptance.pair import Pair
from tests.nodes import Lab, Node
from tests.system.mirror import NAME
from tests.system.product import safekit

NOT_RUNNING = 12
UNREACHABLE = 18
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


@case("I4", ours="off until asked for; checkers of modules look at the cluster, not at the web service")
def test_i4_without_the_web_service_only_the_local_command_works(cluster: Lab) -> None:
    with console(cluster.nodes):
        for node in cluster.nodes:
            assert safekit(node, "webserver status").out == "web service: active\n"
        asked = safekit(cluster["n1"], '-H "*" level').out
        for node in cluster.nodes:
            assert f"---------------- https://{node.address}:9453 ({node.name})\nsafekit " in asked
            assert f"on host {node.name}\n" in asked
        gone = cluster["n2"]
        safekit(gone, "webserver stop")
        asked_anew = safekit(cluster["n1"], '-H "*" level', check=False)
        assert asked_anew.code == UNREACHABLE
        assert f"https://{gone.address}:9453: connection error: Connection refused" in asked_anew.err
        assert asked_anew.out.count("\nlicence ") == 2 and f"on host {gone.name}\n" not in asked_anew.out
        assert not cluster.client.succeeds(["curl", "-sk", "--max-time", "20", f"https://{gone.address}:9453/login"])
        for line in ("state", "level", "module list", "cluster state"):
            assert safekit(gone, line).ok
        # From the node itself: its own web service is what is gone, the others answer.
        assert f"on host {cluster['n3'].name}\n" in safekit(gone, "-H n3 level").out


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


@case("I8", ours="9010 sends the browser to 9453: a password never travels in the clear")
def test_i8_a_browser_meets_a_login_then_home(pair: Pair) -> None:
    node, client = pair.nodes[0], pair.lab.client
    _, secondary = pair.roles()
    tile = f"document.querySelector('[data-module={NAME}] [data-node={secondary.name}]')"
    with console(pair.nodes):
        node.run(["safekit", "webservercfg", "-user", "admin"], input=b"correct horse\n")
        try:
            with Browser(client) as browser:
                browser.go(f"http://{node.address}:9010/")
                for password, then in (
                    ("wrong horse", "document.body.innerText.includes('User or password is wrong.')"),
                    ("correct horse", "document.querySelector('#modules') !== null"),
                ):
                    browser.wait("document.querySelector('[name=httpd_password]') !== null", "login")
                    assert browser.evaluate("location.href") == f"https://{node.address}:9453/login"
                    assert not browser.evaluate("document.body.innerText.includes('n1')")
                    browser.evaluate(
                        "document.querySelector('[name=httpd_username]').value = 'admin';"
                        f"document.querySelector('[name=httpd_password]').value = '{password}';"
                        "document.querySelector('button').click()"
                    )
                    browser.wait(then, f"after {password}")
                for one, state in zip(pair.roles(), ("PRIM", "SECOND"), strict=True):
                    shown = f"document.querySelector('[data-node={one.name}]').dataset.state"
                    browser.wait(f"{shown} === '{state}'", f"{one.name} is {state}")
                # The page draws itself anew.
                for action, state in (("stop", "STOP"), ("start", "SECOND")):
                    button = f"{tile}.querySelector('[data-action={action}]')"
                    browser.wait(f"{button} !== null", f"button {action} of {secondary.name}")
                    browser.evaluate(f"{button}.click()")
                    browser.wait(f"{tile}.dataset.state === '{state}'", f"{action} on {secondary.name}")
                assert browser.dialogs == [f"Stop: {NAME} on {secondary.name}?"]
                # What the wrong password brought is in the journal of the browser; nothing else is.
                assert [one for one in browser.complaints if " 401 " not in one] == []
            assert f"admin@{client.address} " in safekit(secondary, "cmdlog").out
        finally:
            node.run(["safekit", "webservercfg", "-user", "admin", "-remove"])


@contextmanager
def console(nodes: Sequence[Node]) -> Iterator[None]:
    """The web service runs on these nodes."""
    try:
        for node in nodes:
            safekit(node, "webserver start")
        yield
    finally:
        for node in nodes:
            safekit(node, "webserver stop")
