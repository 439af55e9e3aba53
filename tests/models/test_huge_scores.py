"""A model whose scores are huge: its recording has weights that sum to 1, and names no head by weights that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import softmap
from softmap.measures import _Weights

if TYPE_CHECKING:
    from softmap.recorded import Recording


@pytest.fixture(params=[1e2, 1e5, 1e8])
def recording(request, make_decoder) -> Recording:
    model = make_decoder("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(request.param)
    ids = torch.randint(3, 60, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), softmap.recording(model) as recording:
        model(ids)
    return recording


def test_rows_sum_to_one_in_any_order_of_questions(recording):
    for layer in recording.layers:
        m = layer.matrix
        first = m.row(39)
        diagonal = m.diagonal(-1)
        dense = m.dense()
        sums = torch.as_tensor(dense).double().sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-4)
        np.testing.assert_allclose(first, dense[:, 39], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(diagonal, np.diagonal(dense, -1, 1, 2), rtol=1e-4, atol=1e-6)
        summary = layer.summary
        assert float(torch.as_tensor(summary.top.weights).max()) <= 1 + 1e-4
        np.testing.assert_allclose(summary.received, torch.as_tensor(dense).sum(1), rtol=2e-2, atol=2e-2)


def test_scores_of_heads_are_means_of_the_weights(recording):
    table = softmap.heads(recording)
    for layer in recording.layers:
        dense = torch.as_tensor(layer.matrix.dense()).numpy().astype(float)
        weights = _Weights(layer)
        query = np.arange(1, 40)
        found = weights.at(query, query - 1).numpy()
        np.testing.assert_allclose(found, np.diagonal(dense, -1, 1, 2), rtol=2e-2, atol=1e-3)
        assert found.max() <= 1 + 1e-2
        want = np.diagonal(dense, -1, 1, 2).mean(1)
        np.testing.assert_allclose(table["previous"][layer.number], want, rtol=2e-2, atol=1e-3)
