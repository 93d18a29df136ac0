"""What a mirror module asks of the witness, and what it hears: the automaton's claims, put and answered.

Who asks makes durable what this node has first; what is asked and what an answer means is the automaton's affair
(`automaton/mirror/claims.py`). Nothing here blocks.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from safekit.automaton.mirror import Answered, Silent
from safekit.automaton.register import Verdict
from safekit.automaton.vocabulary import Ask

if TYPE_CHECKING:
    from safekit.module.mirror import MirrorModule
    from safekit.witness.client import Seen, WitnessClient


class Claimant:
    """The claims of one module; a listener of the witness's client, which calls it on the loop."""

    def __init__(self, module: MirrorModule, client: WitnessClient | None) -> None:
        self._module, self._client = module, client
        self._out: tuple[int, int] | None = None
        """The claim that is out: its number at the client and in the automaton."""
        self._watching = False
        self.names: tuple[str, ...] | None = None
        """Whom the register names, as it was last seen; None while the witness is not heard."""
        self.trouble = "" if client is not None else "the cluster has no witness"
        """Since when and why nothing is heard of the witness; empty while it is heard."""

    def watch(self) -> None:
        """Look at the register from now on."""
        if self._client is not None and not self._watching:
            self._watching = True
            self._client.watch(self._module.around.name, self, self._module.state.lease)

    def forget(self) -> None:
        """Ask nothing more."""
        self._out = self.names = None
        if self._client is not None and self._watching:
            self._watching, self.trouble = False, ""
            self._client.forget(self._module.around.name)

    async def ask(self, asked: Ask) -> None:
        """Put a claim, in place of the one before, once all that this node has is durable."""
        module = self._module
        if module.replica is not None:
            await asyncio.to_thread(module.replica.sync_below)
        if module.state.asked != asked:
            return  # withdrawn or replaced meanwhile
        if self._client is not None:
            self.watch()
            holders, wanted = frozenset(asked.holders), frozenset(asked.wanted)
            number = self._client.claim(module.around.name, asked.epoch, holders, wanted, asked.ground)
            self._out = (number, asked.number)
        if self.trouble:
            module.put(Silent(self.trouble))

    def renew(self) -> None:
        """The other node does not renew the lease of this one: ask the witness."""
        if self._client is not None and self._watching:
            self._client.renew(self._module.around.name)

    def withdraw(self) -> None:
        """No claim is wanted any more."""
        self._out = None
        if self._client is not None and self._watching:
            self._client.withdraw(self._module.around.name)

    # --- what the client tells ---

    def verdict(self, verdict: Verdict, sent_at: float) -> None:
        """The claim that was out is answered."""
        if self._out is None or self._out[0] != verdict.number:
            return
        from safekit.witness.client import boottime

        number, self._out = self._out[1], None
        self._module.log.write("heart", "I", f"the witness answered after {(boottime() - sent_at) * 1000:.0f} ms")
        self._module.put(Answered(number, verdict.granted, verdict.epoch, tuple(sorted(verdict.holders))))

    def renewed(self, sent_at: float) -> None:
        """The lease of this node is, from when that was asked."""
        self._module.lease_renewed(sent_at)

    def seen(self, seen: Seen) -> None:
        """The register as the witness knows it now."""
        names, was_silent = tuple(sorted(seen.holders)), bool(self.trouble)
        if names == self.names and not was_silent:
            return
        self.names, self.trouble = names, ""
        self._module.set_resource("state.witness", "up", "witness")
        if was_silent:
            self._module.put(Silent(""))
        self._module.around.changed()

    def unavailable(self, why: str, since: float) -> None:
        """The witness does not answer, or cannot tell the register."""
        from safekit.witness.client import boottime

        began = datetime.now() - timedelta(seconds=max(boottime() - since, 0.0))
        self.names, self.trouble = None, f"{began:%H:%M:%S} ({why})"
        self._module.set_resource("state.witness", "down", "witness")
        self._module.put(Silent(self.trouble))
        self._module.around.changed()
