"""Calls in forked processes: results in order, errors passed on, and a process that ends takes no other call along."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ssd.conformance.forks import forked

KILLED = """
import os, time
from ssd.conformance.forks import forked

def call(number):
    print("forked", flush=True)
    time.sleep(600)

forked(call, 2, 2)
"""


def test_results_stand_in_the_order_of_the_numbers_and_come_from_other_processes() -> None:
    offset = object()  # cannot be sent to another process
    found = forked(lambda number: (number, os.getpid(), id(offset)), 6, 2)
    assert [number for number, _, _ in found] == [0, 1, 2, 3, 4, 5]
    assert os.getpid() not in {process for _, process, _ in found}
    assert {mine for _, _, mine in found} == {id(offset)}
    assert forked(abs, 0, 2) == []


def test_a_call_that_ends_its_process_is_none_and_all_others_are_done() -> None:
    def ends(number: int) -> int:
        if number in (1, 3):
            os._exit(0)
        return number

    assert forked(ends, 5, 2) == [0, None, 2, None, 4]


def test_an_error_is_raised_here() -> None:
    def fails(number: int) -> int:
        raise ValueError(f"number {number}")

    with pytest.raises(ValueError, match="number 2"):
        forked(fails, 3, 1)


def test_forks_of_a_process_that_is_killed_end_as_well() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert [killed.stdout.readline() for _ in range(2)] == ["forked\n"] * 2
        killed.kill()
        assert killed.stdout.read() == ""  # it ends where nobody is left who could write
