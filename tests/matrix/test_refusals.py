"""What an AttentionMatrix refuses: each error names the argument, what was expected, what came, and what to do."""

from __future__ import annotations

import re

import array_api_strict
import numpy as np
import pytest
import torch

from softmap import AttentionMatrix, biases, masks
from softmap.errors import (
    ArrayKindError,
    DtypeError,
    NonFiniteError,
    ParameterError,
    ShapeError,
    SizeError,
    SoftmapError,
    TileError,
)
from softmap.matrix import attention, lazy

ones = np.ones
Q, K, V = (4, 6, 5), (2, 6, 5), (2, 6, 3)


def refused(call, error, *parts):
    """The call raises exactly `error`, whose message has the parts in order."""
    with pytest.raises(SoftmapError) as caught:
        call()
    assert type(caught.value) is error, repr(caught.value)
    assert re.fullmatch(".*".join(["", *map(re.escape, parts), ""]), str(caught.value)), str(caught.value)


def made(q=Q, k=K, **options):
    return AttentionMatrix(ones(q) if isinstance(q, tuple) else q, ones(k) if isinstance(k, tuple) else k, **options)


def test_the_good_one_is_accepted():
    assert made().shape == (4, 6, 6)


# q and k


@pytest.mark.parametrize(
    ("q", "k", "parts"),
    [
        ((5,), K, ("q: expected 3 dimensions (heads, queries, d_k), got shape (5,)", "(tokens, d) for one head")),
        (Q, (), ("k: expected 3 dimensions (kv_heads, keys, d_k), got shape ()",)),
        ((1, *Q), K, ("q: expected 3 dimensions", "got shape (1, 4, 6, 5)", "One sequence at a time: q[0].")),
        (Q, (1, *K), ("k: expected 3 dimensions", "One sequence at a time: k[0].")),
        ((1, 1, *Q), K, ("One sequence at a time: q[0, 0].",)),
        (Q, (6, 5), ("q and k: expected as many dimensions, got shapes (4, 6, 5) and (6, 5)", "k[None]")),
        ((6, 5), K, ("q and k: expected as many dimensions", "q[None]")),
        ((4, 6, 7), K, ("q and k: expected the same d_k, got 7 and 5 (shapes (4, 6, 7) and (2, 6, 5))",)),
        ((3, 6, 5), K, ("q and k: expected heads that kv_heads divides, got 3 and 2", "3 heads take 1, 3 key heads")),
        ((2, 6, 5), (4, 6, 5), ("heads that kv_heads divides, got 2 and 4",)),
        ((0, 6, 5), K, ("q: expected at least one element, got shape (0, 6, 5)", "Give at least one head")),
        ((4, 0, 5), K, ("q: expected at least one element",)),
        (Q, (2, 0, 5), ("k: expected at least one element, got shape (2, 0, 5)",)),
        ((4, 6, 0), (2, 6, 0), ("q: expected at least one element",)),
    ],
)
def test_sizes_that_do_not_fit_are_refused(q, k, parts):
    refused(lambda: made(q, k), ShapeError, *parts)


@pytest.mark.parametrize(
    ("k", "error", "parts"),
    [
        (torch.ones(K), ArrayKindError, ("q and k: expected arrays of one library, got numpy and torch", "asarray(k)")),
        (
            array_api_strict.ones(K),
            ArrayKindError,
            ("q and k: expected arrays of one library, got numpy and array_api_strict",),
        ),
        (ones(K, dtype=np.float32), DtypeError, ("q and k: expected arrays of one dtype", "k.astype(q.dtype)")),
        (ones(K, dtype=int), DtypeError, ("k: expected float16, bfloat16, float32 or float64", "k.astype(float)")),
        (ones(K).tolist(), ArrayKindError, ("k: expected a torch tensor, a NumPy array",)),
        (None, ArrayKindError, ("k: expected a torch tensor",)),
    ],
)
def test_arrays_of_two_kinds_are_refused(k, error, parts):
    refused(lambda: made(k=k), error, *parts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["q", "k"])
def test_a_number_that_is_not_finite_is_named_by_its_position(name, value):
    arrays = {"q": ones(Q), "k": ones(K)}
    arrays[name][1, 2, 3] = value
    parts = (f"{name}: expected finite numbers, got {value} at {name}[1, 2, 3]", 'nan="propagate"')
    refused(lambda: AttentionMatrix(**arrays), NonFiniteError, *parts)
    assert AttentionMatrix(**arrays, nan="propagate").shape == (4, 6, 6)


def test_scores_beyond_the_dtype_are_refused_where_they_are_asked_for():
    m = made(np.full(Q, 1e25, dtype=np.float32), np.full(K, 1e25, dtype=np.float32), scale=1e-50)
    refused(
        lambda: m.scores[0, 0], NonFiniteError, "scores: expected numbers within torch.float32, got 5e+50", "float64"
    )
    assert m[0, 0].tolist() == pytest.approx([1 / 6] * 6)


