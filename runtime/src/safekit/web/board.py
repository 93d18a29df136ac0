"""What the console shows: each module of the cluster, on each node, in the words of that node. Gathered here, drawn in `pages.py`.

This node is asked on its socket; the others through their web services, all at once. One that does not answer says so in its own
tile (`connection error`) and delays nobody for longer than `REMOTE_S`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from safekit.afar import PORT, command_addresses
from safekit.web.local import API, Local, NotRunning, Refused, understood
from safekit.web.remote import Unreachable, ask

REMOTE_S = 8.0
_FRESH_S = 1.0
_THREADS = 8
_SERVICE = "safekit-web"


class NoSuchNode(Exception):
    """No node of the cluster has this name."""


@dataclass(frozen=True)
class Tile:
    """A module on a node. `trouble`: why its state is not known, empty when it is."""

    node: str
    state: str
    substate: str
    detail: str = ""
    reason: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Module:
    """A module of the cluster."""

    name: str
    mode: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Board:
    """All of it. `here`: the node that was asked; `nodes`: name -> why it cannot be asked, or empty."""

    here: str
    nodes: Mapping[str, str]
    modules: tuple[Module, ...]


def possible_actions(mode: str, tile: Tile) -> tuple[str, ...]:
    """What makes sense in this state; the node has the last word."""
    if tile.trouble or tile.state in ("NOT_CONFIGURED", "UNKNOWN"):
        return ()
    if tile.state == "STOP":
        force = ("prim", "second") if mode == "mirror" else ()
        return ("start", *force) if tile.substate == "NotReady" else ()
    ready = tile.substate == "Ready"
    swap = ("swap",) if ready and mode == "mirror" and tile.state in ("PRIM", "SECOND") else ()
    return ("stop", *(("restart",) if ready and tile.state != "SECOND" else ()), *swap)


def gathered(here: str, nodes: Mapping[str, str], told: Mapping[str, Any], seen: Mapping[str, Any]) -> Board:
    """The board out of what nodes told (`modules` of the API by node) and what the membership saw (`cluster/state`)."""
    tiles: dict[str, list[Tile]] = {}
    modes: dict[str, str] = {}
    for node, trouble in nodes.items():
        if not trouble:
            listed = [(one["name"], one["mode"], one["state"]) for one in told[node]]
        else:
            listed = [(one["name"], one["mode"], one) for one in seen.get(node, ())]
        for name, mode, state in listed:
            modes[name] = mode or modes.get(name, "")
            tiles.setdefault(name, []).append(_tile(node, state, trouble))
    for name, there in tiles.items():
        known = {tile.node for tile in there}
        lost = [node for node, trouble in nodes.items() if trouble and node not in known and not seen.get(node)]
        there += [Tile(node, "UNKNOWN", "", trouble=nodes[node]) for node in lost]
        there.sort(key=lambda tile: list(nodes).index(tile.node))
        tiles[name] = there
    return Board(here, dict(nodes), tuple(Module(name, modes[name], tuple(tiles[name])) for name in sorted(tiles)))


def _tile(node: str, state: Mapping[str, Any], trouble: str) -> Tile:
    detail, reason = str(state.get("detail") or ""), str(state.get("reason") or "")
    return Tile(node, str(state["state"]), str(state["substate"]), detail, reason, trouble)


class Cluster:
    """Asks this node and the others."""

    def __init__(self, local: Local, clock: Callable[[], float], port: int = PORT) -> None:
        self._local = local
        self._clock = clock
        self._port = port
        self._threads = ThreadPoolExecutor(_THREADS, "asks")
        self._gathering = asyncio.Lock()
        self._board: tuple[float, Board] | None = None

    async def board(self) -> Board:
        """As it is now, or was a second ago. NotRunning, Refused if this node cannot be asked."""
        async with self._gathering:
            if self._board is not None and self._clock() - self._board[0] < _FRESH_S:
                return self._board[1]
            board = await self._gather()
            self._board = (self._clock(), board)
            return board

    async def ask(
        self, node: str, person: str, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> Any:
        """One operation of the API (path without `/api/v1`) on a node. NoSuchNode, NotRunning, Refused, Unreachable."""
        here, addresses = await self._nodes()
        if node not in addresses:
            raise NoSuchNode(f"{node}: no node of this cluster")
        content = b"" if body is None else json.dumps(body).encode()
        self._board = None
        if node == here:
            return understood(*await self._local.ask(person, method, API + path, content))
        return await self._there(addresses[node], person, method, path, content)

    async def _gather(self) -> Board:
        here, addresses = await self._nodes()
        told = {here: (await self._local.get(_SERVICE, "/modules"))["modules"]}
        trouble = {node: "" for node in addresses}
        others = [node for node in addresses if node != here]
        seen: dict[str, Any] = {}
        if others:
            state = await self._local.get(_SERVICE, "/cluster/state")
            seen = {node["name"]: node["modules"] for node in state["nodes"] if node["reachable"]}
        asked = [self._there(addresses[node], _SERVICE, "GET", "/modules", b"") for node in others]
        for node, answered in zip(others, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(answered, (NotRunning, Refused, Unreachable)):
                trouble[node] = str(answered)
            elif isinstance(answered, BaseException):
                raise answered
            else:
                told[node] = answered["modules"]
        return gathered(here, trouble, told, seen)

    async def _nodes(self) -> tuple[str, dict[str, str]]:
        """This node's name, and the address of each on the lan for commands."""
        cluster = await self._local.get(_SERVICE, "/cluster")
        if not cluster["configured"] or not cluster["node"]:
            name = (await self._local.get(_SERVICE, "/node"))["hostname"]
            return name, {name: ""}
        return cluster["node"], command_addresses(cluster["lans"])

    async def _there(self, address: str, person: str, method: str, path: str, content: bytes) -> Any:
        key = await self._local.key()
        if key is None:
            raise Unreachable("the cluster has no key: `safekit cluster genkey`")
        loop = asyncio.get_running_loop()
        work = partial(ask, address, self._port, key, person, method, API + path, content, REMOTE_S)
        return understood(*await loop.run_in_executor(self._threads, work))
