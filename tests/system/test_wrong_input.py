"""Wrong input: the sentence that a person reads, the exit code, and a node on which nothing was changed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.nodes import Lab, Node
from tests.system import modules
from tests.system.mirror import FOLDER, Mirror
from tests.system.product import package, safekit

CONFIGURATION, REFUSED, NOT_RUNNING = 14, 10, 12

_LOOK = """\
find /opt/safekit/modules /opt/safekit/private /var/safekit /run/safekit/modules -type f \
    ! -name '*.db*' ! -name '*.ulog' -exec sha256sum {} + 2>/dev/null | sort
ip -o addr show scope global | awk '{ print $2, $4 }'
nft list ruleset | sed -E 's/counter packets [0-9]+ bytes [0-9]+/counter/'
cat /proc/self/mounts
systemctl list-units --no-legend --plain 'safekit*' | awk '{ print $1, $3, $4 }'
"""


@dataclass
class Desk:
    """Where a person makes a mistake: module `bad` on a node that runs the module `m`."""

    node: Node
    network: str

    def install(self, files: dict[str, str]) -> None:
        """Put a module's files in place; nothing of it is in force yet."""
        self.node.write("/tmp/bad.safe", package(files))
        safekit(self.node, "module install -m bad /tmp/bad.safe -M 9 -r")

    def refused(self, line: str, code: int, facts: Sequence[str]) -> str:
        """The command fails with this exit code, says every one of these facts, and changes nothing. What it says."""
        before = self.node.out(_LOOK)
        done = safekit(self.node, line, check=False)
        assert done.code == code, f"{done.code}: {done.out}{done.err}"
        assert "Traceback" not in done.err
        for fact in facts:
            assert fact in done.err, f"{fact!r} is not said: {done.err}"
        assert self.node.out(_LOOK) == before
        return done.err


@pytest.fixture
def desk(mirror: Mirror) -> Iterator[Desk]:
    """n1, where the mirror `m` runs."""
    node = mirror.nodes[0]
    node.run(["mkdir", "-p", "/data/bad"])
    yield Desk(node, mirror.address.rsplit(".", 1)[0])
    if safekit(node, "state -m bad", check=False).ok:
        safekit(node, "module uninstall -m bad")


def mirror_config(
    *, address: str = "10.89.0.1", folder: str = "/data/bad", heart: str = "", more: str = "", rfs: str = ""
) -> str:
    """A mirror, one element per line, so that the tests can name the line."""
    return f"""<safe>
<service mode="mirror">
{heart or '<heart><heartbeat name="pair"/></heart>'}
<rfs {rfs}>
<replicated dir="{folder}" mode="read_only"/>
</rfs>
{modules.mirror_vip(address)}
{more}
</service>
</safe>
"""


_WRONG_FILES = {
    "malformed XML": ("<safe>\n<service mode='light'>\n</safe>\n", ["userconfig.xml, line 3", "service"]),
    "unknown element": (
        "<safe>\n<service mode='light'>\n<sevrice/>\n</service></safe>",
        ["userconfig.xml, line 3", "sevrice", "expected"],
    ),
    "bad time value": (
        mirror_config(heart='<heart pulse="7x"><heartbeat name="pair"/></heart>'),
        ["userconfig.xml, line 3", '<heart pulse="7x">', "expected"],
    ),
    "lan that is missing": (
        mirror_config(heart='<heart><heartbeat name="nowhere"/></heart>'),
        [
            "userconfig.xml, line 3",
            '<heartbeat name="nowhere">',
            "cluster.xml has no lan",
            "expected one of default, pair",
        ],
    ),
    "attribute that is not supported yet": (
        mirror_config(heart='<heart permanent_arp="on"><heartbeat name="pair"/></heart>'),
        ["userconfig.xml, line 3", "not supported yet", "permanent_arp"],
    ),
}


@pytest.mark.parametrize("mistake", _WRONG_FILES)
def test_wrong_configuration_is_refused_with_its_place(desk: Desk, mistake: str) -> None:
    text, facts = _WRONG_FILES[mistake]
    text = text.replace("10.89.0.1", f"{desk.network}.105")
    desk.install({"conf/userconfig.xml": text})
    desk.refused("config -m bad", CONFIGURATION, facts)
    desk.refused("confcheck -m bad", CONFIGURATION, facts)


def test_virtual_address_outside_of_every_network_is_refused(desk: Desk) -> None:
    desk.install({"conf/userconfig.xml": mirror_config(address="203.0.113.5")})
    facts = ["userconfig.xml, line 7", '<virtual_addr addr="203.0.113.5">', "network", "expected"]
    desk.refused("config -m bad", CONFIGURATION, facts)


def test_virtual_address_of_another_module_is_refused(desk: Desk, mirror: Mirror) -> None:
    desk.install({"conf/userconfig.xml": mirror_config(address=mirror.address)})
    facts = ["line 7", f'<virtual_addr addr="{mirror.address}">', "module m", "expected"]
    desk.refused("config -m bad", CONFIGURATION, facts)


def test_directory_of_another_module_is_refused(desk: Desk) -> None:
    desk.install({"conf/userconfig.xml": mirror_config(address=f"{desk.network}.105", folder=f"{FOLDER}/inside")})
    desk.refused("config -m bad", CONFIGURATION, ["line 5", f'dir="{FOLDER}/inside"', "module m", FOLDER, "expected"])


