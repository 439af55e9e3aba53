"""What a page computes a layer's weights from: q, k, v, masks and biases, as numbers without a model and without Python.

A mask is each query's runs of visible keys; a bias is a number for each distance, where it depends on that alone, else, on
a page, a number for each place.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from softmap.errors import SoftmapError
from softmap.kernels.sizes import LARGE
from softmap.matrix.known import REUSED
from softmap.matrix.without import without
from softmap.mechanism import PAGE
from softmap.recorded import forms
from softmap.viewer.sight import strips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int

    from softmap.biases import Bias
    from softmap.masks import Mask
    from softmap.recorded import RecordedLayer

    Numbers = np.ndarray[Any, Any]


class Ingredients:
    """Those of a layer.

    Attributes:
        layer: the layer.
        number: its number in the model.
        why: why its heads can't be held; empty where they can.
    """

    def __init__(self, layer: RecordedLayer, number: int, sinks: Sequence[int], shared: Shared) -> None:
        """Look at a layer.

        Args:
            layer: the layer.
            number: its number in the model.
            sinks: the keys that are left out where sinks are not shown.
            shared: what other layers have too.
        """
        self.layer, self.number, self._sinks, self._shared = layer, number, sinks, shared
        self.why = "" if layer.q is not None and layer.k is not None else "its q and k were not kept"
        self._mask, self._biases = "", [""] * layer.heads
        try:
            if not self.why:
                self._mask = shared.name("mask", _runs(layer.mask, *layer.shape[1:]))
        except SoftmapError as error:
            self.why = f"{error.subject}: expected {error.expected}, got {error.got}"  # its hint is for who records
        if layer.bias is not None and not self.why:
            self._add_biases(layer.bias)

    def described(self) -> dict[str, Any]:
        """What the page has to know of it, as JSON."""
        layer = self.layer
        left = {"left": list(self._sinks)}
        if self.why:
            return left | {"why": self.why}
        assert layer.q is not None
        assert layer.k is not None
        return left | {
            "size": layer.q.shape[2],
            "group": len(layer.q) // len(layer.k),
            "scale": layer.scale,
            "softcap": layer.softcap,
            "sinks": None if layer.sinks is None else layer.sinks.double().tolist(),
            "mask": self._mask,
            "bias": None if layer.bias is None else self._biases,
        }

    def of_head(self, head: int) -> dict[str, Numbers]:
        """What one head's weights are computed from, by the names of the pieces."""
        layer, name = self.layer, f"{self.number}.{head}"
        assert layer.q is not None
        assert layer.k is not None
        group = len(layer.q) // len(layer.k)
        held = {
            f"q/{name}": _wide(layer.q[head]),
            f"k/{self.number}.{head // group}": _wide(layer.k[head // group]),
            self._mask: self._shared.values[self._mask],
        }
        if layer.bias is not None:
            held[self._biases[head]] = self._shared.values[self._biases[head]]
        if max(layer.shape[1:]) > PAGE:  # else the page finds it at once
            rest = without(layer.matrix, self._sinks, rescaled=True)
            held[f"logsumexp/{name}"] = _logsumexp(layer.matrix, head)
            held[f"logsumexp/{name}/rest"] = _logsumexp(rest, head)
        return held

    def values(self, head: int) -> dict[str, Numbers]:
        """The values of one head; nothing where they were not kept."""
        if self.layer.v is None:
            return {}
        own = head // (self.layer.heads // len(self.layer.v))
        return {f"v/{self.number}.{own}": _wide(self.layer.v[own])}

    def _add_biases(self, bias: Bias) -> None:
        heads, queries, keys = self.layer.shape
        for head in range(heads):
            found = _compact(bias, head, queries, keys)
            if found is None:
                self.why = f"{bias!r} is no number for each distance"
                return
            self._biases[head] = self._shared.name("bias", found)


class Shared:
    """Numbers that several layers or heads have, each once.

    Attributes:
        values: the numbers, by the name of their piece.
    """

    def __init__(self) -> None:
        self.values: dict[str, Numbers] = {}
        self._names: dict[bytes, str] = {}

    def name(self, kind: str, numbers: Numbers) -> str:
        """The name of the piece that holds these numbers."""
        digest = sha256(f"{kind} {numbers.shape}".encode() + numbers.tobytes()).digest()
        name = self._names.setdefault(digest, f"{kind}/{len(self._names)}")
        self.values.setdefault(name, numbers)
        return name


def _runs(mask: Mask, queries: int, keys: int) -> Int[Numbers, " numbers"]:
    """Each query's runs of visible keys: how many there are before each query, and where they begin and end, by turns.

    Raises:
        RecordingError: there are too many of them.
    """
    places = forms._edges(mask, queries, keys).numpy()
    first = np.searchsorted(places[::2], np.arange(queries + 1) * (keys + 1))
    return np.concatenate((first, places % (keys + 1))).astype(np.int32)


def _compact(bias: Bias, head: int, queries: int, keys: int) -> Float[Numbers, " distances"] | Numbers | None:
    """One head's bias: of each distance key − query from 1 − queries on, else of each place; None where that is too much."""
    own, row, column = range(head, head + 1), range(keys), range(queries)
    from_first = bias.strip(own, range(1), row)[0, 0]
    to_first = bias.strip(own, column, range(1))[0, :, 0]
    by_distance = torch.cat((to_first.flip(0)[:-1], from_first)).float().cpu()

    def unrolled(rows: range) -> torch.Tensor:
        first = queries - 1 - torch.arange(rows.start, rows.stop)
        return by_distance[first[:, None] + torch.arange(keys)]

    if all(torch.equal(bias.strip(own, rows, row)[0].float().cpu(), unrolled(rows)) for rows in strips(column, keys)):
        return by_distance.numpy()
    return bias.strip(own, column, row)[0].float().numpy(force=True) if max(queries, keys) <= PAGE else None


def _wide(tensor: torch.Tensor) -> Float[Numbers, "tokens d"]:
    """float32, or float64 where it is that."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).numpy(force=True)


def _logsumexp(matrix: Any, head: int) -> Float[Numbers, " queries"]:
    """Each row's, float64, nats; NaN where its scores may be so large that the page has to find its own scores' one."""
    query = torch.arange(matrix.queries, device="cpu")
    found: Numbers = matrix._lookup.logsumexp(torch.full_like(query, head), query).numpy()
    small = (np.abs(found) <= REUSED) & (matrix._lookup.sizes_of(head) <= LARGE)
    return np.where(small | np.isneginf(found), found, np.nan)
