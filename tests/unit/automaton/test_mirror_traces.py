"""The traces of Appendix B and the rows of section 4.2, played by two production automata in fair weather."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from safekit.automaton.data import Holder, resynchronising
from safekit.automaton.mirror import DataPhase, Failover
from safekit.automaton.vocabulary import Action, Command, Held, Readiness, Role
from tests.simulation.network import BEATS, DATA
from tests.simulation.node import Node
from tests.simulation.world import World


class Recorder:
    """Both states after each change, as Appendix B writes them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seen = [world.states()]

    def until(self, reached: Callable[[], bool], within: float = 60) -> None:
        def look() -> bool:
            now = self.world.states()
            if now != self.seen[-1]:
                self.seen.append(now)
            return reached()

        assert self.world.until(look, within), (self.world.states(), self.world.story())


@pytest.fixture
def world() -> World:
    return World(7)


@pytest.fixture
def pair(world: World) -> World:
    world.pair()
    world.run(2)
    for node in world.nodes.values():
        node.order.clear()
    return world


def command(node: Node, action: Action, identity: str = "", fullsync: bool = False) -> None:
    node.command(Command(action, identity, fullsync))


def is_(node: Node, role: Role, readiness: Readiness = Readiness.READY) -> Callable[[], bool]:
    return lambda: node.up and node.state.role is role and node.state.readiness is readiness


def test_first_start_with_prim_and_second(world: World) -> None:
    trace = Recorder(world)
    command(world.n1, Action.PRIM)
    trace.until(is_(world.n1, Role.ALONE))
    command(world.n2, Action.SECOND)
    trace.until(lambda: world.at_rest)
    assert trace.seen == [
        "STOP/STOP",
        "WAIT-t/STOP",
        "ALONE-t/STOP",
        "ALONE-r/STOP",
        "ALONE-r/WAIT-t",
        "ALONE-r/SECOND-t",
        "ALONE-r/SECOND-r",
        "PRIM-r/SECOND-r",
    ]
    assert world.n1.order == [
        "transition", "prestart",
        "record alone", "transition", "vip up", "start_both", "start_prim", "start_sec",
        "record both", "stop_sec", "transition",
    ]  # fmt: skip
    assert world.n2.order == [
        "transition", "prestart",
        "record joining", "transition", "record adopted", "start_both", "start_second", "start_sec",
    ]  # fmt: skip
    assert world.n1.record_on_disk.generation == world.n2.record_on_disk.generation
    assert world.n2.record_on_disk.holder is Holder.BOTH


def test_first_start_with_start_on_both_waits_and_says_what_to_do(world: World) -> None:
    trace = Recorder(world)
    command(world.n1, Action.START)
    command(world.n2, Action.START)
    trace.until(lambda: world.states() == "WAIT-nr/WAIT-nr")
    world.run(30)
    assert world.states() == "WAIT-nr/WAIT-nr"
    for node in world.nodes.values():
        assert node.state.waiting == (
            "rule rfs_notuptodate_server: the data were never synchronised: run `safekit prim` on the node with the valid data",
        )


def test_stop_of_prim_hands_over_before_the_other_starts(pair: World) -> None:
    trace = Recorder(pair)
    command(pair.n1, Action.STOP)
    trace.until(lambda: pair.states() == "STOP/ALONE-r")
    assert trace.seen[:3] == ["PRIM-r/SECOND-r", "PRIM-t/SECOND-r", "WAIT-t/SECOND-r"]
    assert "WAIT-t/ALONE-t" in trace.seen and trace.seen[-1] == "STOP/ALONE-r"
    assert pair.n1.order == [
        "stop_prim", "stop_both", "vip down", "record left", "transition",
        "stop_sec force", "stop_prim force", "stop_second force", "stop_both force", "poststop", "transition",
    ]  # fmt: skip
    assert pair.n2.order == ["stop_second", "record alone", "transition", "vip up", "start_prim"]
    assert pair.n1.record_on_disk.holder is Holder.PEER and pair.n1.record_on_disk.clean


def test_power_off_of_prim(pair: World) -> None:
    trace = Recorder(pair)
    pair.n1.crash()
    trace.until(is_(pair.n2, Role.ALONE))
    assert trace.seen == ["PRIM-r/SECOND-r", "(dark)/SECOND-r", "(dark)/SECOND-t", "(dark)/ALONE-t", "(dark)/ALONE-r"]


