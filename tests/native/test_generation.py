"""The name of the data travels with all its ancestors: a pair that changed its roles often is carried like a new one."""

from __future__ import annotations

from safekit.automaton.data import HISTORY_LENGTH
from tests.native.pair import Pair


async def test_a_generation_with_all_its_ancestors_and_the_longest_node_name_is_carried(mirrored: Pair) -> None:
    longest = ",".join(f"{100_000 + age}.{'n' * 63}.{'0123456789ab'}" for age in range(HISTORY_LENGTH + 1))
    await mirrored.a.plane.publish(generation=longest)
    assert (await mirrored.b.plane.status()).published == longest
    assert (await mirrored.a.plane.status()).published == longest
