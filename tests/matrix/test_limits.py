"""An AttentionMatrix at its limits: huge scores, NaN, odd settings of torch, long texts."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from by_hand import by_hand, random_qkv

from softmap import AttentionMatrix, biases, kernels, masks
from softmap.errors import NonFiniteError
from softmap.kernels import strips, tile
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


LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("added", [LOWEST, -1e18, -1e15, 1e15, 1e18])
def test_a_row_that_is_biased_as_a_whole_is_spread_evenly(added, warm):
    q = np.zeros((1, 6, 4), np.float32)
    bias = np.zeros((6, 6), np.float32)
    bias[0] = added
    m = AttentionMatrix(q, q, bias=biases.dense(bias))
    if warm:
        m.summary()
    np.testing.assert_allclose(m.dense(), np.full((1, 6, 6), 1 / 6), **TIGHT)
    np.testing.assert_allclose(m[0, 0, 2:4], [1 / 6] * 2, **TIGHT)
    np.testing.assert_allclose(m.at([0, 1], [3, 3]), [[1 / 6] * 2], **TIGHT)
    np.testing.assert_allclose(m.logsumexp()[0], np.float32([added] + [0] * 5) + np.log(6), rtol=1e-6)


@pytest.mark.parametrize("warm", [False, True])
def test_rows_of_equal_large_scores_are_spread_evenly(warm):
    q = np.full((1, 4, 4), 1e8, np.float32)
    m = AttentionMatrix(q, q)
    if warm:
        m.summary()
    np.testing.assert_allclose(m.dense(), np.full((1, 4, 4), 0.25), **TIGHT)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("size", [1, 30, 170])
def test_a_summary_leaves_rows_that_sum_to_one(size, warm):
    q, k, _ = random_qkv(heads=2, d_k=64, queries=200, keys=900)
    m = AttentionMatrix(q * np.float32(size), k * np.float32(size))
    if warm:
        m.summary()
    sums = m.dense().sum(-1, dtype=float)
    assert np.abs(m.scaled.dense()).max() > 3 * size**2
    np.testing.assert_allclose(sums, 1, atol=4e-6)


@pytest.mark.parametrize("warm", [False, True])
def test_rows_under_a_steep_bias_sum_to_one(warm):
    q, k, _ = random_qkv(heads=1, kv_heads=1, d_k=64, queries=64, keys=4096)
    bias = biases.from_function(
        lambda head, query, key: (5.0 * key).expand(torch.broadcast_shapes(query.shape, key.shape))
    )
    m = AttentionMatrix(q, k, bias=bias)
    if warm:
        m.summary()
    np.testing.assert_allclose(m.dense().sum(-1, dtype=float), 1, atol=4e-6)


def sweeps_of(monkeypatch):
    """What is swept from now on, as the heads of each sweep."""
    swept, original = [], lookup.Lookup.sweep
    monkeypatch.setattr(lookup.Lookup, "sweep", lambda self, *args: swept.append(args[0]) or original(self, *args))
    return swept


@pytest.mark.parametrize(("size", "count"), [(1, 1), (100, 0)])
def test_most_of_a_matrix_takes_one_sweep_where_tiles_can_use_it(size, count, monkeypatch):
    monkeypatch.setattr(lookup, "STRIP", 300 * 4)
    q, k, _ = random_qkv(heads=1, kv_heads=1, queries=300, keys=300)
    m, swept = AttentionMatrix(q * np.float32(size), k, mask=masks.causal()), sweeps_of(monkeypatch)
    dense = by_hand(q * np.float32(size), k, visible=np.tri(300, dtype=bool))
    np.testing.assert_allclose(m.dense(), dense.weights, rtol=1e-3, atol=1e-4)
    assert len(swept) == count
    assert "logsumexp of 300 of 300 rows kept" in repr(m)


def test_rows_that_a_sweep_could_not_give_are_not_swept_again(monkeypatch):
    q, k, _ = random_qkv(heads=1, kv_heads=1, queries=40, keys=40)
    q *= np.float32(100)
    m = AttentionMatrix(q, k)
    m.summary()
    swept = sweeps_of(monkeypatch)
    monkeypatch.setattr(lookup, "STRIP", 80)
    np.testing.assert_allclose(m.dense().sum(-1, dtype=float), 1, atol=2e-6)
    assert swept == []


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


@pytest.mark.parametrize("warm", [False, True])
def test_a_score_of_infinity_gives_the_same_before_and_after_a_summary(warm):
    q = np.float32([[np.inf], [1], [0]])
    k = np.float32([[1], [2]])
    m = AttentionMatrix(q, k, scale=1.0, nan="propagate")
    if warm:
        m.summary()
    assert m.logsumexp().tolist() == pytest.approx([np.inf, np.logaddexp(1, 2), np.log(2)])
    assert np.isnan(m[0]).all()
    assert m[1].sum() == pytest.approx(1)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("look", [lambda m: m.summary(), lambda m: m[0, 1], lambda m: m.diagonal()])
def test_inference_mode_may_begin_and_end_at_any_time(inside, look):
    q, _, v = (torch.from_numpy(array) for array in random_qkv(kv_heads=4))
    wanted = AttentionMatrix(q, q, mask=masks.causal()).dense()
    with torch.inference_mode(inside):
        m = AttentionMatrix(q.clone(), q.clone(), mask=masks.causal())
        look(m)
    with torch.inference_mode(not inside):
        look(m)
        m.summary(v)
    torch.testing.assert_close(m.dense(), wanted)
    m[[1, 2]].summary(v)
    m.blocks(4)


class Learnt(biases.Bias):
    """A bias of someone's own that is still being trained."""

    def __init__(self, heads):
        self.weight = torch.nn.Parameter(torch.ones(heads))

    def values(self, head, query, key):
        return self.weight[head] * (key - query)


