"""The mirror automaton event by event: refusals, failures, what is noted beside a plan, what is asked again after a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safekit.automaton import data
from safekit.automaton.data import BLANK, DataRecord, Holder
from safekit.automaton.mirror import (
    PLANS,
    DataPhase,
    DataSaid,
    Degraded,
    Event,
    MirrorState,
    PeerView,
    Recorded,
    ResyncBegan,
    Trusted,
    record_for,
    refusal,
    spoken,
    step,
)
from safekit.automaton.vocabulary import (
    Action,
    Become,
    Checkers,
    Command,
    Connect,
    DataAlone,
    DataHandover,
    DataPrimary,
    DataStop,
    Held,
    Pair,
    Perform,
    Publish,
    Readiness,
    Record,
    RecordKind,
    Resumed,
    Role,
    Say,
    Script,
    StepDone,
    StepFailed,
    Vip,
    Wish,
)

R, T, NR = Readiness.READY, Readiness.TRANSIENT, Readiness.NOT_READY
ME = data.alone(BLANK, "n1", "a", 0, Role.PRIM)
BOTH = data.both(ME, Role.PRIM)
SECOND_VIEW = PeerView(True, 5, Role.SECOND, R, Wish.AUTO, replace(BOTH, role=Role.SECOND))
PRIM_VIEW = PeerView(True, 5, Role.PRIM, R, Wish.AUTO, BOTH)

STOPPED = MirrorState("n1", "n2", "a", True, record=BOTH)
PRIM = MirrorState(
    "n1", "n2", "a", True, Role.PRIM, R, wish=Wish.AUTO, peer=SECOND_VIEW, data=DataPhase.MIRROR, record=BOTH
)
SECOND = replace(PRIM, role=Role.SECOND, peer=PRIM_VIEW, data=DataPhase.INSTEP, record=replace(BOTH, role=Role.SECOND))
ALONE = replace(PRIM, role=Role.ALONE, peer=PeerView(alive=False), data=DataPhase.ALONE, record=ME)
WAIT = MirrorState("n1", "n2", "a", True, Role.WAIT, T, wish=Wish.AUTO, record=BOTH)


def performs(state: MirrorState, event: Event) -> tuple[MirrorState, list[Perform], list[str]]:
    state, effects = step(state, event)
    return state, [e for e in effects if isinstance(e, Perform)], [e.message for e in effects if isinstance(e, Say)]


def in_plan(state: MirrorState, row: str, head: object) -> MirrorState:
    """`state` in the middle of a row, at this step."""
    plan = PLANS[row]
    return replace(state, plan=plan[plan.index(head) :], row=row)


@pytest.mark.parametrize(
    ("state", "action", "sentence"),
    [
        (STOPPED, Action.START, ""),
        (STOPPED, Action.STOP, ""),
        (STOPPED, Action.PRIM, ""),
        (
            replace(STOPPED, record=data.resynchronising(BOTH)),
            Action.PRIM,
            "`prim` is refused: the data are inconsistent",
        ),
        (STOPPED, Action.SWAP, "`swap` needs PRIM and SECOND, and this node is in STOP NotReady"),
        (STOPPED, Action.RESTART, "`restart` needs ALONE, PRIM or SECOND (Ready), and the module is in STOP NotReady"),
        (STOPPED, Action.STOPSTART, "`stopstart` needs a started module, and it is in STOP"),
        (STOPPED, Action.WAIT, "`wait` needs a started module, and it is in STOP"),
        (PRIM, Action.PRIM, ""),
        (PRIM, Action.START, ""),
        (PRIM, Action.SWAP, ""),
        (PRIM, Action.SECOND, "`second` needs the module in STOP, and it is in PRIM Ready"),
        (SECOND, Action.PRIM, "`prim` needs the module in STOP, and it is in SECOND Ready"),
        (SECOND, Action.SECOND, ""),
        (
            replace(PRIM, readiness=T),
            Action.SWAP,
            "`swap` needs both nodes Ready: this one is PRIM Transient, the other SECOND Ready",
        ),
        (replace(PRIM, peer=PeerView(alive=False)), Action.SWAP, "the other UNKNOWN"),
        (replace(PRIM, readiness=T), Action.RESTART, "the module is in PRIM Transient"),
    ],
)
def test_refusals_say_what_is_needed(state: MirrorState, action: Action, sentence: str) -> None:
    answer = refusal(state, Command(action))
    assert sentence in answer
    assert bool(answer) == bool(sentence)


def test_refused_command_changes_nothing_and_is_logged() -> None:
    state, effects = step(STOPPED, Command(Action.SWAP, "rule x"))
    assert state == STOPPED
    assert effects == (Say("C", "Action swap called by rule x refused: " + refusal(STOPPED, Command(Action.SWAP))),)


def test_start_of_a_started_module_only_says_so() -> None:
    state, asked, said = performs(PRIM, Command(Action.START))
    assert (state.role, state.plan, asked) == (Role.PRIM, (), [])
    assert said == ["Action start called by administrator"]


def test_start_never_copies_everything_only_prim_and_second_do() -> None:
    assert not step(STOPPED, Command(Action.START, fullsync=True))[0].fullsync
    assert step(STOPPED, Command(Action.SECOND, fullsync=True))[0].fullsync
    assert step(STOPPED, Command(Action.PRIM, fullsync=True))[0].fullsync


def test_prim_fullsync_makes_the_next_secondary_copy_everything_once() -> None:
    listening = replace(SECOND_VIEW, readiness=T, listening=True)
    _, effects = step(replace(ALONE, fullsync=True), listening)
    assert Connect(BOTH.generation, clean=False) in effects
    state = replace(ALONE, fullsync=True, data=DataPhase.MIRROR, peer=listening, plan=(Publish(),), row="publish")
    state, _ = step(state, StepDone(0))
    assert not state.fullsync


def test_an_answer_to_a_step_that_is_no_longer_asked_is_ignored() -> None:
    for late in (StepDone(99), StepFailed(99, "late")):
        assert step(PRIM, late) == (PRIM, ())
        running = in_plan(PRIM, "leave_prim", Script("stop_prim"))
        assert step(running, late) == (running, ())


def test_a_lost_or_repeated_message_changes_nothing() -> None:
    for state in (PRIM, SECOND, ALONE):
        assert step(state, state.peer) == (state, ())
        assert step(state, Held(())) == (state, ())


def test_daemon_restart_asks_for_the_running_steps_again_and_nothing_else() -> None:
    running = replace(
        in_plan(PRIM, "leave_prim", Script("stop_prim")),
        urgent=(DataAlone(),), serial=12, urgent_serial=-4, action="stop",
    )  # fmt: skip
    state, effects = step(running, Resumed())
    assert state == running
    assert effects == (
        Perform(DataAlone(), -4, Role.PRIM, Role.PRIM, "stop"),
        Perform(Script("stop_prim"), 12, Role.PRIM, Role.WAIT, "stop"),
    )


def test_daemon_restart_without_a_plan_decides_on_what_it_finds() -> None:
    assert step(PRIM, Resumed()) == (PRIM, ())
    state, _ = step(replace(PRIM, peer=PeerView(alive=False)), Resumed())
    assert state.row == "lost"


# --- failures --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "row", "head"),
    [
        (ALONE, "alone", Vip(True)),
        (ALONE, "alone", DataPrimary()),
        (WAIT, "alone", Record(RecordKind.ALONE)),
        (PRIM, "lost", Record(RecordKind.ALONE)),
        (PRIM, "lost", DataAlone()),
    ],
)
def test_a_step_without_which_nobody_may_serve_stops_the_module_in_order(
    state: MirrorState, row: str, head: object
) -> None:
    state, asked, said = performs(in_plan(state, row, head), StepFailed(0, "no space left"))
    assert state.wish is Wish.STOPPED and not state.rebound
    assert state.row in ("leave_alone", "leave_prim", "stop")
    assert any("failed, the module stops: no space left" in line for line in said)
    assert len(asked) == 1


def test_a_script_that_fails_is_said_and_the_plan_goes_on() -> None:
    _state, asked, said = performs(in_plan(ALONE, "alone", Script("start_prim")), StepFailed(0, "exit code 1"))
    assert said == ["Script start_prim failed: exit code 1"]
    assert asked[0].step == Script("start_sec")


def test_a_secondary_that_dies_while_it_is_told_never_stops_the_primary() -> None:
    state = in_plan(replace(ALONE, data=DataPhase.MIRROR, record=BOTH, peer=SECOND_VIEW), "publish", Publish())
    state, _, said = performs(state, StepFailed(0, "connection reset"))
    assert state.wish is Wish.AUTO
    assert said[0] == "Publish failed: connection reset"


def test_a_record_that_cannot_be_written_at_the_end_does_not_keep_a_module_from_stopping() -> None:
    state = replace(in_plan(ALONE, "leave_alone", Record(RecordKind.LEFT)), wish=Wish.STOPPED)
    state, asked, said = performs(state, StepFailed(0, "no space left"))
    assert state.role is Role.WAIT and asked[0].step == Script("transition")
    assert said[0] == "Record failed: no space left"


def test_orderly_stop_without_the_secondarys_confirmation_stops_the_data_plane_and_claims_no_less() -> None:
    state, asked, said = performs(in_plan(PRIM, "leave_prim", DataHandover()), StepFailed(0, "timed out"))
    assert asked[0].step == DataStop()
    assert said == ["The secondary did not confirm the last data: timed out"]
    state, asked, _ = performs(state, StepDone(asked[0].serial))
    assert record_for(state, RecordKind.LEFT) == replace(BOTH, clean=False)


def test_swap_that_is_not_confirmed_goes_back_to_serving() -> None:
    state, asked, said = performs(in_plan(PRIM, "swap_out", DataHandover()), StepFailed(0, "timed out"))
    assert state.row == "swap_failed" and asked[0].step == Record(RecordKind.ALONE)
    assert said == ["Swap given up, this node stays primary: timed out"]


def test_swap_that_is_not_confirmed_yields_to_a_peer_that_already_serves() -> None:
    serving = replace(in_plan(PRIM, "swap_out", DataHandover()), peer=replace(SECOND_VIEW, role=Role.ALONE))
    state, asked, said = performs(serving, StepFailed(0, "timed out"))
    assert state.row == "yield_prim" and asked[0].step not in (DataAlone(), Vip(True))
    assert "the other node serves already" in said[0]


def test_swap_whose_former_primary_does_not_come_back_serves_all_the_same() -> None:
    swapped = in_plan(replace(PRIM, readiness=T, data=DataPhase.ALONE, record=ME), "swap_in", Pair())
    state, asked, said = performs(swapped, StepFailed(0, "20 s"))
    assert state.role is Role.ALONE and asked[0].step == Vip(True)
    assert "The former primary is not yet a secondary: 20 s" in said


# --- held writes -----------------------------------------------------------------------------------------------------------


def test_held_writes_wait_until_the_peer_answers_what_it_became() -> None:
    state, _ = step(PRIM, DataSaid(DataPhase.LOST, "reset"))
    assert (state.plan, state.asks) == ((), 1)
    assert spoken(state, 1).asks == 1
    state, _ = step(state, replace(SECOND_VIEW, version=6))  # under way before the connection broke
    assert state.plan == ()
    state, asked, _ = performs(state, replace(SECOND_VIEW, version=7, answers=1))
    assert state.row == "lost" and asked[0].step == Record(RecordKind.ALONE)


def test_who_hears_a_question_answers_it() -> None:
    state, _ = step(SECOND, replace(PRIM_VIEW, asks=4))
    assert spoken(state, 1).answers == 4


def test_a_question_is_above_the_answers_to_an_earlier_life() -> None:
    state, _ = step(replace(PRIM, peer=replace(SECOND_VIEW, answers=3)), DataSaid(DataPhase.LOST))
    assert state.asks == 4 and not state.answered


def test_a_primary_does_not_go_alone_beside_a_secondary_that_is_taking_over() -> None:
    state, _ = step(PRIM, DataSaid(DataPhase.LOST))
    taking_over = replace(SECOND_VIEW, readiness=T, answers=1, taking_over=True)
    state, _ = step(state, taking_over)
    assert state.plan == ()
    theirs = data.alone(BOTH, "n2", "b", 0, Role.ALONE)
    state, _ = step(state, replace(taking_over, role=Role.ALONE, record=theirs, taking_over=False))
    assert state.row == "yield_prim"


def test_held_writes_are_released_beside_a_running_plan() -> None:
    running = in_plan(PRIM, "leave_prim", Script("stop_prim"))
    state, _ = step(running, DataSaid(DataPhase.LOST))
    state, asked, _ = performs(state, PeerView(alive=False))
    assert [p.step for p in asked] == [Record(RecordKind.ALONE)] and asked[0].serial < 0
    written = record_for(state, RecordKind.ALONE)
    state, asked, _ = performs(state, Recorded(asked[0].serial, written))
    assert asked[0].step == DataAlone() and state.record == written
    state, asked, _ = performs(state, StepDone(asked[0].serial))
    assert (state.data, state.urgent, asked) == (DataPhase.ALONE, (), [])
    assert state.plan == running.plan


def test_held_writes_end_in_an_error_when_the_peer_already_serves() -> None:
    running = in_plan(PRIM, "restart_prim", Script("stop_prim"))
    state, _ = step(running, DataSaid(DataPhase.LOST))
    state, asked, _ = performs(state, replace(SECOND_VIEW, role=Role.ALONE, answers=1))
    assert [p.step for p in asked] == [DataStop()]
    state, asked, _ = performs(state, StepDone(asked[0].serial))
    assert state.data is DataPhase.OFF and state.plan == running.plan


def test_nothing_is_done_beside_a_record_that_is_being_written() -> None:
    recording = in_plan(replace(PRIM, data=DataPhase.LOST, asks=1), "lost", Record(RecordKind.ALONE))
    serving = replace(SECOND_VIEW, role=Role.ALONE, answers=1)
    state, asked, _ = performs(recording, serving)
    assert asked == [] and state.urgent == ()


def test_a_primary_whose_data_plane_was_stopped_beside_a_plan_leaves() -> None:
    state, _ = step(replace(PRIM, data=DataPhase.OFF), SECOND_VIEW)
    assert state.row == "leave_prim" and state.wish is Wish.AUTO


def test_two_records_are_never_written_at_once() -> None:
    recording = in_plan(replace(ALONE, peer=SECOND_VIEW, data=DataPhase.MIRROR), "publish", Record(RecordKind.BOTH))
    state, _ = step(recording, DataSaid(DataPhase.LOST))
    state, asked, _ = performs(state, PeerView(alive=False))
    assert asked == []  # the plan's record is being written
    state, asked, _ = performs(state, Recorded(0, BOTH))
    assert [p.step for p in asked] == [Publish(), Record(RecordKind.ALONE)]


def test_a_record_of_the_plan_waits_for_the_urgent_one() -> None:
    ending = replace(
        in_plan(PRIM, "leave_prim", DataHandover()), data=DataPhase.LOST, asks=1, peer=PeerView(alive=False)
    )
    state, asked, _ = performs(ending, Held(()))
    assert [p.step for p in asked] == [Record(RecordKind.ALONE)]
    urgent = asked[0]
    state, asked, _ = performs(state, StepFailed(0, "no peer"))
    state, asked, _ = performs(state, StepDone(asked[0].serial))
    assert asked == [] and state.plan[0] == Record(RecordKind.LEFT)
    assert step(state, Resumed())[1][0] == urgent and len(step(state, Resumed())[1]) == 1
    written = record_for(state, RecordKind.ALONE)
    state, asked, _ = performs(state, Recorded(urgent.serial, written))
    state, asked, _ = performs(state, StepDone(asked[0].serial))
    assert [p.step for p in asked] == [Record(RecordKind.LEFT)]
    assert record_for(state, RecordKind.LEFT).generation == written.generation


def test_urgent_steps_that_fail_leave_the_plan_to_say_what_is_wrong() -> None:
    urgent = replace(
        in_plan(PRIM, "leave_prim", Script("stop_prim")), urgent=(DataAlone(),), data=DataPhase.LOST, asks=1
    )
    state, _asked, said = performs(urgent, StepFailed(-1, "gone"))
    assert state.urgent == () and said == ["DataAlone failed: gone"] and state.plan == urgent.plan


def test_when_the_plan_ended_first_the_automaton_decides_after_the_urgent_steps() -> None:
    state = replace(PRIM, wish=Wish.STOPPED, urgent=(DataAlone(),), data=DataPhase.LOST, asks=1)
    state, _ = step(replace(state, plan=(Script("transition"),)), StepDone(0))
    assert state.plan == () and state.urgent
    state, asked, _ = performs(state, StepDone(-1))
    assert state.row == "leave_prim" and asked


# --- records ---------------------------------------------------------------------------------------------------------------


def test_the_record_of_a_step_is_the_one_that_was_written() -> None:
    state = in_plan(WAIT, "alone", Record(RecordKind.ALONE))
    written = replace(ME, epoch=9)
    assert step(state, Recorded(0, written))[0].record == written


def test_the_epoch_never_goes_back_when_the_history_of_another_node_is_adopted() -> None:
    receiving = replace(SECOND, readiness=T, data=DataPhase.RECEIVING, record=DataRecord(epoch=7, holder=Holder.PEER))
    state, _ = step(receiving, DataSaid(DataPhase.INSTEP, record=BOTH))
    assert (state.record.epoch, state.record.generation) == (7, BOTH.generation)
    assert record_for(state, RecordKind.ADOPTED).epoch == 7


def test_second_fullsync_forgets_its_own_history() -> None:
    assert record_for(replace(WAIT, fullsync=True), RecordKind.JOINING).generation == ""
    assert record_for(WAIT, RecordKind.JOINING) == data.joining(BOTH)


def test_who_yields_gives_its_history_up_once() -> None:
    theirs = replace(SECOND_VIEW, role=Role.ALONE, was=Role.PRIM, record=data.alone(BOTH, "n2", "b", 0, Role.ALONE))
    state, _ = step(replace(ALONE, was=Role.SECOND, record=data.alone(BOTH, "n1", "a", 0, Role.ALONE)), theirs)
    assert state.yielding and record_for(state, RecordKind.LEFT).generation == ""
    left = replace(state, plan=(Become(Role.WAIT, T), Script("transition")), serial=3)
    assert not step(replace(left, plan=(Script("x"), *left.plan)), StepDone(3))[0].yielding


def test_a_primary_that_yields_says_that_the_other_has_the_data() -> None:
    state = replace(PRIM, row="yield_prim")
    assert record_for(state, RecordKind.LEFT) == replace(BOTH, holder=Holder.PEER, clean=False)


def test_resynchronisation_makes_the_copy_inconsistent_until_it_was_adopted() -> None:
    state, _ = step(replace(SECOND, readiness=T, data=DataPhase.RECEIVING), ResyncBegan())
    assert not state.record.consistent
    assert record_for(state, RecordKind.LEFT).consistent is False


# --- waiting ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "sentence"),
    [
        (PeerView(), "listening for the other node"),
        (replace(PRIM_VIEW, readiness=T), "the other node is PRIM Transient and will take over"),
        (replace(PRIM_VIEW, role=Role.WAIT, wish=Wish.PRIM), "the other node starts as primary"),
        (replace(PRIM_VIEW, role=Role.WAIT, wish=Wish.STOPPED), "the other node is stopping"),
        (replace(PRIM_VIEW, role=Role.WAIT, record=ME), "the other node has the data and goes first"),
        (
            replace(PRIM_VIEW, role=Role.WAIT, record=data.alone(BOTH, "n2", "b", 0, Role.ALONE)),
            "the other node has the data and goes first",
        ),
    ],
)
def test_a_waiting_node_says_why(peer: PeerView, sentence: str) -> None:
    state, _ = step(replace(WAIT, record=replace(BOTH, role=Role.SECOND)), peer)
    assert (state.role, state.readiness, state.waiting) == (Role.WAIT, T, (sentence,))


@pytest.mark.parametrize(
    ("mine", "sentence"),
    [
        (data.alone(BOTH, "n1", "a", 0, Role.ALONE), "both nodes served alone"),
        (data.alone(BLANK, "n1", "z", 0, Role.ALONE), "have nothing in common"),
    ],
)
@pytest.mark.parametrize("role", [Role.WAIT, Role.ALONE])
def test_two_histories_are_never_merged_by_themselves(mine: DataRecord, sentence: str, role: Role) -> None:
    theirs = data.alone(BOTH, "n2", "b", 0, Role.ALONE)
    state, _ = step(replace(WAIT, record=mine), PeerView(True, 1, role, T, Wish.AUTO, theirs))
    assert (state.role, state.readiness) == (Role.WAIT, NR)
    assert sentence in state.waiting[0] and "second fullsync" in state.waiting[0]


def test_prim_beside_a_node_that_waits_serves() -> None:
    state, _ = step(replace(WAIT, wish=Wish.PRIM), PeerView(True, 1, Role.WAIT, T, Wish.AUTO, BOTH))
    assert state.row == "alone" and state.wish is Wish.AUTO


def test_second_waits_for_a_node_that_is_starting_as_primary() -> None:
    peer = PeerView(True, 1, Role.WAIT, T, Wish.PRIM, ME)
    state, _ = step(replace(WAIT, wish=Wish.SECOND, record=BLANK), peer)
    assert state.waiting == ("the other node is WAIT Transient",)


# --- secondary and primary -------------------------------------------------------------------------------------------------


def test_secondary_leaves_when_the_primary_went_on_without_it() -> None:
    theirs = data.alone(BOTH, "n2", "b", 0, Role.ALONE)
    state, _ = step(SECOND, replace(PRIM_VIEW, role=Role.ALONE, record=theirs))
    assert (state.row, state.reason) == ("leave_second", "the primary went on without this node")


def test_secondary_whose_data_plane_died_leaves() -> None:
    assert step(SECOND, DataSaid(DataPhase.FAILED))[0].row == "leave_second"


def test_secondary_that_is_not_ready_never_fails_over() -> None:
    receiving = replace(SECOND, readiness=T, data=DataPhase.RECEIVING)
    assert step(receiving, PeerView(alive=False))[0].row == "leave_second"


def test_secondary_waits_through_a_swap_for_the_new_primary() -> None:
    swapped = replace(SECOND, readiness=T, data=DataPhase.RECEIVING, handed_over=BOTH.generation)
    assert step(swapped, replace(PRIM_VIEW, role=Role.SECOND, readiness=T))[0].plan == ()


def test_swap_is_forgotten_when_the_other_is_not_ready() -> None:
    state, _ = step(replace(PRIM, swap=True), replace(SECOND_VIEW, readiness=T))
    assert not state.swap and state.plan == ()


def test_a_primary_resigns_to_the_one_that_went_on_alone() -> None:
    theirs = data.alone(BOTH, "n2", "b", 0, Role.ALONE)
    state, effects = step(PRIM, replace(SECOND_VIEW, role=Role.ALONE, record=theirs))
    assert state.row == "yield_prim"
    assert Say("C", "Split brain recovery: exiting prim (the other node is ALONE Ready)") in effects


@pytest.mark.parametrize(("was", "theirs", "yields"), [(Role.PRIM, Role.SECOND, False), (Role.SECOND, Role.PRIM, True)])
def test_after_a_split_brain_the_former_primary_stays(was: Role, theirs: Role, yields: bool) -> None:
    mine = replace(ALONE, was=was, record=data.alone(BOTH, "n1", "a", 0, Role.ALONE))
    peer = PeerView(True, 1, Role.ALONE, R, Wish.AUTO, data.alone(BOTH, "n2", "b", 0, Role.ALONE), was=theirs)
    assert (step(mine, peer)[0].row == "yield_alone") is yields


def test_exactly_one_of_two_equal_histories_yields() -> None:
    one, two = data.alone(BOTH, "n1", "a", 0, Role.ALONE), data.alone(BOTH, "n2", "b", 0, Role.ALONE)
    first = step(replace(ALONE, record=one), PeerView(True, 1, Role.ALONE, R, Wish.AUTO, two))[0].yielding
    second = step(replace(ALONE, record=two), PeerView(True, 1, Role.ALONE, R, Wish.AUTO, one))[0].yielding
    assert first is not second


def test_who_serves_with_the_newer_history_never_yields_to_who_gives_his_up() -> None:
    newer = data.alone(BOTH, "n2", "b", 0, Role.ALONE)
    gives_up = PeerView(True, 1, Role.ALONE, T, Wish.AUTO, BOTH, was=Role.PRIM)
    serving = step(replace(ALONE, node="n2", record=newer, was=Role.SECOND), gives_up)[0]
    assert serving.row != "yield_alone"
    other = PeerView(True, 1, Role.ALONE, T, Wish.AUTO, newer, was=Role.SECOND)
    assert step(replace(ALONE, record=BOTH, was=Role.PRIM), other)[0].row == "yield_alone"


def test_a_primary_never_connects_to_a_secondary_that_was_ready() -> None:
    was_ready = replace(SECOND, readiness=T, data=DataPhase.CUT, row="restart_second")
    assert not spoken(was_ready, 1).listening
    assert spoken(replace(was_ready, data=DataPhase.RECEIVING), 1).listening


def test_the_log_says_why_the_other_node_changed_its_state() -> None:
    stopped = replace(SECOND_VIEW, role=Role.STOP, readiness=Readiness.NOT_READY, reason="stop called by root")
    _, effects = step(PRIM, stopped)
    assert Say("E", "Remote state STOP NotReady (stop called by root)") in effects


def test_remote_states_are_logged_as_they_change() -> None:
    _, effects = step(PRIM, replace(SECOND_VIEW, readiness=T))
    assert effects == (Say("E", "Remote state SECOND Transient"),)
    _, effects = step(replace(STOPPED, wish=Wish.STOPPED), PeerView(alive=False))
    assert effects == (Say("E", "Remote state UNKNOWN"),)


@pytest.mark.parametrize("row", ["yield_prim", "yield_alone"])
def test_a_node_that_yields_releases_its_address_before_anything_else(row: str) -> None:
    acts = [act for act in PLANS[row] if isinstance(act, Vip | Script | DataStop)]
    assert acts[0] == Vip(False)


SILENT = PeerView(alive=False)
NOT_MINE = replace(WAIT, record=replace(BOTH, holder=Holder.PEER))


def test_syncdelta_lets_a_copy_serve_only_when_the_other_node_is_silent() -> None:
    state, _, said = performs(replace(NOT_MINE, peer=SILENT), Trusted(True))
    assert state.row == "alone" and said[-1].startswith("rule rfs_forceuptodate: the other node is silent")
    state, _, _ = performs(replace(NOT_MINE, peer=PeerView(True, 1, Role.WAIT, NR, record=BOTH)), Trusted(True))
    assert state.row == "" and state.role is Role.WAIT
    for record in (BLANK, replace(NOT_MINE.record, consistent=False)):
        state, _, _ = performs(replace(NOT_MINE, record=record, peer=SILENT), Trusted(True))
        assert state.row == ""


def test_a_trust_that_ends_holds_nothing() -> None:
    state, _, _ = performs(replace(NOT_MINE, peer=PeerView(), trusted=True), Trusted(False))
    assert not state.trusted and state.row == ""


def test_the_scheduled_synchronisation_holds_a_secondary_and_never_a_primary() -> None:
    held = Held(("rfs_syncat_wait",))
    state, _, _ = performs(SECOND, held)
    assert state.row == "leave_second"
    assert performs(PRIM, held)[0].row == "" and performs(ALONE, held)[0].row == ""
    waiting, _, _ = performs(replace(NOT_MINE, peer=PeerView(True, 1, Role.ALONE, R, record=ME)), held)
    assert (waiting.row, waiting.waiting) == ("", ("rule rfs_syncat_wait",))
    assert performs(waiting, Held(()))[0].row == "second"


def test_a_scheduled_copy_that_is_trusted_serves_when_the_other_node_is_silent() -> None:
    held = replace(NOT_MINE, held=("rfs_syncat_wait",), peer=SILENT)
    assert performs(held, Trusted(True))[0].row == "alone"
    assert performs(replace(held, held=("interface_failure",)), Trusted(True))[0].row == ""


def test_a_degraded_primary_serves_and_tries_no_more_until_it_is_told() -> None:
    listening = PeerView(True, 5, Role.SECOND, T, Wish.AUTO, replace(BOTH, holder=Holder.PEER), listening=True)
    state, effects = step(replace(ALONE, peer=listening, data=DataPhase.JOINING), Degraded("other directories"))
    assert effects == (Say("C", "the replication is degraded: other directories"),)
    state, effects = step(state, DataSaid(DataPhase.ALONE))
    assert not any(isinstance(effect, Connect) for effect in effects)
    assert spoken(state, 1).degraded == "other directories"
    _, effects = step(state, Degraded("other directories"))
    assert effects == ()
    _, effects = step(state, Degraded(""))
    assert any(isinstance(effect, Connect) for effect in effects)


def test_the_secondary_of_a_degraded_primary_waits() -> None:
    degraded = PeerView(True, 6, Role.ALONE, R, Wish.AUTO, ME, degraded="other directories")
    state, _, _ = performs(replace(SECOND, readiness=T, data=DataPhase.RECEIVING), degraded)
    assert state.row == "leave_second"
    state, _, _ = performs(replace(NOT_MINE, peer=SILENT), degraded)
    assert state.waiting == ("rule degraded_server: the other node cannot replicate: other directories",)
    assert performs(state, replace(degraded, degraded=""))[0].row == "second"


def test_a_restart_limited_to_services_keeps_its_limit_until_a_whole_one_is_asked_for() -> None:
    limited, _, _ = performs(
        replace(PRIM, plan=(Script("transition"),)), Command(Action.RESTART, "errd", services=("a",))
    )
    assert (limited.restart, limited.services) == (True, ("a",))
    both, _, _ = performs(limited, Command(Action.RESTART, "errd", services=("b", "a")))
    assert both.services == ("a", "b")
    whole, _, _ = performs(both, Command(Action.RESTART, "t_web"))
    assert whole.services == ()
    still, _, _ = performs(whole, Command(Action.RESTART, "errd", services=("a",)))
    assert still.services == ()


def test_a_limit_of_an_earlier_restart_does_not_limit_the_next() -> None:
    after = replace(PRIM, row="restart_prim", services=("a",))
    whole, _, _ = performs(after, Command(Action.RESTART))
    assert (whole.row, whole.services) == ("restart_prim", ())


def test_a_primary_that_is_cut_off_gives_its_address_up_before_its_application_stops() -> None:
    state, asked, _ = performs(PRIM, Held(("splitbrain_failure",)))
    assert state.row == "yield_prim" and [perform.step for perform in asked] == [Checkers("prim", False)]
    state, _, _ = performs(replace(ALONE, record=BOTH), Held(("splitbrain_failure",)))
    assert state.row == "yield_alone"
    state, _, _ = performs(SECOND, Held(("splitbrain_failure",)))
    assert state.row == "leave_second"
