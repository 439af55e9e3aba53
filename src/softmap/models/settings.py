"""Settings of the whole process, changed for a while and put back.

One thread at a time is in here, so that none puts back what another has changed.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

from softmap.forking import Lock

_LOCK = Lock(reentrant=True)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, no reports on heads that are not used, no checkpoint sent away to be converted."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    with _LOCK, contextlib.ExitStack() as undo:
        variable = "DISABLE_SAFETENSORS_CONVERSION"
        undo.callback(_set_environment, variable, os.environ.get(variable))
        os.environ[variable] = "1"
        undo.callback(logging.set_verbosity, logging.get_verbosity())
        logging.set_verbosity_error()
        undo.callback(hub_logging.set_verbosity, hub_logging.get_verbosity())
        hub_logging.set_verbosity_error()
        if logging.is_progress_bar_enabled():
            undo.callback(logging.enable_progress_bar)
            logging.disable_progress_bar()
        yield


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Pause the garbage collector: what a first import of transformers makes stays, and searching it is a tenth of it."""
    with _LOCK, contextlib.ExitStack() as undo:
        if gc.isenabled():
            undo.callback(gc.enable)
            gc.disable()
        yield


@contextlib.contextmanager
def on_one_thread() -> Iterator[None]:
    """Keep torch to one thread: on products as small as a page's, handing out work costs more than it saves."""
    import torch

    with _LOCK, contextlib.ExitStack() as undo:
        undo.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        yield


def _set_environment(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value
