"""Tiles and pairs against the reference's whole matrix."""

from __future__ import annotations

import pytest
import torch

from softmap import biases, masks
from softmap.errors import NonFiniteError
from softmap.kernels import reference, tile
from softmap.kernels.contract import Problem
from softmap.kernels.part import PartBias


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def problem(dtype: torch.dtype = torch.float32) -> Problem:
    return Problem(
        q=normal(6, 20, 7).to(dtype),
        k=normal(2, 30, 7, seed=1).to(dtype),
        mask=masks.causal(10) & masks.padding(torch.arange(30) % 5 != 2),
        scale=0.4,
        softcap=3.0,
        bias=biases.alibi(torch.rand(6), 10),
    )


INDICES = [
    (range(20), range(30)),
    (range(3, 9), range(5, 6)),
    (range(19, 0, -4), range(0, 30, 7)),
    (torch.tensor([4, 4, -20 + 20]), torch.tensor([29, 0])),
    (range(0), range(4)),
]


@pytest.mark.parametrize(("rows", "keys"), INDICES)
@pytest.mark.parametrize("heads", [None, range(6), range(3, 6), range(1, 5), [5, 0, 0], [2], []], ids=str)
@pytest.mark.parametrize("spans", [True, False])
def test_a_tile_is_a_part_of_the_whole_matrix(rows, keys, heads, spans):
    given = problem()
    scores = tile.scores(given, rows, keys, heads)
    scaled = tile.scaled(given, scores, rows, keys, heads, given.mask.spans(20, 30) if spans else None)
    own, row, key = (
        torch.as_tensor(list(index)).long() for index in (range(6) if heads is None else heads, rows, keys)
    )
    whole = reference.step_2(given)[own][:, row][:, :, key]
    raw = (given.q.double() @ given.k.double().repeat_interleave(3, 0).mT)[own][:, row][:, :, key]
    torch.testing.assert_close(scores.double(), raw, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scaled.double(), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 10, 1 << 20])
def test_single_places_are_those_of_the_whole_matrix(monkeypatch, chunk):
    monkeypatch.setattr(tile, "_PAIRS", chunk)
    given = problem()
    places = torch.tensor([0, 5, 2, 3, 3]), torch.tensor([0, 19, 4, 4, 7]), torch.tensor([0, 29, 4, 3, 29])
    scaled = tile.scaled_at(given, tile.scores_at(given, *places), *places)
    torch.testing.assert_close(scaled.double(), reference.step_2(given)[places], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    given = problem(dtype)
    scores = tile.scores(given, range(20), range(30))
    single = tile.scores_at(given, torch.full((20,), 4), torch.arange(20), torch.arange(20))
    assert scores.dtype == single.dtype == torch.float32
    exact = given.q.double() @ given.k.double().repeat_interleave(3, 0).mT
    torch.testing.assert_close(scores.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(single, scores[4].diagonal(), rtol=1e-5, atol=1e-5)


def test_a_bias_that_is_no_number_is_named_by_its_place_in_the_matrix():
    values = torch.zeros(2, 9, 9)
    values[1, 7, 3] = torch.nan
    given = Problem(normal(2, 9, 4), normal(2, 9, 4), masks.causal(), 1.0, bias=biases.dense(values))
    scores = tile.scores(given, range(5, 9), range(2, 9), [1])
    with pytest.raises(NonFiniteError, match=r"bias: expected finite.*got nan at bias\[1, 7, 3\]"):
        tile.scaled(given, scores, range(5, 9), range(2, 9), [1])
    heads, rows, keys = torch.tensor([1, 1]), torch.tensor([8, 7]), torch.tensor([3, 3])
    with pytest.raises(NonFiniteError, match=r"bias\[1, 7, 3\]"):
        tile.scaled_at(given, tile.scores_at(given, heads, rows, keys), heads, rows, keys)


def test_the_scores_stay_as_they_are():
    given = problem()
    scores = tile.scores(given, range(20), range(30))
    before = scores.clone()
    tile.scaled(given, scores, range(20), range(30))
    assert torch.equal(scores, before)


def test_a_tile_of_a_long_matrix_is_small():
    q, k = torch.ones(2, 1, 4).expand(2, 1 << 40, 4), torch.ones(1, 1, 4).expand(1, 1 << 40, 4)  # views of 4 numbers
    given = Problem(q, k, masks.causal(), 1.0)
    rows, keys = range(1 << 39, (1 << 39) + 3), range((1 << 39) + 1, (1 << 39) + 3)
    scaled = tile.scaled(given, tile.scores(given, rows, keys), rows, keys)
    assert scaled[0].tolist() == [[-torch.inf, -torch.inf], [4, -torch.inf], [4, 4]]


def test_the_bias_of_some_heads_names_them_as_in_the_whole():
    values = torch.zeros(3, 9, 9)
    values[2, 7, 3] = torch.nan
    bias = PartBias(biases.dense(values), 1)
    given = Problem(normal(2, 9, 4), normal(2, 9, 4), masks.causal(), 1.0, bias=bias)
    with pytest.raises(NonFiniteError, match=r"bias\[2, 7, 3\]"):
        tile.scaled(given, tile.scores(given, range(9), range(9)), range(9), range(9))
    assert torch.equal(bias.strip(range(1), range(9), range(9))[0], values[1])
    assert PartBias(biases.alibi([0.5, 0.25], 3), 1).offset == 3