def test_scores_beyond_float64_are_refused():
    m = made(np.full(Q, 1e200), np.full(K, 1e200))
    for look in (lambda: m[0, 0], m.summary):
        refused(look, NonFiniteError, "q and k: expected scores within torch.float64")


# Options


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"mask": True}, ("mask: expected a mask of softmap.masks, or None, got True", "masks.causal()")),
        ({"mask": "causal"}, ("mask: expected a mask", "got 'causal'", "masks.causal()")),
        ({"mask": np.tri(6, dtype=bool)}, ("mask: expected a mask", "got ndarray", "masks.dense(mask)")),
        ({"mask": torch.ones(6, 6)}, ("got Tensor", "masks.dense(mask)")),
        ({"mask": [True] * 6}, ("got list", "masks.padding(mask)")),
        ({"mask": masks.causal}, ("got function", "masks.from_function(mask)", "masks.causal()")),
        ({"mask": object()}, ("got object", "Leave it out")),
        (
            {"bias": ones((6, 6))},
            ("bias: expected a bias of softmap.biases, or None, got ndarray", "biases.dense(bias)"),
        ),
        ({"bias": masks.causal()}, ("bias: expected a bias", "mask=")),
        ({"bias": lambda *_: 0}, ("bias: expected a bias", "biases.from_function(bias)")),
        ({"scale": "wide"}, ("scale: expected a finite number, got 'wide'", "1/√d_k = 0.447214")),
        ({"scale": np.inf}, ("scale: expected a finite number, got inf",)),
        ({"scale": True}, ("scale: expected a finite number, got True",)),
        ({"softcap": 0}, ("softcap: expected a finite number above 0, got 0",)),
        ({"softcap": -3.0}, ("softcap: expected a finite number above 0, got -3.0",)),
        ({"softcap": np.nan}, ("softcap: expected a finite number above 0, got nan",)),
        ({"softcap": np.inf}, ("softcap: expected a finite number above 0, got inf", "leave it out for none")),
        ({"softcap": 1e39}, ("softcap: expected a number from 1e-30 to 1e30, got 1e+39", "leave it out for none")),
        ({"softcap": 1e-39}, ("softcap: expected a number from 1e-30 to 1e30, got 1e-39",)),
        ({"softcap": True}, ("softcap: expected a finite number above 0, got True",)),
        ({"softcap": "50"}, ("softcap: expected a finite number above 0, got '50', a str",)),
        ({"nan": "ignore"}, ('nan: expected "refuse" or "propagate", got \'ignore\'',)),
        ({"nan": True}, ('nan: expected "refuse" or "propagate", got True',)),
    ],
)
def test_an_option_outside_its_values_is_refused(options, parts):
    refused(lambda: made(**options), ParameterError, *parts)


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"sinks": ones(3)}, ShapeError, ("sinks: expected shape (4,), got shape (3,)", "one for each query head")),
        ({"sinks": ones((4, 1))}, ShapeError, ("sinks: expected shape (4,), got shape (4, 1)",)),
        ({"sinks": ones(4, dtype=int)}, DtypeError, ("sinks: expected float16",)),
        (
            {"sinks": np.array([0, 0, np.inf, 0])},
            NonFiniteError,
            ("sinks: expected finite numbers, got inf at sinks[2]",),
        ),
        (
            {"sinks": [[1.0, 2.0], [3.0]]},
            ArrayKindError,
            ("sinks: expected a list of numbers, got one that is not", "Give an array."),
        ),
        ({"sinks": ["a"]}, ArrayKindError, ("sinks: expected a list of numbers",)),
        ({"sinks": [0, 1]}, ShapeError, ("sinks: expected shape (4,), got shape (2,)",)),
        ({"sinks": 1}, ShapeError, ("sinks: expected shape (4,), got shape (1,)",)),
        ({"mask": masks.padding([True] * 7)}, ShapeError, ("padding(valid): expected 6 entries",)),
        ({"mask": masks.causal() & masks.dense(ones((6, 7), dtype=bool))}, ShapeError, ("dense(visible): expected",)),
        ({"bias": biases.alibi([0.5, 0.25])}, ShapeError, ("alibi(slopes): expected one row for each of 4 heads",)),
        ({"bias": biases.dense(ones((3, 6, 6)))}, ShapeError, ("dense(values): expected shape",)),
    ],
)
def test_what_does_not_fit_the_matrix_is_refused(options, error, parts):
    refused(lambda: made(**options), error, *parts)


