"""Run a model and record its attention: `record` runs it on a text, `recording` watches a run of one's own."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from softmap.errors import ModelError, ParameterError, RecordingError, SoftmapError
from softmap.models.checking import compare
from softmap.models.keeping import Keeping
from softmap.models.options import inputs_of, read_chunk, read_inputs, read_keeping, read_model
from softmap.models.session import Session
from softmap.models.settings import quiet_transformers
from softmap.models.unwrapping import in_order_of_giving
from softmap.writing import unfinished

if TYPE_CHECKING:
    from torch import nn
    from transformers import Pipeline

    from softmap.matrix import AttentionMatrix
    from softmap.models.load import LoadedModel
    from softmap.recorded import Origin, Recording
    from softmap.recorded.storage import Writer
    from softmap.tokens import Tokens


def record(
    text_or_inputs: Any,
    model: str | os.PathLike[str] | nn.Module | Pipeline | LoadedModel | None = None,
    *,
    layers: Collection[int] | None = None,
    keep_values: bool = True,
    statistics_only: bool = False,
    summary: bool | Mapping[str, Any] = True,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    chunk: int | None = None,
    out: str | os.PathLike[str] | None = None,
    tokenizer: Any = None,
    truncate: bool = False,
    check: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Recording:
    """Run a model once and record every attention layer: q, k and v as attention saw them, and its statistics.

    Memory is linear in the number of tokens. What the model computes is what it always does; each layer's output is
    compared with that of the model's own attention function, in float32, and refused if it is another.

    Args:
        text_or_inputs: a text; token ids, (tokens,) or (batch, tokens); or what a tokenizer or processor returns, a
            mapping of the model's arguments, with an attention_mask where sequences are padded.
        model: a hub id, a directory, a loaded ``PreTrainedModel``, what `softmap.models.load` gave (which takes dtype
            and device_map), or None for the bundled model. Or what a model stands in: a ``SentenceTransformer``, a
            ``CrossEncoder``, a pipeline, a ``PeftModel``, a compiled or parallel module.
        layers: which layers to keep, by number, in the order in which they run; all of them unless given.
        keep_values: whether v is kept; without it there is no output of step 4.
        statistics_only: whether q, k and v are left out.
        summary: whether statistics are computed in the same pass; or `AttentionMatrix.summary`'s options top, cells,
            entropy, distance and received.
        device: where a model that is loaded by name is put, such as "cuda".
        dtype: what q, k and v are kept in: float16, bfloat16, float32 or float64; the model's own unless given.
        chunk: how many tokens a decoder reads at a time, with a cache of the keys before; all at once unless given.
        out: the folder to write to, layer by layer as they run; the recording then lies in it, and memory holds one
            layer. With `chunk` it is written at the end.
        tokenizer: the model's, where a ``PreTrainedModel`` is given; it names the tokens, and reads a text. A processor
            does so too, and says how pictures were normalised.
        truncate: whether a text longer than the model's limit is cut at its end.
        check: whether the model then runs once more as it was found, and the outputs of both runs are compared; the
            largest difference, relative to the largest number, is the recording's ``origin.checked``.
        progress: called with how many layers are done, of how many (0 where that is not known).

    Raises:
        TextError: no text, or more tokens than the model takes.
        ModelError: a model that can't be found, loaded, or seen into; the message names what would not be seen. An
            output that is not the model's own, where it is checked.
        ParameterError: an option outside the values it may take.
        RecordingError: the place to write to is taken, or can't be written to.
    """
    keeping = read_keeping(layers, keep_values, statistics_only, summary, dtype)
    loaded = read_model(model, device, tokenizer)
    tokens, inputs = read_inputs(text_or_inputs, loaded, truncate)
    size = read_chunk(chunk, loaded, inputs)
    with contextlib.ExitStack() as stack:
        session = Session(loaded, keeping, tokens, progress, single_run=size is None)
        if out is None:
            return _record(session, inputs, size, check=check)
        writer = stack.enter_context(_writing(out, session.origin()))
        if size is None:
            session.writer = writer
        recording = _record(session, inputs, size, check=check)
        try:
            if size is not None:
                for i in range(len(recording.sequences[0].layers)):
                    writer.add([sequence.layers[i] for sequence in recording.sequences])
            return writer.finish(recording.origin, recording.sequences, recording.others)
        except OSError as error:
            raise writer.refused(error) from error


def record_inside(loaded: LoadedModel, tokens: Tokens) -> Recording:
    """Record a text for telling its story: without statistics, but with what is `Inside` each layer.

    One thread at a time does, as transformers' settings are changed meanwhile.

    Raises:
        ModelError: as `record`.
    """
    with quiet_transformers():
        session = Session(loaded, Keeping(statistics=None, inside=True), tokens, single_run=True)
        return _record(session, inputs_of(tokens, loaded), None)


class LiveRecording:
    """What `recording` gives: a `Recording` once its block is left. Its attributes are that recording's.

    Attributes:
        recording: the recording.
    """

    def __init__(self) -> None:
        self._recording: Recording | None = None

    @property
    def recording(self) -> Recording:
        """The recording.

        Raises:
            RecordingError: the block has not been left yet, or by an exception.
        """
        if self._recording is None:
            hint = "It is there after the block: with softmap.recording(model) as rec: model(**inputs)."
            raise RecordingError("recording", "a block that was left", "one that is open, or failed", hint)
        return self._recording

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.recording, name)

    def __getitem__(self, index: Any) -> Any:
        return self.recording[index]

    def __len__(self) -> int:
        return len(self.recording)

    def __iter__(self) -> Iterator[AttentionMatrix]:
        return iter(self.recording)

    def __repr__(self) -> str:
        return "LiveRecording(open)" if self._recording is None else repr(self._recording)


@contextlib.contextmanager
def recording(
    model: nn.Module | Pipeline | LoadedModel,
    *,
    layers: Collection[int] | None = None,
    keep_values: bool = True,
    statistics_only: bool = False,
    summary: bool | Mapping[str, Any] = True,
    dtype: str | torch.dtype | None = None,
    tokenizer: Any = None,
) -> Iterator[LiveRecording]:
    """Record whatever a loaded model runs in the block, such as ``model(**inputs)`` or ``model.generate(...)``.

    With a cache each run continues the one before: the matrix is that of all queries so far against all keys. Tokens
    that the cache drops, such as drafts that assisted generation rejects, are dropped from the recording. In the
    block there are no gradients, and a run that needs them is refused. The runs of one thread are recorded: of the
    block's own if it runs the model, else of another, which has to end in the block. Afterwards, and after an exception,
    the model is as it was found, but for an attention function that was set in the block.

    Args:
        model: a ``PreTrainedModel``, in evaluation mode, what `softmap.models.load` gave, or what a model stands in.
        layers: as in `record`.
        keep_values: as in `record`.
        statistics_only: as in `record`.
        summary: as in `record`.
        dtype: as in `record`.
        tokenizer: the model's, or its processor, which names the tokens; without it they are numbers.

    Raises:
        ModelError: as `record`; runs that do not continue each other, as of beam search; runs that need gradients, of
            several other threads, or that go on after the block.
        ParameterError: as `record`.
    """
    keeping = read_keeping(layers, keep_values, statistics_only, summary, dtype)
    loaded = read_model(model, None, tokenizer)
    live, session = LiveRecording(), Session(loaded, keeping, None, any_thread=True)
    with session.open(), in_order_of_giving(model):
        yield live
    live._recording = session.recording()


def _record(session: Session, inputs: dict[str, Any], chunk: int | None, *, check: bool = False) -> Recording:
    """Run the session's model in evaluation mode, and put together what it left; once more as found, to check it."""
    loaded = session.loaded
    training = {module: module.training for module in loaded.model.modules()}
    loaded.model.eval()
    try:
        with session.open():
            try:
                output = _run(loaded.model, inputs, chunk)
            except (SoftmapError, OSError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever a model's own code raises
                got = f"{type(error).__name__}: {error}"
                hint = "Check that these inputs belong to this model."
                raise ModelError(loaded.name, "a model that runs on these inputs", got, hint) from error
        recording = session.recording()
        if not check:
            return recording
        with torch.no_grad():
            own = _run(loaded.model, inputs, chunk)
    finally:
        _set_training(training)
    difference = compare(output, own, inputs, loaded.name, session.recorder.cast or loaded.model.dtype)
    return replace(recording, origin=replace(recording.origin, checked=difference))


@contextlib.contextmanager
def _writing(out: Any, origin: Origin) -> Iterator[Writer]:
    """A writer, of which nothing is left where not even one layer was written."""
    from softmap.recorded.storage import Writer

    if not isinstance(out, str | os.PathLike):
        raise ParameterError("out", "the name of a folder", repr(out), 'As in out="run.softmap".')
    try:
        opened = Writer(out, origin)
    except OSError as error:
        hint = "Choose another place. Nothing is left of it."
        raise RecordingError(os.fspath(out), "a place that can be written to", str(error), hint) from error
    with opened as writer, unfinished(writer.discard_if_empty):
        try:
            yield writer
        except BaseException:
            writer.discard_if_empty()
            raise


def _run(model: Any, inputs: dict[str, Any], chunk: int | None) -> Any:
    """The model's output, without what nobody will look at: logits of all tokens, a cache. In chunks the last one's."""
    accepted = inspect.signature(model.forward).parameters
    lean = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    if chunk is None:
        if "use_cache" in accepted or "kwargs" in accepted:
            lean["use_cache"] = False
        return model(**lean | inputs)
    from transformers import DynamicCache

    ids, cache = inputs["input_ids"], DynamicCache(config=model.config)
    mask = inputs.get("attention_mask")
    for start in range(0, ids.shape[1], chunk):
        stop = min(start + chunk, ids.shape[1])
        part = {"input_ids": ids[:, start:stop], "past_key_values": cache, "use_cache": True}
        if mask is not None:
            part["attention_mask"] = mask[:, :stop]
        output = model(**lean, **part)
    return output


def _set_training(flags: dict[nn.Module, bool]) -> None:
    for module, training in flags.items():
        module.training = training
