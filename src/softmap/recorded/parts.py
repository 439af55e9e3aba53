"""What a recording is made of as JSON and arrays, and back: layers with their statistics, tokens, the model.

What is read is checked: that sizes fit each other, not what the numbers in the arrays are.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from softmap.kernels.contract import Distance, Top
from softmap.matrix import Cells, Summary
from softmap.recorded import forms
from softmap.recorded.layer import OtherLayer, RecordedLayer
from softmap.recorded.recording import Origin
from softmap.tensors import FLOATS
from softmap.tokens import Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from softmap.recorded.entries import Arrays, Entry

    Json = dict[str, Any]
    Shape = tuple[int, int, int]

_WIDE = (torch.float32, torch.float64)
_WHOLE = (torch.int64,)
_CAPS = (1e-30, 1e30)  # as AttentionMatrix takes them


def write_layer(layer: RecordedLayer) -> tuple[Json, dict[str, Tensor]]:
    """A layer on one sequence, but for what is `inside`.

    Raises:
        RecordingError: a mask or bias that no file can hold.
    """
    mask, of_mask = forms.write_mask(layer.mask, *layer.shape[1:])
    bias, of_bias = (None, {}) if layer.bias is None else forms.write_bias(layer.bias)
    summary, of_summary = (None, {}) if layer.summary is None else _write_summary(layer.summary)
    names = ("q", "k", "v", "sinks", "logsumexp")
    own = {name: getattr(layer, name) for name in names if getattr(layer, name) is not None}
    written = {
        "path": layer.path,
        "kind": layer.kind,
        "part": layer.part,
        "shape": list(layer.shape),
        "scale": float(layer.scale),
        "softcap": layer.softcap,
        "largest": [float(size) if math.isfinite(size) else None for size in layer.largest],
        "queries_of": layer.queries_of,
        "keys_of": layer.keys_of,
        "number": layer.number,
        "difference": layer.difference,
        "mask": mask,
        "bias": bias,
        "summary": summary,
    }
    return written, {**own, **of_mask, **of_bias, **of_summary}


def read_layer(entry: Entry, arrays: Arrays) -> RecordedLayer:
    """A layer on one sequence.

    Raises:
        RecordingError: something in it is not what it should be, or does not fit the rest.
    """
    names = ("path", "kind", "part", "shape", "scale", "softcap", "largest", "queries_of", "keys_of")
    path, kind, part, sizes, scale, softcap, largest, queries_of, keys_of, number, difference, mask, bias, summary = (
        entry.fields(*names, "number", "difference", "mask", "bias", "summary")
    )
    heads, queries, keys = shape = _read_shape(sizes)
    q, k, v = _read_qkv(entry, shape, arrays)
    return RecordedLayer(
        path=path.text(),
        kind=kind.choice("self", "cross"),
        part=part.choice("encoder", "decoder"),
        shape=shape,
        q=q,
        k=k,
        v=v,
        mask=forms.read_mask(mask, queries, keys, arrays),
        scale=scale.number(),
        softcap=softcap.optional(_read_softcap),
        sinks=_read_sinks(entry, heads, arrays),
        bias=bias.optional(lambda entry: forms.read_bias(entry, shape, arrays)),
        summary=summary.optional(lambda entry: _read_summary(entry, shape, arrays)),
        logsumexp=arrays.find("logsumexp", (torch.float64,), heads, queries),
        largest=_read_largest(largest),
        queries_of=queries_of.optional(lambda entry: entry.choice("tokens", "target")),
        keys_of=keys_of.optional(lambda entry: entry.choice("tokens", "target")),
        number=number.optional(lambda entry: entry.whole()),
        difference=difference.optional(lambda entry: entry.number()),
    )


def write_tokens(tokens: Tokens) -> Json:
    """The tokens of a text, each of their attributes as a list."""
    starts, stops = zip(*tokens.spans, strict=True) if tokens.spans else ((), ())
    return {
        "text": tokens.text,
        "ids": list(tokens.ids),
        "pieces": list(tokens.pieces),
        "starts": list(starts),
        "stops": list(stops),
        "words": [-1 if word is None else word for word in tokens.words],
        "special": list(tokens.special),
        "unknown": list(tokens.unknown),
        "cut": tokens.cut,
    }


def read_tokens(entry: Entry) -> Tokens:
    """The tokens of a text.

    Raises:
        RecordingError: lists of several lengths, or of other things; places outside the text.
    """
    names = ("text", "ids", "pieces", "starts", "stops", "words", "special", "unknown", "cut")
    text, ids, pieces, starts, stops, words, special, unknown, cut = entry.fields(*names)
    end = len(text.text())
    spans = zip(starts.whole_numbers(most=end), stops.whole_numbers(most=end), strict=False)
    read = Tokens(
        text=text.text(),
        ids=ids.whole_numbers(),
        pieces=pieces.all_of(str, "strings"),
        spans=tuple(spans),
        words=tuple(None if word < 0 else word for word in words.whole_numbers(least=-1)),
        special=special.all_of(bool, "true and false"),
        unknown=unknown.all_of(bool, "true and false"),
        cut=cut.whole(),
    )
    count = len(read.pieces)
    if any(len(each.value) != count for each in (starts, stops, words, special, unknown)):
        raise entry.error(f"as many of each as there are pieces, {count}", "lists of several lengths")
    if read.ids and len(read.ids) != count:
        raise ids.error(f"{count} ids, or none", f"{len(read.ids)}")
    if any(start > stop for start, stop in read.spans):
        raise stops.error("no stop before its start", "one")
    return read


def write_origin(origin: Origin) -> Json:
    """The model."""
    written = {**vars(origin), "versions": dict(origin.versions)}
    return {name: value for name, value in written.items() if name != "checked" or value is not None}


def read_origin(entry: Entry) -> Origin:
    """The model.

    Raises:
        RecordingError: something else.
    """
    model, architecture, revision, dtype, stored, versions, checked = entry.fields(
        "model", "architecture", "revision", "dtype", "stored", "versions", optional="checked"
    )
    return Origin(
        model=model.text(),
        architecture=architecture.text(),
        revision=revision.optional(lambda entry: entry.text()),
        dtype=dtype.text(),
        stored=stored.text(),
        versions={name: version.text() for name, version in versions.named().items()},
        checked=checked.optional(lambda entry: entry.number()),
    )


def write_other(layer: OtherLayer) -> Json:
    """A layer that is not in the recording."""
    return layer._asdict()


def read_other(entry: Entry) -> OtherLayer:
    """A layer that is not in the recording.

    Raises:
        RecordingError: something else.
    """
    return OtherLayer(*(part.text() for part in entry.fields("path", "name", "why")))


def _read_shape(entry: Entry) -> Shape:
    heads, queries, keys = (size.whole(1) for size in entry.items(3))
    return heads, queries, keys


def _read_softcap(entry: Entry) -> float:
    cap = entry.number()
    if not _CAPS[0] <= cap <= _CAPS[1]:
        raise entry.error("a number from 1e-30 to 1e30")
    return cap


def _read_largest(entry: Entry) -> tuple[float, float]:
    sizes = [size.optional(lambda size: size.number()) for size in entry.items(2)]
    q, k = (math.inf if size is None else size for size in sizes)
    if min(q, k) < 0:
        raise entry.error("magnitudes of at least 0", f"{min(q, k)}")
    return q, k


def _read_sinks(entry: Entry, heads: int, arrays: Arrays) -> Tensor | None:
    sinks = arrays.find("sinks", FLOATS, heads)
    if sinks is not None and not sinks.isfinite().all():
        raise entry.error("sinks that are finite numbers, as AttentionMatrix takes them", "others")
    return sinks


def _read_qkv(entry: Entry, shape: Shape, arrays: Arrays) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    heads, queries, keys = shape
    q, k = arrays.find("q", FLOATS, heads, queries, None), arrays.find("k", FLOATS, None, keys, None)
    v = arrays.find("v", FLOATS, None, keys, None)
    if (q is None) != (k is None):
        raise entry.error("q and k, or neither", "one of them")
    if q is not None and k is not None and (q.dtype, q.shape[2]) != (k.dtype, k.shape[2]):
        got = f"{q.dtype}, {q.shape[2]} and {k.dtype}, {k.shape[2]}"
        raise entry.error("q and k of one dtype and d_k", got)
    kv_heads = {len(array) for array in (k, v) if array is not None}
    if len(kv_heads) > 1 or any(heads % count for count in kv_heads):
        raise entry.error(f"k and v of as many heads, which divide {heads}", f"{sorted(kv_heads)}")
    return q, k, v


def _write_summary(summary: Summary) -> tuple[Json, dict[str, Tensor]]:
    arrays = {
        "logsumexp": summary.logsumexp,
        "output": summary.output,
        "entropy": summary.entropy,
        "received": summary.received,
        **{f"top.{name}": array for name, array in _named(summary.top)},
        **{f"distance.{name}": array for name, array in _named(summary.distance)},
        **{f"cells.{name}": array for name, array in _named(summary.cells)[:2]},
    }
    edges = None if summary.cells is None else [list(summary.cells.row_edges), list(summary.cells.key_edges)]
    written = {"kernel": summary.kernel, "why": summary.why, "edges": edges}
    return written, {f"summary.{name}": array for name, array in arrays.items() if array is not None}


def _named(arrays: Any) -> list[tuple[str, Any]]:
    return [] if arrays is None else list(arrays._asdict().items())


def _read_summary(entry: Entry, shape: Shape, arrays: Arrays) -> Summary:
    heads, queries, keys = shape
    kernel, why, edges = entry.fields("kernel", "why", "edges")
    rows = arrays.take("summary.logsumexp", _WIDE, heads, queries)
    weights = arrays.find("summary.top.weights", _WIDE, heads, queries, None)
    signed = arrays.find("summary.distance.signed", _WIDE, heads, queries)
    return Summary(
        logsumexp=rows,
        output=arrays.find("summary.output", _WIDE, heads, queries, None),
        entropy=arrays.find("summary.entropy", _WIDE, heads, queries),
        top=None if weights is None else Top(weights, arrays.take("summary.top.keys", _WHOLE, *weights.shape)),
        distance=None
        if signed is None
        else Distance(signed, arrays.take("summary.distance.absolute", _WIDE, heads, queries)),
        received=arrays.find("summary.received", _WIDE, heads, keys),
        cells=edges.optional(lambda entry: _read_cells(entry, shape, arrays)),
        kernel=kernel.text(),
        why=why.text(),
    )


def _read_cells(entry: Entry, shape: Shape, arrays: Arrays) -> Cells:
    heads, queries, keys = shape
    down, across = entry.items(2)
    row_edges, key_edges = _read_edges(down, queries), _read_edges(across, keys)
    size = heads, len(row_edges) - 1, len(key_edges) - 1
    sums, largest = (arrays.take(f"summary.cells.{name}", _WIDE, *size) for name in ("sum", "max"))
    return Cells(sums, largest, row_edges, key_edges)


def _read_edges(entry: Entry, count: int) -> tuple[int, ...]:
    edges = entry.whole_numbers()
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != count or any(a >= b for a, b in pairwise(edges)):
        raise entry.error(f"edges that rise from 0 to {count}", "others")
    return edges
