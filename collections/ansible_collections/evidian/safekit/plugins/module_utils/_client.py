# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The local API of a node, spoken with the standard library over its unix socket. A refusal of the node is an ApiError
# with its facts as fields; a daemon that cannot be reached is a NoDaemon. Nothing here decides anything.
#
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any, Optional
from urllib.parse import quote, urlencode

DEFAULT_SOCKET = "/run/safekit/safekitd.sock"
BASE = "/api/v1"

# (method, path with query, body or None, seconds) -> (status, body)
Transport = Callable[[str, str, Optional[bytes], float], "tuple[int, bytes]"]


class ApiError(Exception):
    """The node refused. ``code`` is stable, ``message`` one sentence, ``facts`` the other fields of the answer."""

    def __init__(self, status: int, code: str, message: str, facts: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.facts = dict(facts)

    def describe(self) -> str:
        """The message, with the place in the configuration when the node named one that the message does not hold."""
        named = [(name, self.facts.get(name)) for name in ("file", "line", "element", "attribute", "value", "expected")]
        missing = [f"{name}: {fact}" for name, fact in named if fact not in (None, "") and not self._says(str(fact))]
        return self.message if not missing else "{} ({})".format(self.message, ", ".join(missing))

    def _says(self, word: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.message) is not None


class NoDaemon(Exception):
    """safekitd cannot be reached. ``installed`` is False when not even its socket exists."""

    def __init__(self, path: str, reason: str, installed: bool) -> None:
        super().__init__(f"safekitd cannot be reached at {path}: {reason}")
        self.path = path
        self.reason = reason
        self.installed = installed


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        self.sock.connect(self._path)


class SocketTransport:
    """One connection per request: a node is asked a handful of questions, and safekitd may be restarted in between."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, method: str, path: str, body: Optional[bytes], seconds: float) -> tuple[int, bytes]:
        connection = _UnixConnection(self._path, seconds)
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except FileNotFoundError:
            raise NoDaemon(self._path, "no such socket", installed=False) from None
        except socket.timeout:
            raise NoDaemon(self._path, f"no answer to {method} {path} within {seconds:g} s", installed=True) from None
        except (OSError, http.client.HTTPException) as error:
            raise NoDaemon(self._path, str(error) or type(error).__name__, installed=True) from None
        finally:
            connection.close()


class Client:
    """Questions and orders to one node; every answer is a mapping."""

    def __init__(self, transport: Transport, seconds: float = 60.0) -> None:
        self._transport = transport
        self._seconds = seconds

    def get(self, *parts: str, seconds: Optional[float] = None, **query: Any) -> dict[str, Any]:
        return self.call("GET", path_of(*parts, **query), None, seconds)

    def call(
        self, method: str, path: str, body: Optional[Mapping[str, Any]], seconds: Optional[float] = None
    ) -> dict[str, Any]:
        payload = None if body is None else json.dumps(body).encode("utf-8")
        status, raw = self._transport(method, BASE + path, payload, self._seconds if seconds is None else seconds)
        try:
            answer = json.loads(raw.decode("utf-8")) if raw else {}
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ApiError(status, "answer.invalid", f"{method} {path}: the answer is no JSON object", {})
        if status >= 400:
            facts = answer.get("error")
            facts = dict(facts) if isinstance(facts, dict) else {}
            code = str(facts.pop("code", "unknown"))
            message = str(facts.pop("message", "") or f"{method} {path} was answered with status {status}")
            raise ApiError(status, code, message, facts)
        return answer


def path_of(*parts: str, **query: Any) -> str:
    """``/modules/db/wait?state=PRIM``, each part quoted; a query value None is left out."""
    path = "".join("/" + quote(part, safe="") for part in parts)
    given = {name: value for name, value in query.items() if value is not None}
    return path + ("?" + urlencode(given, safe=",") if given else "")