def test_numbers_carry_no_gradient():
    q = torch.from_numpy(random_qkv()[0])
    m = AttentionMatrix(q, q, bias=Learnt(4))
    for array in (m[0, 1], m.scaled[0, 1], m.diagonal(), m.dense(), m.logsumexp(), m.blocks(2), m.summary().entropy):
        assert not array.requires_grad


def test_a_bad_bias_is_named_by_its_head_in_the_matrix(monkeypatch):
    values = np.zeros((4, 9, 9), np.float32)
    values[3, 7, 2] = np.nan
    q, k, _ = random_qkv()
    for kernel in ("strips", None):
        if kernel:
            monkeypatch.setenv("SOFTMAP_KERNEL", kernel)
        else:
            monkeypatch.delenv("SOFTMAP_KERNEL")
        for heads in (3, [2, 3], [0, 3]):
            m = AttentionMatrix(q, k, bias=biases.from_function(lambda *at: torch.from_numpy(values)[at]))
            with pytest.raises(NonFiniteError, match=r"bias\[3, 7, 2\]"):
                m[heads].summary()


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


# Some heads


def test_a_reason_stands_with_its_kernel_where_several_ran(monkeypatch):
    def sweep(problem, wanted):
        large = float(problem.q.max()) > 1e20
        found = strips.sweep(problem, wanted)
        return kernels.Swept(found, "strips", "large scores") if large else kernels.Swept(found, "fused", "")

    monkeypatch.setattr(kernels, "sweep", sweep)
    q, k, _ = random_qkv(kv_heads=4)
    q[1] *= np.float32(1e25)
    m = AttentionMatrix(q, k * np.float32(1e20))
    s = m[[0, 3]].summary()
    assert (s.kernel, s.why) == ("fused", "")
    s = m[[0, 1]].summary()
    assert (s.kernel, s.why) == ("strips", "large scores")
    s = m[[0, 2]].summary()
    assert (s.kernel, s.why) == ("fused", "")
    s = m[[1, 3]].summary()
    assert (s.kernel, s.why) == ("strips and fused", "strips: large scores")


@pytest.mark.parametrize(
    ("heads", "group", "runs"),
    [
        ([0, 1, 2], 3, [(0, 3)]),
        ([1, 2], 4, [(1, 3)]),
        ([1, 2, 3, 4, 5, 6], 2, [(1, 2), (2, 6), (6, 7)]),
        ([1, 2], 2, [(1, 2), (2, 3)]),
        ([5, 2, 3, 0, 0], 1, [(5, 6), (2, 4), (0, 1), (0, 1)]),
    ],
)
def test_neighbouring_heads_are_swept_together(heads, group, runs):
    assert [(run.start, run.stop) for run in lookup._runs(heads, group, [False] * len(heads))] == runs


def test_heads_of_huge_scores_are_swept_by_themselves():
    assert list(lookup._runs([0, 1, 2, 3], 2, [False, True, True, False])) == [
        range(1),
        range(1, 2),
        range(2, 3),
        range(3, 4),
    ]


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


# Not getrusage's highest, which in a new process is that of the one that started it.
STATUS = """
def status(name):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if name in line)
"""
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="the peak is Linux's")

SWEEP_AND_LOOK = """
import torch, softmap
torch.manual_seed(0)
q, k, v = torch.randn(3, 1, 30_000, 8)
m = softmap.AttentionMatrix(q, k, mask=softmap.masks.causal())
_ = m[0, 5, :10]
before = status("VmRSS")
m[0].diagonal(-1), m.summary(v), m.blocks((30_000, 100), rows=slice(1, None)), m[0, ::40, ::40], m.row(7)
print(status("VmHWM") - before)
"""


PAIRS = """
import torch, softmap
torch.manual_seed(0)
q = torch.randn(2, 20_000, 8)
m = softmap.AttentionMatrix(q, q, mask=softmap.masks.causal())
i = torch.arange(1000, 19_874)[:, None]
j = i - torch.arange(500)
m.summary(), m[0][i[:10], j[:10]]
before = status("VmRSS")
m[0][i, j]
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@needs_proc
def test_single_places_take_little_beside_the_result():
    ran = subprocess.run([sys.executable, "-c", STATUS + PAIRS], capture_output=True, text=True, check=True)
    result = 18_874 * 500 * 4 / 2**20  # MiB
    assert float(ran.stdout) < 8 * result


@pytest.mark.slow
@needs_proc
def test_no_path_holds_queries_x_keys():
    ran = subprocess.run([sys.executable, "-c", STATUS + SWEEP_AND_LOOK], capture_output=True, text=True, check=True)
    whole = 30_000 * 30_000 * 4 / 2**20  # MiB
    assert float(ran.stdout) < whole / 8
