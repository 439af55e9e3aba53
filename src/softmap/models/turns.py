"""Whose runs of a model are recorded: those of one thread, where several run it while a recording is open.

The block's own thread comes first. As long as that has not run the model, a thread that was started since the block was
opened is taken for its own (``generate`` in a thread, whose words a streamer hands over); then any other. What a thread
runs that is not taken is its own business: it computes what it would without a recording.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakSet

import torch

from softmap.errors import ModelError, SoftmapError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from threading import Thread

    from torch import nn

PATIENCE_S = 30.0
"""How long the end of a block waits for another thread's present run of the model, which ends without it."""


def _nothing() -> None:
    pass


@dataclass(eq=False)
class Turns:
    """The threads that run a model while it is recorded, and which of them is recorded.

    Attributes:
        name: the model, as errors name it.
        any_thread: whether another thread than the block's own may be recorded.
        forget: called when what was recorded of a thread so far is let go, for one that comes first.
    """

    name: str
    any_thread: bool
    forget: Callable[[], None] = _nothing
    lock: threading.RLock = field(default_factory=threading.RLock)
    _opener: Thread = field(default_factory=threading.current_thread)
    _there: WeakSet[Thread] = field(default_factory=lambda: WeakSet(threading.enumerate()))
    _owner: Thread = field(default_factory=threading.current_thread)
    _ran: bool = False
    _left_out: dict[Thread, str] = field(default_factory=dict)
    _errors: dict[Thread, SoftmapError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._here = threading.local()  # how deep a thread is in runs of the model, and whether it had gradients
        self._closing = self._closed = self._cut_off = False
        self._busy: WeakSet[Thread] = WeakSet()
        self._rest = threading.Condition(self.lock)
        self._away: set[Thread] = set()  # threads other than the block's own, in a run that is recorded, or was

    def open(self, modules: Collection[nn.Module]) -> None:
        """Leave out the threads that are running the model already: what they have read was not seen."""
        if self.any_thread:
            self._busy.update(thread for thread in self._there if _stands_in(thread, modules))
            self._busy.discard(self._opener)

    def is_elsewhere(self) -> bool:
        """Whether what the thread that asks runs just now is not recorded."""
        return self._closed or threading.current_thread() is not self._owner or self._drafts()

    def is_running(self) -> bool:
        """Whether the thread that asks is in a run of the model, or of a part of it that says where its runs begin."""
        return bool(self._here.__dict__.get("depth", 0))

    def generates(self, module: nn.Module, *_: object) -> None:
        """A model begins to generate. What it generates while it does is its own drafts, as with assistant_early_exit."""
        generating = self._here.__dict__.setdefault("generating", [])
        if not generating:
            self._here.ran = False
        generating.append(module)

    def generated(self, *_: object) -> None:
        """It has generated."""
        self._here.generating.pop()

    def goes_on_generating(self) -> bool:
        """Whether the call of ``generate`` that the thread is in has run the model before this run, which begins."""
        here = self._here.__dict__
        before = bool(here.get("generating")) and here.get("ran", False)
        self._here.ran = True
        return before

    def _drafts(self) -> bool:
        generating = self._here.__dict__.get("generating", [])
        return len(set(generating)) < len(generating)

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Give whether the thread that asks is recorded, which stays so in the block."""
        if self.is_elsewhere():  # only it itself can change that, where it begins a run
            yield False
            return
        with self.lock:
            yield not self.is_elsewhere()

    def enter(self) -> bool:
        """A model, or a part of one, begins to run. Return whether it is the outermost, and is to be recorded."""
        depth = self._here.__dict__.setdefault("depth", 0)
        self._here.depth = depth + 1
        if depth:
            return False
        thread = threading.current_thread()
        with self.lock:
            if self._closing or self._drafts() or not self._take(thread):
                return False
            self._ran = True
            if thread is not self._opener:
                self._away.add(thread)
                self._here.gradients = torch.is_grad_enabled()
                torch.set_grad_enabled(False)  # as in the block; a new thread has them on
        return True

    def leave(self) -> bool:
        """It has run. Return whether it is recorded."""
        self._here.depth = max(0, self._here.__dict__.get("depth", 0) - 1)  # it may have begun before the block did
        with self.lock:
            ours = not self.is_elsewhere()
            if not self._here.depth and "gradients" in self._here.__dict__:
                torch.set_grad_enabled(self._here.__dict__.pop("gradients"))
                self._away.discard(threading.current_thread())
                self._closed |= self._closing and ours  # it may begin its next run right away
                self._rest.notify_all()
            return ours

    def keeps(self, error: SoftmapError) -> bool:
        """Whether an error is kept for the end of the block: another thread's is, as a streamer waits for its words.

        Such a thread is not recorded any more. The block's own raises its errors itself.
        """
        if threading.current_thread() is self._opener:
            return False
        self._errors[self._owner] = error
        self._release()
        return True

    def close(self) -> None:
        """Record no run that begins from now on, and wait for another thread's present one: it is recorded whole."""
        with self.lock:
            self._closing = True
            self._cut_off = not self._rest.wait_for(lambda: not self._away, PATIENCE_S)
            self._closed = True

    def check(self, modules: Collection[nn.Module]) -> None:
        """Refuse what is not one thread's, or not yet over.

        Args:
            modules: those of the model.

        Raises:
            ModelError: a thread that is still at it, or runs of several threads, none of them the block's own.
            SoftmapError: what went wrong in another thread, where nothing else was recorded.
        """
        if not self._ran:
            self._check_others(modules)
            return
        other = self._owner is not self._opener
        if other and (self._cut_off or _stands_in(self._owner, modules)):
            hint = "Join the thread in the block."
            raise ModelError(self.name, "a run that ends in the block", f"one in {_named(self._owner)}", hint)
        rank = min(1, self._rank(self._owner))
        beside = [_named(thread) for thread in self._left_out | self._errors if self._rank(thread) >= rank]
        if beside and other:
            got = f"runs in {', '.join([_named(self._owner), *beside])}"
            raise ModelError(self.name, "runs of the model in one thread", got, "Open a block for each, in turn.")
        if beside:
            warnings.warn(
                f"{self.name}: what this thread ran is recorded, and not what {', '.join(beside)} ran in the block.",
                stacklevel=6,
            )

    def waiting(self) -> str:
        """The threads that were started since the block was opened and are still alive, as a hint; empty without any."""
        new = [_named(thread) for thread in threading.enumerate() if self._rank(thread) == 1]
        return f" Join in it what was started there: {', '.join(new)}." if new else ""

    def _check_others(self, modules: Collection[nn.Module]) -> None:
        """Say what became of other threads' runs, where none was recorded."""
        for thread, error in self._errors.items():
            raise type(error)(f"{error.subject} (in {_named(thread)})", error.expected, error.got, error.hint)
        expected = "a run of the model in the block"
        for thread, why in self._left_out.items():
            hint = "Run it in the block's thread, or start that thread in the block."
            raise ModelError(self.name, expected, f"one in {_named(thread)}, {why}", hint)
        for thread in threading.enumerate():
            if thread is not self._opener and _stands_in(thread, modules):
                got = f"one in {_named(thread)} that has not ended"
                raise ModelError(self.name, expected, got, "Join the thread in the block.")

    def _take(self, thread: Thread) -> bool:
        """Decide whether a run of this thread, which begins, is recorded."""
        why = self._reason(thread)
        if thread is self._owner and why is None:
            return True
        if thread is self._owner:  # one of before the block, which trains now
            self._release()
        present = self._rank(self._owner) if self._ran else -1
        if why is None and self._rank(thread) > present:
            if self._ran:
                self._left_out[self._owner] = "before the block's own ran"
            self.forget()
            self._owner, self._ran = thread, False
            return True
        if self.any_thread:
            self._left_out.setdefault(thread, why or f"beside {_named(self._owner)}")
        return False

    def _release(self) -> None:
        """Let go of another thread, and of what was recorded of it."""
        self.forget()
        self._owner, self._ran = self._opener, False

    def _rank(self, thread: Thread) -> int:
        """Who comes first: the block's own thread, then one that was started since, then any other."""
        return 2 if thread is self._opener else int(thread not in self._there)

    def _reason(self, thread: Thread) -> str | None:
        """Why a thread is not recorded, were it the only one; None where it can be."""
        if thread is self._opener:
            return None
        if not self.any_thread:
            return "another than the one that records"
        if thread in self._busy:
            return "which was running the model before the block"
        if thread in self._errors:
            return "after an error"
        if not self._rank(thread) and torch.is_grad_enabled():
            return "which had gradients on"
        return None


def _named(thread: Thread) -> str:
    return f"thread {thread.name!r}"


def _stands_in(thread: Thread, modules: Collection[nn.Module]) -> bool:
    """Whether a thread is in a method of one of these modules: of its forward, or in ``generate``."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        if names and any(frame.f_locals.get(names[0]) is module for module in modules):
            return True
        frame = frame.f_back
    return False
