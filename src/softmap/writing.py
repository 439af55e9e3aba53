"""Files that appear when they are complete, never half."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        yield draft
        draft.replace(target)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error  # not the draft's name
    finally:
        draft.unlink(missing_ok=True)
