"""The statistics as a table: each number where its layer, head and token are."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from builders import ORIGIN, make_layer, make_recording, make_tokens

from softmap import masks
from softmap.errors import RecordingError
from softmap.recorded import RecordedSequence, Recording
from softmap.recorded.tables import UNITS, to_arrow

STATISTICS = ("logsumexp", "entropy", "distance_signed", "distance_absolute")


def of(summary, name):
    """A statistic of a summary by the name of its column."""
    return getattr(summary.distance, name.removeprefix("distance_")) if "_" in name else getattr(summary, name)


def expected_rows(layer, number, tokens):
    """The rows of a layer of self attention, one by one, from its summary's arrays."""
    for head in range(layer.heads):
        for token in range(layer.shape[2]):
            summary, place = layer.summary, (head, token)
            listed = summary.top.keys[place] >= 0
            yield {
                "layer": number,
                "path": layer.path,
                "head": head,
                "role": "both",
                "text": "tokens",
                "token": token,
                "piece": tokens.pieces[token],
                **{name: float(of(summary, name)[place]) for name in STATISTICS},
                "received": float(summary.received[place]),
                "top_keys": summary.top.keys[place][listed].tolist(),
                "top_weights": summary.top.weights[place][listed].tolist(),
            }


def test_there_is_a_row_for_each_layer_head_and_token():
    recording = make_recording(layers=3)
    rows = to_arrow(recording).to_pylist()
    assert rows == [
        row for number, layer in enumerate(recording.layers) for row in expected_rows(layer, number, recording.tokens)
    ]


def test_layers_go_by_their_numbers_in_the_model():
    recording = make_recording(layers=2)
    layers = tuple(replace(layer, number=number) for number, layer in zip((1, 3), recording.layers, strict=True))
    recording = replace(recording, sequences=(replace(recording.sequences[0], layers=layers),))
    rows = to_arrow(recording).to_pylist()
    assert rows == [row for layer in recording.layers for row in expected_rows(layer, layer.number, recording.tokens)]


@pytest.mark.usefixtures("cuda")
def test_statistics_on_a_gpu_are_those_in_the_table():
    recording = make_recording(layers=1)
    (layer,) = recording.layers
    found = layer.summary
    moved = replace(
        found,
        logsumexp=found.logsumexp.cuda(),
        entropy=found.entropy.cuda(),
        received=found.received.cuda(),
        top=type(found.top)(*(array.cuda() for array in found.top)),
        distance=type(found.distance)(*(array.cuda() for array in found.distance)),
    )
    on_gpu = replace(recording, sequences=(replace(recording.sequences[0], layers=(replace(layer, summary=moved),)),))
    assert to_arrow(on_gpu).equals(to_arrow(recording))


def test_rows_of_a_batch_say_of_which_sequence_they_are():
    recording = make_recording(layers=2, batch=3)
    rows = to_arrow(recording).to_pylist()
    assert {row["sequence"] for row in rows} == {0, 1, 2}
    for i, sequence in enumerate(recording.sequences):
        own = [
            {name: value for name, value in row.items() if name != "sequence"} for row in rows if row["sequence"] == i
        ]
        assert own == to_arrow(recording.batch(i)).to_pylist()
        assert len(own) == sum(layer.heads * layer.shape[1] for layer in sequence.layers)


def test_columns_have_types_and_units():
    table = to_arrow(make_recording(batch=2))
    for field in table.schema:
        assert (field.metadata or {}).get(b"unit", b"").decode() == UNITS.get(field.name, "")
    assert table.schema.field("logsumexp").type == pa.float32()
    assert table.schema.field("top_keys").type == pa.list_(pa.int64())
    assert table.schema.field("top_weights").type == pa.list_(pa.float32())
    assert set(UNITS) <= set(table.column_names)


def test_numbers_of_float64_stay_what_they_are():
    recording = make_recording(dtype=torch.float64)
    table = to_arrow(recording)
    assert table.schema.field("received").type == pa.float64()
    expected = torch.cat([layer.summary.received.reshape(-1) for layer in recording.layers])
    np.testing.assert_array_equal(table["received"].to_numpy(), expected.numpy())


