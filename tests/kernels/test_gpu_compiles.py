"""Triton compiles every pass for the GPUs that it serves, with what their memory has; no GPU is needed for that."""

from __future__ import annotations

import pytest
import torch

from softmap import biases, masks
from softmap.kernels import gpu
from softmap.kernels.contract import Grid, Problem, Wanted

pytestmark = pytest.mark.skipif(gpu.interpreted() or torch.cuda.is_available(), reason="the kernels run here")
TOKENS = 256
EDGES = tuple(range(0, TOKENS + 1, 64))
SHARED = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}  # bytes that a program may have, by architecture
KINDS = {
    "causal": {"mask": masks.causal()},
    "ahead": {"mask": masks.sliding_window(20, 20)},
    "holes": {"mask": masks.padding(torch.arange(TOKENS) % 3 != 1), "sinks": torch.zeros(4), "softcap": 30.0},
    "bias": {"mask": masks.full(), "bias": biases.alibi([0.5, 0.25, 0.125, 0.0625])},
}


@pytest.fixture(params=SHARED)
def compiled(request, monkeypatch, triton):
    """What is launched is compiled for an architecture instead: the name of each pass, and what it takes."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class NoGpu:
        """As much of a driver as compiling needs."""

        def get_current_device(self):
            return request.param

        def get_current_stream(self, device):
            return 0

        def get_current_target(self):
            return GPUTarget("cuda", request.param, 32)

        def get_device_interface(self):
            return torch.cuda

    found, run = [], JITFunction.run

    def compile_alone(self, *args, grid, warmup, **options):
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        found.append((self.fn.__name__, kernel.metadata.shared, kernel.asm["ptx"]))
        return kernel

    monkeypatch.setattr(JITFunction, "run", compile_alone)
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    monkeypatch.setattr(driver, "_active" if "_active" in vars(driver) else "active", NoGpu())  # before Triton 3.5
    return request.param, found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize(("tokens", "width", "top"), [(256, 128, 64), (1, 64, 1), (40, 8, 3)])
def test_few_rows_compile_in_low_tiles_and_fit(compiled, dtype, tokens, width, top):
    from softmap.kernels.gpu.plan import Plan

    architecture, found = compiled
    q, k = torch.zeros(1, tokens, width, dtype=dtype), torch.zeros(1, tokens, width, dtype=dtype)
    problem = Problem(q, k, masks.causal(), scale=1.0)
    gpu._sweep(Plan(problem, k), problem, Wanted(k, top=top, entropy=True, received=True))
    assert max(shared for _, shared, _ in found) <= SHARED[architecture]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("width", [64, 256])
def test_every_pass_compiles_and_fits(compiled, monkeypatch, kind, dtype, width):
    from softmap.kernels.gpu import plan
    from softmap.kernels.gpu.plan import Plan

    monkeypatch.setattr(plan, "PROCESSORS", 1)  # no lower tile for want of rows
    architecture, found = compiled
    q, k, v = (torch.zeros(heads, TOKENS, width, dtype=dtype) for heads in (4, 2, 2))
    problem = Problem(q, k, scale=0.1, **KINDS[kind])
    wanted = Wanted(v, top=8, entropy=True, distance=True, received=True, cells=Grid(EDGES, EDGES))
    gpu._sweep(Plan(problem, v), problem, wanted)
    assert {name for name, _, _ in found} == {"rows_pass", "top_pass", "columns_pass", "cells_pass"}
    assert max(shared for _, shared, _ in found) <= SHARED[architecture]
    if dtype != torch.float32:  # the two products are made by tensor cores
        assert all("mma" in code for name, _, code in found if name in ("rows_pass", "columns_pass"))
