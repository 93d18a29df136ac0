"""The register of one mirror module, pure: who may serve, and how that changes. No socket, no file, no clock.

`holders` are the nodes whose copy has every acknowledged write. Invariant: *of all claims on one epoch, one at most is
granted.* "The primary goes on alone" and "the secondary takes over" are two claims on the same epoch: a race with one
winner. Hence the rules, in the order of `decide`:

1. A claim that says what cannot be (a node that the cluster does not have, a holder set without its claimant) is refused.
2. A repeated claim (same node, boot and number as the last grant) is answered the same, and changes nothing: its first
   answer was lost. A grant that another one has followed is no longer answered so; who asks again after that is told what
   is true now.
3. Only a holder is granted, and only on the register as it is: same epoch, same holders.
4. Every grant is a new epoch, above all that the register and the claimant have seen; also for a sole holder that asks
   again after its reboot.
5. A register that does not exist, or that is older than what a claimant remembers (the witness lost its disk, or got an
   old one back), is made by nobody alone: what one node remembers may be out of date. It takes all nodes of the module
   together, or an administrator's order, which goes over rule 3 as well.

A refusal shows the register as it is. It says "out of date" only to a node that is not in its holders: a holder whose
earlier answer was lost learns from it what was granted, and asks again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Ground(StrEnum):
    """On what a claim stands."""

    HOLDER = "holder"  # the claimant holds every acknowledged write, as the register knows
    TOGETHER = "together"  # every node of the module is heard now, and agrees
    ORDER = "order"  # an administrator ordered it, whatever the register says


@dataclass(frozen=True)
class Claim:
    """One request: `(epoch, holders) -> (a new epoch, wanted)`.

    `epoch` and `holders` are what `node` believes the register to be. `boot` and `number` tell this request from every
    other one of that node: `boot` is one life of the asking process, `number` grows within it.
    """

    cluster: str
    module: str
    epoch: int
    holders: frozenset[str]
    wanted: frozenset[str]
    node: str
    boot: str
    number: int
    ground: Ground = Ground.HOLDER


@dataclass(frozen=True)
class Verdict:
    """The answer to the claim `number` of `node` in its life `boot`, and the register after it.

    `epoch` 0 without holders: there is no register. `why` is a sentence for the log, empty when granted.
    """

    granted: bool
    epoch: int
    holders: frozenset[str]
    node: str
    boot: str
    number: int
    why: str = ""


@dataclass(frozen=True)
class Register:
    """Who may serve one module, and which claim made it so."""

    epoch: int
    holders: frozenset[str]
    node: str
    boot: str
    number: int


def decide(register: Register | None, claim: Claim, nodes: frozenset[str]) -> tuple[Register | None, Verdict]:
    """The register after `claim`, and the answer. `nodes` are all that the cluster has. Refused: nothing changes."""
    why = _impossible(claim, nodes)
    if why:
        return register, _refused(register, claim, why)
    if register is not None and (register.node, register.boot, register.number) == (
        claim.node,
        claim.boot,
        claim.number,
    ):
        if register.holders == claim.wanted:
            return register, _granted(register, claim)
        return register, _refused(register, claim, f"number {claim.number} was granted for {_named(register.holders)}")
    why = _not_now(register, claim)
    if why:
        return register, _refused(register, claim, why)
    epoch = max(claim.epoch, register.epoch if register is not None else 0) + 1
    after = Register(epoch, claim.wanted, claim.node, claim.boot, claim.number)
    return after, _granted(after, claim)


def _impossible(claim: Claim, nodes: frozenset[str]) -> str:
    """Why no register could ever grant this claim; empty if one could."""
    unknown = ({claim.node} | claim.holders | claim.wanted) - nodes
    if unknown:
        return f"the cluster has no node {_named(unknown)}"
    if claim.node not in claim.wanted:
        return f"{claim.node} asks for {_named(claim.wanted)} without itself"
    if claim.epoch < 0:
        return f"epoch {claim.epoch}, expected 0 or more"
    return ""


def _not_now(register: Register | None, claim: Claim) -> str:
    """Why the present register does not allow this claim; empty if it does."""
    if claim.ground is Ground.ORDER:
        return ""
    if register is None or register.epoch < claim.epoch:
        if claim.ground is Ground.TOGETHER:
            return ""
        if register is None:
            return "the witness has no register of this module: it is made when all its nodes are there, or by an order"
        return f"the register is in epoch {register.epoch}, older than {claim.epoch}: the witness lost what it knew"
    if claim.node not in register.holders:
        return f"in epoch {register.epoch} {_named(register.holders)} may serve"
    if register.epoch != claim.epoch:
        return f"the register is in epoch {register.epoch}, the claim on epoch {claim.epoch}"
    if register.holders != claim.holders:
        return f"in epoch {register.epoch} {_named(register.holders)} may serve, the claim says {_named(claim.holders)}"
    return ""


def _granted(register: Register, claim: Claim) -> Verdict:
    return Verdict(True, register.epoch, register.holders, claim.node, claim.boot, claim.number)


def _refused(register: Register | None, claim: Claim, why: str) -> Verdict:
    epoch, holders = (0, frozenset[str]()) if register is None else (register.epoch, register.holders)
    return Verdict(False, epoch, holders, claim.node, claim.boot, claim.number, why)


def _named(nodes: Iterable[str]) -> str:
    return ", ".join(sorted(nodes)) or "nobody"
