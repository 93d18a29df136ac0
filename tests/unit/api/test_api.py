"""The contract of the local API: paths, answers, refusals, and who asked."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from safekit.api.app import Api
from safekit.api.face import ERRORS, NodeFace, Progress, StateInfo
from safekit.api.fields import BODY_LIMIT
from safekit.api.replicated import SyncPolicy
from safekit.api.server import serve
from safekit.paths import Paths
from tests.unit.api.small_node import DATE, SmallNode

PACKAGE = base64.b64encode(b"a package").decode()
DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "api.md"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "opt", tmp_path / "var", tmp_path / "run")


@pytest.fixture
async def node(paths: Paths) -> AsyncIterator[SmallNode]:
    node = SmallNode(paths)
    face: NodeFace = node
    assert face is node
    async with node.running():
        yield node


@pytest.fixture
async def client(node: SmallNode, paths: Paths) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(paths.api_socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://node/api/v1", timeout=20) as client:
        yield client


@pytest.fixture
async def db(node: SmallNode, client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The client of a node that has the configured module `db`."""
    assert (await client.put("/modules/db", json={"package": PACKAGE})).status_code == 200
    assert (await client.post("/modules/db/config")).status_code == 200
    return client


async def test_socket_belongs_to_root_alone(node: SmallNode, paths: Paths) -> None:
    status = paths.api_socket.stat()
    assert stat.S_IMODE(status.st_mode) in (0o600, 0o660)
    assert status.st_uid == os.getuid()


async def test_node_says_who_it_is(client: httpx.AsyncClient) -> None:
    assert (await client.get("/node")).json() == {
        "name": None,
        "hostname": "host1",
        "version": "8.2.1",
        "os": "Debian GNU/Linux 12",
        "uptime_s": 12.5,
    }


async def test_cluster_is_applied_read_back_and_removed(client: httpx.AsyncClient, node: SmallNode) -> None:
    key = base64.b64encode(b"given").decode()
    applied = await client.put("/cluster", json={"xml": "<cluster/>", "key": key, "lock": "lock"})
    assert applied.json() == {"changed": True, "signature": "c0ffee", "warnings": []}
    assert node.key == b"given"
    cluster = (await client.get("/cluster")).json()
    assert (cluster["configured"], cluster["locked"], cluster["node"]) == (True, True, "n1")
    assert cluster["lans"][0]["nodes"][1] == {"name": "n2", "addr": "10.0.0.2"}
    assert cluster["date"] == "2026-11-22T03:04:05+00:00"
    refused = await client.put("/cluster", json={"xml": "<cluster/>"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "cluster.locked")
    nodes = (await client.get("/cluster/state")).json()["nodes"]
    assert [(one["name"], one["reachable"]) for one in nodes] == [("n1", True), ("n2", False)]
    assert (await client.delete("/cluster")).json() == {"changed": True}
    assert (await client.delete("/cluster")).json() == {"changed": False}


async def test_checking_changes_nothing_and_is_no_command(client: httpx.AsyncClient, node: SmallNode) -> None:
    assert (await client.put("/cluster", json={"xml": "<cluster/>", "check": True})).json()["changed"] is True
    assert (await client.put("/modules/db", json={"package": PACKAGE, "check": True})).json()["changed"] is True
    assert not node.cluster.configured and not node.infos
    assert (await client.get("/cmdlog")).json() == {"entries": []}


async def test_wrong_configuration_is_named_to_the_attribute(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.put("/cluster", json={"xml": "<wrong/>"}),
        await client.post("/cluster/confcheck", json={"xml": "<wrong/>"}),
    ):
        assert answer.status_code == 422
        assert answer.json()["error"] == {
            "code": "config.value",
            "message": 'cluster.xml, line 3: <lan pulse="wrong">: not a number',
            "file": "cluster.xml",
            "line": 3,
            "element": "lan",
            "attribute": "pulse",
            "value": "wrong",
        }


async def test_key_is_made_and_shown(client: httpx.AsyncClient, node: SmallNode) -> None:
    assert (await client.get("/cluster/key")).json() == {"key": None}
    assert (await client.post("/cluster/key")).json() == {"changed": True}
    assert base64.b64decode((await client.get("/cluster/key")).json()["key"]) == b"new key"


async def test_a_cluster_is_served_as_a_witness_shown_and_forgotten(client: httpx.AsyncClient) -> None:
    assert (await client.get("/witness")).json()["serving"] is False
    path, body = "/witness/clusters/shop", {"key": "a2V5", "nodes": ["n1", "n2"]}
    assert (await client.put(path, json=body | {"check": True})).json() == {"changed": True}
    assert (await client.get("/witness")).json()["clusters"] == []
    assert (await client.put(path, json=body)).json() == {"changed": True}
    assert (await client.put(path, json=body)).json() == {"changed": False}
    (cluster,) = (await client.get("/witness")).json()["clusters"]
    assert (cluster["name"], cluster["nodes"]) == ("shop", ["n1", "n2"])
    assert cluster["registers"][0]["holders"] == ["n1", "n2"]
    assert "key" not in cluster
    refused = await client.put(path, json=body | {"key": "b3RoZXI="})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "witness.other_key")
    assert (await client.delete(path)).json() == {"changed": True}
    assert (await client.delete(path)).json() == {"changed": False}


