"""What travels between the nodes is TLS 1.3 as others speak it, and nothing that was tampered with is taken."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import hashlib
import hmac
import os
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safekit.replication import PrimaryConnected, PrimaryLost
from tests.native.pair import Pair, in_thread, opened

FRAME = struct.Struct("<IHHQQQQQQqqqqIIIIIIIIIHHII")
HEADER = (Path(__file__).parents[2] / "runtime" / "native" / "src" / "frame.h").read_text()
FLUSH = 2
UPDATE_REQUESTED = 1


class OpenSSL:
    """The primary's side of the encryption, by OpenSSL alone: nothing of it is code of this product."""

    def __init__(self, connected: socket.socket, secret: bytes) -> None:
        self._library = library = ctypes.CDLL(ctypes.util.find_library("ssl"))
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(library, name).restype = ctypes.c_void_p

        @ctypes.CFUNCTYPE(
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_void_p,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_uint,
        )
        def give_secret(_ssl: int, _hint: bytes, identity: int, _room: int, key: int, _key_room: int) -> int:
            ctypes.memmove(identity, b"safekit\0", 8)
            ctypes.memmove(key, secret, len(secret))
            return len(secret)

        self._give_secret = give_secret
        context = ctypes.c_void_p(library.SSL_CTX_new(ctypes.c_void_p(library.TLS_client_method())))
        library.SSL_CTX_set_ciphersuites(context, b"TLS_AES_128_GCM_SHA256")
        library.SSL_CTX_set_psk_client_callback(context, give_secret)
        self._ssl = ctypes.c_void_p(library.SSL_new(context))
        library.SSL_CTX_free(context)
        library.SSL_set_fd(self._ssl, connected.fileno())
        assert library.SSL_connect(self._ssl) == 1

    def send(self, data: bytes) -> None:
        """All of it."""
        assert self._library.SSL_write(self._ssl, data, len(data)) == len(data)

    def receive(self, size: int) -> bytes:
        """Exactly so many bytes."""
        data = bytearray()
        while len(data) < size:
            buffer = ctypes.create_string_buffer(size - len(data))
            got = self._library.SSL_read(self._ssl, buffer, len(buffer))
            assert got > 0
            data += buffer.raw[:got]
        return bytes(data)

    def new_keys(self) -> None:
        """Both directions go on under other keys."""
        assert self._library.SSL_key_update(self._ssl, UPDATE_REQUESTED) == 1
        assert self._library.SSL_do_handshake(self._ssl) == 1

    def put_between(self, record: bytes) -> None:
        """As somebody would who has the cable and not the key."""
        os.write(self._library.SSL_get_fd(self._ssl), record)

    def free(self) -> None:
        """The descriptor stays open."""
        self._library.SSL_free(self._ssl)


@contextmanager
def primary_by_openssl(pair: Pair, wire_version: int) -> Iterator[OpenSSL]:
    """Connects to `b` with the key of the module, up to the offers."""
    key = pair.b.key.read_bytes()
    with socket.create_connection(("127.0.0.1", pair.port), timeout=20) as connected:
        connected.settimeout(None)
        mine = struct.pack("<8sII32s", b"SKRFS\r\n", wire_version, 1, os.urandom(32))
        connected.sendall(mine)
        theirs = connected.recv(len(mine), socket.MSG_WAITALL)
        tls = OpenSSL(connected, hmac.digest(key, b"replication: secret of TLS 1.3", hashlib.sha256))
        try:
            greetings = mine + theirs
            tls.send(hmac.digest(key, b"primary".ljust(16, b"\0") + greetings, hashlib.sha256))
            assert tls.receive(32) == hmac.digest(key, b"secondary".ljust(16, b"\0") + greetings, hashlib.sha256)
            offer = f"module=test\ndirectories={pair.b.settings.names[0]}\ngeneration=1\nfull=1\nsession={'0' * 32}\n".encode()
            tls.send(struct.pack("<I", len(offer)) + offer)
            (size,) = struct.unpack("<I", tls.receive(4))
            assert b"refused" not in tls.receive(size)
            yield tls
        finally:
            tls.free()


def wire_version() -> int:
    """As the header says."""
    found = re.search(r"#define WIRE_VERSION (\d+)", HEADER)
    assert found
    return int(found[1])


def operation(wanted: str) -> int:
    """The number of a kind of frame, as the header says."""
    number = 0
    for name, given in re.findall(r"^    (OP_\w+)(?: = (\d+))?,", HEADER, re.MULTILINE):
        number = int(given) if given else number + 1
        if name == wanted:
            return number
    raise AssertionError(wanted)


def flushed(tls: OpenSSL, seq: int) -> None:
    """Sends a barrier, and takes what comes until it is answered."""
    tls.send(FRAME.pack(FRAME.size, operation("OP_BARRIER"), 1, seq, *([0] * 17), FLUSH, 0, 0, 0, 0))
    while True:
        frame = FRAME.unpack(tls.receive(FRAME.size))
        assert frame[0] == FRAME.size
        if frame[1] == operation("OP_DONE") and frame[3] == seq:
            return


async def test_the_secondary_speaks_tls_as_openssl_does_through_changes_of_keys(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary)) as pair:
        await pair.b.start()
        await pair.listen(pair.b)

        def talk() -> None:
            with primary_by_openssl(pair, wire_version()) as tls:
                for seq in range(1, 9):
                    flushed(tls, seq)
                    tls.new_keys()

        await asyncio.wait_for(in_thread(talk), 30)
        await pair.b.told(PrimaryConnected)
        lost = await pair.b.told(PrimaryLost)
        assert "closed the connection" in lost.reason


async def test_what_somebody_puts_between_the_records_is_not_taken(tmp_path: Path, binary: Path) -> None:
    async with opened(Pair(tmp_path, binary)) as pair:
        await pair.b.start()
        await pair.listen(pair.b)

        def talk() -> None:
            with primary_by_openssl(pair, wire_version()) as tls:
                flushed(tls, 1)
                forged = b"\x17\x03\x03" + struct.pack(">H", FRAME.size + 17) + os.urandom(FRAME.size + 17)
                tls.put_between(forged)
                tls.send(FRAME.pack(FRAME.size, operation("OP_BARRIER"), 1, 2, *([0] * 17), FLUSH, 0, 0, 0, 0))

        await asyncio.wait_for(in_thread(talk), 30)
        await pair.b.told(PrimaryLost)
        assert (await pair.b.plane.status()).applied == 1
