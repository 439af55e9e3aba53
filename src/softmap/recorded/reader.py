"""Opening a recording's folder. What is opened is checked first; arrays are mapped to memory, and read when looked at."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from softmap.errors import ParameterError, RecordingError
from softmap.recorded import arrayfile, manifest, parts
from softmap.recorded.arrayfile import DTYPES, Layout, Spec
from softmap.recorded.checksum import Checksum
from softmap.recorded.entries import Arrays
from softmap.recorded.pictures import read_picture
from softmap.recorded.recording import Origin, RecordedSequence, Recording

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from softmap.recorded.entries import Entry
    from softmap.recorded.layer import RecordedLayer
    from softmap.recorded.pictures import Picture
    from softmap.tokens import Tokens

VERIFIED = 1 << 28
"""Bytes of all files together up to which their checksums are read unless told otherwise: 256 MiB, under a second."""
FIELDS = ("complete", "origin", "sequences", "others", "layers")
"""What a manifest has besides its checksum, format and version; and `PICTURES`, where there are any."""
PICTURES, NAME_OF_PICTURES = "pictures", "pictures.safetensors"
_UNKNOWN = Origin("unknown", "unknown", None, "unknown", "unknown", {})


def load(path: str | os.PathLike[str], *, partial: bool = False, verify: bool | None = None) -> Recording:
    """Open a recording that was saved. Its arrays stay in their files, and are read where they are looked at.

    Whatever its size it opens at once: sizes, headers and everything in the manifest are checked, and the checksum of
    each file where all of them together have at most 256 MiB. Beyond that reading them would take longer than what one
    looks at: a file is compared with its checksum in the background, from when it is first looked at, and everything
    asked of one that is damaged is refused once that is known. `Recording.verified` counts the files that are known to be
    right; `verify=True` reads them all at once.

    The files must stay as they are while the recording is in use: one that is cut short then ends the process.

    Args:
        path: the folder.
        partial: whether to open the complete layers of a recording that was cut off; `Recording.partial` then says what
            is missing. One that is whole opens as always.
        verify: whether the checksums of the files are read at once; by their size unless given. False: never.

    Raises:
        RecordingError: no recording, one that was cut off, a damaged one, or one of a newer softmap.
        ParameterError: verify is neither True, False nor None.
    """
    if verify is not None and not isinstance(verify, bool):
        hint = "None reads the checksums of recordings up to 256 MiB, and those of larger ones in the background."
        raise ParameterError("verify", "True, False or None", repr(verify), hint)
    folder = _folder(path)
    content = manifest.read(folder)
    complete, _, _, _, layers, pictures = content.fields(*FIELDS, optional=PICTURES)
    entries = layers.items()
    if not complete.flag() and not partial:
        hint = f"softmap.load({str(path)!r}, partial=True) opens its complete layers."
        raise RecordingError(str(folder), "a recording that was finished", f"one {_missing(len(entries))}", hint)
    if not complete.flag() and not entries:
        raise RecordingError(str(folder), "at least one complete layer", "none before it was cut off", "Record again.")
    files = [_read_file(folder, name_of(number), entry) for number, entry in enumerate(entries)]
    of_pictures = pictures.optional(lambda entry: _read_file(folder, NAME_OF_PICTURES, entry))
    all_files = [*files, *filter(None, [of_pictures])]
    later = verify is None and sum(Layout.of(file.specs).size for file in all_files) > VERIFIED
    at_once = verify if verify is not None else not later
    for file in all_files:
        now = at_once or (later and file is of_pictures)  # pictures are small, and read whole
        arrayfile.check(file.path, file.specs, file.sha256 if now else None)
    seen = of_pictures and read_pictures(of_pictures.sequences, arrayfile.mapped(of_pictures.path, of_pictures.specs))
    state: Any = "compared" if at_once else "not yet" if later else "never"
    layers_read = [_checked(file, state) for file in files]
    return assemble(content, layers_read, seen)


def _checked(file: _File, state: Any) -> list[RecordedLayer]:
    """The layers of a file, which know whether it has been compared with its checksum."""
    checksum = Checksum(file.path, file.specs, file.sha256, state)
    layers = read_layers(file.sequences, arrayfile.mapped(file.path, file.specs))
    return [replace(layer, checksum=checksum) for layer in layers]


class _File(NamedTuple):
    """A file of arrays as the manifest has it."""

    path: Path
    sha256: str
    specs: dict[str, Spec]
    sequences: Entry


def _read_file(folder: Path, called: str, entry: Entry) -> _File:
    """What the manifest says of a file, of which the name is known.

    Raises:
        RecordingError: something else than a file of this folder and its arrays.
    """
    name, sha256, tensors, sequences = entry.fields("file", "sha256", "tensors", "sequences")
    if name.value != called:
        raise name.error(called)
    if not re.fullmatch("[0-9a-f]{64}", sha256.text()):
        raise sha256.error("64 hexadecimal digits")
    return _File(folder / called, sha256.text(), _read_specs(tensors), sequences)


def read_layers(entry: Entry, arrays: Mapping[str, Tensor]) -> list[RecordedLayer]:
    """A layer on each sequence, from entries and the arrays of one file.

    Raises:
        RecordingError: something that is missing, too much, or does not fit the rest.
    """
    left = dict(arrays)
    layers = [parts.read_layer(one, Arrays(left, one, f"{i}.")) for i, one in enumerate(entry.items())]
    if left or not layers:
        raise entry.error("the arrays of at least one sequence", ", ".join(left) if left else "none")
    return layers


def read_pictures(entry: Entry, arrays: Mapping[str, Tensor]) -> list[tuple[Picture, ...]]:
    """The pictures of each sequence, from entries and the arrays of their file.

    Raises:
        RecordingError: something that is missing, too much, or does not fit the rest.
    """
    left = dict(arrays)
    pictures = [
        tuple(read_picture(one, Arrays(left, one, f"{i}.{j}.")) for j, one in enumerate(sequence.items()))
        for i, sequence in enumerate(entry.items())
    ]
    if left:
        raise entry.error("the arrays of pictures alone", ", ".join(left))
    return pictures


def assemble(
    content: Entry, layers: Sequence[Sequence[RecordedLayer]], pictures: Sequence[tuple[Picture, ...]] | None = None
) -> Recording:
    """The recording of a manifest's content and of its layers and pictures, each of them on every sequence.

    Raises:
        RecordingError: something in the content that is not what it should be, or does not fit the layers.
    """
    complete, origin, sequences, others, _, seen = content.fields(*FIELDS, optional=PICTURES)
    known = origin.optional(parts.read_origin)
    if complete.flag():
        if known is None:
            raise origin.error("the model")
        texts = [_texts(entry) for entry in sequences.items()]
        partial = ""
    else:
        texts = [(None, None)] * len(layers[0])
        partial = _missing(len(layers)) + ("" if known else "; so is the model's name")
    if {len(texts), *map(len, layers)} != {len(texts)} or not texts:
        raise sequences.error("as many sequences as each layer is on, at least one", f"{len(texts)}")
    pictures = [()] * len(texts) if pictures is None else pictures
    if len(pictures) != len(texts):
        raise seen.error(f"the pictures of {len(texts)} sequences", f"{len(pictures)}")
    read = tuple(
        _sequence(sequences, i, [each[i] for each in layers], *texts[i], pictures[i]) for i in range(len(texts))
    )
    return Recording(known or _UNKNOWN, read, tuple(map(parts.read_other, others.items())), partial)


def _sequence(
    entry: Entry,
    i: int,
    layers: list[RecordedLayer],
    tokens: Tokens | None,
    target: Tokens | None,
    pictures: tuple[Picture, ...],
) -> RecordedSequence:
    texts = {"tokens": tokens, "target": target}
    for layer in layers:
        for of, size in ((layer.queries_of, layer.shape[1]), (layer.keys_of, layer.shape[2])):
            text = texts.get(of or "")
            if text is not None and len(text) != size:
                raise entry.error(f"{size} {of} of sequence {i}, as in {layer.path}", f"{len(text)}")
    for place in (place for picture in pictures for place in picture.places if place.of):
        text = texts.get(place.of or "")
        if text is None or len(text) != place.count:
            got = "no such text" if text is None else f"{len(text)}"
            raise entry.error(f"{place.count} {place.of} of sequence {i}, as of its pictures", got)
    return RecordedSequence(tuple(layers), tokens, target, pictures)


def name_of(number: int) -> str:
    """The name of a layer's file."""
    return f"layer-{number:03}.safetensors"


