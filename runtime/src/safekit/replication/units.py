"""The text of the systemd unit of the data plane, and of the file that carries its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Final

UNIT_NAME: Final = "safekit-rfs@{module}.service"

_TEMPLATE: Final = """\
[Unit]
Description=SafeKit replication of module %i
Documentation=man:safekit-rfs(8)
# The applications of the module use the mount: the data plane is among the last to be stopped.
After=local-fs.target network.target
Before=safekitd.service
DefaultDependencies=yes

[Service]
Type=simple
# Whichever of the two dies is replaced by the other: the unit lives as long as one of them.
ExitType=cgroup
ExecStart={binary} --config {run}/modules/%i/rfs.conf
# The program that is installed now goes on where this one is: applications wait some milliseconds.
ExecReload=/bin/kill -HUP $MAINPID
# A new process would start idle without the mount: safekitd decides what to do, not systemd.
Restart=no
# Worker and supervisor get SIGTERM; the worker answers what it can and unmounts, the supervisor waits for it.
KillMode=control-group
TimeoutStopSec=60
LimitNOFILE=1048576
OOMScoreAdjust=-900
# No private mount space and no sandbox of file systems: the mount must be visible to every process of the node.
PrivateMounts=no
UMask=0077
"""


def unit_text(binary: Path, run: Path) -> str:
    """The template unit `safekit-rfs@.service`."""
    return _TEMPLATE.format(binary=binary, run=run)
