"""What a recording is asked for, read and checked: the model, what it reads, and what is kept."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from softmap.errors import DtypeError, ModelError, ParameterError, TextError
from softmap.limits import positions_of, vocabulary
from softmap.matrix.inputs import read_cells, read_count
from softmap.models.interface import look
from softmap.models.keeping import Keeping
from softmap.models.load import LoadedModel, load
from softmap.models.spread import device_of
from softmap.models.unwrapping import hint_at, unwrap
from softmap.tokens import Tokens, tokenize

STATISTICS = ("top", "cells", "entropy", "distance", "received")
DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}


def read_model(model: Any, device: str | torch.device | None = None, tokenizer: Any = None) -> LoadedModel:
    """The model that is meant by what `record` takes for one.

    Raises:
        ModelError: it can't be found or loaded, or stands in something that softmap can't see through.
        ParameterError: a device for a model that is loaded already, or a tokenizer for one that brings its own.
    """
    inside = unwrap(model.model if isinstance(model, LoadedModel) else model)
    given = inside.model
    is_module = isinstance(given, torch.nn.Module)
    if (is_module and not _is_like_one(given)) or (not is_module and hint_at(given)):
        hint = hint_at(given) or "Of other modules q and k make a matrix: softmap.AttentionMatrix(q, k)."
        raise ModelError("model", "a PreTrainedModel of transformers", type(given).__name__, hint)
    if is_module and not isinstance(model, LoadedModel):
        name = given.config.name_or_path or type(given).__name__
        loaded = LoadedModel(given, tokenizer or inside.tokenizer, name, prompt=inside.prompt)
    elif tokenizer is not None:
        hint = "Leave it out: a model that is loaded by name, and a LoadedModel, bring theirs."
        raise ParameterError("tokenizer", "None, or a PreTrainedModel with it", type(model).__name__, hint)
    elif isinstance(model, LoadedModel):
        own = model.tokenizer or inside.tokenizer
        loaded = replace(model, model=given, tokenizer=own, prompt=model.prompt or inside.prompt)
    else:
        options: dict[str, Any] = {} if device is None else {"device": device}
        return load(model, **options)
    if device is not None:
        hint = "Move it yourself: model.to(device)."
        raise ParameterError("device", "None for a model that is loaded already", str(device), hint)
    return loaded


def _is_like_one(module: Any) -> bool:
    """Whether a module is a PreTrainedModel, or wraps one and hands on what it has."""
    return all(hasattr(module, name) for name in ("config", "device", "get_input_embeddings"))


def tokenizer_of(loaded: LoadedModel) -> Any:
    """The tokenizer: of a processor the one for its text; none where that is for pictures alone."""
    given = loaded.tokenizer
    if hasattr(given, "image_processor"):
        return getattr(given, "tokenizer", None)
    return None if hasattr(given, "image_mean") else given


def read_inputs(given: Any, loaded: LoadedModel, truncate: bool) -> tuple[Tokens | None, dict[str, Any]]:
    """The tokens, where a text was given, and the model's arguments.

    Raises:
        TextError: neither a text, nor token ids, nor a mapping of arguments; ids that the model has no row for, or
            more than it takes.
    """
    if isinstance(given, str):
        tokens = tokenize(replace(loaded, tokenizer=tokenizer_of(loaded)), given, truncate=truncate)
        return tokens, inputs_of(tokens, loaded)
    if isinstance(given, Mapping):
        device = device_of(loaded.model)
        inputs = {name: _as_argument(x, device) for name, x in given.items()}
        return None, _with_a_start(inputs, loaded)
    try:
        ids = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        hint = "Give a text, token ids, or what a tokenizer or processor returns."
        raise TextError("text_or_inputs", "a text, ids or a mapping", type(given).__name__, hint) from error
    if ids.is_floating_point() or ids.dtype == torch.bool or ids.ndim not in (1, 2) or ids.numel() == 0:
        got = f"{ids.dtype} of shape {tuple(ids.shape)}"
        hint = "Padded sequences come as a mapping with their attention_mask."
        raise TextError("text_or_inputs", "whole numbers (tokens,) or (batch, tokens)", got, hint)
    _refuse_beyond(ids, loaded)
    return None, _arguments(ids.long().reshape(-1, ids.shape[-1]), loaded)


def _refuse_beyond(ids: torch.Tensor, loaded: LoadedModel) -> None:
    rows, (most, padding) = vocabulary(loaded.model), positions_of(loaded.model)
    wrong = ids[(ids < 0) | (ids >= rows)]
    if len(wrong):
        hint = "They belong to another model's tokenizer."
        raise TextError("token ids", f"numbers from 0 to {rows - 1} for {loaded.name}", str(int(wrong[0])), hint)
    count = ids.shape[-1] if padding is None else int((ids != padding).sum(-1).max())
    if count > most:
        hint = f"Give fewer, as in ids[:{most}], or take a model with a higher limit."
        raise TextError("token ids", f"at most {most} tokens for {loaded.name}", f"{count} tokens", hint)


def inputs_of(tokens: Tokens, loaded: LoadedModel) -> dict[str, Any]:
    """A text as the model's arguments."""
    return _arguments(torch.tensor([tokens.ids]), loaded)


