"""What must hold after a trial: the journal of the clients against what the nodes hold. Pure; each finding is one sentence.

Nothing acknowledged is lost (save what `promise.py` excuses), nothing is there that nobody asked for, nothing is there
twice or torn, and every answer that was given could have been given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from tests.durability.journal import Operation
from tests.durability.linearizable import NEVER, Access, check
from tests.durability.namespace import DEFINITE, FILE, LINK, Names, Shape, shape_of
from tests.durability.on_nodes.clients import element, record
from tests.durability.promise import Misfortune, PowerLoss, excused


@dataclass(frozen=True)
class Tree:
    """A trial's directory as one node holds it: facts of each name, content of those that matter."""

    entries: Mapping[str, Mapping[str, Any]]
    content: Mapping[str, str]


@dataclass
class Findings:
    """What was counted, and what is wrong."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    excused: int = 0
    recovered: int = 0
    """Operations whose answer was lost and that happened all the same."""
    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        """Everything that is wrong."""
        return [*self.lost, *self.unexpected]


def differences(one: Tree, other: Tree, *, holes: bool = True) -> list[str]:
    """What the trees of two nodes do not agree on. Without `holes`, zeros and holes are the same."""
    ignored = set() if holes else {"data"}
    left, right = one.entries, other.entries
    found = [f"{name!r} is only on the first node" for name in sorted(left.keys() - right.keys())]
    found += [f"{name!r} is only on the second node" for name in sorted(right.keys() - left.keys())]
    for name in sorted(left.keys() & right.keys()):
        facts = sorted(
            key
            for key in (left[name].keys() | right[name].keys()) - ignored
            if left[name].get(key) != right[name].get(key)
        )
        found += [f"{name!r}: {key} is {left[name].get(key)} and {right[name].get(key)}" for key in facts]
    return found


def examine(operations: Sequence[Operation], misfortunes: Iterable[Misfortune], tree: Tree) -> Findings:
    """Hold the journal against the tree of the node that serves."""
    known = tuple(misfortunes)
    gone = excused(operations, known)
    findings = Findings(excused=len(gone))
    for operation in operations:
        if operation.acknowledged:
            findings.acknowledged[operation.workload] = findings.acknowledged.get(operation.workload, 0) + 1
        elif is_unknown(operation) and operation.workload != "shapes":
            findings.unknown += 1
    _sets([o for o in operations if o.workload == "set"], gone, tree, findings)
    losses = sorted(one.at for one in known if isinstance(one, PowerLoss))
    for target, asked in by_target(operations, "log").items():
        _log(target, asked, gone, losses, tree.content.get(target), findings)
    for target, asked in by_target(operations, "register").items():
        _register(target, asked, gone, losses, tree.content.get(target), findings)
    for target, asked in by_target(operations, "names").items():
        _names(target, asked, gone, names_in(tree, target), findings)
    return findings


def is_unknown(operation: Operation) -> bool:
    """Whether it may have happened or not."""
    if operation.answered is None:
        return True
    return bool(operation.error) and not (operation.workload == "names" and operation.error in DEFINITE)


def by_target(operations: Iterable[Operation], workload: str) -> dict[str, list[Operation]]:
    """The operations of a workload, by the file, register or directory that they are about."""
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.workload == workload:
            found.setdefault(operation.target, []).append(operation)
    return found


# --- (a) set


def _sets(asked: list[Operation], gone: Mapping[Operation, str], tree: Tree, findings: Findings) -> None:
    doubtful = {o.target for o in asked if is_unknown(o) or o in gone}
    seen: dict[str, list[str]] = {}
    for path, text in tree.content.items():
        if not path.startswith("set/"):
            continue
        for line in text.splitlines(keepends=True):
            number = line.split(" ", 1)[0]
            if number.isdigit() and line == element(int(number)):
                seen.setdefault(number, []).append(path)
            elif path not in doubtful:
                findings.unexpected.append(f"set: {path} holds {line[:60]!r}, which nobody wrote")
    for operation in asked:
        places = seen.pop(operation.args[0], [])
        if places and is_unknown(operation):
            findings.recovered += 1
        if not places and operation.acknowledged and operation not in gone:
            findings.lost.append(f"set: {_said(operation)} is missing in {operation.target}")
        if places and places != [operation.target]:
            findings.unexpected.append(f"set: {operation.args[0]} is in {', '.join(places)}")
    findings.unexpected += [f"set: {number} in {places[0]} was never added" for number, places in seen.items()]


# --- (b) log


def _log(
    target: str,
    asked: list[Operation],
    gone: Mapping[Operation, str],
    losses: Sequence[float],
    text: str | None,
    findings: Findings,
) -> None:
    """Every record in order and whole; only the last one asked for may be missing, whole or in part, and only in doubt.

    A file system may give a file its size before its bytes: what nobody was promised may be zeros after a loss of power.
    """
    whole = [record(target, int(operation.args[0])) for operation in asked]
    must = max((n for n, o in enumerate(asked, 1) if o.acknowledged and o not in gone), default=0)
    required, possible = "".join(whole[:must]), "".join(whole)
    held = text or ""
    if not held.startswith(required):
        there = next((n for n in range(must) if not held.startswith("".join(whole[: n + 1]))), must)
        operation = asked[there]
        what = "torn or missing" if len(held) <= len(required) else "not what was written"
        findings.lost.append(
            f"log: {target}: {_said(operation)} is {what} ({len(held)} bytes, {must} records must be there)"
        )
        return
    wrong = [at for at, (byte, written) in enumerate(zip_longest(held, possible[: len(held)])) if byte != written]
    if wrong and losses and len(held) <= len(possible):
        wrong = [at for at in wrong if held[at] != "\0"]
    if wrong:
        at = wrong[0]
        findings.unexpected.append(
            f"log: {target} holds {len(held)} bytes that are not its records in order: "
            f"at {at} {held[at : at + 40]!r}, not {possible[at : at + 40]!r}"
        )
    elif must < len(asked) and len(held) == len(possible):
        findings.recovered += 1


# --- (c) registers


def _register(
    target: str,
    asked: list[Operation],
    gone: Mapping[Operation, str],
    losses: Sequence[float],
    text: str | None,
    findings: Findings,
) -> None:
    """Linearizable, in one piece, or in pieces where both memories were lost: there an earlier value may come back."""
    by_power = [o for o in asked if o in gone and "power" in gone[o]]
    cuts = [at for at in losses if any(o.sent < at for o in by_power)]
    end = max((o.answered or o.sent for o in asked), default=0.0) + 1
    initials: set[str | None] = {None}
    left = asked
    for number, until in enumerate([*cuts, NEVER]):
        present, left = [o for o in left if o.sent < until], [o for o in left if o.sent >= until]
        history = [access for o in present for access in _accesses(o, gone)]
        if until == NEVER:
            history.append(Access(False, text or None, end, end + 1, "the disk"))
        verdict = check(history, sorted(initials, key=str))
        if not verdict.linearizable:
            after = f" after power loss {number}" if number else ""
            findings.lost.append(f"register: {target}{after}: no order explains {verdict.stuck_at}")
            return
        initials = _left_by(present, gone, initials)


def _accesses(operation: Operation, gone: Mapping[Operation, str]) -> list[Access]:
    who = f"client {operation.client} at {operation.node or '?'}"
    given_up = operation in gone and "power" not in gone[operation]
    if operation.do == "get":
        if not operation.acknowledged or given_up or operation.answered is None:
            return []
        return [Access(False, operation.value, operation.sent, operation.answered, who)]
    certain = operation.acknowledged and not given_up and operation.answered is not None
    answered = operation.answered if certain and operation.answered is not None else NEVER
    return [Access(True, operation.args[0], operation.sent, answered, who)]


def _left_by(present: list[Operation], gone: Mapping[Operation, str], initials: set[str | None]) -> set[str | None]:
    """The values that a register may have after a loss of memory: no older one than what had to survive."""
    writes = [o for o in present if o.do == "set"]
    kept = [o for o in writes if o.acknowledged and o not in gone]
    values: set[str | None] = set()
    for write in writes:
        answered = write.answered if write.acknowledged and write.answered is not None else NEVER
        if not any(later.sent > answered for later in kept):
            values.add(write.args[0])
    if not kept:
        values |= initials
    if any(write in gone for write in writes):
        values.add(None)  # a name that is on the disk before the first bytes of its file
    return values


# --- (d) names


def names_in(tree: Tree, target: str) -> Shape:
    """The names below `target` as they are on the disk."""
    found = []
    for path, facts in tree.entries.items():
        if path.startswith(f"{target}/"):
            kind = {0o040000: "d", 0o120000: LINK}.get(int(str(facts["mode"]), 8) & 0o170000, FILE)
            found.append((path.removeprefix(f"{target}/"), kind, str(facts.get("same", ""))))
    return shape_of(found)


def _names(target: str, asked: list[Operation], gone: Mapping[Operation, str], seen: Shape, findings: Findings) -> None:
    """Every answer as a file system gives it; the names as after everything that had to survive, and perhaps more."""
    states = [Names()]
    must = 0
    for operation in asked:
        after, error = states[-1].after(operation.do, operation.args)
        if is_unknown(operation):
            states.append(after)
            continue
        if error != operation.error:
            said = f"answered {operation.error} where a file system answers {error}"
            findings.unexpected.append(f"names: {target}: {_said(operation)} {said}")
            return
        states.append(after)
        if operation not in gone and not operation.error:
            must = len(states) - 1
    if seen not in {state.shape() for state in states[must:]}:
        expected = states[-1].shape()
        more, fewer = sorted(seen[0] - expected[0]), sorted(expected[0] - seen[0])
        findings.lost.append(
            f"names: {target}: not as after any of its last {len(states) - must} requests: "
            f"more {more[:4]}, fewer {fewer[:4]}, or other links"
        )
    elif asked and is_unknown(asked[-1]) and seen == states[-1].shape() != states[-2].shape():
        findings.recovered += 1


def _said(operation: Operation) -> str:
    how = "durable" if operation.durable else "not synced"
    where = "in mirror state" if operation.mirrored else "alone"
    return f"{operation.do} {' '.join(operation.args)} (answered by {operation.node} {where}, {how}, sent {operation.sent:.3f})"
