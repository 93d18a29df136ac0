"""Everything that can follow from a misfortune: no law is broken, and each rule that is dropped breaks one.

The simulation draws whole lives; here every order of what happens next is walked, to its end, from situations that once were the
beginning of a loss.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.exploration.explorer import Found, explore
from tests.exploration.world import Automaton, Draft
from tests.simulation.dropped import Patch
from tests.simulation.test_laws_bite_with_witness import (
    acknowledged_before_the_register,
    promoted_without_the_register,
    published_before_the_register,
    silence_counts_as_consent,
    unclean_counts_as_holder,
)

pytestmark = pytest.mark.timeout(550)
REPORTS = Path("build/reports/exploration")
"""What each exploration found: how many worlds, and of a dropped rule the shortest way to the loss."""

AT_REST = ()
WRITTEN = ("n1 writes 1", "n2 gets write", "n1 gets applied")
"""Both have it in memory, and its client heard so."""
CUT = ("THE NETWORK IS CUT",)
PRIMARY_DARK = (*WRITTEN, "n1 LOSES ITS POWER")
SECONDARY_DARK_AND_CUT = (*WRITTEN, "n2 LOSES ITS POWER", "THE NETWORK IS CUT")
BOTH_DARK = (*WRITTEN, "n1 LOSES ITS POWER", "n2 LOSES ITS POWER")
WITHOUT_ANYBODY = ("THE WITNESS IS AWAY", "THE NETWORK IS CUT")
NAMED_AND_DARK = (*WRITTEN, *CUT, "n1 finds its stream broken", "the witness judges", "n1 LOSES ITS POWER")
"""The register names n1 alone, and n1 does not know it any more."""


@pytest.fixture(autouse=True)
def rules_of_their_own() -> Iterator[None]:
    """What an automaton answered is remembered as long as the rules are the same."""
    Automaton.forget_all()
    yield
    Automaton.forget_all()


@pytest.mark.parametrize(
    "situation",
    [PRIMARY_DARK, SECONDARY_DARK_AND_CUT, BOTH_DARK, NAMED_AND_DARK],
    ids=["primary-dark", "secondary-dark-and-cut", "both-dark", "named-and-dark"],
)
def test_whatever_follows_from_a_misfortune_ends_in_a_whole_pair_and_breaks_no_law(
    situation: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    found = noted(request, explore(situation, most_faults=0, most_worlds=100_000))
    assert not found.broken, told(found)
    assert found.complete and found.worlds > 100


@pytest.mark.parametrize("situation", [CUT, WITHOUT_ANYBODY], ids=["cut", "without-anybody"])
def test_what_follows_soonest_from_a_cut_breaks_no_law(
    situation: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """Both go on living, and write: more than can be walked."""
    found = noted(request, explore(situation, most_faults=0, most_worlds=10_000))
    assert not found.broken, told(found)


def asked_without_syncing(patch: Patch) -> None:
    """Rule 6: who asks has in memory what it acknowledged."""
    patch.setattr(Draft, "_before_asking", lambda _draft, _name: None)


@pytest.mark.parametrize(
    ("dropped", "situation", "sentence"),
    [
        (acknowledged_before_the_register, CUT, "two nodes may answer writes"),
        (promoted_without_the_register, CUT, "two nodes may answer writes"),
        (published_before_the_register, AT_REST, "the register does not name"),
        (unclean_counts_as_holder, SECONDARY_DARK_AND_CUT, "without the acknowledged writes"),
        (silence_counts_as_consent, WITHOUT_ANYBODY, "two nodes may answer writes"),
        (asked_without_syncing, NAMED_AND_DARK, "without the acknowledged writes"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_dropped_rule_is_found(
    dropped: Callable[[Patch], None],
    situation: tuple[str, ...],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    dropped(monkeypatch)
    found = noted(request, explore(situation, most_faults=0, most_worlds=100_000))
    assert sentence in found.broken, told(found)


def noted(request: pytest.FixtureRequest, found: Found) -> Found:
    """The same, written down for the report."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / f"{request.node.callspec.id.rstrip('-')}.json").write_text(json.dumps(asdict(found), indent=2) + "\n")
    return found


def told(found: Found) -> str:
    """A way, one thing a line."""
    return "\n".join([f"{found.worlds} worlds: {found.broken}", *found.way])
