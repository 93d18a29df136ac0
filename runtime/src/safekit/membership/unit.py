"""The systemd unit of `safekit-pulse`, as text. Installing it is the work of whoever installs the runtime."""

from __future__ import annotations

SERVICE = "safekit-pulse.service"

_TEXT = """\
[Unit]
Description=SafeKit heartbeats and membership
# No network-online: links that are not there yet are tried again, and a heartbeat that waits for a network is late.
After=local-fs.target
Before=safekitd.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={python} -I -m safekit.membership.pulse {run} {var}
Restart=always
RestartSec=50ms
TimeoutStopSec=2
RuntimeDirectory=safekit
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
# Memory that is short must not end the one that proves that this node lives.
OOMScoreAdjust=-900
LimitMEMLOCK=infinity
LimitRTPRIO=20
LimitNICE=-20
CPUWeight=1000
TasksMax=8
# No mount namespace of its own: setting one up is the slowest part of a restart.
NoNewPrivileges=yes
# Netlink: when a lease ran out it takes the addresses off the node.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK

[Install]
WantedBy=multi-user.target
"""


def service_text(
    python: str = "/opt/safekit/venv/bin/python", run: str = "/run/safekit", var: str = "/var/safekit"
) -> str:
    """The unit file for a runtime that is installed in the environment of `python`."""
    return _TEXT.format(python=python, run=run, var=var)
