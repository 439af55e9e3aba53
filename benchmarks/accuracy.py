"""The worst error of every statistic against float64, next to what torch's fused attention shows on the same input.

python -m benchmarks.accuracy
"""

from __future__ import annotations

from typing import Any

import torch

import softmap
from benchmarks.sweep import inputs
from softmap import masks
from softmap.kernels import reference
from softmap.kernels.contract import Problem, Wanted
from softmap.matrix.inputs import read_grid

TOKENS = 4096
INPUTS = {"as drawn": 1.0, "q times 5": 5.0, "q times 30": 30.0}


def main() -> None:
    """Print the errors: of the output relative to its largest number, of received and cells to theirs."""
    print(
        "| input | largest score | SDPA's output | SDPA's logsumexp | output | logsumexp | entropy | received | cells |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, factor in INPUTS.items():
        for causal in (False, True):
            q, k, v = inputs(TOKENS, 64)
            q = q * factor
            mask = masks.causal() if causal else masks.full()
            got = softmap.AttentionMatrix(q, k, mask=mask).summary(v)
            problem = Problem(q, k, mask, 64**-0.5)
            grid = read_grid(64, TOKENS, TOKENS)
            exact = reference.sweep(problem, Wanted(v, 8, True, True, True, grid))
            sdpa, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q[None], k[None], v[None], is_causal=causal
            )
            assert exact.output is not None
            assert exact.cells is not None
            errors = [
                _relative(sdpa[0], exact.output),
                _absolute(logsumexp[0], exact.logsumexp),
                _relative(got.output, exact.output),
                _absolute(got.logsumexp, exact.logsumexp),
                _absolute(got.entropy, exact.entropy),
                _relative(got.received, exact.received),
                _relative(got.cells and got.cells.sum, exact.cells.sum),
            ]
            scores = reference.step_2(problem)
            largest = float(scores[scores > -torch.inf].abs().max())
            what = f"{name}, {'causal' if causal else 'full'}"
            print(f"| {what} | {largest:.0f} | " + " | ".join(f"{error:.1e}" for error in errors) + " |")


def _absolute(got: Any, exact: Any) -> float:
    return float((got - exact).abs().max())


def _relative(got: Any, exact: Any) -> float:
    return _absolute(got, exact) / float(exact.abs().max())


if __name__ == "__main__":
    main()
