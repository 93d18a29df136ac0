"""What travels between a node and its witness: requests and replies as values and as bytes. No socket, no clock.

Each is the body of one sealed datagram (`membership/sealed.py`), JSON in a fixed shape. The seal proves the cluster and
the node, so no body names them. A request carries the `life` of the witness that it believes to speak to: a witness that
has just started accepts nothing that was said before it did, recorded datagrams included, and answers with its life.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from safekit.automaton.register import Claim, Ground, Verdict

CLAIMS, ANSWERS = "claims", "answers"
"""The two links of a channel: to the witness and back."""
WITNESS = "@witness"
"""The sender of the answers: no node can have this name."""
BODY_BYTES = 1200

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,62}", re.ASCII)
_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}", re.ASCII)
_LIFE = re.compile(r"[0-9a-f]{0,64}", re.ASCII)
_LARGEST = 2**63
_MOST_HOLDERS = 4
_LONGEST_WHY = 300
_LONGEST_LEASE_S = 3600.0


class Malformed(ValueError):
    """An authentic body that is no message: the other side runs another release."""


@dataclass(frozen=True)
class Request:
    """A node asks about `module`: to look at the register, or, with `claim`, to change it.

    `exceed`: the node has seen a life of this witness with that number; an earlier one is not believed. `lease`: seconds;
    with a claim how long this node's leases are, without one a lease that it asks to be renewed (0: none).
    """

    life: str
    module: str
    boot: str
    number: int
    claim: Claim | None = None
    exceed: int = 0
    lease: float = 0.0


@dataclass(frozen=True)
class Reply:
    """The witness answers request `number`.

    `verdict` answers a claim; without it `epoch` and `holders` are the register as it is (0: there is none). `trouble`: it
    cannot be told, and why. Number 0: only `life` is told, ask again with it. `exceed`: the request was sealed in an
    earlier life of the node than one already seen; a life with a greater number is believed. `renewed`: the lease that was
    asked for is. `held_s`: the claim is to be put again in so many seconds, because it excludes who may still serve.
    """

    life: str
    module: str = ""
    boot: str = ""
    number: int = 0
    epoch: int = 0
    holders: frozenset[str] = frozenset()
    verdict: bool | None = None
    why: str = ""
    trouble: str = ""
    exceed: int = 0
    renewed: bool = False
    held_s: float = 0.0


def channel(cluster: str) -> str:
    """The name under which the datagrams of a cluster and its witness are sealed."""
    return f"witness:{cluster}"


def encode_request(request: Request) -> bytes:
    """A request as the body of a datagram."""
    value: dict[str, Any] = {"l": request.life, "m": request.module, "b": request.boot, "n": request.number}
    claim = request.claim
    if request.exceed:
        value["x"] = request.exceed
    if request.lease:
        value["d"] = round(request.lease * 1000)
    if claim is not None:
        value |= {"e": claim.epoch, "h": sorted(claim.holders), "w": sorted(claim.wanted), "g": claim.ground.value}
    return _bytes(value)


def decode_request(body: bytes, cluster: str, node: str) -> Request:
    """The request of `node` in an authentic body. Raises Malformed."""
    value = _object(body)
    life, module, boot = _text(value, "l", _LIFE), _text(value, "m", _MODULE), _text(value, "b", _LIFE)
    number, claim = _whole(value, "n"), None
    if "e" in value:
        try:
            ground = Ground(str(value.get("g")))
        except ValueError:
            raise Malformed(f"ground {value.get('g')!r}") from None
        held, wanted = _names(value, "h"), _names(value, "w")
        claim = Claim(cluster, module, _whole(value, "e"), held, wanted, node, boot, number, ground)
    exceed = _whole(value, "x") if "x" in value else 0
    return Request(life, module, boot, number, claim, exceed, _seconds(value, "d", _LONGEST_LEASE_S))


def encode_reply(reply: Reply) -> bytes:
    """A reply as the body of a datagram."""
    value: dict[str, Any] = {"l": reply.life}
    if reply.exceed:
        value["x"] = reply.exceed
    if reply.number:
        value |= {"m": reply.module, "b": reply.boot, "n": reply.number}
        if reply.trouble:
            value["t"] = _short(reply.trouble)
        else:
            value |= {"e": reply.epoch, "h": sorted(reply.holders)}
            if reply.renewed:
                value["k"] = True
            if reply.held_s:
                value["u"] = max(round(reply.held_s * 1000), 1)
            if reply.verdict is not None:
                value |= {"v": reply.verdict, "y": _short(reply.why)}
    return _bytes(value)


def decode_reply(body: bytes) -> Reply:
    """The reply in an authentic body. Raises Malformed."""
    value = _object(body)
    life = _text(value, "l", _LIFE)
    exceed = _whole(value, "x") if "x" in value else 0
    if "n" not in value:
        return Reply(life, exceed=exceed)
    module, boot, number = _text(value, "m", _MODULE), _text(value, "b", _LIFE), _whole(value, "n")
    if "t" in value:
        return Reply(life, module, boot, number, trouble=_words(value, "t"))
    verdict = value.get("v")
    if verdict is not None and not isinstance(verdict, bool):
        raise Malformed(f"verdict {verdict!r}")
    why = _words(value, "y") if verdict is not None else ""
    return Reply(
        life,
        module,
        boot,
        number,
        _whole(value, "e"),
        _names(value, "h"),
        verdict,
        why,
        renewed=value.get("k") is True,
        held_s=_seconds(value, "u", 2 * _LONGEST_LEASE_S),
    )


def answered(reply: Reply, node: str) -> Verdict:
    """The verdict in a reply to a claim of `node`."""
    assert reply.verdict is not None
    return Verdict(reply.verdict, reply.epoch, reply.holders, node, reply.boot, reply.number, reply.why)


def _bytes(value: dict[str, Any]) -> bytes:
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    if len(body) > BODY_BYTES:
        raise ValueError(f"a message of {len(body)} bytes, expected at most {BODY_BYTES}")
    return body


def _short(text: str) -> str:
    return text.encode()[:_LONGEST_WHY].decode(errors="ignore")


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON: {error}") from None
    if not isinstance(value, dict):
        raise Malformed(f"a {type(value).__name__}, expected an object")
    return value


def _text(value: dict[str, Any], field: str, pattern: re.Pattern[str]) -> str:
    text = value.get(field)
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        raise Malformed(f"{field} is {text!r}")
    return text


def _words(value: dict[str, Any], field: str) -> str:
    text = value.get(field)
    if not isinstance(text, str):
        raise Malformed(f"{field} is {text!r}")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _whole(value: dict[str, Any], field: str) -> int:
    number = value.get(field)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < _LARGEST:
        raise Malformed(f"{field} is {number!r}")
    return number


def _seconds(value: dict[str, Any], field: str, longest: float) -> float:
    """A duration that travels in milliseconds; 0 when it is not there."""
    seconds = _whole(value, field) / 1000 if field in value else 0.0
    if seconds > longest:
        raise Malformed(f"{field} is {value[field]!r}")
    return seconds


def _names(value: dict[str, Any], field: str) -> frozenset[str]:
    names = value.get(field)
    if not isinstance(names, list) or len(names) > _MOST_HOLDERS:
        raise Malformed(f"{field} is {names!r}")
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise Malformed(f"{field} is {names!r}")
    return frozenset(names)
