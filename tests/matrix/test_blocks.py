"""Sums and maxima over the cells of rectangles: by any kernel, of any rows, whatever is known of them before."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import by_hand, random_qkv
from hypothesis import given, settings
from hypothesis import strategies as st

from softmap import AttentionMatrix, biases, kernels, masks
from softmap.kernels import fused, strips
from softmap.kernels.contract import Problem, Wanted
from softmap.matrix.blocks import Rectangle, cells_of

compiled = pytest.mark.skipif(not fused.available(), reason=fused.missing())
RANDOM = np.random.default_rng(3)
QUERIES, KEYS = 150, 200
SEEN = RANDOM.random((QUERIES, KEYS)) < 0.3
SEEN[:70, 64:130] = False
SEEN[40:45] = False
BIAS = RANDOM.normal(size=(4, QUERIES, KEYS)).astype(np.float32)
SINKS = np.float32([0.5, -1, 3, 0])
PLACE = np.arange(KEYS)
IDS = np.sort(RANDOM.integers(0, 5, KEYS))
MASKS = {
    "full": masks.full(),
    "causal": masks.causal(50),
    "causal, empty rows": masks.causal(-20),
    "window": masks.sliding_window(33, 0, 50),
    "chunked": masks.chunked(48, 50),
    "packed": masks.documents(IDS[:QUERIES], IDS) & masks.causal(0),
    "two documents apart": masks.documents(np.arange(QUERIES) // 40, np.array([0, 2])[PLACE // 30 % 2]),
    "without the first": masks.causal(50) & masks.padding(PLACE > 0),
    "with holes": masks.causal(50) & masks.padding(PLACE % 67 != 5),
    "long holes": masks.sliding_window(99, 0, 50) & masks.padding((PLACE < 20) | (PLACE > 160)),
    "nothing": masks.padding(PLACE < 0),
    "scattered": masks.dense(SEEN),
    "a function": masks.from_function(lambda query, key: (query + key) % 50 < 3),
}
sides = st.tuples(st.integers(0, 1 << 10), st.integers(1, 1 << 10))
sizes = st.sampled_from([1, 2, 3, 4, 8, 16, 32, 50, 64, 128, 1000])


def side_of(pair: tuple[int, int], size: int) -> range:
    first = pair[0] % size
    return range(first, min(size, first + 1 + pair[1] % size))


def pooled(weights, rectangle, reduce):
    part = weights[:, rectangle.rows.start : rectangle.rows.stop, rectangle.keys.start : rectangle.keys.stop]
    down, across = (np.arange(0, size, cell) for size, cell in zip(part.shape[1:], rectangle[2:], strict=True))
    return reduce.reduceat(reduce.reduceat(part, down, 1), across, 2)


def seen_by(mask):
    return mask.strip(range(QUERIES), range(KEYS)).numpy()


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("kernel", ["strips", pytest.param("fused", marks=compiled)])
def test_cells_of_any_rectangle_are_those_of_the_dense_weights(name, added, kernel, monkeypatch):
    monkeypatch.setenv("SOFTMAP_KERNEL", kernel)
    q, k, _ = random_qkv(queries=QUERIES, keys=KEYS, d_k=9)
    more = {"softcap": 2.0, "sinks": SINKS, "scale": 0.7} if added else {}
    dense = by_hand(q, k, visible=seen_by(MASKS[name]), bias=BIAS if added else 0.0, **more).weights
    m = AttentionMatrix(q, k, mask=MASKS[name], bias=biases.dense(BIAS) if added else None, **more)

    @settings(max_examples=10, deadline=None)
    @given(sides, sides, sizes, sizes, st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True))
    def check(rows, keys, down, across, heads):
        rectangle = Rectangle(side_of(rows, QUERIES), side_of(keys, KEYS), down, across)
        got = cells_of(m._lookup, heads, rectangle)
        for have, reduce in ((got.sum, np.add), (got.max, np.maximum)):
            np.testing.assert_allclose(have, pooled(dense[heads], rectangle, reduce), rtol=2e-5, atol=1e-7)

    check()


# What is known of rows


def large_scores():
    q, k, _ = random_qkv(heads=1, kv_heads=1, queries=QUERIES, keys=KEYS, d_k=16)
    return AttentionMatrix(q * np.float32(30), k * np.float32(10), scale=0.25)


@compiled
def test_a_rectangle_after_a_summary_takes_one_pass_and_looks_at_nothing_else(monkeypatch):
    q, k, _ = random_qkv(queries=QUERIES, keys=KEYS)
    m = AttentionMatrix(q, k)
    m.summary()
    for module in (kernels, strips, kernels.tile):
        for name in ("sweep", "scores"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_: pytest.fail("more than one pass"))
    np.testing.assert_allclose(
        m.blocks(8, "max"),
        pooled(by_hand(q, k).weights, Rectangle(range(150), range(200), 8, 8), np.maximum),
        rtol=2e-5,
    )


@compiled
@pytest.mark.parametrize("before", ["nothing", "a summary", "tiles"])
def test_rows_of_large_scores_are_normalised_in_the_kernel_s_own_rounding(before):
    m = large_scores()
    if before == "a summary":
        m.summary()
    elif before == "tiles":
        m[0, :, 0]
    for cell in (1, 8, KEYS):
        assert float(m.blocks(cell, "max", rows=slice(1, None)).max()) <= 1 + 1e-6
        np.testing.assert_allclose(m.blocks(cell, rows=slice(1, None)).sum(), QUERIES - 1, rtol=1e-5)


@compiled
def test_a_logsumexp_of_another_rounding_serves_where_it_is_small_alone(monkeypatch):
    m = large_scores()
    problem = m._lookup.problem
    own = kernels.sweep(problem, Wanted()).statistics.logsumexp
    swept = []
    original = kernels.sweep
    monkeypatch.setattr(kernels, "sweep", lambda *given: swept.append(given[0].shape[1]) or original(*given))
    for logsumexp, rows in ((own, [64]), (own + 1e-3, [64, QUERIES])):
        swept.clear()
        given = AttentionMatrix._of(problem, logsumexp)
        assert float(given.blocks(4, "max").max()) <= 1 + 1e-6
        given.blocks(4, rows=slice(5, 9))
        assert swept == rows
    small = AttentionMatrix._of(Problem(problem.q / 30, problem.k / 10, masks.full(), 0.25), None)
    small.summary()
    swept.clear()
    small.blocks(4, rows=slice(1, None))
    assert swept == []


@compiled
def test_rows_whose_logsumexp_float64_does_not_hold_are_those_of_tiles():
    """Models that hide all keys of a row by float32's lowest number spread it evenly."""
    values = np.zeros((QUERIES, KEYS), np.float32)
    values[3] = np.finfo(np.float32).min
    q, k, _ = random_qkv(heads=1, kv_heads=1, queries=QUERIES, keys=KEYS)
    m = AttentionMatrix(q, k, bias=biases.dense(values))
    got = m.blocks((1, 100), rows=slice(0, 8))
    np.testing.assert_allclose(got.sum(-1), np.ones((1, 8)), rtol=1e-5)
    np.testing.assert_allclose(got[0, 3], m[0, 3].reshape(2, 100).sum(1), rtol=1e-5)


