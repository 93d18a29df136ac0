"""Passwords are kept as scrypt hashes, each with a salt of its own. Pure, but for the salt that comes in.

One check takes some tenths of a second and 32 MiB on purpose: that is what each guess costs who steals the file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

SHORTEST = 8
LONGEST = 1024
_COST, _BLOCK, _LANES = 2**15, 8, 3
_MEMORY = 96 * 1024 * 1024
_SALT_BYTES, _HASH_BYTES = 16, 32


class WeakPassword(ValueError):
    """A password that is not accepted; the text says why."""


def hashed(password: str, salt: bytes) -> str:
    """`scrypt$N$r$p$SALT$HASH`, base64. `salt`: 16 random bytes. WeakPassword for one that is too short or too long."""
    if len(password) < SHORTEST:
        raise WeakPassword(f"a password has at least {SHORTEST} characters")
    if len(password) > LONGEST:
        raise WeakPassword(f"a password has at most {LONGEST} characters")
    if len(salt) != _SALT_BYTES:
        raise ValueError(f"a salt has {_SALT_BYTES} bytes")
    words = (_COST, _BLOCK, _LANES, _text(salt), _text(_derive(password, salt)))
    return "$".join(("scrypt", *map(str, words)))


def is_hash(text: str) -> bool:
    """Whether this is what `hashed` makes."""
    return _parts(text) is not None


def matches(password: str, kept: str) -> bool:
    """Whether it is the password of this hash."""
    parts = _parts(kept)
    if parts is None or len(password) > LONGEST:
        return False
    salt, expected = parts
    return hmac.compare_digest(_derive(password, salt), expected)


_ZEROS = (base64.b64encode(bytes(length)).decode() for length in (_SALT_BYTES, _HASH_BYTES))
NOBODY = "$".join(("scrypt", str(_COST), str(_BLOCK), str(_LANES), *_ZEROS))
"""The hash of no password: compared for a user that does not exist, so that the time tells nothing."""


def _parts(text: str) -> tuple[bytes, bytes] | None:
    words = text.split("$")
    if words[:4] != ["scrypt", str(_COST), str(_BLOCK), str(_LANES)] or len(words) != 6:
        return None
    try:
        salt, kept = (base64.b64decode(word, validate=True) for word in words[4:])
    except (binascii.Error, ValueError):
        return None
    return (salt, kept) if (len(salt), len(kept)) == (_SALT_BYTES, _HASH_BYTES) else None


def _derive(password: str, salt: bytes) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=_COST, r=_BLOCK, p=_LANES, maxmem=_MEMORY, dklen=_HASH_BYTES)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
