"""The service of a witness: answers the claims of many clusters on one UDP port, each from its durable register.

What it believes is sealed with the key of the cluster and carries the life of this witness (`messages.py`); everything
else is dropped without an answer and counted. A grant is on the disk before it is answered. A claim that waits for the
disk keeps nobody else waiting, nor does one that is held back for a lease (`safekit.lease`): looks are answered from what
is known to be durable, and one worker takes the claims in order. What is kept in memory is bounded by what is configured,
never by what arrives.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from safekit.automaton.register import Register, Verdict, decide
from safekit.lease import Leases
from safekit.membership.sealed import Incarnation, Opened, Opener, Refusal, Sealer, addressed, tag
from safekit.membership.sockets import arrived
from safekit.membership.state import Lives
from safekit.witness.messages import (
    ANSWERS,
    CLAIMS,
    WITNESS,
    Malformed,
    Reply,
    Request,
    channel,
    decode_request,
    encode_reply,
)
from safekit.witness.served import ServedCluster, Serving
from safekit.witness.store import RegisterStore, RegisterUnavailable

_WAITING = 256
"""Claims that wait for the disk; more are dropped and asked again."""
_NOTICE_EVERY_S = 1.0
_MOST_ASKERS = 1024
"""Nodes and modules of one cluster whose newest request is remembered."""

Source = tuple[str, int]


@dataclass(frozen=True)
class RegisterView:
    """A register as the API shows it."""

    cluster: str
    module: str
    epoch: int
    holders: tuple[str, ...]
    node: str
    trouble: str = ""


class _Served:
    """One cluster at work: its seals, and the newest request of each node and module."""

    def __init__(self, cluster: ServedCluster, life: Incarnation) -> None:
        name = channel(cluster.name)
        self.cluster = cluster
        self.tag = tag(name, CLAIMS)
        self.number = life.number
        self.life = f"{life.number:x}{life.salt.hex()}"
        self.opener = Opener(name, (CLAIMS,), cluster.key, cluster.nodes)
        self.sealer = Sealer(name, (ANSWERS,), cluster.key, WITNESS, life)
        self.newest: dict[tuple[str, str], tuple[str, int]] = {}
        """(node, module) -> (boot, number): an older request was withdrawn."""
        self.waiting: dict[tuple[str, str], int] = {}
        """(node, module) -> the number that waits for the disk: one of each is enough."""
        self.noticed: dict[str, float] = {}
        self._began = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._leases: dict[str, Leases] = {}
        self._noting = threading.Lock()

    def renew(self, module: str, node: str, length: float) -> bool:
        """Note that a holder runs the application; False when a claim that excludes it waits."""
        with self._noting:
            return self._of(module).renew(node, length, time.clock_gettime(time.CLOCK_BOOTTIME))

    def hold_back(self, module: str, excluded: frozenset[str], length: float) -> float:
        """For how many seconds a claim that would be granted must wait; 0: `decided` must follow."""
        with self._noting:
            return self._of(module).hold_back(excluded, length, time.clock_gettime(time.CLOCK_BOOTTIME))

    def decided(self, module: str, excluded: frozenset[str]) -> None:
        """The register says how."""
        with self._noting:
            self._of(module).decided(excluded)

    def _of(self, module: str) -> Leases:
        if module not in self._leases and len(self._leases) >= _MOST_ASKERS:
            self._leases.clear()
            self._began = time.clock_gettime(time.CLOCK_BOOTTIME)
        return self._leases.setdefault(module, Leases(self._began))


class Witness:
    """Serves what `apply` says until `close`. `say` takes a line for the journal."""

    def __init__(self, store: RegisterStore, lives: Lives, say: Callable[[str], None]) -> None:
        self._store, self._lives, self._say = store, lives, say
        self._served: dict[bytes, _Served] = {}
        self._serving = Serving()
        self._socket: socket.socket | None = None
        self._claims: asyncio.Queue[tuple[_Served, Request, str, Source]] = asyncio.Queue(_WAITING)
        self._worker: asyncio.Task[None] | None = None
        self._deciding = asyncio.Lock()
        self._troubles: dict[tuple[str, str], str] = {}
        self.answered = 0
        self.dropped: Counter[str] = Counter()
        """How many datagrams were dropped, by reason."""

    # --- what is served ---

    async def apply(self, serving: Serving) -> None:
        """Serve these clusters from now on: no register of another changes after this. Raises OSError when the port cannot be
        had; then nothing changes.
        """
        if self._socket is None:
            self._listen(serving)
        elif (serving.port, serving.addr) != (self._serving.port, self._serving.addr):
            self._close_socket()
            try:
                self._listen(serving)
            except OSError:
                self._listen(self._serving)
                raise
        present = {served.cluster: served for served in self._served.values()}
        served = [present.get(cluster) or _Served(cluster, self._lives.next()) for cluster in serving.clusters]
        self._served = {one.tag: one for one in served}
        self._serving = serving
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        async with self._deciding:
            return

    async def close(self) -> None:
        """Answer nothing more."""
        self._close_socket()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._socket.getsockname()[1]) if self._socket is not None else self._serving.port

    async def registers(self) -> tuple[RegisterView, ...]:
        """Every register of the clusters that are served."""
        return await asyncio.to_thread(self._registers)

    def _registers(self) -> tuple[RegisterView, ...]:
        views = []
        for cluster in self._serving.clusters:
            for module in self._store.registers(cluster.name):
                try:
                    register = self._store.read(cluster.name, module)
                except RegisterUnavailable as error:
                    views.append(RegisterView(cluster.name, module, 0, (), "", str(error)))
                    continue
                if register is not None:
                    holders = tuple(sorted(register.holders))
                    views.append(RegisterView(cluster.name, module, register.epoch, holders, register.node))
        return tuple(views)

    def _listen(self, serving: Serving) -> None:
        self._socket = _bound(serving)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def _close_socket(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    # --- what arrives ---

    def _readable(self) -> None:
        if self._socket is not None:
            for datagram, source in arrived(self._socket):
                self._take(datagram, source)

    def _take(self, datagram: bytes, source: Source) -> None:
        served = self._served.get(addressed(datagram))
        if served is None:
            self.dropped["unknown cluster" if addressed(datagram) else "foreign"] += 1
            return
        opened = served.opener.open(CLAIMS, datagram)
        if isinstance(opened, Refusal):
            self.dropped[opened.reason] += 1
            if opened.reason == "old incarnation" and opened.sender is not None:
                self._notice(served, opened.sender, opened.last, source)
            return
        self._hear(served, opened, source)

    def _notice(self, served: _Served, node: str, last: int, source: Source) -> None:
        """The clock of that node went back: tell it which life it must exceed, or it is never believed."""
        now = time.monotonic()
        if now - served.noticed.get(node, float("-inf")) >= _NOTICE_EVERY_S:
            served.noticed[node] = now
            self._answer(served, Reply(served.life, exceed=last), source)

    def _hear(self, served: _Served, opened: Opened, source: Source) -> None:
        try:
            request = decode_request(opened.body, served.cluster.name, opened.sender)
        except Malformed:
            self.dropped["malformed"] += 1
            return
        if request.exceed >= served.number:
            # The clock of this node went back while it had forgotten its lives.
            self._lives.exceed(request.exceed)
            served = self._served[served.tag] = _Served(served.cluster, self._lives.next())
        if request.life != served.life:
            self._answer(served, Reply(served.life), source)
            return
        asker = (opened.sender, request.module)
        boot, newest = served.newest.get(asker, ("", 0))
        if request.boot == boot and request.number < newest:
            self.dropped["withdrawn"] += 1
            return
        if asker not in served.newest and len(served.newest) >= _MOST_ASKERS:
            served.newest.pop(next(iter(served.newest)))
        served.newest[asker] = (request.boot, request.number)
        if request.claim is None:
            known = self._store.known(served.cluster.name, request.module)
            if known is not None:
                asks = bool(request.lease) and opened.sender in known.holders
                renewed = asks and served.renew(request.module, opened.sender, request.lease)
                self._answer(served, replace(_seen(request, known), life=served.life, renewed=renewed), source)
                return
        if served.waiting.get(asker) == request.number:
            self.dropped["repeated"] += 1
            return
        try:
            self._claims.put_nowait((served, request, opened.sender, source))
            served.waiting[asker] = request.number
        except asyncio.QueueFull:
            self.dropped["busy"] += 1

    # --- what is answered ---

    async def _work(self) -> None:
        while True:
            served, request, node, source = await self._claims.get()
            asker = (node, request.module)
            async with self._deciding:
                serves = self._served.get(served.tag) is served
                if serves and served.newest.get(asker) == (request.boot, request.number):
                    try:
                        self._answer(served, await self._reply(served, request), source)
                    except Exception as error:
                        # Whatever is wrong with one request, dying of it would silence every cluster.
                        self._say(f"witness of {served.cluster.name}, module {request.module}: no answer: {error!r}")
                else:
                    self.dropped["withdrawn"] += 1
            if served.waiting.get(asker) == request.number:
                del served.waiting[asker]

    async def _reply(self, served: _Served, request: Request) -> Reply:
        name, module = served.cluster.name, request.module
        try:
            reply, granted = await asyncio.to_thread(self._decide, served, request)
        except RegisterUnavailable as error:
            self._told(name, module, str(error))
            return Reply(served.life, module, request.boot, request.number, trouble=str(error))
        self._told(name, module, "")
        if granted is not None:
            self._say(_grant(name, module, granted))
        return replace(reply, life=served.life)

    def _decide(self, served: _Served, request: Request) -> tuple[Reply, Register | None]:
        """The reply, and the register if the request changed it. Runs in a thread: it waits for the disk."""
        cluster = served.cluster
        register = self._store.read(cluster.name, request.module)
        if request.claim is None:
            return _seen(request, register), None
        after, verdict = decide(register, request.claim, cluster.nodes)
        if after is None or after == register:
            return _judged(request, verdict), None
        excluded = frozenset() if register is None else register.holders - after.holders
        if held := served.hold_back(request.module, excluded, request.lease):
            return replace(_seen(request, register), held_s=held), None
        try:
            self._store.write(cluster.name, request.module, after)
        finally:
            served.decided(request.module, excluded)
        return _judged(request, verdict), after

    def _told(self, cluster: str, module: str, trouble: str) -> None:
        """Say what begins or ends to be wrong, once."""
        before = self._troubles.get((cluster, module), "")
        if trouble and trouble != before:
            self._say(f"witness of {cluster}, module {module}: no answer: {trouble}")
            self._troubles[cluster, module] = trouble
        elif not trouble and before:
            self._say(f"witness of {cluster}, module {module}: answers again")
            del self._troubles[cluster, module]

    def _answer(self, served: _Served, reply: Reply, source: Source) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(served.sealer.seal(ANSWERS, encode_reply(reply)), source)
            self.answered += 1
        except OSError:
            self.dropped["no way back"] += 1


def _seen(request: Request, register: Register | None) -> Reply:
    if register is None:
        return Reply("", request.module, request.boot, request.number)
    return Reply("", request.module, request.boot, request.number, register.epoch, register.holders)


def _judged(request: Request, verdict: Verdict) -> Reply:
    return Reply(
        "",
        request.module,
        request.boot,
        request.number,
        verdict.epoch,
        verdict.holders,
        verdict.granted,
        verdict.why,
    )


def _grant(cluster: str, module: str, register: Register) -> str:
    holders = ", ".join(sorted(register.holders))
    return (
        f"witness of {cluster}, module {module}: epoch {register.epoch}, {holders} may serve (asked by {register.node})"
    )


def _bound(serving: Serving) -> socket.socket:
    """A socket on the port; on every address, of IPv4 and IPv6, when none is given."""
    address = serving.addr or ("::" if socket.has_ipv6 else "0.0.0.0")
    try:
        return _socket_on(address, serving.port)
    except OSError:
        if serving.addr is not None or address == "0.0.0.0":
            raise
        return _socket_on("0.0.0.0", serving.port)  # a node without IPv6


def _socket_on(address: str, port: int) -> socket.socket:
    v6 = ":" in address
    made = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if v6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((address, port))
    except OSError as error:
        made.close()
        raise OSError(error.errno, f"UDP {address} port {port}: {error.strerror}") from error
    return made
