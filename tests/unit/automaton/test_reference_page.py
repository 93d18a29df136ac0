"""docs/reference/automata.md is what the tables of the automata say."""

from __future__ import annotations

from pathlib import Path

from safekit.automaton import farm, mirror
from safekit.automaton.reference import FARM_ROWS, MIRROR_ROWS, page
from safekit.automaton.vocabulary import Become

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "automata.md"


def test_the_page_is_made_from_the_tables() -> None:
    assert DOCUMENT.read_text() == page(), "python -m safekit.automaton.reference > docs/reference/automata.md"


def test_every_row_says_from_which_state_it_is_taken() -> None:
    assert MIRROR_ROWS.keys() == mirror.PLANS.keys()
    assert FARM_ROWS.keys() == farm.PLANS.keys()


def test_a_row_that_says_where_it_is_at_first_says_its_origin() -> None:
    rows = [(row, mirror.PLANS[row], origin) for row, (origin, _) in MIRROR_ROWS.items()]
    leaving = [(row, plan[0], origin) for row, plan, origin in rows if row.startswith(("leave", "yield", "restart"))]
    assert len(leaving) == 8
    for row, first, origin in leaving:
        assert isinstance(first, Become) and first.role is origin, row
