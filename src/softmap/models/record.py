"""Run a model and record its attention: `record` runs it on a text, `recording` watches a run of one's own."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from softmap import __version__
from softmap.errors import DtypeError, ModelError, ParameterError, RecordingError, SoftmapError, TextError
from softmap.models.interface import calls_interface, find_others, standing_in
from softmap.models.load import LoadedModel, load
from softmap.models.reading import Reader
from softmap.models.recorder import Keeping, Recorder
from softmap.models.settings import quiet_transformers
from softmap.recorded import Origin, RecordedLayer, RecordedSequence, Recording
from softmap.tokens import Tokens, tokenize, tokens_of_ids

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from softmap.models.growing import Growing
    from softmap.recorded.layer import Text
    from softmap.recorded.storage import Writer

STATISTICS = ("top", "cells", "entropy", "distance", "received")
DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}


def record(
    text_or_inputs: Any,
    model: str | os.PathLike[str] | PreTrainedModel | LoadedModel | None = None,
    *,
    layers: Collection[int] | None = None,
    keep_values: bool = True,
    statistics_only: bool = False,
    summary: bool | Mapping[str, Any] = True,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    chunk: int | None = None,
    out: str | os.PathLike[str] | None = None,
    truncate: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Recording:
    """Run a model once and record every attention layer: q, k and v as attention saw them, and its statistics.

    Memory is linear in the number of tokens. What the model computes is what it always does; each layer's output is
    compared with that of the model's own attention function, in float32, and refused if it is another.

    Args:
        text_or_inputs: a text; token ids, (tokens,) or (batch, tokens); or what a tokenizer or processor returns, a
            mapping of the model's arguments, with an attention_mask where sequences are padded.
        model: a hub id, a directory, a loaded ``PreTrainedModel``, what `softmap.models.load` gave (which takes dtype
            and device_map), or None for the bundled model.
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
        truncate: whether a text longer than the model's limit is cut at its end.
        progress: called with how many layers are done, of how many (0 where that is not known).

    Raises:
        TextError: no text, or more tokens than the model takes.
        ModelError: a model that can't be found, loaded, or seen into; the message names what would not be seen.
        ParameterError: an option outside the values it may take.
        RecordingError: the place to write to is taken.
    """
    keeping = _read_keeping(layers, keep_values, statistics_only, summary, dtype)
    loaded = read_model(model, device)
    tokens, inputs = _read_inputs(text_or_inputs, loaded, truncate)
    size = _read_chunk(chunk, loaded, inputs)
    with contextlib.ExitStack() as stack:
        session = _Session(loaded, keeping, tokens, progress, single_run=size is None)
        if out is None:
            return _record(session, inputs, size)
        from softmap.recorded.storage import Writer

        writer = stack.enter_context(Writer(out, session.origin()))
        if size is None:
            session.writer = writer
        recording = _record(session, inputs, size)
        if size is not None:
            for i in range(len(recording.sequences[0].layers)):
                writer.add([sequence.layers[i] for sequence in recording.sequences])
        return writer.finish(recording.origin, recording.sequences, recording.others)


def record_inside(loaded: LoadedModel, tokens: Tokens) -> Recording:
    """Record a text for telling its story: without statistics, but with what is `Inside` each layer.

    One thread at a time does, as transformers' settings are changed meanwhile.

    Raises:
        ModelError: as `record`.
    """
    with quiet_transformers():
        session = _Session(loaded, Keeping(statistics=None, inside=True), tokens, single_run=True)
        return _record(session, _inputs_of(tokens, loaded), None)


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

    def __repr__(self) -> str:
        return "LiveRecording(open)" if self._recording is None else repr(self._recording)


@contextlib.contextmanager
def recording(
    model: PreTrainedModel | LoadedModel,
    *,
    layers: Collection[int] | None = None,
    keep_values: bool = True,
    statistics_only: bool = False,
    summary: bool | Mapping[str, Any] = True,
    dtype: str | torch.dtype | None = None,
    tokenizer: Any = None,
) -> Iterator[LiveRecording]:
    """Record whatever a loaded model runs in the block, such as ``model(**inputs)`` or ``model.generate(...)``.

    With a cache each run continues the one before: the matrix is that of all queries so far against all keys. In the
    block there are no gradients. Afterwards, and after an exception, the model is as it was found.

    Args:
        model: a ``PreTrainedModel``, in evaluation mode, or what `softmap.models.load` gave.
        layers: as in `record`.
        keep_values: as in `record`.
        statistics_only: as in `record`.
        summary: as in `record`.
        dtype: as in `record`.
        tokenizer: the model's, which names the tokens; without it they are numbers.

    Raises:
        ModelError: as `record`; runs that do not continue each other, as of beam search.
        ParameterError: as `record`.
    """
    keeping = _read_keeping(layers, keep_values, statistics_only, summary, dtype)
    loaded = read_model(model)
    if tokenizer is not None:
        loaded = replace(loaded, tokenizer=tokenizer)
    live, session = LiveRecording(), _Session(loaded, keeping, None)
    with session.open():
        yield live
    live._recording = session.recording()


class _Session:
    """One recording from its beginning to its end."""

    def __init__(
        self,
        loaded: LoadedModel,
        keeping: Keeping,
        tokens: Tokens | None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        single_run: bool = False,
    ) -> None:
        model = loaded.model
        self.single_run = single_run
        self.loaded, self.given, self.progress = loaded, tokens, progress
        self.writer: Writer | None = None  # what each layer is handed to as soon as it is complete
        self.others = find_others(model, loaded.name)
        self.encoder_decoder = bool(model.config.is_encoder_decoder)
        paths = {module: path for path, module in model.named_modules()}
        self.recorder = Recorder(loaded.name, paths, keeping, self._settled)
        self.reader = Reader(self.recorder, self.encoder_decoder)
        self.done: dict[int, list[RecordedLayer]] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        with standing_in(self.loaded.model, self.recorder), self.reader.watching(self.loaded.model):
            yield

    def recording(self) -> Recording:
        """What there is after the run.

        Raises:
            ModelError: nothing ran, or not every layer was seen.
        """
        self.recorder.finish()
        self._check_seen()
        for number, (key, layers) in enumerate(self.recorder.layers.items()):
            if number not in self.done and self._kept(number):
                self.done[number] = self._recorded(number, key, layers)
        batch = len(next(iter(self.recorder.layers.values())))
        sequences = tuple(
            RecordedSequence(
                layers=tuple(layers[item] for _, layers in sorted(self.done.items())),
                tokens=self._tokens(item),
                target=self._target(item),
            )
            for item in range(batch)
        )
        return Recording(self.origin(), sequences, self.others)

    def _settled(self, number: int, layers: list[Growing]) -> None:
        """A layer is complete for this run of the model; where no other run follows, only what is kept of it stays."""
        self.progress(len(self.recorder.layers), 0)
        if not self.single_run or number in self.done:
            return
        key = list(self.recorder.layers)[number]
        self.done[number] = self._recorded(number, key, layers)
        if self.writer is not None:
            self.done[number] = self.writer.add(self.done[number])
        for growing in layers:
            growing.forget()

    def _kept(self, number: int) -> bool:
        chosen = self.recorder.keeping.layers
        return chosen is None or number in chosen

    def _recorded(self, number: int, key: tuple[nn.Module, int], layers: list[Growing]) -> list[RecordedLayer]:
        cross = self.recorder.crossing[key]
        found = []
        for item, growing in enumerate(layers):
            part = self._part(growing, cross)
            side: Text = "target" if self.encoder_decoder and part == "decoder" else "tokens"
            layer = self.recorder.recorded(growing, number=number, kind="cross" if cross else "self", part=part)
            queries, keys = self._count(side, item), self._count("tokens" if cross else side, item)
            found.append(
                replace(
                    layer,
                    queries_of=side if queries == layer.shape[1] else None,
                    keys_of=("tokens" if cross else side) if keys == layer.shape[2] else None,
                )
            )
        return found

    def _part(self, growing: Growing, cross: bool) -> Any:
        if self.encoder_decoder:
            return "decoder" if "decoder" in growing.path.lower() else "encoder"
        return "decoder" if cross or growing.is_decoders else "encoder"

    def _count(self, side: Text, item: int) -> int | None:
        """How many real tokens a text has so far."""
        if side == "tokens" and self.given is not None:
            return len(self.given)
        read = getattr(self.reader, side)
        return len(read.of(item)) if read.ids and item < len(read.ids[0]) else None

    def _tokens(self, item: int) -> Tokens | None:
        if self.given is not None:
            return self.given
        read = self.reader.tokens
        return tokens_of_ids(read.of(item), self.loaded.tokenizer) if self._count("tokens", item) else None

    def _target(self, item: int) -> Tokens | None:
        read = self.reader.target
        return tokens_of_ids(read.of(item), self.loaded.tokenizer) if self._count("target", item) else None

    def _check_seen(self) -> None:
        """Refuse a run of which some attention was not seen, rather than leave it out."""
        name = self.loaded.name
        if not self.recorder.layers:
            got = f"none in {type(self.loaded.model).__name__}"
            raise ModelError(name, "a run of the model with attention in it", got, "Call the model in the block.")
        ran = [module for module, visits in self.recorder.visits.items() if visits]
        seen = {module for module, _ in self.recorder.layers}
        unseen = [self.recorder.paths[module] for module in ran if not any(part in seen for part in module.modules())]
        if unseen:
            hint = "They ran and did not call the attention function that the model was set to."
            raise ModelError(name, "every attention layer to be seen", f"not {', '.join(unseen[:6])}", hint)
        chosen = self.recorder.keeping.layers
        missing = sorted(set(chosen or ()) - set(range(len(self.recorder.layers))))
        if missing:
            expected = f"numbers from 0 to {len(self.recorder.layers) - 1}"
            raise ParameterError(
                "layers", expected, ", ".join(map(str, missing)), "Layers count in the order they run."
            )

    def origin(self) -> Origin:
        model, kept = self.loaded.model, self.recorder.keeping.dtype
        dtype = str(model.dtype).removeprefix("torch.")
        packages = {"softmap": __version__, "torch": torch.__version__, "transformers": version("transformers")}
        return Origin(
            model=self.loaded.name,
            architecture=type(model).__name__,
            revision=self.loaded.revision,
            dtype=dtype,
            stored=dtype if kept is None else str(kept).removeprefix("torch."),
            versions=packages,
        )


def _record(session: _Session, inputs: dict[str, Any], chunk: int | None) -> Recording:
    """Run the session's model in evaluation mode, and put together what it left."""
    loaded = session.loaded
    training = {module: module.training for module in loaded.model.modules()}
    loaded.model.eval()
    try:
        with session.open():
            try:
                _run(loaded.model, inputs, chunk)
            except SoftmapError:
                raise
            except Exception as error:  # whatever a model's own code raises
                got = f"{type(error).__name__}: {error}"
                hint = "Check that these inputs belong to this model."
                raise ModelError(loaded.name, "a model that runs on these inputs", got, hint) from error
    finally:
        _set_training(training)
    return session.recording()


