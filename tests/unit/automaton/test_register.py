"""The register on a witness: of all claims on one epoch, one at most is granted."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from safekit.automaton.register import Claim, Ground, Register, decide

A, B = frozenset("A"), frozenset("B")
BOTH = A | B
MIRROR = Register(4, BOTH, "A", "life of A", 1)
CLAIM = Claim("shop", "db", 4, BOTH, A, "A", "life of A", 2)
RIVAL = replace(CLAIM, wanted=B, node="B", boot="life of B", number=7)


def test_of_two_nodes_that_want_to_go_alone_one_wins() -> None:
    after, first = decide(MIRROR, CLAIM, BOTH)
    assert (first.granted, first.epoch, first.holders) == (True, 5, A)
    same, second = decide(after, RIVAL, BOTH)
    assert same == after
    assert (second.granted, second.epoch, second.holders) == (False, 5, A)
    assert second.why == "in epoch 5 A may serve"


def test_a_sole_holder_that_asks_again_after_its_reboot_gets_a_new_epoch() -> None:
    alone = Register(5, A, "A", "life of A", 2)
    _, verdict = decide(alone, replace(CLAIM, epoch=5, holders=A, boot="next life", number=1), BOTH)
    assert (verdict.granted, verdict.epoch) == (True, 6)


def test_a_repeated_claim_is_answered_the_same_and_changes_nothing() -> None:
    after, first = decide(MIRROR, CLAIM, BOTH)
    again, second = decide(after, CLAIM, BOTH)
    assert second == first
    assert again == after


def test_a_repeated_claim_that_another_grant_has_followed_hears_what_is_true_now() -> None:
    published, _ = decide(Register(4, A, "A", "life of A", 1), replace(CLAIM, holders=A, wanted=BOTH), BOTH)
    assert published is not None
    after, _ = decide(published, replace(RIVAL, epoch=5), BOTH)
    _, late = decide(after, replace(CLAIM, holders=A, wanted=BOTH), BOTH)
    assert (late.granted, late.epoch, late.holders) == (False, 6, B)


def test_a_number_that_was_granted_for_something_else_is_refused() -> None:
    after, _ = decide(MIRROR, CLAIM, BOTH)
    same, verdict = decide(after, replace(CLAIM, wanted=BOTH), BOTH)
    assert (same, verdict.granted) == (after, False)
    assert verdict.why == "number 2 was granted for A"


def test_a_holder_that_is_refused_for_its_epoch_learns_that_it_is_still_a_holder() -> None:
    _, verdict = decide(MIRROR, replace(CLAIM, epoch=3), BOTH)
    assert not verdict.granted
    assert "A" in verdict.holders
    _, again = decide(MIRROR, replace(CLAIM, epoch=verdict.epoch, holders=verdict.holders, number=3), BOTH)
    assert again.granted


def test_who_names_other_holders_of_the_epoch_is_refused() -> None:
    _, verdict = decide(MIRROR, replace(CLAIM, holders=A), BOTH)
    assert verdict.why == "in epoch 4 A, B may serve, the claim says A"


def test_nobody_but_a_holder_is_granted() -> None:
    alone = Register(4, B, "B", "life of B", 1)
    for claim in (replace(CLAIM, holders=B), replace(CLAIM, holders=B, ground=Ground.TOGETHER)):
        same, verdict = decide(alone, claim, BOTH)
        assert (same, verdict.granted) == (alone, False)


def test_what_one_node_remembers_makes_no_register() -> None:
    """The witness lost its disk: whoever comes first might be the node that is out of date."""
    for claim in (CLAIM, replace(CLAIM, holders=A), replace(CLAIM, wanted=BOTH)):
        register, verdict = decide(None, claim, BOTH)
        assert register is None
        assert (verdict.granted, verdict.epoch, verdict.holders) == (False, 0, frozenset())


def test_all_nodes_together_make_a_register_above_every_epoch_that_they_know() -> None:
    register, verdict = decide(None, replace(CLAIM, wanted=BOTH, ground=Ground.TOGETHER), BOTH)
    assert register is not None and verdict.granted
    assert (register.epoch, register.holders) == (5, BOTH)


def test_a_register_that_is_older_than_what_a_holder_remembers_is_renewed_by_all_nodes_only() -> None:
    old = Register(2, BOTH, "B", "life of B", 1)
    same, refused = decide(old, CLAIM, BOTH)
    assert same == old
    assert refused.why == "the register is in epoch 2, older than 4: the witness lost what it knew"
    _, granted = decide(old, replace(CLAIM, ground=Ground.TOGETHER), BOTH)
    assert (granted.granted, granted.epoch) == (True, 5)


def test_all_nodes_together_do_not_go_over_a_register_that_is_newer() -> None:
    newer = Register(9, B, "B", "life of B", 1)
    same, verdict = decide(newer, replace(CLAIM, ground=Ground.TOGETHER), BOTH)
    assert (same, verdict.granted) == (newer, False)


def test_an_order_of_the_administrator_goes_over_the_register() -> None:
    newer = Register(9, B, "B", "life of B", 1)
    register, verdict = decide(newer, replace(CLAIM, ground=Ground.ORDER), BOTH)
    assert register is not None and verdict.granted
    assert (register.epoch, register.holders) == (10, A)
    made, _ = decide(None, replace(CLAIM, epoch=0, holders=frozenset(), ground=Ground.ORDER), BOTH)
    assert made is not None and made.epoch == 1


def test_unknown_nodes_are_refused_wherever_they_stand() -> None:
    stranger = frozenset("X")
    for claim in (
        replace(CLAIM, node="X", wanted=stranger),
        replace(CLAIM, wanted=A | stranger),
        replace(CLAIM, holders=BOTH | stranger),
    ):
        same, verdict = decide(MIRROR, replace(claim, ground=Ground.ORDER), BOTH)
        assert (same, verdict.why) == (MIRROR, "the cluster has no node X")


def test_nobody_gives_the_right_to_another_or_to_nobody() -> None:
    for wanted in (B, frozenset[str]()):
        for ground in Ground:
            same, verdict = decide(MIRROR, replace(CLAIM, wanted=wanted, ground=ground), BOTH)
            assert (same, verdict.granted) == (MIRROR, False)


def test_an_epoch_below_zero_is_refused() -> None:
    _, verdict = decide(None, replace(CLAIM, epoch=-1, ground=Ground.ORDER), BOTH)
    assert verdict.why == "epoch -1, expected 0 or more"


some_nodes = st.frozensets(st.sampled_from("ABX"), max_size=3)
claims = st.builds(
    Claim,
    st.just("shop"),
    st.just("db"),
    st.integers(-1, 6),
    some_nodes,
    some_nodes,
    st.sampled_from("ABX"),
    st.sampled_from(["boot 1", "boot 2"]),
    st.integers(1, 4),
    st.sampled_from(Ground),
)


@given(st.lists(claims, max_size=30))
def test_epochs_only_grow_and_each_is_granted_once(asked: list[Claim]) -> None:
    register: Register | None = None
    granted: dict[int, tuple[str, str, int]] = {}
    for claim in asked:
        before = register
        register, verdict = decide(register, claim, BOTH)
        assert (verdict.node, verdict.boot, verdict.number) == (claim.node, claim.boot, claim.number)
        assert (verdict.why == "") == verdict.granted
        if register is not None:
            assert (verdict.epoch, verdict.holders) == (register.epoch, register.holders)
        if register != before:
            assert register is not None and verdict.granted
            assert register.epoch > max(claim.epoch, before.epoch if before else 0)
            assert claim.node in register.holders <= BOTH
            if before is not None and claim.ground is Ground.HOLDER:
                assert claim.node in before.holders
        if verdict.granted:
            assert granted.setdefault(verdict.epoch, (claim.node, claim.boot, claim.number)) == (
                claim.node,
                claim.boot,
                claim.number,
            )
