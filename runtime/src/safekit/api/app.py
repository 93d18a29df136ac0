"""The operations of the API, each a path, a method and a call of the face. Contract: docs/reference/api.md.

Every request that changes something is written in the command log: who asked, what, and how it ended. Long polls end
when their client leaves and when the daemon stops.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import pwd
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Literal, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from safekit.afar import FOR, is_person, possible, web_key
from safekit.api.answers import answer, refusal
from safekit.api.face import (
    ACTIONS,
    STATES,
    SUBSTATES,
    Action,
    ActionOptions,
    Caller,
    FaceError,
    LoopWord,
    NodeFace,
    Switchable,
)
from safekit.api.fields import Fields, invalid
from safekit.api.replicated import SYNC_MODES, SYNC_ROLES, ComparisonKind, SyncPolicy
from safekit.config.errors import ConfigError
from safekit.store.command_log import CommandLog

BASE = "/api/v1"
LONGEST_WAIT_S = 86_400
LONGEST_POLL_S = 300
MOST_LINES = 20_000
_BODY_TIMEOUT_S = 60
_PERSON = "safekit.person"
"""In the scope of a request from afar: for whom the web service asks."""
_MODULE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

_logger = logging.getLogger("safekit.api")
_LOCKS: tuple[Literal["lock", "unlock"], ...] = ("lock", "unlock")
_LEVELS: tuple[Literal["I", "E"], ...] = ("I", "E")
_COMPARISONS: tuple[ComparisonKind, ...] = ("verify", "diff")
_LOOP: tuple[LoopWord, ...] = ("inc", "reset", "check")
_SWITCH: tuple[Literal["on", "off"], ...] = ("on", "off")

Answer = TypeVar("Answer")


class Api:
    """The application that a server runs. `stop` ends the long polls."""

    def __init__(self, face: NodeFace, commands: CommandLog) -> None:
        self._face = face
        self._commands = commands
        self._stopping = asyncio.Event()
        module = "/modules/{am}"
        routes: tuple[tuple[str, str, Callable[[Request], Awaitable[Response]]], ...] = (
            ("GET", "/node", self.node),
            ("GET", "/cluster", self.cluster),
            ("PUT", "/cluster", self.cluster_apply),
            ("DELETE", "/cluster", self.cluster_remove),
            ("GET", "/cluster/key", self.cluster_key),
            ("POST", "/cluster/key", self.cluster_genkey),
            ("GET", "/cluster/webkey", self.cluster_webkey),
            ("POST", "/cluster/confcheck", self.cluster_confcheck),
            ("GET", "/cluster/state", self.cluster_state),
            ("GET", "/modules", self.modules),
            ("GET", module, self.module),
            ("PUT", module, self.module_install),
            ("DELETE", module, self.module_uninstall),
            ("GET", module + "/package", self.module_package),
            ("POST", module + "/config", self.module_config),
            ("POST", module + "/update", self.module_update),
            ("POST", module + "/confcheck", self.module_confcheck),
            ("POST", module + "/deconfig", self.module_deconfig),
            ("PUT", module + "/boot", self.module_boot),
            ("PUT", module + "/checker", self.switch_checker),
            ("PUT", module + "/errd", self.switch_errd),
            ("PUT", module + "/failover", self.switch_failover),
            ("GET", module + "/errd", self.errd_processes),
            ("PUT", module + "/errd/{class}", self.errd_class),
            ("POST", module + "/actions/{action}", self.module_action),
            ("POST", module + "/loop", self.module_loop),
            ("GET", module + "/state", self.module_state),
            ("GET", module + "/wait", self.module_wait),
            ("GET", module + "/resources", self.resources),
            ("GET", module + "/resources/{name:path}", self.resource),
            ("PUT", module + "/resources/{name:path}", self.set_resource),
            ("GET", module + "/log", self.log),
            ("POST", module + "/log", self.add_log),
            ("GET", module + "/why", self.why),
            ("GET", module + "/farm", self.farm),
            ("PUT", module + "/farm", self.farm_open),
            ("GET", module + "/rfs/stats", self.rfs_stats),
            ("GET", module + "/rfs/comparison", self.rfs_comparison),
            ("POST", module + "/rfs/comparison", self.rfs_compare),
            ("PUT", module + "/rfs/sync", self.rfs_sync),
            ("GET", "/witness", self.witness),
            ("PUT", "/witness/clusters/{cluster}", self.witness_add),
            ("DELETE", "/witness/clusters/{cluster}", self.witness_remove),
            ("GET", "/cmdlog", self.command_log),
        )
        self.operations = tuple((method, BASE + path) for method, path, _ in routes)
        handlers: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {}
        for method, path, handler in routes:
            handlers.setdefault(BASE + path, {})[method] = handler
        self.app = Starlette(
            routes=[Route(path, _endpoint(methods), methods=list(methods)) for path, methods in handlers.items()],
            exception_handlers={HTTPException: _no_such_operation},
        )

    async def from_afar(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application for the web service: what may be asked from afar, for whom the service says, and nothing else."""
        request = Request(scope)
        path = scope["path"].removeprefix(BASE)
        person = request.headers.get(FOR, "")
        if scope["type"] != "http" or not (possible(scope["method"], path) or path == "/cluster/webkey"):
            refused = FaceError("request.forbidden", f"{scope['method']} {scope['path']} is not possible from afar")
            await refusal(refused)(scope, receive, send)
        elif not is_person(person):
            await refusal(invalid(f"{FOR}: {person!r}, expected who asks, for example admin@192.0.2.7"))(
                scope, receive, send
            )
        else:
            await self.app({**scope, _PERSON: person}, receive, send)

    def stop(self) -> None:
        """End the long polls: their clients are told that the node is stopping."""
        self._stopping.set()

    async def node(self, _request: Request) -> Response:
        """GET /node."""
        return answer(await self._face.node_info())

    async def cluster(self, _request: Request) -> Response:
        """GET /cluster."""
        return answer(await self._face.cluster_info())

    async def cluster_apply(self, request: Request) -> Response:
        """PUT /cluster."""
        body = await _body(request)
        xml, key, check = body.text("xml"), body.optional_bytes("key"), body.flag("check")
        lock = body.optional_choice("lock", _LOCKS)
        body.finish()
        work = self._face.cluster_apply(xml, key, check, lock)
        if check:
            return answer(await work)
        return answer(await self._command(request, "cluster config", None, lock or "", work))

    async def cluster_remove(self, request: Request) -> Response:
        """DELETE /cluster."""
        work = self._face.cluster_remove()
        return answer({"changed": await self._command(request, "cluster deconfig", None, "", work)})

    async def cluster_key(self, request: Request) -> Response:
        """GET /cluster/key."""
        if _caller(request).uid != 0:
            raise FaceError("request.forbidden", "the cluster key is shown to root only")
        return answer({"key": _base64(await self._face.cluster_key())})

    async def cluster_webkey(self, request: Request) -> Response:
        """GET /cluster/webkey."""
        if _PERSON not in request.scope and _caller(request).uid != 0:
            raise FaceError(
                "request.forbidden", "the key of the web service is shown to root and to the web service only"
            )
        key = await self._face.cluster_key()
        return answer({"key": None if key is None else _base64(web_key(key))})

    async def cluster_genkey(self, request: Request) -> Response:
        """POST /cluster/key."""
        await self._command(request, "cluster genkey", None, "", self._face.cluster_genkey())
        return answer({"changed": True})

    async def cluster_confcheck(self, request: Request) -> Response:
        """POST /cluster/confcheck."""
        body = await _body(request)
        xml = body.text("xml")
        body.finish()
        return answer({"warnings": await self._face.cluster_confcheck(xml)})

    async def cluster_state(self, _request: Request) -> Response:
        """GET /cluster/state."""
        return answer({"nodes": await self._face.cluster_state()})

    async def witness(self, _request: Request) -> Response:
        """GET /witness."""
        return answer(await self._face.witness_info())

    async def witness_add(self, request: Request) -> Response:
        """PUT /witness/clusters/NAME."""
        cluster, body = str(request.path_params["cluster"]), await _body(request)
        key, nodes = body.optional_bytes("key"), body.texts("nodes")
        port, addr = body.optional_whole("port", 1, 65535), body.optional_text("addr")
        check, replace_key = body.flag("check"), body.flag("replace_key")
        body.finish()
        if key is None:
            raise invalid("body: key is missing, expected the key of the cluster in base64")
        work = self._face.witness_add(cluster, key, nodes, port, addr, check, replace_key)
        if not check:
            work = self._command(request, "witness serve", None, f"{cluster} {' '.join(nodes)}", work)
        return answer({"changed": await work})

    async def witness_remove(self, request: Request) -> Response:
        """DELETE /witness/clusters/NAME."""
        cluster = str(request.path_params["cluster"])
        work = self._command(request, "witness forget", None, cluster, self._face.witness_remove(cluster))
        return answer({"changed": await work})

    async def modules(self, _request: Request) -> Response:
        """GET /modules."""
        return answer({"modules": await self._face.module_list()})

    async def module(self, request: Request) -> Response:
        """GET /modules/AM."""
        return answer(await self._face.module_info(_am(request)))

    async def module_install(self, request: Request) -> Response:
        """PUT /modules/AM."""
        am, body = _am(request), await _body(request)
        package, identifier = body.optional_bytes("package"), body.optional_whole("id", 1, 10_000)
        check, replace = body.flag("check"), body.flag("replace")
        body.finish()
        if package is None:
            raise invalid("body: package is missing, expected a .safe package in base64")
        work = self._face.module_install(am, package, identifier, check, replace)
        if check:
            return answer(await work)
        arguments = f"{len(package)} bytes" + (f" -M {identifier}" if identifier else "") + (" -r" if replace else "")
        return answer(await self._command(request, "module install", am, arguments, work))

    async def module_uninstall(self, request: Request) -> Response:
        """DELETE /modules/AM."""
        am = _am(request)
        work = self._face.module_uninstall(am)
        return answer({"changed": await self._command(request, "module uninstall", am, "", work)})

    async def module_package(self, request: Request) -> Response:
        """GET /modules/AM/package."""
        return answer({"package": _base64(await self._face.module_package(_am(request)))})

    async def module_config(self, request: Request) -> Response:
        """POST /modules/AM/config."""
        am, body = _am(request), await _body(request)
        check = body.flag("check")
        body.finish()
        work = self._face.module_config(am, check)
        return answer(await (work if check else self._command(request, "config", am, "", work)))

    async def module_update(self, request: Request) -> Response:
        """POST /modules/AM/update."""
        am = _am(request)
        return answer(await self._command(request, "update", am, "", self._face.module_update(am)))

    async def module_confcheck(self, request: Request) -> Response:
        """POST /modules/AM/confcheck."""
        return answer({"warnings": await self._face.module_confcheck(_am(request))})

    async def module_deconfig(self, request: Request) -> Response:
        """POST /modules/AM/deconfig."""
        am = _am(request)
        return answer({"changed": await self._command(request, "deconfig", am, "", self._face.module_deconfig(am))})

    async def module_boot(self, request: Request) -> Response:
        """PUT /modules/AM/boot."""
        am, body = _am(request), await _body(request)
        boot = body.choice("boot", _SWITCH)
        body.finish()
        return answer({"changed": await self._command(request, "boot", am, boot, self._face.module_boot(am, boot))})

    async def switch_checker(self, request: Request) -> Response:
        """PUT /modules/AM/checker."""
        return await self._switch(request, "checker")

    async def switch_errd(self, request: Request) -> Response:
        """PUT /modules/AM/errd."""
        return await self._switch(request, "errd")

    async def switch_failover(self, request: Request) -> Response:
        """PUT /modules/AM/failover."""
        return await self._switch(request, "failover")

    async def errd_class(self, request: Request) -> Response:
        """PUT /modules/AM/errd/CLASS."""
        am, class_, body = _am(request), request.path_params["class"], await _body(request)
        word = body.choice("value", _SWITCH)
        body.finish()
        work = self._face.errd_class(am, class_, word == "on", _caller(request))
        return answer({"changed": await self._command(request, "errd", am, f"{class_} {word}", work)})

    async def errd_processes(self, request: Request) -> Response:
        """GET /modules/AM/errd."""
        listed = await self._face.errd_processes(_am(request))
        return answer(
            {
                "processes": [
                    {"name": p.name, "class": p.class_, "action": p.action, "enabled": p.enabled, "value": p.value}
                    for p in listed
                ]
            }
        )

    async def _switch(self, request: Request, kind: Switchable) -> Response:
        am, body = _am(request), await _body(request)
        word = body.choice("value", _SWITCH)
        body.finish()
        work = self._face.module_switch(am, kind, word == "on", _caller(request))
        return answer({"changed": await self._command(request, kind, am, word, work)})

    async def module_action(self, request: Request) -> Response:
        """POST /modules/AM/actions/ACTION."""
        am, body = _am(request), await _body(request)
        name = request.path_params["action"]
        action: Action | None = next((action for action in ACTIONS if action == name), None)
        if action is None:
            raise invalid(f"action {name!r}: expected one of {', '.join(ACTIONS)}")
        identity, options = body.optional_text("identity"), body.options("options")
        body.finish()
        date = options.optional_date("date")
        chosen = ActionOptions(fullsync=options.flag("fullsync"), nosync=options.flag("nosync"), date=date)
        options.finish()
        caller = _caller(request, identity)
        said = [word for word in ("fullsync", "nosync") if getattr(chosen, word)]
        words = " ".join([*said, f"-d {date.isoformat()}"] if date else said)
        work = self._face.module_action(am, action, caller, chosen)
        return answer(await self._command(request, action, am, words, work, identity), 202)

    async def module_loop(self, request: Request) -> Response:
        """POST /modules/AM/loop."""
        am, body = _am(request), await _body(request)
        what, identity = body.choice("what", _LOOP), body.optional_text("identity")
        body.finish()
        work = self._face.module_loop(am, what)
        if what == "check":
            return answer(await work)
        return answer(await self._command(request, f"{what}loop", am, "", work, identity))

    async def module_state(self, request: Request) -> Response:
        """GET /modules/AM/state."""
        return answer(await self._face.module_state(_am(request)))

    async def module_wait(self, request: Request) -> Response:
        """GET /modules/AM/wait."""
        am, query = _am(request), Fields.of_query(request)
        states = frozenset(state.strip() for state in query.text("state").split(","))
        substate = query.optional_choice("substate", SUBSTATES)
        timeout = query.number("timeout", 60, 0, LONGEST_WAIT_S)
        query.finish()
        for state in sorted(states.difference(STATES)):
            raise invalid(f"query: state {state!r}, expected some of {', '.join(STATES)}, separated by commas")
        return answer(await self._poll(request, self._face.module_wait(am, states, substate, timeout)))

    async def resources(self, request: Request) -> Response:
        """GET /modules/AM/resources."""
        return answer({"resources": await self._face.resources(_am(request))})

    async def resource(self, request: Request) -> Response:
        """GET /modules/AM/resources/NAME."""
        query = Fields.of_query(request)
        lines = query.whole("history", 1, 1, MOST_LINES)
        query.finish()
        history = await self._face.resource_history(_am(request), request.path_params["name"], lines)
        present = history[0]
        return answer({"name": present.name, "value": present.value, "date": present.date, "history": history})

    async def set_resource(self, request: Request) -> Response:
        """PUT /modules/AM/resources/NAME."""
        am, name, body = _am(request), request.path_params["name"], await _body(request)
        value, identity = body.text("value"), body.optional_text("identity")
        body.finish()
        work = self._face.set_resource(am, name, value, identity)
        if identity is not None:  # a checker speaks all the time; its changes are in the history of the resource
            return answer({"changed": await work})
        return answer({"changed": await self._command(request, "set", am, f"-r {name} -v {value}", work)})

    async def log(self, request: Request) -> Response:
        """GET /modules/AM/log."""
        query = Fields.of_query(request)
        lines, verbose = query.whole("lines", 300, 1, MOST_LINES), query.flag("verbose")
        after, wait = query.optional_whole("after", 0, 2**62), query.number("wait", 0, 0, LONGEST_POLL_S)
        query.finish()
        work = self._face.log(_am(request), lines, verbose, after, wait)
        return answer({"entries": await self._poll(request, work)})

    async def why(self, request: Request) -> Response:
        """GET /modules/AM/why."""
        query = Fields.of_query(request)
        moves = query.whole("moves", 1, 1, MOST_LINES)
        query.finish()
        return answer({"changes": await self._face.why(_am(request), moves)})

    async def add_log(self, request: Request) -> Response:
        """POST /modules/AM/log."""
        body = await _body(request)
        level, message = body.choice("level", _LEVELS), body.text("message")
        origin = body.optional_text("identity") or "userplug"
        body.finish()
        await self._face.add_log(_am(request), level, message, origin)
        return answer({"changed": True})

    async def farm(self, request: Request) -> Response:
        """GET /modules/AM/farm."""
        return answer(await self._face.farm_info(_am(request)))

    async def farm_open(self, request: Request) -> Response:
        """PUT /modules/AM/farm."""
        am, body = _am(request), await _body(request)
        opened = body.flag("open")
        body.finish()
        word = "open" if opened else "close"
        return answer({"changed": await self._command(request, "farm", am, word, self._face.farm_open(am, opened))})

    async def rfs_stats(self, request: Request) -> Response:
        """GET /modules/AM/rfs/stats."""
        return answer({"stats": dict(await self._face.rfs_stats(_am(request)))})

    async def rfs_compare(self, request: Request) -> Response:
        """POST /modules/AM/rfs/comparison."""
        am, body = _am(request), await _body(request)
        kind = body.choice("kind", _COMPARISONS)
        body.finish()
        return answer(await self._command(request, f"rfs{kind}", am, "", self._face.rfs_compare(am, kind)), 202)

    async def rfs_comparison(self, request: Request) -> Response:
        """GET /modules/AM/rfs/comparison."""
        query = Fields.of_query(request)
        wait = query.number("wait", 0, 0, LONGEST_POLL_S)
        query.finish()
        found = await self._poll(request, self._face.rfs_comparison(_am(request), wait))
        return answer({"comparison": found})

    async def rfs_sync(self, request: Request) -> Response:
        """PUT /modules/AM/rfs/sync."""
        am, body = _am(request), await _body(request)
        mode, role = body.choice("mode", SYNC_MODES), body.optional_choice("role", SYNC_ROLES)
        uid, unchecked = body.optional_text("uid") or "", body.flag("unchecked")
        body.finish()
        policy = SyncPolicy(mode, role, uid, check=not unchecked)
        words = " ".join(word for word in ("-d" if unchecked else "", mode, role or "", uid) if word)
        return answer({"changed": await self._command(request, "rfssync", am, words, self._face.rfs_sync(am, policy))})

    async def command_log(self, request: Request) -> Response:
        """GET /cmdlog."""
        query = Fields.of_query(request)
        lines = query.whole("lines", 300, 1, MOST_LINES)
        query.finish()
        return answer({"entries": await self._commands.last(lines)})

    async def _command(
        self,
        request: Request,
        kind: str,
        am: str | None,
        arguments: str,
        work: Awaitable[Answer],
        identity: str | None = None,
    ) -> Answer:
        """Do something that changes the node, between the START and the END of the command log."""
        caller = _caller(request, identity)
        who = f"{caller.user} pid={caller.pid}" + (f" -i {identity}" if identity else "")
        number = self._commands.start(kind, am, who, arguments)
        try:
            done = await work
        except BaseException as trouble:
            self._commands.end(number, 1, str(trouble) or type(trouble).__name__)
            raise
        self._commands.end(number, 0)
        return done

    async def _poll(self, request: Request, work: Coroutine[object, object, Answer]) -> Answer:
        """Wait for something that may take long, until the client leaves or the daemon stops."""
        polling = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(_disconnected(request))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({polling, leaving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if polling.done():
                return polling.result()
            raise FaceError("node.stopping", "safekitd is stopping")
        finally:
            for task in (polling, leaving, stopping):
                task.cancel()
            await asyncio.gather(polling, leaving, stopping, return_exceptions=True)


def _endpoint(methods: dict[str, Callable[[Request], Awaitable[Response]]]) -> Callable[[Request], Awaitable[Response]]:
    """One path: the handler of the method, with every trouble as an answer."""

    async def handle(request: Request) -> Response:
        handler = methods["GET" if request.method == "HEAD" else request.method]
        try:
            return await handler(request)
        except (FaceError, ConfigError) as trouble:
            return refusal(trouble)
        except Exception:
            _logger.exception("%s %s failed", request.method, request.url.path)
            message = "safekitd failed to answer: see `journalctl -u safekitd`"
            return refusal(FaceError("internal", message))

    return handle


async def _no_such_operation(request: Request, trouble: Exception) -> Response:
    assert isinstance(trouble, HTTPException)
    if trouble.status_code == 405:
        return refusal(FaceError("request.method", f"{request.method} is not possible on {request.url.path}"))
    return refusal(FaceError("request.unknown", f"the API has no {request.url.path}"))


async def _body(request: Request) -> Fields:
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            return await Fields.of_body(request)
    except TimeoutError:
        raise invalid(f"the body did not arrive within {_BODY_TIMEOUT_S} s") from None


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _am(request: Request) -> str:
    am = str(request.path_params["am"])
    if not _MODULE_NAME.fullmatch(am):
        raise invalid(f"module name {am!r}: expected letters, digits, '_', '-' and '.', at most 64")
    return am


def _caller(request: Request, identity: str | None = None) -> Caller:
    assert request.client is not None, "the server names the peer of the socket"
    uid, pid = int(request.client.host), request.client.port
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    user = request.scope.get(_PERSON, user)
    return Caller(user, uid, pid, identity)


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
