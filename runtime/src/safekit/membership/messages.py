"""What `safekitd` and `safekit-pulse` say to each other over the unix socket: frames of JSON, and the values in them.
No socket here.

A frame is a length (4 bytes, big-endian) and one JSON object. Requests carry an `id` and get one reply with it:

    {"id", "do": "hello", "role": "daemon" | "observer"}     -> {"id", "ok": true, "pid", "channels": {name:
    snapshot}} {"id", "do": "set", "channel": {...}}                    -> {"id", "ok": true, "snapshot": {...}}
    {"id", "do": "remove", "name"}                           -> {"id", "ok": true} {"id", "do": "keep", "names":
    [...]}                     -> {"id", "ok": true, "removed": [...]} {"id", "do": "publish", "name", "payload":
    {...}}        -> {"id", "ok": true}     after it went out refused
    -> {"id", "error": {"message", "field", "value", "expected"}}

    {"id", "do": "lease", "name", "length", "needed", "addresses"} -> {"id", "ok": true}
    {"id", "do": "renewed", "name", "sent_at"}               -> {"id", "ok": true}

After its `hello` a connection also gets events: {"event": "LinkUp", ...fields}.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from safekit.membership import events
from safekit.membership.channels import Channel, GroupChannel, GroupLan, HeartbeatChannel, HeartbeatLink
from safekit.membership.events import PulseEvent, View

LARGEST_FRAME = 1024 * 1024

_EVENTS = {
    kind.__name__: kind
    for kind in (
        events.LinkUp,
        events.LinkDown,
        events.LinkTrouble,
        events.PeerDaemon,
        events.Refused,
        events.PeerAlive,
        events.PeerLost,
        events.PeerPayload,
        events.ViewChanged,
        events.MemberPayload,
        events.RanLate,
        events.LeaseAsks,
        events.LeaseEnded,
    )
}


class BadMessage(ValueError):
    """The other side of the unix socket does not speak this protocol."""


def frame(message: dict[str, Any]) -> bytes:
    """One message as it goes over the socket."""
    text = json.dumps(message, separators=(",", ":")).encode()
    return len(text).to_bytes(4, "big") + text


class Frames:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that are complete now; raises `BadMessage`."""
        self._bytes += data
        messages: list[dict[str, Any]] = []
        while len(self._bytes) >= 4:
            size = int.from_bytes(self._bytes[:4], "big")
            if size > LARGEST_FRAME:
                raise BadMessage(f"a frame of {size} bytes, expected at most {LARGEST_FRAME}")
            if len(self._bytes) < 4 + size:
                break
            try:
                message = json.loads(self._bytes[4 : 4 + size])
            except ValueError as error:
                raise BadMessage(f"a frame that is no JSON: {error}") from None
            if not isinstance(message, dict):
                raise BadMessage("a frame that is no JSON object")
            messages.append(message)
            self._bytes = self._bytes[4 + size :]
        return messages


def _ms(duration: timedelta) -> float:
    return duration.total_seconds() * 1000


def channel_to_json(channel: Channel) -> dict[str, Any]:
    """A channel as JSON, its key included: for the 0600 socket and state file only."""
    common = {"name": channel.name, "node": channel.node, "port": channel.port, "key": channel.key.hex()}
    if isinstance(channel, HeartbeatChannel):
        return common | {
            "kind": "heartbeat",
            "peer": channel.peer,
            "links": [
                {
                    "ident": link.ident,
                    "local": link.local,
                    "remote": link.remote,
                    "pulse_ms": _ms(link.pulse),
                    "timeout_ms": _ms(link.timeout),
                }
                for link in channel.links
            ],
        }
    return common | {
        "kind": "group",
        "lans": [
            {"name": lan.name, "local": lan.local, "peers": [list(peer) for peer in lan.peers]} for lan in channel.lans
        ],
        "pulse_ms": _ms(channel.pulse),
        "mlost_count": channel.mlost_count,
        "slost_count": channel.slost_count,
    }


def channel_from_json(data: dict[str, Any]) -> Channel:
    """The channel in a message; raises `ChannelError` or `BadMessage`."""
    try:
        key = bytes.fromhex(data["key"])
        if data["kind"] == "heartbeat":
            links = tuple(
                HeartbeatLink(
                    link["ident"],
                    link["local"],
                    link["remote"],
                    timedelta(milliseconds=link["pulse_ms"]),
                    timedelta(milliseconds=link["timeout_ms"]),
                )
                for link in data["links"]
            )
            return HeartbeatChannel(data["name"], data["node"], data["peer"], data["port"], key, links)
        if data["kind"] == "group":
            lans = tuple(
                GroupLan(lan["name"], lan["local"], tuple((node, address) for node, address in lan["peers"]))
                for lan in data["lans"]
            )
            return GroupChannel(
                data["name"],
                data["node"],
                data["port"],
                key,
                lans,
                timedelta(milliseconds=data["pulse_ms"]),
                data["mlost_count"],
                data["slost_count"],
            )
    except (KeyError, TypeError) as error:
        raise BadMessage(f"a channel without {error}") from None
    raise BadMessage(f"a channel of kind {data['kind']!r}, expected heartbeat or group")


def event_to_json(event: PulseEvent) -> dict[str, Any]:
    """An event as a message."""
    fields = dict(vars(event))
    if isinstance(event, events.ViewChanged):
        fields["view"] = [event.view.epoch, event.view.leader, list(event.view.members)]
    return {"event": type(event).__name__} | fields


def event_from_json(message: dict[str, Any]) -> PulseEvent:
    """The event in a message; raises `BadMessage`."""
    fields = dict(message)
    try:
        kind = _EVENTS[fields.pop("event")]
        if kind is events.ViewChanged:
            fields["view"] = view_from_json(fields["view"])
        return kind(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise BadMessage(f"an unknown event: {error}") from None


def view_from_json(data: list[Any]) -> View:
    """(epoch, leader, members) as JSON has it."""
    epoch, leader, members = data
    return View(epoch, leader, tuple(members))