def _run(model: Any, inputs: dict[str, Any], chunk: int | None) -> None:
    """Run the model, without what nobody will look at: logits of all tokens, a cache."""
    accepted = inspect.signature(model.forward).parameters
    lean = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    if chunk is None:
        if "use_cache" in accepted or "kwargs" in accepted:
            lean["use_cache"] = False
        model(**lean | inputs)
        return
    from transformers import DynamicCache

    ids, cache = inputs["input_ids"], DynamicCache(config=model.config)
    mask = inputs.get("attention_mask")
    for start in range(0, ids.shape[1], chunk):
        stop = min(start + chunk, ids.shape[1])
        part = {"input_ids": ids[:, start:stop], "past_key_values": cache, "use_cache": True}
        if mask is not None:
            part["attention_mask"] = mask[:, :stop]
        model(**lean, **part)


def read_model(model: Any, device: str | torch.device | None = None) -> LoadedModel:
    """The model that is meant by what `record` takes for one.

    Raises:
        ModelError: it can't be found or loaded.
        ParameterError: a device for a model that is loaded already.
    """
    from transformers import PreTrainedModel

    if isinstance(model, PreTrainedModel):
        loaded = LoadedModel(model, None, model.config.name_or_path or type(model).__name__)
    elif isinstance(model, LoadedModel):
        loaded = model
    else:
        options: dict[str, Any] = {} if device is None else {"device": device}
        return load(model, **options)
    if device is not None:
        hint = "Move it yourself: model.to(device)."
        raise ParameterError("device", "None for a model that is loaded already", str(device), hint)
    return loaded


