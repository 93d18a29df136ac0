"""The certificate of the web service, made before its first start: `python -m safekit.web.certificate`, as root.

`server.crt` and `server.key` (PEM) in `Paths.web`. Who has a certificate of an authority puts it there under these names, its
chain behind it, and restarts the service; it is never written over. Nodes do not need it to be signed: they prove who they are
(`proof.py`). Browsers ask about it once.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from safekit.files import sync_folder
from safekit.paths import Paths
from safekit.web.accounts import make_folder, show_to_service

_LIFE = timedelta(days=7300)
"""20 years, as the spec has it (§10.2)."""


class Unusable(Exception):
    """The files are not a certificate and its key; the text says which and why."""


def ensure(paths: Paths, host: str, addresses: list[str], now: datetime) -> bool:
    """Have certificate and key; True if they were made. Unusable for files that are no pair."""
    make_folder(paths.web)
    certificate, key = paths.web_certificate
    there = [path for path in (certificate, key) if path.exists()]
    if len(there) == 1:
        missing = key if there == [certificate] else certificate
        raise Unusable(f"{there[0]} is there and {missing.name} is not: give both, or neither and a pair is made")
    if not there:
        made = _made(host, addresses, now)
        for path, content in zip((key, certificate), made, strict=True):
            _write(path, content)
    for path in (certificate, key):
        show_to_service(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError, ValueError) as trouble:
        raise Unusable(
            f"{certificate}, {key}: expected a certificate and its unencrypted key in PEM ({trouble})"
        ) from None
    return not there


def _made(host: str, addresses: list[str], now: datetime) -> tuple[bytes, bytes]:
    """Key and certificate for this host."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    alternatives: list[x509.GeneralName] = [x509.DNSName(one) for one in dict.fromkeys((host, "localhost"))]
    alternatives += [x509.IPAddress(_ip(one)) for one in dict.fromkeys((*addresses, "127.0.0.1", "::1"))]
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A node whose clock is behind must not refuse it.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    kept = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return kept, certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: what a crash leaves under the final name is complete."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_folder(path.parent)


def _ip(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text.partition("%")[0])


def _own_addresses(host: str) -> list[str]:
    """What the name of this machine stands for."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(one[4][0]) for one in found]


def main() -> None:
    """What the unit runs before the service."""
    os.umask(0o077)
    host = socket.gethostname()
    try:
        made = ensure(Paths(), host, _own_addresses(host), datetime.now(UTC))
    except (Unusable, OSError) as trouble:
        sys.exit(str(trouble))
    if made:
        print(f"made a certificate for {host} in {Paths().web}")


if __name__ == "__main__":
    main()
