"""A matrix of 131,072 x 131,072: one pass over it, its memory, and tiles of it; memory by length.

python -m benchmarks.long            some minutes on two cores
python -m benchmarks.long --quick    16,384 tokens instead
python -m benchmarks.long --plot     the plot of docs/performance.md as well
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure

import softmap
from benchmarks.pairs import compare
from benchmarks.sweep import inputs
from softmap.kernels import reference
from softmap.kernels.contract import Problem, Wanted

QUICK = "--quick" in sys.argv
TOKENS = 16_384 if QUICK else 131_072
LENGTHS = (8_192, 16_384) if QUICK else (8_192, 16_384, 32_768, 65_536, 131_072)
TILE = 256
IMAGE = Path(__file__).parent.parent / "docs" / "images" / "memory.svg"

# A process of its own for each length, so that its highest memory is that of one pass. Not by getrusage, whose highest
# is the parent's at first.
MEASURE = """
import json, sys, torch, softmap
tokens = int(sys.argv[1])
q, k, v = (torch.randn(1, tokens, 64) for _ in range(3))
softmap.AttentionMatrix(q[:, :64], k[:, :64]).summary(v[:, :64])
status = lambda name: next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if name in line)
before = status("VmRSS")
softmap.AttentionMatrix(q, k, mask=softmap.masks.causal()).summary(v)
print(json.dumps(status("VmHWM") - before))
"""


def main() -> None:
    """Print what one pass takes, that its tiles are right, and how memory grows."""
    q, k, v = inputs(TOKENS, 64)
    m = softmap.AttentionMatrix(q, k, mask=softmap.masks.causal())
    start = time.perf_counter()
    summary = m.summary(v)
    taken = time.perf_counter() - start
    print(f"summary of {m!r}: {taken:.1f} s by {summary.kernel}, {torch.get_num_threads()} threads")
    _tiles(m, taken)
    _rows(m, summary, v)
    _memory()


def _tiles(m: softmap.AttentionMatrix, full_pass: float) -> None:
    """Tiles at random places against the reference on their rows alone, and what one takes ÷ the full pass."""
    problem = m._lookup.problem
    random = torch.Generator().manual_seed(1)
    worst = 0.0
    for _ in range(20):
        row, key = (int(torch.randint(TOKENS - TILE, (), generator=random)) for _ in range(2))
        rows = slice(row, row + TILE)
        own = Problem(problem.q[:, rows], problem.k, softmap.masks.causal(row), problem.scale)
        exact = torch.exp(
            reference.step_2(own)[..., key : key + TILE] - reference.sweep(own, Wanted()).logsumexp[..., None]
        )
        worst = max(worst, float((m[:, rows, key : key + TILE] - exact).abs().max()))
    print(f"20 tiles of {TILE} x {TILE} at random places: largest difference from the float64 reference {worst:.1e}")
    tile = compare(lambda: m[0, -TILE:, 1000 : 1000 + TILE], lambda: None, 1.0).ours
    print(f"one such tile: {tile * 1e3:.2f} ms, 1/{full_pass / tile:,.0f} of the full pass")


def _rows(m: softmap.AttentionMatrix, summary: softmap.matrix.Summary, v: torch.Tensor) -> None:
    """The statistics of random rows against the reference."""
    problem = m._lookup.problem
    rows = torch.randint(TOKENS, (16,), generator=torch.Generator().manual_seed(2)).tolist()
    worst = {"output": 0.0, "logsumexp": 0.0, "entropy": 0.0}
    for row in rows:
        own = Problem(problem.q[:, row : row + 1], problem.k, softmap.masks.causal(row), problem.scale)
        exact = reference.sweep(own, Wanted(v=v, entropy=True))
        for name, so_far in worst.items():
            difference = getattr(summary, name)[:, row : row + 1] - getattr(exact, name)
            worst[name] = max(so_far, float(difference.abs().max()))
    print(f"{len(rows)} random rows: " + ", ".join(f"{name} within {value:.1e}" for name, value in worst.items()))
    received = float(summary.received.double().sum()) if summary.received is not None else 0.0
    print(f"received sums to {received:,.3f} of {TOKENS:,} queries")


def _memory() -> None:
    print("\n| tokens | peak memory of one pass above its inputs, MiB |\n| --- | --- |")
    peaks = []
    for tokens in LENGTHS:
        run = subprocess.run([sys.executable, "-c", MEASURE, str(tokens)], check=True, capture_output=True, text=True)
        peaks.append(float(json.loads(run.stdout)))
        print(f"| {tokens:,} | {peaks[-1]:.0f} |", flush=True)
    if "--plot" in sys.argv:
        _plot(peaks)


def _plot(peaks: list[float]) -> None:
    """Peak memory by length, next to what the whole matrix would take."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    dense = [tokens**2 * 4 / 2**20 for tokens in LENGTHS]
    axes.loglog(LENGTHS, peaks, "o-", base=2, color="#3949ab", label="one pass of softmap")
    axes.loglog(LENGTHS, dense, "--", base=2, color="#b0b0b0", label="the matrix alone, if it were stored")
    axes.set_yscale("log", base=10)
    axes.set_xticks(LENGTHS, [f"{tokens:,}" for tokens in LENGTHS])
    axes.minorticks_off()
    axes.set_xlabel("tokens")
    axes.set_ylabel("MiB above the inputs")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(IMAGE, metadata={"Date": None})


if __name__ == "__main__":
    main()