async def test_module_is_installed_configured_packaged_and_removed(client: httpx.AsyncClient) -> None:
    installed = await client.put("/modules/db", json={"package": PACKAGE, "id": 4, "replace": False})
    assert installed.json() == {"changed": True, "id": 4, "warnings": []}
    assert (await client.get("/modules/db/package")).json() == {"package": PACKAGE}
    configured = await client.post("/modules/db/config", json={"check": False})
    assert configured.json() == {"changed": True, "signature": "ed1ted", "warnings": ["macro unused"]}
    info = (await client.get("/modules/db")).json()
    assert (info["name"], info["id"], info["mode"], info["configured"]) == ("db", 4, "mirror", True)
    assert info["ports"] == {"heart": 8888, "rfs": 5600}
    assert (await client.get("/modules")).json() == {"modules": [info]}
    assert (await client.put("/modules/db/boot", json={"boot": "on"})).json() == {"changed": True}
    assert (await client.post("/modules/db/confcheck")).json() == {"warnings": ["macro unused"]}
    assert (await client.post("/modules/db/deconfig")).json() == {"changed": True}
    assert (await client.delete("/modules/db")).json() == {"changed": True}
    gone = await client.get("/modules/db")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "module.unknown")


async def test_action_is_accepted_with_its_options_and_caller(db: httpx.AsyncClient, node: SmallNode) -> None:
    answer = await db.post("/modules/db/actions/prim", json={"options": {"fullsync": True}, "identity": "errd"})
    assert answer.status_code == 202
    assert answer.json()["accepted"] is True and answer.json()["changed"] is True
    assert answer.json()["state"]["state"] == "ALONE"
    ((am, action, caller, options),) = node.actions
    assert (am, action, options.fullsync, options.nosync) == ("db", "prim", True, False)
    assert (caller.uid, caller.pid, caller.identity) == (os.getuid(), os.getpid(), "errd")


async def test_an_action_takes_a_date_with_its_zone(db: httpx.AsyncClient, node: SmallNode) -> None:
    wanted = {"options": {"date": "2026-11-22T08:00:00+01:00"}}
    assert (await db.post("/modules/db/actions/secondforce", json=wanted)).status_code == 202
    assert node.actions[-1][3].date == datetime(2026, 11, 22, 7, tzinfo=UTC)
    assert (await db.get("/cmdlog?lines=2")).json()["entries"][0]["message"] == "-d 2026-11-22T08:00:00+01:00"
    for wrong in ("yesterday", "2026-11-22T08:00:00"):
        refused = await db.post("/modules/db/actions/secondforce", json={"options": {"date": wrong}})
        assert refused.status_code == 400
        assert f'date is "{wrong}", expected a date with its zone' in refused.json()["error"]["message"]


async def test_every_change_is_in_the_command_log_with_its_caller_and_result(db: httpx.AsyncClient) -> None:
    await db.post("/modules/db/deconfig")
    await db.post("/modules/db/actions/swap", json={"options": {"nosync": True}, "identity": "errd"})
    entries = (await db.get("/cmdlog?lines=2")).json()["entries"]
    assert [(entry["phase"], entry["type"], entry["module"]) for entry in entries] == [
        ("START", "swap", "db"),
        ("END", "swap", "db"),
    ]
    assert entries[0]["message"] == "nosync"
    assert entries[0]["who"].endswith(f"pid={os.getpid()} -i errd")
    assert entries[1]["message"] == "1 module db was never configured"
    assert entries[0]["command"] == entries[1]["command"]


