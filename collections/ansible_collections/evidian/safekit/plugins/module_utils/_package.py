# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What an application module is made of: the files of a .safe package, packed always into the same bytes, and read back
# to compare.
#
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.evidian.safekit.plugins.module_utils._plan import PlanError

USERCONFIG_PATH = "conf/userconfig.xml"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class PackedFile:
    """A file of a package. The files of bin/ are executable."""

    content: bytes
    executable: bool

    @property
    def text(self) -> str:
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError:
            return f"(binary, {len(self.content)} bytes)"


def rendered(userconfig: str, scripts: Mapping[str, str], files: Mapping[str, str]) -> dict[str, PackedFile]:
    """The tree of a module from its rendered parts: userconfig.xml, scripts of bin/ by name, other files by path."""
    tree = {USERCONFIG_PATH: PackedFile(userconfig.encode("utf-8"), False)}
    for name, text in scripts.items():
        tree[_checked("bin/" + name)] = PackedFile(text.encode("utf-8"), True)
    for path, text in files.items():
        tree[_checked(path)] = PackedFile(text.encode("utf-8"), path.startswith("bin/"))
    return tree


def from_directory(directory: str) -> dict[str, PackedFile]:
    """The tree of a module as it lies in a directory; symbolic links are refused."""
    tree: dict[str, PackedFile] = {}
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(folders + names):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                raise PlanError(f"{path} is a symbolic link: a package holds only files")
        for name in sorted(names):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, directory)
            with open(path, "rb") as stream:
                tree[_checked(relative)] = PackedFile(stream.read(), relative.startswith("bin" + os.sep))
    if USERCONFIG_PATH not in tree:
        raise PlanError(f"{directory} holds no {USERCONFIG_PATH}")
    return tree


def unpacked(package: bytes, origin: str) -> dict[str, PackedFile]:
    """The files of a package. ``origin`` names it in an error."""
    try:
        with zipfile.ZipFile(io.BytesIO(package)) as archive:
            return {
                _checked(entry.filename): PackedFile(archive.read(entry), entry.filename.startswith("bin/"))
                for entry in archive.infolist()
                if not entry.is_dir()
            }
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise PlanError(f"{origin} is not a package: {error}") from None


def packed(tree: Mapping[str, PackedFile]) -> bytes:
    """The package of a tree; equal trees give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(tree):
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = (0o100755 if tree[path].executable else 0o100644) << 16
            archive.writestr(entry, tree[path].content)
    return buffer.getvalue()


def _checked(path: str) -> str:
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise PlanError(f"'{path}' is no path inside a package: expected a relative path such as bin/start_prim")
    return path
