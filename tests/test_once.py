"""A property that is computed once: what is kept, and who waits for whom."""

from __future__ import annotations

import os
import threading
import time

import pytest

from softmap.once import once


class Slow:
    """Something that takes as long as it is let."""

    def __init__(self):
        self.begun, self.go, self.made = threading.Event(), threading.Event(), 0

    @once
    def value(self):
        """A value."""
        self.begun.set()
        assert self.go.wait(10)
        self.made += 1
        return object()


@pytest.fixture
def computing():
    """One that a thread is computing."""
    slow = Slow()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    assert slow.begun.wait(10)
    yield slow
    slow.go.set()
    thread.join()


def test_value_is_computed_once_and_kept():
    slow = Slow()
    assert "value" not in vars(slow)
    slow.go.set()
    assert slow.value is slow.value
    assert slow.made == 1
    assert Slow.value.__doc__ == "A value."


def test_one_that_is_computed_keeps_no_other_waiting(computing):
    other = Slow()
    other.go.set()
    start = time.monotonic()
    assert other.value is other.value
    assert time.monotonic() - start < 1
    assert not computing.go.is_set()


def test_threads_that_compute_at_the_same_time_get_the_same(computing):
    found = []
    threads = [threading.Thread(target=lambda: found.append(computing.value)) for _ in range(3)]
    for thread in threads:
        thread.start()
    computing.go.set()
    for thread in threads:
        thread.join()
    assert all(each is computing.value for each in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_child_that_is_forked_while_it_is_computed_computes_it(computing):
    child = os.fork()
    if child == 0:
        computing.go.set()
        os._exit(7 if computing.value is computing.value else 1)
    end = time.monotonic() + 10
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, 9)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(done[1]) == 7