async def test_state_carries_progress_and_what_is_waited_for(db: httpx.AsyncClient, node: SmallNode) -> None:
    progress = Progress(42.5, 10, 20, 100, 200, 50.0, 2.0)
    node.move("db", StateInfo("SECOND", "Transient", DATE, "resync", "42%", "ALONE Ready", ("peer",), "no", progress))
    state = (await db.get("/modules/db/state")).json()
    assert state["progress"] == {
        "percent": 42.5,
        "files_done": 10,
        "files_total": 20,
        "bytes_done": 100,
        "bytes_total": 200,
        "rate_bps": 50.0,
        "eta_s": 2.0,
    }
    assert state["waiting_for"] == ["peer"]


async def test_wait_ends_when_the_state_is_reached(db: httpx.AsyncClient) -> None:
    waiting = asyncio.create_task(db.get("/modules/db/wait?state=PRIM,ALONE&substate=Ready&timeout=30"))
    await asyncio.sleep(0)
    await db.post("/modules/db/actions/start")
    answer = await waiting
    assert (answer.status_code, answer.json()["state"]) == (200, "ALONE")


async def test_wait_that_lasts_too_long_carries_the_state(db: httpx.AsyncClient) -> None:
    answer = await db.get("/modules/db/wait?state=PRIM&timeout=0.05")
    assert answer.status_code == 408
    assert answer.json()["error"]["code"] == "wait.timeout"
    assert answer.json()["error"]["state"]["state"] == "STOP"


async def test_resources_are_set_on_change_and_have_a_history(db: httpx.AsyncClient) -> None:
    assert (await db.put("/modules/db/resources/custom.a", json={"value": "down"})).json() == {"changed": True}
    assert (await db.put("/modules/db/resources/custom.a", json={"value": "up"})).json() == {"changed": True}
    assert (await db.put("/modules/db/resources/custom.a", json={"value": "up"})).json() == {"changed": False}
    one = (await db.get("/modules/db/resources/custom.a?history=10")).json()
    assert (one["name"], one["value"], [change["value"] for change in one["history"]]) == (
        "custom.a",
        "up",
        ["up", "down"],
    )
    assert [entry["value"] for entry in (await db.get("/modules/db/resources")).json()["resources"]] == ["up"]
    assert (await db.get("/modules/db/resources/custom.b")).json()["error"]["code"] == "resource.unknown"


async def test_changes_by_a_checker_stay_out_of_the_command_log(db: httpx.AsyncClient) -> None:
    before = (await db.get("/cmdlog")).json()
    await db.put("/modules/db/resources/custom.a", json={"value": "up", "identity": "checker"})
    assert (await db.get("/cmdlog")).json() == before


async def test_log_is_read_and_followed(db: httpx.AsyncClient) -> None:
    await db.post("/modules/db/log", json={"level": "E", "message": "cannot start"})
    await db.post("/modules/db/log", json={"level": "I", "message": "details"})
    (entry,) = (await db.get("/modules/db/log")).json()["entries"]
    assert (entry["level"], entry["origin"], entry["message"]) == ("E", "userplug", "cannot start")
    assert len((await db.get("/modules/db/log?verbose=true")).json()["entries"]) == 2
    following = asyncio.create_task(db.get(f"/modules/db/log?after={entry['id']}&wait=30"))
    await asyncio.sleep(0)
    await db.post("/modules/db/actions/start")
    (news,) = (await following).json()["entries"]
    assert news["message"].startswith("Action start called by")


async def test_long_polls_end_when_the_daemon_stops(paths: Paths) -> None:
    node = SmallNode(paths)
    transport = httpx.AsyncHTTPTransport(uds=str(paths.api_socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://node/api/v1", timeout=20) as client:
        async with asyncio.timeout(5):
            async with node.running():
                await client.put("/modules/db", json={"package": PACKAGE})
                waiting = asyncio.create_task(client.get("/modules/db/wait?state=PRIM&timeout=600"))
                following = asyncio.create_task(client.get("/modules/db/log?after=0&wait=300"))
                while len(asyncio.all_tasks()) < 5:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)
        for answer in (await waiting, await following):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "node.stopping")
    assert not paths.api_socket.exists()


