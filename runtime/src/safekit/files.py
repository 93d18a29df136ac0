"""Small JSON files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from pathlib import Path
from typing import Any

RESERVED = 4096
"""Bytes that are held for the next version of a file."""


class UnreadableFile(Exception):
    """The file is there and is not what we wrote."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


def write_json(path: Path, value: object, *, durable: bool, reserve: bool = False, mode: int = 0o600) -> None:
    """Replace `path` by `value` as JSON. `durable`: on disk, name included, before this returns. Raises OSError.

    `reserve`: the place of the next version is taken in advance (`.spare`), for a file that must be written on a disk that
    the application has filled.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    spare = path.with_name(path.name + ".spare")
    if reserve:
        with contextlib.suppress(OSError):
            spare.replace(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT, mode)
    try:
        content = json.dumps(value, separators=(",", ":")).encode()
        if os.pwrite(descriptor, content, 0) != len(content):  # a disk that fills up may take a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
        os.ftruncate(descriptor, len(content))
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    if durable:
        sync_folder(path.parent)
    if reserve:
        with contextlib.suppress(OSError):
            _reserve(spare, mode)


def _reserve(spare: Path, mode: int) -> None:
    """Take the place of a file on the disk, so that it can be written when nothing else can."""
    descriptor = os.open(spare, os.O_WRONLY | os.O_CREAT, mode)
    try:
        os.posix_fallocate(descriptor, 0, RESERVED)
    finally:
        os.close(descriptor)


def boot_identity(path: Path) -> str:
    """What tells this boot from every other one; made at the first call after it. `path` is gone at power-off.

    The kernel's own is not enough: containers share it, and one of them can lose its power alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as fresh:
            fresh.write(secrets.token_hex(16))
    except FileExistsError:
        pass
    return path.read_text()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None if there is no file. Raises UnreadableFile."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UnreadableFile(path, str(error)) from error
