"""Installs the product on nodes from build/wheelhouse, the quick way: made on one node, copied to the others.

The collection's role `runtime` is the product's own way, proven by molecule; this one serves tests that want a daemon in
a few seconds. Both leave the same: /opt/safekit/venv, the units, `safekitd` and `safekit-pulse` running.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.nodes.engine import ROOT
from tests.nodes.node import Node

WHEELHOUSE = ROOT / "build" / "wheelhouse"
VENV = "/opt/safekit/venv"
WEB = "safekit-web.service"
"""There, and started by the tests that are about it."""
UNITS = ("safekitd.service", "safekit-pulse.service", "safekit-shutdown.service", "safekit-rfs@.service", WEB)
STARTED = ("safekit-pulse.service", "safekitd.service")
SHUTDOWN = "safekit-shutdown.service"
"""Its stop is what stops the modules before the machine goes down: it is started, and never restarted."""


def install_runtime(nodes: Sequence[Node]) -> None:
    """Have the runtime of this source tree on the nodes, started. Nothing is done where it already is."""
    wanted = (WHEELHOUSE / "requirements.txt").read_text().splitlines()[-1]
    stale = [node for node in nodes if not node.succeeds(["grep", "-qxF", wanted, f"{VENV}/installed"])]
    if stale:
        first, *others = stale
        _install(first, wanted)
        packed = subprocess.run(
            first.engine.command("exec", first.container, "tar", "-C", "/opt/safekit", "-cf", "-", "venv"),
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        _each(others, lambda node: _unpack(node, packed))
        _each(stale, _put_units)
    _each(nodes, _start)


def remove_runtime(nodes: Sequence[Node]) -> None:
    """Stop the product and remove every file of it, so that the next test meets a bare node."""
    _each(nodes, _remove)


def _install(node: Node, wanted: str) -> None:
    node.run(f"rm -rf {VENV} /tmp/wheelhouse && mkdir -p /opt/safekit && python3 -m venv --without-pip {VENV}")
    node.put(WHEELHOUSE, "/tmp/wheelhouse")
    # The environment gets no pip of its own (that takes longer than all the rest): Debian's wheel of it serves.
    pip = f"PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl) {VENV}/bin/python -m pip --disable-pip-version-check"
    wheels = "--no-index --find-links /tmp/wheelhouse --requirement /tmp/wheelhouse/requirements.txt"
    node.run(f"{pip} install --quiet --no-compile {wheels}", timeout=120)
    node.run(f"{VENV}/bin/python -m compileall -q -j 2 {VENV}/lib; rm -rf /tmp/wheelhouse", timeout=120)
    node.write(f"{VENV}/installed", f"{wanted}\n")


def _unpack(node: Node, packed: bytes) -> None:
    node.run(f"rm -rf {VENV} && mkdir -p /opt/safekit")
    node.run(["tar", "-C", "/opt/safekit", "-xf", "-"], input=packed)


def _put_units(node: Node) -> None:
    node.run(["/opt/safekit/venv/bin/python", "-m", "safekit.install"])
    node.run(["systemctl", "restart", *STARTED])


def _start(node: Node) -> None:
    node.run(["systemctl", "start", *STARTED, SHUTDOWN])
    node.wait_for("safekitd answers", "test -S /run/safekit/safekitd.sock")


def _remove(node: Node) -> None:
    node.run(
        ["systemctl", "disable", "--quiet", "--now", "safekitd.service", "safekit-pulse.service", "safekit-rfs@*", WEB],
        check=False,
    )
    units = " ".join(f"/etc/systemd/system/{name}" for name in UNITS)
    places = "/opt/safekit /var/safekit /run/safekit /run/safekit-web /usr/local/bin/safekit"
    node.run(f"rm -rf {units} {places}; userdel safekit-web; systemctl daemon-reload")


def _each(nodes: Sequence[Node], action: object) -> None:
    if nodes:
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(action, nodes))  # type: ignore[arg-type]