async def test_poll_whose_client_left_is_given_up(node: SmallNode, db: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await db.get("/modules/db/wait?state=PRIM&timeout=600", timeout=0.2)
    async with asyncio.timeout(5):
        while any("module_wait" in str(task.get_coro()) for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("PUT", "/cluster", "{", 400, "the body is no JSON"),
        ("PUT", "/cluster", "[]", 400, "the body is no JSON object"),
        ("PUT", "/cluster", "{}", 400, "body: xml is missing, expected a string"),
        ("PUT", "/cluster", '{"xml": 3}', 400, "body: xml is 3, expected a string"),
        ("PUT", "/cluster", '{"xml": "", "check": "yes"}', 400, 'body: check is "yes", expected true or false'),
        ("PUT", "/cluster", '{"xml": "", "lock": "on"}', 400, 'body: lock is "on", expected one of lock, unlock'),
        ("PUT", "/cluster", '{"xml": "", "key": "*"}', 400, "body: key is not base64"),
        (
            "PUT",
            "/cluster",
            '{"xml": "", "force": 1}',
            400,
            "body: unknown field 'force', expected only xml, key, check, lock",
        ),
        ("PUT", "/modules/db", "{}", 400, "body: package is missing"),
        (
            "PUT",
            "/modules/db",
            '{"package": "", "id": 0}',
            400,
            "body: id is 0, expected a whole number from 1 to 10000",
        ),
        ("PUT", "/modules/..db", "{}", 400, "module name '..db'"),
        ("POST", "/modules/db/actions/reboot", "{}", 400, "action 'reboot': expected one of start, stop"),
        ("POST", "/modules/db/actions/prim", '{"options": {"force": true}}', 400, "options: unknown field 'force'"),
        ("GET", "/modules/db/wait?state=UPP", "", 400, "query: state 'UPP', expected some of STOP, WAIT"),
        ("GET", "/modules/db/wait?state=UP&timeout=x", "", 400, 'query: timeout is "x", expected a number from 0'),
        ("GET", "/modules/db/wait?state=UP&timeout=nan", "", 400, 'query: timeout is "nan", expected a number from 0'),
        ("GET", "/modules/db/log?lines=0", "", 400, 'query: lines is "0", expected a whole number from 1'),
        ("GET", "/nothing", "", 404, "the API has no /api/v1/nothing"),
        ("POST", "/node", "", 405, "POST is not possible on /api/v1/node"),
    ],
)
async def test_request_that_cannot_be_understood_is_refused_in_one_sentence(
    db: httpx.AsyncClient, method: str, path: str, body: str, status: int, message: str
) -> None:
    answer = await db.request(method, path, content=body)
    assert (answer.status_code, answer.json()["error"]["message"][: len(message)]) == (status, message)
    assert ERRORS[answer.json()["error"]["code"]][0] == status


