"""What the strips alone must do: long rows, NaN let through, scores beyond float32."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from problems import assert_agree, tensors

from softmap import biases, masks
from softmap.errors import NonFiniteError
from softmap.kernels import reference, strips, tile
from softmap.kernels.contract import Grid, Problem, Wanted


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def everything(v: torch.Tensor | None, queries: int, keys: int) -> Wanted:
    return Wanted(v, 8, True, True, True, Grid((0, queries // 2, queries), (0, keys // 3, keys)))


@pytest.mark.parametrize(
    "mask",
    [
        masks.full(),
        masks.causal(),
        masks.sliding_window(20),
        masks.sliding_window(9, None),
        masks.padding(torch.arange(150) % 7 > 0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("heads", [(1, 1), (6, 2)])
@pytest.mark.parametrize("budget", [pytest.param(1, marks=pytest.mark.slow), 1000, 40_000, 70_000])
def test_the_height_of_strips_does_not_matter(monkeypatch, mask, heads, budget):
    problem = Problem(normal(heads[0], 150, 8), normal(heads[1], 150, 8, seed=1), mask, 0.35, sinks=normal(heads[0]))
    wanted = everything(normal(heads[1], 150, 4, seed=2), 150, 150)
    monkeypatch.setattr(strips, "_BUDGET", budget)
    assert_agree(strips.sweep(problem, wanted), problem, wanted)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["q", "k", "v", "bias", "sinks"])
@pytest.mark.parametrize("mask", [masks.full(), masks.causal(), masks.sliding_window(3)], ids=repr)
@pytest.mark.parametrize("budget", [1, 1 << 22])
def test_what_is_no_number_goes_through_as_in_the_reference(monkeypatch, wrong, where, mask, budget):
    monkeypatch.setattr(strips, "_BUDGET", budget)
    given = {"q": normal(2, 24, 6), "k": normal(1, 24, 6, seed=1), "v": normal(1, 24, 5, seed=2)}
    given |= {"bias": torch.zeros(2, 24, 24), "sinks": torch.zeros(2)}
    given[where][{"bias": (1, 9, 5), "sinks": (1,)}.get(where, (0, 9, 1))] = wrong
    sinks = given["sinks"] if where == "sinks" else None
    problem = Problem(given["q"], given["k"], mask, 0.4, sinks=sinks, bias=biases.dense(given["bias"]), nan=True)
    wanted = everything(given["v"], 24, 24)
    got, want = strips.sweep(problem, wanted), reference.sweep(problem, wanted)
    for one, other in zip(tensors(got), tensors(want), strict=True):
        torch.testing.assert_close(one.to(other.dtype), other, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_nan_goes_through_as_in_numpy():
    q, k, v = (normal(1, 5, 3, seed=seed) for seed in range(3))
    k[0, 2, 0] = torch.nan
    problem = Problem(q, k, masks.full(), 1.0, nan=True)
    found = strips.sweep(problem, Wanted(v, received=True))
    scaled = q[0].numpy() @ k[0].numpy().T
    weights = np.exp(scaled - scaled.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    np.testing.assert_allclose(found.output[0].numpy(), weights @ v[0].numpy())
    np.testing.assert_allclose(found.received[0].numpy(), weights.sum(0))


@pytest.mark.parametrize("softcap", [None, 50.0])
def test_scores_beyond_float32_are_exact(softcap):
    q, k = normal(2, 40, 8) * 1e25, normal(1, 40, 8, seed=1) * 1e20
    problem = Problem(q, k, masks.causal(), 1e-44, softcap=softcap)
    assert tile.may_overflow(problem)
    wanted = everything(normal(1, 40, 3), 40, 40)
    assert_agree(strips.sweep(problem, wanted), problem, wanted)


def test_scores_beyond_float64_are_refused():
    q = torch.full((1, 4, 8), 1e200, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match=r"q and k: expected scores within torch\.float64.*1e\+200"):
        strips.sweep(Problem(q, q, masks.full(), 1.0), Wanted())
    strips.sweep(Problem(q, q, masks.full(), 1.0, nan=True), Wanted())


def test_scores_of_common_size_need_no_float64():
    problem = Problem(normal(1, 4, 8) * 1e4, normal(1, 4, 8) * 1e4, masks.full(), 1e-7)
    assert not tile.may_overflow(problem)
    assert tile.widened(problem).q.data_ptr() == problem.q.data_ptr()
    half = replace(problem, q=problem.q.half(), k=problem.k.half())
    assert tile.widened(half).q.dtype == torch.float32
    assert tile.widened(replace(problem, scale=1.0)).q.dtype == torch.float64  # 1e8 rounds by 10 in float32


def test_many_strips_add_up_without_drift():
    tokens = 3000
    q, k = normal(1, tokens, 4), normal(1, tokens, 4, seed=1)
    problem = Problem(q, k, masks.full(), 0.5)
    received = strips.sweep(problem, Wanted(received=True)).received
    want = reference.sweep(problem, Wanted(received=True)).received
    torch.testing.assert_close(received.double(), want, rtol=1e-6, atol=0)


def test_the_reference_names_what_every_kernel_gives():
    problem = Problem(normal(1, 6, 4), normal(1, 6, 4), masks.full(), 0.5)
    found = strips.sweep(problem, everything(normal(1, 6, 4), 6, 6))
    assert all(getattr(found, field.name) is not None for field in fields(found))


def test_ties_of_different_keys_go_to_the_lower_one():
    q, k = (torch.randint(-2, 3, (2, 200, 8), generator=torch.Generator().manual_seed(seed)).float() for seed in (1, 2))
    order = (q @ k.mT).argsort(dim=-1, descending=True, stable=True)  # whole numbers: exact in any order of adding
    for top in (1, 5, 64):
        found = strips.sweep(Problem(q, k, masks.full(), 0.5), Wanted(top=top)).top
        assert torch.equal(found.keys, order[:, :, :top])


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("mask", [masks.sliding_window(20), masks.padding(torch.arange(150) % 7 > 0)], ids=repr)
def test_an_accelerator_gives_the_same(mask):
    device = torch.accelerator.current_accelerator()
    problem = Problem(normal(4, 150, 8), normal(2, 150, 8), mask, 0.35, 5.0, normal(4), biases.alibi(torch.rand(4)))
    there = replace(problem, q=problem.q.to(device), k=problem.k.to(device), sinks=problem.sinks.to(device))
    wanted = everything(normal(2, 150, 4), 150, 150)
    found = strips.sweep(there, replace(wanted, v=wanted.v.to(device)))
    for one, other in zip(tensors(found), tensors(strips.sweep(problem, wanted)), strict=True):
        assert one.device.type == device.type
        torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-5)