@pytest.mark.parametrize("nan", ["refuse", "propagate"])
@pytest.mark.parametrize("sinks", [np.array([0, 1e300, 0, 0]), [0, -1e300, 0, 0]])
def test_sinks_beyond_the_dtype_are_refused(sinks, nan):
    q, k = ones(Q, np.float32), ones(K, np.float32)
    parts = ("sinks: expected numbers within torch.float32, got ", "1e+300", "scaled scores")
    refused(lambda: made(q, k, sinks=sinks, nan=nan), NonFiniteError, *parts)
    assert np.isfinite(made(sinks=np.array([0, 1e300, 0, 0])).logsumexp()).all()


@pytest.mark.parametrize("sinks", [[0, 1, 2, 3], (0.0, 1.0, 2.0, 3.0)])
def test_sinks_in_a_list_are_numbers(sinks):
    given = np.arange(4, dtype=float)
    np.testing.assert_array_equal(made(sinks=sinks).logsumexp(), made(sinks=given).logsumexp())
    one = made((6, 5), (6, 5), sinks=1).logsumexp()
    np.testing.assert_array_equal(one, made((6, 5), (6, 5), sinks=np.ones(1)).logsumexp())


def test_a_causal_mask_asks_where_fewer_queries_stand():
    parts = ("causal(): expected as many queries as keys, or an offset, got 2 queries and 6 keys", "offset=4")
    refused(lambda: made((4, 2, 5), mask=masks.causal()), ShapeError, *parts)


def test_a_bias_of_nan_is_refused_when_it_is_met():
    values = np.zeros((4, 6, 6))
    values[1, 2, 3] = np.nan
    m = made(bias=biases.dense(values))
    assert m[0, 2].shape == (6,)
    for look in (lambda: m[1, 2], lambda: m.at([2], [3]), lambda: m.scaled[1, 2, 3], m.summary):
        refused(look, NonFiniteError, "bias: expected finite numbers", "nan at bias[1, 2, 3]")
    refused(m[1].summary, NonFiniteError, "bias: expected finite numbers")
    assert np.isnan(made(bias=biases.dense(values), nan="propagate")[1, 2]).all()


# v and the options of a summary


@pytest.mark.parametrize(
    ("v", "error", "parts"),
    [
        (ones((6, 3)), ShapeError, ("v: expected 3 dimensions (kv_heads, keys, d_v), got shape (6, 3)",)),
        (ones((1, *V)), ShapeError, ("v: expected 3 dimensions", "One sequence at a time: v[0]")),
        (ones((4, 6, 3)), ShapeError, ("v: expected shape (2, 6, d_v), as k has it, got shape (4, 6, 3)", "share")),
        (ones((2, 7, 3)), ShapeError, ("v: expected shape (2, 6, d_v), as k has it, got shape (2, 7, 3)",)),
        (ones((2, 6, 0)), ShapeError, ("v: expected shape (2, 6, d_v)", "d_v is 0")),
        (ones(V, dtype=np.float32), DtypeError, ("k and v: expected arrays of one dtype",)),
        (torch.ones(V), ArrayKindError, ("k and v: expected arrays of one library, got numpy and torch",)),
        (np.full(V, np.nan), NonFiniteError, ("v: expected finite numbers, got nan at v[0, 0, 0]",)),
    ],
)
def test_values_that_do_not_fit_the_keys_are_refused(v, error, parts):
    refused(lambda: made().summary(v), error, *parts)


def test_some_heads_take_the_values_of_all():
    parts = ("v: expected shape (2, 6, d_v), as k has it", "m[2:], take the v of the whole matrix: all key heads.")
    refused(lambda: made()[2:].summary(ones((1, 6, 3))), ShapeError, *parts)


def test_values_of_one_head_come_without_an_axis_of_heads():
    parts = ("v: expected 2 dimensions (keys, d_v), got shape (2, 6, 3)", "the axes that k has")
    refused(lambda: made()[0].summary(ones(V)), ShapeError, *parts)
    refused(lambda: made()[0].steps(v=ones((5, 3))), ShapeError, "v: expected shape (6, d_v), as k has it")


@pytest.mark.parametrize("top", [-1, True, 2.0, "8", None])
def test_top_must_count(top):
    refused(lambda: made().summary(top=top), ParameterError, "top: expected a whole number of at least 0", repr(top))


@pytest.mark.parametrize("k", [0, -1, True, 1.5])
def test_k_must_count(k):
    refused(lambda: made().top(k), ParameterError, "k: expected a whole number of at least 1", repr(k))


@pytest.mark.parametrize(
    ("cells", "got"),
    [
        (-1, "-1"),
        (True, "True"),
        (False, "False"),
        (1.5, "1.5"),
        (0.0, "0.0"),
        ((4, 0), "0"),
        ((1, 2, 3), "(1, 2, 3)"),
        ("4", "'4'"),
        (np.array([8, 8]), "array([8, 8])"),
    ],
)
def test_cells_must_be_a_grid(cells, got):
    refused(lambda: made().summary(cells=cells), ParameterError, "cells: expected", f"got {got}", "cells=64")


