"""The pages of the console as HTML. Pure: values in, text out; whatever comes from elsewhere is escaped in `_text`.

No page has a style or a script of its own: the policy that is sent with it allows `/console.css` and `/console.js` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

from safekit.web.accounts import ACTING
from safekit.web.board import Board, Module, Tile, possible_actions
from safekit.web.sessions import Session

_WORDS = {
    "start": "Start",
    "stop": "Stop",
    "restart": "Restart",
    "swap": "Swap",
    "prim": "Start as primary",
    "second": "Start as secondary",
}
_SURE = frozenset({"stop", "restart", "swap", "prim", "second"})
"""What a click by mistake must not do."""

_LEVELS = {"C": "critical", "E": "event", "U": "user", "S": "script", "I": "information", "D": "debug"}


def login(trouble: str = "", user: str = "") -> str:
    """The page of who is not logged in. It tells nothing of the node."""
    return _page(
        "Login",
        f"""<main class="login"><h1>SafeKit</h1>{_trouble(trouble)}
<form method="post" action="/login">
<label>User <input name="httpd_username" autocomplete="username" autofocus required maxlength="64" value="{_text(user)}"></label>
<label>Password <input name="httpd_password" type="password" autocomplete="current-password" required></label>
<button name="login" value="Login">Login</button>
</form></main>""",
    )


def home(session: Session, board: Board | None, trouble: str = "") -> str:
    """Every module on every node. `board` None: this node cannot be asked, `trouble` says why."""
    name = board.here if board else ""
    inner = modules(session, board) if board else _trouble(trouble)
    notice = f'<p class="notice" role="status">{_text(session.notice)}</p>' if session.notice else ""
    return _page(
        f"Monitoring {name}".strip(), f'{_header(session, name)}<main>{notice}<div id="modules">{inner}</div></main>'
    )


def modules(session: Session, board: Board) -> str:
    """The part of the home page that is drawn anew while it is open."""
    silent = [f"<li>{_text(node)}: {_text(why)}</li>" for node, why in board.nodes.items() if why]
    troubles = f'<ul class="trouble">{"".join(silent)}</ul>' if silent else ""
    if not board.modules:
        return f"{troubles}<p>No module is installed.</p>"
    return troubles + "".join(_module(session, module) for module in board.modules)


def log(
    session: Session, here: str, module: str, node: str, verbose: bool, entries: Sequence[Mapping[str, Any]]
) -> str:
    """The last messages of a module on a node, newest first."""
    rows = "".join(
        f'<tr class="level-{_text(_LEVELS.get(str(entry["level"]), "other"))}"><td>{_text(_date(str(entry["date"])))}</td>'
        f"<td>{_text(entry['level'])}</td><td>{_text(entry['origin'])}</td><td>{_text(entry['message'])}</td></tr>"
        for entry in reversed(entries)
    )
    other = _link(
        "/log", "without details" if verbose else "with details", module, node, verbose="" if verbose else "on"
    )
    again = _link("/log", "again", module, node, verbose="on" if verbose else "")
    return _page(
        f"Log of {module} on {node}",
        f"""{_header(session, here)}<main><h1>{_text(module)} on {_text(node)}</h1>
<p><a href="/">Monitoring</a> · {again} · {other} · dates in UTC</p>
<table class="log"><thead><tr><th>Date</th><th>Type</th><th>Origin</th><th>Message</th></tr></thead>
<tbody>{rows}</tbody></table></main>""",
    )


def refusal(session: Session | None, title: str, sentence: str) -> str:
    """What went wrong, in one sentence."""
    header = _header(session, "") if session else ""
    return _page(title, f'{header}<main>{_trouble(sentence)}<p><a href="/">Monitoring</a></p></main>')


def _module(session: Session, module: Module) -> str:
    tiles = "".join(_tile_of(session, module, tile) for tile in module.tiles)
    mode = f'<span class="mode">{_text(module.mode)}</span>' if module.mode else ""
    return f'<section class="module" data-module="{_text(module.name)}"><h2>{_text(module.name)} {mode}</h2>{tiles}</section>'


def _tile_of(session: Session, module: Module, tile: Tile) -> str:
    said = "connection error" if tile.trouble else tile.detail
    state = "?" if tile.state == "UNKNOWN" else f"{tile.state} {tile.substate}".replace("_", " ")
    buttons = ""
    if session.account.role in ACTING:
        buttons = "".join(_button(session, module, tile, one) for one in possible_actions(module.mode, tile))
    return f"""<article class="tile {_colour(tile)}" data-node="{_text(tile.node)}" data-state="{_text(tile.state)}">
<h3>{_text(tile.node)}</h3><p class="state" title="{_text(tile.reason)}">{_text(state)}</p><p class="detail">{_text(said)}</p>
<div class="actions">{buttons}{_link("/log", "Log", module.name, tile.node)}</div></article>"""


def _button(session: Session, module: Module, tile: Tile, action: str) -> str:
    sure = (
        f' data-sure="{_text(_WORDS[action])}: {_text(module.name)} on {_text(tile.node)}?"' if action in _SURE else ""
    )
    hidden = {"token": session.token, "module": module.name, "node": tile.node, "action": action}
    inputs = "".join(f'<input type="hidden" name="{name}" value="{_text(value)}">' for name, value in hidden.items())
    return f'<form method="post" action="/action"{sure}>{inputs}<button data-action="{action}">{_WORDS[action]}</button></form>'


def _header(session: Session, here: str) -> str:
    who = f"{session.account.name} ({session.account.role})"
    return f"""<header><a class="name" href="/">SafeKit</a><span>{_text(here)}</span><span class="who">{_text(who)}</span>
<form method="post" action="/logout"><input type="hidden" name="token" value="{_text(session.token)}">
<button>Logout</button></form></header>"""


def _colour(tile: Tile) -> str:
    """As the console of the reference has it: green serves or is ready, magenta is on its way, red is blocked or stopped."""
    if tile.trouble or tile.state in ("UNKNOWN", "NOT_CONFIGURED"):
        return "grey"
    return {"Ready": "green", "Transient": "magenta"}.get(tile.substate, "red")


def _link(path: str, words: str, module: str, node: str, verbose: str = "") -> str:
    query = {"module": module, "node": node} | ({"verbose": verbose} if verbose else {})
    return f'<a href="{_text(f"{path}?{urlencode(query)}")}">{_text(words)}</a>'


def _trouble(sentence: str) -> str:
    return f'<p class="trouble" role="alert">{_text(sentence)}</p>' if sentence else ""


def _date(date: str) -> str:
    return date[:23].replace("T", " ")


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{_text(title)} – SafeKit</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/console.css"><script src="/console.js" defer></script></head>
<body>{body}</body></html>
"""
