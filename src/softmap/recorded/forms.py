"""Masks and biases as JSON and arrays, and back: what docs/reference/recording.md says of them.

The masks and biases of the library are written as what they were made of. Any other mask is written as what it comes to,
each query's runs of visible keys, found strip by strip; no file holds queries x keys but those of a page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from softmap import biases, masks
from softmap.errors import RecordingError
from softmap.masks import base, kinds
from softmap.tensors import FLOATS

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from softmap.biases import Bias
    from softmap.masks import Mask
    from softmap.recorded.entries import Arrays, Entry

    Json = dict[str, Any]

PAGE = 512 * 512
"""How many queries x keys a matrix of booleans may have to be written as it is."""
RUNS = 16
"""How many runs of keys a query may see, in the mean, in a mask that is written as those; on a page it may be more."""
_STRIP = 1 << 20  # booleans that are asked for at once: what they are made of fits a processor's cache
_DEPTH = 32  # how deep masks may be composed
_STATISTICS = "Record statistics alone (statistics_only=True), or give a mask of softmap.masks that says the same."


def write_mask(mask: Mask, queries: int, keys: int) -> tuple[Json, dict[str, Tensor]]:
    """A mask as JSON and arrays.

    Raises:
        RecordingError: an unknown one, of more runs of visible keys than `RUNS` for each query.
        SoftmapError: what an unknown one raises when it is asked.
    """
    arrays: dict[str, Tensor] = {}
    written = _write_known(mask, "mask", arrays, _DEPTH)
    if written is not None:
        return written, arrays
    return {"kind": "runs", "offset": mask.offset}, {"mask.edges": _edges(mask, queries, keys)}


def read_mask(entry: Entry, queries: int, keys: int, arrays: Arrays) -> Mask:
    """The mask of a layer.

    Raises:
        RecordingError: it is none, or does not fit the layer.
    """
    _check_parts(entry)
    mask = _read_mask(entry, (queries, keys), arrays, "mask", _DEPTH)
    entry.making(lambda: mask.check(queries, keys))
    return mask


def write_bias(bias: Bias) -> tuple[Json, dict[str, Tensor]]:
    """A bias as JSON and arrays.

    Raises:
        RecordingError: one of one's own, which is a function.
    """
    if type(bias) is biases._Alibi:
        return {"kind": "alibi", "offset": bias.offset}, {"bias.slopes": bias.slopes}
    if type(bias) is biases._Relative:
        return {"kind": "relative", "zero": bias.zero, "offset": bias.offset}, {"bias.table": bias.table}
    if type(bias) is biases._Dense:
        return {"kind": "dense"}, {"bias.values": bias._stack()}
    hint = "A file holds no function: give its numbers, as biases.relative(table) or biases.dense(values)."
    raise RecordingError(repr(bias), "a bias of numbers: relative, alibi or dense", type(bias).__name__, hint)


def read_bias(entry: Entry, shape: tuple[int, int, int], arrays: Arrays) -> Bias:
    """The bias of a layer.

    Raises:
        RecordingError: it is none, or does not fit the layer.
    """
    heads, queries, keys = shape
    wide = (torch.float32, torch.float64)
    kind = entry.kind("alibi", "relative", "dense")
    if kind == "alibi":
        _, offset = entry.fields("kind", "offset")
        slopes = arrays.take("bias.slopes", wide, heads)
        bias = entry.making(lambda: biases.alibi(slopes, offset.offset()))
    elif kind == "relative":
        _, zero, offset = entry.fields("kind", "zero", "offset")
        table = arrays.take("bias.table", wide, heads, None)
        bias = entry.making(lambda: biases.relative(table, zero.whole(), offset.offset()))
    else:
        entry.fields("kind")
        bias = biases.dense(arrays.take("bias.values", FLOATS, None, queries, keys))
    entry.making(lambda: bias.check(heads, queries, keys))
    return bias


# Masks of the library


def _write_known(mask: Mask, name: str, arrays: dict[str, Tensor], depth: int) -> Json | None:
    """A mask as what it was made of, its arrays under names that begin so; None of an unknown one, or of one with such."""
    if type(mask) in (base.And, base.Or, base.Not):
        parts = [getattr(mask, part) for part in ("one", "other") if hasattr(mask, part)]
        written = [_write_known(part, f"{name}.{i}", arrays, depth - 1) for i, part in enumerate(parts) if depth]
        if not written or None in written:
            return None
        return {"kind": type(mask).__name__.lower(), "of": written, "offset": mask.offset}
    made = _WRITE[type(mask)](mask) if type(mask) in _WRITE else None
    if made is None:
        return None
    arrays.update({f"{name}.{part}": array for part, array in made[1].items()})
    return made[0]


def _write_window(mask: kinds.Window) -> tuple[Json, dict[str, Tensor]]:
    if mask.name == "causal()":
        return {"kind": "causal", "offset": mask.offset}, {}
    return {"kind": "sliding_window", "left": mask.left, "right": mask.right, "offset": mask.offset}, {}


def _write_documents(mask: kinds.Documents) -> tuple[Json, dict[str, Tensor]]:
    same = mask.key_ids is mask.query_ids
    keys = {} if same else {"keys": mask.key_ids}
    return {"kind": "documents", "same": same}, {"queries": mask.query_ids, **keys}


def _write_dense(mask: kinds.Dense) -> tuple[Json, dict[str, Tensor]] | None:
    if mask.matrix.numel() > PAGE:
        return None
    bits = np.packbits(mask.matrix.numpy(force=True).reshape(-1))
    return {"kind": "dense"}, {"bits": torch.from_numpy(bits)}


_COMPOSED: dict[str, Callable[..., Mask]] = {"and": base.And, "or": base.Or, "not": base.Not}
_WRITE: dict[type[Mask], Callable[[Any], tuple[Json, dict[str, Tensor]] | None]] = {
    kinds.Full: lambda mask: ({"kind": "full"}, {}),
    kinds.Window: _write_window,
    kinds.Chunked: lambda mask: ({"kind": "chunked", "size": mask.size, "offset": mask.offset}, {}),
    kinds.Padding: lambda mask: ({"kind": "padding"}, {"valid": mask.valid}),
    kinds.Documents: _write_documents,
    kinds.Prefix: lambda mask: ({"kind": "prefix", "n": mask.n}, {}),
    kinds.Dense: _write_dense,
    kinds.Runs: lambda mask: ({"kind": "runs", "offset": mask.offset}, {"edges": mask.edges}),
}


def _check_parts(entry: Entry) -> None:
    """Refuse a composition of too many masks, or too deep, before any of them is read."""
    waiting, parts = [(entry.value, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        inside = value.get("of") if isinstance(value, dict) else None
        if isinstance(inside, list):
            waiting += [(part, depth + 1) for part in inside[: base.PARTS + 1]]
        else:
            parts += 1
        if parts + len(waiting) > base.PARTS or depth > _DEPTH:
            got = f"more than {base.PARTS} masks" if depth <= _DEPTH else f"more than {_DEPTH} in each other"
            raise entry.error(f"at most {base.PARTS} masks composed to one, at most {_DEPTH} in each other", got)


def _read_mask(entry: Entry, shape: tuple[int, int], arrays: Arrays, name: str, depth: int) -> Mask:
    kind = entry.kind(*_READ, *_COMPOSED)
    if kind in _READ:
        return _READ[kind](entry, shape, arrays, name)
    _, of, offset = entry.fields("kind", "of", "offset")
    if depth == 0:
        raise entry.error("masks that are not composed so deep")
    parts = of.items(1 if kind == "not" else 2)
    read = [_read_mask(part, shape, arrays, f"{name}.{i}", depth - 1) for i, part in enumerate(parts)]
    for part, mask in zip(parts, read, strict=True):
        if mask.offset not in (None, offset.offset()):
            raise part.error("the offset of the whole composition", f"{mask.offset}")
    return _COMPOSED[kind](*read, offset.offset())


def _read_full(entry: Entry, *_: Any) -> Mask:
    entry.fields("kind")
    return masks.full()


def _read_causal(entry: Entry, *_: Any) -> Mask:
    _, offset = entry.fields("kind", "offset")
    return masks.causal(offset.offset())


def _read_sliding_window(entry: Entry, *_: Any) -> Mask:
    _, left, right, offset = entry.fields("kind", "left", "right", "offset")
    before, after = (side.optional(lambda side: side.whole()) for side in (left, right))
    return masks.sliding_window(before, after, offset.offset())


def _read_chunked(entry: Entry, *_: Any) -> Mask:
    _, size, offset = entry.fields("kind", "size", "offset")
    return masks.chunked(size.whole(1), offset.offset())


def _read_prefix(entry: Entry, *_: Any) -> Mask:
    _, n = entry.fields("kind", "n")
    return masks.prefix(n.whole())


def _read_padding(entry: Entry, shape: tuple[int, int], arrays: Arrays, name: str) -> Mask:
    entry.fields("kind")
    valid = arrays.take(f"{name}.valid", (torch.bool,), shape[1])
    if int(valid.view(torch.uint8).max()) > 1:
        raise entry.error("bytes of 0 and 1", "others")
    return masks.padding(valid)


def _read_documents(entry: Entry, shape: tuple[int, int], arrays: Arrays, name: str) -> Mask:
    _, same = entry.fields("kind", "same")
    ids = arrays.take(f"{name}.queries", (torch.int64,), shape[0])
    return masks.documents(ids, None if same.flag() else arrays.take(f"{name}.keys", (torch.int64,), shape[1]))


def _read_dense(entry: Entry, shape: tuple[int, int], arrays: Arrays, name: str) -> Mask:
    entry.fields("kind")
    count = shape[0] * shape[1]
    if count > PAGE:
        raise entry.error(f"a matrix of at most {PAGE:,} booleans", f"{count:,}")
    bits = arrays.take(f"{name}.bits", (torch.uint8,), -(-count // 8))
    return masks.dense(np.unpackbits(bits.numpy(), count=count).reshape(shape).astype(bool))


def _read_runs(entry: Entry, shape: tuple[int, int], arrays: Arrays, name: str) -> Mask:
    _, offset = entry.fields("kind", "offset")
    edges = arrays.take(f"{name}.edges", (torch.int64,), None)
    query, rising = edges // (shape[1] + 1), bool((edges[1:] > edges[:-1]).all())
    inside = len(edges) == 0 or (int(edges[0]) >= 0 and int(query[-1]) < shape[0])
    if len(edges) % 2 or not rising or not inside or not torch.equal(query[::2], query[1::2]):
        raise entry.error("where each query's runs begin and end, in rising order", "other numbers")
    return kinds.Runs(edges, *shape, offset.offset())


_READ: dict[str, Callable[[Entry, tuple[int, int], Arrays, str], Mask]] = {
    "full": _read_full,
    "causal": _read_causal,
    "sliding_window": _read_sliding_window,
    "chunked": _read_chunked,
    "padding": _read_padding,
    "documents": _read_documents,
    "prefix": _read_prefix,
    "dense": _read_dense,
    "runs": _read_runs,
}


# Any other mask


def _edges(mask: Mask, queries: int, keys: int) -> Int[Tensor, " edges"]:
    """Where each query's runs of visible keys begin and end, as `kinds.Runs` has them.

    Raises:
        RecordingError: there are too many.
    """
    width, spans = keys + 1, mask.spans(queries, keys)
    if spans.exact:
        first = torch.arange(queries, device="cpu") * width
        return torch.stack((first + spans.start, first + spans.stop), 1)[spans.start < spans.stop].view(-1)
    most, count, height = max(2 * RUNS * queries, PAGE), 0, max(1, _STRIP // width)
    found = torch.empty(most, dtype=torch.int64, device="cpu")  # all at once: pieces kept would lie between the strips
    for top in range(0, queries, height):
        rows = range(top, min(top + height, queries))
        seeing = spans.key_range(rows)
        if not seeing:
            continue
        turns = torch.zeros(len(rows), len(seeing) + 1, dtype=torch.bool, device="cpu")  # whether a run begins or ends
        turns[:, :-1] = mask.strip(rows, seeing)
        turns[:, 1:] ^= turns[:, :-1].clone()
        row, key = turns.nonzero().unbind(1)
        if count + len(row) > most:
            got = f"more than {RUNS} in the mean in a mask of {queries} x {keys}"
            raise RecordingError(repr(mask), f"at most {RUNS} runs of keys that a query sees", got, _STATISTICS)
        found[count : count + len(row)] = (row + top) * width + key + seeing.start
        count += len(row)
    return found[:count].clone()
