"""`.safe` packages (spec §12.1): a zip whose root is the tree of a module, read as if an enemy had written it.

A package in memory is a `Package`; nothing reaches the disk before the whole of it has been read and found sound.
Owners, dates and modes are not taken over: a file is executable or it is not.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from safekit.config.errors import ConfigError, shortened
from safekit.config.signature import files_signature

USERCONFIG = "conf/userconfig.xml"
LARGEST_PACKAGE = 64 * 1024 * 1024
MOST_FILES = 4096
LONGEST_PATH = 512

_SIGNED = ("conf/", "bin/")
_NOT_SIGNED = ("conf/safeconf.xml", "conf/userconfig.xml.template")
_SECRET = "conf/modulekey."
_NO_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """One regular file; `path` is relative to the module's tree, with slashes."""

    path: str
    content: bytes
    executable: bool


@dataclass(frozen=True, slots=True)
class Package:
    """The tree of a module, in the order of its paths."""

    files: tuple[PackagedFile, ...]

    def file(self, path: str) -> PackagedFile | None:
        """The file of this path."""
        return next((file for file in self.files if file.path == path), None)

    @property
    def userconfig(self) -> bytes:
        """The content of `conf/userconfig.xml`."""
        return next(file.content for file in self.files if file.path == USERCONFIG)

    @property
    def signature(self) -> str:
        """What identifies the module: its configuration, its scripts and their executable bits; not `web/`."""
        signed = (file for file in self.files if file.path.startswith(_SIGNED) and file.path not in _NOT_SIGNED)
        return files_signature((file.path, file.content, file.executable) for file in signed)


def read_package(content: bytes, file: str = "package") -> Package:
    """Reads a `.safe`. `file` is the name that messages show.

    Raises `ConfigError`: package.not_zip, package.too_big, package.escape (a path that leaves the tree), package.entry
    (a link, a device, a name twice), package.missing (no conf/userconfig.xml).
    """
    if len(content) > LARGEST_PACKAGE:
        raise _too_big(file)
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (*_NO_ZIP, NotImplementedError) as error:
        raise ConfigError("package.not_zip", "not a zip archive", file=file, expected="a .safe or .zip file") from error
    with archive:
        entries = archive.infolist()
        if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > LARGEST_PACKAGE:
            raise _too_big(file)
        for entry in entries:
            _check_entry(entry, file)
        files = [_read_entry(archive, entry, file) for entry in entries if not entry.is_dir()]
    return _package(files, file)


def read_tree(folder: Path) -> Package:
    """Reads the tree of a module from disk. Raises `ConfigError` as `read_package` does."""
    files: list[PackagedFile] = []
    total = 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise _bad_entry(name, "neither a file nor a directory", str(folder))
        _check_name(name, str(folder))
        total += path.stat().st_size
        if total > LARGEST_PACKAGE or len(files) >= MOST_FILES:
            raise _too_big(str(folder))
        files.append(PackagedFile(name, path.read_bytes(), bool(mode & 0o111)))
    return _package(files, str(folder))


def signature(source: bytes | Path) -> str:
    """The signature of a module, from its `.safe` or from its edited tree on disk. Raises `ConfigError`."""
    return (read_tree(source) if isinstance(source, Path) else read_package(source)).signature


def write_package(package: Package) -> bytes:
    """The `.safe` of a tree. The same tree gives the same bytes, everywhere and always."""
    target = io.BytesIO()
    # Stored, not deflated: what a compressor makes of the same input changes with its version.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in package.files:
            entry = zipfile.ZipInfo(file.path, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | (0o755 if file.executable else 0o644)) << 16
            archive.writestr(entry, file.content)
    return target.getvalue()


