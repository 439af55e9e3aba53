"""What is the GPU kernels' own: who may have them, that they repeat themselves, and that they compile.

They run on a CUDA GPU, or in Triton's interpreter on a CPU (`make test-triton`).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import GPU, assert_agree, moved, tensors
from test_contract import everything

import softmap
from softmap import biases, kernels, masks
from softmap.errors import ParameterError
from softmap.kernels import gpu, reference
from softmap.kernels.contract import Cell, Known, Problem, Wanted


@pytest.fixture(autouse=True)
def _somewhere_to_run(triton):
    """A GPU, or the interpreter."""
    if missing := gpu.missing():
        pytest.skip(f"needs a GPU or the interpreter: {missing}")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def problem(**options) -> Problem:
    given = {"q": random(2, 50, 8), "k": random(1, 50, 8, seed=1), "mask": masks.causal(), "scale": 0.35} | options
    return moved(Problem(**given), GPU)


def test_it_is_taken_where_it_is_asked_for_and_says_so(monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, "gpu")
    matrix = softmap.AttentionMatrix(random(2, 40, 8).to(GPU), random(2, 40, 8, seed=1).to(GPU))
    summary = matrix.summary(random(2, 40, 4, seed=2).to(GPU))
    assert (summary.kernel, summary.why) == ("gpu", "SOFTMAP_KERNEL=gpu")
    torch.testing.assert_close(summary.received.sum(-1).cpu(), torch.full((2,), 40.0))


def test_it_is_taken_in_no_other_way_and_the_record_says_so(monkeypatch):
    monkeypatch.setattr(kernels, "_fused_refusal", lambda *_: "as on a GPU")
    asked = "with SOFTMAP_KERNEL=gpu alone, until it was measured on a GPU"
    assert kernels.sweep(problem(), Wanted())[1:] == ("strips", f"as on a GPU; gpu: {asked}")
    assert kernels.sweep(problem(), Wanted(top=65)).why == "as on a GPU; gpu: top above 64"


@pytest.mark.parametrize(
    ("options", "wanted", "reason"),
    [
        ({"q": random(2, 50, 8).double(), "k": random(1, 50, 8).double()}, Wanted(), "float64 inputs"),
        ({"q": random(1, 5, 257), "k": random(1, 5, 257)}, Wanted(), "d_k above 256"),
        ({}, Wanted(v=random(1, 50, 300)), "d_v above 256"),
        ({}, Wanted(top=65), "top above 64"),
        ({"nan": True}, Wanted(), "NaN that is let through"),
        ({"q": random(2, 50, 8) * 1e30, "k": random(1, 50, 8) * 1e30}, Wanted(), "scores that may overflow float32"),
    ],
)
def test_what_it_can_not_serve_is_refused_with_the_reason(monkeypatch, options, wanted, reason):
    monkeypatch.setenv(kernels.VARIABLE, "gpu")
    with pytest.raises(ParameterError, match=f"got gpu: {reason}"):
        kernels.sweep(problem(**options), moved(wanted, GPU))


def test_what_triton_can_not_compile_is_refused_with_what_it_says(monkeypatch):
    from triton.runtime.errors import OutOfResources

    from softmap.kernels.gpu.plan import Plan

    def too_large(*_args, **_options):
        raise OutOfResources(200_000, 101_376, "shared memory")

    monkeypatch.setenv(kernels.VARIABLE, "gpu")
    monkeypatch.setattr(Plan, "rows", too_large)
    monkeypatch.setattr(Plan, "columns", too_large)
    matrix = softmap.AttentionMatrix(random(2, 40, 8).to(GPU), random(2, 40, 8, seed=1).to(GPU))
    with pytest.raises(ParameterError, match=r"got gpu: Triton: out of resource: shared memory, Required: 200000"):
        matrix.summary()
    monkeypatch.undo()
    monkeypatch.setattr(Plan, "columns", too_large)
    with pytest.raises(ParameterError, match="got gpu: Triton: out of resource"):
        kernels.cells(problem(), Cell(8, 8), Known(*torch.zeros(2, 2, 50, dtype=torch.float64)), "gpu")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Failed to find C compiler."), gpu.TritonRefusedError),
        (torch.OutOfMemoryError("full"), torch.OutOfMemoryError),
    ],
)
def test_only_what_triton_lacks_is_a_refusal(monkeypatch, error, said):
    from softmap.kernels.gpu.plan import Plan

    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(Plan, "rows", fail)
    with pytest.raises(said, match=str(error)):
        gpu.sweep(problem(), Wanted())


def test_the_top_reads_few_keys_of_a_row_again():
    from softmap.kernels.gpu.plan import Plan

    given = problem(q=random(1, 64, 8), k=random(1, 2000, 8, seed=1), mask=masks.full())
    plan = Plan(given, None)
    blocks = plan.blocks(8)
    plan.rows(next(iter(plan.strips())), plan.new(1, 64), plan.new(1, 64), None, None, None, blocks)
    parts = torch.stack([blocks >> part & 1 for part in range(4)]).sum((0, -1))  # of 32, in 8 blocks
    assert bool((parts >= 8).all())
    assert parts.float().mean() < 14


def test_sums_of_a_long_row_are_as_exact_as_those_of_a_short_one():
    given = problem(q=torch.zeros(1, 1, 8), k=random(1, 6000, 8), mask=masks.full(), scale=1.0)  # equal weights
    found = moved(gpu.sweep(given, Wanted(distance=True, entropy=True)), "cpu")
    exact = torch.tensor(6000.0, dtype=torch.float64).log()
    assert abs(found.logsumexp.item() - exact.item()) < 5e-7
    assert abs(found.entropy.item() - exact.item()) < 3e-6


def test_small_weights_in_float16_are_kept():
    k = torch.zeros(1, 40, 1)
    k[:, 0] = 25.0
    k[:, 1:] = 7.6
    v = torch.ones(1, 40, 1)
    v[:, 0] = 0
    given = problem(q=torch.ones(1, 1, 1).half(), k=k.half(), mask=masks.full(), scale=1.0)
    expected = reference.sweep(moved(given, "cpu"), Wanted(v.half())).output.item()
    assert gpu.sweep(given, moved(Wanted(v.half()), GPU)).output.item() == pytest.approx(expected, rel=1e-2)


def test_another_default_device_changes_nothing():
    given = problem()
    with torch.device("meta"):
        found = gpu.sweep(given, Wanted(received=True))
    torch.testing.assert_close(found.received.sum(-1).cpu(), torch.full((2,), 50.0))


@pytest.mark.skipif(GPU == "cpu", reason="needs a CUDA GPU: the interpreter runs programs in their order")
@pytest.mark.parametrize("options", [{}, {"bias": biases.alibi([0.5, 0.25])}], ids=["plain", "bias"])
def test_the_same_call_gives_the_same_bits(options):
    given = problem(q=random(2, 130, 8), k=random(1, 130, 8, seed=1), **options)
    wanted = moved(everything(given), GPU)
    for one, other in zip(*(tensors(gpu.sweep(given, wanted)) for _ in range(2)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "options", [{}, {"mask": masks.sliding_window(60, 20), "softcap": 5.0}], ids=["causal", "window"]
)
@pytest.mark.parametrize("processors", [1, 128])  # high tiles, and low ones
def test_the_tiles_of_a_gpu_give_the_same(monkeypatch, options, processors):
    from softmap.kernels.gpu import plan

    monkeypatch.setattr(plan, "interpreted", lambda: False)
    monkeypatch.setattr(plan, "PROCESSORS", processors)
    given = problem(q=random(1, 150, 8).half(), k=random(1, 150, 8, seed=1).half(), **options)
    wanted = everything(given)
    found = moved(gpu.sweep(given, moved(wanted, GPU)), "cpu")
    assert_agree(found, moved(given, "cpu"), wanted, in_dtype=True)


def test_strips_of_a_bias_are_put_together_again(monkeypatch):
    from softmap.kernels.gpu import plan

    monkeypatch.setattr(plan, "ADDED", 700)  # 13 rows at a time
    given = problem(bias=biases.alibi([0.5, 0.25]), sinks=torch.tensor([0.5, -1.0]))
    wanted = everything(given)
    assert_agree(moved(gpu.sweep(given, moved(wanted, GPU)), "cpu"), moved(given, "cpu"), wanted)


def test_bands_of_columns_are_added_up_some_at_a_time(monkeypatch):
    monkeypatch.setattr(gpu, "COLUMNS", 8 * 2 * 50 * 3)  # three rows of cells
    given = problem()
    wanted = everything(given)
    assert_agree(moved(gpu.sweep(given, moved(wanted, GPU)), "cpu"), moved(given, "cpu"), wanted)


@pytest.mark.parametrize("cell", [Cell(1, 1), Cell(16, 7), Cell(50, 50)])
def test_cells_of_rows_whose_logsumexp_is_known_are_the_reference_ones(cell):
    given = problem()
    known = reference.sweep(moved(given, "cpu"), Wanted()).logsumexp.double()
    parts = Known(known, torch.zeros_like(known))
    found, expected = gpu.cells(given, cell, parts), reference.cells(moved(given, "cpu"), cell, parts)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other.float(), rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(GPU == "cpu", reason="needs a CUDA GPU")
@pytest.mark.parametrize("forced", ["gpu", "strips"])
def test_a_matrix_on_the_gpu_is_that_on_the_cpu(monkeypatch, forced):
    monkeypatch.setenv(kernels.VARIABLE, forced)
    q, k, v = random(4, 3000, 64), random(2, 3000, 64, seed=1), random(2, 3000, 64, seed=2)
    here = softmap.AttentionMatrix(q.to("cuda"), k.to("cuda"))
    monkeypatch.delenv(kernels.VARIABLE)
    there = softmap.AttentionMatrix(q, k)
    for look in (
        lambda m: m[1, 2000:2010, 1500:1600],
        lambda m: m[1, [5, 2999]],
        lambda m: m.at([7, 2999], [3, 1234]),
        lambda m: m.diagonal(),
        lambda m: m.blocks(64, "max"),
    ):
        found = look(here)
        assert found.device.type == "cuda"
        np.testing.assert_allclose(found.cpu().numpy(), look(there).numpy(), rtol=1e-4, atol=1e-6)
    one, other = here.summary(v.to("cuda")), there.summary(v)
    torch.testing.assert_close(one.output.cpu(), other.output, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.received.cpu(), other.received, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(GPU == "cpu", reason="needs a CUDA GPU")
def test_a_recording_of_a_model_on_the_gpu_is_that_of_it_on_the_cpu(bundled):
    text = "I love learning, and learning loves me."
    there = softmap.record(text, model=bundled)
    here = softmap.record(text, device="cuda")
    for one, other in zip(here.layers, there.layers, strict=True):
        assert one.q.device.type == "cuda"
        torch.testing.assert_close(one.q.cpu(), other.q, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.matrix.dense().cpu(), other.matrix.dense(), rtol=1e-3, atol=1e-4)
