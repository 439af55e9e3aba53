"""The map: a page in which one sees a whole attention matrix and every number in it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softmap.recorded import Recording
    from softmap.viewer.launch import View
    from softmap.viewer.widget import MapWidget


def view(recording: Recording, *, port: int = 0, layer: int | None = None, head: int | None = None) -> View | MapWidget:
    """Show a recording's map: in a notebook the widget, else a page in a browser, from a server that ends with Python.

    Args:
        recording: what is shown, of one sequence.
        port: where to serve the page, on 127.0.0.1; a free port unless given. A widget needs none.
        layer: which layer to show first, by its number in the model; chosen unless given.
        head: which head of it, counted from 0; chosen unless given.

    Raises:
        ParameterError: a port that is taken; no such layer or head.
        RecordingError: a batch of several sequences.
    """
    if _in_notebook():
        from softmap.viewer.widget import MapWidget

        return MapWidget(recording, layer=layer, head=head)
    from softmap.viewer.launch import View

    shown = View(recording, port=port, layer=layer, head=head)
    shown.open()
    return shown


def _in_notebook() -> bool:
    """Whether this is the kernel of a notebook; IPython in a terminal has none."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
