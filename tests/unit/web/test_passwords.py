"""What is kept of a password, and the file of those who may log in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safekit.files import UnreadableFile
from safekit.web.accounts import Account, Accounts, is_name, read_accounts, write_accounts
from safekit.web.passwords import NOBODY, WeakPassword, hashed, is_hash, matches

KEPT = hashed("correct horse", b"0123456789abcdef")


def test_a_password_matches_its_own_hash_only() -> None:
    assert matches("correct horse", KEPT)
    assert not matches("correct horsf", KEPT)
    assert not matches("", KEPT)
    assert "correct" not in KEPT


def test_two_salts_give_two_hashes() -> None:
    assert hashed("correct horse", b"fedcba9876543210") != KEPT


def test_nobody_has_a_password() -> None:
    assert is_hash(NOBODY)
    assert not matches("", NOBODY) and not matches("nobody's password", NOBODY)


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025])
def test_a_password_has_8_to_1024_characters(password: str) -> None:
    with pytest.raises(WeakPassword, match=r"at (least 8|most 1024) characters"):
        hashed(password, b"0123456789abcdef")


@pytest.mark.parametrize(
    "text", ["", "secret", "scrypt$2$8$1$AA==$AA==", KEPT[:-4], KEPT + "$x", KEPT.replace("=", "!")]
)
def test_what_is_no_hash_lets_nobody_in(text: str) -> None:
    assert not is_hash(text)
    assert not matches("secret", text)


def test_accounts_are_read_back_and_a_new_file_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    accounts = Accounts(folder)
    assert accounts.find("admin") is None
    one = Account("admin", "admin", KEPT)
    write_accounts(folder, {"admin": one})
    assert (folder / "users.json").stat().st_mode & 0o007 == 0
    assert accounts.find("admin") == one and accounts.find("other") is None
    write_accounts(folder, {"admin": Account("admin", "monitor", KEPT)})
    found = accounts.find("admin")
    assert found is not None and found.role == "monitor"
    write_accounts(folder, {})
    assert accounts.find("admin") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Expecting"),
        ("[]", "expected {"),
        ('{"version": 2, "users": {}}', "expected {"),
        ('{"version": 1, "users": {"a/b": {}}}', "user 'a/b'"),
        ('{"version": 1, "users": {"eve": "x"}}', "user eve: expected role and password"),
        ('{"version": 1, "users": {"eve": {"role": "root", "password": "x"}}}', "role 'root', expected one of admin"),
        (
            '{"version": 1, "users": {"eve": {"role": "admin", "password": "secret12"}}}',
            "user eve: expected a password",
        ),
    ],
)
def test_a_wrong_file_is_named_and_lets_nobody_in(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "users.json").write_text(content)
    with pytest.raises(UnreadableFile) as trouble:
        read_accounts(tmp_path)
    assert str(tmp_path / "users.json") in str(trouble.value) and said in str(trouble.value)


def test_a_file_that_becomes_wrong_lets_nobody_in_any_more(tmp_path: Path) -> None:
    write_accounts(tmp_path, {"admin": Account("admin", "admin", KEPT)})
    accounts = Accounts(tmp_path)
    assert accounts.find("admin") is not None
    (tmp_path / "users.json").write_text(json.dumps({"version": 1, "users": {"admin": {}}}))
    for _ in range(2):
        with pytest.raises(UnreadableFile):
            accounts.find("admin")


def test_names() -> None:
    assert all(is_name(name) for name in ("admin", "a.b-c_d", "x" * 64, "0"))
    assert not any(is_name(name) for name in ("", "-a", ".a", "a b", "a@b", "x" * 65, "ä", "a\n"))
