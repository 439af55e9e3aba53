"""Starting the map's server in a thread of this process, and opening its page in a browser."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import socket
import threading
import webbrowser
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from softmap.errors import ParameterError, SoftmapError
from softmap.viewer.answers import Answers
from softmap.viewer.asking import Worker
from softmap.viewer.connections import AT_ONCE, QUEUE, Connection, SaidOnce, limit
from softmap.viewer.keys import Keys
from softmap.viewer.redirect import redirect_to
from softmap.viewer.server import application

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.applications import Starlette

    from softmap.recorded import Recording

HOST = "127.0.0.1"
STARTING, ENDING = 10.0, 0.8
"""Seconds that are waited for a server to start, and to end; what is computed just then may go on a little longer."""
PATIENCE = 0.3
"""Seconds that an ending server gives to browsers to read what it has answered."""

log = logging.getLogger(__name__)


class View:
    """A recording's map, served to the browsers of this machine until it is closed, or Python ends.

    >>> with rec.view() as view:                       # doctest: +SKIP
    ...     print(view.url)
    ...     view.wait()

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(
        self, recording: Recording, *, port: int = 0, layer: int | None = None, head: int | None = None
    ) -> None:
        """Start it.

        Args:
            recording: what is shown, of one sequence.
            port: where to listen; a free one unless given.
            layer: which layer is shown first, by its number in the model; chosen unless given.
            head: which head of it, counted from 0.

        Raises:
            ParameterError: a port that is taken, or no port; no such layer or head.
            RecordingError: a batch of several sequences, or no layers.
            SoftmapError: a server that does not start.
        """
        answers = Answers(recording, layer=layer, head=head)
        listener = _listen(port)
        self.port: int = listener.getsockname()[1]
        self._keys, self._pid = Keys(), os.getpid()
        self._redirects = contextlib.ExitStack()
        self._worker = Worker(answers)
        try:
            self._server = _Server(application(self._worker, self._keys, self.port))
        except BaseException:
            listener.close()
            self._worker.close()
            raise
        self._ended = threading.Event()  # is waited for: a thread whose join Ctrl-C interrupts is taken for ended
        self._thread = threading.Thread(target=self._run, args=(listener,), name="softmap", daemon=True)
        self._thread.start()
        atexit.register(self._end)
        self._server.ready.wait(STARTING)
        if not self._server.started:
            self.close()
            expected, hint = f"one that starts within {STARTING:g} s", "The log says why; try again, or another port."
            raise SoftmapError("the map's server", expected, "none", hint)

    @property
    def url(self) -> str:
        """A new address of the page. It has a token in it, without which nobody gets in, and which lets in one browser."""
        return f"http://{HOST}:{self.port}/?token={self._keys.make_link()}"

    @property
    def start(self) -> tuple[int, int]:
        """The layer that the page opens with, by its number in the model, and the head."""
        about: Any = self._worker.submit("about", {}).result()
        return about["start"]["layer"], about["start"]["head"]

    def close(self) -> None:
        """End it. Pages that are open stay as they are, and get no more answers."""
        self._server.should_exit = True
        if os.getpid() != self._pid:  # a fork, in which nothing of it runs
            return
        self._redirects.close()
        if self._ended.wait(ENDING):
            self._thread.join()
            atexit.unregister(self._end)

    def wait(self) -> None:
        """Wait until it is closed, or Ctrl-C interrupts."""
        while not self._ended.wait(0.5):
            pass

    def open(self) -> bool:
        """Open the page in a browser; whether there was one.

        It is given a file of this user's own that goes on to the address: all users of a machine can read the command line
        on which a browser is started.
        """
        with contextlib.suppress(webbrowser.Error, OSError):
            return webbrowser.open(self._redirects.enter_context(redirect_to(self.url)).as_uri())
        return False

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "View(closed)" if self._server.should_exit else f"View(port={self.port})"

    def _end(self) -> None:
        """End it as Python ends, which nothing may outlive that computes: C++ would abort the process."""
        self._server.should_exit = True
        if os.getpid() == self._pid:
            self._redirects.close()
            self._ended.wait()

    def _run(self, listener: socket.socket) -> None:
        try:
            self._server.run([listener])
        except Exception:
            log.exception("softmap's server ended")
        finally:
            self._server.should_exit = True
            self._server.ready.set()
            listener.close()
            self._worker.close()
            self._ended.set()


class _Server(uvicorn.Server):
    """One that says when it is ready, and as it ends lets go of who still waits for an answer."""

    def __init__(self, app: Starlette) -> None:
        # what it logs goes where the process's own logging goes; asked by name: the same on every machine
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(Connection, most=limit()),  # type: ignore[arg-type]  # is only called
                backlog=AT_ONCE,
                loop="asyncio",
                ws="none",
                lifespan="off",
                interface="asgi3",
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self.ready = threading.Event()
        self._questions = app.state.questions

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(SaidOnce())
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(QUEUE)  # asyncio takes as many at once as it lets wait
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._questions.close()
        asyncio.get_running_loop().call_later(PATIENCE, self._abort)
        await super().shutdown(sockets)

    def _abort(self) -> None:
        """Cut off who has not read the answer yet."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _listen(port: int) -> socket.socket:
    """A socket that listens on this machine alone."""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 65536:
        raise ParameterError("port", "a number from 0 to 65535", repr(port), "0 takes a free one.")
    # With its protocol named asyncio sends small answers at once (TCP_NODELAY); else each would wait 40 ms for company.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":  # a port that was left a moment ago; elsewhere it would share one that is in use
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(QUEUE)
    except OSError as error:
        listener.close()
        hint = "Leave it out: softmap then takes one that is free."
        raise ParameterError(f"port {port}", "one that is free", error.strerror or str(error), hint) from error
    return listener
