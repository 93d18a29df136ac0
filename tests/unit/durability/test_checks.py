"""The checks find what they are there to find: each good trial is accepted, each kind of damage is named."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

from tests.durability.checks import Findings, Tree, differences, examine
from tests.durability.journal import Operation, read_journal
from tests.durability.on_nodes.clients import element, record
from tests.durability.promise import PowerLoss

BOTH = (PowerLoss("n1", 100.0), PowerLoss("n2", 100.5))


def asked(workload: str, target: str, do: str, *args: str, at: float, **more: Any) -> Operation:
    answered = more.pop("answered", at + 0.5)
    return Operation(workload, 1, target, do, args, at, answered, node="n1", mirrored=True, **more)


def examined(operations: list[Operation], content: dict[str, str], *misfortunes: PowerLoss) -> Findings:
    entries = {name: {"mode": "0o100600", "same": name} for name in content}
    return examine(operations, misfortunes, Tree(entries, content))


# --- set

ADDED = [asked("set", "set/1.0", "add", str(n), at=float(n)) for n in (1, 2, 3)]


def held(*numbers: int) -> str:
    return "".join(element(number) for number in numbers)


def test_a_set_that_holds_what_was_acknowledged_is_right() -> None:
    assert not examined(ADDED, {"set/1.0": held(1, 2, 3)}).sentences


def test_a_missing_element_is_lost() -> None:
    assert len(examined(ADDED, {"set/1.0": held(1, 3)}).lost) == 1
    assert len(examined(ADDED, {}).lost) == 3


def test_an_element_without_an_answer_may_be_there_or_not() -> None:
    doubtful = [*ADDED[:2], replace(ADDED[2], answered=None)]
    assert not examined(doubtful, {"set/1.0": held(1, 2)}).sentences
    found = examined(doubtful, {"set/1.0": held(1, 2, 3)})
    assert not found.sentences
    assert (found.recovered, found.unknown) == (1, 1)
    assert not examined(doubtful, {"set/1.0": held(1, 2) + "3 7"}).sentences


def test_what_nobody_added_and_what_is_there_twice_is_unexpected() -> None:
    assert examined(ADDED, {"set/1.0": held(1, 2, 3, 4)}).unexpected
    assert examined(ADDED, {"set/1.0": held(1, 2, 3, 3)}).unexpected
    assert examined(ADDED, {"set/1.0": held(1, 2, 3), "set/2.0": held(2)}).unexpected
    assert examined(ADDED, {"set/1.0": held(1, 2, 3) + "\0\0\0"}).unexpected


def test_both_powers_may_take_what_was_not_synced() -> None:
    found = examined(ADDED, {"set/1.0": held(1)}, *BOTH)
    assert not found.sentences
    assert found.excused == 3
    assert examined(ADDED, {"set/1.0": held(1)}, BOTH[0]).lost


# --- log

LOGGED = [asked("log", "log/3.0", "append", str(n), at=float(n), durable=True) for n in (1, 2, 3)]
RECORDS = [record("log/3.0", n) for n in (1, 2, 3, 4)]


def test_what_nobody_was_promised_may_be_zeros_in_a_log_after_a_loss_of_power() -> None:
    doubtful = [*LOGGED, asked("log", "log/3.0", "append", "4", at=99.0, answered=None, durable=True)]
    whole = [record("log/3.0", n) for n in (1, 2, 3, 4)]
    zeros = {"log/3.0": "".join(whole[:3]) + whole[3][:5] + "\0" * (len(whole[3]) - 5)}
    assert not examined(doubtful, zeros, *BOTH).sentences
    assert examined(doubtful, zeros).unexpected
    assert examined(doubtful, {"log/3.0": "".join(whole[:3]) + "x" * len(whole[3])}, *BOTH).unexpected
    assert examined(doubtful, {"log/3.0": "".join(whole) + "\0"}, *BOTH).unexpected
    assert examined(LOGGED, {"log/3.0": "".join(whole[:2]) + "\0" * len(whole[2])}, *BOTH).lost


def test_a_log_survives_both_powers_whole_and_in_order() -> None:
    assert not examined(LOGGED, {"log/3.0": "".join(RECORDS[:3])}, *BOTH).sentences
    for damaged in (RECORDS[0] + RECORDS[1], RECORDS[0] + RECORDS[2], "".join(RECORDS[:3])[:-1], ""):
        assert examined(LOGGED, {"log/3.0": damaged}, *BOTH).lost, damaged
    flipped = "".join(RECORDS[:3]).replace(RECORDS[1][5], "x", 1)
    assert examined(LOGGED, {"log/3.0": flipped}).lost


def test_only_the_last_record_without_an_answer_may_be_torn() -> None:
    doubtful = [*LOGGED, asked("log", "log/3.0", "append", "4", at=4.0, answered=None, durable=True)]
    whole = "".join(RECORDS)
    for size in (len("".join(RECORDS[:3])), len(whole) - 3, len(whole)):
        assert not examined(doubtful, {"log/3.0": whole[:size]}).sentences
    assert examined(doubtful, {"log/3.0": whole + "more"}).unexpected
    assert examined(doubtful, {"log/3.0": "".join(RECORDS[:3]) + "\0\0"}).unexpected


# --- registers


def test_a_register_that_goes_back_is_lost() -> None:
    written = [
        asked("register", "register/put", "set", "a", at=1.0),
        asked("register", "register/put", "set", "b", at=2.0),
        asked("register", "register/put", "get", at=3.0, value="b"),
    ]
    assert not examined(written, {"register/put": "b"}).sentences
    assert examined(written, {"register/put": "a"}).lost
    assert examined(written, {}).lost
    assert examined(written, {"register/put": "c"}).lost
    assert not examined(written, {"register/put": "a"}, *BOTH).sentences
    after = [*written, asked("register", "register/put", "get", at=110.0, value="a")]
    assert not examined(after, {"register/put": "a"}, *BOTH).sentences
    assert examined(after, {"register/put": "b"}, *BOTH).lost


def test_a_synced_register_never_goes_back() -> None:
    written = [
        asked("register", "register/put-durable", "set", "a", at=1.0, durable=True),
        asked("register", "register/put-durable", "set", "b", at=2.0, durable=True),
        asked("register", "register/put-durable", "get", at=3.0, value="b"),
    ]
    assert not examined(written, {"register/put-durable": "b"}, *BOTH).sentences
    assert examined(written, {"register/put-durable": "a"}, *BOTH).lost


# --- names

NAMED = [
    asked("names", "names/8.0", "mkdir", "d", at=1.0),
    asked("names", "names/8.0", "create", "d/a", at=2.0),
    asked("names", "names/8.0", "create", "d/a", at=3.0, error=errno.EEXIST),
    asked("names", "names/8.0", "link", "d/a", "b", at=4.0),
]


def named(*, joined: bool = True, more: tuple[str, ...] = ("b",)) -> Tree:
    entries = {
        "names/8.0": {"mode": "0o40755"},
        "names/8.0/d": {"mode": "0o40755"},
        "names/8.0/d/a": {"mode": "0o100644", "same": "x"},
    }
    entries |= {f"names/8.0/{name}": {"mode": "0o100644", "same": "x" if joined else name} for name in more}
    return Tree(entries, {})


def test_names_are_as_after_every_request() -> None:
    assert not examine(NAMED, (), named()).sentences
    assert examine(NAMED, (), named(more=())).lost
    assert examine(NAMED, (), named(joined=False)).lost
    assert examine(NAMED, (), named(more=("b", "c"))).lost


def test_an_answer_that_no_file_system_gives_is_unexpected() -> None:
    wrong = [*NAMED[:2], replace(NAMED[2], error=0), NAMED[3]]
    assert examine(wrong, (), named()).unexpected


def test_names_after_both_powers_are_those_of_a_moment_after_the_last_sync() -> None:
    assert not examine(NAMED, BOTH, named(more=())).sentences
    synced = [*NAMED, asked("names", "names/8.0", "sync", at=5.0, durable=True)]
    assert examine(synced, BOTH, named(more=())).lost
    assert not examine(synced, BOTH, named()).sentences


# --- trees, journal


def test_every_fact_of_a_tree_is_compared() -> None:
    one = Tree({"f": {"mode": "0o100600", "data": [[0, 4096]]}, "g": {}}, {})
    assert not differences(one, one)
    assert differences(one, Tree({"f": {"mode": "0o100600", "data": []}, "g": {}}, {})) == [
        "'f': data is [[0, 4096]] and []"
    ]
    assert not differences(one, Tree({"f": {"mode": "0o100600", "data": []}, "g": {}}, {}), holes=False)
    assert differences(one, Tree({"f": {"mode": "0o100755", "data": []}, "g": {}}, {}), holes=False)
    assert differences(one, Tree({"f": one.entries["f"], "h": {}}, {})) == [
        "'g' is only on the first node",
        "'h' is only on the second node",
    ]


def test_a_journal_is_read_in_the_order_of_sending() -> None:
    lines = [
        '{"workload": "set", "client": 1, "target": "t", "do": "add", "args": ["2"], "sent": 2.0, "durable": false}',
        '{"workload": "set", "client": 1, "target": "t", "do": "add", "args": ["1"], "sent": 1.0, "answered": 1.5, "node": "n1"}',
    ]
    first, second = read_journal(lines)
    assert (first.args, first.acknowledged, second.acknowledged) == (("1",), True, False)
