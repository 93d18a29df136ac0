"""Sealed datagrams: bytes in, bytes out. Nothing is believed that was not sealed with the key of the channel (§10.3).

    magic "SK" | version | channel and link (8) | incarnation (8) | salt (8) | counter (8) | length, sender
    ChaCha20-Poly1305 of the body

The whole header is authenticated. Invariants:

- *A nonce never repeats under a key.* Each life of a sender has a key of its own: HKDF over the channel's key with
  the channel's name, the sender, its incarnation and a random salt. Under it the nonce is the counter, and one
  counter serves all links of the channel.
- *Nothing is accepted twice.* Per sender and link a sliding window of counters; the link is part of what is
  authenticated, so a datagram taken on one lan proves nothing on another.
- *An earlier life never follows a later one.* Incarnations are nanoseconds of the wall clock, never lower than the
  last persisted one. A node whose clock went back while it had forgotten that is told so by its peers (`Notice` in
  `beat.py`) and starts a later life.

Only `cryptography` is used, also for hashing: `hashlib` would load a second OpenSSL (4 MB) into every `safekit-pulse`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC = b"SK"
VERSION = 1
SEAL_BYTES = 16
WINDOW = 256
"""How far behind the newest counter a reordered datagram may come."""

_HEADER = struct.Struct(">2sB8sQ8sQB")


@dataclass(frozen=True)
class Incarnation:
    """One life of a node's pulse: `number` orders the lives, `salt` makes its keys unlike any other's."""

    number: int
    salt: bytes

    @staticmethod
    def after(number: int, wall_clock_ns: int) -> Incarnation:
        """A life later than `number`, by the clock where the clock allows."""
        return Incarnation(max(number + 1, wall_clock_ns), os.urandom(8))


@dataclass(frozen=True, slots=True)
class Opened:
    """An authentic datagram, never seen before. `counter` orders the datagrams of one incarnation over all links."""

    sender: str
    incarnation: int
    counter: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a datagram is not accepted (the reasons of `events.Refused`); `sender` as claimed, `last` the incarnation
    that it must exceed.
    """

    reason: str
    sender: str | None = None
    last: int = 0


Floors = Mapping[str, tuple[int, str, Mapping[str, int]]]
"""What an opener must remember over a restart: sender -> (incarnation, salt in hexadecimal, {link: highest counter}).
"""


def overhead(sender: str) -> int:
    """Bytes that sealing adds to a body of this sender."""
    return _HEADER.size + len(sender.encode()) + SEAL_BYTES


def addressed(datagram: bytes) -> bytes:
    """The `tag` that a datagram claims to belong to, not proven; empty when it is none of ours."""
    if len(datagram) < _HEADER.size + SEAL_BYTES or not datagram.startswith(MAGIC):
        return b""
    return datagram[3:11]


def tag(channel: str, link: str) -> bytes:
    """How a datagram names the channel and link that it belongs to."""
    digest = Hash(SHA256())
    digest.update(channel.encode() + b"\0" + link.encode())
    return digest.finalize()[:8]


def _cipher(key: bytes, channel: str, sender: str, incarnation: int, salt: bytes) -> ChaCha20Poly1305:
    info = b"safekit beat 1\0" + channel.encode() + b"\0" + sender.encode()
    return ChaCha20Poly1305(HKDF(SHA256(), 32, incarnation.to_bytes(8, "big") + salt, info).derive(key))


class Sealer:
    """Seals what this node sends on one channel."""

    def __init__(self, channel: str, links: Iterable[str], key: bytes, sender: str, incarnation: Incarnation) -> None:
        self._sender = sender.encode()
        self._incarnation = incarnation
        self._tags = {link: tag(channel, link) for link in links}
        self._aead = _cipher(key, channel, sender, incarnation.number, incarnation.salt)
        self._counter = 0

    @property
    def counter(self) -> int:
        """The counter of the last datagram."""
        return self._counter

    def seal(self, link: str, body: bytes) -> bytes:
        """One datagram for `link`; the same datagram may go to several peers on it."""
        self._counter += 1
        life = self._incarnation
        header = (
            _HEADER.pack(MAGIC, VERSION, self._tags[link], life.number, life.salt, self._counter, len(self._sender))
            + self._sender
        )
        return header + self._aead.encrypt(b"\0\0\0\0" + self._counter.to_bytes(8, "big"), body, header)


