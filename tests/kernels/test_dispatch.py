"""Which kernel runs, what its record says, and what SOFTMAP_KERNEL forces."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from softmap import kernels, masks
from softmap.errors import ParameterError
from softmap.kernels import fused
from softmap.kernels.contract import Cell, Grid, Problem, Wanted


@pytest.fixture(autouse=True)
def _no_kernel_is_forced(monkeypatch):
    monkeypatch.delenv(kernels.VARIABLE, raising=False)


@pytest.fixture
def asked(monkeypatch):
    """The instruction sets that the compiled kernel was asked to sweep with."""
    if not fused.available():
        pytest.skip("the compiled kernel is not built")
    names, sweep = [], fused.sweep

    def noted(problem, wanted, instructions):
        names.append(instructions)
        return sweep(problem, wanted, instructions)

    monkeypatch.setattr(fused, "sweep", noted)
    return names


@pytest.fixture
def modules(monkeypatch):
    """The modules that are found: all that are built, but for those that a test takes away."""
    missing, module = set(), fused._module
    monkeypatch.setattr(fused, "_module", lambda name: None if name in missing else module(name))
    fused.available.cache_clear()
    yield missing
    fused.available.cache_clear()


@pytest.fixture
def uncompiled(modules):
    """As on a machine where no module was built."""
    modules.update(kernels.INSTRUCTIONS)


NOT_BUILT = "the compiled kernel is not built (install softmap where a C++ compiler is)"


def problem(dtype: torch.dtype = torch.float32, size: float = 1.0) -> Problem:
    q = torch.full((1, 4, 2), size, dtype=dtype)
    return Problem(q, q, masks.causal(), 1.0)


def test_the_fastest_kernel_runs(asked):
    statistics, kernel, why = kernels.sweep(problem(), Wanted(received=True))
    best = fused.available()[0]
    assert (kernel, why, asked) == (f"fused ({best})", "", [best])
    assert float(statistics.received.sum()) == pytest.approx(4)


def test_what_it_refuses_runs_on_strips_and_the_record_says_why(asked):
    assert kernels.sweep(problem(torch.float64), Wanted())[1:] == ("strips", "float64 inputs")
    assert not asked


def test_scores_that_may_overflow_run_on_strips(asked):
    assert kernels.sweep(problem(size=1e30), Wanted())[1:] == ("strips", "scores that may overflow float32")
    assert not asked


@pytest.mark.usefixtures("uncompiled")
def test_without_the_compiled_kernel_the_record_says_so():
    assert kernels.sweep(problem(), Wanted())[1:] == ("strips", NOT_BUILT)


@pytest.mark.parametrize("name", ["reference", "strips"])
def test_a_forced_kernel_runs_and_the_record_says_so(monkeypatch, name):
    monkeypatch.setenv(kernels.VARIABLE, name)
    assert kernels.sweep(problem(), Wanted())[1:] == (name, f"SOFTMAP_KERNEL={name}")


def test_a_forced_instruction_set_runs(monkeypatch, asked):
    usable = fused.available()
    for name, instructions in {"fused": usable[0], **{f"fused-{each}": each for each in usable}}.items():
        monkeypatch.setenv(kernels.VARIABLE, name)
        assert kernels.sweep(problem(), Wanted())[1:] == (f"fused ({instructions})", f"SOFTMAP_KERNEL={name}")
    assert asked == [usable[0], *usable]


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("fused", problem(torch.float64), "fused: float64 inputs"),
        ("fused-baseline", problem(size=1e30), "fused-baseline: scores that may overflow float32"),
        ("fused-avx512", problem(), "fused-avx512: this build or this processor has baseline only"),
        ("reference", Problem(torch.zeros(1, 1, 1).expand(1, 99_999, 1), torch.zeros(1, 99_999, 1), masks.full(), 1.0),
         "reference: it holds the whole matrix, which would be more than 1 GiB"),
    ],
)  # fmt: skip
def test_a_forced_kernel_that_cannot_serve_is_refused(monkeypatch, modules, asked, name, given, why):
    modules.update(("avx512", "avx2"))  # as on a processor without them
    fused.available.cache_clear()
    monkeypatch.setenv(kernels.VARIABLE, name)
    with pytest.raises(ParameterError) as caught:
        kernels.sweep(given, Wanted())
    assert (caught.value.subject, caught.value.got) == ("SOFTMAP_KERNEL", why)
    assert "Unset it" in caught.value.hint
    assert not asked


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", ["fused", "fused-avx2"])
def test_a_forced_kernel_that_is_not_built_is_refused(monkeypatch, name):
    monkeypatch.setenv(kernels.VARIABLE, name)
    with pytest.raises(ParameterError, match=rf"got {name}: the compiled kernel is not built .*\. Unset it"):
        kernels.sweep(problem(), Wanted())


@pytest.mark.parametrize("name", ["cuda", "Strips", "fused-", "fused-sse2", " strips"])
def test_an_unknown_name_is_refused_with_those_there_are(monkeypatch, name):
    monkeypatch.setenv(kernels.VARIABLE, name)
    with pytest.raises(
        ParameterError, match=r"expected one of fused, fused-avx512, fused-avx2.*strips, gpu, reference, got"
    ):
        kernels.sweep(problem(), Wanted())


def test_an_empty_variable_forces_nothing(monkeypatch, asked):
    monkeypatch.setenv(kernels.VARIABLE, "")
    assert kernels.sweep(problem(), Wanted()).kernel == f"fused ({fused.available()[0]})"
    assert len(asked) == 1


def test_no_gradient_is_kept():
    q = torch.ones(1, 4, 2, requires_grad=True)
    statistics = kernels.sweep(Problem(q, q, masks.causal(), 1.0), Wanted(q)).statistics
    assert not statistics.output.requires_grad


@pytest.mark.usefixtures("asked")
def test_the_report_names_every_kernel_and_what_is_missing(modules):
    modules.add("avx512")
    fused.available.cache_clear()
    usable = {each.name: each.usable for each in kernels.report()}
    assert list(usable) == ["fused-avx512", "fused-avx2", "fused-baseline", "strips", "gpu", "reference"]
    assert not usable["fused-avx512"]
    assert all(usable[name] for name in ("fused-baseline", "strips", "reference"))


@pytest.mark.usefixtures("uncompiled")
def test_the_report_says_why_nothing_is_compiled():
    assert kernels.report()[0] == ("fused-avx512", False, NOT_BUILT)


def test_magnitudes_that_are_known_are_not_looked_for():
    known = problem()
    assert known.with_largest(5.0, 7.0) is known
    assert (known.largest_q, known.largest_k) == (5.0, 7.0)


def test_part_goes_by_the_magnitudes_of_the_whole():
    whole = problem(size=3e3)  # so large that rows are looked at one by one
    part = replace(whole, q=whole.q * 0, k=whole.k * 0).as_part_of(whole)
    assert (part.largest_q, part.largest_k, part.size) == (whole.largest_q, whole.largest_k, whole.size)
    assert part.size > 0


def test_last_cells_hold_what_is_left():
    assert Cell(3, 4).grid(7, 9) == Grid((0, 3, 6, 7), (0, 4, 8, 9))
