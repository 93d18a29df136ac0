"""The UDP socket of one link: bound to the node's own address there, made again when it broke. Nothing is decided here.

A link outlives its network: the address may not exist yet, vanish with its interface and come back. So binding does
not require the address (`IP_FREEBIND`), a failed send is a fact to tell and not an error, and a socket that could not
be made is tried again.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_LARGEST_DATAGRAM = 2048
_AT_ONCE = 64
"""Datagrams taken from one socket before the others get their turn."""

RETRY_S = 0.5


def arrived(datagrams: socket.socket) -> Iterator[tuple[bytes, Any]]:
    """What has arrived: (datagram, source). Bounded, so that a flood on one socket does not silence the others.

    It ends when the socket is closed over a datagram.
    """
    for _ in range(_AT_ONCE):
        if datagrams.fileno() < 0:
            return
        try:
            datagram, source = datagrams.recvfrom(_LARGEST_DATAGRAM)
        except BlockingIOError:
            return
        except OSError:
            continue  # A pending error of what was sent earlier; taking it clears it.
        yield datagram, source


class LinkSocket:
    """One link of one channel on this node."""

    def __init__(self, local: str, port: int) -> None:
        self._local, self._port = local, port
        self._v6 = ":" in local
        self._socket: socket.socket | None = None
        self._retry_at = 0.0
        self.trouble: str | None = None
        """Why the link cannot be used now; None when it can."""

    def fileno(self) -> int:
        """For a selector; -1 while there is no socket."""
        return -1 if self._socket is None else self._socket.fileno()

    def open(self, now: float) -> bool:
        """Make the socket if there is none and it is time to try; True when a new one was made."""
        if self._socket is not None or now < self._retry_at:
            return False
        self._retry_at = now + RETRY_S
        made = socket.socket(socket.AF_INET6 if self._v6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if self._v6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            else:
                made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            made.bind((self._local, self._port))
        except OSError as error:
            made.close()
            taken = error.errno == errno.EADDRINUSE
            self.trouble = f"UDP {self._local} port {self._port}: " + (
                "already in use" if taken else os.strerror(error.errno or 0)
            )
            return False
        self._socket = made
        self.trouble = None
        return True

    def send(self, datagram: bytes, targets: Sequence[str]) -> None:
        """Send to every target address; `trouble` says afterwards whether any could be sent."""
        if self._socket is None:
            return
        failure: OSError | None = None
        sent = False
        for target in targets:
            try:
                self._socket.sendto(datagram, (target, self._port))
                sent = True
            except BlockingIOError:
                sent = True  # The queue of the interface is full: as good as lost on the way.
            except ConnectionRefusedError:
                sent = True  # An ICMP answer to an earlier datagram: the peer has no socket yet.
            except OSError as error:
                failure = error
        if sent or not targets:
            self.trouble = None
        elif failure is not None:
            self.trouble = f"UDP {self._local} port {self._port}: {os.strerror(failure.errno or 0)}"

    def received(self) -> Iterator[tuple[bytes, str]]:
        """What has arrived, as `arrived`: (datagram, source address)."""
        if self._socket is not None:
            for datagram, source in arrived(self._socket):
                yield datagram, source[0]

    def answer(self, datagram: bytes, target: str) -> None:
        """Send one datagram where another came from, if that is possible."""
        if self._socket is not None:
            try:
                self._socket.sendto(datagram, (target, self._port))
            except OSError:
                return

    def close(self) -> None:
        """Give the port back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