class _Window:
    """Which counters of one life came over one link."""

    __slots__ = ("_seen", "top")

    def __init__(self, top: int) -> None:
        self.top = top
        self._seen = (1 << WINDOW) - 1 if top else 0
        """Bit i: `top - i` was accepted. What a restored window may have accepted counts as accepted."""

    def accept(self, counter: int) -> bool:
        ahead = counter - self.top
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self.top = counter
            return True
        if -ahead >= WINDOW or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True


class _Sender:
    """What is known of the latest life of one sender."""

    __slots__ = ("aead", "incarnation", "salt", "windows")

    def __init__(self, incarnation: int, salt: bytes, aead: ChaCha20Poly1305, windows: dict[str, _Window]) -> None:
        self.incarnation, self.salt, self.aead, self.windows = incarnation, salt, aead, windows


class Opener:
    """Opens what this node receives on one channel from `senders`."""

    def __init__(
        self, channel: str, links: Iterable[str], key: bytes, senders: Iterable[str], floors: Floors | None = None
    ) -> None:
        self._channel, self._key = channel, key
        self._tags = {link: tag(channel, link) for link in links}
        self._senders: dict[str, _Sender | None] = dict.fromkeys(senders)
        for sender, (incarnation, salt_hex, tops) in (floors or {}).items():
            if sender in self._senders:
                salt = bytes.fromhex(salt_hex)
                self._senders[sender] = _Sender(
                    incarnation,
                    salt,
                    _cipher(key, channel, sender, incarnation, salt),
                    {link: _Window(top) for link, top in tops.items()},
                )

    def floors(self) -> dict[str, tuple[int, str, dict[str, int]]]:
        """What to give to the opener of the next life of this process."""
        return {
            name: (known.incarnation, known.salt.hex(), {link: window.top for link, window in known.windows.items()})
            for name, known in self._senders.items()
            if known is not None
        }

    def open(self, link: str, datagram: bytes) -> Opened | Refusal:
        """The body of a datagram that came over `link`, or why it is not accepted. Never raises on what came from
        outside.
        """
        if len(datagram) < _HEADER.size + SEAL_BYTES or not datagram.startswith(MAGIC):
            return Refusal("foreign")
        _, version, claimed, number, salt, counter, length = _HEADER.unpack_from(datagram)
        if version != VERSION:
            return Refusal("version differs")
        end = _HEADER.size + length
        if claimed != self._tags[link]:
            return Refusal("channel differs")
        try:
            sender = datagram[_HEADER.size : end].decode()
        except UnicodeDecodeError:
            return Refusal("foreign")
        if sender not in self._senders:
            return Refusal("not a member", sender)
        known = self._senders[sender]
        same_life = known is not None and known.incarnation == number and known.salt == salt
        aead = (
            known.aead if known is not None and same_life else _cipher(self._key, self._channel, sender, number, salt)
        )
        try:
            body = aead.decrypt(b"\0\0\0\0" + counter.to_bytes(8, "big"), datagram[end:], datagram[:end])
        except InvalidTag:
            return Refusal("key differs", sender)
        if known is not None and not same_life and number <= known.incarnation:
            return Refusal("old incarnation", sender, known.incarnation)
        if known is None or not same_life:
            known = self._senders[sender] = _Sender(number, salt, aead, {})
        window = known.windows.get(link)
        if window is None:
            window = known.windows[link] = _Window(0)
        if not window.accept(counter):
            return Refusal("replayed", sender)
        return Opened(sender, number, counter, body)
