"""`safekit -H HOSTS COMMAND`: the same command on several servers, each through its web service (spec §8).

The command runs here once per server, with a client that asks that server instead of this node. One block is printed for each,
with its URL as header; a server that cannot be asked says so in its block and keeps nobody else from being asked.
"""

from __future__ import annotations

import base64
import re
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from safekit.afar import PORT, command_addresses
from safekit.cli.client import Client
from safekit.cli.common import Context
from safekit.cli.exit_codes import ExitCode, Failure
from safekit.paths import Paths

HERE_ONLY = frozenset({"-p", "-h", "--help", "logview", "webservercfg", "webserver"})
"""What `-H` does not take: it follows for ever, or is about this machine."""

_PREFIX = re.compile(r"\[(?P<scheme>[A-Za-z]*)(?::(?P<port>\d{1,5}))?\],?(?P<hosts>.*)")
_FORMS = "*, n1,n2, [https:9453],host1,host2 or https://host:port,…"


@dataclass(frozen=True)
class Server:
    """Where to ask. `name`: of the node in the cluster, or as it was written."""

    name: str
    address: str
    port: int

    @property
    def url(self) -> str:
        """As it stands in the header of its block."""
        return f"https://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"


def servers_of(text: str, nodes: dict[str, str]) -> tuple[Server, ...]:
    """The servers that `-H` names; `nodes`: name -> address in this cluster. Failure for what is none."""
    prefix, port = _PREFIX.fullmatch(text.strip()), PORT
    hosts = text.strip()
    if prefix is not None:
        _check_scheme(prefix["scheme"] or "https")
        port, hosts = _port(prefix["port"] or str(PORT)), prefix["hosts"]
    if hosts in ("*", ""):
        if not hosts and prefix is None:
            raise Failure(ExitCode.USAGE, f"-H: no server, expected {_FORMS}")
        return tuple(Server(name, address, port) for name, address in nodes.items())
    return tuple(
        _server(word.strip(), port, nodes, any_host=prefix is not None) for word in hosts.split(",") if word.strip()
    )


def distribute(arguments: Sequence[str], paths: Paths, run: Callable[[Sequence[str], Context], int]) -> int:
    """Run `-H HOSTS COMMAND…` on each server; the exit code of the first that failed, 0 if none did."""
    if len(arguments) < 3:
        raise Failure(ExitCode.USAGE, f'expected: safekit -H "HOSTS" COMMAND, where HOSTS is {_FORMS}')
    words = arguments[2:]
    if words[0] in HERE_ONLY or words[0] == "-H":
        raise Failure(ExitCode.USAGE, f"-H does not distribute {words[0]}")
    here = Client(paths.api_socket)
    cluster = here.get("cluster")
    key = here.get("cluster", "webkey")["key"]
    if not cluster["configured"] or key is None:
        raise Failure(ExitCode.REFUSED, "-H needs a cluster with a key: `safekit cluster config FILE`")
    person = f"root@{cluster['node'] or socket.gethostname()}"
    code = 0
    for server in servers_of(arguments[1], command_addresses(cluster["lans"])):
        name = f" ({server.name})" if server.name != server.address else ""
        print(f"---------------- {server.url}{name}", flush=True)
        there = RemoteClient(paths, server, base64.b64decode(key), person)
        ended = run(words, Context(paths, there, server.url))
        sys.stdout.flush()
        code = code or ended
    return code


class RemoteClient(Client):
    """Speaks to the daemon of another node."""

    def __init__(self, paths: Paths, server: Server, key: bytes, person: str) -> None:
        super().__init__(paths.api_socket)
        self._server = server
        self._key = key
        self._person = person

    def _send(self, method: str, target: str, content: bytes, timeout: float) -> tuple[int, bytes]:
        from safekit.web.remote import Unreachable, ask  # TLS takes longer to load than a command of this node to run

        try:
            return ask(
                self._server.address, self._server.port, self._key, self._person, method, target, content, timeout
            )
        except Unreachable as trouble:
            raise Failure(ExitCode.UNREACHABLE, f"{self._server.url}: {trouble}") from None


def _server(word: str, port: int, nodes: dict[str, str], *, any_host: bool) -> Server:
    if "://" in word:
        try:
            url = urlsplit(word)
            host, given = url.hostname, url.port
        except ValueError as trouble:
            raise Failure(ExitCode.USAGE, f"-H: {word!r}: {trouble}") from None
        _check_scheme(url.scheme)
        if not host or url.path not in ("", "/") or url.query or url.username:
            raise Failure(ExitCode.USAGE, f"-H: {word!r}: expected https://host:port")
        return Server(host, host, given or PORT)
    if word in nodes:
        return Server(word, nodes[word], port)
    if any_host:
        return Server(word, word, port)
    raise Failure(ExitCode.USAGE, f"-H: {word!r} is no node of this cluster ({', '.join(nodes)}); expected {_FORMS}")


def _check_scheme(scheme: str) -> None:
    if scheme != "https":
        raise Failure(ExitCode.USAGE, f"-H: {scheme}: nodes are asked by https only")


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise Failure(ExitCode.USAGE, f"-H: port {text}: expected 1 to 65535")
    return port
