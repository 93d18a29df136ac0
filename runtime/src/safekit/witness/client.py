"""A node's side of the witness: asks for its modules, repeats until it is answered, and tells what it hears.

Nothing here blocks and nothing here decides. Per module there is one request out at most: a claim, or between claims a
look at the register once per `pulse`. Only the reply to the request that is out counts (its boot and number); a claim
that was withdrawn or replaced is answered to nobody, and the witness forgets it with the next request. Every reply tells
when its request was first sent by the clock that a suspended node does not stop (`CLOCK_BOOTTIME`): a lease counts from
there, never from when the reply came.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from safekit.automaton.register import Claim, Ground, Verdict
from safekit.membership.sealed import Opener, Refusal, Sealer
from safekit.membership.sockets import arrived
from safekit.membership.state import Lives
from safekit.witness.messages import (
    ANSWERS,
    CLAIMS,
    WITNESS,
    Malformed,
    Reply,
    Request,
    answered,
    channel,
    decode_reply,
    encode_request,
)

PULSE_S = 1.0
REPEAT_S = 0.2
SLOWEST_REPEAT_S = 2.0
SILENT_AFTER_S = 3.0
_RESOLVE_AGAIN_S = 5.0


def boottime() -> float:
    """Seconds since boot, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Seen:
    """The register as it is: epoch 0 without holders when there is none. `sent_at`: when the question was sent."""

    epoch: int
    holders: frozenset[str]
    sent_at: float


class Listener(Protocol):
    """Who wants to know of one module. Called on the loop of the daemon."""

    def verdict(self, verdict: Verdict, sent_at: float) -> None:
        """The claim that was out is answered; none is out now."""

    def seen(self, seen: Seen) -> None:
        """The register as the witness knows it now; also after `unavailable`."""

    def renewed(self, sent_at: float) -> None:
        """The lease of this node is, from when that was asked."""

    def unavailable(self, why: str, since: float) -> None:
        """The witness does not answer (since that `boottime`), or cannot tell the register; once, until `seen`."""


@dataclass
class _Watched:
    listener: Listener
    number: int = 0
    claim: Claim | None = None
    sent_at: float | None = None
    """When the present request was sent first."""
    due: float = 0.0
    repeat: float = REPEAT_S
    heard_at: float = 0.0
    told: str = ""
    """The last word of `unavailable`."""
    waiting: bool = False
    """Whether the present request is not answered."""
    lease: float = 0.0
    """How long the leases of this node are, in seconds."""
    renews: bool = False
    """Whether the present request asks for a lease to be renewed."""


