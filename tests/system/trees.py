"""A directory with everything that a file system knows, and what is in it, bit for bit."""

from __future__ import annotations

from tests.nodes import Node

_FILL = """\
import os, random, sys
root, seed = sys.argv[1], sys.argv[2]
draw = random.Random(seed)
top = f"{root}/{seed}"
os.makedirs(f"{top}/deep/er/still")
for number, size in enumerate((0, 1, 511, 4096, 70_001, 1_500_003)):
    path = f"{top}/deep/file {number}"
    with open(path, "wb") as file:
        file.write(draw.randbytes(size))
    os.chmod(path, draw.choice((0o600, 0o644, 0o755, 0o4711)))
    os.chown(path, draw.randrange(3000), draw.randrange(3000))
    os.utime(path, ns=(1, draw.randrange(10**18)))
with open(f"{top}/deep/er/sparse", "wb") as file:
    file.truncate(5_000_000)
    file.seek(2_345_678)
    file.write(b"an island")
os.symlink("../deep/file 1", f"{top}/deep/link")
os.link(f"{top}/deep/file 2", f"{top}/deep/er/other name")
os.mkfifo(f"{top}/deep/pipe")
open(f"{top}/na\\u00efve \\u2603\\nname", "w").close()
os.setxattr(f"{top}/deep/file 3", "user.colour", b"blue")
os.rename(f"{top}/deep/file 4", f"{top}/deep/er/still/moved")
os.chmod(f"{top}/deep/er/still", 0o2750)
os.sync()
"""

_LIST = """\
import hashlib, os, stat, sys
root = sys.argv[1]
links = {}
for folder, below, files in os.walk(root):
    below.sort()
    for name in sorted([*below, *files]):
        path = os.path.join(folder, name)
        s = os.lstat(path)
        kind = stat.S_IFMT(s.st_mode)
        facts = [repr(os.path.relpath(path, root)), oct(s.st_mode), s.st_uid, s.st_gid]
        if kind == stat.S_IFREG:
            with open(path, "rb") as file:
                facts += [s.st_size, s.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
            facts.append(links.setdefault(s.st_ino, len(links)) if s.st_nlink > 1 else "")
            facts += [(key, os.getxattr(path, key)) for key in sorted(os.listxattr(path))]
        elif kind == stat.S_IFLNK:
            facts.append(os.readlink(path))
        print(*facts)
"""


def fill(node: Node, folder: str, seed: str) -> None:
    """Put files of every kind below `folder`/`seed`."""
    node.run(["python3", "-c", _FILL, folder, seed])


def content(node: Node, folder: str) -> list[str]:
    """What is below `folder`: names, kinds, modes, owners, times, bytes, links, attributes."""
    return node.out(["python3", "-c", _LIST, folder]).splitlines()
