"""What is made in a directory takes group, set-group-id bit and default ACL from it, as they were at that moment: the same on
both nodes while other applications change them, whatever happens to the mirror meanwhile."""

from __future__ import annotations

import asyncio
import ctypes
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from safekit.replication import PeerLost
from tests.native.pair import Pair, Side, beside, in_thread
from tests.native.test_posix import give_name
from tests.native.test_takeover import kill_worker
from tests.native.trees import assert_equal

LIBC = ctypes.CDLL(None, use_errno=True)
FOLDERS = 3
CALLER, GROUPS = 5, (1, 2)
"""The group of whoever makes something, and those of the directories. None is the group of the data plane."""
TURNS = 30
NAMES = 120  # a multiple of the kinds and of the folders: a name is always of one kind, in one folder
ACL = (
    b"\x02\x00\x00\x00"
    + b"".join(  # user::rwx, user:65534:rwx, group::r-x, mask::rwx, other::--- as the kernel keeps it
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, bits, who in (
            (1, 7, ~0 % 2**32),
            (2, 7, 65534),
            (4, 5, ~0 % 2**32),
            (16, 7, ~0 % 2**32),
            (32, 0, ~0 % 2**32),
        )
    )
)
DEFAULT = "system.posix_acl_default"


def change(folder: Path, turn: int) -> None:
    """What is inherited, one thing after the other."""
    match turn % 6:
        case 0:
            os.chown(folder, -1, GROUPS[turn % 12 // 6])
        case 1:
            folder.chmod(0o2775)
        case 2:
            os.setxattr(folder, DEFAULT, ACL)
        case 3:
            os.chown(folder, -1, GROUPS[1 - turn % 12 // 6])
        case 4:
            folder.chmod(0o775)
        case 5:
            with suppress(OSError):  # another one did already
                os.removexattr(folder, DEFAULT)


def make(folder: Path, turn: int) -> None:
    """One of each kind, one after the other; what has the same name goes first, so there are never many."""
    path = folder / f"{threading.get_native_id()}-{turn % NAMES}"
    if path.is_dir() and not path.is_symlink():
        (path / "below").unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    match turn % 5:
        case 0:
            path.write_text("a file")
        case 1:
            path.mkdir()
            (path / "below").write_text("a grandchild")
        case 2:
            os.mkfifo(path)
        case 3:
            path.symlink_to("elsewhere")
        case 4:
            file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o664)
            try:
                give_name(file, path)
            finally:
                os.close(file)


class Applications:
    """Two that change what is inherited and three that make something, below `root`, until they are stopped."""

    def __init__(self, root: Path) -> None:
        self.folders = [root / f"d{i}" for i in range(FOLDERS)]
        self.turns = [0] * 5
        self.failed: list[BaseException] = []
        self._stop = threading.Event()
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
            os.chown(folder, 0, GROUPS[0])
        self._threads = [
            threading.Thread(target=self._run, args=(i, change if i < 2 else make), daemon=True)
            for i in range(len(self.turns))
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, step: Callable[[Path, int], None]) -> None:
        LIBC.setfsgid(CALLER)  # of this thread alone
        try:
            while not self._stop.is_set():
                turn = self.turns[number]
                step(self.folders[(turn + number) % FOLDERS], turn)
                self.turns[number] += 1
        except BaseException as failure:
            self.failed.append(failure)

    async def each_did(self, more: int = TURNS) -> None:
        """Until every one of them took so many turns from now on."""
        goals = [turns + more for turns in self.turns]
        while any(turns < goal for turns, goal in zip(self.turns, goals, strict=True)):
            assert not self.failed, self.failed
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Waits for the requests on their way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request was never answered"
        assert not self.failed, self.failed


def inherited(folders: list[Path]) -> set[tuple[int, bool]]:
    """The groups of what was made, and whether there is an ACL of the directory in it."""
    found = set()
    for folder in folders:
        for path in folder.iterdir():
            st = path.lstat()
            names = [] if stat.S_ISLNK(st.st_mode) else os.listxattr(path)
            if path.name != "large":
                found.add((st.st_gid, "system.posix_acl_access" in names))
    return found


async def end(work: Applications, pair: Pair) -> None:
    """Stops the applications and compares the copies."""
    await in_thread(work.stop)
    assert (await pair.a.plane.status()).peer == "mirror", pair.a.events
    found = inherited([pair.a.data / folder.name for folder in work.folders])
    assert {group for group, _ in found} <= {CALLER, *GROUPS}
    assert len(found) > 1, found
    await pair.a.plane.handover()
    assert_equal(pair.a.data, pair.b.data)


async def goes_alone(primary: Side) -> None:
    """What a primary does whose secondary is lost."""
    assert (await primary.told(PeerLost)).held
    await primary.plane.alone(generation="3")


async def test_what_is_made_in_a_directory_that_others_change_inherits_the_same_on_both_sides(mirrored: Pair) -> None:
    work = Applications(mirrored.a.data)
    await work.each_did(4 * TURNS)
    await end(work, mirrored)


async def test_so_it_does_while_the_secondary_goes_and_is_resynchronised(mirrored: Pair) -> None:
    work = Applications(mirrored.a.data)
    await work.each_did()
    await mirrored.b.plane.idle()
    await goes_alone(mirrored.a)
    await in_thread(lambda: [(folder / "large").write_bytes(os.urandom(8 << 20)) for folder in work.folders])
    await work.each_did()
    await mirrored.listen(mirrored.b)
    await mirrored.mirror()
    await work.each_did()
    await end(work, mirrored)


@pytest.mark.skipif(
    "thread" in os.environ.get("SAFEKIT_RFS_SANITIZE", ""),
    reason="a program under the thread sanitizer has no supervisor: its runtime cannot be cloned",
)
async def test_so_it_does_while_the_data_plane_is_killed(mirrored: Pair) -> None:
    work = Applications(mirrored.a.data)
    for _ in range(2):
        await work.each_did(TURNS // 3)
        await kill_worker(mirrored.a)
        await goes_alone(mirrored.a)
        await mirrored.b.until(lambda status: status.peer == "listening")
        await mirrored.mirror()
    await work.each_did(TURNS // 3)
    await end(work, mirrored)


async def test_a_file_without_a_name_has_the_group_of_its_directory_or_of_its_maker(pair: Pair) -> None:
    await pair.a.plane.primary(generation="1")
    folder = pair.a.data / "folder"
    made, ends = threading.Event(), threading.Event()

    def groups() -> set[int]:
        LIBC.setfsgid(CALLER)
        found = set()
        try:
            for _ in range(1000):
                file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o664)
                found.add(os.fstat(file).st_gid)
                os.close(file)
        finally:
            LIBC.setfsgid(0)
        return found

    def toggle() -> None:
        while not ends.is_set():
            folder.chmod(0o2775)
            folder.chmod(0o775)
            made.set()

    folder.mkdir()
    os.chown(folder, -1, GROUPS[0])
    toggling = beside(toggle)
    try:
        await in_thread(made.wait)
        found = await asyncio.gather(*(beside(groups) for _ in range(2)))
    finally:
        ends.set()
        await toggling
    assert set().union(*found) <= {CALLER, GROUPS[0]}