def _folder(path: str | os.PathLike[str]) -> Path:
    folder = Path(path)
    try:
        there, is_folder = folder.exists(), folder.is_dir()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in it
        raise RecordingError(str(path), "a folder that can be read", str(error), "Look at its name.") from error
    if not is_folder:
        got = "a file" if there else "nothing there"
        hint = "Recording.save writes one; give the folder, not a file in it."
        raise RecordingError(str(path), "the folder of a recording", got, hint)
    return folder


def _missing(count: int) -> str:
    """What a recording that was cut off lacks."""
    layers = "layer" if count == 1 else "layers"
    return f"cut off after {count} complete {layers}; what came later is missing, and the tokens"


def _read_specs(entry: Entry) -> dict[str, Spec]:
    specs = {}
    for name, spec in entry.named().items():
        dtype, shape = spec.fields("dtype", "shape")
        sizes = shape.whole_numbers()
        if 0 in sizes and len(sizes) > 1:
            raise shape.error("sizes of at least 1")
        specs[name] = Spec(dtype.choice(*DTYPES), sizes)
    return specs


def _texts(entry: Entry) -> tuple[Tokens | None, Tokens | None]:
    tokens, target = entry.fields("tokens", "target")
    return tokens.optional(parts.read_tokens), target.optional(parts.read_tokens)
