"""The registers on the disk of a witness: `registers/CLUSTER/MODULE.json`, each replaced whole.

Invariant: *what `read` and `write` return is on the disk*, its name included, whatever the power does next. A file that
an earlier process replaced, or whose writing failed half way, may be readable and not yet durable: it is written once
more before anybody is told of it. A file that cannot be read is an error and never a register that does not exist: a
witness that forgets must say so.
"""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safekit.automaton.register import Register
from safekit.files import UnreadableFile, read_json, sync_folder, write_json

FORMAT = 1
MOST_MODULES = 256
"""Registers of one cluster: nobody fills the disk of a witness."""


class RegisterUnavailable(Exception):
    """The register may be there and cannot be told; the text says why, with the file."""


class RegisterStore:
    """The registers below one folder. Every method may wait for the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._durable: dict[tuple[str, str], Register] = {}
        self._disk = threading.RLock()
        """Who reads a register may write it: one at a time."""

    def known(self, cluster: str, module: str) -> Register | None:
        """What `read` or `write` returned last, without the disk; None if neither did."""
        return self._durable.get((cluster, module))

    def read(self, cluster: str, module: str) -> Register | None:
        """The register, None if it was never made. Raises RegisterUnavailable."""
        with self._disk:
            present = self.known(cluster, module)
            if present is not None:
                return present
            path = self._path(cluster, module)
            try:
                value = read_json(path)
            except (UnreadableFile, OSError) as error:
                raise RegisterUnavailable(f"the register cannot be read: {error}") from error
            if value is None and not path.exists():
                return None
            register = _decode(path, value)
            self.write(cluster, module, register)
            return register

    def write(self, cluster: str, module: str, register: Register) -> None:
        """Replace the register. Raises RegisterUnavailable: then it is what it was, or `register`, and neither is told."""
        with self._disk:
            self._durable.pop((cluster, module), None)
            path = self._path(cluster, module)
            value = {"format": FORMAT, **asdict(register), "holders": sorted(register.holders)}
            try:
                if not path.exists():
                    self._make_room(path)
                write_json(path, value, durable=True, reserve=True)
            except OSError as error:
                raise RegisterUnavailable(f"the register cannot be written: {path}: {error.strerror}") from error
            self._durable[cluster, module] = register

    def registers(self, cluster: str) -> tuple[str, ...]:
        """The modules of a cluster that have a register."""
        return tuple(sorted(path.stem for path in (self._folder / cluster).glob("*.json")))

    def forget(self, cluster: str) -> None:
        """Remove the registers of a cluster that is no longer served."""
        with self._disk:
            folder = self._folder / cluster
            for key in [key for key in self._durable if key[0] == cluster]:
                del self._durable[key]
            if folder.is_dir():
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
                sync_folder(self._folder)

    def _path(self, cluster: str, module: str) -> Path:
        return self._folder / cluster / f"{module}.json"

    def _make_room(self, path: Path) -> None:
        """The folder of a first register, durable by name up to the folder of all."""
        if path.parent.is_dir():
            if len(self.registers(path.parent.name)) >= MOST_MODULES:
                raise RegisterUnavailable(f"{path.parent}: {MOST_MODULES} registers, no cluster may have more")
            return
        path.parent.mkdir(parents=True, mode=0o700)
        sync_folder(self._folder)
        sync_folder(self._folder.parent)


def _decode(path: Path, value: Any) -> Register:
    try:
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']!r}, expected {FORMAT}")
        epoch, number, holders = value["epoch"], value["number"], value["holders"]
        node, boot = value["node"], value["boot"]
        if not isinstance(epoch, int) or not isinstance(number, int) or epoch < 1:
            raise ValueError(f"epoch {epoch!r}, number {number!r}: expected whole numbers")
        if not isinstance(holders, list) or not all(isinstance(name, str) for name in (node, boot, *holders)):
            raise ValueError(f"holders {holders!r}, node {node!r}, boot {boot!r}: expected names")
    except (KeyError, TypeError, ValueError) as error:
        raise RegisterUnavailable(f"the register cannot be read: {path}: {error!r}") from error
    return Register(epoch, frozenset(holders), node, boot, number)
