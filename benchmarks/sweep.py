"""One pass for all statistics and the output, next to torch's fused attention for the output alone.

python -m benchmarks.sweep            everything
python -m benchmarks.sweep --quick    the smallest sizes alone
python -m benchmarks.sweep Short      the tables whose names begin so
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

import softmap
from benchmarks.pairs import Ratio, compare
from softmap import kernels, masks

if TYPE_CHECKING:
    from torch import Tensor

    from softmap.masks import Mask

QUICK = "--quick" in sys.argv
SECONDS = 0.5 if QUICK else 3.0
Row = tuple[str, Ratio]


def main() -> None:
    """Print the tables."""
    asked = [word for word in sys.argv[1:] if not word.startswith("-")]
    fastest = next(report.name for report in kernels.report() if report.usable)
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, {fastest}; "
        "medians of pairs taken in turn (the middle half of them)"
    )
    for name, (table, limit) in TABLES.items():
        if asked and not any(name.startswith(word) for word in asked):
            continue
        print(f"\n### {name}\n\n{limit}\n\n| what | ratio | softmap | the other |\n| --- | --- | --- | --- |")
        for what, ratio in table():
            print(f"| {what} | {ratio} | {ratio.ours * 1e3:,.1f} ms | {ratio.peer * 1e3:,.1f} ms |", flush=True)


def against_sdpa(
    queries: int,
    d: int,
    causal: bool,
    *,
    heads: int = 1,
    kv_heads: int = 1,
    dtype: torch.dtype = torch.float32,
    output: bool = True,
    seconds: float = SECONDS,
) -> Ratio:
    """All statistics (and the output) ÷ the output alone by torch's scaled_dot_product_attention."""
    q, k, v = inputs(queries, d, heads, kv_heads, dtype)
    mask = masks.causal() if causal else masks.full()

    def ours() -> object:
        return softmap.AttentionMatrix(q, k, mask=mask).summary(v if output else None)

    def sdpa() -> object:
        grouped = heads != kv_heads
        return scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal, enable_gqa=grouped)

    return compare(ours, sdpa, seconds)


