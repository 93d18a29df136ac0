"""The asyncio client of `safekit-pulse`, for `safekitd`.

It holds what this daemon wants (channels, payloads) and what it was told (the state of each channel). Both survive a
restart of the pulse: on every connection it says again what it wants, and tells as ordinary events what it missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from safekit.membership import messages
from safekit.membership.beat import fit_payload
from safekit.membership.channels import Channel, ChannelError
from safekit.membership.events import ChannelState, Connected, Disconnected, PulseEvent
from safekit.membership.known import Known
from safekit.membership.messages import BadMessage, Frames

_RETRY = (0.02, 0.05, 0.1, 0.2, 0.5)
_ANSWER_S = 5.0


class PulseError(Exception):
    """`safekit-pulse` cannot be reached, or refused what it was asked."""


class Pulse:
    """One connection to `safekit-pulse`, kept up until `close`.

    `on_event` is called in the event loop for each event; without it, events wait for `events()`. Nothing may be
    asked before `connect`.
    """

    def __init__(self, socket_path: Path, on_event: Callable[[PulseEvent], None] | None = None) -> None:
        self._path = socket_path
        self._on_event = on_event
        self._queue: asyncio.Queue[PulseEvent] = asyncio.Queue()
        self._channels: dict[str, Channel] = {}
        self._payloads: dict[str, dict[str, Any]] = {}
        self._leases: dict[str, dict[str, Any]] = {}
        self._known: dict[str, Known] = {}
        self._keep: set[str] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, tuple[asyncio.Future[dict[str, Any]], str | None]] = {}
        self._next_id = 0
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    # --- the connection ---------------------------------------------------------------------------------------

    async def connect(self, timeout: timedelta = timedelta(seconds=10)) -> None:
        """Return when connected; raises `PulseError` when that takes longer than `timeout`."""
        if self._task is None:
            self._first = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._stay_connected(), name="pulse client")
        assert self._first is not None
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await asyncio.shield(self._first)
        except TimeoutError:
            raise PulseError(
                f"{self._path}: safekit-pulse does not answer within {timeout.total_seconds():g} s"
            ) from None

    async def close(self) -> None:
        """End the connection. `safekit-pulse` goes on beating the last payloads."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @property
    def connected(self) -> bool:
        """Whether `safekit-pulse` is reached now."""
        return self._writer is not None

    # --- what the daemon wants --------------------------------------------------------------------------------

    async def set_channel(self, channel: Channel, payload: Mapping[str, Any] | None = None) -> None:
        """Beat on `channel` from now on; again with the same definition changes nothing, with another one keeps what
        is alive.

        `payload` is published with the first beat: no peer hears this node alive and takes its last life's words for
        its present ones.

        What is already known of the peers comes as events before this returns. Raises `ChannelError`. While the pulse
        is away the wish is noted and carried out when it is back.
        """
        previous, self._channels[channel.name] = self._channels.get(channel.name), channel
        if channel.name not in self._known:
            self._known[channel.name] = Known(channel)
        elif previous != channel:
            self._known[channel.name].redefined(channel)
        request: dict[str, Any] = {"do": "set", "channel": messages.channel_to_json(channel)}
        if payload is not None:
            fit_payload(channel, payload)
            request["payload"] = self._payloads[channel.name] = dict(payload)
        try:
            await self._ask(request, channel.name)
        except ChannelError:
            if previous is None:
                self._forget(channel.name)
            else:
                self._channels[channel.name] = previous
                self._known[channel.name].redefined(previous)
            raise

    def forget(self, name: str) -> None:
        """Forget what is known of a channel, and beat on: the next `set_channel` tells everything about it anew."""
        self._forget(name)

    async def remove_channel(self, name: str) -> None:
        """Say goodbye on a channel and forget it; the peers see `PeerLost(left=True)` at once."""
        self._forget(name)
        await self._ask({"do": "remove", "name": name})

    async def keep_channels(self, names: Iterable[str]) -> None:
        """Remove every channel that is not named: what an earlier life of the daemon set and the configuration no
        longer has.
        """
        self._keep = set(names)
        for name in set(self._channels) - self._keep:
            self._forget(name)
        await self._ask({"do": "keep", "names": sorted(self._keep)})
        self._keep = None

    async def publish(self, name: str, payload: Mapping[str, Any]) -> None:
        """Tell the peers: on the wire when this returns, and at each pulse from then on. Raises `PayloadTooLarge`.

        While the pulse is away the payload is noted and goes out when it is back.
        """
        channel = self._channels.get(name)
        if channel is None:
            raise ChannelError(name, "name", name, "a channel that was set")
        fit_payload(channel, payload)
        self._payloads[name] = dict(payload)
        await self._ask({"do": "publish", "name": name, "payload": self._payloads[name]})

    async def lease(
        self,
        name: str,
        length: float,
        needed: bool,
        addresses: Iterable[tuple[str, int]] = (),
        groups: Iterable[str] = (),
    ) -> None:
        """Keep a lease of this many seconds on a heartbeat channel (0: none).

        While it is `needed` and ran out, `LeaseEnded` comes, and the pulse itself releases these host addresses (each with
        the index of its interface); when it is over, it ends what runs in these control groups (paths) and units (names).
        While the pulse is away the wish is noted and carried out when it is back.
        """
        if name in self._channels:
            order = {
                "length": length,
                "needed": needed,
                "addresses": [list(held) for held in addresses],
                "groups": list(groups),
            }
            self._leases[name] = order
            await self._ask({"do": "lease", "name": name, **order})

    async def renewed(self, name: str, sent_at: float) -> None:
        """The witness renewed the lease: what it answers was sent at `sent_at`, in seconds since boot."""
        if name in self._channels:
            await self._ask({"do": "renewed", "name": name, "sent_at": sent_at})

    # --- what it is told --------------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[PulseEvent]:
        """Every event from the first one on, when no `on_event` was given."""
        while True:
            yield await self._queue.get()

    def state(self, name: str) -> ChannelState:
        """The present state of a channel that was set."""
        return self._known[name].state

    # --- inside -----------------------------------------------------------------------------------------------

    def _forget(self, name: str) -> None:
        for table in (self._channels, self._payloads, self._known, self._leases):
            table.pop(name, None)

    def _tell(self, event: PulseEvent) -> None:
        if self._on_event is None:
            self._queue.put_nowait(event)
            return
        try:
            self._on_event(event)
        except Exception as error:
            # The listener's mistake must not cost the daemon its membership: it is reported, and the next event comes.
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a listener failed on {event}", "exception": error}
            )

    def _send(self, request: dict[str, Any], channel: str | None = None) -> asyncio.Future[dict[str, Any]]:
        assert self._writer is not None
        self._next_id += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._next_id] = (answer, channel)
        self._writer.write(messages.frame({"id": self._next_id} | request))
        return answer

    async def _ask(self, request: dict[str, Any], channel: str | None = None) -> None:
        """Send a request and wait for the answer; when there is no connection, or it breaks, the next one says it
        again.
        """
        if self._task is None:
            raise PulseError("not connected: call connect() first")
        if self._writer is None:
            return
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._send(request, channel)
        except ConnectionError:
            return
        except TimeoutError:
            raise PulseError(f"{self._path}: safekit-pulse does not answer within {_ANSWER_S:g} s") from None
        error = answer.get("error")
        if error is not None and "field" in error:
            raise ChannelError(error["channel"], error["field"], error["value"], error["expected"])
        if error is not None:
            raise PulseError(error["message"])

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path))
            except OSError:
                await asyncio.sleep(_RETRY[min(attempt, len(_RETRY) - 1)])
                attempt += 1
                continue
            attempt, reason = 0, "closed"
            self._writer = writer
            try:
                self._say_everything()
                await self._read(reader)
            except (OSError, BadMessage) as error:
                reason = str(error)
            finally:
                self._writer = None
                writer.close()
                waiting, self._waiting = self._waiting, {}
                for answer, _ in waiting.values():
                    if not answer.done():
                        answer.set_exception(ConnectionResetError("safekit-pulse went away"))
                        answer.exception()  # Taken note of: nobody may be waiting for it.
            self._tell(Disconnected(reason))
            await asyncio.sleep(_RETRY[0])

    def _say_everything(self) -> None:
        self._send({"do": "hello", "role": "daemon"})
        if self._keep is not None:
            self._send({"do": "keep", "names": sorted(self._keep)})
        for name, channel in self._channels.items():
            self._send({"do": "set", "channel": messages.channel_to_json(channel)}, name)
        for name, payload in self._payloads.items():
            self._send({"do": "publish", "name": name, "payload": payload})
        for name, order in self._leases.items():
            self._send({"do": "lease", "name": name, **order})

    async def _read(self, reader: asyncio.StreamReader) -> None:
        frames = Frames()
        while data := await reader.read(65536):
            for message in frames.feed(data):
                if "event" in message:
                    event = messages.event_from_json(message)
                    known = self._known.get(message["channel"])
                    if known is not None and known.take(event):
                        self._tell(event)
                else:
                    self._take_answer(message)

    def _take_answer(self, message: dict[str, Any]) -> None:
        answer, channel = self._waiting.pop(message["id"], (None, None))
        if "pid" in message:
            self._tell(Connected(message["pid"]))
            if self._first is not None and not self._first.done():
                self._first.set_result(None)
        known = self._known.get(channel) if channel is not None else None
        if known is not None and channel is not None and "snapshot" in message:
            for event in known.missed(channel, message["snapshot"]):
                self._tell(event)
        if answer is not None and not answer.done():
            answer.set_result(message)
