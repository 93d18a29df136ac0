"""The disk of a node: an ext4 file system in a file, mounted beside the nodes, that can lose what was not synced.

It holds the node's /data, /var and /opt. A container's own layer would keep in the page cache of the machine what a
real node loses with its power, and so hide every missing fsync. Without the right to mount (rootless engines) a node
has a plain volume instead, and a power cut loses nothing but memory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.nodes.engine import Engine, beside_the_nodes, run
from tests.nodes.waiting import wait_for

STATE = Path("/var/lib/safekit-lab")
HELD = ("data", "var", "opt")
SIZE = "8G"


def disks_possible() -> bool:
    """Whether this user may make and mount file systems."""
    return os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None and os.environ.get("SAFEKIT_DISKS") != "never"


@dataclass(frozen=True)
class Disk:
    """The disk of one container."""

    container: str

    @property
    def folder(self) -> Path:
        """What of it lies on this machine."""
        return STATE / self.container

    @property
    def image(self) -> Path:
        """The file that is the disk."""
        return self.folder / "disk"

    @property
    def mounted_at(self) -> Path:
        """Where it is mounted, beside the nodes."""
        return self.folder / "mounted"

    def volumes(self) -> list[str]:
        """The engine's options that put the disk into the node."""
        return [f"--volume={self.mounted_at}/{name}:/{name}" for name in HELD]

    def create(self, template: Path) -> None:
        """Make the disk as a copy of `template`, and mount it."""
        self.mounted_at.mkdir(parents=True, exist_ok=True)
        run(["cp", "--sparse=always", "--reflink=auto", str(template), str(self.image)], timeout=120)
        self.mount()

    def mount(self) -> None:
        """Mount it, unless it is mounted. After a power cut the file system recovers from its journal here."""
        if not run(beside_the_nodes("mountpoint", "-q", str(self.mounted_at)), check=False).ok:
            options = "loop,noatime,noinit_itable"
            run(beside_the_nodes("mount", "-o", options, str(self.image), str(self.mounted_at)))

    def unmount(self) -> None:
        """Unmount it. What still holds it (an engine that clears up) has 20 seconds to let go."""
        if run(beside_the_nodes("mountpoint", "-q", str(self.mounted_at)), check=False).ok:
            command = beside_the_nodes("umount", str(self.mounted_at))
            wait_for(f"nothing holds {self.mounted_at}", lambda: run(command, check=False).ok, timeout=20)

    def remove(self) -> None:
        """Unmount and delete it."""
        self.unmount()
        shutil.rmtree(self.folder, ignore_errors=True)


def template_disk(engine: Engine, image: str) -> Path:
    """The disk that every node of `image` starts with; made once for an image (and a version of this file)."""
    recipe = hashlib.sha256(image.encode() + Path(__file__).read_bytes()).hexdigest()[:12]
    path = STATE / f"template-{recipe}"
    if path.exists():
        return path
    STATE.mkdir(parents=True, exist_ok=True)
    for old in STATE.glob("template-*"):
        old.unlink()
    making, mounted_at = STATE / "making", STATE / "making-mounted"
    making.unlink(missing_ok=True)
    mounted_at.mkdir(exist_ok=True)
    run(["truncate", "-s", SIZE, str(making)])
    run(["mkfs.ext4", "-q", "-F", "-m", "0", "-N", "131072", "-L", "safekit-node", str(making)])
    run(beside_the_nodes("mount", "-o", "loop", str(making), str(mounted_at)))
    try:
        run(beside_the_nodes("mkdir", str(mounted_at / "data")))
        held = " ".join(HELD)
        unpack = f"{engine.name} run --rm --network=none {image} tar -C / --numeric-owner -cf - {held}"
        run(
            beside_the_nodes("bash", "-o", "pipefail", "-c", f"{unpack} | tar -C {mounted_at} --numeric-owner -xpf -"),
            timeout=120,
        )
    finally:
        run(beside_the_nodes("umount", str(mounted_at)))
        mounted_at.rmdir()
    making.rename(path)
    return path
