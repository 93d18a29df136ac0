"""The witnesses of `<splitbrain>` (spec §4.6): a peer that falls silent is taken for lost only by who still reaches one.

Policy `ping`. Nothing is asked as long as heartbeats come. When the last one is lost, a node that serves, or could take
over, pings the witnesses before its automaton hears of the silence. One answers: the peer is lost, as ever. None does: this
node is the one that is cut off, and waits under the rule `splitbrain_failure` until heartbeats come again or an
administrator decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from safekit.automaton.data import Holder
from safekit.automaton.mirror import SPLIT_BRAIN_RULE, MirrorState
from safekit.automaton.vocabulary import Role
from safekit.checkers import any_answers
from safekit.config import SplitbrainCheck

if TYPE_CHECKING:
    from safekit.module.mirror import MirrorModule

ANSWER_S = 5.0
"""How long a witness may take to answer."""
_WAIT_S = 3600.0
_SERVES = (Role.PRIM, Role.ALONE, Role.SECOND)
_BY = "splitbraincheck"


class SplitBrain:
    """The split-brain checker of one mirror."""

    def __init__(self, module: MirrorModule, check: SplitbrainCheck) -> None:
        self._module = module
        self._check = check

    def began(self, held: tuple[str, ...] = ()) -> None:
        """The module started, or its daemon did; `held`: what held the module before."""
        cut_off = SPLIT_BRAIN_RULE in held
        self._module.set_resource(f"splitbrain.{self._check.ident}", "down" if cut_off else "unknown", _BY)
        self._set(cut_off)

    def heard(self) -> None:
        """Heartbeats come again: there is nothing to ask any more."""
        self._module.end("splitbrain")
        self._set(False)

    def asks(self, state: MirrorState) -> bool:
        """Whether the silence of the peer must be confirmed first: only who would go alone by it is asked (spec §4.6)."""
        pair = state.role in (Role.PRIM, Role.SECOND) or (
            state.role is Role.ALONE and state.record.holder is Holder.BOTH
        )
        return pair and state.peer.role in _SERVES

    def ask(self, lost: Callable[[], None]) -> None:
        """Ask the witnesses, once; call `lost` when the automaton may be told that the peer is."""
        if not self._module.runs("splitbrain"):
            self._module.spawn(self._ask(lost), "splitbrain")

    async def _ask(self, lost: Callable[[], None]) -> None:
        module = self._module
        reached = await any_answers(self._check.arg, ANSWER_S)
        module.set_resource(f"splitbrain.{self._check.ident}", "up" if reached else "down", _BY)
        if not reached:
            witnesses = ", ".join(self._check.arg)
            module.witness("heart", "C", f"no heartbeat from {module.peer_node}, and no witness answers ({witnesses})")
            self._set(True)
            # Until the scripts have stopped the application its held writes must not go on as those of a lone primary.
            while not await module.wait_until(lambda: module.state.role in (Role.WAIT, Role.STOP), _WAIT_S):
                pass
        module.forget_task("splitbrain")
        lost()

    def _set(self, cut_off: bool) -> None:
        self._module.set_resource("splitbrain.uptodate", "down" if cut_off else "up", _BY)
        self._module.hold(SPLIT_BRAIN_RULE, cut_off)
