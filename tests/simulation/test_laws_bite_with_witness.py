"""Policy `witness`: each rule of `docs/architecture.md`, "Who may serve", that is dropped breaks a law in some world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from safekit import lease
from safekit.automaton.data import DataRecord, Holder
from safekit.automaton.mirror import Answered, MirrorState, Named, PeerView, Policy, claims, step
from safekit.automaton.register import Claim, Ground, Register, Verdict
from safekit.automaton.vocabulary import Ask, Readiness, Role, Wish
from safekit.lease import Leases
from tests.simulation import guard
from tests.simulation.dropped import Dropped, Patch, each, first_world_that_breaks
from tests.simulation.guard import Guard
from tests.simulation.laws import Broken
from tests.simulation.network import BEATS, DATA, WITNESS
from tests.simulation.node import Node
from tests.simulation.witness import Witness
from tests.simulation.world import World


def acknowledged_before_the_register(patch: Patch) -> None:
    """Rule 2: a primary that lost its secondary goes on without asking."""
    asked = claims.may_serve_alone
    patch.setattr(claims, "may_serve_alone", lambda state: state.role is not Role.SECOND or asked(state))


def promoted_without_the_register(patch: Patch) -> None:
    """Rule 3: a secondary takes over on silence."""
    asked = claims.may_serve_alone
    patch.setattr(claims, "may_serve_alone", lambda state: state.role is Role.SECOND or asked(state))


def not_synced_before_asking(patch: Patch) -> None:
    """Rule 6: who asks has in memory what it acknowledged."""

    def ask(node: Node, asked: Ask) -> None:
        if node.state.asked == asked:
            node.claimant.ask(asked)

    patch.setattr(Node, "_ask", ask)


def published_before_the_register(patch: Patch) -> None:
    """Rule 7: the secondary is Ready before the register names it."""
    patch.setattr(claims, "granted_pair", lambda _state: True)


def unclean_counts_as_holder(patch: Patch) -> None:
    """Rule 8: a node that lost its memory asks as if it had not."""
    patch.setattr(claims, "names_me", lambda state: state.record.consistent and state.record.holder is Holder.BOTH)


def consent_to_what_was_lost(patch: Patch) -> None:
    """Rule 8: the peer's consent counts for a copy that lost its memory since."""
    patch.setattr(claims, "consented_anew", claims.consented)


def silence_counts_as_consent(patch: Patch) -> None:
    """Rule 10: without a witness the primary goes on alone."""
    before = claims.consented
    patch.setattr(claims, "consented", lambda state: before(state) or bool(state.silent))


def answered_before_it_is_durable(patch: Patch) -> None:
    """The register: a grant is answered, and forgotten with the power of the witness."""

    def crash(third: Witness) -> None:
        if third.up:
            third.up, third.disk = False, first.get(third)

    first: dict[Witness, Register | None] = {}
    before = Witness.hear

    def hear(third: Witness, claim: Claim, answer: Callable[[Verdict | None], None]) -> None:
        first[third] = third.disk
        before(third, claim, answer)

    patch.setattr(Witness, "hear", hear)
    patch.setattr(Witness, "crash", crash)


def without_a_lease(patch: Patch) -> None:
    """A primary that hears nobody runs its application until it hears somebody."""
    patch.setattr(guard, "leased", lambda _state: False)


def nothing_held_back(patch: Patch) -> None:
    """The witness names the other node at once, whatever it renewed."""
    patch.setattr(Leases, "hold_back", lambda *_: 0.0)


def gives_up_too_late(patch: Patch) -> None:
    """A lease is longer than what the other node and the witness wait for."""
    patch.setattr(lease, "GIVES_UP", 2.0)


def stands_still(seed: int) -> None:
    """The primary's machine stands still until the other node serves, and then goes on."""
    world = World(seed, policy=Policy.WITNESS)
    world.pair()
    world.run(world.clock.between(0, 5))
    world.stormy = True
    world.n1.pause()
    assert world.until(lambda: world.n2.running, 60), world.story()
    world.run(world.clock.between(0, 5))
    world.n1.wake()
    world.run(30)
    assert world.until(lambda: world.at_rest, 120), world.story()


def hears_late(seed: int) -> None:
    """The beats of the primary reach the other node no more; answers that were long under way reach the primary."""
    world = World(seed, policy=Policy.WITNESS)
    world.pair()
    world.stormy, world.scripts_s = True, (0.02, 0.1)
    world.network.cuts |= {(WITNESS, "n1"), (DATA, "n1"), (DATA, "n2")}
    world.network.delay_s = 2.0
    world.run(world.clock.between(0, 2))
    world.network.cuts |= {(BEATS, "n1"), (BEATS, "n2")}
    world.network.delay_s = 0.01
    world.run(20)


def named_alone_and_dark(seed: int) -> None:
    """A primary loses its power in the moment in which the witness names it alone, and comes back without its peer."""
    world = World(seed, policy=Policy.WITNESS)
    world.pair()
    world.run(15)
    world.network.cuts |= {(kind, node) for kind in (BEATS, DATA) for node in world.nodes}
    stream = world.n1.plane.stream
    assert stream is not None
    stream.watch_cut()
    register = world.witness
    world.until(lambda: register.disk is not None and len(register.disk.holders) == 1, 60)
    assert register.disk is not None
    node = world.nodes[min(register.disk.holders)]
    node.crash()
    world.run(1)
    node.boot(start=True)
    assert world.until(lambda: node.state.role is Role.ALONE, 60)
    world.run(5)


def test_who_was_named_alone_has_every_acknowledged_write_whatever_its_memory_lost() -> None:
    for seed in range(20):
        named_alone_and_dark(seed)


