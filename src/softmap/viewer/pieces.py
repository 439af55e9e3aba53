"""The pieces of an exported file: what it holds, within a limit of bytes. page/file.js reads them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from softmap.escaping import json_text

Numbers = np.ndarray[Any, Any]
Value = Any
"""Numbers of float16, float32, float64 or int32, or what JSON can say."""


@dataclass(frozen=True)
class Piece:
    """One thing that is held.

    Attributes:
        name: what it is called, of letters, digits, points, dashes and slashes.
        dtype: that of its numbers, or ``json``.
        shape: that of its numbers; none of JSON.
        data: base64, so that no text in it is ever read as HTML.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: str

    @property
    def size(self) -> int:
        """Bytes that it takes in the file, with a line's end."""
        return len(self.element()) + 1

    def element(self) -> str:
        """The element that holds it, which no browser runs."""
        shape = ",".join(map(str, self.shape))
        kind = (
            f'type="application/octet-stream" data-piece="{self.name}" data-dtype="{self.dtype}" data-shape="{shape}"'
        )
        return f"<script {kind}>{self.data}</script>"


class Pieces:
    """What a file holds so far.

    Attributes:
        limit: bytes that it may have.
        size: bytes that it has.
    """

    def __init__(self, limit: int, taken: int) -> None:
        self.limit, self.size = limit, taken
        self._held: dict[str, Piece] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[Piece]:
        return iter(self._held.values())

    def add(self, values: Mapping[str, Value]) -> bool:
        """Hold all of these, where they fit together; whether they did. What is held already takes nothing."""
        new = self._new(values)
        size = sum(piece.size for piece in new)
        if self.size + size > self.limit:
            return False
        self._held |= {piece.name: piece for piece in new}
        self.size += size
        return True

    def size_with(self, values: Mapping[str, Value]) -> int:
        """The bytes that there would be with these."""
        return self.size + sum(piece.size for piece in self._new(values))

    def _new(self, values: Mapping[str, Value]) -> list[Piece]:
        return [pack(name, value) for name, value in values.items() if name not in self._held]


def pack(name: str, value: Value) -> Piece:
    """A piece of numbers or of JSON."""
    if not isinstance(value, np.ndarray):
        told = json_text(value, allow_nan=False, separators=(",", ":")).encode()
        return Piece(name, "json", (), _deflated(told))
    little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    planes = little.reshape(-1).view(np.uint8).reshape(-1, value.itemsize).T  # all first bytes, then all second ones
    return Piece(name, value.dtype.name, value.shape, _deflated(planes.tobytes()))


def _deflated(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")
