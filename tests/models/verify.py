"""Runs a model of the zoo with its own eager attention and with softmap, and compares the two."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

import softmap
from softmap.errors import ModelError
from softmap.models.standing import configs_of

if TYPE_CHECKING:
    from makers import Entry

    from softmap.recorded import Recording

EAGER = "eager_attention_forward"
OUTPUTS = ("last_hidden_state", "logits", "text_embeds", "image_embeds")
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
        restored: whether the model was set to the same attention functions afterwards as before.
        refusal: the error by which softmap refused the model; None where it recorded it. Then the rest is empty.
        paths: the modules of the recorded layers, in their order.
        eager_paths: the modules that called eager attention; empty strings where the model gives weights alone.
        kinds: how many layers there are of each part and kind, such as "encoder self".
        eager_kinds: how many the model itself counts; None where it does not tell them apart.
        others: layers without softmax attention.
        weights: the largest absolute difference of a weight.
        output: the largest difference of the model's output at real tokens, relative to the largest number in it.
        peak: the largest weight of the median row, over what it would be if all keys were looked at alike.
        missed: how many of the weights that the model itself returns are none of those that were compared.
    """

    model: str
    restored: bool
    refusal: ModelError | None = None
    paths: tuple[str, ...] = ()
    eager_paths: tuple[str, ...] = ()
    kinds: tuple[tuple[str, int], ...] = ()
    eager_kinds: tuple[tuple[str, int], ...] | None = None
    others: tuple[str, ...] = ()
    weights: float = 0.0
    output: float = 0.0
    peak: float = 0.0
    missed: int = 0


def verify(entry: Entry) -> Verdict:
    """Run an entry both ways."""
    model, inputs = entry.make()
    name, found = type(model).__name__, implementations(model)
    seen, output = run_eagerly(model, inputs)
    try:
        with softmap.recording(model) as recorded:
            model(**inputs)  # what an eager model gives back of so few tokens is its own function's
        restored = implementations(model) == found
        ours = run_by_softmap(model, inputs)
    except ModelError as refusal:
        return Verdict(name, implementations(model) == found, refusal)
    layers = recorded.sequences[0].layers
    return Verdict(
        name,
        restored,
        paths=tuple(layer.path for layer in layers),
        eager_paths=tuple(layer.path for layer in seen),
        kinds=count(f"{layer.part} {layer.kind}" for layer in layers),
        eager_kinds=kinds_of(output),
        others=tuple(sorted({other.name for other in recorded.others})),
        weights=largest_difference(weights_of(recorded, sinks_apart=entry.sinks_apart), real_weights(seen, inputs)),
        output=difference_of_output(ours, output, inputs),
        peak=min(peak(layer.weights) for layer in seen),
        missed=sum(not any(same(told, layer.weights) for layer in seen) for told in returned_weights(output)),
    )


def run_by_softmap(model: Any, inputs: dict[str, Any]) -> Any:
    """What the model gives when it is set to softmap for good; afterwards it is set to what it was."""
    found = [(config, config._attn_implementation) for config in configs_of(model)]
    model.set_attn_implementation("softmap")
    with torch.no_grad():
        output = model(**inputs)
    for config, implementation in found:
        config._attn_implementation_internal = implementation
    return output


def run_eagerly(model: Any, inputs: dict[str, Any]) -> tuple[list[Seen], Any]:
    """The weights of every attention layer in the order in which they ran, and what the model returns."""
    with torch.no_grad(), eager_weights(model) as calls:
        output = model(**inputs, output_attentions=True)
    calls = calls or [Seen("", weights) for weights in output.get("attentions") or ()]
    alone = calls and len(calls[-1].weights) == 1
    return (side_by_side(calls) if alone else calls), output


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
            if hasattr(home, EAGER):
                function = getattr(home, EAGER)
                undo.callback(setattr, home, EAGER, function)
                setattr(home, EAGER, watch(function))
        yield seen


def returned_weights(output: Any) -> Iterator[Tensor]:
    """The weights in what a model returns, and in what its parts do."""
    for name, value in output.items():
        if name.endswith("attentions"):
            yield from value or ()
        elif hasattr(value, "items"):
            yield from returned_weights(value)


def same(some: Tensor, others: Tensor) -> bool:
    """Whether two arrays have one shape and the same numbers."""
    return some.shape == others.shape and torch.equal(some, others)


def side_by_side(calls: list[Seen]) -> list[Seen]:
    """One layer for the calls of one module in a row: pictures of one sequence, each of which sees itself alone."""
    layers = []
    for path, run in groupby(calls, key=lambda call: call.path):
        parts = [weights for call in run for weights in call.weights]  # (heads, queries, keys) each
        whole = [torch.block_diag(*(part[head] for part in parts)) for head in range(len(parts[0]))]
        layers.append(Seen(path, torch.stack(whole)[None]))
    return layers


def weights_of(recorded: Recording, *, sinks_apart: bool = False) -> list[Tensor]:
    """The weights of every layer of every sequence, (heads, queries, keys); of each row's sum if `sinks_apart`."""
    found = [layer.matrix.dense() for sequence in recorded.sequences for layer in sequence.layers]
    return [weights / weights.sum(-1, keepdim=True) for weights in found] if sinks_apart else found


def real_weights(seen: list[Seen], inputs: dict[str, Any]) -> list[Tensor]:
    """Eager attention's in that order, without padding."""
    found = []
    for item in range(len(seen[-1].weights)):
        for _, weights in seen:
            queries, keys = (real_tokens(inputs, item, size) for size in weights.shape[2:])
            found.append(weights[item][:, queries][:, :, keys].float())
    return found


def largest_difference(some: list[Tensor], others: list[Tensor]) -> float:
    """The largest absolute difference of two numbers; infinite where shapes differ."""
    if [one.shape for one in some] != [other.shape for other in others]:
        return float("inf")
    return float(torch.stack([(one - other).abs().max() for one, other in zip(some, others, strict=True)]).max())


def mean_difference(some: list[Tensor], others: list[Tensor]) -> float:
    """The mean over the layers of the mean absolute difference."""
    return float(torch.stack([(one - other).abs().mean() for one, other in zip(some, others, strict=True)]).mean())


def difference_of_output(ours: Any, output: Any, inputs: dict[str, Any]) -> float:
    """The largest difference of what the model gives for real tokens, relative to the largest number."""
    found = []
    for name in OUTPUTS:
        for item, (mine, its) in enumerate(zip(ours.get(name, ()), output.get(name, ()), strict=True)):
            real = real_tokens(inputs, item, len(its)) if its.ndim > 1 else slice(None)
            found.append((mine[real] - its[real]).abs().max() / its[real].abs().max())
    return float(torch.stack(found).max())


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


def count(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """How often each occurs."""
    return tuple(sorted(Counter(names).items()))


def kinds_of(output: Any) -> tuple[tuple[str, int], ...] | None:
    """How many layers of each kind a model says it has; None where it does not tell them apart."""
    told = {side: len(output[name]) for name, side in SIDES.items() if name in output}
    return tuple(sorted(told.items())) if len(told) == len(SIDES) else None
