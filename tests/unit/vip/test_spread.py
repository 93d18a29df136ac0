"""Many clients over few nodes: evenly as far as a hash can, and nobody moves who need not (spec §5.3)."""

from __future__ import annotations

import pytest

from benchmarks.spread import LARGEST, MOVED, NODES, as_rows, bucketed, measured, noise, targets
from safekit.vip.buckets import BUCKETS


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weights"])
@pytest.mark.parametrize("count", NODES)
def test_a_hundred_thousand_clients_are_shared_as_the_weights_say(count: int, weighted: bool) -> None:
    found = measured(count, weighted, "consecutive")
    assert 1 <= found.largest <= max(LARGEST, 1 + found.noise)
    assert found.moved <= MOVED


def test_every_client_is_counted_and_every_bucket_has_some() -> None:
    clients = bucketed("consecutive")
    assert sum(clients.values()) == 100_000
    assert len(clients) == BUCKETS


def test_the_noise_shrinks_with_more_clients_and_grows_with_more_nodes() -> None:
    two, sixteen = dict.fromkeys("ab", 1), dict.fromkeys("abcdefghijklmnop", 1)
    assert noise(two, 400_000) == pytest.approx(noise(two, 100_000) / 2)
    assert noise(two) < LARGEST - 1 < noise(sixteen)


def test_a_target_that_is_missed_is_told() -> None:
    found = [measured(2, weighted=False, population="consecutive")]
    assert as_rows(found)[0]["weights"] == "equal"
    assert [one["met"] for one in targets(found)] == [True, True]
    assert {"work", "ratio", "target", "met"} == targets(found)[0].keys()
