"""Every number of a matrix comes from one rounding of its scores: whatever was asked before, and however large they are.

A walk asks one matrix for many things in a random order, and compares each with the matrix as a whole, computed by
another that was asked for nothing else.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from softmap import AttentionMatrix, biases, masks
from softmap.kernels import sizes
from softmap.matrix.without import without

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPES = ((2, 1, 48, 48, 4), (4, 2, 20, 70, 64), (1, 1, 1, 300, 16), (3, 3, 130, 90, 33))
SUMS = 1e-4  # how far a row's sum of float32 weights may be from 1; those of large scores are computed in float64
ORDERS = 24  # of questions; the slow test takes 1,000


def drawn(seed: int):
    """A matrix's ingredients: any dtype, shape, mask and extras, with scores of 1 to 1e30."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    heads, kv_heads, queries, keys, d_k = SHAPES[random.integers(len(SHAPES))]
    dtype = DTYPES[random.integers(len(DTYPES))]
    most = 4 if dtype == torch.float16 else 30
    size = 10.0 ** random.uniform(0, most)
    q = (torch.randn(heads, queries, d_k) * size).to(dtype)
    k = torch.randn(kv_heads, keys, d_k).to(dtype)
    if random.random() < 0.3:  # scores that nearly cancel beside large ones
        k[:, ::2] *= 1e-3
    offset = keys - queries
    options = {
        "mask": [
            None,
            masks.causal(offset),
            masks.sliding_window(9, 0, offset),
            masks.causal(offset) & masks.padding(torch.arange(keys) % 7 != 3),
            masks.dense(torch.rand(queries, keys) < 0.3),
        ][random.integers(5)],
        "scale": [None, 1.0, -0.3, 1e-3][random.integers(4)],
    }
    if random.random() < 0.25:
        options["softcap"] = [5.0, 50.0, 1e6, 1e12][random.integers(4)]
    if random.random() < 0.25:
        options["sinks"] = torch.randn(heads) * [1.0, size][random.integers(2)]
    if random.random() < 0.25:
        table = torch.randn(heads, queries, keys) * [1.0, 1e4, 1e9][random.integers(3)]
        options["bias"] = biases.dense(table)
    elif random.random() < 0.1:
        options["bias"] = biases.alibi(torch.rand(heads) * 100, offset)
    return q, k, options


