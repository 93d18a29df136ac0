"""The table of the mirror automaton: each row of spec §4.2 as the steps that carry it out, in order."""

from __future__ import annotations

from safekit.automaton.vocabulary import (
    Become,
    Checkers,
    DataAlone,
    DataHandover,
    DataPrimary,
    DataSecondary,
    DataStop,
    Links,
    Pair,
    Publish,
    Readiness,
    Record,
    RecordKind,
    Role,
    Script,
    Step,
    Vip,
)

T, R, NR = Readiness.TRANSIENT, Readiness.READY, Readiness.NOT_READY
STOP, WAIT, ALONE, PRIM, SECOND = Role.STOP, Role.WAIT, Role.ALONE, Role.PRIM, Role.SECOND


def _twice(*names: str) -> tuple[Script, ...]:
    """Stop scripts marked 2x in the figure: each graceful, then with `force`."""
    return tuple(Script(name, force) for name in names for force in (False, True))


PLANS: dict[str, tuple[Step, ...]] = {
    # row 1: STOP -> WAIT
    "start": (Become(WAIT, T), Script("transition"), Script("prestart"), Links(True), Checkers("pre", True)),
    # row 2: WAIT -> ALONE
    "alone": (
        Record(RecordKind.ALONE),
        Become(ALONE, T),
        Script("transition"),
        DataPrimary(),
        Vip(True),
        Script("start_both"),
        Script("start_prim"),
        Script("start_sec"),
        Checkers("prim", True),
        Become(ALONE, R),
    ),
    # row 4: WAIT -> SECOND, in two halves: receive, then (second_ready) be able to take over
    "second": (Become(SECOND, T), Record(RecordKind.JOINING), Script("transition"), DataSecondary()),
    "second_ready": (
        Record(RecordKind.ADOPTED),
        Script("start_both"),
        Script("start_second"),
        Script("start_sec"),
        Checkers("second", True),
        Become(SECOND, R),
    ),
    # the primary publishes that the peer holds everything
    "publish": (Record(RecordKind.BOTH), Publish()),
    # under a witness: the register was made, or made anew, for a pair that serves already
    "founded": (Record(RecordKind.BOTH),),
    # row 5: ALONE -> PRIM
    "prim": (Script("stop_sec"), Script("transition"), Become(PRIM, R)),
    # row 6: PRIM -> ALONE
    "lost": (
        Record(RecordKind.ALONE),
        DataAlone(),
        Become(ALONE, T),
        Script("transition"),
        Script("start_sec"),
        Become(ALONE, R),
    ),
    # the same while still ALONE: the peer was about to become SECOND(Ready)
    "lost_early": (Record(RecordKind.ALONE), DataAlone()),
    # row 7: SECOND -> ALONE
    "failover": (
        Become(SECOND, T),
        Checkers("second", False),
        Script("stop_second"),
        DataStop(),  # what this node acknowledged to a primary that still lives is durable before the record
        Record(RecordKind.ALONE),
        Become(ALONE, T),
        Script("transition"),
        DataPrimary(),
        Vip(True),
        Script("start_prim"),
        Checkers("prim", True),
        Become(ALONE, R),
    ),
    # row 7 under a witness, in two halves: out of the stream, then (promote) on the witness's word
    "candidate": (
        Become(SECOND, T),
        Checkers("second", False),
        Script("stop_second"),
        DataStop(),  # from here on nothing is acknowledged, and all that was is durable
    ),
    "promote": (
        Record(RecordKind.ALONE),
        Become(ALONE, T),
        Script("transition"),
        DataPrimary(),
        Vip(True),
        Script("start_prim"),
        Checkers("prim", True),
        Become(ALONE, R),
    ),
    # row 9: PRIM -> SECOND
    "swap_out": (
        Become(PRIM, T),
        Checkers("prim", False),
        *_twice("stop_prim"),
        Vip(False),
        DataHandover(),
        Record(RecordKind.LEFT),
        DataSecondary(),
        Become(SECOND, T),
        Script("transition"),
    ),
    # ... and back, when the peer did not confirm
    "swap_failed": (
        Record(RecordKind.ALONE),
        DataAlone(),
        Become(ALONE, T),
        Vip(True),
        Script("start_prim"),
        Script("start_sec"),
        Checkers("prim", True),
        Become(ALONE, R),
    ),
    # ... the same under a witness, which may have to be asked first
    "swap_undone": (
        Vip(True),
        Script("start_prim"),
        Checkers("prim", True),
        Become(PRIM, R),
    ),
    # row 10: SECOND -> PRIM; under a witness rows 7 and 5 do it: two grants, one for the node alone and one for both
    "swap_in": (
        Become(SECOND, T),
        Checkers("second", False),
        Script("stop_sec"),
        Script("stop_second"),
        Record(RecordKind.ALONE),
        Become(PRIM, T),
        Script("transition"),
        DataPrimary(),
        Pair(),
        Record(RecordKind.BOTH),
        Publish(),
        Vip(True),
        Script("start_prim"),
        Checkers("prim", True),
        Become(PRIM, R),
    ),
    # ... when the peer does not come back as secondary in time: serve all the same
    "swap_in_alone": (
        Become(ALONE, T),
        Vip(True),
        Script("start_prim"),
        Script("start_sec"),
        Checkers("prim", True),
        Become(ALONE, R),
    ),
    # rows 11, 12, 13: restart without a change of role; the checkers of the role are silent meanwhile (spec §6.1, rule 6)
    "restart_alone": (
        Become(ALONE, T),
        Checkers("prim", False),
        *_twice("stop_sec", "stop_prim", "stop_both"),
        Script("start_both"),
        Script("start_prim"),
        Script("start_sec"),
        Checkers("prim", True),
        Become(ALONE, R),
    ),
    "restart_prim": (
        Become(PRIM, T),
        Checkers("prim", False),
        *_twice("stop_prim", "stop_both"),
        Script("start_both"),
        Script("start_prim"),
        Checkers("prim", True),
        Become(PRIM, R),
    ),
    "restart_second": (
        Become(SECOND, T),
        Checkers("second", False),
        *_twice("stop_sec", "stop_second", "stop_both"),
        Script("start_both"),
        Script("start_second"),
        Script("start_sec"),
        Checkers("second", True),
        Become(SECOND, R),
    ),
    # rows 14, 15, 16: leave towards WAIT (graceful calls only)
    "leave_alone": (
        Become(ALONE, T),
        Checkers("prim", False),
        Script("stop_sec"),
        Script("stop_prim"),
        Script("stop_both"),
        Vip(False),
        DataStop(),
        Record(RecordKind.LEFT),
        Become(WAIT, T),
        Script("transition"),
    ),
    "leave_prim": (
        Become(PRIM, T),
        Checkers("prim", False),
        Script("stop_prim"),
        Script("stop_both"),
        Vip(False),
        DataHandover(),
        Record(RecordKind.LEFT),
        Become(WAIT, T),
        Script("transition"),
    ),
    # as above for a node that yields: its peer already serves, so the address goes first, before a client commits here
    # what will be lost. Writes that a primary holds end in an error next, because a stop script waits for them
    "yield_prim": (
        Become(PRIM, T),
        Checkers("prim", False),
        Vip(False),
        DataStop(),
        *_twice("stop_prim", "stop_both"),
        Record(RecordKind.LEFT),
        Become(WAIT, T),
        Script("transition"),
    ),
    "yield_alone": (
        Become(ALONE, T),
        Checkers("prim", False),
        Vip(False),
        Script("stop_sec"),
        Script("stop_prim"),
        Script("stop_both"),
        DataStop(),
        Record(RecordKind.LEFT),
        Become(WAIT, T),
        Script("transition"),
    ),
    # the lease ran out: the address is gone and the application is being ended; the record stays as it was
    "lapse_prim": (
        Become(PRIM, T),
        Checkers("prim", False),
        Vip(False),
        DataStop(),
        *_twice("stop_prim", "stop_both"),
        Become(WAIT, T),
        Script("transition"),
    ),
    "lapse_alone": (
        Become(ALONE, T),
        Checkers("prim", False),
        Vip(False),
        DataStop(),
        *_twice("stop_sec", "stop_prim", "stop_both"),
        Become(WAIT, T),
        Script("transition"),
    ),
    "leave_second": (
        Become(SECOND, T),
        Checkers("second", False),
        Script("stop_sec"),
        Script("stop_second"),
        Script("stop_both"),
        DataStop(),
        Record(RecordKind.LEFT),
        Become(WAIT, T),
        Script("transition"),
    ),
    # row 17: WAIT -> STOP
    "stop": (
        Script("stop_sec", True),
        Script("stop_prim", True),
        Script("stop_second", True),
        Script("stop_both", True),
        Script("poststop"),
        Script("transition"),
        Checkers("pre", False),
        Become(STOP, NR),
        Links(False),
    ),
}