def _read_inputs(given: Any, loaded: LoadedModel, truncate: bool) -> tuple[Tokens | None, dict[str, Any]]:
    """The tokens, where a text was given, and the model's arguments."""
    if isinstance(given, str):
        tokens = tokenize(loaded, given, truncate=truncate)
        return tokens, _inputs_of(tokens, loaded)
    device = loaded.model.device
    if isinstance(given, Mapping):
        return None, {name: x.to(device) if hasattr(x, "to") else x for name, x in given.items()}
    try:
        ids = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        hint = "Give a text, token ids, or what a tokenizer or processor returns."
        raise TextError("text_or_inputs", "a text, ids or a mapping", type(given).__name__, hint) from error
    if ids.is_floating_point() or ids.dtype == torch.bool or ids.ndim not in (1, 2) or ids.numel() == 0:
        got = f"{ids.dtype} of shape {tuple(ids.shape)}"
        hint = "Padded sequences come as a mapping with their attention_mask."
        raise TextError("text_or_inputs", "whole numbers (tokens,) or (batch, tokens)", got, hint)
    ids = ids.long().reshape(-1, ids.shape[-1]).to(device)
    return None, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _inputs_of(tokens: Tokens, loaded: LoadedModel) -> dict[str, Any]:
    """A text as the model's arguments; a decoder beside an encoder reads the token that it starts with."""
    ids = torch.tensor([tokens.ids], device=loaded.model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if loaded.model.config.is_encoder_decoder:
        start = getattr(loaded.model.config, "decoder_start_token_id", None)
        inputs["decoder_input_ids"] = torch.tensor([[0 if start is None else start]], device=loaded.model.device)
        if "decoder_attention_mask" in inspect.signature(loaded.model.forward).parameters:  # it may start with padding
            inputs["decoder_attention_mask"] = torch.ones_like(inputs["decoder_input_ids"])
    return inputs


def _read_chunk(chunk: Any, loaded: LoadedModel, inputs: dict[str, Any]) -> int | None:
    if chunk is None:
        return None
    if isinstance(chunk, bool) or not hasattr(chunk, "__index__") or chunk < 1:
        hint = "It is how many tokens are read at a time."
        raise ParameterError("chunk", "a whole number of at least 1", repr(chunk), hint)
    extra = sorted(set(inputs) - {"input_ids", "attention_mask", "token_type_ids"})
    cached = "past_key_values" in inspect.signature(loaded.model.forward).parameters
    layers = [module for module in loaded.model.modules() if calls_interface(module)]
    decodes = all(getattr(module, "is_causal", False) for module in layers)
    others = find_others(loaded.model, loaded.name)
    if extra or others or not cached or not decodes or loaded.model.config.is_encoder_decoder:
        with_what = ", ".join([*extra, *(f"{other.path} ({other.name})" for other in others[:3])])
        got = f"{type(loaded.model).__name__}" + (f" with {with_what}" if with_what else "")
        hint = "Leave chunk out: read in chunks, such a model may compute something else."
        raise ParameterError("chunk", "a decoder of text, of softmax attention alone, with a cache", got, hint)
    return int(chunk)


def _read_keeping(
    layers: Any, keep_values: bool, statistics_only: bool, summary: Any, dtype: str | torch.dtype | None
) -> Keeping:
    if layers is not None:
        layers = [layers] if hasattr(layers, "__index__") else list(layers)
        wrong = [i for i in layers if isinstance(i, bool) or not hasattr(i, "__index__") or i < 0]
        if wrong or not layers:
            hint = "Layers count from 0, in the order in which they run."
            raise ParameterError("layers", "numbers from 0", repr(wrong or layers), hint)
    statistics: Mapping[str, Any] | None = None
    if isinstance(summary, Mapping):
        unknown = sorted(set(summary) - set(STATISTICS))
        if unknown:
            raise ParameterError("summary", f"options among {', '.join(STATISTICS)}", ", ".join(unknown), "")
        statistics = dict(summary)
    elif summary:
        statistics = {}
    if statistics_only and statistics is None:
        hint = "Leave one of the two out."
        raise ParameterError("statistics_only", "statistics to keep", "summary=False", hint)
    return Keeping(
        layers=layers,
        statistics=statistics,
        qk=not statistics_only,
        values=keep_values and not statistics_only,
        dtype=_read_dtype(dtype),
    )


def _read_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or dtype in DTYPES.values():
        return dtype  # type: ignore[return-value]  # no string is among them
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise DtypeError("dtype", " or ".join(DTYPES), repr(dtype), "It is what q, k and v are kept in.")
    found: torch.dtype = DTYPES[dtype]
    return found


def _set_training(flags: dict[nn.Module, bool]) -> None:
    for module, training in flags.items():
        module.training = training
