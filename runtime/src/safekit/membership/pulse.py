"""The process `safekit-pulse`: beats for every module of this node, whatever `safekitd` does meanwhile.

    python -m safekit.membership.pulse [RUN [VAR]]        (/run/safekit and /var/safekit by default)

One thread, one selector, no disk that is waited for, small imports. It takes orders and tells events on
`RUN/pulse.sock` (`messages.py`). When `safekitd` goes away it goes on beating the last payload of each channel, and
from one second on its beats say for how long. When it is itself killed, its next life goes on from `RUN/pulse.json`
before anybody asks.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from safekit.membership import messages, realtime, state, watchdog
from safekit.membership.channels import Channel, ChannelError
from safekit.membership.events import PulseEvent
from safekit.membership.keeper import held
from safekit.membership.messages import BadMessage, Frames
from safekit.membership.runner import Runner
from safekit.paths import Paths

ABSENT_AFTER_S = 1.0
"""A daemon that is being restarted, or reconnects, is not worth a word."""
_LARGEST_BACKLOG = 512 * 1024
"""A daemon that reads nothing is cut off; when it comes back it gets the state instead of the story."""
_SAME_WAKE_UP_S = 0.002
_WRITE_AFTER_EVENT_S = 0.1


def clock() -> float:
    """Seconds since boot, suspended time included: a node that slept must know."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Connection:
    """A client on the unix socket."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.frames = Frames()
        self.out = bytearray()
        self.listens = False
        self.is_daemon = False


class PulseProcess:
    """All channels of this node, and the unix socket. `run` ends on SIGTERM or SIGINT."""

    def __init__(self, paths: Paths) -> None:
        self._socket_path = paths.pulse_socket
        self._state_path = paths.pulse_state
        self._lives = state.Lives(paths.pulse_incarnations)
        self._selector = selectors.DefaultSelector()
        self._runners: dict[str, Runner] = {}
        self._registered: dict[tuple[str, str], int] = {}
        self._connections: set[_Connection] = set()
        self._daemon_gone_at: float | None = clock()
        self._dirty = True
        self._write_at = 0.0
        self._stopping = False
        self._watchdog = watchdog.Watchdog(_device(paths), _say)

    # --- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Beat until told to stop."""
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, lambda *_: self._stop())
        wake_in, wake_out = socket.socketpair()
        wake_out.setblocking(False)
        signal.set_wakeup_fd(wake_out.fileno())
        self._selector.register(wake_in, selectors.EVENT_READ, wake_in)
        self._resume()
        listener = self._listen()
        self._selector.register(listener, selectors.EVENT_READ, listener)
        _tell_systemd("READY=1")
        while not self._stopping:
            due = min([runner.due for runner in self._runners.values()] + [self._write_at, self._watchdog.due])
            for key, mask in self._selector.select(max(0.0, due - clock())):
                if isinstance(key.data, tuple):
                    runner, ident = key.data
                    runner.receive(ident, clock(), self._absent_s())
                elif isinstance(key.data, _Connection):
                    self._serve(key.data, mask)
                elif key.data is listener:
                    self._accept(listener)
            self._tick()
            for connection in list(self._connections):
                self._flush(connection)
        self._watchdog.close()
        self._save(clock())
        for runner in self._runners.values():
            runner.close()

    def _stop(self) -> None:
        self._stopping = True

    def _tick(self) -> None:
        now = clock()
        absent = self._absent_s()
        for runner in self._runners.values():
            runner.keep(now)
            if runner.core.due <= now + _SAME_WAKE_UP_S:
                self._open(runner, now)
                runner.tick(max(now, runner.core.due), absent)
        self._watchdog.keep(now, [runner for runner in self._runners.values() if runner.keeper.needed])
        if now >= self._write_at or self._dirty:
            self._save(now)

    def _absent_s(self) -> int | None:
        """What the beats say about the daemon."""
        if self._daemon_gone_at is None:
            return None
        absent = clock() - self._daemon_gone_at
        return int(absent) if absent >= ABSENT_AFTER_S else None

    # --- channels ---------------------------------------------------------------------------------------------

    def _open(self, runner: Runner, now: float) -> None:
        for ident, link in runner.sockets.items():
            if link.open(now):
                self._selector.register(link.fileno(), selectors.EVENT_READ, (runner, ident))
                self._registered[runner.channel.name, ident] = link.fileno()

    def _unregister(self, runner: Runner) -> None:
        for ident in runner.sockets:
            descriptor = self._registered.pop((runner.channel.name, ident), None)
            if descriptor is not None:
                self._selector.unregister(descriptor)

    def _start(
        self, channel: Channel, payload: dict[str, Any] | None, memory: dict[str, Any] | None, recent: bool
    ) -> Runner:
        now = clock()
        runner = Runner(channel, self._lives, now, self._tell)
        if memory is not None:
            runner.resume(memory, now, recent)
        self._runners[channel.name] = runner
        self._open(runner, now)
        runner.tell_troubles()
        if payload is not None:
            runner.publish(payload, now, self._absent_s())
        self._dirty = True
        return runner

    def _set(self, channel: Channel) -> Runner:
        present = self._runners.get(channel.name)
        if present is None:
            return self._start(channel, None, None, False)
        if present.channel == channel:
            return present
        # Another definition of a channel that beats: its peers must not notice more than they have to.
        self._unregister(present)
        present.close()
        try:
            return self._start(channel, present.payload, present.memory(), True)
        except ChannelError:
            self._runners[channel.name].close()
            self._unregister(self._runners[channel.name])
            self._start(present.channel, present.payload, present.memory(), True)
            raise

    def _remove(self, name: str) -> None:
        runner = self._runners.pop(name, None)
        if runner is not None:
            self._unregister(runner)
            runner.goodbye()
            self._dirty = True

    def _resume(self) -> None:
        channels, recent = state.load(self._state_path, clock())
        for saved in channels:
            try:
                self._start(messages.channel_from_json(saved["channel"]), saved["payload"], saved["memory"], recent)
            except Exception as error:
                # Whatever is wrong with it, dying of it again and again would silence the other channels too.
                print(f"{self._state_path}: a channel is not resumed: {error!r}", file=sys.stderr)

    def _save(self, now: float) -> None:
        self._write_at, self._dirty = now + state.WRITE_EVERY_S, False
        channels = [
            {"channel": messages.channel_to_json(runner.channel), "payload": runner.payload, "memory": runner.memory()}
            for runner in self._runners.values()
        ]
        try:
            state.save(self._state_path, now, channels)
        except OSError as error:
            print(f"{self._state_path}: not written: {error}", file=sys.stderr)

    # --- the unix socket --------------------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        beside = self._socket_path.with_suffix(".new")
        beside.unlink(missing_ok=True)
        listener.bind(str(beside))
        beside.chmod(0o600)
        listener.listen(8)
        beside.replace(self._socket_path)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        try:
            stream, _ = listener.accept()
        except OSError:
            return
        stream.setblocking(False)
        connection = _Connection(stream)
        self._connections.add(connection)
        self._selector.register(stream, selectors.EVENT_READ, connection)

    def _serve(self, connection: _Connection, mask: int) -> None:
        if connection not in self._connections or not mask & selectors.EVENT_READ:
            return
        try:
            data = connection.stream.recv(65536)
            if not data:
                self._drop(connection)
                return
            for request in connection.frames.feed(data):
                self._answer(connection, request)
        except BlockingIOError:
            return
        except (OSError, BadMessage):
            self._drop(connection)

    def _answer(self, connection: _Connection, request: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"id": request.get("id"), "ok": True}
        try:
            match request.get("do"):
                case "hello":
                    connection.listens = True
                    if request.get("role") == "daemon":
                        connection.is_daemon = True
                        self._daemon_gone_at = None
                    reply["pid"] = os.getpid()
                    reply["channels"] = {name: runner.snapshot() for name, runner in self._runners.items()}
                case "set":
                    runner = self._set(messages.channel_from_json(request["channel"]))
                    if "payload" in request:
                        runner.publish(request["payload"], clock(), self._absent_s())
                        self._dirty = True
                    reply["snapshot"] = runner.snapshot()
                case "remove":
                    self._remove(request["name"])
                case "keep":
                    reply["removed"] = [name for name in self._runners if name not in request["names"]]
                    for name in reply["removed"]:
                        self._remove(name)
                case "publish":
                    found = self._runners.get(request["name"])
                    if found is None:
                        raise ChannelError(str(request["name"]), "name", request["name"], "a channel that was set")
                    found.publish(request["payload"], clock(), self._absent_s())
                    self._dirty = True
                case "lease" | "renewed" as order:
                    found = self._runners.get(request["name"])
                    if found is None:
                        raise ChannelError(str(request["name"]), "name", request["name"], "a channel that was set")
                    if order == "lease":
                        addresses = held(request.get("addresses", []))
                        groups = tuple(map(str, request.get("groups", ())))
                        found.keeper.order(float(request["length"]), bool(request["needed"]), addresses, groups)
                        self._dirty = True
                    else:
                        found.keeper.renewed(float(request["sent_at"]))
                case other:
                    expected = "hello, set, remove, keep, publish, lease or renewed"
                    raise BadMessage(f"do is {other!r}, expected {expected}")
        except ChannelError as error:
            reply = {
                "id": request.get("id"),
                "error": {
                    "message": str(error),
                    "channel": error.channel,
                    "field": error.field,
                    "value": str(error.value),
                    "expected": error.expected,
                },
            }
        except (BadMessage, KeyError, TypeError, ValueError) as error:
            reply = {"id": request.get("id"), "error": {"message": f"{type(error).__name__}: {error}"}}
        self._push(connection, reply)

    def _tell(self, event: PulseEvent) -> None:
        self._write_at = min(self._write_at, clock() + _WRITE_AFTER_EVENT_S)
        message: dict[str, Any] | None = None
        for connection in self._connections:
            if connection.listens:
                message = message or messages.event_to_json(event)
                self._push(connection, message)

    def _push(self, connection: _Connection, message: dict[str, Any]) -> None:
        connection.out += messages.frame(message)

    def _flush(self, connection: _Connection) -> None:
        if not connection.out:
            return
        try:
            sent = connection.stream.send(connection.out)
            del connection.out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        if len(connection.out) > _LARGEST_BACKLOG:
            self._drop(connection)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.out else 0)
        if self._selector.get_key(connection.stream).events != wanted:
            self._selector.modify(connection.stream, wanted, connection)

    def _drop(self, connection: _Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._selector.unregister(connection.stream)
        connection.stream.close()
        if connection.is_daemon and not any(other.is_daemon for other in self._connections):
            self._daemon_gone_at = clock()


def _tell_systemd(message: str) -> None:
    """The notify protocol, for `Type=notify`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        try:
            notify.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError:
            return


def _say(text: str) -> None:
    """To the journal."""
    print(text, file=sys.stderr, flush=True)


def _device(paths: Paths) -> str | None:
    try:
        return watchdog.configured(paths.watchdog)
    except (OSError, ValueError) as error:
        _say(f"no watchdog is used: {error}")
        return None


def main(arguments: list[str]) -> int:
    """Run on the folders given, or on a node's own."""
    paths = Paths(**{root: Path(folder) for root, folder in zip(("run", "var"), arguments, strict=False)})
    paths.run.mkdir(parents=True, exist_ok=True)
    paths.var.mkdir(parents=True, exist_ok=True)
    os.umask(0o077)
    realtime.claim()
    PulseProcess(paths).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
