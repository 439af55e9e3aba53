"""Compiled models, run as they were written while they are recorded: tracing softmap's kernels would take minutes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_LOCK = threading.Lock()
_open = 0
"""How many blocks are open, of all threads: the first sets the stance, the last puts it back."""
_found: contextlib.ExitStack = contextlib.ExitStack()


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Have torch run what was compiled as it was written. The setting is the whole process's; compiled code is kept."""
    global _open
    with _LOCK:
        if not _open:
            _found.enter_context(torch.compiler.set_stance("force_eager"))
        _open += 1
    try:
        yield
    finally:
        with _LOCK:
            _open -= 1
            if not _open:
                _found.close()
