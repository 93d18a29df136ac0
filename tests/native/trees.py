"""What a replicated tree is, for comparison: everything that an application could see of it, except access and change times."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One name. `same_as`: the first name (in order) of the same inode."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    links: int
    same_as: str
    rdev: int
    target: str
    xattrs: tuple[tuple[str, bytes], ...]
    digest: str


def read_tree(root: Path) -> dict[str, Entry]:
    """Every name below `root`, and the root itself as `.`."""
    tree: dict[str, Entry] = {}
    first: dict[tuple[int, int], str] = {}
    names = ["."]
    for folder, folders, files in os.walk(root):
        names += [os.path.relpath(os.path.join(folder, name), root) for name in (*folders, *files)]
    for name in sorted(names):
        path = os.path.join(root, name)
        st = os.lstat(path)
        kind = stat.S_IFMT(st.st_mode)
        tree[name] = Entry(
            mode=st.st_mode,
            uid=st.st_uid,
            gid=st.st_gid,
            size=0 if kind == stat.S_IFDIR else st.st_size,
            mtime_ns=st.st_mtime_ns,
            links=0 if kind == stat.S_IFDIR else st.st_nlink,
            same_as=first.setdefault((st.st_dev, st.st_ino), name),
            rdev=st.st_rdev,
            target=os.readlink(path) if kind == stat.S_IFLNK else "",
            xattrs=()
            if kind == stat.S_IFLNK
            else tuple((key, os.getxattr(path, key)) for key in sorted(os.listxattr(path))),
            digest=_digest(path) if kind == stat.S_IFREG else "",
        )
    return tree


def differences(one: Path, other: Path) -> list[str]:
    """Sentences, empty when both trees are equal bit for bit."""
    left, right = read_tree(one), read_tree(other)
    found = [f"{name} is only in {one}" for name in left.keys() - right.keys()]
    found += [f"{name} is only in {other}" for name in right.keys() - left.keys()]
    found += [
        f"{name}: {left[name]} != {right[name]}" for name in left.keys() & right.keys() if left[name] != right[name]
    ]
    return sorted(found)


def assert_equal(one: Path, other: Path) -> None:
    """Fails with every difference, whole."""
    found = differences(one, other)
    assert not found, f"{len(found)} differences\n" + "\n".join(found)


def _digest(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
