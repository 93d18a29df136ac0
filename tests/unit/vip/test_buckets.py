"""Who owns which bucket: even, the same everywhere, and few move (spec §5.3)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekit.vip.buckets import BUCKETS, assign, bucket_of, elect, hash_seed, jenkins_hash, quotas, share
from safekit.vip.service import HashKey

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1, max_size=12)
farms = st.dictionaries(names, st.integers(1, 63), min_size=1, max_size=8)
ranked = st.dictionaries(names, st.sampled_from([1, 2, 63, 64, 100, 4096, 64**3]), min_size=1, max_size=8)
identities = st.text(min_size=1, max_size=20)
few = settings(max_examples=25, deadline=None)


@few
@given(farms, identities)
def test_shares_are_met_to_one_bucket(powers: dict[str, int], identity: str) -> None:
    owners = assign(powers, identity)
    total = sum(powers.values())
    for node, power in powers.items():
        assert abs(owners.count(node) - BUCKETS * power / total) < 1
    assert len(owners) == BUCKETS and None not in owners


@few
@given(farms, identities, st.randoms(use_true_random=False))
def test_the_table_does_not_depend_on_the_order_in_which_nodes_are_known(powers, identity, random) -> None:
    shuffled = list(powers.items())
    random.shuffle(shuffled)
    assert assign(dict(shuffled), identity) == assign(powers, identity)


@few
@given(farms.filter(lambda powers: len(powers) > 1), identities)
def test_a_node_that_leaves_moves_its_own_buckets_and_no_others(powers: dict[str, int], identity: str) -> None:
    before = assign(powers, identity, powers)
    for gone in sorted(powers)[:2]:
        alive = {name: power for name, power in powers.items() if name != gone}
        after = assign(alive, identity, powers)
        assert all(was in (gone, now) for was, now in zip(before, after, strict=True))
        for node, quota in quotas(alive).items():
            assert abs(after.count(node) - quota) <= 1


@few
@given(st.sets(names, min_size=4, max_size=8), identities)
def test_a_second_death_moves_few_buckets_of_others(nodes: set[str], identity: str) -> None:
    first, second, *_ = sorted(nodes)
    known = dict.fromkeys(nodes, 1)
    before = assign(dict.fromkeys(nodes - {first}, 1), identity, known)
    after = assign(dict.fromkeys(nodes - {first, second}, 1), identity, known)
    needless = sum(was not in (second, now) for was, now in zip(before, after, strict=True))
    assert needless <= 0.05 * BUCKETS


@few
@given(farms, identities)
def test_a_node_without_power_owns_nothing_and_changes_nothing(powers: dict[str, int], identity: str) -> None:
    assert assign({**powers, "idle node": 0}, identity) == assign(powers, identity)


def test_a_chain_of_powers_is_an_order_of_priority() -> None:
    chain = {"n1": 1, "n2": 64, "n3": 64**2}
    assert quotas(chain) == {"n3": BUCKETS}
    assert set(assign(chain, "c", chain)) == {"n3"}
    assert set(assign({"n1": 1, "n2": 64}, "c", chain)) == {"n2"}
    assert set(assign({"n1": 1}, "c", chain)) == {"n1"}
    assert set(assign({"n1": 1, "n3": 64**2}, "c", chain)) == {"n3"}


@few
@given(ranked.filter(lambda powers: len(powers) > 1), identities)
def test_beside_priorities_too_only_the_buckets_of_who_leaves_move(powers: dict[str, int], identity: str) -> None:
    before = assign(powers, identity, powers)
    assert {name for name, power in powers.items() if power * 64 <= max(powers.values())}.isdisjoint(before)
    for gone in sorted(powers, key=lambda name: -powers[name])[:2]:
        alive = {name: power for name, power in powers.items() if name != gone}
        after = assign(alive, identity, powers)
        assert all(was in (gone, now) for was, now in zip(before, after, strict=True))
        assert None not in after


def test_two_of_three_nodes_keep_their_clients_when_one_dies() -> None:
    known = {"n1": 1, "n2": 1, "n3": 1}
    before = assign(known, "c", known)
    after = assign({"n1": 1, "n2": 1}, "c", known)
    assert [before.count(node) for node in known] == [1366, 1365, 1365]
    assert [after.count(node) for node in known] == [2048, 2048, 0]
    assert {was for was, now in zip(before, after, strict=True) if was != now} == {"n3"}


@pytest.mark.parametrize("powers", [{}, {"n1": 0}])
def test_nobody_with_power_leaves_every_bucket_without_owner(powers: dict[str, int]) -> None:
    assert assign(powers, "c") == (None,) * BUCKETS
    assert quotas(powers) == {}


def test_another_cluster_deals_another_table() -> None:
    assert assign({"n1": 1, "n2": 1}, "here") != assign({"n1": 1, "n2": 1}, "there")
    assert hash_seed("here") != hash_seed("there")
    assert 0 < hash_seed("here") < 1 << 32


def test_a_share_is_told_in_percent_and_in_the_references_256ths() -> None:
    assert share(("n1", "n1", "n2", None), "n1").percent == 50.0
    assert share(("n1", "n1", "n2", None), "n1").of_256 == 128.0
    assert share((None,) * 4, "n1").buckets == 0


@few
@given(st.sets(names, min_size=2, max_size=8), identities)
def test_the_elected_node_changes_only_with_its_own_death_or_for_the_new_one(nodes: set[str], identity: str) -> None:
    vip = ip_address("192.0.2.1")
    elected = elect(sorted(nodes), vip, identity)
    for gone in nodes - {elected}:
        assert elect(sorted(nodes - {gone}), vip, identity) == elected
    assert elect(sorted(nodes | {"another node"}), vip, identity) in (elected, "another node")
    assert elect([], vip, identity) is None


# What the kernel's own jhash gives, read back through nftables (`tests/netns` compares many more on live packets).
def test_the_hash_is_the_kernels() -> None:
    assert jenkins_hash(b"", 0) == 0xDEADBEEF
    assert bucket_of(ip_address("10.0.0.1"), 0, HashKey.ON_ADDR, 7) == jenkins_hash(b"\x0a\0\0\1", 7) >> 20
    padded = b"\x0a\0\0\1" + (4660).to_bytes(2, "big") + b"\0\0"
    assert bucket_of(ip_address("10.0.0.1"), 4660, HashKey.ON_PORT, 7) == jenkins_hash(padded, 7) >> 20


@few
@given(st.integers(0, 2**32 - 1), st.integers(1, 65535), st.integers(1, 2**32 - 1))
def test_every_client_has_a_bucket(client: int, port: int, seed: int) -> None:
    for key in (HashKey.ON_ADDR, HashKey.ON_PORT):
        assert 0 <= bucket_of(ip_address(client), port, key, seed) < BUCKETS
        assert 0 <= bucket_of(ip_address("fd00::") + client, port, key, seed) < BUCKETS
