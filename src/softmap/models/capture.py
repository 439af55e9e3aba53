"""Run a model once and keep what each attention layer worked with.

softmap stands in for the attention function through ``transformers``' own AttentionInterface
(https://huggingface.co/docs/transformers/attention_interface): it hands the call on to the function that the
model was set to, so the model computes what it always computes, and keeps x, q, k, v and the result on the way.
Everything kept is linear in the number of tokens.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from softmap.errors import ModelError
from softmap.mechanism import PAGE, Steps, linear, self_attention
from softmap.models.settings import quiet_transformers

if TYPE_CHECKING:
    from jaxtyping import Float
    from transformers import PreTrainedModel

    from softmap.models.load import LoadedModel
    from softmap.tokens import Tokens

IMPLEMENTATION = "softmap"
FAMILY = "softmap looks into encoders of the BERT family: BERT, RoBERTa, XLM-R, DistilBERT, ELECTRA and their like."
PROJECTION_NAMES = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q_proj", "k_proj", "v_proj"))


@dataclass(frozen=True, repr=False, eq=False)
class Head:
    """One attention head as the model ran it, in the model's dtype.

    Attributes:
        x: what entered the layer, (tokens, d_model).
        w_q: this head's query weights, (d_model, d_k).
        w_k: its key weights, (d_model, d_k).
        w_v: its value weights, (d_model, d_v).
        b_q: its queries' bias, (d_k); None where the model has none.
        b_k: its keys' bias, (d_k), likewise.
        b_v: its values' bias, (d_v), likewise.
        scale: what the model multiplies the scores by.
        output: what the model's attention gave for this head, (tokens, d_v).
    """

    x: Float[torch.Tensor, "tokens d_model"]
    w_q: Float[torch.Tensor, "d_model d_k"]
    w_k: Float[torch.Tensor, "d_model d_k"]
    w_v: Float[torch.Tensor, "d_model d_v"]
    b_q: Float[torch.Tensor, " d_k"] | None
    b_k: Float[torch.Tensor, " d_k"] | None
    b_v: Float[torch.Tensor, " d_v"] | None
    scale: float
    output: Float[torch.Tensor, "tokens d_v"]

    @property
    def tokens(self) -> int:
        """How many tokens the text has."""
        return int(self.x.shape[0])

    def steps(self) -> Steps:
        """Run `self_attention` on the model's own x and weights: every stage, (tokens, tokens) at the largest."""
        return self_attention(
            self.x, self.w_q, self.w_k, self.w_v, b_q=self.b_q, b_k=self.b_k, b_v=self.b_v, scale=self.scale
        )

    def strips(self, rows: slice | None = None) -> Iterator[tuple[slice, Steps]]:
        """The stages of a page of queries at a time, so that memory stays linear in the number of tokens.

        A text of one page is `steps`, whole. Beyond it x is left out of the steps.

        Args:
            rows: the queries to go through, at most; all unless given.
        """
        if self.tokens <= PAGE:
            yield slice(0, self.tokens), self.steps()
            return
        q = linear(self.x, self.w_q, self.b_q)  # (tokens, d_model) x (d_model, d_k) -> (tokens, d_k)
        k = linear(self.x, self.w_k, self.b_k)  # (tokens, d_model) x (d_model, d_k) -> (tokens, d_k)
        v = linear(self.x, self.w_v, self.b_v)  # (tokens, d_model) x (d_model, d_v) -> (tokens, d_v)
        first, last, _ = (rows or slice(None)).indices(self.tokens)
        for start in range(first, last, PAGE):
            strip = slice(start, min(start + PAGE, last))
            yield strip, Steps.from_qkv(q[strip], k, v, scale=self.scale)

    def difference(self, steps: Steps, rows: slice) -> float:
        """The largest absolute difference between these steps' output and what the model computed."""
        output: torch.Tensor = steps.output  # type: ignore[assignment]  # v is always given here
        return float((output - self.output[rows]).abs().max())

    def agrees(self, difference: float) -> bool:
        """Whether a difference is the rounding of the model's dtype, and not another formula."""
        tolerance = 1e-3 + 8 * torch.finfo(self.output.dtype).eps
        return difference <= tolerance * float(self.output.abs().max())


