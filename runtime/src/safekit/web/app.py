"""What the web service answers: the pages of the console to who is logged in, and the API to nodes of the cluster.

Without a session and without a proof there is the form of the login, its style, and a challenge to prove something about.
Every page goes through `_page`, every form through `_form`, every operation of the API through `forward`: these three ask
who it is. A form also needs the token of the session, and must not come from a page of another site.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from safekit.afar import FOR, is_person, possible
from safekit.files import UnreadableFile
from safekit.web import pages, proof
from safekit.web.accounts import ACTING, Account, Accounts
from safekit.web.board import Board, Cluster, NoSuchNode
from safekit.web.local import API, Local, NotRunning, Refused
from safekit.web.passwords import NOBODY, matches
from safekit.web.remote import Unreachable
from safekit.web.sessions import Attempts, Session, Sessions

COOKIE = "__Host-safekit"
ACTIONS = frozenset({"start", "stop", "restart", "swap", "prim", "second"})
LONGEST_FORM = 16 * 1024
LONGEST_BODY = 1024 * 1024
BODY_S = 10.0
ANSWER_S = 400.0
"""Longer than the API lets anybody wait for news of a log."""
MOST_LOGINS = 8
"""So many may wait for the check of their password, one after the other."""

_FILES = {"/console.css": "text/css", "/console.js": "text/javascript"}
_HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
        b"base-uri 'none'; frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",  # none at all would take the origin from our own forms
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
_FAILURES = (NotRunning, Refused, Unreachable, NoSuchNode)
_METHODS = ["GET", "POST", "PUT", "DELETE"]

_logger = logging.getLogger("safekit.web")
Handler = Callable[[Request], Awaitable[Response]]


class _Wrong(Exception):
    """A request that is refused with a page."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Web:
    """The application that a server runs. `shown`: the fingerprint of the certificate that it shows."""

    def __init__(
        self, accounts: Accounts, local: Local, cluster: Cluster, shown: bytes, clock: Callable[[], float]
    ) -> None:
        self._accounts = accounts
        self._local = local
        self._cluster = cluster
        self._shown = shown
        self._sessions = Sessions(clock)
        self._attempts = Attempts(clock)
        self._challenges = proof.Challenges(clock)
        self._checker = ThreadPoolExecutor(1, "password")
        self._logins = 0
        self._files = {path: (Path(__file__).parent / path[1:]).read_bytes() for path in _FILES}
        self._application = Starlette(
            routes=[
                Route("/", self._page(self.home)),
                Route("/modules", self._page(self.modules)),
                Route("/log", self._page(self.log)),
                Route("/login", self.login, methods=["GET", "POST"]),
                Route("/logout", self._form(self.logout), methods=["POST"]),
                Route("/action", self._form(self.action), methods=["POST"]),
                Route("/api/challenge", self.challenge),
                Route(API + "/{path:path}", self.forward, methods=_METHODS),
                *(Route(path, self.file) for path in _FILES),
            ],
            exception_handlers={HTTPException: _nothing_there, Exception: _defect},
        )

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Each answer has the headers that tell a browser to run nothing of others and to keep nothing."""

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name.lower() not in _HEADERS]
                message = {**message, "headers": [*kept, *_HEADERS.items()]}
            await send(message)

        await self._application(scope, receive, strict)

    # --- people

    async def login(self, request: Request) -> Response:
        """GET: the form. POST: `httpd_username`, `httpd_password` (spec §9.5); the cookie, and home."""
        if request.method != "POST":
            return _html(pages.login())
        try:
            _same_site(request)
            fields = await _fields(request)
        except _Wrong as wrong:
            return _html(pages.login(str(wrong)), wrong.status)
        name, password = fields.get("httpd_username", ""), fields.get("httpd_password", "")
        address = _address(request)
        pause = self._attempts.pause(address, name)
        if pause > 0 or self._logins >= MOST_LOGINS:
            seconds = max(math.ceil(pause), 1)
            answer = _html(pages.login(f"Too many attempts: again in {seconds} s.", name), 429)
            answer.headers["Retry-After"] = str(seconds)
            return answer
        # Counted before the check: whoever tries many at once is not ahead of the count.
        self._attempts.failed(address, name)
        account = await self._checked(name, password)
        if account is None:
            _logger.warning("login of %r from %s refused", name[:64], address)
            return _html(pages.login("User or password is wrong.", name), 401)
        self._attempts.succeeded(address, name)
        _logger.info("login of %s (%s) from %s", name, account.role, address)
        home = RedirectResponse("/", 303)
        home.set_cookie(
            COOKIE, self._sessions.open(account, address), path="/", secure=True, httponly=True, samesite="strict"
        )
        return home

    async def logout(self, request: Request, session: Session, _fields: dict[str, str]) -> Response:
        """POST: the session is over."""
        self._sessions.close(request.cookies.get(COOKIE, ""))
        _logger.info("logout of %s from %s", session.account.name, _address(request))
        gone = RedirectResponse("/login", 303)
        gone.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        return gone

    async def home(self, _request: Request, session: Session) -> Response:
        """The modules of the cluster."""
        board, trouble = await self._board()
        page = pages.home(session, board, trouble)
        session.notice = ""
        return _html(page)

    async def modules(self, _request: Request, session: Session) -> Response:
        """What the open home page asks for by itself."""
        board, trouble = await self._board()
        return _html(pages.modules(session, board), 200) if board else Response(trouble, 503)

    async def log(self, request: Request, session: Session) -> Response:
        """The last messages of a module on a node."""
        query = request.query_params
        module, node, verbose = query.get("module", ""), query.get("node", ""), query.get("verbose") == "on"
        path = _operation("GET", f"/modules/{module}/log")
        asked = f"{path}?lines=300&verbose={'true' if verbose else 'false'}"
        try:
            entries = (await self._cluster.ask(node, _person(request, session), "GET", asked))["entries"]
        except _FAILURES as trouble:
            return _html(pages.refusal(session, "Log", f"{node}: {trouble}"), 502)
        return _html(pages.log(session, "", module, node, verbose, entries))

    async def action(self, request: Request, session: Session, fields: dict[str, str]) -> Response:
        """POST `module`, `node`, `action`: what the buttons do."""
        if session.account.role not in ACTING:
            raise _Wrong(403, f"{session.account.name} may look only: this needs the role control or admin")
        module, node, action = (fields.get(name, "") for name in ("module", "node", "action"))
        if action not in ACTIONS:
            raise _Wrong(400, f"action {action!r}: expected one of {', '.join(sorted(ACTIONS))}")
        path = _operation("POST", f"/modules/{module}/actions/{action}")
        person = _person(request, session)
        body: dict[str, object] = {"identity": None, "options": {}}
        try:
            done = await self._cluster.ask(node, person, "POST", path, body)
            told = "accepted" if done["changed"] else "nothing to do"
        except _FAILURES as trouble:
            told = str(trouble)
        _logger.info("%s: %s of %s on %s: %s", person, action, module, node, told)
        session.notice = f"{action} {module} on {node}: {told}"
        return RedirectResponse("/", 303)

    async def file(self, request: Request) -> Response:
        """Style and script."""
        return Response(self._files[request.url.path], media_type=_FILES[request.url.path])

    # --- nodes

    async def challenge(self, _request: Request) -> Response:
        """What a proof must be about."""
        return Response(self._challenges.make(), media_type="text/plain")

    async def forward(self, request: Request) -> Response:
        """The API, for who proves to be of the cluster (`proof.py`)."""
        given = request.headers
        challenge, person = given.get(proof.CHALLENGE, ""), given.get(FOR, "")
        target = _target(request)
        try:
            body = await _body(request, LONGEST_BODY)
            key = await self._local.key() if self._challenges.is_good(challenge) else None
        except _Wrong as wrong:
            return _json(wrong.status, "request.invalid", str(wrong))
        except (NotRunning, Refused) as trouble:
            return _json(503, "node.not_running", str(trouble))
        if key is None or not proof.same(
            given.get(proof.PROOF, ""),
            proof.of_request(key, self._shown, challenge, person, request.method, target, body),
        ):
            return _json(401, "request.unproven", "this needs a proof with the key of the cluster")
        self._challenges.use(challenge)
        answer = await self._answered(request, person, target, body)
        answer.headers[proof.ANSWER] = proof.of_answer(
            key, self._shown, challenge, answer.status_code, bytes(answer.body)
        )
        return answer

    async def _answered(self, request: Request, person: str, target: str, body: bytes) -> Response:
        path = unquote(target.partition("?")[0]).removeprefix(API)
        if not possible(request.method, path):
            return _json(403, "request.forbidden", f"{request.method} {path} is not possible from another node")
        if not is_person(person):
            return _json(400, "request.invalid", f"{FOR}: expected who asks, for example root@n1")
        asking = asyncio.ensure_future(self._local.ask(person, request.method, target, body, ANSWER_S))
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return _json(503, "node.stopping", "the client left")
            status, content = asking.result()
            return Response(content, status, media_type="application/json")
        except NotRunning as trouble:
            return _json(503, "node.not_running", str(trouble))
        finally:
            for task in (asking, leaving):
                task.cancel()
            await asyncio.gather(asking, leaving, return_exceptions=True)

    # --- who asks

    def _page(self, handler: Callable[[Request, Session], Awaitable[Response]]) -> Handler:
        """A page for who is logged in; everybody else is sent to the login."""

        async def handle(request: Request) -> Response:
            own = request.url.path == "/modules"  # the page asks, not the person
            session = self._session(request, use=not own)
            if session is None:
                return Response("login", 401) if own else RedirectResponse("/login", 303)
            try:
                return await handler(request, session)
            except _Wrong as wrong:
                return _html(pages.refusal(session, "Refused", str(wrong)), wrong.status)

        return handle

    def _form(self, handler: Callable[[Request, Session, dict[str, str]], Awaitable[Response]]) -> Handler:
        """A form of one of our pages, from who is logged in."""

        async def handle(request: Request) -> Response:
            session = self._session(request, use=True)
            if session is None:
                return RedirectResponse("/login", 303)
            try:
                _same_site(request)
                fields = await _fields(request)
                if not session.has_token(fields.get("token", "")):
                    raise _Wrong(403, "the form is not one of this session: go back and load the page again")
                return await handler(request, session, fields)
            except _Wrong as wrong:
                return _html(pages.refusal(session, "Refused", str(wrong)), wrong.status)

        return handle

    def _session(self, request: Request, *, use: bool) -> Session | None:
        """Who is logged in, with what he may do now; a new password, a new role or a removal ends his sessions."""
        cookie = request.cookies.get(COOKIE, "")
        session = self._sessions.find(cookie, use=use) if cookie else None
        if session is None:
            return None
        try:
            known = self._accounts.find(session.account.name)
        except UnreadableFile as trouble:
            _logger.error("%s: nobody can log in", trouble)
            known = None
        if known != session.account:
            self._sessions.close(cookie)
            return None
        return session

    async def _checked(self, name: str, password: str) -> Account | None:
        """The account, if this is its password."""
        try:
            account = self._accounts.find(name)
        except UnreadableFile as trouble:
            _logger.error("%s: nobody can log in", trouble)
            account = None
        self._logins += 1
        try:
            work = partial(matches, password, account.password if account else NOBODY)
            right = await asyncio.get_running_loop().run_in_executor(self._checker, work)
        finally:
            self._logins -= 1
        return account if right and account is not None else None

    async def _board(self) -> tuple[Board | None, str]:
        try:
            return await self._cluster.board(), ""
        except (NotRunning, Refused) as trouble:
            return None, str(trouble)


def _same_site(request: Request) -> None:
    """A browser says where a form comes from; what is no browser has no cookie that somebody else could use."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin is not None and origin != f"https://{request.headers.get('host', '')}":
        raise _Wrong(403, "the form comes from another site")
    if site is not None and site not in ("same-origin", "none"):
        raise _Wrong(403, "the form comes from another site")