def test_who_asks_before_it_has_synced_loses_acknowledged_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    not_synced_before_asking(monkeypatch)
    with pytest.raises(Broken, match="acknowledged write"):
        for seed in range(20):
            named_alone_and_dark(seed)


def test_what_a_joining_secondary_says_is_no_consent() -> None:
    """It may have been told since that it holds everything; what a node in WAIT says of the same generation is one."""
    mine = DataRecord(3, "3.n1.x", (), Holder.BOTH, Role.PRIM, clean=False, granted=2)
    theirs = replace(mine, holder=Holder.PEER, role=Role.SECOND)
    peer = PeerView(alive=True, role=Role.SECOND, readiness=Readiness.TRANSIENT, record=theirs)
    state = MirrorState("n1", "n2", "x", True, Role.PRIM, record=mine, policy=Policy.WITNESS, peer=peer)
    assert not claims.consented(state)
    assert claims.consented(replace(state, peer=replace(peer, role=Role.WAIT)))
    assert claims.consented(replace(state, peer=replace(peer, role=Role.WAIT, alive=False)))
    assert not claims.consented(
        replace(state, record=replace(mine, generation="4.n1.x"), peer=replace(peer, role=Role.WAIT))
    )


def test_who_is_refused_while_the_register_names_it_is_not_out_of_date() -> None:
    """An answer of its own was lost: it asks again, on what the register says."""
    mine = DataRecord(3, "3.n1.x", (), Holder.BOTH, Role.PRIM, clean=False, granted=2)
    state = MirrorState("n1", "n2", "x", True, Role.PRIM, record=mine, policy=Policy.WITNESS, number=1)
    state, _ = claims.ask(state, claims.me(state))
    state, _ = step(state, Answered(2, False, 3, ("n1",)))
    assert not claims.names_other(state)
    again, asked = claims.ask(state, claims.me(state))
    assert asked == (Ask(3, 3, ("n1",), ("n1",)),)
    again, _ = step(again, Answered(2, True, 4, ("n1",)))
    assert not claims.granted_alone(again), "the answer to an earlier claim counts"
    again, _ = step(again, Answered(3, True, 4, ("n1",)))
    assert claims.granted_alone(again)


def test_a_record_of_both_tells_that_the_register_went_on_since_it_was_heard() -> None:
    """The primary lost its power after the register named both and before it said so: its record is all that tells."""
    mine = DataRecord(4, "4.n2.x", (), Holder.PEER, Role.SECOND, granted=5)
    theirs = replace(mine, holder=Holder.BOTH, role=Role.PRIM, clean=False, granted=7)
    stale = Named(6, ("n2",))
    state = MirrorState("n1", "n2", "x", True, Role.WAIT, record=mine, policy=Policy.WITNESS, register=stale)
    peer = PeerView(alive=True, role=Role.WAIT, wish=Wish.AUTO, record=theirs, register=stale)
    heard, effects = step(replace(state, wish=Wish.AUTO), peer)
    assert heard.register == Named(7, ("n1", "n2"))
    assert Ask(1, 7, ("n1", "n2"), ("n1",), Ground.TOGETHER) in effects
    gone = replace(peer, record=replace(theirs, holder=Holder.ME))
    heard, effects = step(replace(state, wish=Wish.AUTO), gone)
    assert heard.register == stale, "`me` may stand on a consent: it says nothing about the register"


def test_a_primary_that_stood_still_never_serves_beside_the_other() -> None:
    for seed in range(20):
        stands_still(seed)


def test_who_does_not_look_at_its_lease_when_it_goes_on_serves_beside_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Guard, "woke", lambda _: None)
    with pytest.raises(Broken, match="two nodes serve"):
        for seed in range(20):
            stands_still(seed)


def test_an_answer_that_was_long_under_way_renews_no_more_than_when_it_was_asked() -> None:
    for seed in range(20):
        hears_late(seed)


def test_a_lease_that_counts_from_the_answer_lets_two_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def renewed(keeper: Guard, _sent_at: float) -> None:
        keeper.lease = keeper.lease.renewed(keeper.node.clock.now)

    monkeypatch.setattr(Guard, "renewed", renewed)
    with pytest.raises(Broken, match="two nodes serve"):
        for seed in range(60):
            hears_late(seed)


TWO = ("two nodes may answer writes", "acknowledged write")
RULES = (
    Dropped(acknowledged_before_the_register, TWO, Policy.WITNESS),
    Dropped(promoted_without_the_register, TWO, Policy.WITNESS),
    Dropped(published_before_the_register, ("the register does not name",), Policy.WITNESS),
    Dropped(
        unclean_counts_as_holder, ("by itself", "acknowledged write", "two primaries", "two nodes"), Policy.WITNESS
    ),
    Dropped(
        consent_to_what_was_lost, ("by itself", "acknowledged write", "two primaries", "two nodes"), Policy.WITNESS
    ),
    Dropped(silence_counts_as_consent, ("by itself", *TWO), Policy.WITNESS),
    Dropped(without_a_lease, ("two nodes serve",), Policy.WITNESS),
    Dropped(nothing_held_back, ("two nodes serve",), Policy.WITNESS),
    Dropped(gives_up_too_late, ("two nodes serve",), Policy.WITNESS),
    Dropped(answered_before_it_is_durable, ("the pair is", *TWO, "goes back"), Policy.WITNESS),
)


@pytest.mark.timeout(600)
@each(RULES)
def test_a_dropped_rule_breaks_a_law(dropped: Dropped) -> None:
    caught = first_world_that_breaks(dropped)
    assert caught.is_due_to(dropped), caught
