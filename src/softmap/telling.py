"""One head of a recorded layer -> the numbers of its story."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from softmap.mechanism import Steps

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    from softmap.biases import Bias
    from softmap.masks import Mask
    from softmap.recorded import RecordedLayer

    Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Added:
    """What a model does to the scores besides the scale, in this order.

    Attributes:
        softcap: the cap of the scaled scores, or None.
        bias: what is added to the scaled scores, or None.
        mask: which token may see which; None where all see all.
        sink: this head's sink, one more logit in each row's softmax, or None.
    """

    softcap: float | None = None
    bias: Bias | None = None
    mask: Mask | None = None
    sink: float | None = None


def steps_of(layer: RecordedLayer, head: int, queries: range) -> tuple[Steps, Float[Numbers, "queries tokens"] | None]:
    """The stages of one head, for some queries and all keys; and step 2 with a scale of 1, where it needs computing.

    x is among them where it was kept, and they are those of all queries.
    """
    matrix, rows = layer.matrix[head], slice(queries.start, queries.stop)
    assert layer.q is not None  # or there would be no matrix
    assert layer.k is not None

    def wide(tensor: Any) -> Numbers:
        array: Numbers = tensor.to(matrix.dtype).numpy(force=True)
        return array

    own = head // (layer.heads // len(layer.k))  # the key head
    weights, v = wide(matrix[rows]), None if layer.v is None else wide(layer.v[own])
    x = layer.inside.x if layer.inside is not None and len(queries) == layer.shape[1] else None
    steps = Steps(
        x=None if x is None else wide(x),
        q=wide(layer.q[head, rows]),
        k=wide(layer.k[own]),
        v=v,
        scores=wide(matrix.scores[rows]),
        scaled=wide(matrix.scaled[rows]),
        weights=weights,
        output=None if v is None else weights @ v,
        d_k=layer.k.shape[2],
        scale=layer.scale,
    )
    if layer.softcap is None and layer.bias is None:
        return steps, None
    return steps, wide(replace(layer, scale=1.0, logsumexp=None).matrix[head].scaled[rows])


def compare(layer: RecordedLayer, head: int, steps: Steps) -> tuple[float | None, int | None]:
    """How far a head's output is from that of the model's own attention function, and at how many tokens that is known.

    Returns:
        The largest absolute difference, in units of the output; None without anything to compare with. And the number
        of tokens; None where the difference is the whole layer's, from when it was recorded.
    """
    inside, told = layer.inside, steps.output
    if inside is None or inside.output is None or inside.rows is None or told is None:
        return layer.difference, 0 if layer.difference is None else None
    if len(told) == layer.shape[1]:
        told = told[inside.rows.numpy()]
    else:  # the few rows that are told are not those that were compared
        told = layer.matrix[head][inside.rows].numpy(force=True) @ steps.v
    return float(abs(told - inside.output[head].numpy(force=True)).max()), len(inside.rows)


def added_by(layer: RecordedLayer, head: int) -> Added:
    """What is done to the scores of one head."""
    from softmap.masks.kinds import Full

    mask = None if isinstance(layer.mask, Full) else layer.mask
    return Added(layer.softcap, layer.bias, mask, None if layer.sinks is None else float(layer.sinks[head]))
