"""The application of the mirror under test: does to files what its clients ask for, and answers when it is done.

usage: application PORT DIRECTORY RECORD

A request is one line of JSON: {"do": ..., "path": ..., ...}; paths are below DIRECTORY. So is an answer: {"node": ...,
"mirrored": ..., "value": ...} or, instead of a value, {"errno": ..., "note": ...}. `mirrored` is what RECORD, this node's
record of who has the data, says after the operation: that both nodes hold them. Whoever serves alone writes that down before
it lets the first write go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import random
import shutil
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PUNCH_HOLE_KEEP_SIZE = 3


def sync_folder(path: str) -> None:
    """Have the names of a directory on the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_all(file: int, data: bytes) -> None:
    """A short write is a failed one."""
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, "short write")


def append(path: str, text: str, sync: bool) -> None:
    """One write at the end of a file."""
    new = not os.path.exists(path)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        write_all(file, text.encode())
        if sync:
            os.fsync(file)
    finally:
        os.close(file)
    if sync and new:
        sync_folder(os.path.dirname(path))


def make(path: str, text: str) -> None:
    """A new file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(file, text.encode())
    finally:
        os.close(file)


def put(path: str, text: str, sync: bool) -> None:
    """Replace a file whole."""
    temporary = f"{path}.new-{threading.get_ident()}"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(file, text.encode())
        if sync:
            os.fsync(file)
    finally:
        os.close(file)
    os.rename(temporary, path)
    if sync:
        sync_folder(os.path.dirname(path))


def poke(path: str, text: str, sync: bool) -> None:
    """Overwrite the first bytes of a file."""
    new = not os.path.exists(path)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        data = text.encode()
        if os.pwrite(file, data, 0) != len(data):
            raise OSError(errno.ENOSPC, "short write")
        if sync:
            os.fsync(file)
    finally:
        os.close(file)
    if sync and new:
        sync_folder(os.path.dirname(path))


def get(path: str) -> str | None:
    """What is in a file; None when there is none, or nothing."""
    try:
        with open(path) as file:
            return file.read() or None
    except FileNotFoundError:
        return None


def name(root: str, do: str, args: list[str]) -> None:
    """One request about names below `root`."""
    paths = [os.path.join(root, arg) for arg in args]
    match do:
        case "mkdir":
            os.mkdir(paths[0])
        case "create":
            os.close(os.open(paths[0], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        case "symlink":
            os.symlink("nowhere", paths[0])
        case "unlink":
            os.unlink(paths[0])
        case "rmdir":
            os.rmdir(paths[0])
        case "link":
            os.link(paths[0], paths[1], follow_symlinks=False)
        case "rename":
            os.rename(paths[0], paths[1])
        case "sync":
            for folder, _, _ in os.walk(root, topdown=False):
                sync_folder(folder)
        case _:
            raise OSError(errno.ENOSYS, do)


def shape(root: str, seed: int) -> None:
    """Something that changes what a file is rather than what it says: holes, owner, mode, attributes, times, links."""
    draw = random.Random(seed)
    path = os.path.join(root, f"f{draw.randrange(12)}")
    if draw.random() < 0.2:
        other = os.path.join(root, f"f{draw.randrange(12)}")
        kind = draw.randrange(5)
        if kind == 0:
            os.rename(path, other)
        elif kind == 1:
            os.link(path, other)
        elif kind == 2:
            os.unlink(path)
        elif kind == 3:
            os.symlink("../" + "x" * draw.randrange(200), other)
        else:
            os.mkfifo(other)
        return
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        kind = draw.randrange(9)
        if kind <= 2:
            os.pwrite(
                file, draw.randbytes(draw.choice((1, 100, 4096, 70_000))), draw.choice((0, 5000, 1 << 17, 3 << 20))
            )
        elif kind == 3:
            os.ftruncate(file, draw.choice((0, 3, 4096, 200_000, 5_000_000)))
        elif kind == 4:
            start, length = ctypes.c_long(draw.randrange(200_000)), ctypes.c_long(1 + draw.randrange(200_000))
            LIBC.fallocate(file, PUNCH_HOLE_KEEP_SIZE, start, length)
        elif kind == 5:
            os.fchmod(file, draw.choice((0o600, 0o755, 0o4711, 0o2750, 0o1644)))
            os.fchown(file, draw.randrange(3000), draw.randrange(3000))
        elif kind == 6:
            os.setxattr(file, f"user.{draw.randrange(3)}", draw.randbytes(draw.choice((0, 20, 500))))
        elif kind == 7:
            entries = ((1, 6, 0xFFFFFFFF), (2, draw.randrange(8), draw.randrange(3000)), (4, 4, 0xFFFFFFFF),
                       (16, 6, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))  # fmt: skip
            access = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
            os.setxattr(file, "system.posix_acl_access", access)
        else:
            os.utime(file, ns=(draw.randrange(10**18), draw.randrange(10**18)))
    finally:
        os.close(file)


def burst(path: str, files: int, size: int, seed: int) -> None:
    """Many new files at once, so that a resynchronisation has something to do."""
    draw = random.Random(seed)
    for number in range(files):
        folder = os.path.join(path, str(number % 16))
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, str(number)), "wb") as file:
            file.write(draw.randbytes(size if number % 8 == 0 else 3000))


def sweep(root: str, keep: str) -> None:
    """Remove every directory but one."""
    for entry in os.listdir(root):
        if entry != keep:
            shutil.rmtree(os.path.join(root, entry), ignore_errors=True)


class Clients(socketserver.StreamRequestHandler):
    """One connection: requests in order."""

    def handle(self) -> None:
        """Answer until the client goes."""
        assert isinstance(self.server, Application)
        for line in self._requests():
            answer: dict[str, Any] = {"node": self.server.node}
            try:
                answer["value"] = self.server.carry_out(json.loads(line))
            except OSError as error:
                answer |= {"errno": error.errno or errno.EIO, "note": str(error)}
            answer["mirrored"] = self.server.mirrored()
            try:
                self.wfile.write(json.dumps(answer).encode() + b"\n")
            except OSError:  # the client has given up
                return

    def _requests(self) -> Iterator[bytes]:
        """Until the connection ends, however it does."""
        with contextlib.suppress(OSError):
            yield from self.rfile


class Application(socketserver.ThreadingTCPServer):
    """Serves many clients at a time."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, root: str, record: str) -> None:
        super().__init__(("0.0.0.0", port), Clients)
        self.root, self.record, self.node = root, record, socket.gethostname()

    def carry_out(self, request: dict[str, Any]) -> str | None:
        """Do one request. OSError when it fails."""
        path = os.path.join(self.root, request["path"])
        match request["do"]:
            case "append":
                append(path, request["text"], request["sync"])
            case "make":
                make(path, request["text"])
            case "put":
                put(path, request["text"], request["sync"])
            case "poke":
                poke(path, request["text"], request["sync"])
            case "get":
                return get(path)
            case "name":
                name(path, request["name"], request["args"])
            case "shape":
                shape(path, request["seed"])
            case "burst":
                burst(path, request["files"], request["size"], request["seed"])
            case "sweep":
                sweep(self.root, request["keep"])
            case "folder":
                os.makedirs(path, exist_ok=True)
            case unknown:
                raise OSError(errno.ENOSYS, unknown)
        return None

    def mirrored(self) -> bool:
        """Whether this node's record says that both nodes hold the data."""
        try:
            with open(self.record) as file:
                return bool(json.load(file)["record"]["holder"]["value"] == "both")
        except (OSError, ValueError, KeyError, TypeError):
            return False


def main(port: str, root: str, record: str) -> None:
    """Serve, and tell systemd when that begins."""
    with Application(int(port), root, record) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
            notice.connect(os.environ["NOTIFY_SOCKET"])
            notice.send(b"READY=1")
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:4])
