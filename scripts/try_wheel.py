"""One sweep with the installed package, to be sure that the compiled kernel in a wheel runs.

python scripts/try_wheel.py
"""

from __future__ import annotations

import torch

import softmap
from softmap.kernels import fused


def main() -> None:
    """Sweep a small matrix, and hold the output to the one that torch computes."""
    q, k, v = torch.randn(3, 2, 100, 16, generator=torch.Generator().manual_seed(0))
    summary = softmap.AttentionMatrix(q, k).summary(v)
    assert summary.kernel.startswith("fused"), f"{summary.kernel}: {summary.why}"
    torch.testing.assert_close(summary.output, torch.nn.functional.scaled_dot_product_attention(q, k, v))
    print(f"{summary.kernel}; usable here: {', '.join(fused.available())}")


if __name__ == "__main__":
    main()
