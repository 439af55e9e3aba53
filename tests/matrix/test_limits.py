"""An AttentionMatrix at its limits: huge scores, NaN, odd settings of torch, long texts."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from by_hand import by_hand, random_qkv

from softmap import AttentionMatrix, masks
from softmap.kernels import tile
from softmap.matrix import lookup

TIGHT = {"rtol": 2e-5, "atol": 2e-6}  # float32 scores of a few units
CAUSAL = np.tri(9, dtype=bool)
SEEN = CAUSAL & (np.random.default_rng(7).random((9, 9)) < 0.5)


# Numbers


@pytest.mark.parametrize("size", [30.0, 1e4])
def test_rows_of_large_scores_sum_to_one(size):
    q, k, _ = random_qkv(d_k=1, queries=50, keys=300)
    m = AttentionMatrix(q * np.float32(size), k)
    np.testing.assert_allclose(m.dense().sum(-1, dtype=float), 1, atol=2e-6)


def test_scores_beyond_float32_give_exact_weights():
    q, k, v = random_qkv()
    q, k = q * np.float32(1e25), k * np.float32(1e25)
    m = AttentionMatrix(q, k, scale=1e-50)
    dense = by_hand(q, k, scale=1e-50)
    np.testing.assert_allclose(m.dense(), dense.weights, **TIGHT)
    np.testing.assert_allclose(m.scaled.dense(), dense.scaled, **TIGHT)
    np.testing.assert_allclose(m.at([0, 3], [1, 2]), dense.weights[:, [0, 3], [1, 2]], **TIGHT)
    np.testing.assert_allclose(m.summary(v).output, dense.weights @ np.repeat(v, 2, 0), **TIGHT)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_go_through_as_in_numpy_where_asked_for(value):
    q, k, _ = random_qkv(kv_heads=4)
    q[1, 2, 0] = value
    m = AttentionMatrix(q, k, nan="propagate")
    with np.errstate(invalid="ignore"):
        wanted = by_hand(q, k).weights
    for got in (m.dense(), np.stack([m.row(i) for i in range(9)], 1)):
        np.testing.assert_allclose(got, wanted, **TIGHT)
    assert np.isnan(m.received()[1]).all()
    assert np.isfinite(m.received()[0]).all()


def test_autocast_changes_nothing():
    q, k, v = (torch.from_numpy(array) for array in random_qkv())
    plain = AttentionMatrix(q, k)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        m = AttentionMatrix(q, k)
        tile_, output, stepped = m[1, 2:4], m.summary(v).output, m[0].steps(v=v[0]).output
    assert torch.equal(tile_, plain[1, 2:4])
    assert torch.equal(output, plain.summary(v).output)
    assert torch.equal(stepped, plain[0].steps(v=v[0]).output)


@pytest.fixture
def odd_defaults():
    """torch's default device and dtype as nobody here expects them."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with torch.device("meta"):
        yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("kernel", ["strips", "fused"])
def test_torch_s_defaults_change_nothing(kernel, odd_defaults, monkeypatch):
    from softmap.kernels import fused

    if kernel == "fused" and not fused.available():
        pytest.skip(fused.missing())
    monkeypatch.setenv("SOFTMAP_KERNEL", kernel)
    q, k, v = random_qkv()
    dense = by_hand(q, k, visible=SEEN)
    m = AttentionMatrix(q, k, mask=masks.causal() & masks.dense(SEEN))
    np.testing.assert_allclose(m.dense(), dense.weights, **TIGHT)
    np.testing.assert_allclose(m.summary(v).received, dense.weights.sum(1), **TIGHT)
    np.testing.assert_allclose(m.summary(v).cells.sum, dense.weights, **TIGHT)
    np.testing.assert_allclose(m.diagonal(-1), np.diagonal(dense.weights, -1, 1, 2), **TIGHT)
    np.testing.assert_allclose(m[1].blocks(9), dense.weights[1].sum()[None, None], **TIGHT)
    assert m[1].steps(v=v[0]).output.dtype == np.float32
    assert m.logsumexp().dtype == np.float32


# Memory


def test_a_tile_of_a_long_text_computes_little(monkeypatch):
    tiles = []
    original = tile.scores
    monkeypatch.setattr(tile, "scores", lambda *args: tiles.append(original(*args)) or tiles[-1])
    q, k, _ = random_qkv(heads=2, kv_heads=1, queries=200_000, keys=200_000, d_k=2)
    m = AttentionMatrix(q, k, mask=masks.causal())
    assert m[0, 5, :10].shape == (10,)
    assert sum(numbers.size for numbers in map(np.asarray, tiles)) == 6 + 10
    m[1, 150_000:150_100, -3:]
    assert max(numbers.numel() for numbers in tiles) <= lookup.STRIP


SWEEP_AND_LOOK = """
import resource, torch, softmap
torch.manual_seed(0)
q, k, v = torch.randn(3, 1, 20_000, 8)
m = softmap.AttentionMatrix(q, k, mask=softmap.masks.causal())
_ = m[0, 5, :10]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
m[0].diagonal(-1), m.summary(v), m.blocks((20_000, 100), rows=slice(1, None)), m[0, ::40, ::40], m.row(7)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_no_path_holds_queries_x_keys():
    ran = subprocess.run([sys.executable, "-c", SWEEP_AND_LOOK], capture_output=True, text=True, check=True)
    whole = 20_000 * 20_000 * 4 / 2**20  # MiB
    assert float(ran.stdout) < whole / 8