def test_what_blocks_learn_of_rows_serves_tiles():
    q, k, _ = random_qkv()
    m = AttentionMatrix(q, k)
    m.blocks(2, rows=slice(3, 5))
    assert "logsumexp of 8 of 36 rows kept" in repr(m)
    held = m.nbytes
    m[:, 3:5, 0]
    assert m.nbytes == held


def test_sums_and_maxima_of_one_pass_are_those_of_blocks():
    m = AttentionMatrix(*random_qkv(queries=QUERIES, keys=KEYS)[:2])
    m.summary()
    got = cells_of(m._lookup, [1, 2], Rectangle(range(3, 77), range(KEYS), 8, 16))
    for how in ("sum", "max"):
        np.testing.assert_array_equal(getattr(got, how), m[1:3].blocks((8, 16), how, rows=slice(3, 77)))


def test_halves_and_doubles_have_cells_of_their_own_dtype():
    q, k, _ = random_qkv(queries=QUERIES, keys=KEYS)
    for dtype, wide in ((np.float16, np.float32), (np.float64, np.float64)):
        given = q.astype(dtype), k.astype(dtype)
        got = AttentionMatrix(*given).blocks(16, rows=slice(3, None))
        assert got.dtype == wide
        want = pooled(by_hand(*given).weights, Rectangle(range(3, QUERIES), range(KEYS), 16, 16), np.add)
        np.testing.assert_allclose(got, want, rtol=2e-5)