@dataclass(frozen=True, repr=False, eq=False)
class Layer:
    """One attention layer as the model ran it.

    Attributes:
        module: the path of the module in the model, such as ``encoder.layer.3.attention.self``.
        x: what entered it, (tokens, d_model), in the model's dtype.
        projections: the three linear maps to q, k and v of all heads.
        scale: what the model multiplies the scores by.
        output: what its attention gave, (heads, tokens, d_v).
    """

    module: str
    x: Float[torch.Tensor, "tokens d_model"]
    projections: tuple[nn.Linear, nn.Linear, nn.Linear]
    scale: float
    output: Float[torch.Tensor, "heads tokens d_v"]

    @property
    def heads(self) -> int:
        return int(self.output.shape[0])

    def head(self, index: int) -> Head:
        """One head: its columns of the three projections, which ``transformers`` keeps as rows of ``weight``."""
        (w_q, b_q), (w_k, b_k), (w_v, b_v) = (self._columns(projection, index) for projection in self.projections)
        return Head(self.x, w_q, w_k, w_v, b_q, b_k, b_v, self.scale, self.output[index])

    def _columns(self, projection: nn.Linear, index: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        size = projection.out_features // self.heads
        rows = slice(index * size, (index + 1) * size)
        bias = None if projection.bias is None else projection.bias.detach()[rows]  # (size)
        return projection.weight.detach()[rows].T, bias  # (size, d_model) -> (d_model, size)


@dataclass(frozen=True, repr=False, eq=False)
class Capture:
    """One text through one model: its tokens, and every attention layer in the order it ran."""

    tokens: Tokens
    layers: tuple[Layer, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """How many layers, and how many heads in each."""
        return len(self.layers), self.layers[0].heads

    def head(self, layer: int, head: int) -> Head:
        return self.layers[layer].head(head)


def capture(loaded: LoadedModel, tokens: Tokens) -> Capture:
    """Run an encoder of the BERT family on a text, without gradients; afterwards the model is as it was found.

    Raises:
        ModelError: the model's attention does not go through the interface, or is more than softmax(q kᵀ · scale) v
            of q = x W_q + b_q, k and v alike (rotary positions, masks, grouped heads, cross attention).
    """
    if loaded.model.config.is_encoder_decoder:
        got = f"{type(loaded.model).__name__}, an encoder-decoder"
        raise ModelError(loaded.name, "an encoder of the BERT family", got, FAMILY)
    with quiet_transformers(), _standing_in(loaded) as recorder:
        ids = torch.tensor([tokens.ids], device=loaded.model.device)
        try:
            loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids))
        except ModelError:
            raise
        except Exception as error:  # whatever a model's own code raises
            got = f"{type(error).__name__}: {error}"
            raise ModelError(loaded.name, "a model that runs on a text", got, FAMILY) from error
    expected = getattr(loaded.model.config, "num_hidden_layers", None)
    if len(recorder.layers) != expected:
        raise ModelError(
            loaded.name,
            f"{expected} attention layers that go through transformers' AttentionInterface",
            f"{len(recorder.layers)} in {type(loaded.model).__name__}",
            FAMILY,
        )
    return Capture(tokens, tuple(recorder.layers))


