"""Questions that wait for an answer: one thread computes them, another those that take long.

What was asked last is answered first, for that is what the reader looks at now; but once a question has waited for a while,
every other answer is that of the one which waits longest. Who asks the same at the same time shares one computation, and
who has gone is not computed for. What takes long rests while the first thread computes, so that a tile has the processor
to itself, but after a second of rest it has a tenth of one whatever is asked. While nobody asks, the first thread prepares what may come
next.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from softmap.errors import SoftmapError

if TYPE_CHECKING:
    from softmap.viewer.answers import Answer

WAITING = 256
"""Questions that wait in a line, at most."""
QUIET = 0.1
"""Seconds without a question after which something is prepared: between two of a page there are fewer."""
LONG = 1.0
"""Seconds that a question waits for others, at most: from then on it takes turns with them."""
TURN = 0.1
"""Seconds that what takes long goes on once it has waited for so long."""
PAUSE = 0.005
"""Seconds after which what takes long looks again whether it may go on."""

log = logging.getLogger(__name__)


class BusyError(SoftmapError, RuntimeError):
    """More questions than are answered in a while."""


class Answering(Protocol):
    """Who answers: `answers.Answers`."""

    def ask(self, name: str, params: Mapping[str, str], cancelled: Callable[[], bool]) -> Answer:
        """The answer to a question."""

    def takes_long(self, name: str, params: Mapping[str, str]) -> bool:
        """Whether others should not wait behind a question."""

    def prepare(self, cancelled: Callable[[], bool]) -> bool:
        """Compute a little of what may come next; whether there was anything."""


class Worker:
    """Has questions answered, in threads of its own, until it is closed.

    Args:
        answers: who answers them.
    """

    def __init__(self, answers: Answering) -> None:
        self._answers = answers
        self._soon = _Line("softmap-answers", answers.prepare)
        self._later = _Line("softmap-long-answers", lambda cancelled: False)

    def submit(self, name: str, params: Mapping[str, str]) -> Future[Answer]:
        """Have a question answered. `cancel()` of what it gives also ends what is being computed.

        Raises:
            BusyError: too many questions wait.
        """
        key, ask = (name, *sorted(params.items())), partial(self._answers.ask, name, dict(params))
        if self._answers.takes_long(name, params):
            return self._later.submit(key, lambda cancelled: ask(self._resting(cancelled)))
        return self._soon.submit(key, ask)

    def _resting(self, cancelled: Callable[[], bool]) -> Callable[[], bool]:
        """What says whether nobody waits any more, and before that waits while something is asked that does not take long."""
        own = 0.0  # until when it does not rest

        def rest() -> bool:
            nonlocal own
            now = time.monotonic()
            while now >= own and self._soon.is_answering and not cancelled():
                time.sleep(PAUSE)
                if time.monotonic() - now > LONG:
                    own = time.monotonic() + TURN
                    break
            return cancelled()

        return rest

    def close(self) -> None:
        """Answer nothing more: what waits is cancelled, and what is being computed ends at its next strip."""
        self._soon.close()
        self._later.close()


class _Job:
    """Something to compute, and who waits for it."""

    def __init__(self, key: Any, compute: Callable[[Callable[[], bool]], Answer]) -> None:
        self.key, self.compute, self.since = key, compute, time.monotonic()
        self.waiting: list[Future[Answer]] = []

    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return all(future.cancelled() for future in self.waiting)

    def tell(self, answer: Answer | None, error: Exception | None) -> None:
        """Tell who waits. Until then their futures count as pending, so that they can leave while it is computed."""
        for future in self.waiting:
            if not future.set_running_or_notify_cancel():
                continue
            if error is None:
                future.set_result(answer)  # type: ignore[arg-type]  # without an error there is one
            else:
                future.set_exception(error)

    def cancel(self) -> None:
        """Let nobody wait for it."""
        for future in self.waiting:
            future.cancel()


class _Line:
    """Jobs that wait for one thread; what came last is done first, in turn with what waits for long."""

    def __init__(self, name: str, prepare: Callable[[Callable[[], bool]], bool]) -> None:
        self._prepare = prepare
        self._jobs: list[_Job] = []
        self._running: _Job | None = None
        self._was_old = False  # whether the job before was one that had waited for long
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, key: Any, compute: Callable[[Callable[[], bool]], Answer]) -> Future[Answer]:
        """A future of what is computed; that of the same key, where it is not there yet."""
        future: Future[Answer] = Future()
        with self._changed:
            if self._closed:
                future.cancel()
                return future
            job = self._same(key) or self._added(key, compute)
            job.waiting.append(future)
            self._changed.notify()
        return future

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            jobs = [*self._jobs, *([self._running] if self._running else [])]
            self._jobs.clear()
            self._changed.notify()
        for job in jobs:
            job.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def is_answering(self) -> bool:
        """Whether something is computed that was asked for, or waits for it."""
        return self._running is not None or bool(self._jobs)

    def _same(self, key: Any) -> _Job | None:
        there = [*self._jobs, *([self._running] if self._running else [])]
        return next((job for job in there if job.key == key and not job.cancelled()), None)

    def _added(self, key: Any, compute: Callable[[Callable[[], bool]], Answer]) -> _Job:
        if len(self._jobs) >= WAITING:
            self._jobs = [job for job in self._jobs if not job.cancelled()]
        if len(self._jobs) >= WAITING:
            hint = "Wait until some are answered."
            raise BusyError("questions", f"at most {WAITING} that wait", f"{len(self._jobs) + 1}", hint)
        self._jobs.append(_Job(key, compute))
        return self._jobs[-1]

    def _work(self) -> None:
        more = True  # whether there may be something to prepare
        while not self._closed:
            job = self._next(QUIET if more else None)
            if job is not None:
                self._do(job)
                more = True
            elif more:
                more = self._prepare_some()

    def _do(self, job: _Job) -> None:
        answer, error, given_up = None, None, False
        try:
            answer = job.compute(job.cancelled)
        except CancelledError:
            given_up = True
        except Exception as caught:
            error = caught
        with self._changed:  # from here on nobody joins it
            self._running = None
            if given_up and not self._closed and not job.cancelled():
                self._jobs.append(job)  # somebody joined it at the last moment
        if not given_up:
            job.tell(answer, error)

    def _next(self, patience: float | None) -> _Job | None:
        """The next job; None where none comes for a while."""
        with self._changed:
            if not self._jobs and not self._closed:
                self._changed.wait(patience)
            self._jobs = [job for job in self._jobs if not job.cancelled()]
            self._running = self._jobs.pop(self._turn()) if self._jobs else None
            return self._running

    def _turn(self) -> int:
        """The place of the job whose turn it is: the last, or the one that waits longest."""
        oldest = min(range(len(self._jobs)), key=lambda place: self._jobs[place].since)
        self._was_old = not self._was_old and time.monotonic() - self._jobs[oldest].since > LONG
        return oldest if self._was_old else -1

    def _prepare_some(self) -> bool:
        """Prepare until somebody asks; whether there may be more of it."""
        try:
            while self._prepare(self._is_asked):
                if self._is_asked():
                    return True
        except CancelledError:
            return True
        except Exception:
            log.exception("softmap could not compute a map ahead of time")
        return False

    def _is_asked(self) -> bool:
        return self._closed or bool(self._jobs)
