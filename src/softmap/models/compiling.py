"""Compiled models, run as they were written while they are recorded: tracing softmap's kernels would take minutes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from softmap.forking import Lock

_LOCK = Lock()
_blocks: list[object] = []
"""The blocks that are open, of all threads: the first of them sets the stance, the last one puts it back."""
_found = contextlib.ExitStack()


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Have torch run what was compiled as it was written. The setting is the whole process's; compiled code is kept."""
    block = object()
    with _LOCK:
        if not _blocks:
            _found.enter_context(torch.compiler.set_stance("force_eager"))
        _blocks.append(block)
    try:
        yield
    finally:
        with _LOCK:
            _blocks.remove(block)
            if not _blocks:
                _found.close()
