"""What a failover rule is, and when it is true.

A condition is true, false or undecided. A resource that was not tested yet (`init`), whose value is not known
(`unknown`), or that nobody has set, leaves what is said of it undecided, and a rule acts only when its condition is
true: nobody is stopped because a checker has not spoken yet. A condition may ask for `init` or `unknown` by name.

`class.?` stands for any resource of a class, `class.*` for all of them (and there must be one).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

ACTIONS = ("stop", "stopstart", "wait", "restart", "swap")
"""In order of priority: when several rules hold, the first of these that one of them asks for is done."""

STATES = ("init", "up", "down", "unknown")

CLASSES = (
    "tcp",
    "ping",
    "intf",
    "ip",
    "custom",
    "module",
    "splitbrain",
    "heartbeat",
    "rfs",
    "proc",
    "usersetting",
    "state",
    "connections",
    "heart",
)


@dataclass(frozen=True, slots=True)
class Resource:
    """`[local.|remote.]class.name`; name may be `?` (any) or `*` (all)."""

    kind: str
    name: str
    remote: bool = False

    def __str__(self) -> str:
        return f"{'remote.' if self.remote else ''}{self.kind}.{self.name}"

    @property
    def key(self) -> str:
        """Its name among the values: as it is written, without `local.`."""
        return str(self)

    def values(self, known: Mapping[str, str]) -> tuple[str, ...]:
        """The values of what it stands for; one that nobody has set is `unknown`."""
        if self.name in ("?", "*"):
            prefix = f"{'remote.' if self.remote else ''}{self.kind}."
            return tuple(value for name, value in sorted(known.items()) if name.startswith(prefix))
        return (known.get(self.key, "unknown"),)


@dataclass(frozen=True, slots=True)
class State:
    """A value that is written in a rule."""

    value: str

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Compare:
    """`left == right` or `left != right`."""

    left: Resource | State
    operator: Literal["==", "!="]
    right: Resource | State

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right}"


@dataclass(frozen=True, slots=True)
class Not:
    """`! condition`."""

    of: Expression

    def __str__(self) -> str:
        return f"!{_inner(self.of)}"


@dataclass(frozen=True, slots=True)
class Both:
    """`left && right`."""

    left: Expression
    right: Expression

    def __str__(self) -> str:
        return f"{_inner(self.left)} && {_inner(self.right)}"


@dataclass(frozen=True, slots=True)
class Either:
    """`left || right`."""

    left: Expression
    right: Expression

    def __str__(self) -> str:
        return f"{_inner(self.left)} || {_inner(self.right)}"


Expression = Resource | Compare | Not | Both | Either
"""A resource alone is true when it is up."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`label: if (condition) then action();`. `action` is one of `ACTIONS`; `line` is where the rule begins."""

    label: str
    condition: Expression
    action: str
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.label}: if ({self.condition}) then {self.action}();"


def holds(condition: Expression, known: Mapping[str, str]) -> bool | None:
    """Whether a condition is true for these values; None when they do not decide it."""
    match condition:
        case Resource():
            return _compare(Compare(condition, "==", State("up")), known)
        case Compare():
            return _compare(condition, known)
        case Not(of):
            inner = holds(of, known)
            return None if inner is None else not inner
        case Both(left, right):
            return _all(holds(left, known), holds(right, known))
        case Either(left, right):
            return _any(holds(left, known), holds(right, known))


def resources_of(condition: Expression) -> Iterator[Resource]:
    """The resources that a condition names, patterns included."""
    match condition:
        case Resource():
            yield condition
        case Compare(left, _, right):
            yield from (side for side in (left, right) if isinstance(side, Resource))
        case Not(of):
            yield from resources_of(of)
        case Both(left, right) | Either(left, right):
            yield from resources_of(left)
            yield from resources_of(right)


def unsettled(condition: Expression, known: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the resources of a condition that are still `init` (spec §6.1, rule 2)."""
    names: set[str] = set()
    for resource in resources_of(condition):
        pattern = str(resource) if resource.name not in ("?", "*") else str(resource)[: -len(resource.name)] + "*"
        names.update(name for name, value in known.items() if value == "init" and fnmatchcase(name, pattern))
    return tuple(sorted(names))


def _inner(expression: Expression) -> str:
    return str(expression) if isinstance(expression, Resource) else f"({expression})"


def _compare(condition: Compare, known: Mapping[str, str]) -> bool | None:
    left, right = condition.left, condition.right
    if isinstance(left, State):
        left, right = right, left
    if isinstance(left, State):  # two states: nothing to look up
        return (left == right) is (condition.operator == "==")
    asked = right.values(known) if isinstance(right, Resource) else (right.value,)
    answers = [_equal(value, other, condition.operator, right) for value in left.values(known) for other in asked]
    if not answers:
        return None
    return _fold(answers, all_of=left.name == "*")


def _equal(value: str, other: str, operator: str, right: Resource | State) -> bool | None:
    named = isinstance(right, State) and other in ("init", "unknown")
    if not named and ("init" in (value, other) or "unknown" in (value, other)):
        return None
    return (value == other) is (operator == "==")


def _fold(answers: list[bool | None], all_of: bool) -> bool | None:
    whole: bool | None = all_of
    for answer in answers:
        whole = _all(whole, answer) if all_of else _any(whole, answer)
    return whole


def _all(left: bool | None, right: bool | None) -> bool | None:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def _any(left: bool | None, right: bool | None) -> bool | None:
    if left or right:
        return True
    return None if left is None or right is None else False
