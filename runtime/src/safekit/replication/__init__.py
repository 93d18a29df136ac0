"""Control of the replication data plane of one mirror module (spec §3.6, §4.9).

The bytes are moved by `safekit-rfs` (`runtime/native/`), one process per replicated module. This room starts and stops
that process, speaks to it, and checks the directories; it decides nothing about who may serve.

    check_directories(directories)      `directories.py`: raises DirectoryError naming the first thing that is wrong
    DataPlaneProcess(settings)          `process.py`: await start(), stop(), running() -> bool; `.plane` is its client
    DataPlane(socket)                   `client.py`: one coroutine per command, `status()`, `events()`

A request is a connection of its own, the stream of events is another: a daemon that dies and comes back loses nothing but
the events in between, and reads `status()` first. No command and no lost controller ever disturbs an application's I/O.

Commands of `DataPlane`; each raises `DataPlaneError(code, message)` or `DataPlaneGone`:

    await plane.open(timeout=5.0) -> Status     waits for the control socket
    await plane.status() -> Status
    await plane.primary(generation=..., force=False)
                                                mounts; alone, tracking. `inconsistent` unless forced
    await plane.connect(host, port, generation=..., full=False) -> Connected
                                                answers after the mutual challenge; the resync then runs by itself
    await plane.disconnect()                    drops the peer on purpose (answers are held if it was in mirror)
    await plane.alone(generation=...)           the grant: held answers are given, tracking goes on
    await plane.publish(generation=...)         the secondary may write `both`; returns when it has noted that durably
    await plane.secondary(address, port, generation=..., clean=True)
                                                protects the directories, listens, applies
    await plane.handover(timeout=30.0)          flush, durable on both sides, unmounted; then idle and clean
    await plane.idle(force=False)               unmounts or stops listening; `busy` when applications still use it
    await plane.stats() -> dict                 counters and latencies, as the data plane names them
    await plane.compare("verify" | "diff")      begins to compare the copies; CompareProgress and CompareEnded follow
    await plane.external(role, uid, check=True) this copy counts from the backup `uid` (spec §4.9.4)
    await plane.exit()                          idle, then the process ends

`generation` is an opaque string without meaning for the data plane: it is kept, shown in `status()` and given to the peer.
Whether a resync may be incremental is decided by the data plane itself, by an identity of its own that both sides write at
each `InMirror`; `clean=False` (or `full=True` on the other side) forbids it.

Events (`async for event in plane.events()`), frozen dataclasses:

    Connected(incremental, reason, peer_generation)     primary: the peer proved the key; a resync starts
    ResyncProgress(phase, files_done, files_total, bytes_done, bytes_total, rate_bps, eta_s)
                                                every second; phase: scan | copy | barrier
    InMirror()                                  primary: the peer is equal and durable, and every answer waits for it from
                                                here on. Now write `both`, then publish
    Published(generation)                       secondary: the primary wrote `both`
    PeerLost(reason, held)                      primary: the peer is gone. held=True: it was in mirror, answers wait for
                                                `alone`, for a new mirror or for `idle`
    PrimaryConnected(peer_generation), ResyncStarted(incremental), ResyncEnded(), PrimaryLost(reason, handover)
                                                on the secondary
    CompareProgress(...), CompareEnded(equal, differing_files, differing_bytes, files, bytes, failed, list)
                                                of a comparison, on both nodes; DiffProgress, DiffEnded of a count
    Failure(code, message)                      something an administrator must read
    Warned(code, message)                       something an administrator should know; nothing stops
    Resumed(reason)                             a worker was killed and its successor went on: nobody saw an error
    Other(name, values)                         an event of a newer data plane
    Gone()                                      the process ended or was killed: the last event of the stream
"""

from __future__ import annotations

from safekit.replication.client import DataPlane
from safekit.replication.directories import DirectoryError, ReplicatedDirectory, check_directories, left_mounted
from safekit.replication.events import (
    CompareEnded,
    CompareProgress,
    Connected,
    DataPlaneError,
    DataPlaneGone,
    DiffEnded,
    DiffProgress,
    Event,
    Failure,
    Gone,
    InMirror,
    Other,
    PeerLost,
    PrimaryConnected,
    PrimaryLost,
    Published,
    Resumed,
    ResyncEnded,
    ResyncProgress,
    ResyncStarted,
    Status,
    Warned,
)
from safekit.replication.process import DataPlaneProcess, ProcessSettings

__all__ = [
    "CompareEnded",
    "CompareProgress",
    "Connected",
    "DataPlane",
    "DataPlaneError",
    "DataPlaneGone",
    "DataPlaneProcess",
    "DiffEnded",
    "DiffProgress",
    "DirectoryError",
    "Event",
    "Failure",
    "Gone",
    "InMirror",
    "Other",
    "PeerLost",
    "PrimaryConnected",
    "PrimaryLost",
    "ProcessSettings",
    "Published",
    "ReplicatedDirectory",
    "Resumed",
    "ResyncEnded",
    "ResyncProgress",
    "ResyncStarted",
    "Status",
    "Warned",
    "check_directories",
    "left_mounted",
]
