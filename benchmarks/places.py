"""What is compared: one directory each, served in a different way, all on one file system and alive at the same time.

`local` a directory; `alone` our data plane without a peer; `ours` two of them, mirrored over the loopback, and without
encryption, as what it is compared with; `encrypted` the same with encryption, as it is by default; `gluster` GlusterFS
with two copies. `bound` is no directory: it is the program `native/bound.c`, which has two of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gluster import Volume
from safekit.replication import PeerLost
from tests.native.pair import Pair
from tests.native.test_dirty import give
from tests.nodes.engine import ROOT

LOCAL, BOUND, ALONE, OURS, ENCRYPTED, GLUSTER = "local", "bound", "alone", "ours", "encrypted", "gluster"
SYSTEMS = (LOCAL, BOUND, ALONE, OURS, ENCRYPTED, GLUSTER)
TITLES = {
    LOCAL: "local",
    BOUND: "loopback bound",
    ALONE: "FUSE, alone",
    OURS: "ours",
    ENCRYPTED: "ours, encrypted",
    GLUSTER: "GlusterFS 2",
}
BINARY = ROOT / "runtime" / "native" / "build" / "safekit-rfs"
PROGRAMS = ROOT / "build" / "benchmarks"


@dataclass
class Place:
    """`directory` is what applications use; `below` are descriptors of the directories that hold the bytes in the end,
    open before anything was mounted over them; `folder` is a local place for sockets and logs."""

    name: str
    folder: Path
    directory: Path
    below: list[int] = field(default_factory=list)
    peer: Path | None = None
    """For the bound: where the other process writes."""
    pair: Pair | None = None
    lost: str = ""
    """Why the mirror broke; from then on the figures are those of one copy."""

    def forget(self, name: str) -> None:
        """Writes a file back and throws its pages out of every cache of this machine: of the mount and of what is
        below."""
        for at in (None, *self.below):
            try:
                fd = os.open(self.directory / name if at is None else name, os.O_RDONLY, dir_fd=at)
            except FileNotFoundError:
                continue
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
        # and the blocks that say where its blocks are, where this machine lets us
        with contextlib.suppress(OSError):
            Path("/proc/sys/vm/drop_caches").write_text("1\n")


def build() -> None:
    """The data plane and the workloads, from their sources."""
    for folder in (ROOT / "runtime" / "native", ROOT / "benchmarks" / "native"):
        made = subprocess.run(["make", "-C", str(folder)], capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"make -C {folder} failed:\n{made.stderr}")


_GET_FLAGS, _SET_FLAGS, _TOP_OF_HIERARCHIES = 0x80086601, 0x40086602, 0x00020000
"""Of Linux (FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL); `fcntl` does not name them."""


def _spread(directory: int) -> None:
    """From now on ext4 puts each folder that is made in `directory` far from the others.

    It gives away the inode of a removed file only some seconds later, and passes over such ones one by one: files of
    neighbouring folders would pay for what was removed before, by whomever."""
    try:
        flags = int.from_bytes(fcntl.ioctl(directory, _GET_FLAGS, bytes(8)), "little")
        fcntl.ioctl(directory, _SET_FLAGS, (flags | _TOP_OF_HIERARCHIES).to_bytes(8, "little"))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):  # a file system that has no such thing
            raise


def unencrypted(pair: Pair) -> Pair:
    """As what it is compared with: neither the bound nor GlusterFS encrypts here."""
    for side in (pair.a, pair.b):
        give(side, "--encryption", "off")
    return pair


async def _watch(place: Place, pair: Pair) -> None:
    """A mirror that breaks holds its applications until somebody decides: here it goes on alone, and what broke it is kept."""
    place.lost = (await pair.a.told(PeerLost, 86_400)).reason
    await pair.a.plane.alone(generation="9")


@contextlib.asynccontextmanager
async def opened(name: str, folder: Path) -> AsyncIterator[Place]:
    """One place below `folder`, ready; nothing of it is left afterwards. RuntimeError says why it cannot be."""
    folder.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        if name in (ALONE, OURS, ENCRYPTED):
            pair = Pair(folder, BINARY, ack_timeout=60.0)
            if name == OURS:
                unencrypted(pair)
            place = Place(name, folder, pair.a.data, pair=pair)
            sides = (pair.a,) if name == ALONE else (pair.a, pair.b)
            place.below = [os.open(side.data, os.O_RDONLY | os.O_DIRECTORY) for side in sides]
            stack.push_async_callback(pair.close)
            if name == ALONE:
                await pair.a.start()
                await pair.a.plane.primary(generation="1")
            else:
                await pair.serve()
                await pair.mirror()
                watch = asyncio.create_task(_watch(place, pair))
                stack.callback(watch.cancel)
        elif name == GLUSTER:
            why = Volume.why_not()
            if why:
                raise RuntimeError(why)
            volume = Volume(folder)
            stack.callback(volume.stop)
            await asyncio.to_thread(volume.start)
            place = Place(name, folder, volume.mount)
            place.below = [os.open(brick, os.O_RDONLY | os.O_DIRECTORY) for brick in volume.bricks]
        else:
            place = Place(name, folder, folder / "data", peer=folder / "peer" if name == BOUND else None)
            for made in (place.directory, place.peer):
                if made is not None:
                    made.mkdir()
        if name == LOCAL:
            place.below = [os.open(place.directory, os.O_RDONLY | os.O_DIRECTORY)]
        for fd in place.below:
            _spread(fd)
        try:
            yield place
        finally:
            for fd in place.below:
                os.close(fd)
            place.below.clear()
