"""The reference against torch's attention in float64 and against the formulas, written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from softmap import biases, masks
from softmap.kernels import reference
from softmap.kernels.contract import Grid, Problem, Wanted

V = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]]])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(logits: list[list[float]], **more) -> Problem:
    """A matrix of one head whose scores are just these."""
    q = torch.eye(len(logits))[None]
    return Problem(q, torch.tensor(logits).T[None].contiguous(), masks.full(), 1.0, **more)


@pytest.mark.parametrize("mask", [masks.full(), masks.causal(), masks.sliding_window(7, 3)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_output_is_what_torch_attention_gives_in_float64(mask, dtype):
    q, k, v = (normal(heads, 40, 16, seed=heads).to(dtype) for heads in (6, 2, 3))
    v = v[:2]
    found = reference.sweep(Problem(q, k, mask, 0.3), Wanted(v))
    want = torch.nn.functional.scaled_dot_product_attention(
        q.double()[None], k.double()[None], v.double()[None],
        attn_mask=mask.strip(range(40), range(40)), scale=0.3, enable_gqa=True,
    )  # fmt: skip
    torch.testing.assert_close(found.output, want[0], rtol=1e-12, atol=1e-13)


def test_a_bias_is_what_torch_attention_adds():
    q, k, v = (normal(2, 12, 4, seed=seed) for seed in range(3))
    added = normal(2, 12, 12, seed=3)
    found = reference.sweep(Problem(q, k, masks.full(), 0.5, bias=biases.dense(added)), Wanted(v))
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=0.5)
    torch.testing.assert_close(found.output, want, rtol=1e-12, atol=1e-13)


def test_every_statistic_of_a_small_matrix_follows_its_formula():
    logits = np.array([[0.0, math.log(2), math.log(5)], [math.log(3), 0.0, 0.0]])
    weights = np.array([[1 / 8, 2 / 8, 5 / 8], [3 / 5, 1 / 5, 1 / 5]])
    wanted = Wanted(V, 2, True, True, True, Grid((0, 1, 2), (0, 1, 3)))
    found = reference.sweep(by_hand(logits.tolist()), wanted)
    expected = {
        "logsumexp": np.log(np.exp(logits).sum(1)),
        "output": weights @ V[0].numpy(),
        "entropy": -(weights * np.log(weights)).sum(1),
        "received": weights.sum(0),
    }
    for name, want in expected.items():
        np.testing.assert_allclose(getattr(found, name)[0].numpy(), want, rtol=1e-6, err_msg=name)
    behind = np.array([[0, -1, -2], [1, 0, -1]])
    np.testing.assert_allclose(found.distance.signed[0].numpy(), (weights * behind).sum(1), rtol=1e-6)
    np.testing.assert_allclose(found.distance.absolute[0].numpy(), (weights * abs(behind)).sum(1), rtol=1e-6)
    np.testing.assert_allclose(found.top.weights[0].numpy(), [[5 / 8, 2 / 8], [3 / 5, 1 / 5]], rtol=1e-6)
    assert found.top.keys[0].tolist() == [[2, 1], [0, 1]]
    np.testing.assert_allclose(found.cells.sum[0].numpy(), [[1 / 8, 7 / 8], [3 / 5, 2 / 5]], rtol=1e-6)
    np.testing.assert_allclose(found.cells.max[0].numpy(), [[1 / 8, 5 / 8], [3 / 5, 1 / 5]], rtol=1e-6)


def test_distances_are_counted_from_the_offset():
    problem = Problem(torch.zeros(1, 2, 1), torch.zeros(1, 3, 1), masks.sliding_window(0, 0, offset=1), 1.0)
    assert reference.sweep(problem, Wanted(distance=True)).distance.signed.tolist() == [[0, 0]]
    wider = Problem(torch.zeros(1, 2, 1), torch.zeros(1, 3, 1), masks.sliding_window(1, 0, offset=1), 1.0)
    assert reference.sweep(wider, Wanted(distance=True)).distance.signed.tolist() == [[0.5, 0.5]]


def test_soft_cap_bounds_the_scaled_scores():
    found = reference.step_2(by_hand([[1000.0, -1000.0, 1.0]], softcap=2.0))
    torch.testing.assert_close(found[0, 0], torch.tensor([2, -2, 2 * math.tanh(0.5)], dtype=torch.float64))


def test_a_sink_takes_its_share_and_has_no_column():
    problem = by_hand([[0.0, 0.0]], sinks=torch.tensor([math.log(2)]))
    found = reference.sweep(problem, Wanted(entropy=True, received=True))
    torch.testing.assert_close(found.received, torch.full((1, 2), 0.25, dtype=torch.float64))
    assert float(found.logsumexp) == pytest.approx(math.log(4))
    assert float(found.entropy) == pytest.approx(2 * 0.25 * math.log(4))


def test_the_order_of_top_is_that_of_the_scaled_scores_where_weights_are_equal():
    keys = reference.sweep(by_hand([[-2000.0, 0.0, -1999.0]]), Wanted(top=3)).top.keys
    assert keys[0, 0].tolist() == [1, 2, 0]


def test_a_row_that_sees_nothing_is_empty():
    problem = Problem(normal(1, 2, 3), normal(1, 3, 3), masks.dense(torch.tensor([[False] * 3, [True] * 3])), 1.0)
    found = reference.sweep(problem, Wanted(V.double(), 4, True, True, True))
    assert float(found.logsumexp[0, 0]) == -math.inf
    assert found.output[0, 0].tolist() == [0, 0]
    assert float(found.entropy[0, 0]) == float(found.distance.signed[0, 0]) == 0
    assert found.top.keys.tolist()[0][0] == [-1] * 4
    assert float(found.received.sum()) == pytest.approx(1)


def test_a_matrix_that_would_take_more_than_a_gibibyte_is_refused():
    long = torch.zeros(1, 1, 1).expand(1, 20_000, 1)
    assert "1 GiB" in (reference.refusal(Problem(long, long, masks.full(), 1.0), Wanted()) or "")
    assert reference.refusal(by_hand([[0.0]]), Wanted()) is None
