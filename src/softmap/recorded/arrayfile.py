"""A layer's arrays in one file, in the safetensors format (https://huggingface.co/docs/safetensors).

    8 bytes: the header's length · the header, JSON: each name's dtype, shape and place · the arrays, one after another

It is written here, and not by the safetensors library, for the SHA-256 is made in the same pass, views of one memory are
no obstacle, and each name, dtype and shape has one header alone: a reader that knows them compares it byte by byte, and
interprets nothing. Numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import torch

from softmap.errors import RecordingError

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LINE = 64  # bytes of a cache line
_PIECE = 1 << 24  # bytes that are hashed and written at once
AGAIN = "Take another copy of the recording, or record again."


class Spec(NamedTuple):
    """An array as a header names it.

    Attributes:
        dtype: one of `DTYPES`.
        shape: its sizes.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of its numbers."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def spec_of(name: str, array: Any) -> Spec:
    """The spec of a tensor that is to be written.

    Raises:
        RecordingError: something that the format has no name for.
    """
    if not isinstance(array, torch.Tensor) or array.dtype not in _NAMES:
        got = str(array.dtype) if isinstance(array, torch.Tensor) else type(array).__name__
        raise RecordingError(name, f"a tensor of {', '.join(map(str, _NAMES))}", got, "Convert it: array.float().")
    return Spec(_NAMES[array.dtype], tuple(array.shape))


class Layout(NamedTuple):
    """Where everything is in a file of these arrays.

    Attributes:
        header: the file's beginning, to its first number.
        places: the first and one past the last byte of each array, in their order in the file.
        size: the bytes of the whole file.
    """

    header: bytes
    places: dict[str, tuple[int, int]]
    size: int

    @classmethod
    def of(cls, specs: Mapping[str, Spec]) -> Layout:
        """The layout of these arrays.

        First come those that fill whole cache lines, so that each begins with one, as arrays in memory do: products of
        them then round alike. Of the rest wide dtypes come first, so that every number stands at a multiple of its size.
        """

        def rank(name: str) -> tuple[bool, int, str]:
            return specs[name].nbytes % _LINE != 0, -DTYPES[specs[name].dtype].itemsize, name

        order = sorted(specs, key=rank)
        ends, stop = {}, 0
        for name in order:
            start, stop = stop, stop + specs[name].nbytes
            ends[name] = (start, stop)
        named = {name: {**specs[name]._asdict(), "data_offsets": ends[name]} for name in order}
        text = json.dumps(named, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % _LINE)
        header = len(text).to_bytes(8, "little") + text
        first = len(header)
        return cls(header, {name: (first + start, first + stop) for name, (start, stop) in ends.items()}, first + stop)


def write(file: BinaryIO, arrays: Mapping[str, Tensor]) -> str:
    """Write a file of these arrays; its SHA-256, as hexadecimal digits. One of them at a time is copied at most."""
    layout = Layout.of({name: spec_of(name, array) for name, array in arrays.items()})
    digest = hashlib.sha256(layout.header)
    file.write(layout.header)
    for name in layout.places:
        flat = arrays[name].detach().cpu().contiguous().view(-1).view(torch.uint8)
        numbers: Any = memoryview(flat.numpy())  # type: ignore[arg-type]  # NumPy's arrays are buffers
        for start in range(0, len(numbers), _PIECE):
            piece = numbers[start : start + _PIECE]
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def check(path: Path, specs: Mapping[str, Spec], sha256: str | None) -> None:
    """See that a file is what it should be; of its numbers only where their checksum is given.

    Raises:
        RecordingError: it is none, of another size, has another header, or another checksum.
    """
    layout = Layout.of(specs)
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != layout.size:
            raise RecordingError(str(path), f"{layout.size:,} bytes", f"{size:,}, so that it is no longer whole", AGAIN)
        header = file.read(len(layout.header))
        if header != layout.header:
            expected = "a header that names the arrays of the manifest"
            raise RecordingError(str(path), expected, "another, so that it is damaged or of another recording", AGAIN)
        if sha256 is None:
            return
        digest = hashlib.sha256(header)
        while piece := file.read(_PIECE):
            digest.update(piece)
    if digest.hexdigest() != sha256:
        got = f"{digest.hexdigest()}, so that it is damaged"
        raise RecordingError(str(path), f"the SHA-256 {sha256}", got, AGAIN)


def mapped(path: Path, specs: Mapping[str, Spec]) -> dict[str, Tensor]:
    """The arrays of a file that was checked, as memory that is read where it is looked at.

    Who writes to them writes to a copy in memory; the file stays as it is.

    Raises:
        RecordingError: the system refuses to map it.
    """
    layout = Layout.of(specs)
    try:
        whole = torch.from_file(str(path), shared=False, size=layout.size, dtype=torch.uint8, device="cpu")
    except (RuntimeError, UnicodeError) as error:  # UnicodeError: a path that is no text
        hint = "A file larger than the machine's memory needs vm.overcommit_memory=1 on Linux."
        raise RecordingError(str(path), "a file that can be mapped to memory", str(error), hint) from error
    return {
        name: whole[start:stop].view(DTYPES[specs[name].dtype]).view(specs[name].shape)
        for name, (start, stop) in layout.places.items()
    }


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file of a recording, open to be read.

    Raises:
        RecordingError: there is none, it is a link or no file, or it can't be read.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):  # a pipe would be waited for
            got = "a link" if path.is_symlink() else "something that is no file"
            raise RecordingError(str(path), "a file in the recording's own folder", got, "Copy the file itself there.")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise RecordingError(str(path), "a file", "nothing there", AGAIN) from error
    except OSError as error:
        hint = "Look at who may read the recording, and at the disk."
        raise RecordingError(str(path), "a file that can be read", error.strerror or str(error), hint) from error