def test_rejoin_after_power_off_becomes_second_and_moves_nothing(pair: World) -> None:
    pair.n1.crash()
    pair.until(is_(pair.n2, Role.ALONE), 30)
    pair.n2.order.clear()
    pair.n1.boot(start=True)
    trace = Recorder(pair)
    trace.until(lambda: pair.at_rest)
    assert trace.seen == ["WAIT-t/ALONE-r", "SECOND-t/ALONE-r", "SECOND-r/ALONE-r", "SECOND-r/PRIM-r"]
    assert pair.n2.order == ["record both", "stop_sec", "transition"]


def test_restart_on_prim_keeps_role_address_and_peer(pair: World) -> None:
    trace = Recorder(pair)
    command(pair.n1, Action.RESTART)
    trace.until(is_(pair.n1, Role.PRIM, Readiness.TRANSIENT))
    trace.until(is_(pair.n1, Role.PRIM))
    assert trace.seen == ["PRIM-r/SECOND-r", "PRIM-t/SECOND-r", "PRIM-r/SECOND-r"]
    assert pair.n1.order == ["stop_prim", "stop_prim force", "stop_both", "stop_both force", "start_both", "start_prim"]
    assert pair.n1.vip


def test_restart_on_second(pair: World) -> None:
    command(pair.n2, Action.RESTART)
    pair.until(is_(pair.n2, Role.SECOND, Readiness.TRANSIENT), 5)
    assert pair.until(is_(pair.n2, Role.SECOND), 60)
    twice = [f"{name}{force}" for name in ("stop_sec", "stop_second", "stop_both") for force in ("", " force")]
    assert pair.n2.order == [*twice, "start_both", "start_second", "start_sec"]
    assert pair.at_rest


def test_restart_on_alone(world: World) -> None:
    command(world.n1, Action.PRIM)
    world.until(is_(world.n1, Role.ALONE), 60)
    world.n1.order.clear()
    command(world.n1, Action.RESTART)
    world.until(is_(world.n1, Role.ALONE, Readiness.TRANSIENT), 5)
    assert world.until(is_(world.n1, Role.ALONE), 60)
    twice = [f"{name}{force}" for name in ("stop_sec", "stop_prim", "stop_both") for force in ("", " force")]
    assert world.n1.order == [*twice, "start_both", "start_prim", "start_sec"]


def test_stopstart_on_prim_fails_over_and_comes_back_as_second(pair: World) -> None:
    trace = Recorder(pair)
    command(pair.n1, Action.STOPSTART)
    trace.until(lambda: pair.n1.state.role is Role.SECOND)
    trace.until(lambda: pair.at_rest)
    passed = [
        state
        for state in trace.seen
        if state in ("WAIT-t/ALONE-t", "STOP/ALONE-r", "WAIT-t/ALONE-r", "SECOND-t/ALONE-r")
    ]
    assert passed[0] == "WAIT-t/ALONE-t" and passed[-1] == "SECOND-t/ALONE-r"
    assert trace.seen[-1] == "SECOND-r/PRIM-r"


def test_wait_rule_on_prim_fails_over_and_leaves_the_wait_when_the_resource_is_up(pair: World) -> None:
    trace = Recorder(pair)
    pair.n1.tell(Held(("interface_failure",)))
    trace.until(lambda: pair.states() == "WAIT-nr/ALONE-r")
    assert pair.n1.state.waiting == ("rule interface_failure",)
    pair.n1.tell(Held(()))
    trace.until(lambda: pair.at_rest)
    assert "WAIT-t/SECOND-r" in trace.seen and "WAIT-nr/ALONE-t" in trace.seen
    assert trace.seen[-3:] == ["SECOND-t/ALONE-r", "SECOND-r/ALONE-r", "SECOND-r/PRIM-r"]


def test_wait_rule_on_second_stops_only_the_secondary(pair: World) -> None:
    pair.n2.tell(Held(("interface_failure",)))
    assert pair.until(lambda: pair.states() == "ALONE-r/WAIT-nr", 30)
    assert pair.n2.order[:4] == ["stop_sec", "stop_second", "stop_both", "record left"]
    assert pair.n1.order == ["record alone", "transition", "start_sec"]