def inputs(
    queries: int, d: int, heads: int = 1, kv_heads: int = 1, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Random q, k and v."""
    random = torch.Generator().manual_seed(queries + d)
    shapes = (heads, queries, d), (kv_heads, queries, d), (kv_heads, queries, d)
    q, k, v = (torch.randn(shape, generator=random).to(dtype) for shape in shapes)
    return q, k, v


def sizes(d: int, lengths: tuple[int, ...], threads: tuple[int, ...] = (1, 2), **options: Any) -> Iterator[Row]:
    """One row for each length, mask and number of threads."""
    for queries in lengths[:1] if QUICK else lengths:
        for causal in (False, True):
            for count in threads:
                with_threads(count)
                ratio = against_sdpa(queries, d, causal, **options)
                name = "causal" if causal else "full"
                yield f"d = {d}, N = {queries:,}, {name}, {count} thread{'s' * (count > 1)}", ratio


def with_threads(count: int) -> None:
    """torch's threads, which the kernel takes as its own."""
    torch.set_num_threads(count)


def dimensions() -> Iterator[Row]:
    """Other widths than 64."""
    for d in (32, 128):
        yield from sizes(d, (4096, 8192, 16384))


def short() -> Iterator[Row]:
    """One head, of which what a call costs in Python is a tenth, and a layer's twelve."""
    for what, heads in (("one head", 1), ("12 heads", 12)):
        for name, ratio in sizes(64, (1024,), heads=heads, kv_heads=heads):
            yield f"{name}, {what}", ratio


def avx2() -> Iterator[Row]:
    """The kernel without AVX-512, against torch as it is."""
    os.environ["SOFTMAP_KERNEL"] = "fused-avx2"
    try:
        yield from sizes(64, (4096, 16384), (1,))
    finally:
        del os.environ["SOFTMAP_KERNEL"]


def halves() -> Iterator[Row]:
    """bfloat16 inputs, against torch in bfloat16."""
    yield from sizes(64, (4096, 16384), dtype=torch.bfloat16)


def grouped() -> Iterator[Row]:
    """Eight heads on two key heads."""
    yield from sizes(64, (4096,), heads=8, kv_heads=2)


def window() -> Iterator[Row]:
    """A sliding window of 1,024 ÷ causal."""
    with_threads(1)
    q, k, v = inputs(4096 if QUICK else 16384, 64)
    yield (
        "window of 1,024 ÷ causal",
        compare(_summary(q, k, v, masks.sliding_window(1023)), _summary(q, k, v)),
    )


def hard() -> Iterator[Row]:
    """Inputs that are hard for a top-k or a softmax ÷ random ones of the same size."""
    with_threads(1)
    n = 4096
    q, k, v = inputs(n, 64)
    one = torch.zeros_like(q)
    one[..., 0] = 1
    rising = torch.zeros_like(k)
    rising[0, :, 0] = torch.linspace(0, 100, n)
    in_one_lane = rising * (torch.arange(n) % 16 == 0)[None, :, None]
    dominant, ties = k.clone(), k.clone()
    dominant[0, n // 2] = 20 * q[0].mean(0) + 20
    ties[0, ::3] = k[0, 0]
    cases = {
        "all-equal rows": (torch.zeros_like(q), k),
        "rising rows": (one, rising),
        "falling rows": (one, rising.flip(1)),
        "rising in every 16th key": (one, in_one_lane),
        "one dominant key": (q, dominant),
        "many ties": (q, ties),
    }
    for causal in (False, True):
        mask = masks.causal() if causal else masks.full()
        for name, (hard_q, hard_k) in cases.items():
            yield (
                f"{name}, {'causal' if causal else 'full'}",
                compare(_summary(hard_q, hard_k, v, mask), _summary(q, k, v, mask), SECONDS / 2),
            )


def parts() -> Iterator[Row]:
    """Where the time goes: the pass with one thing left out each time ÷ SDPA, one thread."""
    with_threads(1)
    q, k, v = inputs(4096, 64)
    nothing = {"top": 0, "cells": 0, "entropy": False, "distance": False, "received": False}
    cases: dict[str, dict[str, Any]] = {
        "everything": {"v": v},
        "without the output": {},
        "without top": {"v": v, "top": 0},
        "without entropy": {"v": v, "entropy": False},
        "without distance": {"v": v, "distance": False},
        "without cells": {"v": v, "cells": 0},
        "without cells and received": {"v": v, "cells": 0, "received": False},
        "output and logsumexp alone": {"v": v, **nothing},
        "logsumexp alone": nothing,
    }
    for name, options in cases.items():
        ours = partial(softmap.AttentionMatrix(q, k).summary, **options)
        yield name, compare(ours, lambda: scaled_dot_product_attention(q[None], k[None], v[None]), SECONDS)


def dense() -> Iterator[Row]:
    """What people write today: the whole matrix, and reductions of it ÷ one pass."""
    q, k, v = inputs(4096, 64)
    for threads in (1, 2):
        with_threads(threads)
        ratio = compare(lambda: _by_hand(q[0], k[0], v[0]), _summary(q, k, v, masks.full()))
        yield f"dense softmax and reductions ÷ one pass, N = 4,096, {threads} thread{'s' * (threads > 1)}", ratio


def _by_hand(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    scaled = q @ k.T * q.shape[1] ** -0.5
    weights = scaled.softmax(-1)
    away = torch.arange(len(q))[:, None] - torch.arange(len(k))
    grid = weights.reshape(64, len(q) // 64, 64, len(k) // 64)
    return (
        weights @ v,
        scaled.logsumexp(-1),
        torch.special.entr(weights).sum(-1),
        *weights.topk(8),
        (weights * away).sum(-1),
        (weights * away.abs()).sum(-1),
        weights.sum(0),
        grid.sum((1, 3)),
        grid.amax((1, 3)),
    )


def _summary(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None = None) -> Callable[[], object]:
    mask = masks.causal() if mask is None else mask
    return lambda: softmap.AttentionMatrix(q, k, mask=mask).summary(v)


TABLES: dict[str, tuple[Callable[[], Iterator[Row]], str]] = {
    "All statistics and the output ÷ SDPA's output, d = 64": (
        lambda: sizes(64, (4096, 8192, 16384)),
        "Aim: at most 0.85.",
    ),
    "The same, d = 32 and d = 128": (dimensions, "Aim: at most 0.90."),
    "Short: N = 1,024": (short, "Aim: at most 0.90."),
    "Long: N = 65,536": (lambda: sizes(64, (8192 if QUICK else 65536,), (2,)), "Aim: at most 0.95."),
    "All statistics without the output ÷ SDPA's output": (
        lambda: sizes(64, (4096, 16384), output=False),
        "Aim: at most 0.50.",
    ),
    "The AVX2 kernel ÷ torch as it is, with AVX-512": (avx2, "Aim: at most 1.0."),
    "bfloat16 inputs ÷ SDPA in bfloat16": (halves, "Aim: at most 0.85."),
    "8 heads on 2 key heads ÷ SDPA with enable_gqa": (grouped, "Aim: at most 0.85."),
    "A sliding window of 1,024 at N = 16,384 ÷ causal": (window, "Aim: at most 0.20."),
    "Hard inputs ÷ random ones of the same size, N = 4,096": (hard, "Aim: at most 1.15."),
    "What people write today ÷ one pass, N = 4,096": (dense, "Aim: at least 6."),
    "Where the time goes: N = 4,096, full, one thread, one thing left out each time": (parts, "÷ SDPA's output."),
}

if __name__ == "__main__":
    main()
