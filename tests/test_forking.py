"""A process that is forked while its threads compute: every child can go on by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from softmap.forking import Lock, cached_property

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

FORKING = """
import faulthandler, os, sys, threading, time
import torch
from softmap import AttentionMatrix, masks

torch.set_num_threads(4)
CHILDREN, SECONDS = int(sys.argv[1]), 60
q, k = torch.randn(2, 4, 700, 16)
held = AttentionMatrix(q, k, mask=masks.causal())  # which threads and children share
wanted = AttentionMatrix(q, k, mask=masks.causal()).received()
stop = threading.Event()

def compute():
    while not stop.is_set():
        m = AttentionMatrix(q, k, mask=masks.causal())
        m.received(), m.row(5), m.blocks(50, rows=slice(3, 400)), m.dense(), m.logsumexp()
        held.summary(), held[1:3].blocks(64, rows=slice(1, 500)), held.row(9)
        torch.randn(400, 400) @ torch.randn(400, 400)

def answer():
    for m in (held, AttentionMatrix(q, k, mask=masks.causal())):
        torch.testing.assert_close(m.received(), wanted, rtol=1e-4, atol=1e-5)
        sums = torch.as_tensor(m.dense()).sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
        m.blocks(64, rows=slice(1, 500)), m.diagonal(-1), m.summary()

threads = [threading.Thread(target=compute) for _ in range(3)]
for thread in threads:
    thread.start()
children = []
for _ in range(CHILDREN):
    time.sleep(0.03)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            answer()
            code = 0
        finally:
            os._exit(code)
    end, found = time.monotonic() + SECONDS, 0
    while found == 0 and time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if found == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    children.append("hung" if found == 0 else os.waitstatus_to_exitcode(status))
stop.set()
for thread in threads:
    thread.join()
print(children)
"""


def fork(count: int) -> str:
    ran = subprocess.run([sys.executable, "-c", FORKING, str(count)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.strip()


@forks
def test_a_child_of_a_process_whose_threads_compute_answers():
    assert fork(2) == str([0] * 2)


@forks
@pytest.mark.slow
def test_thirty_children_answer():
    assert fork(30) == str([0] * 30)


@forks
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_lock_that_another_thread_held_is_free_in_a_child(reentrant):
    lock, held, done = Lock(reentrant=reentrant), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if lock._lock.acquire(timeout=5) else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


@forks
def test_a_lock_that_the_forking_thread_holds_is_its_own_in_the_child():
    lock = Lock(reentrant=True)
    with lock:
        child = os.fork()
        if child == 0:
            try:
                lock.__exit__()
            except RuntimeError:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


class Counted:
    def __init__(self, barrier=None):
        self.barrier, self.count = barrier, 0

    @cached_property
    def value(self):
        """An object of its own."""
        self.count += 1
        if self.barrier is not None:
            self.barrier.wait(10)
        return object()


def test_a_property_is_computed_once():
    one = Counted()
    assert one.value is one.value
    assert one.count == 1
    assert Counted.value.__doc__ == "An object of its own."


def test_threads_that_compute_a_property_at_once_do_not_wait_for_each_other_and_get_the_same():
    one, found = Counted(threading.Barrier(2)), []
    threads = [threading.Thread(target=lambda: found.append(one.value)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1]


@forks
def test_a_child_that_is_forked_while_a_property_is_computed_computes_it():
    barrier = threading.Barrier(2)
    one = Counted(barrier)
    thread = threading.Thread(target=lambda: one.value)
    thread.start()
    while one.count == 0:
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        other = Counted()
        os._exit(7 if other.value is other.value else 1)
    end = time.monotonic() + 10
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, 9)
        time.sleep(0.01)
    barrier.wait(10)
    thread.join()
    assert os.waitstatus_to_exitcode(done[1]) == 7