@pytest.mark.parametrize("asked", ["n1", "n2"])
def test_swap_exchanges_roles_wherever_it_is_asked(pair: World, asked: str) -> None:
    trace = Recorder(pair)
    pair.writes = False
    pair.run(1)
    command(pair.nodes[asked], Action.SWAP)
    trace.until(lambda: pair.n2.state.role is Role.PRIM and pair.at_rest)
    assert trace.seen[-1] == "SECOND-r/PRIM-r"
    assert pair.n1.order == [
        "stop_prim", "stop_prim force", "vip down", "record left", "transition",
        "record adopted", "start_both", "start_second", "start_sec",
    ]  # fmt: skip
    assert pair.n2.order == [
        "stop_sec", "stop_second", "record alone", "transition", "record both", "vip up", "start_prim",
    ]  # fmt: skip
    assert pair.n1.copy.memory == pair.n2.copy.memory


def test_swap_whose_handover_fails_leaves_the_primary_serving(pair: World) -> None:
    pair.stormy = True
    command(pair.n1, Action.SWAP)
    pair.until(is_(pair.n1, Role.PRIM, Readiness.TRANSIENT), 5)
    pair.network.cuts = {(DATA, "n1"), (DATA, "n2")}
    stream = pair.n1.plane.stream
    assert stream is not None
    stream.watch_cut()
    assert pair.until(is_(pair.n1, Role.ALONE), 60), pair.story()
    assert pair.n1.running and pair.n1.vip
    assert pair.n1.order[-4:] == ["record alone", "vip up", "start_prim", "start_sec"]
    pair.network.cuts.clear()
    assert pair.until(lambda: pair.at_rest, 60)
    assert pair.states() == "PRIM-r/SECOND-r"


def test_swap_whose_former_primary_dies_serves_alone(pair: World) -> None:
    command(pair.n1, Action.SWAP)
    pair.until(lambda: pair.n2.state.role is Role.PRIM, 30)
    pair.n1.crash()
    assert pair.until(is_(pair.n2, Role.ALONE), 60), pair.story()
    assert pair.n2.running and pair.n2.vip
    assert pair.n2.record_on_disk.holder is Holder.ME


def test_split_brain_the_former_primary_stays_and_the_other_yields(pair: World) -> None:
    pair.stormy = True
    cut = {(kind, node) for kind in (BEATS, DATA) for node in ("n1", "n2")}
    pair.network.cuts |= cut
    stream = pair.n1.plane.stream
    assert stream is not None
    stream.watch_cut()
    trace = Recorder(pair)
    trace.until(lambda: pair.states() == "ALONE-r/ALONE-r")
    pair.network.cuts.clear()
    trace.until(lambda: pair.at_rest)
    after = trace.seen[trace.seen.index("ALONE-r/ALONE-r") :]
    assert after == [
        "ALONE-r/ALONE-r",
        "ALONE-r/ALONE-t",
        "ALONE-r/WAIT-t",
        "ALONE-r/SECOND-t",
        "ALONE-r/SECOND-r",
        "PRIM-r/SECOND-r",
    ]
    assert pair.n1.copy.memory == pair.n2.copy.memory


def test_both_lose_power_and_resume_their_roles(pair: World) -> None:
    pair.n2.crash()
    pair.n1.crash()
    pair.run(3)
    pair.n2.boot(start=True)
    pair.run(10)
    assert pair.states() == "(dark)/WAIT-nr"
    assert "does not know whether the other went on" in pair.n2.state.waiting[0]
    pair.n1.boot(start=True)
    assert pair.until(lambda: pair.at_rest, 60)
    assert pair.states() == "PRIM-r/SECOND-r"


def test_secondary_never_starts_on_stale_data(pair: World) -> None:
    command(pair.n2, Action.STOP)
    pair.until(lambda: pair.states() == "ALONE-r/STOP", 60)
    command(pair.n1, Action.STOP)
    pair.until(lambda: pair.states() == "STOP/STOP", 60)
    command(pair.n2, Action.START)
    pair.run(30)
    assert pair.states() == "STOP/WAIT-nr"
    assert "the other node has the latest" in pair.n2.state.waiting[0]
    command(pair.n1, Action.START)
    assert pair.until(lambda: pair.at_rest, 60)
    assert pair.states() == "PRIM-r/SECOND-r"


