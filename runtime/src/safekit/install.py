"""Puts the runtime of this virtual environment in force on a node: folders, the command, systemd units; and takes it
away again.

`python -m safekit.install` prints `changed` or `unchanged` and can be run again; `--check` only says what it would
print; `--remove` leaves nothing of ours. Applications, addresses and mounts are never touched: an upgrade restarts
the daemons, and they pick up what runs.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from safekit.afar import USER
from safekit.membership.unit import service_text
from safekit.paths import Paths
from safekit.replication.units import unit_text

UNITS = Path("/etc/systemd/system")
COMMAND = Path("/usr/local/bin/safekit")
WEB = "safekit-web.service"
"""Put there, and started where somebody asks for it: it opens a port."""

_SAFEKITD = """\
[Unit]
Description=SafeKit: decides which node serves
Wants=safekit-pulse.service network-online.target
After=safekit-pulse.service network-online.target local-fs.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={venv}/bin/safekitd
# A daemon that is killed or upgraded takes nothing with it: scripts and applications live on, the next one adopts them.
KillMode=process
# Each module has a control group of its own below this one.
Delegate=yes
Restart=always
RestartSec=100ms
WatchdogSec=60
TimeoutStartSec=120
LimitNOFILE=65536
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
"""

_SHUTDOWN = """\
[Unit]
Description=SafeKit: stops the modules in order before the machine goes down
After=safekitd.service safekit-pulse.service network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop={venv}/bin/python -m safekit.shutdown
TimeoutStopSec=20min

[Install]
WantedBy=multi-user.target
"""

_WEB = """\
[Unit]
Description=SafeKit: web console, and commands of other nodes
After=safekitd.service network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
User={user}
Group={user}
# As root: the certificate is made once, and its account can only read it.
ExecStartPre=+{venv}/bin/python -m safekit.web.certificate
ExecStart={venv}/bin/python -m safekit.web
Restart=on-failure
RestartSec=2s
TimeoutStopSec=15
LimitNOFILE=4096
TasksMax=64
MemoryMax=384M
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
"""


def units(paths: Paths) -> dict[str, str]:
    """Name -> text of every unit."""
    venv = paths.safe / "venv"
    return {
        "safekit-pulse.service": service_text(str(venv / "bin" / "python"), str(paths.run), str(paths.var)),
        "safekitd.service": _SAFEKITD.format(venv=venv),
        "safekit-shutdown.service": _SHUTDOWN.format(venv=venv),
        WEB: _WEB.format(venv=venv, user=USER),
        "safekit-rfs@.service": unit_text(venv / "bin" / "safekit-rfs", paths.run),
    }


_NO_SHELL = "/usr/sbin/nologin"
ENABLED = ("safekit-pulse.service", "safekitd.service", "safekit-shutdown.service")


def links(paths: Paths) -> dict[Path, Path]:
    """Symbolic link -> what it points to."""
    command = paths.safe / "venv" / "bin" / "safekit"
    binary = Path(__file__).parent / "bin" / "safekit-rfs"
    return {
        paths.safe / "safekit": command,
        COMMAND: paths.safe / "safekit",
        paths.safe / "venv" / "bin" / "safekit-rfs": binary,
    }


def install(paths: Paths, check: bool) -> bool:
    """Bring the node to this version; True if something was (or would be) changed."""
    changed = False
    for folder in (
        paths.safe / "modules",
        paths.safe / "private" / "modules",
        paths.safe / "Application_Modules",
        paths.var,
    ):
        if not folder.is_dir():
            changed = True
            if not check:
                folder.mkdir(parents=True)
    if not _known(USER):
        changed = True
        if not check:
            _run(
                "useradd",
                "--system",
                "--user-group",
                "--no-create-home",
                "--home-dir",
                "/nonexistent",
                "--shell",
                _NO_SHELL,
                USER,
            )
    for link, target in links(paths).items():
        if not link.is_symlink() or link.readlink() != target:
            changed = True
            if not check:
                link.unlink(missing_ok=True)
                link.symlink_to(target)
    stale = [name for name, text in units(paths).items() if not _holds(UNITS / name, text)]
    if stale:
        changed = True
        if not check:
            for name in stale:
                (UNITS / name).write_text(units(paths)[name])
            _systemctl("daemon-reload")
    for name in ENABLED:
        if subprocess.run(["systemctl", "is-enabled", "--quiet", name], check=False).returncode != 0:
            changed = True
            if not check:
                _systemctl("enable", "--quiet", name)
    if changed and not check:
        os.sync()  # a power cut a minute after the installation must not leave half of it
    return changed


def remove(paths: Paths, check: bool) -> bool:
    """Take everything of ours away, once no module is left; True if something was (or would be) removed."""
    if any((paths.safe / "modules").glob("[!.]*")):
        names = ", ".join(sorted(path.name for path in (paths.safe / "modules").glob("[!.]*")))
        sys.exit(f"modules are still installed ({names}): `safekit module uninstall -m AM` each of them first")
    present = [UNITS / name for name in units(paths) if (UNITS / name).exists()]
    folders = [folder for folder in (paths.safe, paths.var, paths.run, paths.web_socket.parent) if folder.exists()]
    if check or not (present or folders or COMMAND.is_symlink() or _known(USER)):
        return bool(present or folders or _known(USER))
    for name in (WEB, *reversed(ENABLED)):
        subprocess.run(["systemctl", "disable", "--now", "--quiet", name], check=False)
    for unit in present:
        unit.unlink()
    _systemctl("daemon-reload")
    if COMMAND.is_symlink():
        COMMAND.unlink()
    for folder in folders:
        shutil.rmtree(folder)
    if _known(USER):
        _run("userdel", USER)
    return True


def _known(user: str) -> bool:
    """Whether the machine has this account."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def _systemctl(*arguments: str) -> None:
    _run("systemctl", *arguments)


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: {done.stderr.strip()}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m safekit.install", description="Install or remove the units of SafeKit."
    )
    parser.add_argument("--check", action="store_true", help="change nothing, say what would be changed")
    parser.add_argument("--remove", action="store_true", help="take everything of SafeKit away from this node")
    chosen = parser.parse_args()
    act = remove if chosen.remove else install
    print("changed" if act(Paths(), chosen.check) else "unchanged")


if __name__ == "__main__":
    main()
