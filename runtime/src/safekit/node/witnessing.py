"""The two sides of a witness on this node: asking the one of its cluster, and being one for other clusters.

A node may be either, both or neither; a witness needs no cluster of its own. What they need is loaded when they are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from safekit.api.face import FaceError
from safekit.api.witness import WitnessCluster, WitnessInfo, WitnessRegister
from safekit.files import UnreadableFile
from safekit.node.cluster import AppliedCluster
from safekit.paths import Paths

if TYPE_CHECKING:
    from safekit.witness.client import WitnessClient
    from safekit.witness.served import Serving
    from safekit.witness.service import Witness
    from safekit.witness.store import RegisterStore

BIND_AGAIN_S = 5.0


class Witnessing:
    """`open` first, `close` when the daemon ends. `client` asks the witness of the cluster that was joined."""

    def __init__(self, paths: Paths, say: Callable[[str], None]) -> None:
        self._paths, self._say = paths, say
        self._file = paths.witness / "witness.json"
        self._serving: Serving | None = None
        self._service: Witness | None = None
        self._store: RegisterStore | None = None
        self._opening: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self.trouble = ""
        """Why this node does not serve as a witness though it should."""
        self.client: WitnessClient | None = None

    async def open(self) -> None:
        """Serve what this node served before."""
        if not self._file.exists():
            return
        from safekit.witness.served import read_serving

        try:
            self._serving = read_serving(self._file)
        except UnreadableFile as error:
            self._trouble(f"this node is a witness and cannot serve: {error}")
            return
        if self._serving is not None:
            self._opening = asyncio.create_task(self._serve_when_possible(self._serving))

    async def _serve_when_possible(self, serving: Serving) -> None:
        while True:
            try:
                await self._serve(serving)
                return
            except OSError as error:
                self._trouble(f"this node is a witness and cannot serve: {error.strerror}")
                await asyncio.sleep(BIND_AGAIN_S)

    async def _serve(self, serving: Serving) -> None:
        """Serve these clusters from now on; nobody, if there are none. Raises OSError."""
        if not serving.clusters:
            if self._service is not None:
                await self._service.close()
            self._service = self._store = None
            return
        if self._service is None or self._store is None:
            from safekit.membership.state import Lives
            from safekit.witness.service import Witness
            from safekit.witness.store import RegisterStore

            self._store = RegisterStore(self._paths.witness / "registers")
            fresh = Witness(self._store, Lives(self._paths.witness_incarnations), self._say)
            await fresh.apply(serving)
            self._service = fresh
        else:
            await self._service.apply(serving)
        if self.trouble:
            self.trouble = ""
            self._say("this node serves as a witness again")

    def _trouble(self, text: str) -> None:
        if text != self.trouble:
            self.trouble = text
            self._say(text)

    async def close(self) -> None:
        """Ask and answer no more."""
        await self.leave()
        await self._end_opening()
        if self._service is not None:
            await self._service.close()

    async def _end_opening(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._opening
            self._opening = None

    # --- the witness of this node's cluster ---

    async def join(self, applied: AppliedCluster) -> None:
        """Ask the witness that the cluster names, if it names one."""
        await self.leave()
        witness = applied.cluster.witness
        if witness is None:
            return
        from safekit.membership.state import Lives
        from safekit.witness.client import WitnessClient

        lives = Lives(self._paths.claim_incarnations)
        self.client = WitnessClient(witness.cluster, applied.node, applied.key, str(witness.addr), witness.port, lives)
        await self.client.open()

    async def leave(self) -> None:
        """Ask no longer."""
        if self.client is not None:
            await self.client.close()
            self.client = None

    # --- a witness for others ---

    async def info(self) -> WitnessInfo:
        """What this node serves as a witness."""
        serving = self._serving
        if serving is None:
            return WitnessInfo(False, trouble=self.trouble)
        registers = await self._service.registers() if self._service is not None else ()
        clusters = tuple(
            WitnessCluster(
                cluster.name,
                tuple(sorted(cluster.nodes)),
                tuple(
                    WitnessRegister(view.module, view.epoch, view.holders, view.node, view.trouble)
                    for view in registers
                    if view.cluster == cluster.name
                ),
            )
            for cluster in serving.clusters
        )
        answered, dropped = (self._service.answered, dict(self._service.dropped)) if self._service else (0, {})
        return WitnessInfo(True, serving.addr, serving.port, clusters, answered, dropped, self.trouble)

    async def add(
        self,
        name: str,
        key: bytes,
        nodes: tuple[str, ...],
        port: int | None,
        addr: str | None,
        *,
        check: bool,
        replace_key: bool,
    ) -> bool:
        """Serve a cluster; False if it already is so served. `port` and `addr` None: as they are."""
        from safekit.witness.served import ServedCluster, ServedError, Serving, write_serving

        async with self._changing:
            before = self._readable() or Serving()
            try:
                cluster = ServedCluster(name, key, frozenset(nodes))
                after = before.with_cluster(cluster)
                after = replace(after, port=port or before.port, addr=addr if addr is not None else before.addr)
            except ServedError as error:
                raise FaceError("request.invalid", str(error)) from error
            present = before.cluster(name)
            if present is not None and present.key != key and not replace_key:
                raise FaceError(
                    "witness.other_key",
                    f"this witness serves a cluster {name} with another key: give this cluster another name, or replace the key",
                )
            if present == cluster and (after.port, after.addr) == (before.port, before.addr):
                return False
            if not check:
                await self._change(after)
                write_serving(self._file, after)
            return True

    async def remove(self, name: str) -> bool:
        """Serve a cluster no longer, and forget its registers; False if it was not served."""
        async with self._changing:
            before = self._readable()
            if before is None or before.cluster(name) is None:
                return False
            from safekit.witness.served import write_serving
            from safekit.witness.store import RegisterStore

            after = before.without(name)
            write_serving(self._file, after)
            store = self._store or RegisterStore(self._paths.witness / "registers")
            await self._change(after)
            await asyncio.to_thread(store.forget, name)
            if not after.clusters:
                self._file.unlink()
                self._serving = None
            return True

    def _readable(self) -> Serving | None:
        from safekit.witness.served import read_serving

        try:
            return read_serving(self._file)
        except UnreadableFile as error:
            raise FaceError("witness.unreadable", f"this node was a witness: {error}") from error

    async def _change(self, serving: Serving) -> None:
        await self._end_opening()
        try:
            await self._serve(serving)
        except OSError as error:
            raise FaceError("witness.port", f"this node cannot serve as a witness: {error.strerror}") from error
        self._serving = serving