def test_a_stopped_sole_holder_starts_again_by_itself(pair: World) -> None:
    command(pair.n2, Action.STOP)
    pair.until(lambda: pair.states() == "ALONE-r/STOP", 60)
    command(pair.n1, Action.STOP)
    pair.until(lambda: pair.states() == "STOP/STOP", 60)
    command(pair.n1, Action.START)
    assert pair.until(is_(pair.n1, Role.ALONE), 60)


def test_secondary_interrupted_in_the_resynchronisation_cannot_be_made_primary(world: World) -> None:
    command(world.n1, Action.PRIM)
    world.until(is_(world.n1, Role.ALONE), 60)
    command(world.n2, Action.START)
    world.until(lambda: world.n2.copy.partial, 60)
    world.n2.crash()
    world.n2.boot(start=False)
    from safekit.automaton.mirror import refusal

    assert "inconsistent" in refusal(world.n2.state, Command(Action.PRIM))
    command(world.n1, Action.STOP)
    world.until(lambda: world.n1.state.role is Role.STOP, 60)
    command(world.n2, Action.START)
    world.run(30)
    assert world.n2.state.readiness is Readiness.NOT_READY and "did not end" in world.n2.state.waiting[0]


def test_second_gives_up_when_nobody_serves(world: World) -> None:
    command(world.n2, Action.SECOND)
    world.until(lambda: bool(world.n2.state.plan), 5)
    assert world.until(lambda: world.n2.state.role is Role.STOP and not world.n2.state.plan, 60)
    assert world.n2.state.reason == "second refused: the other node is not primary (UNKNOWN)"


def test_second_gives_up_when_the_other_also_waits_for_a_primary(pair: World) -> None:
    for node in (pair.n2, pair.n1):
        command(node, Action.STOP)
        pair.until(lambda node=node: node.state.role is Role.STOP, 60)  # type: ignore[misc]
    for node in (pair.n1, pair.n2):
        command(node, Action.SECOND)
    pair.run(20)
    assert pair.states() == "STOP/STOP"


def test_prim_gives_up_beside_a_primary(world: World) -> None:
    command(world.n1, Action.PRIM)
    world.until(is_(world.n1, Role.ALONE), 60)
    command(world.n2, Action.PRIM)
    world.until(lambda: bool(world.n2.state.plan), 5)
    assert world.until(lambda: world.n2.state.role is Role.STOP and not world.n2.state.plan, 60)
    assert world.n2.state.reason == "prim refused: the other node is ALONE Ready"


def test_started_with_second_it_is_an_ordinary_module_from_then_on(pair: World) -> None:
    pair.n1.crash()
    pair.until(is_(pair.n2, Role.ALONE), 60)
    command(pair.n2, Action.WAIT, "errd")
    pair.n1.boot(start=True)
    assert pair.until(lambda: pair.at_rest, 120), pair.story()


def test_a_mirror_without_replicated_directories_starts_either_node_alone() -> None:
    world = World(3, replicated=False)
    command(world.n1, Action.START)
    assert world.until(is_(world.n1, Role.ALONE), 60)
    command(world.n2, Action.START)
    assert world.until(lambda: world.at_rest, 60)
    command(world.n1, Action.SWAP)
    assert world.until(lambda: world.n2.state.role is Role.PRIM and world.at_rest, 60), world.story()
    world.n2.crash()
    assert world.until(is_(world.n1, Role.ALONE), 60)
    world.n2.boot(start=True)
    assert world.until(lambda: world.at_rest, 60)


def test_without_replicated_directories_two_that_start_together_agree() -> None:
    world = World(3, replicated=False)
    command(world.n1, Action.START)
    command(world.n2, Action.START)
    assert world.until(lambda: world.at_rest, 60), world.story()
    assert world.n1.state.role is Role.PRIM