async def _fields(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise _Wrong(415, "expected a form (application/x-www-form-urlencoded)")
    try:
        text = (await _body(request, LONGEST_FORM)).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=20))
    except ValueError:
        raise _Wrong(400, "the form cannot be read") from None


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _Wrong(413, f"the body is larger than {limit // 1024} KiB")
    except TimeoutError:
        raise _Wrong(408, f"the body did not arrive within {BODY_S:g} s") from None
    return bytes(body)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _operation(method: str, path: str) -> str:
    """The path of an operation, made of what a browser sent."""
    if not possible(method, path):
        raise _Wrong(400, f"{path}: no such module or operation")
    return path


def _target(request: Request) -> str:
    """Path and query as they were sent."""
    raw = bytes(request.scope["raw_path"]).decode("ascii", "replace")
    query = bytes(request.scope["query_string"]).decode("ascii", "replace")
    return f"{raw}?{query}" if query else raw


def _person(request: Request, session: Session) -> str:
    return f"{session.account.name}@{_address(request)}"


def _address(request: Request) -> str:
    assert request.client is not None, "a connection over TCP has a peer"
    return request.client.host


def _html(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="text/html")


def _json(status: int, code: str, message: str) -> Response:
    content = json.dumps({"error": {"code": code, "message": message}})
    return Response(content, status, media_type="application/json")


async def _nothing_there(_request: Request, trouble: Exception) -> Response:
    assert isinstance(trouble, HTTPException)
    return _html(pages.refusal(None, "Nothing there", "There is no such page."), trouble.status_code)


async def _defect(request: Request, trouble: Exception) -> Response:
    _logger.exception("%s %s failed", request.method, request.url.path, exc_info=trouble)
    return _html(pages.refusal(None, "Defect", "The web service failed: see `journalctl -u safekit-web`."), 500)
