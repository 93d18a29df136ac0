# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The client against a real unix socket with an HTTP server behind it.

from __future__ import annotations

import http.server
import json
import socketserver
import threading

import pytest

from ansible_collections.evidian.safekit.plugins.module_utils._client import (
    ApiError,
    Client,
    NoDaemon,
    SocketTransport,
    path_of,
)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, json.loads(body) if body else None))
        status, payload = self.server.answers[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, *_args):
        pass

    def address_string(self):
        return "local"


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@pytest.fixture
def server(tmp_path):
    with Server(str(tmp_path / "s.sock"), Handler) as running:
        running.seen = []
        running.answers = {}
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def client_of(server, seconds=5.0):
    return Client(SocketTransport(server.server_address), seconds)


def test_a_question_is_answered(server):
    server.answers["/api/v1/modules/db/wait?state=PRIM,ALONE"] = (200, b'{"state": "PRIM"}')
    assert client_of(server).get("modules", "db", "wait", state="PRIM,ALONE", substate=None) == {"state": "PRIM"}


def test_an_order_carries_its_body(server):
    server.answers["/api/v1/cluster"] = (200, b'{"changed": true}')
    assert client_of(server).call("PUT", "/cluster", {"xml": "<é/>"}) == {"changed": True}
    assert server.seen == [("PUT", "/api/v1/cluster", {"xml": "<é/>"})]


def test_a_refusal_keeps_its_facts(server):
    error = {"code": "config.value", "message": "bad value 'x'", "line": 3, "value": "x", "expected": "a number"}
    server.answers["/api/v1/node"] = (422, json.dumps({"error": error}).encode())
    with pytest.raises(ApiError) as caught:
        client_of(server).get("node")
    assert (caught.value.status, caught.value.code, caught.value.facts["line"]) == (422, "config.value", 3)
    assert caught.value.describe() == "bad value 'x' (line: 3, expected: a number)"


@pytest.mark.parametrize(
    "status, payload, code",
    [(200, b"<html>", "answer.invalid"), (200, b"[]", "answer.invalid"), (500, b"{}", "unknown")],
)
def test_an_answer_that_is_none_is_an_error(server, status, payload, code):
    server.answers["/api/v1/node"] = (status, payload)
    with pytest.raises(ApiError) as caught:
        client_of(server).get("node")
    assert caught.value.code == code


def test_a_missing_socket_means_no_runtime(tmp_path):
    with pytest.raises(NoDaemon) as caught:
        Client(SocketTransport(str(tmp_path / "none.sock"))).get("node")
    assert caught.value.installed is False
    assert str(caught.value) == "safekitd cannot be reached at %s: no such socket" % (tmp_path / "none.sock")


def test_a_socket_without_a_daemon_is_an_installed_runtime(tmp_path):
    with Server(str(tmp_path / "s.sock"), Handler):
        pass
    with pytest.raises(NoDaemon) as caught:
        Client(SocketTransport(str(tmp_path / "s.sock"))).get("node")
    assert caught.value.installed is True


def test_a_silent_daemon_is_named_with_the_time(tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        listener.listen()
        with pytest.raises(NoDaemon) as caught:
            Client(SocketTransport(str(tmp_path / "s.sock"))).get("node", seconds=0.1)
    assert "no answer to GET /api/v1/node" in str(caught.value)


def test_a_name_cannot_leave_its_place_in_the_path():
    assert path_of("modules", "a/../b ?", state="PRIM,ALONE", none=None) == "/modules/a%2F..%2Fb%20%3F?state=PRIM,ALONE"
