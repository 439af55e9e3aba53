"""The statistics of a recording as a table of Apache Arrow: one row for each layer, head and token.

`docs/reference/recording.md` describes the columns. They are made array by array, never row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from softmap.errors import RecordingError
from softmap.escaping import escaped

if TYPE_CHECKING:
    import pyarrow as pa

    from softmap.kernels.contract import Top
    from softmap.matrix import Summary
    from softmap.recorded.layer import RecordedLayer
    from softmap.recorded.recording import RecordedSequence, Recording

    Numbers = np.ndarray[Any, Any]

UNITS = {
    "sequence": "number in the batch, from 0",
    "layer": "number in the model, from 0",
    "head": "number in the layer, from 0",
    "token": "number in its text, from 0",
    "logsumexp": "nats",
    "entropy": "nats",
    "distance_signed": "tokens",
    "distance_absolute": "tokens",
    "received": "queries",
    "top_keys": "number of the key, from 0",
    "top_weights": "probability",
}
"""What the numbers of a column count: the metadata `unit` of its field."""
ROLES = ("query", "key", "both")


def to_arrow(recording: Recording) -> pa.Table:
    """A table of the statistics of all layers, as `docs/reference/recording.md` describes it.

    Raises:
        RecordingError: a layer without statistics.
        ImportError: pyarrow is not installed.
    """
    pa = _pyarrow()
    dtypes = {_summary(layer).logsumexp.dtype for sequence in recording.sequences for layer in sequence.layers}
    schema = _schema(batch=len(recording.sequences) != 1, wide=any(dtype.itemsize > 4 for dtype in dtypes))
    tables = [schema.empty_table()]
    for i, sequence in enumerate(recording.sequences):
        for number, layer in zip(sequence.numbers, sequence.layers, strict=True):
            for side in _sides(layer, sequence):
                columns = {"sequence": side.all(i), "layer": side.all(number), **_columns(layer, side, schema)}
                tables.append(pa.table([columns[name] for name in schema.names], schema=schema))
    return pa.concat_tables(tables).unify_dictionaries()


class _Side(NamedTuple):
    """Tokens of a layer, of which each head has rows.

    Attributes:
        heads: how many heads.
        tokens: how many tokens.
        queries: which of them are queries.
        keys: whether they are keys.
        text: which text they are of.
        pieces: what they are called; None where that is not known.
    """

    heads: int
    tokens: int
    queries: range
    keys: bool
    text: str | None
    pieces: tuple[str, ...] | None

    def all(self, number: int) -> Numbers:
        """One number for all rows."""
        return np.full(self.heads * self.tokens, number)

    def each(self, numbers: Numbers) -> Numbers:
        """A number for each token, in the rows of all heads."""
        return np.tile(numbers, self.heads)

    def of_queries(self, numbers: Numbers) -> Numbers:
        """Numbers (heads, queries, ...) in the rows of all tokens; 0 where a token is no query."""
        around = [(0, 0), (self.queries.start, self.tokens - self.queries.stop), (0, 0)]
        numbers = np.pad(numbers, around[: numbers.ndim])
        return numbers.reshape(-1, *numbers.shape[2:])


def _sides(layer: RecordedLayer, sequence: RecordedSequence) -> list[_Side]:
    """The keys alone where the queries are some of them; else the queries, then the keys."""
    heads, queries, keys = layer.shape

    def side(count: int, asking: range, is_key: bool, of: str | None) -> _Side:
        tokens = None if of is None else getattr(sequence, of)
        return _Side(heads, count, asking, is_key, of, None if tokens is None else tokens.pieces)

    offsets = [part.offset for part in (layer.mask, layer.bias) if part is not None and part.offset is not None]
    first = offsets[0] if offsets else 0 if queries == keys else -1
    if layer.kind == "self" and 0 <= first <= keys - queries:
        return [side(keys, range(first, first + queries), True, layer.keys_of)]
    return [side(queries, range(queries), False, layer.queries_of), side(keys, range(0), True, layer.keys_of)]


def _columns(layer: RecordedLayer, side: _Side, schema: pa.Schema) -> dict[str, Any]:
    """The columns of some tokens of a layer."""
    pa = _pyarrow()
    summary, place, floats = _summary(layer), np.arange(side.tokens), schema.field("entropy").type
    is_query = side.each((place >= side.queries.start) & (place < side.queries.stop))
    distance = summary.distance or (None, None)

    def numbers(array: Any) -> Any:
        if array is None or not side.queries:
            return pa.nulls(len(is_query), floats)
        return pa.array(side.of_queries(array.numpy(force=True)), floats, mask=~is_query)

    return {
        "path": _labels(side.all(0), (layer.path,)),
        "head": np.repeat(np.arange(side.heads), side.tokens),
        "role": _labels(np.where(is_query, 2 if side.keys else 0, 1), ROLES),
        "text": _labels(side.all(0), None if side.text is None else (side.text,)),
        "token": side.each(place),
        "piece": _labels(side.each(place), side.pieces),
        "logsumexp": numbers(summary.logsumexp),
        "entropy": numbers(summary.entropy),
        "distance_signed": numbers(distance[0]),
        "distance_absolute": numbers(distance[1]),
        "received": pa.nulls(len(is_query), floats)
        if summary.received is None or not side.keys
        else pa.array(summary.received.numpy(force=True).reshape(-1), floats),
        **_top(summary.top, side, is_query, schema),
    }


def _top(top: Top | None, side: _Side, is_query: Numbers, schema: pa.Schema) -> dict[str, Any]:
    """The lists of the largest weights, as many in each as the query sees of the keys."""
    pa = _pyarrow()
    if top is None or not side.queries:
        return {name: pa.nulls(len(is_query), schema.field(name).type) for name in ("top_keys", "top_weights")}
    keys, weights = (side.of_queries(array.numpy(force=True)) for array in (top.keys, top.weights))
    listed = (keys >= 0) & is_query[:, None]  # a row that sees fewer is filled up with key −1
    ends = pa.array(np.concatenate(([0], listed.sum(1).cumsum())), pa.int32())
    values = {"top_keys": keys[listed], "top_weights": weights[listed]}
    return {
        name: pa.ListArray.from_arrays(
            ends, pa.array(found, schema.field(name).type.value_type), mask=pa.array(~is_query)
        )
        for name, found in values.items()
    }


def _labels(numbers: Numbers, names: tuple[str, ...] | None) -> Any:
    """Names by number, each of them kept once; null where there are none."""
    pa = _pyarrow()
    if names is None:
        return pa.nulls(len(numbers), pa.dictionary(pa.int32(), pa.string()))
    coded = pa.array([escaped(name, "\n\t") for name in names], pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(coded.indices.to_numpy()[numbers], coded.dictionary)


def _schema(*, batch: bool, wide: bool) -> pa.Schema:
    pa = _pyarrow()
    label, floats = pa.dictionary(pa.int32(), pa.string()), pa.float64() if wide else pa.float32()
    types = {
        **({"sequence": pa.int64()} if batch else {}),
        "layer": pa.int64(),
        "path": label,
        "head": pa.int64(),
        "role": label,
        "text": label,
        "token": pa.int64(),
        "piece": label,
        "logsumexp": floats,
        "entropy": floats,
        "distance_signed": floats,
        "distance_absolute": floats,
        "received": floats,
        "top_keys": pa.list_(pa.int64()),
        "top_weights": pa.list_(floats),
    }
    units = {name: {"unit": UNITS[name]} if name in UNITS else None for name in types}
    return pa.schema([pa.field(name, kind, metadata=units[name]) for name, kind in types.items()])


def _summary(layer: RecordedLayer) -> Summary:
    layer.look()
    if layer.summary is None:
        hint = "Record with summary=True, or ask its matrix: rec[layer].summary()."
        raise RecordingError(layer.path, "statistics in the recording", "none", hint)
    return layer.summary


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("softmap makes tables with pyarrow: pip install 'softmap[tables]'") from error
    return pyarrow
