"""PostgreSQL as the module `m`'s neighbour under load: the daemon of its primary dies, and no transaction fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import Lab, Node
from tests.nodes.engine import ROOT
from tests.system.modules import mirror_vip
from tests.system.product import kill_and_await, mark, messages, package, safekit, shown, wait_state

NAME = "db"
CATALOGUE = ROOT / "collections/ansible_collections/evidian/safekit/roles/module/catalogue"
DATA = "/var/lib/postgresql/15/main"
SECONDS = 20
KILLS = 5

_CONFIG = """\
<safe><service mode="mirror" boot="auto">
  <heart pulse="200ms" timeout="3s"><heartbeat name="pair"/></heart>
  <rfs async="second"><replicated dir="{data}" mode="read_only"/></rfs>
  {vip}
  <user nicestoptimeout="90s" forcestoptimeout="30s">
    <var name="PG_VERSION" value="15"/><var name="PG_CLUSTER" value="main"/><var name="PG_PORT" value="5432"/>
    <var name="PG_START_TIMEOUT" value="60"/><var name="PG_STOP_TIMEOUT" value="30"/>
  </user>
</service></safe>
"""


def _files(folder: Path) -> dict[str, str]:
    return {f"bin/{path.name}": path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture
def database(cluster: Lab) -> Iterator[tuple[Node, Node, str]]:
    """The catalogue's PostgreSQL on n1 (primary) and n2, and its virtual address."""
    address = f"{cluster.client.address.rsplit('.', 1)[0]}.103"
    first, second = pair = cluster["n1"], cluster["n2"]
    config = _CONFIG.format(data=DATA, vip=mirror_vip(address))
    files = {**_files(CATALOGUE / "common" / "bin"), **_files(CATALOGUE / "postgresql" / "bin")}
    packed = package({"conf/userconfig.xml": config, **files})
    network = f"{address.rsplit('.', 1)[0]}.0/24"
    for node in pair:
        node.run(
            "cd /etc/postgresql/15/main && echo manual >start.conf && mkdir -p conf.d && "
            "echo \"listen_addresses = '*'\" >conf.d/test.conf && "
            f"{{ grep -q '{network}' pg_hba.conf || echo 'host all all {network} trust' >>pg_hba.conf; }}"
        )
        node.write("/tmp/db.safe", packed)
        safekit(node, f"module install -m {NAME} /tmp/db.safe -M 5 -r")
        safekit(node, f"config -m {NAME}")
    safekit(first, f"prim -m {NAME}")
    wait_state(first, NAME, "ALONE", timeout=60)
    safekit(second, f"second -m {NAME}")
    wait_state(first, NAME, "PRIM", timeout=90)
    wait_state(second, NAME, "SECOND", timeout=30)
    yield first, second, address
    for node in (second, first):
        safekit(node, f"stop -m {NAME}", check=False)
    for node in pair:
        wait_state(node, NAME, "STOP", substate="NotReady", timeout=60)
        safekit(node, f"module uninstall -m {NAME}")
        network_line = network.replace("/", "\\/")
        node.run(f"cd /etc/postgresql/15/main && rm -f conf.d/test.conf && sed -i '/{network_line}/d' pg_hba.conf")


def test_kills_of_safekitd_under_pgbench_fail_no_transaction(database: tuple[Node, Node, str], cluster: Lab) -> None:
    primary, secondary, address = database
    client = cluster.client
    who = ["-h", address, "-U", "postgres"]
    client.run(["pgbench", "--initialize", "--quiet", "--scale=1", *who, "postgres"], timeout=60)
    marks = {node: mark(node, NAME) for node in (primary, secondary)}
    pgbench = [
        "pgbench",
        "--no-vacuum",
        "--client=4",
        "--jobs=1",
        f"--time={SECONDS}",
        "--progress=1",
        *who,
        "postgres",
    ]
    kills = count = 0
    while kills < KILLS:
        load = client.start(pgbench)
        while load.alive and kills < KILLS:
            kill_and_await(primary, "safekitd")
            kills += 1
        done = load.wait(SECONDS + 40)
        assert "number of failed transactions: 0 (0.000%)" in done.out
        assert "error" not in done.err.lower()
        count += int(done.out.split("number of transactions actually processed:")[1].split()[0])
    asked = ["psql", *who, "-At", "-c", "SELECT count(*) FROM pgbench_history", "postgres"]
    assert int(client.out(asked)) == count > 0
    for node, state in ((primary, "PRIM Ready"), (secondary, "SECOND Ready")):
        assert shown(node, NAME) == state
        assert not [said for said in messages(node, NAME, marks[node]) if said.startswith("Local state")]
