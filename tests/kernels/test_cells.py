"""Cells of any part of a matrix whose rows' logsumexp is known, by every kernel, against the reference's weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import DTYPES, NARROW, Tolerance, problems
from test_contract import CAREFULLY, KERNELS, Kernel, normal
from test_fused import compiled, python, random

from softmap import biases, kernels, masks
from softmap.kernels import fused, reference
from softmap.kernels.contract import Cell, Cells, Known, Problem, Wanted
from softmap.kernels.part import of_heads, of_rectangle

every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=[kernel.name for kernel in KERNELS])
SIZES = st.sampled_from([1, 2, 3, 4, 8, 16, 17, 32, 64, 65, 128, 300])


def known_of(logsumexp: torch.Tensor) -> Known:
    """In two parts, as float64 holds it best."""
    logsumexp = logsumexp.double()
    high = logsumexp.float().double()
    return Known(high, torch.where(logsumexp == -torch.inf, 0.0, logsumexp - high))


def cells_by(kernel: Kernel, problem: Problem, cell: Cell, known: Known) -> Cells:
    return kernels.cells(problem, cell, known, kernel.name)


def weights_of(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    scaled = reference.step_2(problem)
    logsumexp = reference.sweep(problem, Wanted()).logsumexp[:, :, None]
    return scaled, (scaled - logsumexp.masked_fill(logsumexp == -torch.inf, 0)).exp()


def pooled(weights: torch.Tensor, cell: Cell) -> Cells:
    """The cells of dense weights, one by one."""
    rows = [part.split(cell.keys, -1) for part in weights.split(cell.rows, 1)]
    return Cells(
        torch.stack([torch.stack([part.sum((1, 2)) for part in parts], -1) for parts in rows], 1),
        torch.stack([torch.stack([part.amax((1, 2)) for part in parts], -1) for parts in rows], 1),
    )


def span_of(draw: st.DrawFn, size: int) -> range:
    """A side of a rectangle, often from edge to edge."""
    first, last = sorted(draw(st.tuples(*2 * [st.integers(0, size) | st.sampled_from([0, size])])))
    return range(first, last) if first < last else range(min(first, size - 1), min(first, size - 1) + 1)


@st.composite
def rectangles(draw, dtypes):
    problem, _ = draw(problems(dtypes))
    heads, queries, keys = problem.shape
    head = draw(st.integers(0, heads - 1))
    return problem, head, span_of(draw, queries), span_of(draw, keys), Cell(draw(SIZES), draw(SIZES))


@every_kernel
def test_cells_of_any_rectangle_are_those_of_the_whole_weights(kernel):
    @settings(max_examples=60, deadline=None, suppress_health_check=CAREFULLY)
    @given(rectangles(DTYPES if kernel.name == "strips" else NARROW))
    def check(case):
        problem, head, rows, keys, cell = case
        if kernel.refusal(problem, Wanted()) is not None:
            return
        scaled, weights = weights_of(problem)
        one = of_heads(problem, range(head, head + 1))
        known = known_of(kernel.sweep(one, Wanted()).logsumexp[:, rows.start : rows.stop])
        got = cells_by(kernel, of_rectangle(one, rows, keys), cell, known)
        own = weights[head : head + 1, rows.start : rows.stop, keys.start : keys.stop]
        allowed = Tolerance.of(problem, scaled)
        for have, want in zip(got, pooled(own, cell), strict=True):
            assert have.dtype == problem.dtype
            assert have.shape == want.shape
            error = (have.double() - want).abs()
            assert bool((error <= allowed.relative * want + allowed.tiny * len(rows)).all()), float(error.max())

    check()


def test_the_reference_pools_its_own_weights():
    problem = Problem(normal(2, 20, 4), normal(1, 30, 4, seed=1), masks.causal(10), 0.5, sinks=torch.tensor([0.5, 1]))
    _, weights = weights_of(problem)
    part = of_rectangle(problem, range(3, 17), range(5, 21))
    logsumexp = reference.sweep(problem, Wanted()).logsumexp[:, 3:17]
    got = kernels.cells(part, Cell(4, 5), known_of(logsumexp), "reference")
    for have, want in zip(got, pooled(weights[:, 3:17, 5:21], Cell(4, 5)), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-12, atol=0)


@every_kernel
@pytest.mark.parametrize("size", [10.0, 300.0, 3000.0])
def test_maxima_stay_at_most_1_however_large_the_scores(kernel, size):
    problem = Problem(normal(1, 200, 16) * size, normal(1, 200, 16, seed=1), masks.causal(), 1.0)
    known = known_of(kernel.sweep(problem, Wanted()).logsumexp)
    assert float(known.high.max()) > 30
    got = cells_by(kernel, problem, Cell(16, 16), known)
    assert float(got.max.max()) <= 1 + 1e-5
    torch.testing.assert_close(got.sum.sum(), torch.tensor(200.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kernel", KERNELS[1:], ids=[kernel.name for kernel in KERNELS[1:]])
def test_keys_that_no_query_sees_cost_a_compiled_kernel_no_booleans(kernel):
    def never(query, key):
        raise AssertionError("asked")

    asked = masks.from_function(never)
    seen = torch.arange(300) % 7 != 3
    mask = masks.causal() & masks.padding(seen)
    problem = Problem(normal(1, 300, 8), normal(1, 300, 8, seed=1), mask, 1.0)
    _, weights = weights_of(problem)
    assert torch.equal(problem.seen, seen)
    object.__setattr__(problem, "mask", asked)
    known = known_of(kernel.sweep(problem, Wanted()).logsumexp)
    got = cells_by(kernel, problem, Cell(32, 8), known)
    for have, want in zip(got, pooled(weights, Cell(32, 8)), strict=True):
        torch.testing.assert_close(have.double(), want, rtol=2e-5, atol=1e-30)


@pytest.mark.parametrize(
    ("mask", "seen"),
    [
        (masks.causal(), None),
        (masks.padding([True, True, False]), None),
        (masks.padding([True, False, True]), [True, False, True]),
        (masks.causal() & masks.padding([True, False, True]), [True, False, True]),
        (masks.padding([True, False, True]) & masks.padding([True, True, False]), [True, False, False]),
        (masks.causal() | masks.padding([True, False, True]), None),
        (masks.padding([True, False, True]) & masks.from_function(lambda query, key: query != key), None),
    ],
)
def test_what_any_query_sees_is_said_where_the_rest_of_the_mask_is_spans(mask, seen):
    found = Problem(normal(1, 3, 2), normal(1, 3, 2), mask, 1.0).seen
    assert (None if found is None else found.tolist()) == (None if mask.spans(3, 3).exact else seen)


def test_a_part_has_the_mask_bias_and_bounds_of_the_whole():
    values = torch.randn(4, 12, 10)
    seen = torch.arange(10) != 4
    problem = Problem(
        normal(4, 12, 3), normal(2, 10, 3), masks.causal(2) & masks.padding(seen), 1.0, bias=biases.dense(values)
    )
    one = of_heads(problem, range(3, 4))
    part = of_rectangle(of_rectangle(one, range(2, 12), range(1, 9)), range(3, 7), range(2, 6))
    rows, keys = slice(5, 9), slice(3, 7)
    torch.testing.assert_close(reference.step_2(part), reference.step_2(problem)[3:, rows, keys])
    assert torch.equal(part.bias.strip(range(1), range(4), range(4))[0], values[3, rows, keys])
    assert (part.largest_q, part.largest_k) == (one.largest_q, one.largest_k)
    assert (part.mask.offset, repr(part.mask)) == (4, f"part(part({problem.mask!r}))")
    inside = of_rectangle(problem, range(6, 12), range(5, 8))
    assert inside.spans.exact, "no hidden key lies within"
    assert inside.seen is None


@compiled
def test_a_bias_of_the_lowest_number_hides_keys_of_a_part():
    lowest = torch.finfo(torch.float32).min
    bias = biases.from_function(lambda head, query, key: torch.where(key < 64, lowest, 0.0))
    problem = Problem(normal(1, 100, 8), normal(1, 100, 8, seed=1), masks.full(), 1.0, bias=bias)
    known = known_of(fused.sweep(problem, Wanted(), fused.available()[0]).logsumexp)
    part = of_rectangle(problem, range(100), range(50))
    got = fused.cells(part, Cell(8, 8), known, fused.available()[0])
    assert float(got.max.max()) == 0


def test_a_kernel_that_is_forced_makes_the_cells_or_is_refused(monkeypatch):
    problem = Problem(normal(1, 9, 4).double(), normal(1, 9, 4).double(), masks.full(), 1.0)
    for name in ("strips", "reference"):
        monkeypatch.setenv(kernels.VARIABLE, name)
        assert kernels.cells_kernel(problem) == name
    monkeypatch.delenv(kernels.VARIABLE)
    assert kernels.cells_kernel(problem) == "strips"
    if fused.available():
        monkeypatch.setenv(kernels.VARIABLE, "fused")
        with pytest.raises(kernels.ParameterError, match="float64 inputs"):
            kernels.cells_kernel(problem)


@compiled
def test_the_number_of_threads_changes_no_bit_of_cells(threads):
    problem, fastest = random(700), fused.available()[0]
    known = known_of(fused.sweep(problem, Wanted(), fastest).logsumexp)
    threads(1)
    alone = fused.cells(problem, Cell(8, 8), known, fastest)
    for count in (2, 5):
        threads(count)
        assert all(map(torch.equal, fused.cells(problem, Cell(8, 8), known, fastest), alone))


@compiled
@pytest.mark.timed
def test_other_threads_run_while_cells_are_made_and_an_interrupt_stops_them():
    script = """
        import os, signal, threading, time, torch
        from softmap.kernels.contract import Cell, Known
        torch.set_num_threads(1)
        problem, turns, sent = random(8192, heads=8, d=64, mask=masks.full()), [], []
        known = Known(*torch.zeros(2, 8, 8192, dtype=torch.float64))
        def others():
            for _ in range(50):
                time.sleep(0.001)
                turns.append(time.perf_counter())
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        other = threading.Thread(target=others)
        other.start()
        try:
            for _ in range(20):
                fused.cells(problem, Cell(16, 16), known, fused.available()[0])
        except KeyboardInterrupt:
            print(len(turns), time.perf_counter() - sent[0])
        other.join()
    """
    turns, late = python(script).split()
    assert int(turns) == 50
    assert float(late) < 1  # a machine with other work included
