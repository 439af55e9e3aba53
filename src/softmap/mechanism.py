"""Self-attention in full view: every stage of one head, by name.

For tokens x, one row a token:

    q = x W_q,  k = x W_k,  v = x W_v     what a token asks for, what it offers, what it carries
    1. scores  = q kᵀ                     how similar every query is to every key
    2. scaled  = scores / √d_k            keeps softmax where its gradients are not vanishing
    3. weights = softmax(scaled)          row by row: each in 0..1, each row sums to 1
    4. output  = weights v                each token's new representation

Vaswani et al., 2017, "Attention Is All You Need", section 3.2.1, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import array_api_compat as compat
import numpy as np

from softmap.arrays import Array, first_non_finite, read_arrays, shape
from softmap.checks import check_causal, check_d_k, check_fit, check_rank, check_scale
from softmap.errors import NonFiniteError

if TYPE_CHECKING:
    from jaxtyping import Float

PAGE = 512
"""Tokens whose whole matrix is held at once; of a longer text only strips of this many rows are."""


@np.errstate(over="ignore", invalid="ignore")  # Steps refuses what overflows
def self_attention(
    x: Float[Array, "tokens d_model"],
    w_q: Float[Array, "d_model d_k"],
    w_k: Float[Array, "d_model d_k"],
    w_v: Float[Array, "d_model d_v"],
    *,
    b_q: Float[Array, " d_k"] | None = None,
    b_k: Float[Array, " d_k"] | None = None,
    b_v: Float[Array, " d_v"] | None = None,
    scale: float | None = None,
    causal: bool = False,
) -> Steps:
    """Run one head of self-attention and keep every stage.

    Args:
        x: the token representations that enter the layer, (tokens, d_model).
        w_q: the learned query weights, (d_model, d_k).
        w_k: the learned key weights, (d_model, d_k).
        w_v: the learned value weights, (d_model, d_v).
        b_q: the queries' bias, where the model has one, (d_k).
        b_k: the keys' bias, (d_k).
        b_v: the values' bias, (d_v).
        scale: what step 2 multiplies by; 1/√d_k unless given.
        causal: whether a token sees only itself and the tokens before it.

    Returns:
        Steps: arrays of the library, device and dtype that was given (halves become float32).

    Raises:
        SoftmapError: one of its children ArrayKindError, DtypeError, ShapeError, NonFiniteError and
            ParameterError, where an argument is not what is described here.

    Examples:
        >>> import softmap
        >>> steps = softmap.self_attention(*softmap.example())
        >>> steps.weights.round(2)[0]
        array([0.9 , 0.07, 0.03])
    """
    x, w_q, w_k, w_v, b_q, b_k, b_v = _read_projections(x, w_q, w_k, w_v, b_q, b_k, b_v)
    d_k = w_k.shape[1]
    scale = check_scale(scale, d_k)
    check_causal(causal, x.shape[0], x.shape[0])

    q = linear(x, w_q, b_q)  # x W_q + b_q: (tokens, d_model) x (d_model, d_k) -> (tokens, d_k)
    k = linear(x, w_k, b_k)  # x W_k + b_k: (tokens, d_model) x (d_model, d_k) -> (tokens, d_k)
    v = linear(x, w_v, b_v)  # x W_v + b_v: (tokens, d_model) x (d_model, d_v) -> (tokens, d_v)

    scores = q @ k.T  # step 1: (tokens, d_k) x (d_k, tokens) -> (tokens, tokens)
    scaled = mask_future(scores * scale, causal)  # step 2: (tokens, tokens)
    weights = softmax(scaled)  # step 3: (tokens, tokens), each row sums to 1
    output = weights @ v  # step 4: (tokens, tokens) x (tokens, d_v) -> (tokens, d_v)

    return Steps(x, q, k, v, scores, scaled, weights, output, d_k, scale)


def linear(
    x: Float[Array, "tokens d_in"], w: Float[Array, "d_in d_out"], b: Float[Array, " d_out"] | None
) -> Float[Array, "tokens d_out"]:
    """Project x: x W + b. In torch with the fused product of nn.Linear, whose rounding a model's own q, k, v have."""
    if b is None:
        return x @ w
    if compat.is_torch_array(x):
        import torch

        return torch.addmm(b, x, w)
    return x @ w + b


def mask_future(scaled: Float[Array, "tokens tokens"], causal: bool) -> Float[Array, "tokens tokens"]:
    """Where causal, put −∞ in place of every key that comes after its query: softmax makes it 0."""
    if not causal:
        return scaled
    xp = compat.array_namespace(scaled)
    is_past = xp.tril(xp.ones_like(scaled, dtype=xp.bool))  # (tokens, tokens)
    return xp.where(is_past, scaled, xp.full_like(scaled, float("-inf")))


def softmax(scaled: Float[Array, "queries keys"]) -> Float[Array, "queries keys"]:
    """Each row's exponentials over their sum. Taking the row's maximum off first changes nothing but overflow."""
    xp = compat.array_namespace(scaled)
    exponentials = xp.exp(scaled - xp.max(scaled, axis=-1, keepdims=True))  # (queries, keys), in 0..1
    return exponentials / xp.sum(exponentials, axis=-1, keepdims=True)  # (queries, keys)


