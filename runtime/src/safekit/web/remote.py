"""Asks another node of the cluster through its web service. Blocking: the command line calls it, the console in threads.

Every trouble on the way is one `Unreachable` with the words that a person reads beside the server's address.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import Any

from safekit.afar import FOR
from safekit.web import proof

CONNECT_S = 10.0
LONGEST_ANSWER = 64 * 1024 * 1024


class Unreachable(Exception):
    """The server could not be asked, or what came back is not proven to be its own."""


def ask(
    address: str, port: int, key: bytes, person: str, method: str, target: str, body: bytes, timeout: float
) -> tuple[int, bytes]:
    """One operation of the API there: status and body. `timeout`, in seconds, is for the answer."""
    try:
        with socket.create_connection((address, port), CONNECT_S) as plain:
            with _context().wrap_socket(plain) as connection:
                return _exchange(connection, key, person, method, target, body, timeout)
    except TimeoutError:
        raise Unreachable("connection error: no answer in time") from None
    except ssl.SSLError as trouble:
        raise Unreachable(f"connection error: TLS: {trouble.reason or trouble}") from None
    except socket.gaierror as trouble:
        raise Unreachable(f"connection error: {address} has no address: {trouble.strerror}") from None
    except OSError as trouble:
        raise Unreachable(f"connection error: {trouble.strerror or trouble}") from None
    except (http.client.HTTPException, ValueError) as trouble:
        raise Unreachable(f"connection error: what answers there is no web service of SafeKit ({trouble!r})") from None


def _exchange(
    connection: ssl.SSLSocket, key: bytes, person: str, method: str, target: str, body: bytes, timeout: float
) -> tuple[int, bytes]:
    certificate = connection.getpeercert(binary_form=True)
    if certificate is None:
        raise Unreachable("connection error: the server showed no certificate")
    shown = proof.fingerprint(certificate)
    speaking: Any = http.client.HTTPConnection("safekit")
    speaking.sock, speaking.auto_open = connection, 0
    speaking.request("GET", "/api/challenge")
    asked = speaking.getresponse()
    challenge = asked.read(1024).decode("ascii").strip()
    if asked.status != 200:
        raise Unreachable(f"connection error: what answers there is no web service of SafeKit (status {asked.status})")
    fields = {
        FOR: person,
        proof.CHALLENGE: challenge,
        proof.PROOF: proof.of_request(key, shown, challenge, person, method, target, body),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    connection.settimeout(timeout)
    speaking.request(method, target, body, fields)
    answered = speaking.getresponse()
    content = bytes(answered.read(LONGEST_ANSWER + 1))
    if len(content) > LONGEST_ANSWER:
        raise Unreachable("connection error: the answer is larger than 64 MiB")
    given = answered.headers.get(proof.ANSWER, "")
    if not proof.same(given, proof.of_answer(key, shown, challenge, answered.status, content)):
        raise Unreachable(_not_proven(int(answered.status)))
    return int(answered.status), content


def _not_proven(status: int) -> str:
    if status == 401:
        return "refused: it does not have the key of this cluster (`safekit cluster confinfo` there and here)"
    if status == 503:
        return "connection error: its safekitd is not running, or it has too much to do"
    return f"connection error: the answer (status {status}) is not proven to be of this cluster"


def _context() -> ssl.SSLContext:
    """Nobody signs the certificates of nodes: who is at the other end is proven by the key of the cluster."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
