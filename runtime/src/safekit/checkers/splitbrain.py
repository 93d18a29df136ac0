"""The witnesses of `<splitbrain>` (spec §4.6, §6.2): whether this node still reaches the world when its peer is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from safekit.checkers.ping import answers


async def any_answers(witnesses: Iterable[object], timeout_s: float) -> bool:
    """Whether one of the machines answers an ICMP echo within the time; as soon as one does."""
    asked = [asyncio.ensure_future(answers(str(witness), timeout_s)) for witness in witnesses]
    try:
        for answer in asyncio.as_completed(asked):
            if await answer:
                return True
        return False
    finally:
        for question in asked:
            question.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