def test_both_histories_are_kept_until_an_administrator_says_which_one_yields(pair: World) -> None:
    command(pair.n1, Action.STOP)
    pair.until(lambda: pair.states() == "STOP/ALONE-r", 60)
    command(pair.n2, Action.STOP)
    pair.until(lambda: pair.states() == "STOP/STOP", 60)
    pair.forced = True
    command(pair.n1, Action.PRIM)
    pair.until(is_(pair.n1, Role.ALONE), 60)
    command(pair.n2, Action.START)
    pair.run(20)
    assert pair.states() == "ALONE-r/WAIT-nr"
    assert "run `safekit second fullsync` on the node to overwrite" in pair.n2.state.waiting[0]
    command(pair.n2, Action.STOP)
    pair.until(lambda: pair.n2.state.role is Role.STOP, 60)
    command(pair.n2, Action.SECOND, fullsync=True)
    assert pair.until(lambda: pair.at_rest, 60)
    assert pair.states() == "PRIM-r/SECOND-r"


def test_data_plane_killed_on_the_primary_moves_the_module(pair: World) -> None:
    pair.n1.kill_plane()
    assert pair.until(lambda: pair.states() == "SECOND-r/PRIM-r" and pair.at_rest, 120), pair.story()


def test_data_plane_killed_on_the_secondary_is_resynchronised(pair: World) -> None:
    pair.n2.kill_plane()
    assert pair.until(lambda: pair.n1.state.role is Role.ALONE, 30)
    assert pair.until(lambda: pair.states() == "PRIM-r/SECOND-r" and pair.at_rest, 120)
    assert pair.n1.running


def test_broken_stream_with_good_heartbeats_is_answered_and_the_writes_go_on(pair: World) -> None:
    stream = pair.n1.plane.stream
    assert stream is not None
    pair.stormy = True
    pair.n2.plane.lost(stream, "the secondary notices first")
    pair.run(1)
    assert pair.n1.plane.phase == "alone" and not pair.n1.plane.pending
    assert pair.until(lambda: pair.at_rest, 60)
    assert pair.n1.state.data is DataPhase.MIRROR


def configure(world: World, **configuration: object) -> None:
    """Both nodes are configured so, as if from their first start on."""
    for node in world.nodes.values():
        node.configuration = configuration
        node.state = replace(node.state, **configuration)  # type: ignore[arg-type]


def test_without_failover_the_secondary_of_a_stopped_primary_waits_and_the_same_primary_comes_back(pair: World) -> None:
    configure(pair, failover=False)
    command(pair.n1, Action.STOP)
    assert pair.until(lambda: pair.states() == "STOP/WAIT-nr", 60)
    pair.run(30)
    assert pair.states() == "STOP/WAIT-nr"
    assert pair.n2.state.waiting[0].startswith("rule failover_off: failover is off: start the other node, or")
    assert "Action stopstart called by failover-off: remote stop" in pair.story()
    assert "start_prim" not in pair.n2.order
    command(pair.n1, Action.START)
    assert pair.until(lambda: pair.at_rest, 60)
    assert pair.states() == "PRIM-r/SECOND-r"


def test_without_failover_the_former_secondary_serves_when_it_is_told_to(pair: World) -> None:
    configure(pair, failover=False)
    command(pair.n1, Action.STOP)
    assert pair.until(lambda: pair.states() == "STOP/WAIT-nr", 60)
    command(pair.n2, Action.STOP)
    assert pair.until(lambda: pair.states() == "STOP/STOP", 60)
    command(pair.n2, Action.PRIM)
    assert pair.until(is_(pair.n2, Role.ALONE), 60)
    command(pair.n1, Action.START)
    assert pair.until(lambda: pair.at_rest, 60)
    assert pair.states() == "SECOND-r/PRIM-r"


def test_without_failover_a_lost_primary_is_not_replaced_and_stopstart_does_not_move_the_service(pair: World) -> None:
    configure(pair, failover=False)
    command(pair.n1, Action.STOPSTART, "t_web")
    assert pair.until(lambda: pair.n1.state.role is Role.STOP, 60)
    assert pair.until(lambda: pair.at_rest, 60)
    assert pair.states() == "PRIM-r/SECOND-r"
    pair.n1.crash()
    assert pair.until(lambda: pair.states() == "(dark)/WAIT-nr", 60)
    pair.run(30)
    assert pair.states() == "(dark)/WAIT-nr"


