"""Who may log in, and as what: the file `users.json`, written by `safekit webservercfg`, read by the web service.

    {"version": 1, "users": {"admin": {"role": "admin", "password": "scrypt$…"}}}

Root writes it; the account of the web service may read it. A file that is not like this lets nobody in.
"""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safekit.afar import USER
from safekit.files import UnreadableFile, read_json, write_json
from safekit.web.passwords import is_hash

Role = Literal["admin", "control", "monitor"]
ROLES: tuple[Role, ...] = ("admin", "control", "monitor")
ACTING: frozenset[Role] = frozenset({"admin", "control"})
"""Who may move a module; `monitor` only looks (spec §9.1)."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_FILE = "users.json"


@dataclass(frozen=True)
class Account:
    """One person: a name, what it may do, and the hash of its password."""

    name: str
    role: Role
    password: str


def is_name(text: str) -> bool:
    """Whether a person can be called so: letters, digits, `_`, `-`, `.`, at most 64."""
    return _NAME.fullmatch(text) is not None


def read_accounts(folder: Path) -> dict[str, Account]:
    """Name -> account; none before there is a file. UnreadableFile if it is not as it should be."""
    path = folder / _FILE
    content = read_json(path)
    if content is None:
        return {}
    if not isinstance(content, dict) or content.get("version") != 1 or not isinstance(content.get("users"), dict):
        raise UnreadableFile(path, 'expected {"version": 1, "users": {…}}')
    return {str(name): _account(path, str(name), facts) for name, facts in content["users"].items()}


def write_accounts(folder: Path, accounts: dict[str, Account]) -> None:
    """Replace the file, durably. OSError."""
    make_folder(folder)
    users = {one.name: {"role": one.role, "password": one.password} for one in accounts.values()}
    write_json(folder / _FILE, {"version": 1, "users": users}, durable=True)
    show_to_service(folder / _FILE)


def make_folder(folder: Path) -> None:
    """The folder of the web service: root's, and its account may look into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    show_to_service(folder)


def show_to_service(path: Path) -> None:
    """Let the account of the web service read this, if there is one; nobody else but root."""
    mode = 0o750 if path.is_dir() else 0o640
    try:
        group = pwd.getpwnam(USER).pw_gid
    except KeyError:
        return
    os.chown(path, -1, group)
    path.chmod(mode)


class Accounts:
    """The accounts as the web service sees them: read again when the file was replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[int, int, int] | None = None
        self._accounts: dict[str, Account] = {}

    def find(self, name: str) -> Account | None:
        """The account of this name now. UnreadableFile."""
        try:
            found = (self._folder / _FILE).stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            seen = None
        if seen is None or seen != self._seen:
            self._seen, self._accounts = None, {}
            self._accounts = read_accounts(self._folder)
            self._seen = seen
        return self._accounts.get(name)


def _account(path: Path, name: str, facts: object) -> Account:
    if not is_name(name):
        raise UnreadableFile(path, f"user {name!r}: expected letters, digits, '_', '-' and '.', at most 64")
    if not isinstance(facts, dict):
        raise UnreadableFile(path, f"user {name}: expected role and password")
    role = next((role for role in ROLES if role == facts.get("role")), None)
    if role is None:
        raise UnreadableFile(path, f"user {name}: role {facts.get('role')!r}, expected one of {', '.join(ROLES)}")
    password = facts.get("password")
    if not isinstance(password, str) or not is_hash(password):
        raise UnreadableFile(path, f"user {name}: expected a password as `safekit webservercfg` writes it")
    return Account(name, role, password)