class WitnessClient:
    """Speaks to one witness for the modules of this node. `open` first; `close` when the daemon ends.

    `address` is an IP address or a name; `key` that of the cluster, `cluster` its name at the witness.
    """

    def __init__(
        self,
        cluster: str,
        node: str,
        key: bytes,
        address: str,
        port: int,
        lives: Lives,
        *,
        clock: Callable[[], float] = boottime,
        pulse_s: float = PULSE_S,
        silent_after_s: float = SILENT_AFTER_S,
    ) -> None:
        self._cluster, self._node, self._key = cluster, node, key
        self._address, self._port = address, port
        self._lives, self._clock = lives, clock
        self._pulse_s, self._silent_after_s = pulse_s, silent_after_s
        self._boot = secrets.token_hex(8)
        self._life = ""
        self._watched: dict[str, _Watched] = {}
        self._sealer: Sealer
        self._incarnation = 0
        self._begin_life()
        self._opener = Opener(channel(cluster), (ANSWERS,), key, (WITNESS,))
        self._socket: socket.socket | None = None
        self._target: tuple[str, int] | None = None
        self._resolve_at = 0.0
        self._resolving: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._numbers = 0
        self._exceed = 0
        """The witness may have forgotten its last life, with its clock gone back: the number that it must exceed."""
        self._trouble = ""
        self.refused = 0
        """Datagrams that were not from the witness."""

    def _begin_life(self) -> None:
        life = self._lives.next()
        self._incarnation = life.number
        self._sealer = Sealer(channel(self._cluster), (CLAIMS,), self._key, self._node, life)

    @property
    def place(self) -> str:
        """The witness in words."""
        return f"{self._address} port {self._port}"

    async def open(self) -> None:
        """Begin to ask."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ask no more; nothing is told after this."""
        for task in (self._task, self._resolving):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._task = self._resolving = None
        self._drop_socket()

    # --- what a module asks ---

    def watch(self, module: str, listener: Listener, lease: float = 0.0) -> None:
        """Look at the register of `module` from now on, and tell `listener`; `lease` is the length of its leases."""
        now = self._clock()
        self._watched[module] = _Watched(listener, heard_at=now, lease=lease)
        self._look(self._watched[module], now)

    def forget(self, module: str) -> None:
        """Ask nothing more about `module`."""
        self._watched.pop(module, None)

    def claim(
        self,
        module: str,
        epoch: int,
        holders: frozenset[str],
        wanted: frozenset[str],
        ground: Ground = Ground.HOLDER,
    ) -> int:
        """Claim until it is answered or withdrawn; replaces a claim that is out. Returns its number."""
        watched, now = self._watched[module], self._clock()
        number = self._renew(watched, now)
        watched.claim = Claim(self._cluster, module, epoch, holders, wanted, self._node, self._boot, number, ground)
        return number

    def renew(self, module: str) -> None:
        """Ask for the lease of this node to be renewed, unless that is asked just now or a claim is out."""
        watched, now = self._watched.get(module), self._clock()
        if watched is None or watched.claim is not None:
            return
        if (
            watched.renews
            and watched.waiting
            and (watched.sent_at is None or now < watched.sent_at + watched.lease / 4)
        ):
            return
        self._look(watched, now)
        watched.renews = True

    def withdraw(self, module: str) -> None:
        """The claim that is out counts no longer, whatever is answered to it."""
        watched = self._watched.get(module)
        if watched is not None and watched.claim is not None:
            self._look(watched, self._clock())

    def _look(self, watched: _Watched, now: float) -> None:
        self._renew(watched, now)
        watched.claim = None

    def _renew(self, watched: _Watched, now: float) -> int:
        """Another request is out from now on."""
        self._numbers += 1
        watched.number, watched.sent_at, watched.due, watched.repeat = self._numbers, None, now, REPEAT_S
        watched.waiting, watched.renews = True, False
        self._wake.set()
        return self._numbers

    # --- the loop ---

    async def _run(self) -> None:
        while True:
            now = self._clock()
            self._open_socket(now)
            for module, watched in list(self._watched.items()):
                self._turn(module, watched, now)
            self._wake.clear()
            due = [watched.due for watched in self._watched.values()]
            pause = max(0.0, min(due, default=now + self._pulse_s) - self._clock())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(pause, 0.001)):
                    await self._wake.wait()

    def _turn(self, module: str, watched: _Watched, now: float) -> None:
        if now >= watched.due:
            if not watched.waiting:
                self._look(watched, now)
            self._send(module, watched, now)
            watched.due = now + watched.repeat
            watched.repeat = min(watched.repeat * 2, SLOWEST_REPEAT_S)
        if not watched.told and now - watched.heard_at >= self._silent_after_s:
            why = self._trouble or f"the witness {self.place} does not answer"
            self._unavailable(watched, why, watched.heard_at)
            self._resolve_at = min(self._resolve_at, now)
        elif not watched.told:
            watched.due = min(watched.due, watched.heard_at + self._silent_after_s)

    def _unavailable(self, watched: _Watched, why: str, since: float) -> None:
        if why != watched.told:
            watched.told = why
            watched.listener.unavailable(why, since)

    def _send(self, module: str, watched: _Watched, now: float) -> None:
        if self._socket is None or self._target is None:
            return
        lease = watched.lease if watched.renews or watched.claim is not None else 0.0
        request = Request(self._life, module, self._boot, watched.number, watched.claim, self._exceed, lease)
        try:
            self._socket.sendto(self._sealer.seal(CLAIMS, encode_request(request)), self._target)
            self._trouble = ""
        except BlockingIOError:
            pass  # The queue of the interface is full: as good as lost on the way.
        except OSError as error:
            self._trouble = f"the witness {self.place} cannot be reached: {error.strerror}"
            return
        if watched.sent_at is None:
            watched.sent_at = now

    def _open_socket(self, now: float) -> None:
        if now >= self._resolve_at and self._resolving is None:
            self._resolve_at = now + (_RESOLVE_AGAIN_S if self._target is None else 12 * _RESOLVE_AGAIN_S)
            self._resolving = asyncio.create_task(self._resolve())

    async def _resolve(self) -> None:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._address, self._port, type=socket.SOCK_DGRAM)
        except OSError as error:
            if self._target is None:
                self._trouble = f"the address of the witness {self._address} cannot be resolved: {error.strerror}"
            return
        finally:
            self._resolving = None
        family, _, _, _, target = found[0]
        if (str(target[0]), self._port) == self._target and self._socket is not None:
            return
        self._drop_socket()
        self._target = (str(target[0]), self._port)
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)
        for watched in self._watched.values():
            watched.due = min(watched.due, self._clock())
        self._wake.set()

    def _drop_socket(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    # --- what is heard ---

    def _readable(self) -> None:
        if self._socket is None:
            return
        for datagram, _ in arrived(self._socket):
            opened = self._opener.open(ANSWERS, datagram)
            if isinstance(opened, Refusal):
                self.refused += 1
                if opened.reason == "old incarnation":
                    self._exceed = max(self._exceed, opened.last)
                continue
            try:
                self._hear(decode_reply(opened.body))
            except Malformed:
                self.refused += 1

    def _hear(self, reply: Reply) -> None:
        now = self._clock()
        if reply.exceed >= self._incarnation:
            self._lives.exceed(reply.exceed)
            self._begin_life()
            self._again(now)
        self._exceed = 0
        if reply.life != self._life:
            self._life = reply.life
            self._again(now)
        watched = self._watched.get(reply.module)
        if watched is None or not watched.waiting or (reply.boot, reply.number) != (self._boot, watched.number):
            return
        if reply.trouble:
            watched.heard_at = now
            self._unavailable(watched, reply.trouble, now)
            return
        if reply.held_s and watched.claim is not None:
            watched.told, watched.heard_at = "", now
            watched.due, watched.repeat = now + min(reply.held_s, SLOWEST_REPEAT_S), REPEAT_S
            self._wake.set()
            watched.listener.seen(Seen(reply.epoch, reply.holders, watched.sent_at or now))
            return
        if (watched.claim is None) != (reply.verdict is None) or watched.sent_at is None:
            return
        watched.told, watched.waiting, watched.claim, watched.heard_at = "", False, None, now
        watched.due = now + self._pulse_s
        sent_at, listener = watched.sent_at, watched.listener
        if reply.renewed:
            listener.renewed(sent_at)
        listener.seen(Seen(reply.epoch, reply.holders, sent_at))
        if reply.verdict is not None:
            listener.verdict(answered(reply, self._node), sent_at)

    def _again(self, now: float) -> None:
        """What is out was not understood: say it again at once."""
        for watched in self._watched.values():
            if watched.waiting:
                watched.due, watched.repeat = now, REPEAT_S
        self._wake.set()
