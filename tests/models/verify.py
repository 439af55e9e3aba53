"""Runs a model of the zoo with its own eager attention and with softmap, and compares the two."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from makers import Entry, Example
from torch import Tensor, nn

import softmap
from softmap.errors import ModelError

OUTPUTS = ("last_hidden_state", "text_embeds", "image_embeds")
MASKS = ("attention_mask", "decoder_attention_mask", "pixel_attention_mask")
SIDES = {
    "encoder_attentions": "encoder self",
    "decoder_attentions": "decoder self",
    "cross_attentions": "decoder cross",
}


class Seen(NamedTuple):
    """What eager attention gave: the path of the module that called, and weights (batch, heads, queries, keys)."""

    path: str
    weights: Tensor


@dataclass(frozen=True)
class Verdict:
    """What came of an entry.

    Attributes:
        model: the model's class.
        refusal: what softmap said when it refused the model; empty where it recorded it. Then all below is as it was.
        paths: the modules of the recorded layers, in their order.
        eager_paths: the modules that called eager attention; empty strings where the model gives weights alone.
        kinds: how many layers there are of each part and kind, such as "encoder self".
        eager_kinds: how many the model itself counts; None where it does not tell them apart.
        others: layers without softmax attention.
        weights: the largest absolute difference of a weight.
        output: the largest difference of the model's output at real tokens, relative to the largest number in it.
        peak: the largest weight of the median row, over what it would be if all keys were looked at alike.
    """

    model: str
    refusal: str = ""
    paths: tuple[str, ...] = ()
    eager_paths: tuple[str, ...] = ()
    kinds: tuple[tuple[str, int], ...] = ()
    eager_kinds: tuple[tuple[str, int], ...] | None = None
    others: tuple[str, ...] = ()
    weights: float = 0.0
    output: float = 0.0
    peak: float = 0.0


def verify(entry: Entry) -> Verdict:
    """Run an entry both ways."""
    model, inputs = entry.make()
    name = type(model).__name__
    seen, output = run_eagerly(model, inputs)
    try:
        with softmap.recording(model) as recorded:
            ours = model(**inputs)
    except ModelError as refusal:
        return Verdict(name, str(refusal))
    layers = recorded.recording.sequences[0].layers
    return Verdict(
        name,
        paths=tuple(layer.path for layer in layers),
        eager_paths=tuple(layer.path for layer in seen),
        kinds=_count(f"{layer.part} {layer.kind}" for layer in layers),
        eager_kinds=_kinds_of(output),
        others=tuple(sorted({other.name for other in recorded.others})),
        weights=max(difference_of_weights(entry, recorded, inputs, seen)),
        output=difference_of_output(ours, output, inputs),
        peak=min(peak(layer.weights) for layer in seen),
    )


def run_eagerly(model: Any, inputs: dict[str, Any]) -> tuple[list[Seen], Any]:
    """The weights of every attention layer in the order in which they ran, and what the model returns."""
    with torch.no_grad(), eager_weights(model) as calls:
        output = model(**inputs, output_attentions=True)
    calls = calls or [Seen("", weights) for weights in output.attentions]
    return (side_by_side(calls) if len(calls[-1].weights) == 1 else calls), output


@contextlib.contextmanager
def eager_weights(model: nn.Module) -> Iterator[list[Seen]]:
    """Keep the weights that eager attention gives, call by call, also where the model drops them.

    The functions stand beside the classes that call them, so this goes past transformers' AttentionInterface.
    """
    paths = {module: path for path, module in model.named_modules()}
    classes = {base for module in paths for base in type(module).__mro__}
    homes = {sys.modules[base.__module__] for base in classes}
    seen: list[Seen] = []

    def watch(function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            output, weights = function(module, *args, **kwargs)
            seen.append(Seen(paths[module], weights.detach()))
            return output, weights

        return watched

    with contextlib.ExitStack() as undo:
        for home in homes:
            if hasattr(home, "eager_attention_forward"):
                function = watch(home.eager_attention_forward)
                undo.enter_context(patch.object(home, "eager_attention_forward", function))
        yield seen


def side_by_side(calls: list[Seen]) -> list[Seen]:
    """One layer for the calls of one module in a row: pictures of one sequence, each of which sees itself alone."""
    layers = []
    for path, run in groupby(calls, key=lambda call: call.path):
        parts = [weights for call in run for weights in call.weights]  # (heads, queries, keys) each
        whole = [torch.block_diag(*(part[head] for part in parts)) for head in range(len(parts[0]))]
        layers.append(Seen(path, torch.stack(whole)[None]))
    return layers


def difference_of_weights(entry: Entry, recorded: Any, inputs: dict[str, Any], seen: list[Seen]) -> Iterator[float]:
    """The largest absolute difference in each layer of each sequence; nan where their shapes differ."""
    for item, sequence in enumerate(recorded.sequences):
        for layer, (_, weights) in zip(sequence.layers, seen, strict=True):
            queries, keys = (real_tokens(inputs, item, size) for size in weights.shape[2:])
            expected = weights[item][:, queries][:, :, keys].float()
            ours = layer.matrix[:, :, :]
            if entry.sinks_apart:
                ours = ours / ours.sum(-1, keepdim=True)
            yield float((ours - expected).abs().max()) if ours.shape == expected.shape else float("nan")


def difference_of_output(ours: Any, output: Any, inputs: dict[str, Any]) -> float:
    """The largest difference of what the model gives for real tokens, relative to the largest number."""
    found = []
    for name in OUTPUTS:
        if name not in output:
            continue
        for item, (mine, its) in enumerate(zip(ours[name], output[name], strict=True)):
            real = real_tokens(inputs, item, len(its)) if its.ndim > 1 else slice(None)
            found.append(float((mine[real] - its[real]).abs().max() / its[real].abs().max()))
    return max(found)


def real_tokens(inputs: dict[str, Any], item: int, size: int) -> slice:
    """Where the real tokens are in a sequence of that length."""
    masks = [inputs[name] for name in MASKS if name in inputs and inputs[name].shape == (len(inputs[name]), size)]
    if not masks:
        return slice(None)
    places = masks[0][item].nonzero()
    return slice(int(places[0]), int(places[-1]) + 1)


def peak(weights: Tensor) -> float:
    """The largest weight of a row over what it would be if all the keys it sees were looked at alike: the median."""
    count = (weights > 0).sum(-1)
    several = count > 3
    return float((weights.amax(-1) * count)[several].median())


def implementations(model: nn.Module) -> list[Any]:
    """Which attention function each configuration of a model and its parts names."""
    return [module.config._attn_implementation for module in model.modules() if hasattr(module, "config")]


def _count(names: Iterator[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(names).items()))


def _kinds_of(output: Any) -> tuple[tuple[str, int], ...] | None:
    told = {side: len(output[name]) for name, side in SIDES.items() if name in output}
    return tuple(sorted(told.items())) if len(told) == len(SIDES) else None


def as_recorded(example: Example) -> Any:
    """The recording of an example, as `softmap.record` makes it."""
    return softmap.record(example.inputs, example.model)
