"""Inputs and options of any magnitude: the numbers are those of exact arithmetic, or they are refused; none is NaN."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from softmap import AttentionMatrix, biases, masks
from softmap.errors import SoftmapError
from softmap.kernels import fused, slices

KERNELS = ["", "strips", "reference", *(["fused"] if fused.available() else [])]
LARGEST = {torch.float16: 6e4, torch.bfloat16: 1e38, torch.float32: 1e38, torch.float64: 1e300}


@pytest.fixture(params=KERNELS)
def kernel(request, monkeypatch):
    """A kernel that is forced, or none."""
    monkeypatch.delenv("SOFTMAP_KERNEL", raising=False)
    if request.param:
        monkeypatch.setenv("SOFTMAP_KERNEL", request.param)
    return request.param


def exact_scaled(q, k, scale, softcap, bias):
    """Scaled scores in rational numbers, rounded once."""
    found = np.empty((len(q), q.shape[1], k.shape[1]))
    for h, i, j in np.ndindex(found.shape):
        pairs = zip(q[h, i].tolist(), k[h, j].tolist(), strict=True)
        score = sum(Fraction(a) * Fraction(b) for a, b in pairs) * Fraction(scale)
        found[h, i, j] = float(max(min(score, Fraction(10) ** 300), -(Fraction(10) ** 300)))
    found = found if softcap is None else softcap * np.tanh(found / softcap)
    return found if bias is None else found + bias


def expected(q, k, scale, softcap, sinks, bias):
    """Weights and logsumexp."""
    scaled = exact_scaled(q, k, scale, softcap, bias)
    sink = np.full(len(q), -np.inf) if sinks is None else sinks
    logits = np.concatenate([scaled, np.broadcast_to(sink[:, None, None], (*scaled.shape[:2], 1))], -1)
    peak = logits.max(-1, keepdims=True)
    total = np.exp(logits - peak).sum(-1, keepdims=True)
    return np.exp(logits - peak)[..., :-1] / total, (peak + np.log(total))[..., 0]


def assert_right(q, k, scale=1.0, softcap=None, sinks=None, bias=None, tolerance=1e-5):
    """Tiles, single places and statistics are those of exact arithmetic, in any order of questions."""
    given = {"scale": scale, "softcap": softcap, "sinks": sinks}
    given["bias"] = None if bias is None else biases.dense(bias)
    weights, logsumexp = expected(
        q.double(),
        k.double(),
        scale,
        softcap,
        *(None if x is None else np.asarray(x, dtype=float) for x in (sinks, bias)),
    )
    allowed = {"rtol": tolerance, "atol": tolerance}
    m = AttentionMatrix(q, k, **given)
    np.testing.assert_allclose(m.at([0, 1], [1, 0]).double(), weights[:, [0, 1], [1, 0]], **allowed)
    np.testing.assert_allclose(m.dense().double(), weights, **allowed)
    np.testing.assert_allclose(m.logsumexp().double(), logsumexp, rtol=1e-6, atol=1e-5)
    m = AttentionMatrix(q, k, **given)
    s = m.summary(top=1)
    np.testing.assert_allclose(s.received.double(), weights.sum(1), **allowed)
    np.testing.assert_allclose(s.top.weights[..., 0].double(), weights.max(-1), **allowed)
    np.testing.assert_allclose(s.logsumexp.double(), logsumexp, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(m.blocks((1, 3), rows=slice(1, 2)).double()[..., 0, 0], weights[:, 1].sum(-1), **allowed)


def drawn(dtype=torch.float32, q=1.0, k=1.0, seed=0):
    random = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(2, 3, 4, generator=random, dtype=torch.float64) for _ in range(2))
    return (one * q).to(dtype), (other * k).to(dtype)


# q and k small, and a scale that brings them back


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("size", "scale"), [(1e-20, 1e39), (1e-20, -1e40), (1e-30, 1e60), (1e-10, 1e20), (1e15, 1e-30)]
)
@pytest.mark.usefixtures("auto")
def test_a_scale_beyond_float32_gives_the_weights_of_the_scaled_scores(dtype, size, scale):
    assert_right(*drawn(dtype, size, size), scale)


@pytest.fixture(params=[k for k in KERNELS if k != "fused"])
def auto(request, monkeypatch):
    """Any kernel that serves everything."""
    monkeypatch.delenv("SOFTMAP_KERNEL", raising=False)
    if request.param:
        monkeypatch.setenv("SOFTMAP_KERNEL", request.param)


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("scale", [1e45, 1e-45, 1e-300])
def test_halves_take_any_scale_whose_scores_are_common(scale):
    q, k = drawn(torch.bfloat16, *([scale**-0.5] * 2 if scale > 1e-60 else [1e30, 1e30]))
    assert_right(q, k, scale)


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize(("q", "k", "scale"), [(1e-40, 1e38, 100.0), (1e-43, 1e30, 1e13), (1e-41, 1.0, 1e41)])
def test_subnormal_numbers_count_beside_large_ones(q, k, scale):
    assert_right(*drawn(torch.float32, q, k), scale)


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("softcap", [1e-30, 1e-3, 1e30])
@pytest.mark.parametrize("size", [1e-10, 1.0, 1e6])
def test_any_softcap_gives_what_it_caps(softcap, size):
    assert_right(*drawn(torch.float64, size), softcap=softcap)
    assert_right(*drawn(torch.float32, min(size, 10.0)), softcap=softcap)


@pytest.mark.usefixtures("auto")
@pytest.mark.parametrize("added", [1e-30, 1e4, 1e30, 1e37])
def test_any_sink_and_bias_give_the_row_they_dominate(added):
    q, k = drawn()
    sinks = torch.tensor([added, -added])
    assert_right(q, k, sinks=sinks)
    bias = torch.zeros(2, 3, 3)
    bias[0, 0], bias[1, 1, 2] = added, added
    assert_right(q, k, bias=bias)


@pytest.mark.usefixtures("auto")
def test_a_logsumexp_beyond_float32_is_given_in_float64():
    q, k = drawn(torch.float32, 1e25, 1e20)
    m = AttentionMatrix(q, k)
    _, logsumexp = expected(q.double(), k.double(), 0.5, None, None, None)
    for got in (m.logsumexp(), m.summary().logsumexp):
        assert got.dtype == torch.float64
        np.testing.assert_allclose(got, logsumexp, rtol=1e-9)
    assert AttentionMatrix(*drawn()).summary().logsumexp.dtype == torch.float32


@pytest.mark.parametrize("size", [1e200, 1e160])
@pytest.mark.usefixtures("kernel")
def test_scores_that_float64_does_not_hold_are_refused(size):
    q, k = drawn(torch.float64, size, size)
    for ask in (lambda m: m.dense(), lambda m: m.at(0, 0), lambda m: m.summary()):
        with pytest.raises(SoftmapError, match="float"):
            ask(AttentionMatrix(q, k))


def test_scores_that_overflow_by_the_scale_only_are_computed_in_float64():
    """q kᵀ fits float32, and what the scale makes of it does not."""
    q, k = drawn(torch.float32, 1e15, 1e15)
    assert_right(q, k, 1e12, tolerance=1e-5)
    problem = AttentionMatrix(q, k, scale=1e12)._lookup.problem
    assert problem.bound > 1e42
    assert fused.refusal(problem, _wanted()) is not None


def _wanted():
    from softmap.kernels.contract import Wanted

    return Wanted()


def random_case(seed):
    """A matrix of any magnitudes whose scaled scores are often, but not always, of common size."""
    random = np.random.default_rng(seed)
    dtype = list(LARGEST)[random.integers(4)]
    lowest = {torch.float16: -7, torch.float64: -307}.get(dtype, -44)
    highest = math.log10(LARGEST[dtype]) - 1
    sizes = 10.0 ** random.uniform(lowest, highest, 2)
    q, k = drawn(dtype, *sizes, seed=seed)
    product = float(q.double().abs().max()) * float(k.double().abs().max())
    scale = 10.0 ** random.uniform(-3, 2) / product if product else 1.0
    if not math.isfinite(scale) or scale == 0 or random.random() < 0.2:
        scale = 10.0 ** random.uniform(-300, 300)
    softcap = [None, None, 10.0 ** random.uniform(-29, 29)][random.integers(3)]
    sinks = [None, None, torch.randn(2) * 10.0 ** random.uniform(-40, 36)][random.integers(3)]
    bias = [None, None, torch.randn(2, 3, 3) * 10.0 ** random.uniform(-40, 36)][random.integers(3)]
    return q, k, scale, softcap, sinks, bias


def check_finite(seed):
    """All that comes is finite and within its bounds, whatever went in; else it was refused."""
    q, k, scale, softcap, sinks, bias = random_case(seed)
    try:
        options = {"scale": scale, "softcap": softcap, "sinks": sinks, "mask": masks.causal()}
        m = AttentionMatrix(q, k, bias=None if bias is None else biases.dense(bias), **options)
        s = m.summary(top=2, cells=1)
        found = [m.dense(), m.row(2), s.received, s.entropy, s.top.weights, s.cells.sum, s.logsumexp, m.logsumexp()]
    except SoftmapError:
        return
    for array in found:
        assert bool(torch.isfinite(array).all()), seed
    assert float(found[0].max()) <= 1 + 1e-4, seed
    assert float(found[0].double().sum(-1).max()) <= 1 + 1e-4, seed


@pytest.mark.usefixtures("auto")
def test_nothing_of_any_magnitude_turns_into_nan():
    for seed in range(60):
        check_finite(seed)


@pytest.mark.slow
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("first", range(1000, 3000, 500))
def test_thousands_of_magnitudes_turn_into_no_nan(first):
    for seed in range(first, first + 500):
        check_finite(seed)


# Products that are rounded once


@pytest.mark.parametrize("d", [1, 2, 3, 7, 16, 64, 100, 256])
@pytest.mark.parametrize("spread", [0, 12])
def test_a_sliced_product_is_the_exact_one_rounded_and_the_same_in_any_tile(d, spread):
    random = torch.Generator().manual_seed(d)
    q, k = (torch.randn(n, d, generator=random, dtype=torch.float64) * 1e9 for n in (3, 5))
    q = q * 10 ** (torch.rand(3, d, generator=random, dtype=torch.float64) * spread)
    whole = slices.product(q, k)
    for i, j in np.ndindex(3, 5):
        exact = sum(Fraction(a) * Fraction(b) for a, b in zip(q[i].tolist(), k[j].tolist(), strict=True))
        lost = d * float(q[i].abs().max() * k[j].abs().max()) * 2**-57
        assert abs(Fraction(float(whole[i, j])) - exact) <= abs(exact) * Fraction(2) ** -52 + Fraction(lost)
        assert torch.equal(slices.product(q[i : i + 1], k[j : j + 1])[0, 0], whole[i, j])
        assert torch.equal(slices.products(q[i : i + 1], k[j : j + 1])[0], whole[i, j])


def test_nan_and_infinity_go_through_a_sliced_product_as_through_a_plain_one():
    q, k = (
        torch.tensor([[torch.inf, 1.0], [1.0, torch.nan], [2.0, 3.0]]).double(),
        torch.tensor([[1.0, -1.0], [0.0, 4.0]]),
    )
    torch.testing.assert_close(slices.product(q, k.double()), q @ k.double().mT, equal_nan=True)