class Walk:
    """Questions to one matrix, each with its answer by the whole matrix of another.

    Args:
        seed: what all is drawn by.
        numpy: whether the arrays are NumPy's.
    """

    def __init__(self, seed: int, numpy: bool = False) -> None:
        q, k, options = drawn(seed)
        if q.dtype == torch.bfloat16 or not numpy:
            self.m = AttentionMatrix(q, k, **options)
        else:
            self.m = AttentionMatrix(q.numpy(), k.numpy(), **options)
        self.random = np.random.default_rng(seed + 1)
        whole = AttentionMatrix(q, k, **options)
        self.dense = whole.dense().double().numpy()
        problem = self.m._lookup.problem
        scaled = np.abs(np.where(np.isfinite(s := whole.scaled.dense().double().numpy()), s, 0)).max(initial=0)
        unit = torch.finfo(problem.dtype).eps / 2
        rounded = min(max(problem.size, scaled), sizes.SWEPT)
        extra = 0.0 if problem.sinks is None else float(problem.sinks.abs().max())
        score = unit * ((math.sqrt(q.shape[2]) + 8) * rounded + 8 * (rounded + min(extra, sizes.SWEPT)))
        self.swept = math.expm1(2 * score) + 1e-5
        self.tiled = SUMS

    def ask(self, what: str) -> None:
        """Ask a question, and compare."""
        getattr(self, f"ask_{what}")(
            self.m, int(self.random.integers(self.m.queries)), int(self.random.integers(self.m.keys))
        )

    def ask_row(self, m, i, j):
        self.same(m.row(i), self.dense[:, i])

    def ask_diagonal(self, m, i, j):
        self.same(m.diagonal(j - i), np.diagonal(self.dense, j - i, 1, 2))

    def ask_tile(self, m, i, j):
        self.same(m[:, i // 2 : i + 1, j:], self.dense[:, i // 2 : i + 1, j:])

    def ask_columns(self, m, i, j):
        step = 1 + i % 9
        self.same(m[0, ::step, [j, 0]], self.dense[0, ::step, [j, 0]])

    def ask_at(self, m, i, j):
        places = self.random.integers(0, m.queries, 9), self.random.integers(0, m.keys, 9)
        self.same(m.at(*places), self.dense[:, places[0], places[1]])

    def ask_dense(self, m, i, j):
        self.same(m.dense(), self.dense)

    def ask_array(self, m, i, j):
        self.same(np.asarray(m), self.dense)

    def ask_head(self, m, i, j):
        self.same(m[-1][i, :j], self.dense[-1, i, :j])

    def ask_blocks(self, m, i, j):
        cell = min(1 + j % 40, m.queries - i)
        got = m.blocks((cell, m.keys), rows=slice(i, None))
        want = np.add.reduceat(self.dense[:, i:].sum(2), np.arange(0, m.queries - i, cell), 1)
        self.same(got[..., 0], want, self.swept, 1e-6 * m.queries)
        assert float(m.blocks(cell, "max", rows=slice(i, i + 1)).max()) <= 1 + SUMS

    def ask_received(self, m, i, j):
        self.same(m.received(), self.dense.sum(1), self.swept, 1e-6 * m.queries)

    def ask_top(self, m, i, j):
        top = m.top(3)
        keys = np.asarray(top.keys)
        want = np.where(keys >= 0, np.take_along_axis(self.dense, np.maximum(keys, 0), 2), 0)
        self.same(top.weights, want, self.swept, self.swept)
        self.same(top.weights[..., :1], self.dense.max(2, keepdims=True), self.swept, self.swept)

    def ask_entropy(self, m, i, j):
        want = -(self.dense * np.log(np.maximum(self.dense, 1e-300))).sum(2)
        self.same(m.entropy(), want, 10 * self.swept, 10 * self.swept)

    def ask_cells(self, m, i, j):
        cells = m.summary(cells=(1, 1)).cells
        self.same(cells.sum[:, 0, 0], self.dense.sum((1, 2)), self.swept, 1e-5)
        assert float(cells.max.max()) <= 1 + SUMS

    def ask_without(self, m, i, j):
        want = self.dense[:, i].copy()
        want[:, j] = 0
        self.same(without(m, [j], rescaled=False)[:, i], want)

    def ask_logsumexp(self, m, i, j):
        assert not bool((m.logsumexp() == math.inf).any())

    def same(self, got, want, relative: float | None = None, absolute: float = 1e-7) -> None:
        """Compare weights, or sums of them."""
        relative = self.tiled if relative is None else relative
        np.testing.assert_allclose(np.asarray(got).astype(float), want, rtol=relative, atol=absolute)

    def sums(self) -> None:
        """Check that rows sum to 1, or to nothing, or to less with a sink, and that no weight is above 1."""
        got = np.asarray(self.m.dense()).astype(float)
        total = got.sum(-1)
        assert got.max(initial=0) <= 1 + SUMS
        assert total.max() <= 1 + SUMS
        if self.m._lookup.problem.sinks is None:
            seen = (self.m.logsumexp() > -math.inf).reshape(total.shape)
            np.testing.assert_allclose(total, np.asarray(seen).astype(float), atol=SUMS)


QUESTIONS = (
    *("row", "diagonal", "tile", "columns", "at", "dense", "array", "head"),
    *("blocks", "received", "top", "entropy", "cells", "without", "logsumexp"),
)


def walk(seed: int) -> None:
    """One order of questions."""
    walk = Walk(seed, numpy=seed % 2 == 0)
    for what in walk.random.permutation(QUESTIONS)[: 4 + seed % 8]:
        walk.ask(str(what))
    walk.sums()


@pytest.mark.parametrize("first", range(0, ORDERS, 8))
def test_what_was_asked_before_changes_no_number(first):
    for seed in range(first, first + 8):
        walk(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 2000, 50))
def test_a_thousand_orders_of_questions_give_the_same_numbers(first):
    for seed in range(first, first + 50):
        walk(seed)


def test_threads_that_ask_at_once_get_the_same_numbers():
    for seed in (3, 4, 5, 6):
        walk = Walk(seed)
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(walk.ask, what) for what in QUESTIONS * 3]:
                done.result()
        walk.sums()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e3, 1e6, 1e8, 1e12, 1e30])
@pytest.mark.parametrize(
    "first", [lambda m: m.row(47), lambda m: m.diagonal(-1), lambda m: m.summary(), lambda m: None]
)
def test_rows_sum_to_one_at_any_size_whatever_was_asked_first(first, size, dtype):
    torch.manual_seed(0)
    q, k = torch.randn(2, 48, 4).to(dtype) * size, torch.randn(2, 48, 4).to(dtype)
    m = AttentionMatrix(q, k)
    first(m)
    sums = torch.stack([m.row(i) for i in range(48)], 1).double().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=3e-5)
    assert torch.equal(m.dense(), AttentionMatrix(q, k).dense()) or size < 1e12
