"""The trees of the modules on disk: edited, active, and who has which id (spec §7.4, §12.1).

The active tree is replaced whole: what is being applied is built beside it and takes its place by a rename, the
former one is kept until the new one has been accepted. A crash at any point leaves one of the two.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from safekit.config import UserConfig, check_dynamic, load_userconfig
from safekit.config.package import extract, read_package, read_tree, write_package
from safekit.files import UnreadableFile, read_json, sync_folder, write_json
from safekit.paths import Paths


@dataclass(frozen=True)
class AppliedModule:
    """What was applied, and when."""

    signature: str
    date: datetime


class ModuleTrees:
    """The trees of every module of this node."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._ids_file = paths.var / "modules.json"

    def ids(self) -> dict[str, int]:
        """Name -> id of each installed module."""
        saved = read_json(self._ids_file) or {}
        return {str(name): int(number) for name, number in saved.get("ids", {}).items()}

    def _write_ids(self, ids: dict[str, int]) -> None:
        write_json(self._ids_file, {"format": 1, "ids": ids}, durable=True)

    def free_id(self) -> int:
        """The lowest id that no module of this node has."""
        used = set(self.ids().values())
        return next(number for number in range(1, len(used) + 2) if number not in used)

    def install(self, name: str, package: bytes, number: int) -> None:
        """Put the tree of a package in place as the edited tree. Raises ConfigError when it is no package."""
        extract(read_package(package, f"{name}.safe"), self._paths.module(name), replace=True)
        self._write_ids({**self.ids(), name: number})

    def differs(self, name: str, package: bytes) -> bool:
        """Whether a package holds another tree than the edited one. Raises ConfigError when it is no package."""
        root = self._paths.module(name)
        offered = read_package(package, f"{name}.safe").signature
        return not (root / "conf" / "userconfig.xml").exists() or offered != read_tree(root).signature

    def package(self, name: str) -> bytes:
        """The edited tree as a package."""
        return write_package(read_tree(self._paths.module(name)))

    def load_edited(self, name: str, environment: dict[str, str]) -> UserConfig:
        """The edited configuration. Raises ConfigError."""
        return _load(self._paths.module(name) / "conf" / "userconfig.xml", environment)

    def check_dynamic(self, name: str, environment: dict[str, str]) -> tuple[str, ...]:
        """Whether a running module can take the edited configuration; warnings. Raises ConfigError."""
        active = (self._paths.active(name) / "conf" / "safeconf.xml").read_text()
        edited = self._paths.module(name) / "conf" / "userconfig.xml"
        return check_dynamic(active, edited.read_bytes(), str(edited), environment)

    def load_active(self, name: str) -> UserConfig:
        """The applied configuration, macros already expanded. Raises ConfigError."""
        return _load(self._paths.active(name) / "conf" / "safeconf.xml", {})

    def userconfig(self, name: str) -> str | None:
        """The edited `userconfig.xml` as text."""
        path = self._paths.module(name) / "conf" / "userconfig.xml"
        return path.read_text() if path.exists() else None

    def signature_of_edited(self, name: str) -> str | None:
        """The signature that the edited tree would have."""
        root = self._paths.module(name)
        return read_tree(root).signature if (root / "conf" / "userconfig.xml").exists() else None

    def applied(self, name: str) -> AppliedModule | None:
        """What is applied; None for a module that is not configured, or whose mark of it is damaged."""
        try:
            saved = read_json(self._paths.active(name) / "applied.json")
            return AppliedModule(str(saved["signature"]), datetime.fromisoformat(saved["date"])) if saved else None
        except (UnreadableFile, KeyError, TypeError, ValueError):
            return None

    def apply(self, name: str, config: UserConfig) -> AppliedModule:
        """Make the edited tree the active one; `keep` or `revert` must follow."""
        active, fresh = self._paths.active(name), self._paths.active(name).with_name(f".{name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self._paths.module(name), fresh, symlinks=True)
        (fresh / "conf" / "safeconf.xml").write_text(config.expanded)
        applied = AppliedModule(read_tree(self._paths.module(name)).signature, datetime.now(UTC))
        write_json(
            fresh / "applied.json",
            {"signature": applied.signature, "date": applied.date.isoformat()},
            durable=True,
        )
        _sync_tree(fresh)
        former = active.with_name(f".{name}.former")
        shutil.rmtree(former, ignore_errors=True)
        if active.exists():
            active.rename(former)
        fresh.rename(active)
        sync_folder(active.parent)
        return applied

    def keep(self, name: str) -> None:
        """The new active tree was accepted: the former one goes."""
        shutil.rmtree(self._paths.active(name).with_name(f".{name}.former"), ignore_errors=True)

    def revert(self, name: str) -> None:
        """The new active tree was not accepted: the former one, if any, comes back."""
        active = self._paths.active(name)
        former = active.with_name(f".{name}.former")
        shutil.rmtree(active, ignore_errors=True)
        if former.exists():
            former.rename(active)

    def deconfigure(self, name: str) -> bool:
        """Remove the active tree, and what the module knew until the power-off; False if there was none."""
        shutil.rmtree(self._paths.module_run(name), ignore_errors=True)
        active = self._paths.active(name)
        if not active.exists():
            return False
        shutil.rmtree(active)
        shutil.rmtree(self._paths.module_var(name), ignore_errors=True)
        return True

    def uninstall(self, name: str) -> None:
        """Remove everything of a module, after a copy of its edited tree went to the backup folder (spec §12.1)."""
        edited = self._paths.module(name)
        if edited.exists():
            backup = self._paths.safe / "Application_Modules" / "backup"
            backup.mkdir(parents=True, exist_ok=True)
            (backup / f"{name}.safe").write_bytes(write_package(read_tree(edited)))
            shutil.rmtree(edited)
        ids = self.ids()
        ids.pop(name, None)
        self._write_ids(ids)


def _load(path: Path, environment: dict[str, str]) -> UserConfig:
    return load_userconfig(path.read_bytes(), str(path), environment)


def _sync_tree(root: Path) -> None:
    """Every file and folder below `root` on disk: a name must never be durable before what it stands for."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        sync_folder(Path(folder))
