"""Every kernel against the reference, and against what must hold of any attention matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from problems import DTYPES, GPU, NARROW, SMALL, Tolerance, assert_agree, moved, problems, tensors

from softmap import biases, masks
from softmap.errors import NonFiniteError
from softmap.kernels import fused, gpu, reference, strips
from softmap.kernels.contract import Grid, Problem, Statistics, Wanted

EXAMPLES = 70  # of each property and kernel; the slow runs make DEEP
DEEP = 1500
INTERPRETED = 20  # times as long does an example take in Triton's interpreter
CAREFULLY = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@dataclass(frozen=True)
class Kernel:
    name: str

    def refusal(self, problem: Problem, wanted: Wanted) -> str | None:
        module = {"strips": strips, "gpu": gpu}.get(self.name, fused)
        return module.refusal(moved(problem, GPU), wanted) if module is gpu else module.refusal(problem, wanted)

    def sweep(self, problem: Problem, wanted: Wanted) -> Statistics:
        if self.name == "strips":
            return strips.sweep(problem, wanted)
        if self.name == "gpu":
            return moved(gpu.sweep(moved(problem, GPU), moved(wanted, GPU)), "cpu")
        return fused.sweep(problem, wanted, self.name.removeprefix("fused-"))

    def assert_agree(self, found: Statistics, problem: Problem, wanted: Wanted) -> None:
        assert_agree(found, problem, wanted, in_dtype=self.name == "gpu")

    def slack(self, problem: Problem) -> float:
        """By what share a weight may differ that is found in two ways: the GPU scores the best blocks twice."""
        return 1e-6 if self.name != "gpu" else 1e-6 + Tolerance.of(problem, reference.step_2(problem)).relative

    @property
    def interpreted(self) -> bool:
        return self.name == "gpu" and gpu.interpreted()

    def examples(self, count: int) -> int:
        return max(1, count // INTERPRETED) if self.interpreted else count

    def problems(self, dtypes=NARROW):
        if not self.interpreted:
            return problems(dtypes)
        return problems([dtype for dtype in dtypes if dtype != torch.bfloat16], **SMALL)


KERNELS = [Kernel("strips"), *(Kernel(f"fused-{each}") for each in fused.available())]
ON_GPU = [] if gpu.missing() else [pytest.param(Kernel("gpu"), marks=pytest.mark.gpu, id="gpu")]
every_kernel = pytest.mark.parametrize("kernel", [*(pytest.param(each, id=each.name) for each in KERNELS), *ON_GPU])


def everything(problem: Problem, top: int = 8, d_v: int = 5) -> Wanted:
    """All statistics, with cells that do not divide the matrix."""
    _, queries, keys = problem.shape
    v = torch.randn(problem.k.shape[0], keys, d_v, generator=torch.Generator().manual_seed(9)).to(problem.q.dtype)
    edges = [(0, size) if size < 3 else (0, size // 3, size) for size in (queries, keys)]
    return Wanted(v, top, entropy=True, distance=True, received=True, cells=Grid(*edges))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(kernel: Kernel, problem: Problem, wanted: Wanted) -> Statistics:
    """What the kernel gives; another example where it cannot serve."""
    assume(kernel.refusal(problem, wanted) is None)
    return kernel.sweep(problem, wanted)


def check_any(kernel: Kernel, examples: int) -> None:
    @settings(max_examples=kernel.examples(examples), deadline=None, suppress_health_check=CAREFULLY)
    @given(kernel.problems(DTYPES if kernel.name == "strips" else NARROW))
    def check(problem_and_wanted):
        problem, wanted = problem_and_wanted
        kernel.assert_agree(run(kernel, problem, wanted), problem, wanted)

    check()


@every_kernel
def test_any_matrix_has_the_reference_statistics(kernel):
    check_any(kernel, EXAMPLES)


@pytest.mark.slow
@every_kernel
def test_many_more_matrices_have_the_reference_statistics(kernel):
    check_any(kernel, DEEP)


@every_kernel
def test_sums_hold_in_any_matrix(kernel):
    @settings(max_examples=kernel.examples(EXAMPLES // 2), deadline=None, suppress_health_check=CAREFULLY)
    @given(kernel.problems())
    def check(problem_and_wanted):
        check_sums(kernel, problem_and_wanted[0])

    check()


def check_sums(kernel: Kernel, problem: Problem) -> None:
    problem = replace(problem, sinks=None)
    statistics = run(kernel, problem, everything(problem))
    seeing = (statistics.logsumexp > -torch.inf).sum(1).double()
    received, cells = statistics.received.double(), statistics.cells
    torch.testing.assert_close(received.sum(1), seeing, rtol=1e-5, atol=0)
    torch.testing.assert_close(cells.sum.double().sum((1, 2)), seeing, rtol=1e-5, atol=0)
    edges = everything(problem).cells.key_edges
    by_key = torch.stack([received[:, a:b].sum(1) for a, b in pairwise(edges)], 1)
    torch.testing.assert_close(cells.sum.double().sum(1), by_key, rtol=1e-5, atol=1e-12)
    top = statistics.top.weights
    assert bool((top <= 1).all())
    assert bool((top >= 0).all())
    slack = kernel.slack(problem)
    assert bool((top.sum(-1) <= 1 + max(1e-5, slack)).all())
    torch.testing.assert_close(cells.max.amax((1, 2)), top[:, :, 0].amax(1), rtol=slack, atol=0)
    assert bool((statistics.entropy >= 0).all())
    assert bool((statistics.entropy <= torch.tensor(problem.shape[2]).log() + 1e-4).all())
    assert bool((statistics.distance.absolute * (1 + 1e-5) + 1e-4 >= statistics.distance.signed.abs()).all())


def equal_rows(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(1, n, 8), torch.full((1, n, 8), 0.5)


def rising(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each key beats all before it: logits 0 to 3,000."""
    return torch.ones(1, n, 1), torch.linspace(0, 3000, n)[None, :, None]


