"""Questions that wait: their order, who shares an answer, who leaves, and how many may wait; how parameters are read."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, wait

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmap.errors import ParameterError, SoftmapError
from softmap.viewer import asking
from softmap.viewer.asking import BusyError, Worker
from softmap.viewer.parameters import Parameters, as_json

SOON = 5  # seconds in which what should happen at once has happened, on a slow machine too


class Slow:
    """Answers what it was asked, one step at a time; a question is held up until it is let go."""

    def __init__(self):
        self.asked, self.stopped, self.prepared = [], [], 0
        self.go, self.begun = threading.Event(), threading.Semaphore(0)
        self.left = 0  # how much there is to prepare

    def ask(self, name, params, cancelled):
        self.asked.append(name)
        self.begun.release()
        if name == "fails":
            raise ParameterError("x", "y", "z", "w")
        while not self.go.wait(0.001):
            if cancelled():
                self.stopped.append(name)
                raise CancelledError
        return {"name": name, **params}

    def takes_long(self, name, params):
        return name == "long"

    def prepare(self, cancelled):
        self.prepared += 1
        self.left -= 1
        return self.left > 0


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def worker(slow, monkeypatch):
    monkeypatch.setattr(asking, "QUIET", 0.01)
    made = Worker(slow)
    yield made
    slow.go.set()
    made.close()


def begin(worker, slow, name="first"):
    """A question that is being computed."""
    future = worker.submit(name, {})
    assert slow.begun.acquire(timeout=SOON)
    return future


def until(happened):
    """Wait for something that happens soon."""
    deadline = time.monotonic() + SOON
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_was_asked_last_is_answered_first(worker, slow):
    futures = [begin(worker, slow), *(worker.submit(name, {}) for name in "abc")]
    slow.go.set()
    wait(futures, SOON)
    assert slow.asked == ["first", "c", "b", "a"]
    assert [future.result()["name"] for future in futures] == ["first", "a", "b", "c"]


def test_what_waits_for_long_takes_turns_with_what_is_asked_meanwhile(worker, slow, monkeypatch):
    monkeypatch.setattr(asking, "LONG", 0.05)
    futures = [begin(worker, slow), *(worker.submit(name, {}) for name in ("old", "older than new"))]
    time.sleep(0.1)
    futures += [worker.submit(f"new {i}", {}) for i in range(4)]
    slow.go.set()
    wait(futures, SOON)
    assert slow.asked == ["first", "old", "new 3", "older than new", "new 2", "new 1", "new 0"]


def test_no_question_starves_under_a_flood_of_younger_ones(worker, slow, monkeypatch):
    monkeypatch.setattr(asking, "LONG", 0.05)
    slow.go.set()
    count, ask = 0, slow.ask

    def flood(name, params, cancelled):  # whenever one is answered, two come
        nonlocal count
        for _ in range(2):
            count += 1
            if len(worker._soon._jobs) < 100:
                worker.submit(f"new {count}", {})
        time.sleep(0.001)
        return ask(name, params, cancelled)

    slow.ask = flood
    waiting = [worker.submit(f"old {i}", {}) for i in range(10)]
    done, left = wait(waiting, SOON)
    slow.ask = ask
    assert len(done) == 10, left
    assert count > 20


@pytest.mark.timed
def test_what_takes_long_has_its_turns_under_a_flood(monkeypatch):
    monkeypatch.setattr(asking, "LONG", 0.3)
    steps = []

    class Flooded:
        def ask(self, name, params, cancelled):
            if name == "tile":
                worker.submit("tile", {"n": str(len(steps)), "again": str(time.monotonic())})
                time.sleep(0.005)
                return {}
            while len(steps) < 20:
                time.sleep(0.01)
                assert not cancelled()
                steps.append(time.monotonic())
            return {}

        def takes_long(self, name, params):
            return name == "roles"

        def prepare(self, cancelled):
            return False

    worker = Worker(Flooded())
    worker.submit("tile", {})
    assert worker.submit("roles", {}).result(4 * SOON) == {}
    took = steps[-1] - steps[0]
    worker.close()
    assert took > 0.4  # it rests for the others all the same: 0.2 s without them


def test_asker_who_joins_what_is_just_being_given_up_gets_an_answer(worker, slow):
    given_up = threading.Event()

    class Late(list):  # between the look for who waits for the same, and joining them, the only one leaves
        def append(self, future):
            first.cancel()
            assert given_up.wait(SOON)
            super().append(future)

    def ask(name, params, cancelled):
        slow.begun.release()
        while not cancelled():
            time.sleep(0.001)
            if slow.go.is_set():
                return {"name": name}
        slow.go.set()
        given_up.set()
        raise CancelledError

    slow.ask = ask
    first = begin(worker, slow, "a")
    worker._soon._running.waiting = Late(worker._soon._running.waiting)
    assert worker.submit("a", {}).result(SOON) == {"name": "a"}


def test_who_asks_the_same_shares_one_computation(worker, slow):
    futures = [begin(worker, slow, "a"), *(worker.submit("a", {}) for _ in range(3))]
    futures += [worker.submit("b", {"x": "1", "y": "2"}), worker.submit("b", {"y": "2", "x": "1"})]
    slow.go.set()
    wait(futures, SOON)
    assert slow.asked == ["a", "b"]
    assert futures[-1].result() == {"name": "b", "x": "1", "y": "2"}


def test_an_answer_that_is_there_is_not_shared_with_who_asks_later(worker, slow):
    slow.go.set()
    for _ in range(3):
        worker.submit("a", {}).result(SOON)
    assert slow.asked == ["a"] * 3


def test_a_question_that_nobody_waits_for_is_not_computed(worker, slow):
    first, gone, stays = begin(worker, slow), worker.submit("gone", {}), worker.submit("stays", {})
    assert gone.cancel()
    slow.go.set()
    wait([first, stays], SOON)
    assert slow.asked == ["first", "stays"]


def test_what_is_being_computed_ends_when_its_last_asker_leaves(worker, slow):
    first = begin(worker, slow)
    other = worker.submit("first", {})
    assert first.cancel()
    time.sleep(0.05)
    assert slow.stopped == []
    assert other.cancel()
    following = begin(worker, slow, "following")
    assert slow.stopped == ["first"]
    slow.go.set()
    assert following.result(SOON)["name"] == "following"


def test_one_of_several_askers_may_leave(worker, slow):
    stays = begin(worker, slow)
    assert worker.submit("first", {}).cancel()
    slow.go.set()
    assert stays.result(SOON) == {"name": "first"}


def test_an_error_reaches_every_asker(worker, slow):
    begin(worker, slow)
    futures = [worker.submit("fails", {}) for _ in range(2)]
    slow.go.set()
    for future in futures:
        with pytest.raises(ParameterError, match="expected y"):
            future.result(SOON)


def test_too_many_that_wait_are_refused_until_some_have_left(worker, slow, monkeypatch):
    monkeypatch.setattr(asking, "WAITING", 3)
    begin(worker, slow)
    waiting = [worker.submit(name, {}) for name in "abc"]
    with pytest.raises(BusyError, match=r"questions: expected at most 3 that wait, got 4\. Wait"):
        worker.submit("d", {})
    assert worker.submit("a", {}) is not waiting[0]  # the same question takes no place
    waiting[1].cancel()
    worker.submit("d", {})
    with pytest.raises(BusyError):
        worker.submit("e", {})


def test_what_takes_long_keeps_nobody_waiting(slow, worker):
    begin(worker, slow, "long")
    quick = begin(worker, slow, "quick")
    slow.go.set()
    assert quick.result(SOON)["name"] == "quick"


def test_while_nobody_asks_something_is_prepared_until_all_is_there(slow, worker):
    slow.go.set()
    slow.left = 5
    worker.submit("a", {}).result(SOON)
    deadline = time.monotonic() + SOON
    while slow.left > 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert slow.left == 0
    prepared = slow.prepared
    time.sleep(0.05)
    assert slow.prepared == prepared


def test_a_question_goes_before_what_is_being_prepared_and_so_does_closing(slow, worker):
    slow.left = 10**9
    slow.go.set()
    worker.submit("a", {}).result(SOON)
    until(lambda: slow.prepared > 1)
    assert worker.submit("a", {}).result(SOON)["name"] == "a"
    assert slow.left > 0


def test_what_fails_ahead_of_time_leaves_questions_alone(slow, monkeypatch, caplog):
    monkeypatch.setattr(asking, "QUIET", 0.001)
    slow.prepare = lambda cancelled: 1 / 0
    slow.go.set()
    worker = Worker(slow)
    time.sleep(0.05)
    assert worker.submit("a", {}).result(SOON) == {"name": "a"}
    worker.close()
    assert "softmap could not compute a map ahead of time" in caplog.messages


def test_something_is_prepared_before_anybody_asks_and_again_after_it_was_given_up(slow, monkeypatch):
    monkeypatch.setattr(asking, "QUIET", 0.01)
    seen = []

    def prepare(cancelled):
        seen.append(cancelled())
        if len(seen) == 1:
            raise CancelledError
        return len(seen) < 4

    slow.prepare = prepare
    worker = Worker(slow)
    until(lambda: len(seen) == 4)
    worker.close()
    assert seen == [False] * 4


def test_threads_are_named_and_only_the_first_prepares(slow, worker):
    assert {"softmap-answers", "softmap-long-answers"} <= {thread.name for thread in threading.enumerate()}
    assert worker._later._prepare(lambda: False) is False


def test_two_questions_that_take_long_are_two(slow, worker):
    futures = [worker.submit("long", {"x": x}) for x in "12"]
    slow.go.set()
    assert [future.result(SOON)["x"] for future in futures] == ["1", "2"]


def test_what_takes_long_does_not_rest_where_nothing_else_is_answered(slow, worker, monkeypatch):
    slow.go.set()
    worker.submit("a", {}).result(SOON)
    assert not worker._soon.is_answering
    monkeypatch.setattr(asking, "LONG", SOON)
    before = time.monotonic()
    assert worker._resting(lambda: False)() is False
    assert time.monotonic() - before < SOON / 2


def test_what_takes_long_has_a_turn_after_it_has_rested(slow, worker, monkeypatch):
    monkeypatch.setattr(asking, "LONG", 0.1)
    monkeypatch.setattr(asking, "TURN", 60)
    begin(worker, slow)
    rest, steps = worker._resting(lambda: False), []
    for _ in range(4):
        before = time.monotonic()
        assert rest() is False
        steps.append(time.monotonic() - before >= 0.1)
    assert steps == [True, False, False, False]


def test_turn_of_what_waits_for_long_is_the_oldests_wherever_it_stands(worker, slow, monkeypatch):
    monkeypatch.setattr(asking, "LONG", 0.02)
    futures = [begin(worker, slow), *(worker.submit(name, {}) for name in ("old", "new", "newest"))]
    worker._soon._jobs[:2] = worker._soon._jobs[1::-1]  # as one that was joined at the last moment
    time.sleep(0.05)
    slow.go.set()
    wait(futures, SOON)
    assert slow.asked[1] == "old"


def test_closing_cancels_what_waits_and_what_is_computed(slow):
    worker = Worker(slow)
    futures = [begin(worker, slow), worker.submit("a", {})]
    worker.close()
    assert all(future.cancelled() for future in futures)
    assert slow.stopped == ["first"]
    assert worker.submit("b", {}).cancelled()
    worker.close()


class TestParameters:
    @given(st.text(max_size=30))
    def test_a_number_is_digits_within_its_range(self, text):
        read = Parameters({"n": text}, ("n",))
        plain = text.isascii() and text.isdigit()
        if plain and 3 <= int(text) <= 70:
            assert read.number("n", 3, 70) == int(text)
        else:
            with pytest.raises(ParameterError, match="n: expected a whole number from 3 to 70, got"):
                read.number("n", 3, 70)

    def test_what_is_missing_has_a_default_or_is_asked_for(self):
        read = Parameters({}, ("n",))
        assert read.number("n", 0, 9, default=4) == 4
        assert read.choice("how", ("a", "b"), "b") == "b"
        assert read.flag("words") is False
        with pytest.raises(ParameterError, match=r"n: expected a value, got none\. Say which"):
            read.number("n", 0, 9)

    @pytest.mark.parametrize("value", ["2", "", "true", "１"])
    def test_a_flag_is_0_or_1(self, value):
        with pytest.raises(ParameterError, match="words: expected 0 or 1"):
            Parameters({"words": value}, ("words",)).flag("words")

    def test_pairs_are_numbers_with_a_point(self):
        assert Parameters({"h": "3.1,10.2"}, ("h",)).pairs("h", 2) == [("3", "1"), ("10", "2")]
        for value in ("", "3", "3.1,", "3.1 ,2.2", "-1.2", "1.²"):
            with pytest.raises(ParameterError, match=r"h: expected layer\.head"):
                Parameters({"h": value}, ("h",)).pairs("h", 9)
        with pytest.raises(ParameterError, match="h: expected at most 2, got 3"):
            Parameters({"h": "1.1,1.2,1.3"}, ("h",)).pairs("h", 2)

    def test_a_long_text_is_refused_and_a_long_value_is_cut_where_it_is_quoted(self):
        with pytest.raises(ParameterError, match="text: expected at most 200 characters, got 201"):
            Parameters({"text": "a" * 201}, ("text",)).text("text")
        with pytest.raises(ParameterError) as caught:
            Parameters({"a" * 1000: "1"}, ("n",))
        assert len(str(caught.value)) < 200

    def test_an_error_as_json_has_its_four_parts(self):
        told = as_json(SoftmapError("x", "y", "z", "Do w."))
        assert told == {
            "error": {
                "message": "x: expected y, got z. Do w.",
                "subject": "x",
                "expected": "y",
                "got": "z",
                "hint": "Do w.",
            }
        }


def test_what_takes_long_rests_while_something_else_is_answered():
    steps, quick, over = [], threading.Event(), threading.Event()

    class Both:
        def ask(self, name, params, cancelled):
            if name == "tile":
                quick.set()
                before = len(steps)
                time.sleep(0.2)
                return {"steps meanwhile": len(steps) - before}
            while not over.is_set():
                if cancelled():
                    raise CancelledError
                steps.append(1)
                time.sleep(0.002)
            return {}

        def takes_long(self, name, params):
            return name == "roles"

        def prepare(self, cancelled):
            return False

    worker = Worker(Both())
    long = worker.submit("roles", {})
    while not steps:
        time.sleep(0.001)
    meanwhile = worker.submit("tile", {}).result(SOON)["steps meanwhile"]
    gone_on = len(steps)
    while len(steps) == gone_on:
        time.sleep(0.001)
    over.set()
    assert long.result(SOON) == {}
    assert meanwhile <= 2
    worker.close()
