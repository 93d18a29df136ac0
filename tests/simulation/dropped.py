"""What a rule that is dropped must lead to: some world breaks a law. Else that law proves nothing.

The rules stand in `test_laws_bite*.py`, each as a function that takes it out of the product. `make simulate` drops them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from safekit.automaton.mirror import Policy
from tests.simulation.laws import Broken
from tests.simulation.weather import live

MOST_WORLDS = 600
Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Dropped:
    """A rule without which one of `sentences` is broken under this policy."""

    drop: Callable[[Patch], None]
    sentences: tuple[str, ...]
    policy: Policy = Policy.NONE

    @property
    def name(self) -> str:
        """As reports name it."""
        return self.drop.__name__

    @property
    def about(self) -> str:
        """What the product does without it."""
        return str(self.drop.__doc__)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Caught:
    """The first world that broke a law: its seed, and the law; None and nothing when no world did."""

    seed: int | None = None
    law: str = ""

    def is_due_to(self, dropped: Dropped) -> bool:
        """Whether this rule was there to keep this law."""
        return any(sentence in self.law for sentence in dropped.sentences)


def first_world_that_breaks(dropped: Dropped) -> Caught:
    """Live without the rule until a law breaks, at most MOST_WORLDS times; the rule is back afterwards."""
    with Patch.context() as patch:
        dropped.drop(patch)
        for seed in range(MOST_WORLDS):
            try:
                live(seed, dropped.policy)
            except Broken as broken:
                return Caught(seed, str(broken).splitlines()[0])
    return Caught()


def each(rules: Sequence[Dropped]) -> pytest.MarkDecorator:
    """A test for each of these rules."""
    return pytest.mark.parametrize("dropped", rules, ids=str)