def test_directory_that_does_not_exist_is_refused(desk: Desk) -> None:
    desk.install({"conf/userconfig.xml": mirror_config(address=f"{desk.network}.105", folder="/data/nowhere")})
    desk.refused("config -m bad", CONFIGURATION, ["line 5", '<replicated dir="/data/nowhere">', "does not exist"])
    assert not desk.node.succeeds(["test", "-e", "/data/nowhere"])


def test_port_in_use_is_refused(desk: Desk) -> None:
    heart = '<heart port="7654"><heartbeat name="pair"/></heart>'
    desk.install({"conf/userconfig.xml": mirror_config(address=f"{desk.network}.105", heart=heart)})
    busy = desk.node.start(
        ["python3", "-c", "import socket, time; s = socket.socket(type=2); s.bind(('', 7654)); time.sleep(60)"]
    )
    try:
        desk.node.wait_for("somebody has the port", "ss -Hlun sport = :7654 | grep -q .")
        facts = ["userconfig.xml, line 3", '<heart port="7654">', "UDP port 7654", "in use", "expected a free port"]
        desk.refused("config -m bad", CONFIGURATION, facts)
    finally:
        busy.stop()


def test_unknown_node_in_a_group_is_refused(desk: Desk) -> None:
    inside = '<cluster>\n<host name="n1" power="1"/>\n<host name="n7" power="1"/>\n</cluster>'
    desk.install({"conf/userconfig.xml": modules.farm_config(f"{desk.network}.106", inside=inside)})
    desk.refused("config -m bad", CONFIGURATION, ['<host name="n7">', "not a node", "n1, n2, n3"])


def test_file_that_is_no_package_is_refused(desk: Desk) -> None:
    desk.node.write("/tmp/no.safe", "these are no files\n")
    desk.refused("module install -m bad /tmp/no.safe", CONFIGURATION, ["bad.safe", "not a zip archive", "expected"])
    assert "bad" not in safekit(desk.node, "module list").out.split()


def test_package_that_would_escape_its_folder_is_refused(desk: Desk) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("conf/userconfig.xml", "<safe><service mode='light'/></safe>")
        archive.writestr("../../../etc/cron.d/evil", "* * * * * root true\n")
    desk.node.write("/tmp/evil.safe", content.getvalue())
    facts = ["../../../etc/cron.d/evil", "no path inside the package", "expected relative paths"]
    desk.refused("module install -m bad /tmp/evil.safe", CONFIGURATION, facts)
    assert not desk.node.succeeds(["test", "-e", "/etc/cron.d/evil"])


def test_module_that_is_not_installed_and_action_that_does_not_fit(desk: Desk, mirror: Mirror) -> None:
    primary, _ = mirror.roles()
    assert "no module nobody is installed" in safekit(primary, "start -m nobody", check=False).err
    done = safekit(primary, "second -m m", check=False)
    assert done.code == REFUSED
    assert "`second` needs the module in STOP, and it is in PRIM Ready" in done.err


def test_cluster_in_which_this_machine_is_no_node_is_refused(desk: Desk) -> None:
    text = modules.cluster_config({"n1": "192.0.2.1", "n2": "192.0.2.2"}).replace("n1", "a1").replace("n2", "a2")
    desk.node.write("/tmp/foreign.xml", text)
    facts = ["cluster.xml", "this machine (n1", "is no node of this cluster", "a1, a2", "expected an address"]
    desk.refused("cluster config /tmp/foreign.xml", CONFIGURATION, facts)


def test_cluster_cannot_change_under_a_running_module(desk: Desk) -> None:
    desk.node.run("sed 's/<lans>/<lans pulse=\"900ms\">/' /var/safekit/cluster/cluster.xml >/tmp/other.xml")
    desk.refused("cluster config /tmp/other.xml", REFUSED, ["module ", " is in ", "stop it before the cluster"])


def test_node_with_another_key_is_refused_and_the_log_says_why(cluster: Lab) -> None:
    stranger, here = cluster["n3"], cluster["n1"]
    for name in safekit(stranger, "module list").out.split():
        safekit(stranger, f"stop -m {name}")
        safekit(stranger, f"waitstop -m {name} -t 30")
    stranger.run("cp /var/safekit/cluster/cluster.key /tmp/right.key")
    safekit(stranger, "cluster genkey")
    try:
        said = f"{stranger.address} is refused: key differs"
        here.wait_for("the log says it", f"safekit cmdlog -s 50 | grep -qF '{said}'", timeout=20)
        here.wait_for("n3 does not answer", "safekit cluster state | grep '^n3' | grep -q 'does not answer'")
    finally:
        stranger.run(
            "cd /tmp && rm -f right.zip && cp /var/safekit/cluster/cluster.xml . && cp right.key cluster.key && "
            "python3 -m zipfile -c right.zip cluster.xml cluster.key"
        )
        safekit(stranger, "cluster config /tmp/right.zip")
    here.wait_for("n3 is back", "! safekit cluster state | grep '^n3' | grep -q 'does not answer'")


def test_command_without_its_daemon_says_how_to_start_it(cluster: Lab) -> None:
    node = cluster["n3"]
    node.run(["systemctl", "stop", "safekitd"])
    try:
        for line in ("state", "cluster state", "module list", "start -m m"):
            done = safekit(node, line, check=False)
            assert done.code == NOT_RUNNING
            assert done.err.strip().endswith("safekitd is not running on this node: `systemctl start safekitd`")
    finally:
        node.run(["systemctl", "start", "safekitd"])
    node.wait_for("it answers", "safekit level")
