"""What is in a directory, bit for bit: content, size, mode, owner, times, attributes (and so access lists), links, holes.

usage: look DIRECTORY [FOLDER...]

Prints JSON: {"entries": {name: facts}, "content": {name: text}}, with the content of what is below each FOLDER.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from typing import Any


def holes(path: str, size: int) -> list[list[int]]:
    """Where there are data, as [from, to]."""
    found, at = [], 0
    file = os.open(path, os.O_RDONLY)
    try:
        while at < size:
            try:
                start = os.lseek(file, at, os.SEEK_DATA)
            except OSError:  # only a hole is left
                break
            at = os.lseek(file, start, os.SEEK_HOLE)
            found.append([start, at])
    finally:
        os.close(file)
    return found


def facts(path: str, links: dict[int, str], name: str) -> dict[str, Any]:
    """Everything about one name that both nodes must agree on."""
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    found: dict[str, Any] = {"mode": oct(s.st_mode), "owner": [s.st_uid, s.st_gid], "mtime": s.st_mtime_ns}
    if kind != stat.S_IFDIR:
        found |= {"size": s.st_size, "links": s.st_nlink, "same": links.setdefault(s.st_ino, name)}
    if kind == stat.S_IFLNK:
        found["to"] = os.readlink(path)
    else:
        found["xattr"] = {key: os.getxattr(path, key).hex() for key in sorted(os.listxattr(path))}
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            found["digest"] = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
        found["data"] = holes(path, s.st_size)
    return found


def look(root: str, folders: list[str]) -> dict[str, Any]:
    """The whole directory."""
    entries: dict[str, Any] = {}
    content: dict[str, str] = {}
    links: dict[int, str] = {}
    names = ["."]
    for folder, below, files in os.walk(root):
        names += [os.path.relpath(os.path.join(folder, name), root) for name in (*below, *files)]
    for name in sorted(names):
        path = os.path.join(root, name)
        entries[name] = facts(path, links, name)
        if "digest" in entries[name] and any(name.startswith(f"{folder}/") for folder in folders):
            with open(path, encoding="latin-1") as file:
                content[name] = file.read()
    return {"entries": entries, "content": content}


if __name__ == "__main__":
    json.dump(look(sys.argv[1], sys.argv[2:]), sys.stdout)
