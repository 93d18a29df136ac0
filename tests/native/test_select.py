"""What is not replicated stays on its own node, and what changes sides arrives or goes whole."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from safekit.replication import DataPlaneError, PeerLost
from tests.native.pair import Excluded, Pair, in_mirror, in_thread, opened
from tests.native.trees import read_tree

EXCLUDED = Excluded(paths=(("cache", "deep/private/file"),), names=((r"\.tmp$",),))


@pytest.fixture
async def selecting(tmp_path: Path, binary: Path) -> AsyncIterator[Pair]:
    """In mirror; both nodes have entries of their own in the excluded part."""
    async with opened(Pair(tmp_path, binary, excluded=EXCLUDED)) as made:
        for side, mine in ((made.a, b"first"), (made.b, b"second")):
            (side.data / "cache").mkdir()
            (side.data / "cache" / "index").write_bytes(mine)
            (side.data / "deep" / "private").mkdir(parents=True)
            (side.data / "deep" / "private" / "file").write_bytes(mine)
            (side.data / "deep" / f"of-{mine.decode()}.tmp").write_bytes(mine)
        (made.a.data / "seen").write_bytes(b"replicated")
        await made.serve()
        await made.mirror()
        yield made


def is_excluded(name: str) -> bool:
    """By the rules of EXCLUDED."""
    parts = name.split("/")
    return parts[0] == "cache" or name == "deep/private/file" or any(part.endswith(".tmp") for part in parts)


def replicated(root: Path) -> dict[str, object]:
    """The replicated part of a tree."""
    return {name: entry for name, entry in read_tree(root).items() if not is_excluded(name)}


def excluded(root: Path) -> dict[str, bytes]:
    """The files of the excluded part, with what they hold."""
    return {
        name: (root / name).read_bytes() for name in read_tree(root) if is_excluded(name) and (root / name).is_file()
    }


async def parted(pair: Pair) -> None:
    """Ends the mirror in order, and compares what is replicated."""
    await pair.a.plane.handover()
    assert replicated(pair.a.data) == replicated(pair.b.data)
    assert not [name for name in read_tree(pair.b.data) if ".safekit" in name]


async def test_a_resync_leaves_what_is_excluded_on_both_nodes(selecting: Pair) -> None:
    await parted(selecting)
    assert excluded(selecting.a.data) == {
        "cache/index": b"first",
        "deep/of-first.tmp": b"first",
        "deep/private/file": b"first",
    }
    assert excluded(selecting.b.data) == {
        "cache/index": b"second",
        "deep/of-second.tmp": b"second",
        "deep/private/file": b"second",
    }


async def test_changes_of_what_is_excluded_stay_local(selecting: Pair) -> None:
    data = selecting.a.data
    before = excluded(selecting.b.data)

    def work() -> None:
        (data / "cache" / "index").write_bytes(b"changed")
        (data / "cache" / "more").mkdir()
        (data / "cache" / "more" / "entry").write_bytes(b"x")
        os.chmod(data / "cache", 0o700)
        os.setxattr(data / "cache" / "index", "user.k", b"v")
        os.truncate(data / "deep" / "private" / "file", 1)
        (data / "of.tmp").write_bytes(b"x")
        os.symlink("x", data / "link.tmp")
        os.link(data / "of.tmp", data / "cache" / "linked")
        os.rename(data / "of.tmp", data / "deep" / "of.tmp")
        os.unlink(data / "deep" / "of-first.tmp")
        (data / "d.tmp").mkdir()
        (data / "d.tmp" / "below").write_bytes(b"x")
        os.rename(data / "d.tmp", data / "e.tmp")
        os.unlink(data / "e.tmp" / "below")
        os.rmdir(data / "e.tmp")
        with open(data / "cache" / "index", "r+b") as file:
            os.fsync(file.fileno())
        (data / "seen").write_bytes(b"again")

    await in_thread(work)
    assert (await selecting.a.plane.status()).peer == "mirror"
    await parted(selecting)
    assert excluded(selecting.b.data) == before
    assert not (selecting.b.data / "link.tmp").is_symlink()


async def test_a_file_renamed_into_what_is_replicated_arrives_whole(selecting: Pair) -> None:
    data = selecting.a.data
    content = os.urandom(3_500_000)

    def work() -> None:
        (data / "config").write_bytes(b"old")
        with open(data / "config.tmp", "wb") as file:
            file.write(content)
            file.truncate(5_000_000)
            os.rename(data / "config.tmp", data / "config")
            file.seek(10)
            file.write(b"after the rename")
        os.chmod(data / "config", 0o640)
        with open(data / "holes.tmp", "wb") as file:
            file.seek(30 << 20)
            file.write(b"end")
        os.setxattr(data / "holes.tmp", "user.k", b"v")
        os.chown(data / "holes.tmp", 7, 8)
        os.utime(data / "holes.tmp", ns=(1, 987654321987654321))
        os.rename(data / "holes.tmp", data / "deep" / "holes")
        os.symlink("config", data / "current")
        os.symlink("seen", data / "current.tmp")
        os.rename(data / "current.tmp", data / "current")
        os.rename(data / "cache" / "index", data / "deep" / "private" / "index")

    await in_thread(work)
    assert (await selecting.a.plane.status()).peer == "mirror"
    await parted(selecting)
    assert (selecting.b.data / "config").read_bytes()[26:3_500_000] == content[26:]
    assert os.readlink(selecting.b.data / "current") == "seen"
    assert (selecting.b.data / "deep" / "holes").stat().st_blocks < 100
    assert (selecting.b.data / "deep" / "private" / "index").read_bytes() == b"first"
    assert (selecting.b.data / "cache" / "index").read_bytes() == b"second"


async def test_a_file_renamed_out_of_what_is_replicated_goes_there(selecting: Pair) -> None:
    data = selecting.a.data

    def work() -> None:
        (data / "goes").write_bytes(b"x")
        with open(data / "goes", "ab") as file:
            os.rename(data / "goes", data / "deep" / "gone.tmp")
            file.write(b"y")
        assert (data / "deep" / "gone.tmp").read_bytes() == b"xy"
        os.rename(data / "deep" / "gone.tmp", data / "back")
        os.symlink("x", data / "link")
        os.rename(data / "link", data / "cache" / "link")

    await in_thread(work)
    assert (await selecting.a.plane.status()).peer == "mirror"
    await parted(selecting)
    assert (selecting.b.data / "back").read_bytes() == b"xy"


async def test_what_cannot_change_sides_in_one_step_is_refused_as_between_file_systems(selecting: Pair) -> None:
    data = selecting.a.data

    def refused(source: str, target: str) -> None:
        with pytest.raises(OSError) as caught:
            os.rename(data / source, data / target)
        assert caught.value.errno == errno.EXDEV, (source, target)

    def work() -> None:
        (data / "folder").mkdir()
        (data / "twice").write_bytes(b"x")
        os.link(data / "twice", data / "two")
        os.mkfifo(data / "pipe.tmp")
        refused("folder", "folder.tmp")
        refused("folder", "cache/folder")
        refused("cache", "visible")
        refused("deep", "moved")  # an excluded path is below it
        refused("two", "two.tmp")
        refused("pipe.tmp", "pipe")
        with pytest.raises(OSError) as caught:
            os.link(data / "seen", data / "cache" / "seen")
        assert caught.value.errno == errno.EXDEV

    await in_thread(work)
    assert (await selecting.a.plane.status()).peer == "mirror"
    await parted(selecting)


async def test_a_directory_goes_with_what_is_excluded_in_it(selecting: Pair) -> None:
    data = selecting.a.data

    def work() -> None:
        (data / "d").mkdir()
        (data / "d" / "x").write_bytes(b"x")
        (data / "empty").mkdir()

    await in_thread(work)
    await selecting.b.plane.idle()
    await selecting.a.told(PeerLost)
    await selecting.a.plane.alone(generation="3")
    (selecting.b.data / "d" / "own.tmp").write_bytes(b"own")
    (selecting.b.data / "empty" / "own.tmp").write_bytes(b"own")
    await selecting.listen(selecting.b)
    await selecting.mirror()

    def after() -> None:
        os.unlink(data / "d" / "x")
        os.rmdir(data / "d")
        (data / "full").mkdir()
        os.rename(data / "full", data / "empty")

    await in_thread(after)
    assert (await selecting.a.plane.status()).peer == "mirror"
    await parted(selecting)


async def test_what_crosses_while_alone_is_right_after_the_next_resync(selecting: Pair) -> None:
    a, b = selecting.a, selecting.b
    await in_thread(lambda: (a.data / "out").write_bytes(b"goes"))
    await b.plane.idle()
    await a.told(PeerLost)
    await a.plane.alone(generation="3")

    def work() -> None:
        (a.data / "in.tmp").write_bytes(b"comes")
        os.rename(a.data / "in.tmp", a.data / "in")
        os.rename(a.data / "out", a.data / "out.tmp")
        (a.data / "cache" / "index").write_bytes(b"not counted")

    await in_thread(work)
    await selecting.listen(b)
    assert (await selecting.connect()).incremental
    await in_mirror(a)
    await parted(selecting)
    assert (b.data / "in").read_bytes() == b"comes"
    assert not (b.data / "out").exists()


async def test_writes_go_on_while_files_cross(selecting: Pair) -> None:
    data = selecting.a.data

    def work() -> None:
        for turn in range(40):
            with open(data / "x.tmp", "wb") as file:
                for piece in range(4):
                    file.write(b"%d-%d" % (turn, piece) * 1000)
                    file.flush()
                    os.rename(data / ("x.tmp" if piece % 2 == 0 else "x"), data / ("x" if piece % 2 == 0 else "x.tmp"))
            os.rename(data / "x.tmp", data / f"x{turn % 3}")

    await in_thread(work)
    assert (await selecting.a.plane.status()).peer == "mirror"
    await parted(selecting)


async def test_only_what_matches_is_replicated_after_an_exclamation_mark(tmp_path: Path, binary: Path) -> None:
    excluded_names = Excluded(names=((r"!\.(data|log)$", r"!^index$", "^no"),))
    async with opened(Pair(tmp_path, binary, excluded=excluded_names)) as pair:
        for name in ("d/x.data", "d/x.other", "d/index", "no.data", "e/f/x.log"):
            (pair.a.data / name).parent.mkdir(parents=True, exist_ok=True)
            (pair.a.data / name).write_text(name)
        (pair.b.data / "own").write_text("own")
        await pair.serve()
        await pair.mirror()

        def work() -> None:
            (pair.a.data / "new.data").write_text("new")
            (pair.a.data / "new.other").write_text("new")
            os.rename(pair.a.data / "new.other", pair.a.data / "d" / "came.log")

        await in_thread(work)
        await pair.a.plane.handover()
        names = {name for name in read_tree(pair.b.data) if (pair.b.data / name).is_file()}
        assert names == {"d/x.data", "d/index", "e/f/x.log", "new.data", "own", "d/came.log"}


async def test_nodes_that_select_otherwise_do_not_talk(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary)) as pair:
        await pair.b.close()
        other = Pair(tmp_path / "other", binary, excluded=EXCLUDED)
        async with opened(other):
            await pair.a.start()
            await pair.a.plane.primary(generation="1")
            await other.b.start()
            await other.b.plane.secondary("127.0.0.1", pair.port, generation="0")
            with pytest.raises(DataPlaneError) as refused:
                await pair.connect()
            assert refused.value.code == "directories" and "cache" in refused.value.message


async def test_a_changed_selection_compares_everything(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary, excluded=EXCLUDED)) as pair:
        (pair.a.data / "cache").mkdir()
        (pair.a.data / "cache" / "x").write_text("x")
        await pair.serve()
        await pair.mirror()
        await pair.a.plane.handover()
        await pair.b.plane.idle()
    async with opened(Pair(tmp_path, binary)) as pair:
        await pair.serve()
        assert not (await pair.connect()).incremental
        await in_mirror(pair.a)
        await pair.a.plane.handover()
        assert (pair.b.data / "cache" / "x").read_text() == "x"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--exclude-path", "/absolute"), "relative"),
        (("--exclude-path", "a/../b"), "relative"),
        (("--exclude-path", "."), "relative"),
        (("--exclude-name", "("), "regular expression"),
        (("--exclude-name", "!"), "regular expression"),
    ],
)
def test_a_wrong_selection_is_refused_in_words(binary: Path, arguments: tuple[str, str], words: str) -> None:
    run = subprocess.run([binary, "--directory", "/tmp", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert arguments[0] in run.stderr and words in run.stderr