async def test_body_beyond_the_limit_is_refused_before_it_is_read_whole(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(BODY_LIMIT // 2**20 + 2):
            yield b" " * 2**20

    try:
        answer = await client.put("/cluster", content=endless())
    except httpx.WriteError:
        return  # the server closed the connection while the client still sent
    assert answer.json()["error"]["code"] == "request.too_large"


async def test_defect_is_answered_without_its_details(
    db: httpx.AsyncClient, node: SmallNode, caplog: pytest.LogCaptureFixture
) -> None:
    del node.logs["db"]
    answer = await db.get("/modules/db/log")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "GET /api/v1/modules/db/log failed" in caplog.text


async def test_second_daemon_is_refused_and_a_stale_socket_is_replaced(paths: Paths) -> None:
    node = SmallNode(paths)
    async with node.running():
        with pytest.raises(OSError, match="another safekitd listens there"):
            async with serve(node, paths, node.commands):
                pass
        stale = paths.api_socket.with_name("left-behind")
        os.link(paths.api_socket, stale)
    stale.rename(paths.api_socket)
    node = SmallNode(paths)
    async with node.running():
        transport = httpx.AsyncHTTPTransport(uds=str(paths.api_socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://node/api/v1") as client:
            assert (await client.get("/node")).status_code == 200


async def test_reference_page_names_every_operation_and_error(node: SmallNode) -> None:
    page = DOCUMENT.read_text()
    holes = (("/api/v1", ""), ("{am}", "AM"), ("{action}", "ACTION"), ("{name:path}", "NAME"), ("{class}", "CLASS"))
    missing = []
    for method, path in Api(node, node.commands).operations:
        for hole, name in holes:
            path = path.replace(hole, name)
        if f"| `{method} {path}` |" not in page:
            missing.append(f"{method} {path}")
    assert not missing
    assert not [
        f"| `{code}` | {status} | {meaning} |"
        for code, (status, meaning) in ERRORS.items()
        if f"| `{code}` | {status} | {meaning} |" not in page
    ]


async def test_a_farm_is_shown_with_the_owner_of_each_bucket(client: httpx.AsyncClient, node: SmallNode) -> None:
    assert (await client.put("/modules/web", json={"package": PACKAGE})).status_code == 200
    silent = (await client.get("/modules/web/farm")).json()
    nothing = {"nodes": [], "groups": [], "addresses": [], "packets": None, "drains_for_s": None}
    assert silent == {"node": "n1", "in_service": False, "open": False} | nothing
    node.move("web", StateInfo("UP", "Ready", DATE))
    found = (await client.get("/modules/web/farm")).json()
    assert found["groups"] == [
        {
            "name": "web",
            "shares": [
                {"node": "n1", "buckets": 2, "percent": 66.67},
                {"node": "n2", "buckets": 1, "percent": 33.33},
            ],
            "owners": [0, 1, 0, None],
        }
    ]
    assert found["addresses"][1] == {"address": "fd00::100", "resolved_by": None, "connections": 0, "elsewhere": 0}
    assert found["packets"]["forwarded_n2"] == 5


async def test_scripts_close_and_open_the_share_of_a_node(client: httpx.AsyncClient, node: SmallNode) -> None:
    assert (await client.put("/modules/web", json={"package": PACKAGE})).status_code == 200
    node.move("web", StateInfo("UP", "Ready", DATE))
    for opened, changed in ((False, True), (False, False), (True, True)):
        assert (await client.put("/modules/web/farm", json={"open": opened})).json() == {"changed": changed}
        assert (await client.get("/modules/web/farm")).json()["open"] is opened
    wrong = await client.put("/modules/web/farm", json={"open": "yes"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "request.invalid")


async def test_a_module_without_shared_addresses_shows_no_farm(db: httpx.AsyncClient) -> None:
    refused = await db.get("/modules/db/farm")
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "action.refused"


async def test_statistics_of_the_replication_are_numbers_and_words(db: httpx.AsyncClient) -> None:
    assert (await db.get("/modules/db/rfs/stats")).json() == {
        "stats": {
            "sent_bytes": 1_500_000,
            "wire_p99_us": 2400,
            "queue_count": 3,
            "wire_histogram": "0,4",
            "peer": "mirror",
        }
    }


async def test_a_comparison_begins_and_is_followed_to_its_end(db: httpx.AsyncClient, node: SmallNode) -> None:
    assert (await db.get("/modules/db/rfs/comparison")).json() == {"comparison": None}
    begun = await db.post("/modules/db/rfs/comparison", json={"kind": "verify"})
    assert (begun.status_code, begun.json()["running"], begun.json()["equal"]) == (202, True, None)
    ended = (await db.get("/modules/db/rfs/comparison", params={"wait": 5})).json()["comparison"]
    assert (ended["running"], ended["equal"], ended["files_done"]) == (False, True, 12)
    assert [entry.type for entry in await node.commands.last(9) if entry.phase == "START"][-1] == "rfsverify"
    wrong = await db.post("/modules/db/rfs/comparison", json={"kind": "guess"})
    assert wrong.json()["error"]["message"] == 'body: kind is "guess", expected one of verify, diff'


async def test_a_policy_of_synchronisation_is_chosen(db: httpx.AsyncClient, node: SmallNode) -> None:
    body = {"mode": "external", "role": "prim", "uid": "monday", "unchecked": True}
    assert (await db.put("/modules/db/rfs/sync", json=body)).json() == {"changed": True}
    assert node.policy == SyncPolicy("external", "prim", "monday", check=False)
    assert (await db.put("/modules/db/rfs/sync", json=body)).json() == {"changed": False}
    last = await node.commands.last(9)
    assert next(entry.message for entry in last if entry.type == "rfssync") == "-d external prim monday"
    wrong = await db.put("/modules/db/rfs/sync", json={"mode": "half"})
    assert wrong.json()["error"]["message"] == 'body: mode is "half", expected one of default, full, external'
