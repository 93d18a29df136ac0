"""Who is logged in, and how often somebody may try. In memory only: a restart of the web service logs everybody out.

The cookie's value is kept as its digest. Time comes in as a clock that only goes forward.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from safekit.web.accounts import Account

IDLE_S = 28_800.0
"""A session ends after so long without an action or a page (spec §9.1); what a page asks for by itself does not count."""
LONGEST_S = 7 * 86_400.0
MOST_SESSIONS = 500

FREE_ATTEMPTS = 5
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = {"address": 900.0, "user": 30.0}
"""A user is kept out shortly only: nobody shall lock out another by failing in his name."""
FORGOTTEN_S = 3_600.0
MOST_KNOWN = 10_000


@dataclass
class Session:
    """One login. `token` is in each form: only a page of ours knows it. `notice` is shown once."""

    account: Account
    address: str
    began: float
    used: float
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    notice: str = ""

    def has_token(self, token: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(self.token.encode(), token.encode("utf-8", "surrogatepass"))


class Sessions:
    """All sessions, the longest unused first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def open(self, account: Account, address: str) -> str:
        """A new session; the value of its cookie."""
        cookie, now = secrets.token_urlsafe(32), self._clock()
        while len(self._sessions) >= MOST_SESSIONS:
            self._sessions.popitem(last=False)
        self._sessions[_digest(cookie)] = Session(account, address, now, now)
        return cookie

    def find(self, cookie: str, *, use: bool) -> Session | None:
        """The session of a cookie, None if there is none any more. `use`: a person did something."""
        key, now = _digest(cookie), self._clock()
        session = self._sessions.get(key)
        if session is None:
            return None
        if now - session.used > IDLE_S or now - session.began > LONGEST_S:
            del self._sessions[key]
            return None
        if use:
            session.used = now
            self._sessions.move_to_end(key)
        return session

    def close(self, cookie: str) -> None:
        """Log out."""
        self._sessions.pop(_digest(cookie), None)


class Attempts:
    """After some failures from an address, or for a user, each further one doubles the pause before the next."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def pause(self, address: str, user: str) -> float:
        """How long until the next attempt is looked at, in seconds; 0 when it is now."""
        return max(self._left(key) for key in _keys(address, user))

    def failed(self, address: str, user: str) -> None:
        """Remember a failure."""
        now = self._clock()
        for key in _keys(address, user):
            count, last = self._failures.pop(key, (0, now))
            self._failures[key] = (1 if now - last > FORGOTTEN_S else count + 1, now)
        while len(self._failures) > MOST_KNOWN:
            self._failures.popitem(last=False)

    def succeeded(self, address: str, user: str) -> None:
        """The address is that of somebody who knows his password."""
        for key in _keys(address, user):
            self._failures.pop(key, None)

    def _left(self, key: tuple[str, str]) -> float:
        count, last = self._failures.get(key, (0, 0.0))
        if count < FREE_ATTEMPTS:
            return 0.0
        pause = min(FIRST_PAUSE_S * 2.0 ** min(count - FREE_ATTEMPTS, 20), LONGEST_PAUSE_S[key[0]])
        return max(last + pause - self._clock(), 0.0)


def _keys(address: str, user: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Who has an IPv6 network has all of its addresses."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ("address", address), ("user", user)
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        address = str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return ("address", address), ("user", user)


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).digest()
