"""What may be asked of a node through the network, and with which key nodes vouch for each other.

What is not in `_OPERATIONS` cannot be done from afar, whoever asks: `safekitd` itself refuses it on the socket of the web
service. So nothing that comes through the network, and not the web service either, installs or removes anything, changes the
cluster or learns its key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

USER = "safekit-web"
"""The account of the web service; it owns nothing."""

FOR = "x-safekit-for"
"""The header in which the web service says for whom it asks; `safekit cmdlog` shows it."""

PORT = 9453
"""TCP, HTTPS (spec §10.3)."""

_MODULE = r"/modules/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
_OPERATIONS = re.compile(
    "|".join(
        (
            r"GET /(node|cluster|cluster/state|cmdlog|modules)",
            rf"GET {_MODULE}(/(state|wait|resources|resources/[^?]+|log|why|farm|errd|rfs/stats|rfs/comparison))?",
            rf"POST {_MODULE}/(config|confcheck|update|deconfig|loop|log|rfs/comparison|actions/[a-z]+)",
            rf"PUT {_MODULE}/(boot|checker|errd|errd/[^/?]+|failover|farm|rfs/sync|resources/[^?]+)",
        )
    )
)
_PERSON = re.compile(r"[A-Za-z0-9_.@:%-]{1,128}")


def possible(method: str, path: str) -> bool:
    """Whether this operation of the API (its path without `/api/v1` and without query) can be asked for from afar."""
    return _OPERATIONS.fullmatch(f"{method} {path}") is not None and ".." not in path.split("/")


def is_person(text: str) -> bool:
    """Whether this can stand for who asks: `admin@192.0.2.7`."""
    return _PERSON.fullmatch(text) is not None


def web_key(cluster_key: bytes) -> bytes:
    """The key with which the nodes of a cluster vouch for requests: it does not tell the key that it is made from."""
    return hmac.digest(cluster_key, b"safekit: requests between the web services of a cluster, 1", hashlib.sha256)


def command_addresses(lans: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Node -> its address on the lan for commands (spec §2), out of the `lans` that the API tells."""
    chosen = next((lan for lan in lans if lan["command"]), lans[0])
    return {node["name"]: node["addr"].strip("[]") for node in chosen["nodes"]}
