"""`.safe` packages (spec §12.1): what is read is sound, what is written is always the same."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekit.config import ConfigError
from safekit.config.package import Package, PackagedFile, extract, read_package, read_tree, signature, write_package
from tests.unit.config.samples import mirror

USERCONFIG = PackagedFile("conf/userconfig.xml", mirror().encode(), executable=False)
START = PackagedFile("bin/start_prim", b"#!/bin/sh\nexit 0\n", executable=True)
SAMPLE = Package(
    (
        PackagedFile("bin/notes.txt", b"", executable=False),
        START,
        USERCONFIG,
        PackagedFile("web/a b", b"\0", executable=False),
    )
)


def _zip(
    *entries: tuple[str, bytes], mode: int = 0o100644, change: Callable[[zipfile.ZipInfo], None] | None = None
) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [("conf/userconfig.xml", USERCONFIG.content), *entries]:
            entry = zipfile.ZipInfo(name)
            entry.filename = name
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            if name != "conf/userconfig.xml":
                # Without a mode, the flag that DOS would set: zipfile writes a mode of its own where there is nothing.
                entry.external_attr = mode << 16 or 0x20
                if change:
                    change(entry)
            archive.writestr(entry, content)
    return target.getvalue()


def _refusal(content: bytes) -> ConfigError:
    with pytest.raises(ConfigError) as refusal:
        read_package(content, "db.safe")
    return refusal.value


segments = st.text(st.sampled_from("abcé_-. "), min_size=1, max_size=6).filter(lambda text: text not in (".", ".."))
paths = st.lists(segments, min_size=1, max_size=4).map("/".join)
trees = st.dictionaries(paths, st.tuples(st.binary(max_size=200), st.booleans()), max_size=6).filter(
    lambda tree: (
        not any(other.startswith(f"{path}/") for path in tree for other in tree)
        and not any(path in ("conf", USERCONFIG.path) or path.startswith(f"{USERCONFIG.path}/") for path in tree)
    )
)


def _package(tree: dict[str, tuple[bytes, bool]]) -> Package:
    files = [PackagedFile(path, content, executable) for path, (content, executable) in tree.items()]
    return Package(tuple(sorted([*files, USERCONFIG], key=lambda file: file.path)))


@given(trees)
def test_a_package_written_and_read_is_the_same_package(tree: dict[str, tuple[bytes, bool]]) -> None:
    package = _package(tree)
    content = write_package(package)
    assert read_package(content) == package
    assert write_package(read_package(content)) == content


@settings(max_examples=25, deadline=None)
@given(tree=trees)
def test_a_tree_on_disk_is_the_same_package(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, tuple[bytes, bool]]
) -> None:
    package = _package(tree)
    folder = tmp_path_factory.mktemp("modules") / "db"
    extract(package, folder)
    assert read_tree(folder) == package
    assert os.listdir(folder.parent) == ["db"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_package_is_refused_and_never_a_crash(data: st.DataObject) -> None:
    content = bytearray(_zip(("bin/start_prim", b"exit 0\n" * 50)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    try:
        package = read_package(bytes(content))
    except ConfigError as error:
        assert error.code.startswith("package.")
    else:
        assert all(not file.path.startswith(("/", "..")) for file in package.files)


@given(st.binary(max_size=300))
def test_what_is_no_zip_is_refused(content: bytes) -> None:
    error = _refusal(content)
    assert error.message == "db.safe: not a zip archive; expected a .safe or .zip file"
    assert error.code == "package.not_zip"


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "bin/../../evil",
        "bin//x",
        "./x",
        "bin/.",
        "..",
        "bin\\x",
        "..\\evil",
        "C:\\x",
        "bin/../..",
        "//x",
    ],
)
def test_a_package_never_leaves_its_folder(name: str) -> None:
    error = _refusal(_zip((name, b"evil")))
    assert error.code == "package.escape"
    assert error.message == (
        f"db.safe: the entry {name} is no path inside the package; expected relative paths with slashes, without '.' or '..'"
    )


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_links_and_devices_are_refused(kind: int) -> None:
    error = _refusal(_zip(("bin/x", b"/etc/passwd"), mode=kind | 0o777))
    assert error.message == (
        "db.safe: the entry bin/x is unusable: neither a file nor a directory; expected regular files and directories"
    )


@pytest.mark.parametrize("name", ["bin/a\nb", "bin/" + "x" * 600, "bin/\x7f"])
def test_names_that_no_module_needs_are_refused(name: str) -> None:
    assert _refusal(_zip((name, b""))).code == "package.entry"


def test_a_name_that_ends_at_a_nul_is_refused() -> None:
    content = _zip(("bin/startXevil", b"")).replace(b"bin/startXevil", b"bin/start\0evil")
    assert _refusal(content).code == "package.entry"


def test_a_package_without_configuration_is_refused() -> None:
    content = write_package(Package((START,)))
    assert _refusal(content).message == (
        "db.safe: the package holds no conf/userconfig.xml; expected conf/userconfig.xml at its root"
    )


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = _zip(("bin/x", b"1"), ("bin/x", b"2"))
    assert "the entry bin/x is unusable: stands twice in the package" in _refusal(content).message


def test_a_file_is_no_directory() -> None:
    assert (
        "the entry bin/x is unusable: lies below a path that is a file"
        in _refusal(_zip(("bin", b""), ("bin/x", b""))).message
    )


def test_an_encrypted_package_is_refused() -> None:
    content = bytearray(_zip(("bin/x", b"1")))
    at = content.rindex(b"PK\x01\x02")
    content[at + 8] |= 1
    assert "the entry bin/x is unusable: encrypted" in _refusal(bytes(content)).message


def test_other_compressions_are_refused() -> None:
    def with_lzma(entry: zipfile.ZipInfo) -> None:
        entry.compress_type = zipfile.ZIP_LZMA

    assert "compressed by a method other than deflate" in _refusal(_zip(("bin/x", b"1"), change=with_lzma)).message


def test_a_damaged_entry_is_refused() -> None:
    content = write_package(SAMPLE).replace(START.content, START.content.upper())
    assert _refusal(content).message == "db.safe: the entry bin/start_prim cannot be read"


def test_a_package_too_big_is_refused_before_it_is_unpacked() -> None:
    bomb = _zip(("web/zeros", b"\0" * (65 * 1024 * 1024)))
    assert len(bomb) < 100_000
    for content in (bomb, b"\0" * (65 * 1024 * 1024), _zip(*((f"bin/{n}", b"") for n in range(5000)))):
        assert (
            _refusal(content).message
            == "db.safe: the package is too big; expected at most 4096 files and 64 MiB in all"
        )


def test_scripts_are_executable_where_the_archive_knows_no_modes() -> None:
    package = read_package(_zip(("bin/start_prim", b"x"), ("web/index.html", b"x"), mode=0))
    assert [(file.path, file.executable) for file in package.files] == [
        ("bin/start_prim", True),
        ("conf/userconfig.xml", False),
        ("web/index.html", False),
    ]


def test_directories_and_leftovers_are_no_obstacle() -> None:
    content = _zip(("bin/", b""), ("conf/userconfig.xml.template", b"old"), mode=0)
    assert [file.path for file in read_package(content).files] == [
        "conf/userconfig.xml",
        "conf/userconfig.xml.template",
    ]


def test_files_are_found_by_their_path() -> None:
    assert SAMPLE.file("bin/start_prim") == START
    assert SAMPLE.file("bin/other") is None
    assert SAMPLE.userconfig == USERCONFIG.content


def test_the_signature_is_that_of_configuration_and_scripts() -> None:
    def signed(*files: PackagedFile) -> str:
        return Package(files).signature

    assert signed(START, USERCONFIG) == signed(USERCONFIG, START)
    assert signed(START, USERCONFIG) != signed(USERCONFIG)
    assert signed(PackagedFile(START.path, START.content, executable=False), USERCONFIG) != signed(START, USERCONFIG)
    assert signed(PackagedFile(START.path, b"", executable=True), USERCONFIG) != signed(START, USERCONFIG)
    assert signed(PackagedFile("bin/other", START.content, executable=True), USERCONFIG) != signed(START, USERCONFIG)
    for ignored in ("web/x", "conf/safeconf.xml", "conf/userconfig.xml.template", "manifest.xml"):
        assert signed(PackagedFile(ignored, b"x", executable=False), USERCONFIG) == signed(USERCONFIG)
    assert len(SAMPLE.signature) == 16


def test_a_package_and_its_tree_have_one_signature(tmp_path: Path) -> None:
    extract(SAMPLE, tmp_path / "db")
    assert signature(tmp_path / "db") == signature(write_package(SAMPLE)) == SAMPLE.signature


def test_an_extracted_tree_has_plain_modes_and_a_secret_key(tmp_path: Path) -> None:
    key = PackagedFile("conf/modulekey.dat", b"secret", executable=False)
    previous = os.umask(0o077)
    try:
        extract(Package((*SAMPLE.files, key)), tmp_path / "db")
    finally:
        os.umask(previous)
    modes = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "db").rglob("*")
    }
    assert modes["db/bin"] == modes["db/bin/start_prim"] == 0o755
    assert modes["db/conf/userconfig.xml"] == modes["db/bin/notes.txt"] == 0o644
    assert modes["db/conf/modulekey.dat"] == 0o600
    assert stat.S_IMODE((tmp_path / "db").stat().st_mode) == 0o755


def test_a_tree_is_never_mixed_with_another(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    folder.mkdir()
    extract(SAMPLE, folder)
    with pytest.raises(ConfigError, match="the folder is not empty; expected an empty folder"):
        extract(SAMPLE, folder)
    (folder / "bin" / "mine").write_text("x")
    extract(Package((USERCONFIG,)), folder, replace=True)
    assert read_tree(folder) == Package((USERCONFIG,))
    assert os.listdir(tmp_path) == ["db"]


def test_a_tree_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    extract(SAMPLE, tmp_path / "db")
    with pytest.raises(OSError):
        extract(
            Package((USERCONFIG, PackagedFile("bin/" + "x" * 300, b"", executable=False))),
            tmp_path / "db",
            replace=True,
        )
    assert read_tree(tmp_path / "db") == SAMPLE
    assert os.listdir(tmp_path) == ["db"]


def test_a_tree_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "db"
    extract(SAMPLE, folder)
    real = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if target == folder and "bin" not in os.listdir(path):
            raise OSError("the disk says no")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(OSError, match="the disk says no"):
        extract(Package((USERCONFIG,)), folder, replace=True)
    assert read_tree(folder) == SAMPLE
    assert os.listdir(tmp_path) == ["db"]


def test_a_tree_with_a_link_is_no_package(tmp_path: Path) -> None:
    extract(SAMPLE, tmp_path / "db")
    (tmp_path / "db" / "bin" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="the entry bin/link is unusable: neither a file nor a directory"):
        read_tree(tmp_path / "db")


def test_a_tree_too_big_is_no_package(tmp_path: Path) -> None:
    extract(SAMPLE, tmp_path / "db")
    with (tmp_path / "db" / "web" / "huge").open("wb") as huge:
        huge.truncate(65 * 1024 * 1024)
    with pytest.raises(ConfigError, match="the package is too big"):
        read_tree(tmp_path / "db")


def test_a_tree_without_configuration_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no conf/userconfig\.xml"):
        read_tree(tmp_path)