def test_cross_attention_has_rows_of_queries_and_rows_of_keys():
    layer = make_layer(kind="cross", queries=6, keys=9, queries_of="target", keys_of="tokens", mask=masks.full())
    sequence = RecordedSequence((layer,), make_tokens(9), make_tokens(6, text="je ne sais pas encore"))
    rows = to_arrow(Recording(ORIGIN, (sequence,))).to_pylist()
    queries, keys = rows[: 4 * 6], rows[4 * 6 :]
    assert {(row["role"], row["text"], row["received"]) for row in queries} == {("query", "target", None)}
    assert [row["piece"] for row in queries] == list(sequence.target.pieces) * 4
    assert [row["entropy"] for row in queries] == layer.summary.entropy.reshape(-1).tolist()
    assert {(row["role"], row["text"], row["entropy"], row["logsumexp"]) for row in keys} == {
        ("key", "tokens", None, None)
    }
    assert [row["piece"] for row in keys] == list(sequence.tokens.pieces) * 4
    assert [row["received"] for row in keys] == layer.summary.received.reshape(-1).tolist()
    assert all(row["top_keys"] is None and row["top_weights"] is None for row in keys)


def test_queries_that_are_the_last_of_the_keys_stand_at_their_own_tokens():
    layer = make_layer(queries=3, keys=9, keys_of="tokens")
    rows = to_arrow(Recording(ORIGIN, (RecordedSequence((layer,), make_tokens(9)),))).to_pylist()
    assert len(rows) == 4 * 9
    assert [row["role"] for row in rows[:9]] == ["key"] * 6 + ["both"] * 3
    assert [row["entropy"] for row in rows[:9]] == [None] * 6 + layer.summary.entropy[0].tolist()
    assert [row["received"] for row in rows] == layer.summary.received.reshape(-1).tolist()
    assert [row["top_keys"] for row in rows[9:18]][:6] == [None] * 6
    assert rows[17]["top_keys"] == layer.summary.top.keys[1, 2].tolist()


def test_statistics_that_were_not_asked_for_are_null():
    wanted = {"top": 0, "entropy": False, "distance": False, "received": False}
    table = to_arrow(make_recording(layers=1, summary=wanted))
    for name in ("entropy", "distance_signed", "distance_absolute", "received", "top_keys", "top_weights"):
        assert table[name].null_count == len(table)
    assert table["logsumexp"].null_count == 0


def test_tokens_that_are_no_text_have_no_piece():
    rows = to_arrow(make_recording(layers=1, queries_of=None, keys_of=None)).to_pylist()
    assert {(row["text"], row["piece"]) for row in rows} == {(None, None)}


def test_query_that_sees_nothing_has_an_empty_list():
    layer = make_layer(mask=masks.padding([0] * 4 + [1] * 5) & masks.causal(0))
    rows = to_arrow(Recording(ORIGIN, (RecordedSequence((layer,), None),))).to_pylist()
    assert (rows[3]["top_keys"], rows[3]["logsumexp"]) == ([], float("-inf"))
    assert rows[5]["top_keys"] in ([4, 5], [5, 4])


def test_pandas_gets_the_same_numbers():
    recording = make_recording(batch=2)
    frame, table = recording.batch(0).to_pandas(), recording.batch(0).to_arrow()
    assert list(frame.columns) == table.column_names
    assert frame["piece"].tolist() == table["piece"].to_pylist()
    by_head = frame.groupby(["layer", "head"])["received"].sum()
    np.testing.assert_allclose(by_head, 9, rtol=1e-5)  # what all tokens receive is what all queries give


def test_recording_without_statistics_is_refused():
    recording = make_recording(keep=("qk",))
    with pytest.raises(RecordingError, match=r"layers\.0\.attention: expected statistics in the recording, got none"):
        recording.to_arrow()


def test_recording_of_no_layers_is_a_table_without_rows():
    recording = make_recording(layers=0)
    assert len(to_arrow(recording)) == 0
    assert to_arrow(replace(recording, sequences=recording.sequences * 2)).column_names[0] == "sequence"


@pytest.mark.slow
def test_without_pyarrow_it_is_said_how_to_get_it():
    code = "import sys; sys.modules['pyarrow'] = None; from softmap.recorded.tables import to_arrow; to_arrow(None)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: softmap makes tables with pyarrow: pip install 'softmap[tables]'" in ran.stderr


def test_a_million_rows_are_made_in_seconds():
    layer = make_layer(heads=64, kv_heads=64, queries=512, summary={"cells": 0})
    recording = Recording(ORIGIN, (RecordedSequence((layer,) * 31, None),))
    start = time.process_time()
    assert len(to_arrow(recording)) == 31 * 64 * 512 > 1_000_000
    assert time.process_time() - start < 5  # one by one they take minutes
