"""How a command ends: by itself, or within two seconds of Ctrl-C, whatever it is in the middle of.

1. The first signal raises KeyboardInterrupt: what is open is closed, and no file is left half written. In an import, where
   nothing is open yet and C++ may abort, it ends the process at once.
2. Python raises it between two steps of its own code only, and what it falls into may swallow it: an import, `__del__`, a
   library. So a thread hears of signals as well, and ends the process where that takes too long, or at a second one.
3. The process ends without Python's own end, in which a signal would be lost, or would be the exit code.

The exit code is 128 and the signal's number, as in shells: 130 after Ctrl-C. Only the command line does this; a program
that uses softmap decides about signals by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from softmap.writing import remove_unfinished

if TYPE_CHECKING:
    import socket

PATIENCE = 1.2
"""Seconds that a command has to end in order; what computes in C++, or waits, may need more."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
INTERRUPTED = 128 + signal.SIGINT
SHOW_CURSOR = b"\x1b[?25h"
BROKEN_PIPE = 128 + 13
"""The exit code where nobody reads what is printed, as if by SIGPIPE, which Python ignores."""

_first: int | None = None  # the signal that came first
_leaving = False  # whether the command has ended, and nothing may be raised any more


def came() -> bool:
    """Return whether a signal has asked the command to end."""
    return _first is not None


def run(command: Callable[[], object]) -> NoReturn:
    """Run a command, and end the process with its exit code; after a signal with the signal's."""
    code = 0
    try:
        if threading.current_thread() is threading.main_thread():
            _listen()
        command()
    except KeyboardInterrupt:
        code = INTERRUPTED
        _say("interrupted")
    except SystemExit as end:
        code = _code_of(end)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    _leave(code)


def _listen() -> None:
    """Handle the signals that are not ignored, as they are in a job that a shell runs in the background."""
    for each in SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _interrupt)
    import socket  # once signals are handled; Windows waits for nothing else

    near, far = socket.socketpair()
    far.setblocking(False)
    signal.set_wakeup_fd(far.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(near,), name="softmap-signals", daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt once: a second one would interrupt what is being closed."""
    global _first  # noqa: PLW0603
    if _first is None:
        _first = number
        if _is_importing(frame):
            _end()
        if not _leaving:
            raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a module is being imported: C++ that registers itself there aborts the process on an exception."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _watch(near: socket.socket) -> None:
    """Wait for a signal; end the process once it has had its time."""
    global _first  # noqa: PLW0603
    heard = 0
    while heard not in SIGNALS:
        heard = near.recv(1)[0]
    if not _leaving:
        select.select([near], [], [], PATIENCE)
    _first = _first or heard
    _end()


def _end() -> NoReturn:
    """End the process at once; no file is left half written."""
    remove_unfinished()
    _say("interrupted")
    os._exit(128 + (_first or 0))


def _say(message: str) -> None:
    """Write past sys.stderr, which another thread may hold; a terminal shows its cursor again, which a bar may have hidden."""
    with contextlib.suppress(OSError):
        os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + message.encode(errors="backslashreplace") + b"\n")


def _code_of(end: SystemExit) -> int:
    """Return the exit code that Python would give; what is no number is a message."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    _say(str(end.code))
    return 1


def _leave(code: int) -> NoReturn:
    """End the process: what waits for Python's end is called, and what is printed is flushed."""
    global _leaving  # noqa: PLW0603
    _leaving = True
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    remove_unfinished()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            code = BROKEN_PIPE if error.errno == errno.EPIPE else code or 1
        except (AttributeError, ValueError):  # there is none, or it is closed
            continue
    os._exit(code if _first is None else 128 + _first)
