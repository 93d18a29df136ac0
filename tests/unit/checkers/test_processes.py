"""Which processes count for a `<proc>`, and when their number is right (spec §3.9)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from safekit.checkers.processes import Process, judge, look, matches, running
from safekit.config import Proc

NGINX = Proc("nginx", False, None, None, 1, -1, "restart", (), "prim", 0)


def test_a_command_is_found_by_its_name() -> None:
    assert matches(NGINX, Process(7, "nginx", "nginx: master process"))
    assert not matches(NGINX, Process(7, "nginx-debug", "nginx-debug"))


def test_the_kernel_keeps_fifteen_bytes_of_a_name() -> None:
    assert matches(
        replace(NGINX, name="a-name-of-seventeen"), Process(7, "a-name-of-seven", "/opt/a-name-of-seventeen")
    )


def test_all_expressions_that_are_given_must_fit() -> None:
    java = replace(NGINX, name="shop", nameregex="^java$", argregex=r"-Dapp=shop\b")
    assert matches(java, Process(7, "java", "/usr/bin/java -Dapp=shop -jar x.jar"))
    assert not matches(java, Process(7, "java", "/usr/bin/java -Dapp=mail -jar x.jar"))
    assert not matches(java, Process(7, "javac", "/usr/bin/javac -Dapp=shop"))


@pytest.mark.parametrize(
    ("atleast", "atmax", "count", "right", "sentence"),
    [
        (1, -1, 0, False, "Process nginx not running"),
        (1, -1, 5, True, "Process nginx running"),
        (2, -1, 1, False, "Process nginx running 1 times, at least 2 needed"),
        (-1, 0, 1, False, "Process nginx running 1 times, at most 0 allowed"),
        (-1, 0, 0, True, "Process nginx running"),
        (1, 2, 3, False, "Process nginx running 3 times, at most 2 allowed"),
        (-1, -1, 0, True, "Process nginx running"),
    ],
)
def test_the_number_of_processes_is_judged(atleast: int, atmax: int, count: int, right: bool, sentence: str) -> None:
    finding = judge(replace(NGINX, atleast=atleast, atmax=atmax), count)
    assert finding.right is right
    assert not right or finding.sentence.endswith("running")
    assert right or finding.sentence == sentence


def test_this_very_process_is_found_and_one_that_ended_is_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", "a-mark"], stdin=subprocess.PIPE)
    marked = replace(NGINX, name="marked", nameregex=".", argregex="a-mark$")
    found = asyncio.run(look([marked, replace(NGINX, name="no-such-process")]))
    assert [finding.count for finding in found] == [1, 0]
    assert os.getpid() in {process.pid for process in running()}
    assert child.stdin
    child.stdin.close()
    while child.poll() is None:  # ended, and not waited for by anybody else
        pass
    assert asyncio.run(look([marked]))[0].count == 0
