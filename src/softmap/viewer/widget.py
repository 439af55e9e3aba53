"""The map in a notebook: the same page in a cell, which asks the kernel over the widget's own channel.

    page -> kernel   {id, name, params}; {cancel: id} where nobody waits for the answer any more
    kernel -> page   {id, ok: true, json}, or {id, ok: true, dtype, shape} and a buffer; {id, ok: false, json: {error}}

Threads of the worker compute the answers. They are sent from the kernel's own loop, for its sockets are for one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for
from typing import TYPE_CHECKING, Any

from softmap.errors import RecordingError, SoftmapError
from softmap.viewer.answers import Answers
from softmap.viewer.asking import Worker
from softmap.viewer.parameters import as_json
from softmap.viewer.shipped import read

try:
    from anywidget import AnyWidget
except ImportError as error:
    raise ImportError("softmap shows its map in notebooks with anywidget: pip install 'softmap[notebook]'") from error

if TYPE_CHECKING:
    from softmap.recorded import Recording
    from softmap.viewer.answers import Answer

log = logging.getLogger(__name__)


class MapWidget(AnyWidget):
    """A recording's map in a notebook.

    Args:
        recording: what is shown, of one sequence.
        layer: which layer is shown first, by its number in the model; chosen unless given.
        head: which head of it, counted from 0.

    Raises:
        ParameterError: no such layer or head.
        RecordingError: a batch of several sequences, or no layers.
        ImportError: anywidget is not installed.
    """

    _esm = read("softmap.js")
    _css = read("softmap.css")

    def __init__(self, recording: Recording, *, layer: int | None = None, head: int | None = None) -> None:
        self._recording = recording
        self._answers = Answers(recording, layer=layer, head=head)
        self._worker = Worker(self._answers)
        self._asked: dict[str, Future[Answer]] = {}
        super().__init__()
        self.on_msg(self._hear)

    def close(self) -> None:
        """End it wherever it is shown."""
        self._worker.close()
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget; and for where there is no kernel a picture of the head that it opens with."""
        from softmap.viewer.stills import as_html

        bundle: Any = super()._repr_mimebundle_(**kwargs)
        about: Any = self._answers.ask("about", {})
        try:
            still = as_html(self._recording[about["start"]["layer"], about["start"]["head"]])
        except RecordingError:  # statistics alone
            still = None
        data, metadata = bundle
        return data if still is None else data | {"text/html": still}, metadata

    def __repr__(self) -> str:
        return f"MapWidget({self._recording!r})"

    def _hear(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """A message of the page: a question, or that one is not waited for."""
        if "cancel" in message:
            asked = self._asked.pop(str(message["cancel"]), None)
            if asked is not None:
                asked.cancel()
            return
        name = str(message["id"])
        try:
            future = self._worker.submit(str(message["name"]), dict(message["params"]))
        except SoftmapError as error:
            self._refuse(name, error)
            return
        self._asked[name] = future
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a front end that calls without one: it gets its answer before it goes on
            wait_for([future])
            self._answer(name, future)
            return

        def answered(future: Future[Answer]) -> None:
            with contextlib.suppress(RuntimeError):  # the kernel has ended meanwhile
                loop.call_soon_threadsafe(self._answer, name, future)

        future.add_done_callback(answered)

    def _answer(self, name: str, future: Future[Answer]) -> None:
        """Send what a question ended in, unless nobody waits for it."""
        if self._asked.pop(name, None) is None:
            return
        try:
            answer = future.result()
        except CancelledError:
            return
        except SoftmapError as error:
            self._refuse(name, error)
        except Exception as error:
            log.exception("softmap could not answer")
            got, hint = f"{type(error).__name__}: {error}", "This is softmap's mistake; the widget goes on."
            self._refuse(name, SoftmapError("question", "an answer", got, hint))
        else:
            if isinstance(answer, dict):
                self.send({"id": name, "ok": True, "json": answer})
                return
            array = answer.array
            self.send({"id": name, "ok": True, "dtype": array.dtype.name, "shape": array.shape}, [array.tobytes()])

    def _refuse(self, name: str, error: SoftmapError) -> None:
        self.send({"id": name, "ok": False, "json": as_json(error)})
