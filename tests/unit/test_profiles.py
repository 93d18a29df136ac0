"""Where the time of a row goes: what is made of recorded events."""

from __future__ import annotations

import pytest

from benchmarks.profiles import Part, Sample, processors, waits, window

PRIMARY, FIO = 20, 30
PART = Part({PRIMARY: "primary"})


def _sample(pid: int, time: float, *stack: str) -> Sample:
    return Sample("fio" if pid == FIO else "safekit-rfs", pid, pid, time, "cpu-clock", "", stack)


def _switch(of: int, to: int, time: float, state: str, *stack: str) -> Sample:
    rest = f"prev_comm=a prev_pid={of} prev_prio=1 prev_state={state} ==> next_comm=b c next_pid={to} next_prio=1"
    comm = "fio" if of == FIO else "safekit-rfs"
    return Sample(comm, of, of, time, "sched:sched_switch", rest, stack)


def _waking(by: int, of: int, time: float) -> Sample:
    return Sample("safekit-rfs", by, by, time, "sched:sched_waking", f"comm=fio pid={of} prio=1 target_cpu=0", ())


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


def test_a_wait_is_counted_from_leaving_the_processor_until_having_it_again() -> None:
    request = ("__schedule", "schedule", "request_wait_answer", "__x64_sys_pwrite64")
    samples = []
    for number in range(100):
        at = 1 + number * 0.01
        samples += [
            _switch(FIO, PRIMARY, at, "S", *request),
            _waking(PRIMARY, FIO, at + 0.003),
            _switch(PRIMARY, FIO, at + 0.004, "R", "exit_to_user_mode_loop"),
        ]
    text = "\n".join(waits(samples, "random", PART))
    assert "pwrite: request_wait_answer: 99 times, 4000 us each (1000)" in text
    assert "for a processor: 99 times, 6000 us each (0)" in text
