"""The web service as a browser and another node meet it: over TLS, before the API of a node on its socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from safekit.afar import web_key
from safekit.api.face import StateInfo
from safekit.paths import Paths
from safekit.web import proof, sessions
from safekit.web.accounts import Account, Role, read_accounts, write_accounts
from safekit.web.app import COOKIE
from safekit.web.certificate import Unusable, ensure
from safekit.web.passwords import hashed
from safekit.web.remote import Unreachable, ask
from safekit.web.service import serving
from tests.unit.api.small_node import DATE, SmallNode

PASSWORD = "correct horse"
KEPT = hashed(PASSWORD, b"0123456789abcdef")
CLUSTER_KEY = b"k" * 32
KEY = web_key(CLUSTER_KEY)
STOP = "/api/v1/modules/db/actions/stop"
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "opt", tmp_path / "var", tmp_path / "run")


@pytest.fixture
async def node(paths: Paths) -> AsyncIterator[SmallNode]:
    """A node outside of a cluster, which has a key all the same, with the module `db`, ALONE."""
    node = SmallNode(paths)
    async with node.running():
        await node.module_install("db", b"a package", None, check=False, replace=False)
        await node.module_config("db", check=False)
        node.move("db", StateInfo("ALONE", "Ready", DATE, "because"))
        node.key = CLUSTER_KEY
        yield node


@pytest.fixture
async def port(node: SmallNode, paths: Paths) -> AsyncIterator[int]:
    """Where its web service listens. Known: adam (admin), carol (control), mona (monitor)."""
    people: tuple[tuple[str, Role], ...] = (("adam", "admin"), ("carol", "control"), ("mona", "monitor"))
    write_accounts(paths.web, {name: Account(name, role, KEPT) for name, role in people})
    ensure(paths, "n1", ["192.0.2.1"], NOW)
    async with serving(paths, 0, "127.0.0.1") as number:
        yield number


@pytest.fixture
async def browser(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=False, timeout=60) as client:
        yield client


async def log_in(browser: httpx.AsyncClient, name: str, password: str = PASSWORD) -> httpx.Response:
    return await browser.post("/login", data={"httpd_username": name, "httpd_password": password, "login": "Login"})


async def token(browser: httpx.AsyncClient) -> str:
    found = re.search(r'name="token" value="([^"]+)"', (await browser.get("/")).text)
    assert found is not None
    return found[1]


async def remote(
    port: int, method: str, target: str, body: bytes = b"", key: bytes = KEY, person: str = "root@n2"
) -> tuple[int, Any]:
    status, content = await asyncio.to_thread(ask, "127.0.0.1", port, key, person, method, target, body, 60.0)
    return status, json.loads(content)


# --- people


async def test_who_is_not_logged_in_meets_the_login_and_nothing_else(
    browser: httpx.AsyncClient, node: SmallNode
) -> None:
    for path in ("/", "/log?module=db&node=n1"):
        answer = await browser.get(path)
        assert (answer.status_code, answer.headers["location"], answer.text) == (303, "/login", "")
    assert (await browser.get("/modules")).status_code == 401
    for path in ("/action", "/logout"):
        form = {"module": "db", "node": "host1", "action": "stop", "token": ""}
        assert (await browser.post(path, data=form)).headers["location"] == "/login"
    for path in ("/api/v1/node", "/api/v1/modules", "/api/v1/nothing", "/api/v1/cluster/key"):
        for method in ("GET", "POST", "PUT"):
            assert (await browser.request(method, path)).status_code == 401
    assert (await browser.post(STOP, json={})).status_code == 401
    assert (await browser.get("/nothing")).status_code == 404
    login = (await browser.get("/login")).text
    assert "db" not in login and "host1" not in login and "httpd_password" in login
    assert node.actions == []


async def test_login_then_home_then_logout(browser: httpx.AsyncClient) -> None:
    answer = await log_in(browser, "adam")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("secure", "httponly", "samesite=strict", "path=/"))
    assert "domain" not in cookie and cookie.startswith("__host-")
    home = await browser.get("/")
    assert home.status_code == 200
    assert 'data-module="db"' in home.text and 'data-state="ALONE"' in home.text and "adam (admin)" in home.text
    kept = dict(browser.cookies)
    assert (await browser.post("/logout", data={"token": await token(browser)})).headers["location"] == "/login"
    assert (await browser.get("/", headers={"cookie": f"{COOKIE}={kept[COOKIE]}"})).headers["location"] == "/login"


async def test_a_wrong_password_and_an_unknown_user_are_told_the_same(browser: httpx.AsyncClient) -> None:
    answers = [await log_in(browser, "adam", "wrong password"), await log_in(browser, "nobody", "wrong password")]
    assert [one.status_code for one in answers] == [401, 401]
    assert answers[0].text.replace("adam", "nobody") == answers[1].text
    assert not browser.cookies


async def test_guessing_is_slowed_down_before_the_password_is_looked_at(
    browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr(sessions, "LONGEST_PAUSE_S", {"address": 3600.0, "user": 3600.0})
    tried = await asyncio.gather(*(log_in(browser, "adam", f"wrong password {number}") for number in range(12)))
    assert sorted(one.status_code for one in tried) == [401] * 5 + [429] * 7
    last = await log_in(browser, "adam")
    assert last.status_code == 429 and int(last.headers["retry-after"]) > 0 and not browser.cookies


async def test_a_button_acts_and_the_command_log_names_the_person(browser: httpx.AsyncClient, node: SmallNode) -> None:
    await log_in(browser, "carol")
    form = {"module": "db", "node": "host1", "action": "stop", "token": await token(browser)}
    assert (await browser.post("/action", data=form)).headers["location"] == "/"
    assert [(one[0], one[1], one[2].user) for one in node.actions] == [("db", "stop", "carol@127.0.0.1")]
    assert "stop db on host1: accepted" in (await browser.get("/")).text
    who = [entry.who for entry in await node.commands.last(10) if entry.type == "stop"]
    assert who and all(one.startswith("carol@127.0.0.1 ") for one in who)


async def test_who_only_looks_cannot_act(browser: httpx.AsyncClient, node: SmallNode) -> None:
    await log_in(browser, "mona")
    form = {"module": "db", "node": "host1", "action": "stop", "token": await token(browser)}
    assert (await browser.post("/action", data=form)).status_code == 403
    assert (await browser.get("/log?module=db&node=host1")).status_code == 200
    assert node.actions == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_another_site_can_neither_act_nor_log_in(
    browser: httpx.AsyncClient, node: SmallNode, headers: dict[str, str]
) -> None:
    form = {"httpd_username": "adam", "httpd_password": PASSWORD}
    assert (await browser.post("/login", data=form, headers=headers)).status_code == 403 and not browser.cookies
    await log_in(browser, "adam")
    act = {"module": "db", "node": "host1", "action": "stop", "token": await token(browser)}
    assert (await browser.post("/action", data=act, headers=headers)).status_code == 403
    assert node.actions == []


@pytest.mark.parametrize("given", ["", "wrong", "ä"])
async def test_a_form_without_the_token_of_the_session_is_refused(
    browser: httpx.AsyncClient, node: SmallNode, given: str
) -> None:
    await log_in(browser, "adam")
    act = {"module": "db", "node": "host1", "action": "stop", "token": given}
    assert (await browser.post("/action", data=act)).status_code == 403
    assert (await browser.post("/action", json=act)).status_code == 415
    assert (await browser.get("/action")).status_code == 405
    assert node.actions == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("action", "primforce", "action"),
        ("action", "../../../cluster/key", "action"),
        ("module", "../..", "no such module"),
        ("module", "db/x", "no such module"),
    ],
)
async def test_a_form_can_only_do_what_the_buttons_do(
    browser: httpx.AsyncClient, node: SmallNode, field: str, value: str, said: str
) -> None:
    await log_in(browser, "adam")
    form = {"module": "db", "node": "host1", "action": "stop", "token": await token(browser)} | {field: value}
    answer = await browser.post("/action", data=form)
    assert answer.status_code == 400 and said in answer.text
    assert node.actions == []


async def test_a_node_that_is_none_is_named(browser: httpx.AsyncClient, node: SmallNode) -> None:
    await log_in(browser, "adam")
    form = {"module": "db", "node": "n9", "action": "stop", "token": await token(browser)}
    await browser.post("/action", data=form)
    assert "n9: no node of this cluster" in (await browser.get("/")).text and node.actions == []


async def test_a_form_that_is_too_large_is_refused(browser: httpx.AsyncClient) -> None:
    assert (await log_in(browser, "adam", "x" * 20_000)).status_code == 413


async def test_every_answer_is_strict_with_the_browser(browser: httpx.AsyncClient) -> None:
    for path in ("/", "/login", "/nothing", "/console.js", "/api/challenge", "/api/v1/node"):
        headers = (await browser.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["cache-control"] == "no-store" and "server" not in headers
        # With `no-referrer` a browser says `Origin: null` of our own forms, which are then refused.
        assert headers["referrer-policy"] == "same-origin"


async def test_who_is_changed_or_removed_must_log_in_again(browser: httpx.AsyncClient, paths: Paths) -> None:
    people = read_accounts(paths.web)
    for after in ({**people, "adam": Account("adam", "monitor", KEPT)}, {}):
        write_accounts(paths.web, people)
        await log_in(browser, "adam")
        assert (await browser.get("/")).status_code == 200
        write_accounts(paths.web, after)
        assert (await browser.get("/")).headers["location"] == "/login"


async def test_the_log_of_a_module_is_shown(browser: httpx.AsyncClient, node: SmallNode) -> None:
    await node.add_log("db", "E", "<b>something</b>", "userplug")
    await log_in(browser, "mona")
    page = (await browser.get("/log?module=db&node=host1")).text
    assert "&lt;b&gt;something&lt;/b&gt;" in page
    assert (await browser.get("/log?module=none&node=host1")).status_code == 502
    assert (await browser.get("/log?module=../x&node=host1")).status_code == 400


# --- nodes


async def test_a_node_of_the_cluster_may_look_and_act(port: int, node: SmallNode) -> None:
    assert (await remote(port, "GET", "/api/v1/modules/db/state"))[1]["state"] == "ALONE"
    status, done = await remote(port, "POST", STOP, b'{"options": {}}')
    assert (status, done["changed"]) == (202, True)
    assert node.actions[0][2].user == "root@n2"
    assert (await remote(port, "GET", "/api/v1/modules/none"))[0] == 404


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/api/v1/cluster/key"),
        ("GET", "/api/v1/cluster/webkey"),
        ("PUT", "/api/v1/cluster"),
        ("PUT", "/api/v1/modules/evil"),
        ("GET", "/api/v1/modules/db/package"),
        ("GET", "/api/v1/modules/db/resources/..%2f..%2f..%2fcluster%2fkey"),
    ],
)
async def test_not_even_a_node_may_install_or_learn_the_key(port: int, method: str, target: str) -> None:
    status, refused = await remote(port, method, target)
    assert (status, refused["error"]["code"]) == (403, "request.forbidden")


async def test_the_socket_of_the_web_service_refuses_the_same_by_itself(node: SmallNode, paths: Paths) -> None:
    transport = httpx.AsyncHTTPTransport(uds=str(paths.web_socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://node/api/v1") as client:
        person = {"x-safekit-for": "eve@192.0.2.1"}
        assert (await client.get("/node", headers=person)).status_code == 200
        assert (await client.get("/node")).status_code == 400
        assert (await client.get("/cluster/key", headers=person)).status_code == 403
        assert (await client.put("/modules/evil", json={}, headers=person)).status_code == 403
        assert (await client.get("/modules/..%2fcluster%2fkey", headers=person)).status_code == 403
    assert paths.web_socket.stat().st_mode & 0o007 == 0 and paths.web_socket.parent.stat().st_mode & 0o007 == 0


async def test_another_key_is_refused_in_words(port: int, node: SmallNode) -> None:
    with pytest.raises(Unreachable, match="does not have the key of this cluster"):
        await remote(port, "POST", STOP, key=web_key(b"x" * 32))
    node.key = None
    with pytest.raises(Unreachable):
        await remote(port, "POST", STOP, key=b"")
    assert node.actions == []


async def test_a_proof_is_good_once(port: int, browser: httpx.AsyncClient, node: SmallNode, paths: Paths) -> None:
    shown = proof.fingerprint(proof.first_certificate(paths.web_certificate[0].read_text()))
    challenge, body = (await browser.get("/api/challenge")).text, b'{"options": {}}'
    headers = {
        "x-safekit-for": "root@n2",
        proof.CHALLENGE: challenge,
        proof.PROOF: proof.of_request(KEY, shown, challenge, "root@n2", "POST", STOP, body),
    }
    changed = [
        ({**headers, "x-safekit-for": "root@n3"}, STOP, body),
        (headers, STOP.replace("stop", "swap"), body),
        (headers, STOP + "?x=1", body),
        (headers, STOP, body + b" "),
        ({**headers, proof.CHALLENGE: (await browser.get("/api/challenge")).text}, STOP, body),
    ]
    for fields, target, content in changed:
        assert (await browser.post(target, headers=fields, content=content)).status_code == 401
    assert (await browser.post(STOP, headers=headers, content=body)).status_code == 202
    assert (await browser.post(STOP, headers=headers, content=body)).status_code == 401
    assert len(node.actions) == 1


async def test_who_stands_between_two_nodes_gets_nothing(
    port: int, paths: Paths, tmp_path: Path, node: SmallNode
) -> None:
    """It shows a certificate of its own and hands everything on: the proof is about that certificate, and refused."""
    own = Paths(tmp_path, tmp_path / "between", tmp_path)
    ensure(own, "between", [], NOW)
    mine, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    mine.load_cert_chain(*own.web_certificate)
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port, ssl=theirs)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while chunk := await source.read(65536):
                sink.write(chunk)
            sink.close()

        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer), return_exceptions=True)

    async with await asyncio.start_server(hand_on, "127.0.0.1", 0, ssl=mine) as between:
        with pytest.raises(Unreachable):
            await remote(between.sockets[0].getsockname()[1], "POST", STOP)
    assert node.actions == []


async def test_a_port_where_nobody_listens_is_a_connection_error(paths: Paths) -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        free = server.sockets[0].getsockname()[1]
    with pytest.raises(Unreachable, match="connection error: Connection refused"):
        await remote(free, "GET", "/api/v1/node")


async def test_without_safekitd_the_login_works_and_says_so(paths: Paths) -> None:
    write_accounts(paths.web, {"adam": Account("adam", "admin", KEPT)})
    ensure(paths, "n1", [], NOW)
    async with serving(paths, 0, "127.0.0.1") as number:
        async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{number}", verify=False, timeout=60) as browser:
            await log_in(browser, "adam")
            assert "safekitd is not running on this node" in (await browser.get("/")).text
        with pytest.raises(Unreachable, match="its safekitd is not running"):
            await remote(number, "GET", "/api/v1/node")


async def test_older_tls_and_plain_text_are_refused(port: int) -> None:
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", port, ssl=old)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /login HTTP/1.1\r\nHost: n1\r\n\r\n")
    answered = b""
    with contextlib.suppress(ConnectionError):
        answered = await reader.read()
    assert b"SafeKit" not in answered
    writer.close()


# --- the certificate


def test_a_certificate_is_made_once_and_its_key_is_roots(paths: Paths) -> None:
    assert ensure(paths, "n1", ["192.0.2.1", "fe80::1%eth0"], NOW)
    made = [path.read_bytes() for path in paths.web_certificate]
    assert not ensure(paths, "n1", [], NOW)
    assert [path.read_bytes() for path in paths.web_certificate] == made
    assert paths.web_certificate[1].stat().st_mode & 0o007 == 0


def test_half_a_pair_and_a_wrong_pair_are_named(paths: Paths, tmp_path: Path) -> None:
    ensure(paths, "n1", [], NOW)
    certificate, key = paths.web_certificate
    other = Paths(tmp_path, tmp_path / "other", tmp_path)
    ensure(other, "n1", [], NOW)
    key.write_bytes(other.web_certificate[1].read_bytes())
    with pytest.raises(Unusable, match="expected a certificate and its unencrypted key in PEM"):
        ensure(paths, "n1", [], NOW)
    key.unlink()
    with pytest.raises(Unusable, match=r"server\.key is not"):
        ensure(paths, "n1", [], NOW)
    assert certificate.exists()
