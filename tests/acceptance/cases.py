"""What the cases have in common: their mark, the answer for what is not built, and the line of `safekit why`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.nodes import CommandFailed, Node, wait_for
from tests.system.product import safekit

IDS = (
    *(f"I{number}" for number in range(1, 9)),
    *("M1", "M1b", *(f"M{number}" for number in range(2, 25))),
    *(f"F{number}" for number in range(1, 15)),
    *(f"C{number}" for number in range(1, 13)),
)
"""In the order of the specification."""

NOT_KNOWN = ("not supported yet", "No such command", "No such option", "no such element", "is not expected")


class NotBuilt(Exception):
    """The product does not have what the case is about; the text says what."""


def case(number: str, *, ours: str = "") -> pytest.MarkDecorator:
    """The mark of a case; `ours` says where the product differs from the reference on purpose."""
    assert number in IDS, number
    return pytest.mark.case(number, ours=ours)


@contextmanager
def asks_for(feature: str) -> Iterator[None]:
    """Inside, a refusal because the product does not know something means that the feature is not built."""
    try:
        yield
    except CommandFailed as failure:
        said = failure.result.err
        if any(words in said for words in NOT_KNOWN):
            raise NotBuilt(f"{feature} ({said.strip().splitlines()[0]})") from None
        raise


def explains(node: Node, module: str, *words: str) -> str:
    """`safekit why` answers in one line that begins with the module and says all these words; the line."""
    line = ""

    def said() -> bool:
        nonlocal line
        answer = safekit(node, f"why -m {module} -1").out
        assert answer.count("\n") == 1 and answer.startswith(f"{module}: "), answer
        line = answer.strip()
        missing = [word for word in words if word not in line]
        assert not missing, f"{line!r} does not say {missing}"
        return True

    wait_for(f"why says {', '.join(words)} on {node.name}", said, timeout=30)
    return line
