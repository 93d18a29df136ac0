"""How nodes of one cluster vouch for a request, without passwords and without a certificate authority.

Both have the key that `safekit.afar.web_key` makes from the cluster's. The one that asks first gets a challenge, which is good
once and for a short time; then it proves that it has the key, over the whole request, the challenge, and the certificate that it
was shown. So a proof is of no use for another request, a second time, or to somebody between the two, who can only show
another certificate. The answer is proven too: what cannot be the cluster's own is not shown to anybody.

Nothing here depends on a clock that both nodes have.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import ssl
from collections.abc import Callable

CHALLENGE = "x-safekit-challenge"
PROOF = "x-safekit-proof"
ANSWER = "x-safekit-answer"
GOOD_FOR_S = 30.0
_RANDOM = 16


def fingerprint(certificate: bytes) -> bytes:
    """What names a certificate (DER)."""
    return hashlib.sha256(certificate).digest()


def first_certificate(pem: str) -> bytes:
    """The certificate of the server itself out of a file that may hold its chain behind it. ValueError."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start, stop = pem.find(begin), pem.find(end)
    if start < 0 or stop < start:
        raise ValueError("expected a certificate in PEM")
    return ssl.PEM_cert_to_DER_cert(pem[start : stop + len(end)])


def of_request(key: bytes, shown: bytes, challenge: str, person: str, method: str, target: str, body: bytes) -> str:
    """The proof of a request. `shown`: the fingerprint of the server's certificate; `target`: path and query."""
    return _sealed(key, b"request", shown, challenge, person, method, target, hashlib.sha256(body).digest())


def of_answer(key: bytes, shown: bytes, challenge: str, status: int, body: bytes) -> str:
    """The proof of the answer to the request of this challenge."""
    return _sealed(key, b"answer", shown, challenge, str(status), hashlib.sha256(body).digest())


def same(one: str, other: str) -> bool:
    """Whether two proofs are the same; the time that it takes tells nothing."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


class Challenges:
    """Made without remembering them, so that nobody can fill a memory by asking; remembered once they were used."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._used: dict[str, float] = {}

    def make(self) -> str:
        """A new one."""
        until = int((self._clock() + GOOD_FOR_S) * 1000)
        return self._written(until, secrets.token_hex(_RANDOM))

    def is_good(self, challenge: str) -> bool:
        """Whether it is one of ours, not too old and not used."""
        until, _, rest = challenge.partition(".")
        random, _, _ = rest.partition(".")
        if not until.isascii() or not until.isdigit() or len(until) > 18:
            return False
        if not same(challenge, self._written(int(until), random)):
            return False
        return int(until) >= self._clock() * 1000 and challenge not in self._used

    def use(self, challenge: str) -> None:
        """It was answered by who has the key: it is not good any more."""
        now = self._clock()
        self._used = {one: until for one, until in self._used.items() if until >= now}
        self._used[challenge] = now + GOOD_FOR_S

    def _written(self, until: int, random: str) -> str:
        seal = hmac.digest(self._secret, f"{until}.{random}".encode("utf-8", "surrogatepass"), hashlib.sha256)
        return f"{until}.{random}.{seal.hex()}"


def _sealed(key: bytes, *parts: bytes | str) -> str:
    """Each part with its length before it: two different lists never give the same bytes."""
    seal = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        seal.update(len(content).to_bytes(8, "big") + content)
    return seal.hexdigest()
