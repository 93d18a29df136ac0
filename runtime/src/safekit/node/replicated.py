"""What the API asks about the replicated directories of a module: statistics, comparisons, the policy of the next
synchronisation (`api/replicated.py`). Each function takes the module that `node.py` has found.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import TypeVar

from safekit.api.face import FaceError
from safekit.api.replicated import LONGEST_UID, Comparison, ComparisonKind, SyncPolicy
from safekit.automaton.vocabulary import Role
from safekit.module import comparison as compared
from safekit.module.farm import FarmModule
from safekit.module.mirror import MirrorModule
from safekit.module.replica import Replica
from safekit.module.settings import DEFAULT_SYNC
from safekit.replication import DataPlaneError, DataPlaneGone

Answer = TypeVar("Answer")
_UID = re.compile(rf"[A-Za-z0-9_.-]{{1,{LONGEST_UID}}}")


def _replica(module: MirrorModule | FarmModule) -> Replica:
    replica = module.replica if isinstance(module, MirrorModule) else None
    if replica is None:
        name = module.around.name
        raise FaceError("action.refused", f"module {name} has no replicated directory (<rfs>)", module=name)
    return replica


async def _asked(work: Awaitable[Answer]) -> Answer:
    """The answer of the data plane; its refusal in the API's words."""
    try:
        return await work
    except DataPlaneError as error:
        raise FaceError("action.refused", error.message) from error
    except DataPlaneGone as error:
        why = "the replication does not run on this node: start the module first"
        raise FaceError("action.refused", why) from error


async def stats(module: MirrorModule | FarmModule) -> Mapping[str, int | str]:
    """Counters and latencies of the data plane."""
    return await _asked(_replica(module).process.plane.stats())


async def compare(module: MirrorModule | FarmModule, kind: ComparisonKind) -> Comparison:
    """Begin a comparison."""
    replica = _replica(module)
    return _shown(await _asked(replica.compare(kind)))


async def comparison(module: MirrorModule | FarmModule, wait: float) -> Comparison | None:
    """The present or last comparison."""
    found = await _replica(module).comparisons.wait(wait)
    return None if found is None else _shown(found)


def _shown(found: compared.Comparison) -> Comparison:
    progress, result = found.progress, found.result
    shown = Comparison(
        kind=found.kind,
        running=found.running,
        since=found.since,
        ended=found.ended,
        files_done=progress.files_done,
        files_total=progress.files_total,
        bytes_done=progress.bytes_done,
        bytes_total=progress.bytes_total,
        equal=found.equal,
        entries=found.entries,
    )
    if result is None:
        return shown
    return replace(
        shown,
        files_done=max(result.files, progress.files_done),
        bytes_done=max(result.bytes, progress.bytes_done),
        differing_files=result.differing_files,
        differing_bytes=result.differing_bytes,
        failed=result.failed,
        list=result.list,
    )


async def choose_policy(module: MirrorModule | FarmModule, policy: SyncPolicy) -> bool:
    """Choose the policy of the next synchronisation (spec §4.9.3, §4.9.4)."""
    replica, am = _replica(module), module.around.name
    _check_policy(policy)
    role = module.state.role
    if policy.mode == "external":
        allowed = (Role.STOP, Role.ALONE) if policy.role == "prim" else (Role.STOP,)
        if role not in allowed or module.state.plan:
            states = " or ".join(allowed)
            raise FaceError(
                "action.refused",
                f"`rfssync external {policy.role}` needs the module in {states}, and it is in {role}",
                module=am,
            )
        assert policy.role is not None
        await _asked(replica.external(policy.role, policy.uid, policy.check))
    before = module.settings
    after = replace(before, syncmode=policy.mode, syncrole=policy.role or DEFAULT_SYNC, syncuid=policy.uid)
    module.remember(after)
    if after != before:
        words = " ".join(word for word in (policy.mode, policy.role or "", policy.uid) if word)
        module.log.write("rfs", "U", f"Synchronisation policy of the next start: {words}")
    return after != before


def _check_policy(policy: SyncPolicy) -> None:
    if policy.mode != "external":
        if policy.role is not None or policy.uid or not policy.check:
            raise FaceError("request.invalid", f"the policy {policy.mode} has neither role nor uid")
        return
    if policy.role is None:
        raise FaceError("request.invalid", "the policy external needs a role, expected prim or second")
    if not _UID.fullmatch(policy.uid):
        raise FaceError(
            "request.invalid",
            f"uid {policy.uid!r}: expected 1 to {LONGEST_UID} letters, digits, '_', '-' and '.', the same on both nodes",
            value=policy.uid,
        )
