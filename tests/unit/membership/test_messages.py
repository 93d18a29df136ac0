"""Channels checked, messages of the unix socket, and what a client makes of a snapshot."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekit.membership import messages
from safekit.membership.channels import Channel, ChannelError, GroupChannel, GroupLan, HeartbeatChannel, HeartbeatLink
from safekit.membership.events import (
    GroupState,
    HeartbeatState,
    LinkDown,
    LinkTrouble,
    LinkUp,
    MemberPayload,
    PeerAlive,
    PeerDaemon,
    PeerLost,
    PeerPayload,
    PulseEvent,
    RanLate,
    Refused,
    View,
    ViewChanged,
)
from safekit.membership.known import Known

MIRROR = HeartbeatChannel(
    "mirror:db",
    "n1",
    "n2",
    8888,
    bytes(range(32)),
    (HeartbeatLink("default", "192.0.2.11", "192.0.2.12"), HeartbeatLink("flow", "2001:db8::1", "2001:db8::2")),
)
FARM = GroupChannel(
    "farm:web",
    "n2",
    4803,
    bytes(range(32)),
    (
        GroupLan("default", "192.0.2.12", (("n1", "192.0.2.11"), ("n3", "192.0.2.13"))),
        GroupLan("repli", "198.51.100.2", ()),
    ),
    timedelta(milliseconds=250),
    40,
    20,
)
EVENTS: list[PulseEvent] = [
    LinkUp("mirror:db", "default", "n2"),
    LinkDown("mirror:db", "default", "n2", left=True),
    LinkTrouble("mirror:db", "default", "UDP 192.0.2.11 port 8888: already in use"),
    PeerDaemon("mirror:db", "n2", 3),
    Refused("mirror:db", "192.0.2.99", "key differs", "n2"),
    PeerAlive("mirror:db", "n2"),
    PeerLost("mirror:db", "n2"),
    PeerPayload("mirror:db", "n2", {"state": "PRIM", "resources": {"heartbeat.default": "up"}}),
    ViewChanged("farm:web", View(7, "n1", ("n1", "n2"))),
    MemberPayload("farm:web", "n1", {"state": "UP"}),
    RanLate("farm:web", 450),
]


@pytest.mark.parametrize("channel", [MIRROR, FARM])
def test_channel_survives_the_socket(channel: Channel) -> None:
    assert messages.channel_from_json(messages.channel_to_json(channel)) == channel


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_event_survives_the_socket(event: PulseEvent) -> None:
    (message,) = messages.Frames().feed(messages.frame(messages.event_to_json(event)))
    assert messages.event_from_json(message) == event


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.text(), st.integers())), st.integers(1, 50))
def test_frames_are_found_however_the_stream_is_cut(sent: list[dict[str, int]], piece: int) -> None:
    stream = b"".join(map(messages.frame, sent))
    frames = messages.Frames()
    got = [message for at in range(0, len(stream), piece) for message in frames.feed(stream[at : at + piece])]
    assert got == sent


@pytest.mark.parametrize("stream", [b"\xff\xff\xff\xff", b"\0\0\0\2no", b"\0\0\0\2[]"])
def test_stream_of_another_kind_is_refused(stream: bytes) -> None:
    with pytest.raises(messages.BadMessage):
        messages.Frames().feed(stream)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"port": 0}, "channel 'mirror:db': port is 0, expected 1 to 65535"),
        ({"key": b"short"}, "channel 'mirror:db': key is '5 bytes', expected 32 bytes"),
        ({"peer": "n1"}, "channel 'mirror:db': peer is 'n1', expected another node than this one"),
        ({"links": ()}, r"channel 'mirror:db': links is \(\), expected at least one heartbeat"),
        ({"node": "n" * 64}, "channel 'mirror:db': node is 'n+', expected 1 to 63 bytes"),
        (
            {"links": (HeartbeatLink("default", "db.example", "192.0.2.1"),)},
            "channel 'mirror:db': address on default is 'db.example', expected an IPv4 or IPv6 address",
        ),
        (
            {"links": (HeartbeatLink("default", "2001:db8::1", "192.0.2.1"),)},
            "channel 'mirror:db': address on default is '192.0.2.1', expected the same IP version as 2001:db8::1",
        ),
        ({"links": (MIRROR.links[0], MIRROR.links[0])}, "expected each ident once"),
        ({"links": (replace(MIRROR.links[0], timeout=timedelta(milliseconds=700)),)}, "expected more than the pulse"),
        ({"links": (replace(MIRROR.links[0], pulse=timedelta(milliseconds=1)),)}, "pulse is .*, expected at least"),
    ],
)
def test_heartbeat_channel_that_cannot_work_is_refused_with_place_and_value(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ChannelError, match=message):
        replace(MIRROR, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lans": ()}, r"lans is \(\), expected at least one lan"),
        ({"lans": (FARM.lans[0], FARM.lans[0])}, "expected each lan once"),
        (
            {"lans": (GroupLan("default", "192.0.2.12", (("n2", "192.0.2.1"),)),)},
            "peers of default is 'n2', expected other nodes only",
        ),
        ({"slost_count": 1}, "slost_count is 1, expected at least 2"),
        ({"mlost_count": 19}, r"mlost_count is 19, expected at least slost_count \(20\)"),
    ],
)
def test_group_channel_that_cannot_work_is_refused_with_place_and_value(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ChannelError, match=message):
        replace(FARM, **change)  # type: ignore[arg-type]


# --- what the client knows ------------------------------------------------------------------------------------


def mirror_snapshot(**changes: object) -> dict[str, object]:
    return {
        "links": {"default": True, "flow": None},
        "alive": True,
        "payload": {"state": "PRIM"},
        "absent_s": None,
        "troubles": {},
    } | changes


def test_new_daemon_is_told_all_that_is_known() -> None:
    assert Known(MIRROR).missed("mirror:db", mirror_snapshot(troubles={"flow": "no address"})) == [
        LinkTrouble("mirror:db", "flow", "no address"),
        LinkUp("mirror:db", "default", "n2"),
        PeerAlive("mirror:db", "n2"),
        PeerPayload("mirror:db", "n2", {"state": "PRIM"}),
    ]


def test_same_snapshot_again_is_no_news() -> None:
    known = Known(MIRROR)
    known.missed("mirror:db", mirror_snapshot())
    assert known.missed("mirror:db", mirror_snapshot()) == []


def test_pulse_that_does_not_know_yet_takes_nothing_back() -> None:
    known = Known(MIRROR)
    known.missed("mirror:db", mirror_snapshot())
    ignorant = mirror_snapshot(links={"default": None, "flow": None}, alive=None, payload=None)
    assert known.missed("mirror:db", ignorant) == []
    assert isinstance(known.state, HeartbeatState)
    assert known.state.alive is True


def test_what_was_missed_is_told_in_the_order_of_its_happening() -> None:
    known = Known(MIRROR)
    known.missed("mirror:db", mirror_snapshot())
    gone = mirror_snapshot(links={"default": False, "flow": False}, alive=False, payload={"state": "STOP"})
    assert [type(event) for event in known.missed("mirror:db", gone)] == [LinkDown, LinkDown, PeerPayload, PeerLost]


def test_group_snapshot_tells_payloads_before_the_view_that_needs_them() -> None:
    known = Known(FARM)
    node = {"links": {"default": True}, "payload": {"state": "UP"}, "absent_s": 4}
    snapshot = {"view": [3, "n1", ["n1", "n2"]], "nodes": {"n1": node}, "troubles": {}}
    assert known.missed("farm:web", snapshot) == [
        LinkUp("farm:web", "default", "n1"),
        MemberPayload("farm:web", "n1", {"state": "UP"}),
        PeerDaemon("farm:web", "n1", 4),
        ViewChanged("farm:web", View(3, "n1", ("n1", "n2"))),
    ]
    assert isinstance(known.state, GroupState)
    assert known.state.daemon_absent_s == {"n1": 4}
    assert known.missed("farm:web", snapshot) == []


def test_redefined_channel_keeps_the_links_that_remain() -> None:
    known = Known(MIRROR)
    known.missed("mirror:db", mirror_snapshot(links={"default": True, "flow": True}))
    known.redefined(replace(MIRROR, links=(MIRROR.links[0], HeartbeatLink("third", "192.0.2.1", "192.0.2.2"))))
    assert isinstance(known.state, HeartbeatState)
    assert known.state.links == {"default": True, "third": None}
