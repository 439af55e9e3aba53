"""Matrices without some keys, hidden or rescaled, against dense weights."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import by_hand, random_qkv

from softmap import AttentionMatrix, biases, masks
from softmap.errors import ParameterError
from softmap.kernels import fused
from softmap.matrix.without import without

TIGHT = {"rtol": 2e-5, "atol": 1e-7}
N = 150
CAUSAL = np.tri(N, dtype=bool)
SINKS = np.float32([0.5, -1, 3, 0])
KEYS = [(0,), (0, 149), (0, 3, 70, 71, 72, 149), tuple(range(0, N, 3)), tuple(range(N)), ()]
both = pytest.mark.parametrize("rescaled", [False, True])
every_set = pytest.mark.parametrize("keys", KEYS, ids=len)
every_kernel = pytest.mark.parametrize(
    "kernel",
    ["strips", pytest.param("fused", marks=pytest.mark.skipif(not fused.available(), reason=fused.missing()))],
)


def dense(q, k, keys, rescaled, **options):
    """The weights without these keys."""
    rest = ~np.isin(np.arange(N), keys)
    whole = by_hand(q, k, visible=CAUSAL & (rest if rescaled else True), **options).weights
    return whole * rest


@every_set
@both
@every_kernel
@pytest.mark.parametrize("options", [{}, {"sinks": SINKS, "softcap": 3.0}], ids=["plain", "sinks and a cap"])
def test_numbers_are_those_of_the_dense_weights(keys, rescaled, kernel, options, monkeypatch):
    monkeypatch.setenv("SOFTMAP_KERNEL", kernel)
    q, k, _ = random_qkv(queries=N, keys=N)
    m = without(AttentionMatrix(q, k, mask=masks.causal(), **options), keys, rescaled)
    wanted = dense(q, k, keys, rescaled, **options)
    np.testing.assert_allclose(m[:, 3:80, ::2], wanted[:, 3:80, ::2], **TIGHT)
    np.testing.assert_allclose(m.row(149), wanted[:, 149], **TIGHT)
    np.testing.assert_allclose(m.at([5, 100], 3), wanted[:, [5, 100], 3], **TIGHT)
    down = np.arange(0, N, 8)
    for rows in (None, slice(8, 130)):
        part = wanted[:, rows or slice(None)]
        for how, reduce in (("sum", np.add), ("max", np.maximum)):
            pooled = reduce.reduceat(reduce.reduceat(part, down[down < part.shape[1]], 1), down, 2)
            np.testing.assert_allclose(m.blocks(8, how, rows=rows), pooled, **TIGHT)


@both
def test_some_heads_stay_some_heads(rescaled):
    q, k, _ = random_qkv(queries=N, keys=N)
    whole = AttentionMatrix(q, k, mask=masks.causal(), bias=biases.alibi([0.1, 0.2, 0.3, 0.4]))
    far = np.arange(N) - np.arange(N)[:, None]
    bias = -np.abs(far) * np.float32([0.1, 0.2, 0.3, 0.4])[:, None, None]
    wanted = dense(q, k, (0, 9), rescaled, bias=bias)
    one, two = (without(whole[heads], (0, 9), rescaled) for heads in (2, [3, 0]))
    assert (one.shape, two.shape) == ((N, N), (2, N, N))
    np.testing.assert_allclose(one[50:60], wanted[2, 50:60], **TIGHT)
    np.testing.assert_allclose(two.blocks((N, 1))[:, 0], wanted[[3, 0]].sum(1), **TIGHT)


def test_hidden_keys_share_what_is_known_of_rows():
    q, k, _ = random_qkv(queries=N, keys=N)
    whole = AttentionMatrix(q, k, mask=masks.causal())
    hidden = without(whole, (0,), rescaled=False)
    assert "logsumexp of 0 of 600 rows kept" in repr(hidden)
    _ = hidden[0, 5:10, :3]
    assert "logsumexp of 5 of 600 rows kept" in repr(whole)
    assert "logsumexp of 5 of 600 rows kept" in repr(hidden)
    hidden.blocks(16)
    np.testing.assert_array_equal(hidden.logsumexp(), whole.logsumexp())
    assert hidden.nbytes >= whole.nbytes


def test_large_scores_are_normalised_as_in_the_whole():
    q, k, _ = random_qkv(queries=N, keys=N)
    whole = AttentionMatrix(q * np.float32(50), k, mask=masks.causal())
    hidden = without(whole, (0,), rescaled=False)
    rest, every = (m.blocks((1, N), rows=slice(1, None))[..., 0] for m in (hidden, whole))
    np.testing.assert_allclose(rest, every - whole[:, 1:, 0], rtol=1e-4, atol=2e-5)  # a tile rounds otherwise
    assert float(hidden.blocks(1, "max", rows=slice(1, None)).max()) <= 1 + 1e-6


def test_statistics_of_hidden_keys_are_refused_and_of_rescaled_ones_given():
    q, k, _ = random_qkv(queries=N, keys=N)
    whole = AttentionMatrix(q, k, mask=masks.causal())
    with pytest.raises(ParameterError, match="keys: expected a matrix of all keys, or one rescaled") as told:
        without(whole, (0,), rescaled=False).received()
    assert "blocks" in told.value.hint
    received = without(whole, (0,), rescaled=True).received()
    np.testing.assert_allclose(received, dense(q, k, (0,), True).sum(1), **TIGHT)
