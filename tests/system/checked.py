"""A light module with checkers: one application on one node, watched in every way."""

from __future__ import annotations

from tests.nodes import Node, wait_for
from tests.system.modules import NOTES, script
from tests.system.product import messages, package, safekit, wait_state

NAME = "watched"
PORT = 7100
UNIT = f"listener-{NAME}"

_START = (
    f"systemctl reset-failed {UNIT} 2>/dev/null\n"
    f"[ -e {NOTES}/broken ] || systemctl is-active --quiet {UNIT} || systemd-run --quiet --collect --unit={UNIT} "
    f'--property=Type=notify --property=NotifyAccess=all python3 "$SAFEUSERBIN/listener" {PORT}'
)
_LISTENER = '''\
"""Accepts connections, and closes them."""

import os
import socket
import sys

with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as server:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
        notice.connect(os.environ["NOTIFY_SOCKET"])
        notice.send(b"READY=1")
    while True:
        server.accept()[0].close()
'''
_LOOK = f"""\
#!/bin/sh
# A checker as modules bring them along: down while a file is there.
while :; do
  if [ -e {NOTES}/ill ]; then value=down; else value=up; fi
  [ "$value" = "$last" ] || safekit set -r "$2" -v "$value" -i "$3" -m "$1"
  last=$value
  sleep 0.3
done
"""


class Watched:
    """Module `watched` on one node, with the given children of its service."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def install(self, parts: str, *, maxloop: int = 3) -> None:
        """Install, configure and start it."""
        config = (
            f'<safe><service mode="light" boot="off" maxloop="{maxloop}" loop_interval="1h">\n<user/>\n{parts}\n'
            "</service></safe>\n"
        )
        files = {
            "conf/userconfig.xml": config,
            "bin/listener": _LISTENER,
            "bin/look": _LOOK,
            "bin/mend": script("mend", f"systemctl stop {UNIT}; {_START}"),
            "bin/update": script("update", ""),
            "bin/start_both": script("start_both", _START),
            "bin/stop_both": script("stop_both", f"systemctl stop {UNIT} 2>/dev/null"),
        }
        self.node.run(f"mkdir -p {NOTES}; rm -f {NOTES}/*")
        self.node.write("/tmp/watched.safe", package(files))
        safekit(self.node, f"module install -m {NAME} /tmp/watched.safe -M 7 -r")
        safekit(self.node, f"config -m {NAME}")
        safekit(self.node, f"start -m {NAME}")

    def edit(self, parts: str) -> None:
        """Change the edited configuration of the module, nothing else."""
        config = (
            '<safe><service mode="light" boot="off" maxloop="3" loop_interval="1h">\n<user/>\n'
            f"{parts}\n</service></safe>\n"
        )
        self.node.write(f"/opt/safekit/modules/{NAME}/conf/userconfig.xml", config.encode())

    def uninstall(self) -> None:
        """Stop and remove it."""
        safekit(self.node, f"stop -m {NAME}", check=False)
        wait_state(self.node, NAME, "STOP", substate="NotReady")
        safekit(self.node, f"module uninstall -m {NAME}")

    def wait(self, states: str, substate: str = "Ready") -> None:
        """Wait for a state."""
        wait_state(self.node, NAME, states, substate=substate)

    def calls(self) -> list[str]:
        """Which scripts were called, oldest first."""
        done = self.node.run(f"cat {NOTES}/{NAME}.calls", check=False).out
        return [line.split()[1] for line in done.splitlines() if line.split()[2:3] != ["force"]]

    def wait_calls(self, *names: str) -> None:
        """Wait until these scripts, and no others, were called in this order."""
        wait_for(f"the calls {names}", lambda: self.calls() == list(names), timeout=30)

    def log(self) -> list[str]:
        """What its log says."""
        return messages(self.node, NAME)