def falling(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    q, k = rising(n)
    return q, k.flip(1)


def one_dominant(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    k = torch.zeros(1, n, 4)
    k[:, n // 2] = 100
    return torch.ones(1, n, 4), k


def many_ties(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    q, k = normal(1, n, 16), normal(1, n, 16, seed=1)
    k[:, ::3] = k[:, :1].clone()
    return q, k


def rising_in_one_lane(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Only every 16th key grows: what goes wrong where lanes share a maximum."""
    k = torch.zeros(1, n, 1)
    k[:, ::16, 0] = torch.arange(len(range(0, n, 16))) * 4.0
    return torch.ones(1, n, 1), k


def zeros(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(1, n, 3), torch.zeros(1, n, 3)


def large(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return normal(1, n, 8) * 1e4, normal(1, n, 8, seed=1) * 1e-3


HARD = [equal_rows, rising, falling, one_dominant, many_ties, rising_in_one_lane, zeros, large]


@every_kernel
@pytest.mark.parametrize("make", HARD, ids=lambda make: make.__name__)
@pytest.mark.parametrize("tokens", [1, 5, 64, 257])
@pytest.mark.parametrize("mask", [masks.full(), masks.causal()], ids=repr)
def test_hard_inputs_have_the_reference_statistics(kernel, make, tokens, mask):
    q, k = make(tokens)
    problem = Problem(q, k, mask, scale=1.0)
    wanted = everything(problem)
    kernel.assert_agree(kernel.sweep(problem, wanted), problem, wanted)


@every_kernel
def test_the_largest_weights_fall_where_scores_are_neighbouring_floats(kernel):
    """An exponential that is exact to its last bit may still rise where its argument falls by one."""
    scores = torch.tensor(-0.2973341941833496).view(torch.int32) + torch.arange(60, dtype=torch.int32)
    k = torch.cat((torch.zeros(1), scores.view(torch.float32))).view(1, -1, 1)
    problem, wanted = Problem(torch.ones(1, 1, 1), k, masks.full(), 1.0), Wanted(top=61)
    kernel.assert_agree(kernel.sweep(problem, wanted), problem, wanted)


@every_kernel
@pytest.mark.parametrize("top", [1, 2, 8, 64])
@pytest.mark.parametrize("tokens", [16, 63, 200, 300])
@pytest.mark.parametrize("width", [1, 7, 64])
def test_ties_go_to_the_lower_key(kernel, top, tokens, width):
    """Keys of five kinds: the kinds' scores differ, and those of one kind are equal to the last bit."""
    kinds = normal(5, width, seed=1).round(decimals=1)
    q, k = normal(1, tokens, width), kinds[torch.randint(0, 5, (tokens,), generator=torch.Generator().manual_seed(2))]
    for mask in (masks.full(), masks.causal(), masks.padding(torch.arange(tokens) % 5 != 0)):
        problem = Problem(q, k[None], mask, scale=1.0)
        scores = (q.double() @ kinds.double().T)[:, :, (k[:, None] == kinds).all(-1).int().argmax(1)]  # by kind
        scores = scores.masked_fill(~mask.strip(range(tokens), range(tokens)), -torch.inf)
        order = scores.sort(dim=-1, descending=True, stable=True)
        keys = order.indices.masked_fill(order.values == -torch.inf, -1)[:, :, :top]
        got = kernel.sweep(problem, Wanted(top=top)).top.keys
        assert torch.equal(got[:, :, : keys.shape[2]], keys)
        assert bool((got[:, :, keys.shape[2] :] == -1).all())


@every_kernel
def test_keys_under_float32s_lowest_number_leave_the_others_all_there_is(kernel):
    bias = torch.zeros(1, 40, 90)
    bias[:, :, :70] = torch.finfo(torch.float32).min  # several blocks of keys before the first that counts
    assert_near_reference(
        kernel, Problem(normal(2, 40, 8), normal(1, 90, 8, seed=1), masks.full(), 0.4, bias=biases.dense(bias))
    )


@every_kernel
@pytest.mark.parametrize("cap", [1e3, 1e6])
def test_cap_far_above_the_scores_leaves_them(kernel, cap):
    problem = Problem(normal(1, 40, 8), normal(1, 40, 8, seed=1), masks.causal(), 0.4)
    capped = kernel.sweep(replace(problem, softcap=cap), Wanted()).logsumexp
    torch.testing.assert_close(capped, kernel.sweep(problem, Wanted()).logsumexp, rtol=0, atol=1e-5)


@every_kernel
@pytest.mark.parametrize("sink", [-3e38, 3e38])
def test_sink_at_float32s_end_takes_all_or_nothing(kernel, sink):
    sinks = torch.tensor([sink])
    assert_near_reference(kernel, Problem(normal(1, 30, 8), normal(1, 30, 8, seed=1), masks.causal(), 0.4, sinks=sinks))


def assert_near_reference(kernel: Kernel, problem: Problem) -> None:
    """What goes into the scores is so large that a tolerance in its share would allow anything."""
    found, expected = (tensors(each.sweep(problem, everything(problem))) for each in (kernel, reference))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-5)


@every_kernel
def test_equal_rows_list_their_first_keys(kernel):
    q, k = equal_rows(300)
    keys = kernel.sweep(Problem(q, k, masks.full(), 1.0), Wanted(top=64)).top.keys
    assert torch.equal(keys, torch.arange(64).expand(1, 300, 64))


@every_kernel
@pytest.mark.parametrize("sinks", [None, torch.tensor([0.5, -2.0])], ids=["without sinks", "with sinks"])
def test_rows_that_see_no_key_are_empty(kernel, sinks):
    hidden = torch.ones(40, 33, dtype=torch.bool)
    hidden[::3] = False
    problem = Problem(normal(2, 40, 6), normal(1, 33, 6), masks.dense(hidden), 0.4, sinks=sinks)
    found = kernel.sweep(problem, everything(problem))
    empty = -torch.inf if sinks is None else sinks[:, None].expand(2, 14)
    assert torch.equal(found.logsumexp[:, ::3], torch.as_tensor(empty).double().expand(2, 14))
    for of_rows in (found.output, found.entropy, *found.distance, found.top.weights):
        assert bool((of_rows[:, ::3] == 0).all())
    assert bool((found.top.keys[:, ::3] == -1).all())
    kernel.assert_agree(found, problem, everything(problem))


@every_kernel
def test_a_matrix_with_nothing_visible_is_empty(kernel):
    problem = Problem(normal(2, 20, 6), normal(2, 30, 6), ~masks.full(), 0.4)
    found = kernel.sweep(problem, everything(problem))
    assert bool((found.logsumexp == -torch.inf).all())
    assert all(float(total.abs().sum()) == 0 for total in (found.output, found.received, *found.cells))


@every_kernel
@pytest.mark.parametrize("keys", [1, 3, 40])
def test_fewer_keys_than_top_are_filled_up(kernel, keys):
    problem = Problem(normal(1, 20, 6), normal(1, keys, 6), masks.full(), 0.4)
    found = kernel.sweep(problem, Wanted(top=64)).top
    assert found.keys.shape == found.weights.shape == (1, 20, 64)
    assert bool((found.keys[:, :, keys:] == -1).all())
    assert bool((found.weights[:, :, keys:] == 0).all())
    assert torch.equal(found.keys[:, :, :keys].sort(-1).values, torch.arange(keys).expand(1, 20, keys))


@every_kernel
def test_one_query_at_the_end_of_a_cache_sees_what_its_offset_says(kernel):
    problem = Problem(normal(4, 1, 16), normal(2, 257, 16), masks.sliding_window(9, 0, offset=256), 0.25)
    found = kernel.sweep(problem, everything(problem))
    assert bool((found.received[:, :247] == 0).all())
    assert bool((found.received[:, 247:] > 0).all())
    kernel.assert_agree(found, problem, everything(problem))


@every_kernel
def test_a_very_negative_sink_has_no_effect(kernel):
    plain = Problem(normal(2, 30, 8), normal(2, 30, 8), masks.causal(), 0.3)
    sunk = replace(plain, sinks=torch.full((2,), -1e30))
    for one, other in zip(*(tensors(kernel.sweep(p, everything(p))) for p in (plain, sunk)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@every_kernel
def test_a_sink_above_all_scores_takes_the_weights(kernel):
    problem = Problem(normal(2, 30, 8), normal(2, 30, 8), masks.causal(), 0.3, sinks=torch.tensor([3000.0, 20.0]))
    found = kernel.sweep(problem, everything(problem))
    assert bool((found.logsumexp[0] == 3000).all())
    assert float(found.received[0].sum()) == 0
    kernel.assert_agree(found, problem, everything(problem))


@every_kernel
def test_only_what_is_wanted_is_given(kernel):
    problem = Problem(normal(2, 30, 8), normal(2, 30, 8), masks.causal(), 0.3)
    assert len(tensors(kernel.sweep(problem, Wanted()))) == 1


@every_kernel
def test_the_inputs_stay_as_they_are(kernel):
    problem = Problem(normal(2, 30, 8), normal(1, 30, 8), masks.causal(), 0.3, softcap=2.0, sinks=normal(2))
    wanted = everything(problem)
    before = [tensor.clone() for tensor in (problem.q, problem.k, problem.sinks, wanted.v)]
    kernel.sweep(problem, wanted)
    after = (problem.q, problem.k, problem.sinks, wanted.v)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@every_kernel
def test_strided_inputs_serve_as_well_as_packed_ones(kernel):
    q, k, v = normal(30, 4, 8).transpose(0, 1), normal(30, 2, 16).transpose(0, 1)[:, :, ::2], normal(2, 5, 30).mT
    problem, packed = (Problem(*pair, masks.causal(), 0.3) for pair in ((q, k), (q.contiguous(), k.contiguous())))
    one = kernel.sweep(problem, replace(everything(problem), v=v))
    other = kernel.sweep(packed, replace(everything(problem), v=v.contiguous()))
    for strided, plain in zip(tensors(one), tensors(other), strict=True):
        torch.testing.assert_close(strided, plain, rtol=1e-6, atol=1e-6)


@every_kernel
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_bias_that_is_no_number_is_refused_with_its_place(kernel, wrong):
    values = torch.zeros(2, 20, 30)
    values[1, 7, 9] = wrong
    problem = Problem(normal(2, 20, 6), normal(1, 30, 6), masks.full(), 0.4, bias=biases.dense(values))
    with pytest.raises(NonFiniteError, match=r"bias\[1, 7, 9\]"):
        kernel.sweep(problem, Wanted())


@every_kernel
def test_a_bias_where_no_query_looks_does_not_matter(kernel):
    values = torch.zeros(30, 30).masked_fill(torch.ones(30, 30).triu(1).bool(), torch.nan)
    plain = Problem(normal(2, 30, 6), normal(1, 30, 6), masks.causal(), 0.4)
    problem = replace(plain, bias=biases.dense(values))
    got, want = (kernel.sweep(each, Wanted(received=True)).received for each in (problem, plain))
    torch.testing.assert_close(got, want)