@pytest.mark.parametrize("count", [10**9, 10**12, 10**30])
def test_a_top_of_more_than_a_gibibyte_is_refused(count):
    refused(lambda: made().top(count), SizeError, "k: expected at most", f"got {count}", "a row has 6", "m[0]")
    refused(lambda: made().summary(top=count), SizeError, "top: expected at most", f"got {count}")


def test_a_top_no_larger_than_q_is_never_refused(monkeypatch):
    monkeypatch.setattr(attention, "LIMIT", 1)
    assert made().top(5).keys.shape == (4, 6, 5)
    refused(lambda: made().top(6), SizeError, "k: expected at most 5 weights of each row, got 6")


# Single methods


@pytest.mark.parametrize("cell", [0, -1, True, 2.5, (2, 0), None])
def test_cell_must_be_a_size(cell):
    refused(lambda: made().blocks(cell), ParameterError, "cell: expected a whole number of at least 1", "cell=16")


@pytest.mark.parametrize("cell", [(), (1,), (1, 2, 3)])
def test_cell_has_two_sizes_at_most(cell):
    refused(lambda: made().blocks(cell), ParameterError, "cell: expected a whole number, or a pair", str(cell))


def test_how_is_sum_or_max():
    refused(lambda: made().blocks(2, "mean"), ParameterError, 'how: expected "sum" or "max", got \'mean\'')


@pytest.mark.parametrize("rows", [slice(0, 6, 2), slice(3, 3), slice(None, None, -1)])
def test_a_rectangle_has_no_step_and_a_place(rows):
    refused(lambda: made().blocks(2, rows=rows), TileError, "rows: expected a slice without a step, of at least one")
    refused(lambda: made().blocks(2, keys=[1, 2]), TileError, "keys: expected a slice, got list", "keys=slice(0, 6)")


@pytest.mark.parametrize("offset", [1.0, None, "1", True])
def test_offset_of_a_diagonal_must_count(offset):
    refused(lambda: made().diagonal(offset), ParameterError, "offset: expected a whole number", repr(offset))


def test_a_diagonal_beyond_the_matrix_is_empty():
    for offset in (6, -6, 10**30, -(10**30)):
        assert made().diagonal(offset).shape == (4, 0)
        assert made()[0].diagonal(offset).shape == (0,)


def test_places_of_more_than_a_gibibyte_are_refused(monkeypatch):
    long, i = made((60_000, 2), (60_000, 2)), np.arange(60_000)
    parts = ("weights: expected a result of at most 1 GiB, got 26.8 GiB", "(60000, 60000)")
    refused(lambda: long.at(i[:, None], i), SizeError, *parts)
    monkeypatch.setattr(lazy, "LIMIT", 100)
    refused(made().diagonal, SizeError, "weights: expected a result of at most 1 GiB", "of shape (4, 6)")


def test_places_are_whole_numbers_within_the_matrix():
    refused(lambda: made().at([0], [6]), TileError, "index of the keys: expected -6 to 5, got 6")
    refused(lambda: made().at([0, 1], [0, 1, 2]), TileError, "index: expected arrays whose shapes broadcast")
    refused(lambda: made().at(slice(0, 2), 1), TileError, "rows and keys: expected whole numbers", "got a slice")
    refused(lambda: made().row(6), TileError, "index of the queries: expected -6 to 5, got 6")


def test_steps_are_of_one_head_and_a_page():
    refused(made().steps, ShapeError, "steps: expected a matrix of one head, got shape (4, 6, 6)", "m[0].steps()")
    long = made((1, 600, 2), (1, 600, 2))
    refused(long.steps, SizeError, "steps: expected a page of at most 512 rows, got 600", "rows=slice(0, 512)")
    refused(lambda: long.steps(slice(9)), SizeError, "steps: expected a page of at most 512 keys, got 600")
    refused(lambda: long.steps([], [1]), TileError, "rows: expected a slice or a list of at least one")
    refused(lambda: long.steps(1, [1]), TileError, "rows: expected a slice or a list of at least one, got shape ()")


@pytest.mark.parametrize("name", ["q", "k"])
def test_a_nan_beside_zeros_alone_is_refused(name):
    arrays = {"q": np.zeros((1, 3, 2)), "k": np.zeros((1, 3, 2))}
    arrays[name][0, 1, 1] = np.nan
    with pytest.raises(NonFiniteError, match=rf"nan at {name}\[0, 1, 1\]"):
        AttentionMatrix(**arrays)