def test_without_failover_who_lost_its_memory_never_serves_less_than_the_secondary_has(pair: World) -> None:
    configure(pair, failover=False)
    pair.n1.crash()
    assert pair.until(lambda: pair.states() == "(dark)/WAIT-nr", 60)
    pair.n1.boot(start=True)
    pair.run(30)
    assert pair.n2.state.waiting[0].startswith("rule failover_off: this node has more of the data")
    command(pair.n2, Action.STOP)
    assert pair.until(lambda: pair.n2.state.role is Role.STOP, 60)
    command(pair.n2, Action.PRIM)
    assert pair.until(lambda: pair.at_rest, 60)
    assert pair.states() == "SECOND-r/PRIM-r"


def test_failover_can_be_turned_on_while_the_secondary_waits(pair: World) -> None:
    configure(pair, failover=False)
    pair.n1.crash()
    assert pair.until(lambda: pair.states() == "(dark)/WAIT-nr", 60)
    pair.n2.tell(Failover(True))
    assert pair.n2.state.waiting[0].startswith("rule rfs_notuptodate_server")


def test_without_failover_and_without_data_the_former_primary_goes_first() -> None:
    pair = World(7, replicated=False)
    pair.pair()
    configure(pair, failover=False)
    command(pair.n1, Action.SWAP)
    assert pair.until(lambda: pair.states() == "SECOND-r/PRIM-r", 60)
    for node in (pair.n2, pair.n1):
        command(node, Action.STOP)
    assert pair.until(lambda: pair.states() == "STOP/STOP", 60)
    command(pair.n1, Action.START)
    pair.run(30)
    assert pair.states() == "WAIT-nr/STOP"
    command(pair.n2, Action.START)
    assert pair.until(lambda: pair.at_rest, 60)
    assert pair.states() == "SECOND-r/PRIM-r"


@pytest.mark.parametrize("preferred", ["n1", "lastprim"])
def test_a_preferred_primary_that_comes_back_serves_again_once_it_is_synchronised(pair: World, preferred: str) -> None:
    configure(pair, defaultprim=preferred)
    pair.n1.crash()
    assert pair.until(is_(pair.n2, Role.ALONE), 60)
    pair.n1.boot(start=True)
    assert pair.until(lambda: pair.states() == "PRIM-r/SECOND-r", 120)
    pair.run(30)
    assert pair.states() == "PRIM-r/SECOND-r"


@pytest.mark.parametrize("preferred", ["n1", "lastprim"])
def test_a_swap_by_hand_holds_though_the_other_node_is_preferred(pair: World, preferred: str) -> None:
    configure(pair, defaultprim=preferred)
    command(pair.n1, Action.SWAP)
    assert pair.until(lambda: pair.states() == "SECOND-r/PRIM-r", 60)
    pair.run(30)
    assert pair.states() == "SECOND-r/PRIM-r"


def test_who_was_secondary_before_its_stop_stays_secondary_under_lastprim(pair: World) -> None:
    configure(pair, defaultprim="lastprim")
    command(pair.n2, Action.STOP)
    assert pair.until(lambda: pair.states() == "ALONE-r/STOP", 60)
    command(pair.n2, Action.START)
    assert pair.until(lambda: pair.at_rest, 60)
    pair.run(30)
    assert pair.states() == "PRIM-r/SECOND-r"


def test_an_unfinished_copy_serves_only_when_it_is_forced_and_the_next_secondary_copies_everything(pair: World) -> None:
    pair.n1.crash()
    assert pair.until(is_(pair.n2, Role.ALONE), 60)
    command(pair.n2, Action.STOP)
    assert pair.until(lambda: pair.n2.state.role is Role.STOP, 60)
    pair.n2.record_on_disk = resynchronising(pair.n2.record_on_disk)
    pair.n2.state = replace(pair.n2.state, record=pair.n2.record_on_disk)
    command(pair.n2, Action.PRIM)
    pair.run(5)
    assert pair.n2.state.role is Role.STOP
    pair.n2.command(Command(Action.PRIM, fullsync=True, force=True))
    assert pair.until(is_(pair.n2, Role.ALONE), 60)
    assert pair.n2.state.fullsync and not pair.n2.state.forced and pair.n2.record_on_disk.uptodate
