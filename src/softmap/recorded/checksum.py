"""A file's checksum, compared beside what is looked at: reading a large file whole takes longer than opening it.

The comparison begins when the file is first read. What it finds to be wrong is refused from then on.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from softmap.errors import RecordingError
from softmap.forking import Lock
from softmap.recorded import arrayfile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from softmap.recorded.arrayfile import Spec

_LOCK = Lock()
_AT_ONCE = Lock()  # files that are read at once: a disk gains nothing by more


class Checksum:
    """The comparison of one file with its checksum.

    Args:
        path: the file.
        specs: its arrays.
        sha256: what it should have.
        state: ``compared`` where that was done, ``never`` where it is not wanted, else ``not yet``.
    """

    def __init__(
        self,
        path: Path,
        specs: Mapping[str, Spec],
        sha256: str,
        state: Literal["not yet", "running", "compared", "wrong", "never"] = "not yet",
    ) -> None:
        self.path, self.state = path, state
        self._specs, self._sha256 = specs, sha256
        self._error: RecordingError | None = None

    def look(self) -> None:
        """Say that the file is looked at: begin to compare it, unless that was begun.

        Raises:
            RecordingError: it was found to be damaged.
        """
        if self._error is not None:
            raise RecordingError(*self._error.args)
        if self.state == "not yet":
            with _LOCK:
                begins, self.state = self.state == "not yet", "running" if self.state == "not yet" else self.state
            if begins:
                try:
                    threading.Thread(target=self.compare, name=f"checksum of {self.path.name}", daemon=True).start()
                except RuntimeError:  # no more threads just now: the next look begins it
                    self.state = "not yet"

    def compare(self) -> None:
        """Read the file and compare it."""
        try:
            with _AT_ONCE:
                arrayfile.check(self.path, self._specs, self._sha256)
        except RecordingError as error:
            hint = f"What was shown of it before may be wrong. {error.hint}"
            self._error = RecordingError(error.subject, error.expected, error.got, hint)
            self.state = "wrong"
        except MemoryError:
            self.state = "not yet"
        else:
            self.state = "compared"


def describe(checksums: Iterable[Checksum]) -> tuple[int, int]:
    """How many files have been compared with their checksums, of how many."""
    states = [checksum.state for checksum in checksums]
    return states.count("compared"), len(states)
