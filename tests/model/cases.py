"""Sequences that once failed, shrunk. Each says what it showed; `test_model.py` runs them all, every time."""

from __future__ import annotations

from tests.model.trial import Request

CASES: dict[str, list[Request]] = {
    "what was allocated and read is no hole on either side": [
        ("allocate", {"mode": 0, "offset": 0, "size": 10, "slot": 1}),
        ("copy_range", {"offset": 0, "size": 10, "slot": 0, "source": 1, "source_offset": 0}),
    ],
    "a write from outside the group takes set-group-id away also where the group may not execute": [
        ("open", {"flags": 0o102, "mode": 0o2644, "path": b"new", "slot": 0}),
        ("pwrite", {"offset": 0, "seed": 0, "size": 10, "slot": 0, "user": 1}),
        ("stat_open", {"slot": 0}),
    ],
    "what changes a file takes its set-id bits away, whatever the request": [
        ("chmod", {"path": b"a", "mode": 0o6777}),
        ("allocate", {"mode": 1, "offset": 1, "size": 4097, "slot": 0, "user": 1}),
        ("chmod", {"path": b"d/a", "mode": 0o6777}),
        ("copy_range", {"slot": 1, "source": 0, "source_offset": 0, "size": 100, "offset": 0, "user": 1}),
        ("stat_open", {"slot": 1}),
    ],
    "set-group-id without execution by the group stays when root gives the file to another owner": [
        ("chmod", {"path": b"a", "mode": 0o2644}),
        ("chown", {"path": b"a", "uid": -1, "gid": 1000, "follow": False}),
        ("chown", {"path": b"a", "uid": 1001, "gid": -1, "follow": True}),
        ("chmod", {"path": b"d/a", "mode": 0o6755}),
        ("chown_open", {"slot": 1, "uid": 1000, "gid": 1001}),
        ("make_special", {"path": b"pipe", "mode": 0o16700, "device": 0}),
        ("chown", {"path": b"pipe", "uid": 1000, "gid": -1, "follow": True}),
    ],
    "set-id bits go when an owner who is in another group gives the file to his own": [
        ("chmod", {"path": b"a", "mode": 0o6644}),
        ("chown", {"path": b"a", "uid": 1000, "gid": 1001, "follow": True}),
        ("chmod", {"path": b"a", "mode": 0o6644}),
        ("chown", {"path": b"a", "uid": -1, "gid": 1000, "follow": True, "user": 1}),
        ("chmod", {"path": b"a", "mode": 0o6644}),
        ("chown", {"path": b"a", "uid": 1000, "gid": -1, "follow": True, "user": 1}),
        ("stat", {"path": b"a", "follow": True}),
    ],
    "set-id bits go with a change of owner that changes none": [
        ("chmod", {"path": b"a", "mode": 0o6755}),
        ("chown", {"path": b"a", "uid": -1, "gid": -1, "follow": True}),
        ("chmod", {"path": b"d/a", "mode": 0o6644}),
        ("chown_open", {"slot": 1, "uid": -1, "gid": -1}),
        ("chmod", {"path": b"d", "mode": 0o2777}),
        ("chown", {"path": b"d", "uid": -1, "gid": -1, "follow": True}),
        ("stat_open", {"slot": 1}),
    ],
    "set-id bits of a new special file are kept, whoever makes it": [
        ("make_special", {"device": 0, "mode": 0o16777, "path": b"pipe", "user": 1}),
        ("make_special", {"device": 0, "mode": 0o146777, "path": b"socket", "user": 1}),
    ],
    "who follows a killed data plane knows its open files": [
        ("write", {"slot": 0, "seed": 1, "size": 100}),
        ("kill_worker", {}),
        ("write", {"slot": 0, "seed": 2, "size": 100}),
        ("unlink", {"path": b"a"}),
        ("kill_worker", {}),
        ("pwrite", {"slot": 0, "seed": 3, "size": 5000, "offset": 4000}),
        ("stat_open", {"slot": 0}),
    ],
    "a range that no file can have is refused at once, also while zones are marked": [
        ("lose_secondary", {"killed": False}),
        ("allocate", {"mode": 3, "offset": 0, "size": 1 << 62, "slot": 0}),
        ("allocate", {"mode": 3, "offset": 0, "size": 1 << 50, "slot": 0}),
        ("allocate", {"mode": 3, "offset": 0, "size": 1 << 43, "slot": 0}),
        ("rejoin", {"full": False}),
    ],
}