@dataclass
class _Recorder:
    """What one run has kept so far, and the function the model would have called."""

    name: str
    implementation: str
    paths: dict[nn.Module, str]
    inputs: dict[nn.Module, torch.Tensor] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)

    def attend(
        self, module: nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Call the model's own attention function, and keep what went in and what came out."""
        output, weights = self.own_function(module)(module, query, key, value, attention_mask, **kwargs)
        self._keep(module, (query, key, value), attention_mask, kwargs, output)
        return output, weights

    def own_function(self, module: nn.Module) -> Callable[..., Any]:
        """The function that the model was set to; the eager one stands beside the module's class, or a base's."""
        homes = (sys.modules[base.__module__] for base in type(module).__mro__)
        eager = next((home.eager_attention_forward for home in homes if hasattr(home, "eager_attention_forward")), None)
        function: Callable[..., Any] | None = AttentionInterface().get(self.implementation, eager)
        if function is None:
            raise self._refusal(
                self.paths[module], type(module).__name__, "a function eager_attention_forward beside it"
            )
        return function

    def is_elsewhere(self) -> bool:
        """Whether another thread than the capture's calls: its run of the model is its own business."""
        return threading.get_ident() != self.thread

    def keep_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.is_elsewhere():
            return
        self.inputs[module] = args[0] if args else kwargs["hidden_states"]

    def _keep(self, module: nn.Module, qkv: tuple[Any, ...], mask: Any, kwargs: dict[str, Any], output: Any) -> None:
        path = self.paths[module]
        if self._hides_keys(module, mask, kwargs):
            raise self._refusal(path, "a mask", "attention from every token to every token")
        if any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
            raise self._refusal(path, "a soft cap, a sink or a position bias", "softmax of q kᵀ · scale alone")
        projections = _projections(module)
        if projections is None:
            raise self._refusal(path, f"{type(module).__name__}", "three linear maps to q, k and v in one module")
        x = self.inputs[module][0]  # (tokens, d_model)
        for projection, stage, letter in zip(projections, qkv, "qkv", strict=True):
            if not bool(torch.isfinite(stage).all()):
                raise self._refusal(path, f"NaN or infinity in its {letter}", "finite numbers in all its weights")
            if not _is_projection(projection, x, stage):
                raise self._refusal(path, f"a {letter} that differs from it", f"{letter} = x W_{letter} + b_{letter}")
        scale = kwargs.get("scaling")
        scale = qkv[0].shape[-1] ** -0.5 if scale is None else float(scale)
        self.layers.append(Layer(path, x, projections, scale, output[0].transpose(0, 1)))

    def _hides_keys(self, module: nn.Module, mask: Any, kwargs: dict[str, Any]) -> bool:
        """Whether some query may not see some key. Without a mask, fused functions go by is_causal, true by default."""
        if mask is not None and not isinstance(mask, torch.Tensor):
            expected = "an attention function that takes tensors, such as sdpa or eager"
            raise self._refusal(self.paths[module], self.implementation, expected)
        if mask is not None:
            return bool(not mask.all() if mask.dtype == torch.bool else mask.any())
        causal = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        return bool(causal) and self.implementation != "eager"

    def _refusal(self, path: str, got: str, expected: str) -> ModelError:
        return ModelError(f"{self.name}, {path}", expected, got, FAMILY)


_current: _Recorder | None = None
"""The one capture that runs: a model's attention function is a setting of the whole model, and of `quiet_transformers`
one thread at a time is inside."""


def _attend(module: nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
    """Stand in for the model's attention function; a call that no capture made is handed on as it is."""
    recorder = _current
    if recorder is None:  # another thread's call, begun while a capture was ending
        return AttentionInterface()["sdpa"](module, query, key, value, attention_mask, **kwargs)
    if recorder.is_elsewhere():
        return recorder.own_function(module)(module, query, key, value, attention_mask, **kwargs)
    return recorder.attend(module, query, key, value, attention_mask, **kwargs)


def _mask(*args: Any, **kwargs: Any) -> Any:
    own_function = AttentionMaskInterface().get("sdpa" if _current is None else _current.implementation)
    return None if own_function is None else own_function(*args, **kwargs)  # as transformers does without one


AttentionInterface.register(IMPLEMENTATION, _attend)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)


@contextlib.contextmanager
def _standing_in(loaded: LoadedModel) -> Iterator[_Recorder]:
    """Put softmap in the place of the model's attention function; afterwards all is as it was found."""
    model = loaded.model
    implementation = model.config._attn_implementation
    recorder = _Recorder(loaded.name, implementation, {module: path for path, module in model.named_modules()})
    with contextlib.ExitStack() as undo:
        undo.callback(_set_current, None)
        _set_current(recorder)
        for module in model.modules():
            if _projections(module) is not None:
                undo.callback(module.register_forward_pre_hook(recorder.keep_input, with_kwargs=True).remove)
        undo.callback(_set_training, {module: module.training for module in model.modules()})
        model.eval()
        undo.callback(_set_implementation, model, implementation)
        _set_implementation(model, IMPLEMENTATION)
        undo.enter_context(torch.no_grad())
        yield recorder


def _set_current(recorder: _Recorder | None) -> None:
    global _current  # noqa: PLW0603  # transformers calls a registered function with nothing of ours
    _current = recorder


def _set_implementation(model: PreTrainedModel, name: str) -> None:
    if model.config._attn_implementation != name:
        model.set_attn_implementation(name)


def _set_training(flags: dict[nn.Module, bool]) -> None:
    for module, training in flags.items():
        module.training = training


def _projections(module: nn.Module) -> tuple[nn.Linear, nn.Linear, nn.Linear] | None:
    for names in PROJECTION_NAMES:
        q, k, v = (getattr(module, name, None) for name in names)
        if isinstance(q, nn.Linear) and isinstance(k, nn.Linear) and isinstance(v, nn.Linear):
            return q, k, v
    return None


def _is_projection(projection: nn.Linear, x: torch.Tensor, stage: torch.Tensor) -> bool:
    """Whether this stage (1, heads, tokens, d_head) is x W + b and nothing more, to the dtype's rounding."""
    if x.shape[-1] != projection.in_features:
        return False
    expected = projection(x)  # (tokens, d_model) -> (tokens, heads * d_head)
    got = stage[0].transpose(0, 1).flatten(1)  # (heads, tokens, d_head) -> (tokens, heads * d_head)
    if got.shape != expected.shape:
        return False
    tolerance = (1e-4 + 4 * torch.finfo(x.dtype).eps) * expected.abs().max()
    return bool((got - expected).abs().max() <= tolerance)