def extract(package: Package, folder: Path, *, replace: bool = False) -> None:
    """Writes the tree of a module to disk, whole or not at all.

    `folder` must be absent or empty, unless `replace`: then what it held is gone afterwards. Its parent must exist; the
    new tree grows beside it under a name with a leading dot. Raises `ConfigError` (package.not_empty), or OSError when
    the disk refuses.
    """
    held = folder.exists() and any(folder.iterdir())
    if held and not replace:
        raise ConfigError("package.not_empty", "the folder is not empty", file=str(folder), expected="an empty folder")
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for file in package.files:
            _write(fresh / file.path, file)
        for directory in [fresh, *(path for path in fresh.rglob("*") if path.is_dir())]:
            directory.chmod(0o755)
            _sync(directory)
        _put_in_place(fresh, folder, held)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _sync(folder.parent)


def _put_in_place(fresh: Path, folder: Path, held: bool) -> None:
    """Renames the new tree over the old one; if that fails, the old one is back."""
    if not held:
        fresh.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    folder.rename(aside)
    try:
        fresh.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)


def _write(path: Path, file: PackagedFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o755 if file.executable else 0o600 if file.path.startswith(_SECRET) else 0o644
    with path.open("xb") as target:
        os.fchmod(target.fileno(), mode)
        target.write(file.content)
        target.flush()
        os.fsync(target.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _package(files: list[PackagedFile], file: str) -> Package:
    """A tree that can be written: every path once, none of them both a file and a directory, a userconfig.xml in it."""
    paths = {packaged.path for packaged in files}
    if len(paths) != len(files):
        double = next(packaged.path for packaged in files if sum(other.path == packaged.path for other in files) > 1)
        raise _bad_entry(double, "stands twice in the package", file)
    for path in paths:
        above = path.split("/")[:-1]
        for depth in range(1, len(above) + 1):
            if "/".join(above[:depth]) in paths:
                raise _bad_entry(path, "lies below a path that is a file", file)
    if USERCONFIG not in paths:
        raise ConfigError(
            "package.missing", f"the package holds no {USERCONFIG}", file=file, expected=f"{USERCONFIG} at its root"
        )
    return Package(tuple(sorted(files, key=lambda packaged: packaged.path)))


def _check_name(name: str, file: str) -> None:
    parts = name.rstrip("/").split("/") if name else [""]
    if name.startswith("/") or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise ConfigError(
            "package.escape",
            f"the entry {shortened(name)} is no path inside the package",
            file=file,
            value=name,
            expected="relative paths with slashes, without '.' or '..'",
        )
    if len(name) > LONGEST_PATH or not name.isprintable():
        raise _bad_entry(ascii(name), "such a name is too long or cannot be printed", file)


def _check_entry(entry: zipfile.ZipInfo, file: str) -> None:
    # `filename` ends at a NUL and has slashes for the system's separator: what was written is looked at.
    name = entry.orig_filename
    _check_name(name, file)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        raise _bad_entry(name, "neither a file nor a directory", file)
    if entry.flag_bits & 0x1:
        raise _bad_entry(name, "encrypted", file)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _bad_entry(name, "compressed by a method other than deflate", file)


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: str) -> PackagedFile:
    try:
        content = archive.read(entry)
    except (*_NO_ZIP, NotImplementedError) as error:
        raise ConfigError("package.not_zip", f"the entry {entry.filename} cannot be read", file=file) from error
    mode = stat.S_IMODE(entry.external_attr >> 16)
    # An archive made where files have no modes: then what stands in bin/ is there to be run.
    executable = bool(mode & 0o111) if mode else entry.filename.startswith("bin/")
    return PackagedFile(entry.filename, content, executable)


def _bad_entry(name: str, what: str, file: str) -> ConfigError:
    return ConfigError(
        "package.entry",
        f"the entry {shortened(name)} is unusable: {what}",
        file=file,
        value=name,
        expected="regular files and directories",
    )


def _too_big(file: str) -> ConfigError:
    return ConfigError(
        "package.too_big",
        "the package is too big",
        file=file,
        expected=f"at most {MOST_FILES} files and {LARGEST_PACKAGE // 1024 // 1024} MiB in all",
    )