def _arguments(ids: torch.Tensor, loaded: LoadedModel) -> dict[str, Any]:
    ids = ids.to(device_of(loaded.model))
    return _with_a_start({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, loaded)


def _with_a_start(inputs: dict[str, Any], loaded: LoadedModel) -> dict[str, Any]:
    """The arguments, with the token that a decoder beside an encoder starts with, where it is given nothing to read."""
    config, given = loaded.model.config, ("decoder_input_ids", "decoder_inputs_embeds", "labels")
    accepted = inspect.signature(loaded.model.forward).parameters
    if not config.is_encoder_decoder or "decoder_input_ids" not in accepted or any(name in inputs for name in given):
        return inputs
    first = next(x for x in inputs.values() if isinstance(x, torch.Tensor))
    start = getattr(config, "decoder_start_token_id", None)
    ids = torch.full((len(first), 1), 0 if start is None else start, device=first.device)
    more = {"decoder_input_ids": ids}
    if "decoder_attention_mask" in accepted:  # it may start with padding
        more["decoder_attention_mask"] = torch.ones_like(ids)
    return inputs | more


def _as_argument(x: Any, device: torch.device) -> Any:
    """A tokenizer's lists and arrays as a tensor with an axis of sequences; all else as it is, on the model's device."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf":
        x = torch.tensor(x)
        x = x[None] if x.ndim == 1 else x
    if isinstance(x, list) and x and isinstance(x[0], int | list):
        try:
            x = torch.tensor(x)
        except (TypeError, ValueError) as error:
            hint = "Ask the tokenizer to pad them: padding=True."
            raise TextError("text_or_inputs", "sequences of one length", "lists of several", hint) from error
        x = x[None] if x.ndim == 1 else x
    return x.to(device) if hasattr(x, "to") else x


def read_chunk(chunk: Any, loaded: LoadedModel, inputs: dict[str, Any]) -> int | None:
    """How many tokens are read at a time; None for all at once.

    Raises:
        ParameterError: no such number, or a model that computes something else when it reads in chunks.
    """
    if chunk is None:
        return None
    if isinstance(chunk, bool) or not hasattr(chunk, "__index__") or chunk < 1:
        hint = "It is how many tokens are read at a time."
        raise ParameterError("chunk", "a whole number of at least 1", repr(chunk), hint)
    extra = sorted(set(inputs) - {"input_ids", "attention_mask", "token_type_ids"})
    cached = "past_key_values" in inspect.signature(loaded.model.forward).parameters
    sight = look(loaded.model, loaded.name)
    decodes = all(getattr(module, "is_causal", False) for module in sight.seen)
    others = sight.others
    if extra or others or sight.beside or not cached or not decodes or loaded.model.config.is_encoder_decoder:
        with_what = ", ".join([*extra, *(f"{other.path} ({other.name})" for other in others[:3])])
        got = f"{type(loaded.model).__name__}" + (f" with {with_what}" if with_what else "")
        hint = "Leave chunk out: read in chunks, such a model may compute something else."
        raise ParameterError("chunk", "a decoder of text, of softmax attention alone, with a cache", got, hint)
    return int(chunk)


def read_keeping(
    layers: Any, keep_values: bool, statistics_only: bool, summary: Any, dtype: str | torch.dtype | None
) -> Keeping:
    """What of a run is to be kept.

    Raises:
        ParameterError: layers or options of the statistics that there are not.
        DtypeError: a dtype that q, k and v are not kept in.
    """
    if layers is not None:
        layers = list(layers) if isinstance(layers, Iterable) else [layers]
        wrong = [i for i in layers if isinstance(i, bool) or not hasattr(i, "__index__") or i < 0]
        if wrong or not layers:
            hint = "Layers count from 0, in the order in which they run."
            raise ParameterError("layers", "numbers from 0", repr(wrong or layers), hint)
    statistics: Mapping[str, Any] | None = None
    if isinstance(summary, Mapping):
        unknown = sorted(set(summary) - set(STATISTICS))
        if unknown:
            expected = f"options among {', '.join(STATISTICS)}"
            raise ParameterError("summary", expected, ", ".join(unknown), "They are those of AttentionMatrix.summary.")
        statistics = _read_statistics(summary)
    elif isinstance(summary, bool):
        statistics = {} if summary else None
    else:
        hint = "True for all statistics, False for none, or a mapping of options."
        raise ParameterError("summary", "True, False or a mapping", repr(summary), hint)
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


def _read_statistics(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the statistics, checked before the model runs."""
    read_count("top", summary.get("top", 8), 0, "It is how many of the largest weights of each row to give.")
    read_cells(summary.get("cells"))
    for name in ("entropy", "distance", "received"):
        if not isinstance(summary.get(name), bool | None):
            raise ParameterError(name, "True or False", repr(summary[name]), "It says whether it is wanted.")
    return dict(summary)


def _read_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or dtype in DTYPES.values():
        return dtype  # type: ignore[return-value]  # no string is among them
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise DtypeError("dtype", " or ".join(DTYPES), repr(dtype), "It is what q, k and v are kept in.")
    found: torch.dtype = DTYPES[dtype]
    return found
