"""Writing a recording layer by layer, so that whatever ends the process leaves a folder of which all is whole.

A file gets its name when it is complete and on the disk; the manifest names it after that, and is itself replaced in one
step. Until the recording is finished its manifest says that it is not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from softmap.errors import RecordingError
from softmap.recorded import arrayfile, manifest, parts
from softmap.recorded.entries import Entry
from softmap.recorded.pictures import write_picture
from softmap.recorded.reader import NAME_OF_PICTURES, PICTURES, assemble, name_of, read_layers, read_pictures
from softmap.writing import unfinished

if TYPE_CHECKING:
    from types import TracebackType

    from torch import Tensor
    from typing_extensions import Self

    from softmap.recorded.layer import OtherLayer, RecordedLayer
    from softmap.recorded.recording import Origin, RecordedSequence, Recording

T = TypeVar("T")


class Writer:
    """Writes a recording to a new folder, one layer at a time, and never holds more than that.

        with Writer("run.softmap") as writer:
            for layers in ...:                    # one RecordedLayer for each sequence of the batch
                layers = writer.add(layers)       # the same, read from the file from now on
            writer.finish(origin, sequences)

    What is left early, by an exception or the end of the process, stays as a recording that was cut off:
    `softmap.load(path, partial=True)` opens the layers that were added.

    Args:
        path: the folder, which must not be there yet.
        origin: the model, where it is known before the layers are: a recording that is cut off then names it.

    Raises:
        RecordingError: there is something at the path already.
        OSError: the place can't be written to.
    """

    def __init__(self, path: str | os.PathLike[str], origin: Origin | None = None) -> None:
        self.path = Path(path)
        self._layers: list[list[RecordedLayer]] = []
        self._closed = False
        try:
            self.path.mkdir()
        except FileExistsError as error:
            hint = "Choose another name, or remove it first; nothing is ever written over."
            raise RecordingError(str(path), "a name that is not taken", "something there already", hint) from error
        known = None if origin is None else parts.write_origin(origin)
        try:
            self._write_manifest({"complete": False, "origin": known, "sequences": [], "others": [], "layers": []})
            _sync(self.path.parent)
        except BaseException:
            (self.path / manifest.NAME).unlink(missing_ok=True)
            self.path.rmdir()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True

    @property
    def is_empty(self) -> bool:
        """Whether no layer has been written."""
        return not self._layers

    def add(self, layers: Sequence[RecordedLayer]) -> list[RecordedLayer]:
        """Write the next layer.

        Args:
            layers: it on each sequence of the batch.

        Returns:
            The same layers as `softmap.load` gives them: their arrays lie in the file and are read when looked at. A mask
            of one's own has become what it comes to.

        Raises:
            RecordingError: layers that do not fit each other or the layers before; a mask or bias that no file can hold.
            OSError: the file can't be written, as on a full disk. What was added before stays.
        """
        self._refuse_closed()
        before = len(self._layers[0]) if self._layers else None
        if len(layers) != (before or max(1, len(layers))):
            expected = f"{before}, as before" if before else "at least one"
            raise RecordingError("layers", expected, f"{len(layers)}", "There is one for each sequence of the batch.")
        number = len(self._layers)
        written = [parts.write_layer(layer) for layer in layers]
        arrays = {f"{i}.{name}": array for i, (_, own) in enumerate(written) for name, array in own.items()}
        entry = self._entry([entry for entry, _ in written], f"layers[{number}].sequences")
        read_layers(entry, arrays)  # what could not be read is not written
        made, mapped = self._write_arrays(name_of(number), entry.value, arrays)
        self._write_manifest({**self._content, "layers": [*self._content["layers"], made]})
        read = read_layers(entry, mapped)
        self._layers.append([replace(one, inside=layer.inside) for one, layer in zip(read, layers, strict=True)])
        return list(self._layers[-1])

    def finish(
        self, origin: Origin, sequences: Sequence[RecordedSequence], others: Sequence[OtherLayer] = ()
    ) -> Recording:
        """Write what is known at the end, and say that the recording is whole.

        Args:
            origin: the model.
            sequences: those of the batch, of which tokens and pictures are written; their layers were added before.
            others: layers that are not in the recording.

        Returns:
            The recording, its arrays in the files.

        Raises:
            RecordingError: sequences that do not fit the layers that were added.
            OSError: the manifest, or the pictures, can't be written.
        """
        self._refuse_closed()
        for sequence in sequences:
            if len(sequence.layers) != len(self._layers):
                expected, got = f"the {len(self._layers)} layers that were added", f"{len(sequence.layers)}"
                raise RecordingError("sequences", expected, got, "Add each layer before you finish.")
        content = {
            **self._content,
            "complete": True,
            "origin": parts.write_origin(origin),
            "sequences": [_texts(sequence) for sequence in sequences],
            "others": [parts.write_other(other) for other in others],
        }
        pictures = None
        if any(sequence.pictures for sequence in sequences):
            content[PICTURES], pictures = self._write_pictures(sequences)
        recording = assemble(self._entry(content, ""), self._layers, pictures)
        self._write_manifest(content)
        self._closed = True
        return recording

    def refused(self, error: OSError) -> RecordingError:
        """That the place can't be written to, and what is left of the recording."""
        kept = "What was written opens with partial=True." if self._layers else "Nothing is left of it."
        hint = f"Make room, or choose another place. {kept}"
        return RecordingError(str(self.path), "a place that can be written to", str(error), hint)

    def discard(self) -> None:
        """Remove what was written."""
        self._closed = True
        names = [name_of(number) for number in range(len(self._content["layers"]) + 1)]
        for name in (*names, NAME_OF_PICTURES, manifest.NAME):
            (self.path / name).unlink(missing_ok=True)
        self.path.rmdir()

    def discard_if_empty(self) -> None:
        """Remove the folder if no layer has been written."""
        if self.is_empty:
            with contextlib.suppress(OSError):  # which would hide why it failed
                self.discard()

    def _write_pictures(self, sequences: Sequence[RecordedSequence]) -> tuple[dict[str, Any], list[Any]]:
        """The manifest's entry of the pictures, and the pictures as they are read from the file."""
        written = [[write_picture(picture) for picture in sequence.pictures] for sequence in sequences]
        arrays = {
            f"{i}.{j}.{name}": array
            for i, pictures in enumerate(written)
            for j, (_, own) in enumerate(pictures)
            for name, array in own.items()
        }
        entry = self._entry([[entry for entry, _ in pictures] for pictures in written], f"{PICTURES}.sequences")
        read_pictures(entry, arrays)
        made, mapped = self._write_arrays(NAME_OF_PICTURES, entry.value, arrays)
        return made, read_pictures(entry, mapped)

    def _write_arrays(
        self, name: str, sequences: list[Any], arrays: dict[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Write a file; the manifest's entry of it, and its arrays as they are read from it."""
        path, specs = self.path / name, {name: arrayfile.spec_of(name, array) for name, array in arrays.items()}
        sha256 = _write(path, lambda file: arrayfile.write(file, arrays))
        tensors = {name: {"dtype": spec.dtype, "shape": list(spec.shape)} for name, spec in specs.items()}
        made = {"file": path.name, "sha256": sha256, "tensors": tensors, "sequences": sequences}
        return made, arrayfile.mapped(path, specs)

    def _entry(self, value: Any, place: str) -> Entry:
        return Entry(value, place, str(self.path / manifest.NAME))

    def _write_manifest(self, content: dict[str, Any]) -> None:
        _write(self.path / manifest.NAME, lambda file: file.write(manifest.text_of(content)))
        self._content = content

    def _refuse_closed(self) -> None:
        if self._closed:
            hint = "Use it within its block: with Writer(path) as writer: ..."
            raise RecordingError(
                str(self.path), "a recording that is being written", "one that was finished or left", hint
            )


def save(recording: Recording, path: str | os.PathLike[str]) -> None:
    """Write a recording to a new folder. One that was cut off is again such a one. Where it fails, nothing is left.

    Raises:
        RecordingError: there is something already; a mask or bias that no file can hold; sequences of several numbers of
            layers.
        OSError: the place can't be written to.
    """
    counts = {len(sequence.layers) for sequence in recording.sequences}
    if len(counts) != 1:
        hint = "Save each of them by itself: rec.batch(0).save(path)."
        raise RecordingError("recording", "sequences with the same layers", f"{sorted(counts)} layers", hint)
    writer = Writer(path, recording.origin)
    try:
        with unfinished(writer.discard):
            for layers in zip(*(sequence.layers for sequence in recording.sequences), strict=True):
                writer.add(layers)
            if not recording.partial:
                writer.finish(recording.origin, recording.sequences, recording.others)
    except BaseException:
        with contextlib.suppress(OSError):  # which would hide why it failed
            writer.discard()
        raise


def _write(path: Path, write: Callable[[BinaryIO], T]) -> T:
    """Write a file, which gets its name when it is complete and on the disk."""
    draft = path.with_name(f".{path.name}")
    try:
        with unfinished(lambda: draft.unlink(missing_ok=True)):
            with draft.open("wb") as file:
                result = write(file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error  # not the draft's name
    finally:
        draft.unlink(missing_ok=True)
    return result


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    if os.name != "posix":  # no folder can be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _texts(sequence: RecordedSequence) -> dict[str, Any]:
    pair = {"tokens": sequence.tokens, "target": sequence.target}
    return {name: None if tokens is None else parts.write_tokens(tokens) for name, tokens in pair.items()}
