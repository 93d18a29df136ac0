"""Files of Debian's source packages, fetched by apt with the machine's own settings and kept in .cache/sources."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "sources"


class NotFetched(Exception):
    """No version of the package is in reach."""


def source(package: str, parts: tuple[str, ...]) -> Path:
    """The folder with these parts (wildcards of tar) of a package's source, in the installed version if that is in reach."""
    installed = _installed(package)
    for version in [installed, *(v for v in _versions(package) if v != installed)]:
        folder = CACHE / f"{package}-{version}".replace(":", "_")
        if (folder / "whole").exists() or _fetch(package, version, parts, folder):
            return next(path for path in folder.iterdir() if path.is_dir())
    raise NotFetched(f"apt-get source {package}: no version of it can be fetched")


def binary(package: str, wanted: str) -> Path:
    """The folder in which a binary package is unpacked, not installed; in version `wanted` if it is in reach."""
    for version in (wanted, ""):
        folder = CACHE / f"{package}-{version or 'newest'}"
        if (folder / "whole").exists():
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        named = f"{package}={version}" if version else package
        if not _succeeds("apt-get", "download", "-q", named, folder=folder):
            continue
        archive = next(folder.glob("*.deb"))
        subprocess.run(["dpkg", "-x", archive, folder], check=True)
        archive.unlink()
        (folder / "whole").touch()
        return folder
    raise NotFetched(f"apt-get download {package}: cannot be fetched")


def _installed(package: str) -> str:
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${source:Package} ${source:Version}\n"], capture_output=True, text=True, check=True
    )
    found = {line.split()[0]: line.split()[1] for line in shown.stdout.splitlines() if len(line.split()) == 2}
    if package not in found:
        raise NotFetched(f"no package built from {package} is installed (make prerequisites)")
    return found[package]


def _apt(*words: str) -> list[str]:
    """apt with lists of its own, which name sources: the machine's places of packages, asked for their sources."""
    places = CACHE / "apt"
    for name in ("sources", "lists/partial", "cache/archives/partial"):
        (places / name).mkdir(parents=True, exist_ok=True)
    given = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in given:
        if not path.is_file():
            continue
        text = path.read_text()
        if path.suffix == ".sources":
            stanzas = [s for s in re.split(r"\n\s*\n", text) if "debian" in s]
            text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", "\n\n".join(stanzas)) + "\n"
        else:
            text = "".join(
                f"deb-src{line[3:]}\n" for line in text.splitlines() if line.startswith("deb ") and "debian" in line
            )
        (places / "sources" / path.name.replace("sources.list", "main.list")).write_text(text)
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": places / "sources",
        "Dir::State::lists": places / "lists",
        "Dir::Cache": places / "cache",
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    return [words[0], *options, *words[1:]]


def _versions(package: str) -> list[str]:
    _succeeds(*_apt("apt-get", "update", "-q"))
    shown = subprocess.run(_apt("apt-cache", "showsrc", package), capture_output=True, text=True, check=False).stdout
    return list(dict.fromkeys(reversed(re.findall(r"(?m)^Version: (.*)$", shown))))


def _fetch(package: str, version: str, parts: tuple[str, ...], folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    if not any((CACHE / "apt" / "lists").glob("*Sources*")):
        _succeeds(*_apt("apt-get", "update", "-q"))
    if not _succeeds(*_apt("apt-get", "source", "-q", "--download-only", f"{package}={version}"), folder=folder):
        return False
    archive = next(path for path in folder.iterdir() if re.search(r"\.orig\.tar\.\w+$", path.name))
    subprocess.run(["tar", "-x", "-C", folder, "-f", archive, "--wildcards", *parts], check=True)
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    (folder / "whole").touch()
    return True


def _succeeds(*command: str | Path, folder: Path | None = None) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=300).returncode == 0