@dataclass(frozen=True, repr=False, eq=False)
class Steps:
    """Every stage of one attention head. A row is a query (who looks), a column a key (looked at).

    Attributes:
        x: the token representations, (tokens, d_model); None when started from q, k, v or scores.
        q: the queries, (queries, d_k); None when started from scores.
        k: the keys, (keys, d_k); None when started from scores.
        v: the values, (keys, d_v); None where none were given.
        scores: step 1, q kᵀ, (queries, keys).
        scaled: step 2, scores · scale, (queries, keys); −inf where a key may not be seen.
        weights: step 3, softmax of each row of scaled, (queries, keys), probabilities.
        output: step 4, weights v, (queries, d_v); None where no v was given.
        d_k: the dimension of the keys.
        scale: what step 2 multiplied by; 1/√d_k unless it was given.

    Raises:
        NonFiniteError: finite input whose stages overflow the dtype.
    """

    x: Float[Array, "tokens d_model"] | None
    q: Float[Array, "queries d_k"] | None
    k: Float[Array, "keys d_k"] | None
    v: Float[Array, "keys d_v"] | None
    scores: Float[Array, "queries keys"]
    scaled: Float[Array, "queries keys"]
    weights: Float[Array, "queries keys"]
    output: Float[Array, "queries d_v"] | None
    d_k: int
    scale: float

    @classmethod
    @np.errstate(over="ignore", invalid="ignore")
    def from_qkv(
        cls,
        q: Float[Array, "queries d_k"],
        k: Float[Array, "keys d_k"],
        v: Float[Array, "keys d_v"] | None = None,
        *,
        scale: float | None = None,
        causal: bool = False,
    ) -> Steps:
        """Start after the projections, with q (queries, d_k), k (keys, d_k) and v (keys, d_v).

        Raises:
            SoftmapError: as `self_attention`; and where causal, for another number of keys than queries.
        """
        q, k, v = read_arrays(optional=("v",), q=q, k=k, v=v).values()
        for name, array in {"q": q, "k": k, "v": v}.items():
            check_rank(name, array, ("queries" if name == "q" else "keys", "d_v" if name == "v" else "d_k"))
        check_fit("q", q, 1, "k", k, 1, "d_k")
        check_fit("k", k, 0, "v", v, 0, "keys")
        d_k = k.shape[1]
        return _after_scores(q @ k.T, d_k, q=q, k=k, v=v, scale=scale, causal=causal)

    @classmethod
    @np.errstate(over="ignore", invalid="ignore")
    def from_scores(
        cls,
        scores: Float[Array, "queries keys"],
        d_k: int,
        v: Float[Array, "keys d_v"] | None = None,
        *,
        scale: float | None = None,
        causal: bool = False,
    ) -> Steps:
        """Start after step 1, with a matrix of scores (queries, keys) and the dimension of the keys.

        Examples:
            >>> import numpy, softmap
            >>> softmap.Steps.from_scores(numpy.array([[110.0, 90.0, 83.0]]), d_k=64).scaled
            array([[13.75 , 11.25 , 10.375]])

        Raises:
            SoftmapError: as `self_attention`; and for d_k below 1.
        """
        scores, v = read_arrays(optional=("v",), scores=scores, v=v).values()
        check_rank("scores", scores, ("queries", "keys"))
        check_rank("v", v, ("keys", "d_v"))
        check_fit("scores", scores, 1, "v", v, 0, "keys")
        return _after_scores(scores, check_d_k(d_k), v=v, scale=scale, causal=causal)

    def __post_init__(self) -> None:
        for name in ("q", "k", "v", "scores", "weights", "output"):
            stage = getattr(self, name)
            found = None if stage is None else first_non_finite(stage)
            if found is not None:
                row, column = found[0]
                raise NonFiniteError(
                    name,
                    f"numbers within the range of {stage.dtype}",
                    f"{found[1]} at {name}[{row}, {column}]",
                    "The input is too large for this dtype: scale it down, or convert it to float64.",
                )

    def __repr__(self) -> str:
        stages = ((field.name, getattr(self, field.name)) for field in fields(self))
        shown = [f"{name} {shape(stage)}" for name, stage in stages if hasattr(stage, "shape")]
        return f"Steps({', '.join(shown)}, d_k={self.d_k}, scale={self.scale:g})"


def _after_scores(
    scores: Array,
    d_k: int,
    *,
    q: Array | None = None,
    k: Array | None = None,
    v: Array | None = None,
    scale: float | None,
    causal: bool,
) -> Steps:
    """Steps 2 to 4, for those who come with scores."""
    check_causal(causal, *scores.shape)
    scale = check_scale(scale, d_k)
    scaled = mask_future(scores * scale, causal)
    weights = softmax(scaled)
    output = None if v is None else weights @ v
    return Steps(None, q, k, v, scores, scaled, weights, output, d_k, scale)


def _read_projections(x: Any, w_q: Any, w_k: Any, w_v: Any, b_q: Any, b_k: Any, b_v: Any) -> tuple[Array, ...]:
    """Read x, the weights and the biases, and check that they fit together."""
    x, w_q, w_k, w_v, b_q, b_k, b_v = read_arrays(
        optional=("b_q", "b_k", "b_v"), x=x, w_q=w_q, w_k=w_k, w_v=w_v, b_q=b_q, b_k=b_k, b_v=b_v
    ).values()
    check_rank("x", x, ("tokens", "d_model"))
    for letter, weight, bias in (("q", w_q, b_q), ("k", w_k, b_k), ("v", w_v, b_v)):
        d_head = "d_v" if letter == "v" else "d_k"
        check_rank(f"w_{letter}", weight, ("d_model", d_head))
        check_rank(f"b_{letter}", bias, (d_head,))
        check_fit("x", x, 1, f"w_{letter}", weight, 0, "d_model")
        check_fit(f"w_{letter}", weight, 1, f"b_{letter}", bias, 0, d_head)
    check_fit("w_q", w_q, 1, "w_k", w_k, 1, "d_k")
    return x, w_q, w_k, w_v, b_q, b_k, b_v
