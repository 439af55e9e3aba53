"""The connections of the map's server: how many there may be, and how long one may take for a question.

uvicorn takes any number of them, and waits for ever for a question that comes a byte at a time. Here

1. there are fewer than the process may have open files, whoever connects; to let in another, one is closed that has not
   asked with a cookie yet, the oldest first, or else one that waits for nothing;
2. who has no question answered, and asks none in full, is cut off after a while; so is who does not read an answer;
3. what goes wrong again and again is said once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

MOST = 512
"""Connections, at most; a browser opens six."""
SHARE = 2
"""Of the files that the process may still open, connections take one in so many."""
FEWEST = 16
"""Connections that there may be however few files the process may open."""
AT_ONCE = 16
"""Connections that are accepted before it is looked how many there are."""
QUEUE = 1024
"""Connections that wait to be accepted, at most."""
ASKING = 10.0
"""Seconds for a question in full, from when the connection was made, or the last answer given."""
FULL = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"

log = logging.getLogger(__name__)
quiet = logging.getLogger(f"{__name__}.requests")
quiet.setLevel(logging.ERROR)  # what is odd about a request is answered to who sent it


class Connection(H11Protocol):
    """One connection.

    Attributes:
        since: when it began to wait: when it was made, or last answered.
        admitted: whether something was asked on it with a cookie, or a link.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        most: int = MOST,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger, self._most = quiet, most
        self.admitted, self.since = False, time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0

    @property
    def is_busy(self) -> bool:
        """Whether something is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_admitted(self) -> bool:
        """Whether its reader has been let in."""
        self.admitted = self.admitted or bool(self.scope and self.scope.get("admitted"))
        return self.admitted

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take its place, of another if there is none."""
        super().connection_made(transport)
        if len(self.connections) > self._most and not self._make_room():
            transport.write(FULL)
            transport.close()
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next question."""
        _ = self.is_admitted  # before another question is read
        self.since = time.monotonic()
        super().on_response_complete()
        self._wait()

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(ASKING, self._end_waiting)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_waiting(self) -> None:
        """Cut it off, unless it is being answered, or reads a long answer."""
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        stalled = 0 < before <= self._unread
        if stalled or not (self.is_busy or self._unread):
            self.transport.abort()
        else:
            self._wait()

    def _make_room(self) -> bool:
        """Close the connection that is missed least, if there are too many. Return whether there is room."""
        others = [each for each in self.connections if each is not self and not each.transport.is_closing()]
        if len(others) < self._most:
            return True
        free = [each for each in others if isinstance(each, Connection) and not (each.is_admitted and each.is_busy)]
        if free:
            min(free, key=lambda each: (each.is_admitted, each.since)).transport.abort()
        return bool(free)


def limit() -> int:
    """How many connections there may be: not so many that the process could open no other file."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return MOST
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST
    with contextlib.suppress(OSError):
        files -= len(os.listdir("/dev/fd"))
    return min(MOST, max(FEWEST, files // SHARE))


class SaidOnce:
    """An event loop's handler of errors: what comes again and again, as when no more files may be opened, is said once."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Say it, unless it was said."""
        error = context.get("exception")
        key = context.get("message", ""), type(error).__name__
        if key not in self._said:
            self._said.add(key)
            shown = None if isinstance(error, OSError) else error
            log.error("softmap's server goes on; said once: %s: %s", context.get("message"), error, exc_info=shown)
