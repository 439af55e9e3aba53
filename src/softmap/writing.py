"""Files that appear when they are complete, never half."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED: dict[object, Callable[[], object]] = {}


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place to write to, which takes the path's place once it is written.

    Raises:
        OSError: the path can't be written to.
    """
    target = Path(path).resolve()  # a link stays a link
    if target.exists() and not target.is_file():  # a pipe or a device: nothing to replace
        yield target
        return
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with unfinished(lambda: draft.unlink(missing_ok=True)):
            yield draft
            draft.replace(target)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error  # not the draft's name
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def unfinished(remove: Callable[[], object]) -> Iterator[None]:
    """Name what removes an unfinished file, for a process that ends before it is finished or removed."""
    key = object()
    _UNFINISHED[key] = remove
    try:
        yield
    finally:
        del _UNFINISHED[key]


def remove_unfinished() -> None:
    """Remove what is not finished yet, what was begun last first: the process ends at once."""
    for remove in reversed(list(_UNFINISHED.values())):
        with contextlib.suppress(Exception):
            remove()
