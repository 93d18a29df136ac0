"""What the console shows of a cluster whose nodes answer, or do not, and which buttons make sense."""

from __future__ import annotations

from typing import Any

import pytest

from safekit.web import pages
from safekit.web.accounts import Account, Role
from safekit.web.board import Board, Module, Tile, gathered, possible_actions
from safekit.web.sessions import Session

HERE = {
    "name": "db",
    "mode": "mirror",
    "state": {"state": "PRIM", "substate": "Ready", "detail": "uptodate", "reason": "r"},
}
SEEN = {"name": "db", "mode": "mirror", "state": "SECOND", "substate": "Ready"}


def session(role: Role = "admin") -> Session:
    return Session(Account("eve", role, "hash"), "192.0.2.1", 0, 0)


def tile(state: str, substate: str = "Ready", **others: Any) -> Tile:
    return Tile("n1", state, substate, **others)


def test_each_node_tells_its_own_state() -> None:
    second = {**HERE, "state": {"state": "SECOND", "substate": "Ready", "detail": "uptodate", "reason": ""}}
    board = gathered("n1", {"n1": "", "n2": ""}, {"n1": [HERE], "n2": [second]}, {})
    assert [(one.node, one.state, one.detail) for one in board.modules[0].tiles] == [
        ("n1", "PRIM", "uptodate"),
        ("n2", "SECOND", "uptodate"),
    ]


def test_a_node_without_a_web_service_is_shown_as_the_membership_sees_it() -> None:
    board = gathered("n1", {"n1": "", "n2": "connection error: x"}, {"n1": [HERE]}, {"n2": [SEEN]})
    other = board.modules[0].tiles[1]
    assert (other.node, other.state, other.trouble) == ("n2", "SECOND", "connection error: x")
    assert possible_actions("mirror", other) == ()


def test_a_node_that_is_gone_has_a_tile_all_the_same() -> None:
    board = gathered("n2", {"n1": "connection error: x", "n2": ""}, {"n2": [HERE]}, {})
    assert [(one.node, one.state) for one in board.modules[0].tiles] == [("n1", "UNKNOWN"), ("n2", "PRIM")]


@pytest.mark.parametrize(
    ("mode", "shown", "expected"),
    [
        ("mirror", tile("STOP", "NotReady"), ("start", "prim", "second")),
        ("farm", tile("STOP", "NotReady"), ("start",)),
        ("mirror", tile("STOP", "Transient"), ()),
        ("mirror", tile("WAIT", "NotReady"), ("stop",)),
        ("mirror", tile("PRIM"), ("stop", "restart", "swap")),
        ("mirror", tile("ALONE"), ("stop", "restart")),
        ("mirror", tile("SECOND"), ("stop", "swap")),
        ("mirror", tile("SECOND", "Transient"), ("stop",)),
        ("farm", tile("UP"), ("stop", "restart")),
        ("mirror", tile("NOT_CONFIGURED", "NotReady"), ()),
    ],
)
def test_buttons_are_those_that_make_sense(mode: str, shown: Tile, expected: tuple[str, ...]) -> None:
    assert possible_actions(mode, shown) == expected


def test_who_only_looks_has_no_button() -> None:
    board = Board("n1", {"n1": ""}, (Module("db", "mirror", (tile("PRIM"),)),))
    for role in ("admin", "control"):
        assert 'data-action="swap"' in pages.home(session(role), board)
    assert "data-action" not in pages.home(session("monitor"), board)


def test_whatever_comes_from_elsewhere_is_escaped() -> None:
    evil = "<script>\"&'"
    board = Board(evil, {evil: evil}, (Module(evil, evil, (Tile(evil, evil, evil, evil, evil, ""),)),))
    entry = {"date": evil, "level": evil, "origin": evil, "message": evil}
    who = Session(Account(evil, "admin", "hash"), evil, 0, 0, notice=evil)
    for page in (
        pages.home(who, board),
        pages.home(who, None, evil),
        pages.log(who, evil, evil, evil, True, [entry]),
        pages.login(evil, evil),
        pages.refusal(who, evil, evil),
    ):
        assert "<script>" not in page and "&lt;script&gt;" in page
        assert "on" + "click" not in page and " style=" not in page


@pytest.mark.parametrize(
    ("shown", "colour"),
    [
        (tile("PRIM"), "green"),
        (tile("ALONE", "Transient"), "magenta"),
        (tile("WAIT", "NotReady"), "red"),
        (tile("PRIM", trouble="connection error"), "grey"),
    ],
)
def test_a_state_has_a_colour(shown: Tile, colour: str) -> None:
    board = Board("n1", {"n1": ""}, (Module("db", "mirror", (shown,)),))
    assert f'class="tile {colour}"' in pages.modules(session(), board)
