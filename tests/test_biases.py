"""Biases against the papers' formulas and the models that use them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softmap import AttentionMatrix, biases, masks
from softmap.errors import ArrayKindError, DtypeError, NonFiniteError, ParameterError, ShapeError, SoftmapError


def whole(bias, heads, queries, keys):
    bias.check(heads, queries, keys)
    return bias.strip(range(heads), range(queries), range(keys))


def test_alibi_is_the_papers_matrix():
    slopes = 2.0 ** -torch.arange(1, 9)  # its slopes for 8 heads
    added = whole(biases.alibi(slopes), 8, 4, 4)
    for head in range(8):
        m = 2.0 ** -(head + 1)
        for i in range(4):
            assert added[head, i, : i + 1].tolist() == [-m * (i - j) for j in range(i + 1)]


def test_alibi_is_blooms_but_for_a_number_a_row():
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, 6), 4, torch.float32)[:, 0]  # slope · j, for every row
    ours = whole(biases.alibi(2.0 ** (-8 * torch.arange(1, 5) / 4)), 4, 6, 6)
    seen = torch.ones(6, 6).tril().bool()
    apart = (ours - theirs[:, None]).masked_fill(~seen, torch.nan)
    torch.testing.assert_close(apart.nanmean(-1, keepdim=True).expand_as(apart)[:, seen], apart[:, seen])


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize(("queries", "keys", "past"), [(40, 40, 0), (3, 40, 37), (40, 9, 0)])
def test_t5_is_a_relative_table_and_a_function(decoder, queries, keys, past):
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    config = T5Config(
        d_model=8, d_kv=4, num_heads=2, relative_attention_num_buckets=8, relative_attention_max_distance=20
    )
    config.is_decoder = decoder
    torch.manual_seed(0)
    layer = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    theirs = layer.compute_bias(queries, keys, past_seen_tokens=past)[0]

    far = queries + keys
    bucket = layer._relative_position_bucket(torch.arange(-far, far + 1), not decoder, 8, 20)
    table = biases.relative(layer.relative_attention_bias(bucket).T, offset=past)
    assert torch.equal(whole(table, 2, queries, keys), theirs)

    def from_buckets(head, query, key):
        return layer.relative_attention_bias.weight[
            layer._relative_position_bucket(key - query - past, not decoder, 8, 20), head
        ]

    added = whole(biases.from_function(from_buckets), 2, queries, keys)
    assert torch.equal(added, theirs)
    assert not added.requires_grad


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_entry_is_the_formula(data):
    heads, queries, keys, width = (data.draw(st.integers(1, n)) for n in (4, 12, 12, 9))
    zero, offset = data.draw(st.integers(0, width - 1)), data.draw(st.integers(-20, 20))
    table = np.random.default_rng(0).normal(size=(heads, width))
    relative = whole(biases.relative(table, zero, offset), heads, queries, keys)
    alibi = whole(biases.alibi(table[:, 0], offset), heads, queries, keys)
    function = whole(biases.from_function(lambda h, q, k: h * 100.0 + q * 10 + k), heads, queries, keys)
    dense = whole(biases.dense(relative), heads, queries, keys)
    shared = whole(biases.dense(relative[:1]), heads, queries, keys)
    flat = whole(biases.dense(relative[0]), heads, queries, keys)
    for h, i, j in np.ndindex(heads, queries, keys):
        assert relative[h, i, j] == table[h, min(max(j - i - offset + zero, 0), width - 1)]
        assert alibi[h, i, j] == table[h, 0] * -abs(i + offset - j)
        assert function[h, i, j] == 100 * h + 10 * i + j
        assert dense[h, i, j] == relative[h, i, j]
        assert shared[h, i, j] == flat[h, i, j] == relative[0, i, j]


@pytest.mark.parametrize(
    "bias",
    [
        biases.alibi([0.5, 0.25, 1]),
        biases.relative(np.arange(15.0).reshape(3, 5)),
        biases.from_function(lambda head, query, key: head + query * 0.5 - key),
        biases.from_function(lambda head, query, key: key * 0.5),
        biases.dense(np.arange(105.0).reshape(3, 5, 7)),
        biases.dense(np.arange(35.0).reshape(1, 5, 7)),
        biases.dense(np.arange(35.0).reshape(5, 7)),
    ],
    ids=repr,
)
def test_a_strip_and_single_entries_are_parts_of_the_whole(bias):
    bias = bias.placed(2)
    matrix = whole(bias, 3, 5, 7)
    assert torch.equal(bias.strip(range(1, 3), range(2, 5), range(3, 6)), matrix[1:3, 2:5, 3:6])
    head, query, key = torch.tensor([0, 2, 1]), torch.tensor([4, 0, 3]), torch.tensor([6, 1, 0])
    assert torch.equal(bias.values(head, query, key).expand(3), matrix[head, query, key])


def test_the_middle_of_a_table_is_distance_zero():
    assert whole(biases.relative([[1, 2, 3]]), 1, 3, 3).tolist() == [[[2, 3, 3], [1, 2, 3], [1, 1, 2]]]


def test_a_strip_of_a_dense_bias_is_the_callers_memory():
    values = np.zeros((2, 8, 8), np.float32)
    bias = biases.dense(values)
    assert bias.strip(range(2), range(8), range(8)).data_ptr() == values.ctypes.data
    assert biases.dense(values[0]).strip(range(2), range(8), range(8)).data_ptr() == values.ctypes.data


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_are_float32_or_wider(dtype):
    for bias in (biases.alibi(torch.ones(2, dtype=dtype)), biases.relative(torch.ones(2, 3, dtype=dtype))):
        assert whole(bias, 2, 2, 2).dtype == torch.promote_types(dtype, torch.float32)


def test_learnt_numbers_may_carry_a_gradient():
    slopes = torch.nn.Parameter(torch.ones(2))
    assert not whole(biases.alibi(slopes), 2, 2, 2).requires_grad


def test_minus_infinity_in_a_matrix_is_let_through():
    assert whole(biases.dense([[0.0, -np.inf]] * np.ones((2, 1))), 1, 2, 2)[0, 0, 1] == -torch.inf


def test_a_bias_of_ones_own_needs_only_values():
    class Ones(biases.Bias):
        def values(self, head, query, key):
            return torch.ones(())

    assert whole(Ones(), 2, 3, 4).shape == (2, 3, 4)
    assert Ones().offset is None


@pytest.mark.parametrize("bias", [biases.alibi([1.0, 2.0]), biases.relative([[1.0], [2.0]])], ids=repr)
def test_queries_and_keys_that_differ_ask_for_an_offset(bias):
    with pytest.raises(ShapeError, match=r"2 queries and 5 keys\. .*offset=3 if"):
        bias.check(2, 2, 5)
    bias.check(2, 5, 5)
    bias.placed(None).check(2, 5, 5)
    bias.placed(3).check(2, 2, 5)
    bias.placed(3).placed(3).check(2, 2, 5)
    with pytest.raises(ParameterError, match=r"the mask's offset in .*offset=3.* got 3, and 0 in the mask"):
        bias.placed(3).placed(0)


@pytest.mark.parametrize(("at", "bias_at"), [(3, 3), (3, None), (None, 3)])
def test_an_offset_given_to_the_mask_or_the_bias_holds_for_both(at, bias_at):
    zeros = np.zeros((1, 2, 4)), np.zeros((1, 5, 4))
    m = AttentionMatrix(*zeros, mask=masks.causal(at), bias=biases.alibi([1.0], bias_at))
    np.testing.assert_allclose(m.scaled[0], -np.abs([[3, 2, 1, 0, np.inf], [4, 3, 2, 1, 0]]))
    full = AttentionMatrix(*zeros, bias=biases.alibi([1.0], 3))
    np.testing.assert_allclose(full.distance().signed[0, 0], full[0, 0] @ [3, 2, 1, 0, -1])


def test_two_offsets_in_a_matrix_are_refused():
    with pytest.raises(ParameterError, match="got 1, and 2 in the mask"):
        AttentionMatrix(np.zeros((2, 4)), np.zeros((5, 4)), mask=masks.causal(2), bias=biases.alibi([1.0], 1))


REFUSED = {
    "slopes of integers": (lambda: biases.alibi(np.arange(3)), DtypeError, "slopes: .* got int64"),
    "slopes as text": (lambda: biases.alibi("0.5"), ArrayKindError, "slopes: .* got builtins.str"),
    "slopes in words": (lambda: biases.alibi(["a"]), ArrayKindError, "slopes: expected a list of numbers"),
    "one slope": (lambda: biases.alibi(torch.tensor(0.5)), ShapeError, r"slopes: expected \(heads,\).* shape \(\)"),
    "no slope": (lambda: biases.alibi([]), ShapeError, r"at least one of each, got shape \(0,\)"),
    "slopes of NaN": (lambda: biases.alibi([1, np.nan]), NonFiniteError, r"nan at slopes\[1\].* was made\.$"),
    "float offset": (lambda: biases.alibi([1.0], 0.5), ParameterError, r"offset: .* got 0\.5"),
    "table of one dimension": (lambda: biases.relative([1.0]), ShapeError, r"table: expected \(heads, distances\)"),
    "infinite table": (lambda: biases.relative([[1.0, -np.inf, 0]]), NonFiniteError, r"-inf at table\[0, 1\]"),
    "table without a middle": (lambda: biases.relative([[1.0, 2.0]]), ShapeError, "odd number .* zero=1 if the last"),
    "zero outside": (lambda: biases.relative([[1.0, 2.0]], zero=2), ParameterError, "zero: .* 0 to 1, got 2"),
    "negative zero": (lambda: biases.relative([[1.0, 2.0]], zero=-1), ParameterError, "zero: .* got -1"),
    "bool as zero": (lambda: biases.relative([[1.0, 2.0]], zero=True), ParameterError, "zero: .* got True"),
    "a matrix as a function": (
        lambda: biases.from_function(np.ones((2, 2))),
        ArrayKindError,
        r"got ndarray.* dense\(\)",
    ),
    "function of two": (
        lambda: biases.from_function(lambda query, key: key),
        ParameterError,
        r"f: expected f\(head_index, query_index, key_index\), got f\(query, key\)",
    ),
    "function of flex attention": (
        lambda: biases.from_function(lambda score, b, h, q, k: score),
        ParameterError,
        "Of a score_mod",
    ),
    "dense of booleans": (lambda: biases.dense(np.ones((2, 2), bool)), DtypeError, "values: .* got bool"),
    "dense of a batch": (
        lambda: biases.dense(np.ones((1, 1, 2, 2))),
        ShapeError,
        r"shape \(1, 1, 2, 2\).* values\[0\]",
    ),
    "dense as a list": (lambda: biases.dense([[0.0]]), ArrayKindError, "values: .* got builtins.list"),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_bias_is_refused(make, error, message):
    with pytest.raises(error, match=message) as raised:
        make()
    assert isinstance(raised.value, SoftmapError)


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (biases.alibi([1.0]), r"alibi\(slopes\): expected one row for each of 2 heads, got 1"),
        (biases.relative([[1.0]] * 3), r"relative\(table\): expected one row for each of 2 heads, got 3"),
        (biases.dense(np.ones((4, 3))), r"shape \(3, 4\) or \(2, 3, 4\), as q and k have it, got shape \(4, 3\)"),
        (biases.dense(np.ones((3, 3, 4))), r"got shape \(3, 3, 4\)"),
    ],
)
def test_a_matrix_of_another_size_is_refused(bias, message):
    with pytest.raises(ShapeError, match=message):
        bias.check(2, 3, 4)


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda head, query, key: key <= query, DtypeError, "floats from f, got torch.bool.* use a mask"),
        (lambda head, query, key: key - query, DtypeError, r"got torch.int64.* \.float\(\)"),
        (lambda head, query, key: 0.0, DtypeError, "got float"),
        (lambda head, query, key: torch.ones(3), ShapeError, r"floats of shape \(1, 2, 4\).* got shape \(3,\)"),
    ],
)
def test_a_function_that_gives_no_floats_of_the_strip_is_refused(f, error, message):
    with pytest.raises(error, match=message):
        whole(biases.from_function(f), 1, 2, 4)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (0.5, DtypeError, "Own: expected a tensor of floats from values, got float"),
        (torch.ones(3), ShapeError, r"Own: expected floats of shape \(1, 2, 4\).* values must work index by index"),
    ],
)
def test_a_bias_of_ones_own_that_gives_no_floats_of_the_strip_is_refused(given, error, message):
    class Own(biases.Bias):
        def values(self, head, query, key):
            return given

        def __repr__(self):
            return "Own"

    with pytest.raises(error, match=message):
        whole(Own(), 1, 2, 4)
    with pytest.raises(error, match="Own: expected"):
        AttentionMatrix(np.ones((4, 2)), np.ones((4, 2)), bias=Own()).summary()


def test_repr_is_short():
    assert repr(biases.alibi([1.0, 2.0], 3)) == "alibi(2 heads, offset=3)"
    assert repr(biases.relative([[1.0, 2.0, 3.0]])) == "relative(1 heads, 3 distances)"
    assert repr(biases.dense(np.ones((2, 3)))) == "dense((2, 3))"
    assert repr(biases.from_function(max)) == "from_function(max)"


def test_column_beyond_every_table_is_named_as_it_was_given():
    with pytest.raises(ParameterError, match=str(2**62)):
        biases.relative([[1.0, 2.0, 3.0]], zero=2**62)
