"""GlusterFS, two copies, both on this machine: the processes that a volume of `replica 2` consists of, without its
management daemon.

The stacks are those that `gluster volume create NAME replica 2` of Debian 12's packages writes, in their order and with
their defaults; only the places, the ports and the loopback are ours. Nothing of the machine's own GlusterFS is read or
written, and the end leaves no process and no mount."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

_WAIT_S = 30.0


class Volume:
    """Two bricks and a mount below `folder`. Start it before use; stop it whatever happened."""

    def __init__(self, folder: Path) -> None:
        self.bricks = (folder / "brick1", folder / "brick2")
        self.mount = folder / "mount"
        self._private = folder / "private"
        self._processes: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def why_not() -> str:
        """What is missing here, or nothing."""
        missing = [name for name in ("glusterfsd", "glusterfs") if shutil.which(name) is None]
        return f"{', '.join(missing)} not installed (Debian: glusterfs-server)" if missing else ""

    def start(self) -> None:
        """Both bricks listen and the mount answers, or RuntimeError says what did not."""
        for folder in (*self.bricks, self.mount, self._private):
            folder.mkdir(parents=True)
        identity, ports = uuid.uuid4(), (_free_port(), _free_port())
        for number, brick in enumerate(self.bricks):
            # what the management daemon does to a folder that becomes a brick
            (brick / ".glusterfs" / "indices").mkdir(parents=True)
            os.setxattr(brick, "trusted.glusterfs.volume-id", identity.bytes)
            self._run(["glusterfsd"], f"brick{number}", _brick(brick, ports[number], str(identity), self._private), ())
        for port in ports:
            self._until(partial(_answers, port), f"a brick on port {port}")
        client = _client(self.bricks, ports, str(identity))
        self._run(["glusterfs", "--fuse-mountopts=allow_other"], "client", client, (str(self.mount),))
        self._until(lambda: os.path.ismount(self.mount), f"the mount {self.mount}")
        probe = self.mount / "probe"
        self._until(partial(_written, probe, self.bricks), "both bricks behind the mount")
        probe.unlink()

    def stop(self) -> None:
        """Unmounts and ends what was started, by its process id."""
        if os.path.ismount(self.mount):
            subprocess.run(["umount", "-l", str(self.mount)], check=False)
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _run(self, program: list[str], name: str, graph: str, last: tuple[str, ...]) -> None:
        file = self._private / f"{name}.vol"
        file.write_text(graph)
        words = [*program, "-N", "-f", str(file), "-l", str(self._private / f"{name}.log"), "-L", "WARNING"]
        words += ["-p", str(self._private / f"{name}.pid"), "-S", str(self._private / f"{name}.sock"), *last]
        self._processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True))

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _WAIT_S
        while not holds():
            if any(process.poll() is not None for process in self._processes):
                raise RuntimeError(f"GlusterFS ended by itself: {self._last_words()}")
            if time.monotonic() > end:
                raise RuntimeError(f"GlusterFS: {what} did not come within {_WAIT_S:.0f} s: {self._last_words()}")
            time.sleep(0.05)

    def _last_words(self) -> str:
        lines = [line for log in self._private.glob("*.log") for line in log.read_text(errors="replace").splitlines()]
        return lines[-1] if lines else "no word in its logs"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _written(probe: Path, bricks: tuple[Path, ...]) -> bool:
    try:
        probe.unlink(missing_ok=True)
        probe.write_bytes(b"x")
    except OSError:
        return False
    return all((brick / probe.name).exists() for brick in bricks)


def _stack(layers: list[tuple[str, str, dict[str, str]]], below: str = "") -> str:
    """Layers from the lowest up: name, type, options."""
    text = ""
    for name, kind, options in layers:
        text += f"volume {name}\n    type {kind}\n"
        text += "".join(f"    option {key} {value}\n" for key, value in options.items())
        text += f"    subvolumes {below}\nend-volume\n\n" if below else "end-volume\n\n"
        below = name
    return text


_SOCKET = {"transport-type": "tcp", "transport.address-family": "inet", "transport.socket.ssl-enabled": "off"}
_KEEPALIVE = {
    f"transport.socket.keepalive-{key}": value for key, value in (("time", "20"), ("interval", "2"), ("count", "9"))
}
_STATISTICS = {"threads": "16", "log-level": "INFO", "latency-measurement": "off", "count-fop-hits": "off"}


def _brick(folder: Path, port: int, identity: str, private: Path) -> str:
    own = str(folder)
    return _stack(
        [
            ("v-posix", "storage/posix", {"directory": own, "volume-id": identity, "shared-brick-count": "2"}),
            ("v-trash", "features/trash", {"trash-dir": ".trashcan", "brick-path": own, "trash-internal-op": "off"}),
            (
                "v-changelog",
                "features/changelog",
                {
                    "changelog-brick": own,
                    "changelog-dir": f"{own}/.glusterfs/changelogs",
                    "changelog-notification": "off",
                },
            ),
            ("v-bitrot-stub", "features/bitrot-stub", {"export": own, "bitrot": "disable"}),
            ("v-access-control", "features/access-control", {}),
            ("v-locks", "features/locks", {"enforce-mandatory-lock": "off"}),
            ("v-worm", "features/worm", {"worm": "off", "worm-file-level": "off"}),
            ("v-read-only", "features/read-only", {"read-only": "off"}),
            ("v-leases", "features/leases", {"leases": "off"}),
            ("v-upcall", "features/upcall", {"cache-invalidation": "off"}),
            ("v-io-threads", "performance/io-threads", {}),
            ("v-selinux", "features/selinux", {"selinux": "on"}),
            (
                "v-marker",
                "features/marker",
                {
                    "volume-uuid": identity,
                    "timestamp-file": str(private / f"{folder.name}.tstamp"),
                    "xtime": "off",
                    "quota": "off",
                },
            ),
            ("v-barrier", "features/barrier", {"barrier": "disable"}),
            (
                "v-index",
                "features/index",
                {
                    "index-base": f"{own}/.glusterfs/indices",
                    "xattrop-dirty-watchlist": "trusted.afr.dirty",
                    "xattrop-pending-watchlist": "trusted.afr.v-",
                },
            ),
            ("v-quota", "features/quota", {"volume-uuid": "v", "server-quota": "off", "deem-statfs": "off"}),
            (own, "debug/io-stats", {**_STATISTICS, "unique-id": own, "volume-id": identity}),
            (
                "v-server",
                "protocol/server",
                {
                    **_SOCKET,
                    **_KEEPALIVE,
                    "transport.socket.bind-address": "127.0.0.1",
                    "transport.socket.listen-port": str(port),
                    "transport.listen-backlog": "1024",
                    "auth-path": own,
                    f"auth.addr.{own}.allow": "127.0.0.1",
                },
            ),
        ]
    )


def _client(bricks: tuple[Path, ...], ports: tuple[int, ...], identity: str) -> str:
    text = ""
    for number, (brick, port) in enumerate(zip(bricks, ports, strict=True)):
        remote = {"remote-host": "127.0.0.1", "remote-port": str(port), "remote-subvolume": str(brick)}
        options = {**_SOCKET, **_KEEPALIVE, **remote, "ping-timeout": "42", "strict-locks": "off", "send-gids": "true"}
        text += _stack([(f"v-client-{number}", "protocol/client", options)])
    replicate = {
        "afr-pending-xattr": "v-client-0,v-client-1",
        "volume-id": identity,
        "granular-entry-heal": "on",
        "use-compound-fops": "off",
        "use-anonymous-inode": "yes",
    }
    return text + _stack(
        [
            ("v-replicate-0", "cluster/replicate", replicate),
            ("v-dht", "cluster/distribute", {"lock-migration": "off", "force-migration": "off"}),
            ("v-utime", "features/utime", {"noatime": "on"}),
            ("v-write-behind", "performance/write-behind", {}),
            ("v-open-behind", "performance/open-behind", {}),
            ("v-quick-read", "performance/quick-read", {}),
            ("v-md-cache", "performance/md-cache", {}),
            ("v", "debug/io-stats", _STATISTICS),
        ],
        "v-client-0 v-client-1",
    )
