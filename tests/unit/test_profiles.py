"""Where the time of a row goes: what is made of recorded events."""

from __future__ import annotations

import os

import pytest

from benchmarks.profiles import Part, Sample, Seen, look, processors, waits, window

PRIMARY, FIO = 20, 30
PART = Part({PRIMARY: "primary"})


def _sample(pid: int, time: float, *stack: str) -> Sample:
    return Sample("fio" if pid == FIO else "safekit-rfs", pid, pid, time, stack)


def test_a_row_lasts_as_long_as_its_application_does_it() -> None:
    write, stat = ("copy", "__x64_sys_pwrite64"), ("x", "vfs_statx")
    samples = [_sample(FIO, 1, "main"), _sample(FIO, 2, *write), _sample(PRIMARY, 9), _sample(FIO, 4, *write)]
    assert window(samples, "random") == (2, 4)
    with pytest.raises(RuntimeError, match="stat: nothing of files"):
        window([_sample(FIO, 1, *stat)], "stat")


def test_switching_and_waking_count_for_themselves_whatever_the_call() -> None:
    send = ("tcp_sendmsg", "__x64_sys_sendto", "do_syscall_64")
    assert _sample(PRIMARY, 1, *send).doing == "sendto"
    assert _sample(PRIMARY, 1, "_raw_spin_unlock_irqrestore", "try_to_wake_up", *send).doing == "waking a thread"
    assert _sample(PRIMARY, 1, "finish_task_switch.isra.0", *send).doing == "switching tasks"
    assert _sample(PRIMARY, 1, "memcpy").doing == "own code"


def test_the_processor_is_shared_out_among_who_takes_part() -> None:
    write = ("copy", "__x64_sys_pwrite64")
    samples = [_sample(FIO, 1.0, *write)]
    samples += [_sample(PRIMARY, 1.1, "tcp_sendmsg", "__x64_sys_sendto")] * 2
    samples += [_sample(PRIMARY, 1.1, "try_to_wake_up", "__x64_sys_sendto")] * 2
    samples += [_sample(FIO, 1.001, *write)]
    text = "\n".join(processors(samples, "random", PART))
    assert "primary" not in text  # its samples are later than the row
    text = "\n".join(processors([*samples, _sample(FIO, 1.2, *write)], "random", PART, rate=10))
    assert "50% sendto (tcp_sendmsg 50%)" in text
    assert "50% waking a thread" in text


def test_what_a_thread_waits_for_is_counted_while_the_application_does_the_row() -> None:
    seen = []
    for number in range(100):
        at = 1 + number * 0.005
        seen.append(Seen(at, "fio", "fio", FIO, "18" if 10 <= number < 90 else "230", "request_wait_answer"))
        # one thread works every second time, one sleeps through it all
        idle = number % 2 == 0
        seen.append(Seen(at, "primary", "safekit-rfs", 21, "0" if idle else "", "fuse_dev_do_read" if idle else ""))
        seen.append(Seen(at, "primary", "safekit-rfs", 22, "202", "futex_do_wait"))
    lines = waits(seen, "random")
    assert "80 looks" in lines[0]
    found = next(line for line in lines if "safekit-rfs 21" in line)
    assert "read: fuse_dev_do_read 50%" in found and "running or ready 50%" in found
    assert not any("safekit-rfs 22" in line for line in lines)
    with pytest.raises(RuntimeError, match="stat: files was not seen"):
        waits(seen, "stat")


def test_this_process_can_be_looked_at() -> None:
    seen = list(look(Part({os.getpid(): "primary"}), [os.getpid(), 1 << 30]))
    assert {one.part for one in seen} == {"primary"} and {one.tid for one in seen} >= {os.getpid()}
