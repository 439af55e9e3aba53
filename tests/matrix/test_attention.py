"""The numbers of an AttentionMatrix, against dense attention written out in NumPy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import array_api_strict
import numpy as np
import pytest
import torch
from by_hand import by_hand, random_qkv

from softmap import AttentionMatrix, Steps, biases, masks
from softmap.kernels import strips
from softmap.matrix import attention, lookup

TIGHT = {"rtol": 2e-5, "atol": 2e-6}  # float32 scores of a few units
RANDOM = np.random.default_rng(7)
TABLE = RANDOM.normal(size=(4, 9, 9)).astype(np.float32)
SINKS = np.array([0.5, -1.0, 3.0, 0.0], dtype=np.float32)
IDS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
SEEN = RANDOM.random((9, 9)) < 0.5
SEEN[4] = False
CAUSAL = np.tri(9, dtype=bool)
CASES = {
    "plain": ({}, {}),
    "scale": ({"scale": -2.5}, {"scale": -2.5}),
    "causal": ({"mask": masks.causal()}, {"visible": CAUSAL}),
    "window": ({"mask": masks.sliding_window(2)}, {"visible": CAUSAL & ~np.tri(9, k=-3, dtype=bool)}),
    "documents": (
        {"mask": masks.documents(IDS) & masks.causal()},
        {"visible": CAUSAL & (IDS[:, None] == IDS)},
    ),
    "scattered, an empty row": ({"mask": masks.dense(SEEN)}, {"visible": SEEN}),
    "softcap": ({"softcap": 1.5}, {"softcap": 1.5}),
    "sinks": ({"sinks": SINKS}, {"sinks": SINKS}),
    "sinks, an empty row": ({"sinks": SINKS, "mask": masks.dense(SEEN)}, {"sinks": SINKS, "visible": SEEN}),
    "bias": ({"bias": biases.dense(TABLE)}, {"bias": TABLE}),
    "all": (
        {"bias": biases.dense(TABLE), "sinks": SINKS, "softcap": 2.0, "mask": masks.causal(), "scale": 0.7},
        {"bias": TABLE, "sinks": SINKS, "softcap": 2.0, "visible": CAUSAL, "scale": 0.7},
    ),
}
every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(params=[1, 40, 1 << 22])
def strip(request, monkeypatch):
    """Strips of one row, of a few, and of all."""
    for module in (lookup, attention):
        monkeypatch.setattr(module, "STRIP", request.param)
    monkeypatch.setattr(strips, "_BUDGET", request.param)


def made(case="plain", convert=lambda array: array, **sizes):
    options, given = CASES[case]
    q, k, v = random_qkv(**sizes)
    return AttentionMatrix(convert(q), convert(k), **options), by_hand(q, k, **given), v


# The stages


@every_case
def test_every_stage_is_the_dense_one(case, strip):
    m, dense, _ = made(case)
    for got, wanted in ((m, dense.weights), (m.scores, dense.scores), (m.scaled, dense.scaled)):
        np.testing.assert_allclose(got.dense(), wanted, **TIGHT)
        np.testing.assert_allclose(got[1:3, ::2, 4:], wanted[1:3, ::2, 4:], **TIGHT)
        np.testing.assert_allclose(got[3][[7, 2, 2]], wanted[3][[7, 2, 2]], **TIGHT)
        np.testing.assert_allclose(got[[0, 3], [4, 5], [8, 1]], wanted[[0, 3], [4, 5], [8, 1]], **TIGHT)
        np.testing.assert_allclose(np.asarray(got), wanted, **TIGHT)


@every_case
def test_logsumexp_is_the_dense_one(case, strip):
    m, dense, _ = made(case)
    np.testing.assert_allclose(m.logsumexp(), dense.logsumexp, **TIGHT)
    np.testing.assert_allclose(m[[2, 0]].logsumexp(), dense.logsumexp[[2, 0]], **TIGHT)


@every_case
def test_summary_is_of_the_dense_weights(case):
    m, dense, v = made(case)
    weights, output = dense.weights, dense.weights @ np.repeat(v, 2, 0)
    s = m.summary(v, top=3, cells=(2, 4))
    away = np.arange(9)[:, None] - np.arange(9)
    np.testing.assert_allclose(s.logsumexp, dense.logsumexp, **TIGHT)
    np.testing.assert_allclose(s.output, output, **TIGHT)
    np.testing.assert_allclose(s.entropy, -(weights * np.log(np.maximum(weights, 1e-300))).sum(-1), **TIGHT)
    np.testing.assert_allclose(s.top.weights, -np.sort(-weights)[..., :3], **TIGHT)
    np.testing.assert_allclose(s.distance.signed, (weights * away).sum(-1), **TIGHT)
    np.testing.assert_allclose(s.distance.absolute, (weights * abs(away)).sum(-1), **TIGHT)
    np.testing.assert_allclose(s.received, weights.sum(1), **TIGHT)
    assert (s.cells.row_edges, s.cells.key_edges) == ((0, 4, 9), (0, 2, 4, 6, 9))
    for a, b in product(range(2), range(4)):
        rows, keys = (slice(*edges[i : i + 2]) for i, edges in ((a, s.cells.row_edges), (b, s.cells.key_edges)))
        np.testing.assert_allclose(s.cells.sum[:, a, b], weights[:, rows, keys].sum((1, 2)), **TIGHT)
        np.testing.assert_allclose(s.cells.max[:, a, b], weights[:, rows, keys].max((1, 2)), **TIGHT)


@every_case
@pytest.mark.parametrize("heads", [2, [2], [3, 0], slice(1, 3)])
def test_a_matrix_of_some_heads_is_that_part_of_the_whole(case, heads):
    m, dense, v = made(case)
    part, weights = m[heads], dense.weights[heads]
    values = v[1] if heads == 2 else v
    output = (dense.weights @ np.repeat(v, 2, 0))[heads]
    assert isinstance(part, AttentionMatrix)
    assert part.shape == weights.shape
    np.testing.assert_allclose(part.dense(), weights, **TIGHT)
    s = part.summary(values, top=2, cells=1)
    np.testing.assert_allclose(s.output, output, **TIGHT)
    np.testing.assert_allclose(s.received, weights.sum(-2), **TIGHT)
    np.testing.assert_allclose(s.cells.sum[..., 0, 0], weights.sum((-1, -2)), **TIGHT)
    np.testing.assert_allclose(s.top.weights, -np.sort(-weights)[..., :2], **TIGHT)
    np.testing.assert_allclose(part.row(-1), weights[..., -1, :], **TIGHT)
    np.testing.assert_allclose(part.diagonal(-1), np.diagonal(weights, -1, -2, -1), **TIGHT)
    np.testing.assert_allclose(part.at([0, 8], 3), weights[..., [0, 8], 3], **TIGHT)
    np.testing.assert_allclose(part.blocks(9)[..., 0, 0], weights.sum((-1, -2)), **TIGHT)


# Reading statistics one by one


def test_each_statistic_alone_is_the_summary_s():
    m, _, _ = made("all")
    s = m.summary()
    np.testing.assert_allclose(m.received(), s.received, **TIGHT)
    np.testing.assert_allclose(m.entropy(), s.entropy, **TIGHT)
    np.testing.assert_array_equal(m.logsumexp(), s.logsumexp)
    for one, other in ((m.top(), s.top), (m.distance(), s.distance)):
        for got, wanted in zip(one, other, strict=True):
            np.testing.assert_allclose(got, wanted, **TIGHT)


def test_what_is_not_asked_for_is_none():
    s = made()[0].summary(top=0, cells=0, entropy=False, distance=False, received=False)
    assert s.logsumexp.shape == (4, 9)
    assert (s.output, s.entropy, s.top, s.distance, s.received, s.cells) == (None,) * 6
    assert made()[0].summary(cells=None).cells is None


def test_the_grid_has_at_most_one_cell_for_each_place():
    m, dense, _ = made()
    cells = m.summary(cells=64).cells
    np.testing.assert_allclose(cells.sum, dense.weights, **TIGHT)
    assert cells.row_edges == tuple(range(10))


def test_a_summary_says_which_kernel_ran(monkeypatch):
    monkeypatch.setenv("SOFTMAP_KERNEL", "strips")
    m = made()[0]
    assert (m.summary().kernel, m.summary().why) == ("strips", "SOFTMAP_KERNEL=strips")
    assert (m[1:3].summary().kernel, m[1:3].summary().why) == ("strips", "SOFTMAP_KERNEL=strips")


def test_more_than_there_are_keys_are_filled_up():
    top = made("causal")[0].top(12)
    assert top.keys.shape == (4, 9, 12)
    assert top.keys[0, 0].tolist() == [0] + [-1] * 11
    assert top.weights[0, 0].tolist() == [1.0] + [0.0] * 11


@pytest.mark.parametrize("offset", [-12, -9, -8, -1, 0, 1, 3, 8, 9, 12])
def test_diagonal_is_numpy_s(offset):
    for sizes in ({}, {"queries": 5}, {"keys": 4}):
        m, dense, _ = made(**sizes)
        wanted = np.diagonal(dense.weights, offset, 1, 2)
        assert m.diagonal(offset).shape == wanted.shape
        np.testing.assert_allclose(m.diagonal(offset), wanted, **TIGHT)


@pytest.mark.parametrize("heads", [..., 2])
@pytest.mark.parametrize(("rows", "keys"), [(3, 4), ([1, -1], [0, 2]), ([[1], [2]], [0, 3, 5]), (3, [1, 2])])
def test_at_gives_single_places(rows, keys, heads):
    m, dense, _ = made("all")
    got, wanted = m[heads].at(rows, keys), dense.weights[heads][..., rows, keys]
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, **TIGHT)


@pytest.mark.parametrize("case", ["all", "documents", "scattered, an empty row"])
@pytest.mark.parametrize("cell", [1, 2, 4, 100, (3, 2), (100, 1)])
def test_blocks_are_of_the_dense_weights(case, cell, strip):
    m, dense, _ = made(case)
    down, across = cell if isinstance(cell, tuple) else (cell, cell)
    sides = [(None, None), (slice(2, 8), slice(1, -1)), (slice(-1, None), slice(3, 4))]
    for (rows, keys), (how, reduce) in product(sides, [("sum", np.add.reduceat), ("max", np.maximum.reduceat)]):
        part = dense.weights[:, rows or slice(None), keys or slice(None)]
        wanted = reduce(reduce(part, np.arange(0, part.shape[1], down), 1), np.arange(0, part.shape[2], across), 2)
        got = m.blocks(cell, how, rows=rows, keys=keys)
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, **TIGHT)


# Steps


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_of_everything_are_those_of_the_mechanism(causal, dtype):
    q, k, v = (array[0] for array in random_qkv(dtype=dtype))
    wanted = Steps.from_qkv(q, k, v, causal=causal)
    got = AttentionMatrix(q, k, mask=masks.causal() if causal else None).steps(v=v)
    assert (got.d_k, got.scale) == (wanted.d_k, wanted.scale)
    for name in ("q", "k", "v", "scores", "scaled", "weights", "output"):
        assert getattr(got, name).dtype == dtype
        np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), **TIGHT)


def test_steps_of_a_page_have_the_weights_of_the_whole(strip):
    m, dense, v = made("all")
    page = m[3].steps(slice(4, 7), [1, 8], v[1])
    np.testing.assert_allclose(page.weights, dense.weights[3, 4:7][:, [1, 8]], **TIGHT)
    np.testing.assert_allclose(page.scaled, dense.scaled[3, 4:7][:, [1, 8]], **TIGHT)
    np.testing.assert_allclose(page.scores, dense.scores[3, 4:7][:, [1, 8]], **TIGHT)
    np.testing.assert_allclose(page.output, dense.weights[3, 4:7] @ v[1], **TIGHT)
    np.testing.assert_array_equal(page.v, v[1][[1, 8]])
    assert page.x is None
    assert m[3:4].steps([2], v=v).output.shape == (1, 3)
    assert m[3].steps().output is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_steps_of_halves_are_float32(dtype):
    q, k, v = (torch.from_numpy(array[0]).to(dtype) for array in random_qkv())
    steps = AttentionMatrix(q, k).steps(v=v)
    stages = (steps.q, steps.k, steps.v, steps.scores, steps.weights, steps.output)
    assert {stage.dtype for stage in stages} == {torch.float32}
    torch.testing.assert_close(steps.output, Steps.from_qkv(q, k, v).output, rtol=2e-5, atol=2e-6)


# Kinds of arrays


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_torch_goes_in_and_out_in_float32_or_wider(dtype):
    q, k, v = (torch.from_numpy(array).to(dtype).requires_grad_() for array in random_qkv())
    dense = by_hand(*(array.detach().double().numpy() for array in (q, k)))
    m = AttentionMatrix(q, k)
    wide = torch.promote_types(dtype, torch.float32)
    assert (m.dtype, m.device) == (wide, q.device)
    for array in (m[0, 1], m.scores[1, 2], m.dense(), m.top(1).weights, m.summary(v).output, m.blocks(4)):
        assert isinstance(array, torch.Tensor)
        assert (array.dtype, array.requires_grad) == (wide, False)
    np.testing.assert_allclose(m.dense(), dense.weights, **TIGHT)
    np.testing.assert_allclose(m.logsumexp(), dense.logsumexp, **TIGHT)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_numpy_goes_in_and_out_in_float32_or_wider(dtype):
    q, k, v = random_qkv(dtype=dtype)
    m = AttentionMatrix(q, k)
    wide = np.result_type(dtype, np.float32)
    assert (m.dtype, m.device) == (wide, "cpu")
    for array in (m[0, 1], m.scaled[0, 1], m.dense(), m.received(), m.summary(v).output, m.row(3)):
        assert isinstance(array, np.ndarray)
        assert array.dtype == wide
    assert m.top(2).keys.dtype == np.int64


def test_any_array_with_dlpack_goes_in_and_out():
    q, k, v = (array_api_strict.asarray(array) for array in random_qkv())
    m = AttentionMatrix(q, k)
    for array in (m[0, 1], m[1:, ::2, 3], m.dense(), m.top(2).keys, m.summary(v).cells.sum, m[1].steps().weights):
        assert isinstance(array, type(q))
    assert m.dtype == array_api_strict.float32
    np.testing.assert_allclose(np.asarray(m), AttentionMatrix(*random_qkv()[:2]).dense(), **TIGHT)


def test_nothing_is_copied():
    q, k, _ = random_qkv()
    m = AttentionMatrix(q, k)
    assert m.nbytes == q.nbytes + k.nbytes
    before = m.scores[0, 0, 0]
    q[0, 0] *= 2
    assert m.scores[0, 0, 0] == 2 * before


def test_all_that_is_held_is_counted():
    q, k, _ = (array * np.float32(1e25) for array in random_qkv())
    m = AttentionMatrix(q, k, scale=1e-50, mask=masks.causal())
    _ = m[0, 3]
    rows, sizes, spans = 4 * 9 * 2 * 8, 9 * 8, 9 * 2 * 8
    assert m.nbytes == q.nbytes + k.nbytes + rows + spans
    m = AttentionMatrix(q, k, scale=1e-48, mask=masks.causal())
    _ = m[0, 3]
    assert m.nbytes == q.nbytes + k.nbytes + rows + sizes + spans


def test_one_head_may_come_without_an_axis_of_heads():
    q, k, v = (array[0] for array in random_qkv())
    m = AttentionMatrix(q, k, sinks=np.float32(0.5), mask=masks.causal())
    dense = by_hand(q[None], k[None], visible=CAUSAL, sinks=np.array([0.5]))
    assert (m.shape, m.ndim, len(m), m.heads) == ((9, 9), 2, 9, 1)
    np.testing.assert_allclose(m.dense(), dense.weights[0], **TIGHT)
    np.testing.assert_allclose(m.summary(v).output, dense.weights[0] @ v, **TIGHT)
    np.testing.assert_allclose(list(m), dense.weights[0], **TIGHT)
    assert m[:] is m


def test_an_array_of_it_takes_a_dtype_and_is_a_copy():
    m, dense, _ = made()
    assert np.asarray(m, dtype=np.float64).dtype == np.float64
    np.testing.assert_allclose(np.asarray(m.scores, dtype=np.float64), dense.scores, **TIGHT)
    with pytest.raises(ValueError, match="never stored"):
        m.__array__(copy=False)


# What is kept


def test_a_row_s_logsumexp_is_found_once(monkeypatch):
    m = made("causal")[0]
    assert "logsumexp of 0 of 36 rows kept" in repr(m)
    first = m[1, 3:5, :2]
    assert "logsumexp of 2 of 36 rows kept" in repr(m)
    assert m.nbytes > made("causal")[0].nbytes

    def again(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(lookup.Lookup, "_peak_and_log_total", again)
    monkeypatch.setattr(lookup.Lookup, "sweep", again)
    np.testing.assert_array_equal(m[1, 3:5, :2], first)
    np.testing.assert_array_equal(m[1][3:5, :2], first)
    with pytest.raises(AssertionError, match="computed again"):
        _ = m[0, 3]


def test_heads_and_the_whole_share_what_is_known():
    m = made()[0]
    _ = m[2].logsumexp()
    assert "logsumexp of 9 of 36 rows" in repr(m)
    assert "logsumexp of 9 of 9 rows" in repr(m[2])
    m[[1, 2]].summary()
    assert "logsumexp of 18 of 36 rows" in repr(m)
    m.summary()
    assert "logsumexp of 36 of 36 rows" in repr(m)


def test_a_tile_is_the_same_before_and_after_a_summary():
    m = made("all")[0]
    before = m[0, 2:5]
    m.summary()
    np.testing.assert_array_equal(m[0, 2:5], before)


def test_threads_that_look_at_once_find_the_same():
    m, dense, _ = made("all")
    tiles = [(h, slice(i, i + 3)) for h in range(4) for i in range(6)] * 5
    with ThreadPoolExecutor(8) as pool:
        for tile_, got in zip(tiles, pool.map(m.__getitem__, tiles), strict=True):
            np.testing.assert_allclose(got, dense.weights[tile_], **TIGHT)


# Looks


def test_repr_says_what_it_is():
    m = made("all")[0]
    assert repr(m) == (
        "AttentionMatrix(shape (4, 9, 9), float32, mask causal(), scale 0.7, with softcap, with sinks, with bias, "
        "logsumexp of 0 of 36 rows kept)"
    )
    assert (repr(m.mask), m.scale) == ("causal()", 0.7)
    assert repr(m.scaled) == "scaled of shape (4, 9, 9), float32"
    assert repr(m.scores[1]) == "scores of shape (9, 9), float32"
    summary = repr(m.summary())
    assert summary.startswith("Summary(logsumexp (4, 9), entropy (4, 9), top (4, 9, 8), distance (4, 9), received")
    assert "kernel=" in summary


def test_iterating_gives_the_heads():
    m, dense, _ = made()
    heads = list(m)
    assert [type(head) for head in heads] == [AttentionMatrix] * 4
    np.testing.assert_allclose(heads[2].dense(), dense.weights[2], **TIGHT)
    assert [scores.shape for scores in m.scores] == [(9, 9)] * 4
