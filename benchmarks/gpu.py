"""The sweep on a GPU next to the fastest fused attention that torch has, in one process.

python -m benchmarks.gpu            everything, on a CUDA GPU (make bench-gpu)
python -m benchmarks.gpu --dry      one tiny size in Triton's interpreter, on a CPU: that it runs, and no figure

What is timed is compared as well: what each key receives with what FlexAttention and flash-colreduce say. The latter is
left out where it is not installed or does not run (0.2.2 does with Triton before 3.9); the faster of the two counts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import softmap
from softmap import kernels, masks
from softmap.kernels import gpu

if TYPE_CHECKING:
    from torch import Tensor

    from softmap.masks import Mask

DRY = "--dry" in sys.argv
DEVICE = "cpu" if DRY else "cuda"
LENGTHS = (32,) if DRY else (4096, 8192, 16384, 32768, 65536, 131072)
HEADS = ((4, 2),) if DRY else ((16, 16), (32, 8))
WIDTHS = (16,) if DRY else (64, 128)
DTYPE = torch.float32 if DRY else torch.bfloat16
LONG = 65536  # from which on one head stands for all: they would take the same, one after the other
REPEATS = 1 if DRY else 15
ALL: dict[str, Any] = {"cells": 2} if DRY else {}
BACKENDS = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
ROWS_ALONE: dict[str, Any] = {"cells": 0, "distance": False, "received": False, "top": 8}
RECEIVED_ALONE: dict[str, Any] = {"cells": 0, "distance": False, "entropy": False, "top": 0}

Call = Callable[[], object]


class Case(NamedTuple):
    """One size of the table."""

    heads: int
    kv_heads: int
    width: int
    tokens: int
    causal: bool

    def __str__(self) -> str:
        heads = f"{self.heads} heads" + (f" on {self.kv_heads}" if self.heads != self.kv_heads else "")
        return f"{heads}, d = {self.width}, N = {self.tokens:,}, {'causal' if self.causal else 'full'}"

    @property
    def product(self) -> float:
        """Floating-point operations of one of the products of size queries x keys x width."""
        return 2 * self.heads * self.tokens**2 * self.width / (2 if self.causal else 1)


def main() -> None:
    """Print the tables."""
    if not DRY and not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU here: expected one, or --dry for the interpreter.")
    os.environ[kernels.VARIABLE] = "gpu"
    if reason := gpu.missing():
        sys.exit(f"Triton's kernels can't run here: {reason}.")
    print(_where())
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    matmul = None if DRY else _matmul()
    if matmul:
        print(f"A bfloat16 matrix product of 8,192 x 8,192 x 8,192: {matmul / 1e12:,.0f} TFLOP/s")
    print("\n| what | best of SDPA | rows + output | all + output | all, no output | received ÷ the fastest other |")
    print("| --- | --- | --- | --- | --- | --- |")
    for case in cases():
        print(row(case, matmul), flush=True)
    if not DRY:
        print(f"\nPeak memory above inputs and outputs, one head of N = {LENGTHS[-1]:,}: {peak() / 2**20:,.0f} MiB")


def cases() -> Iterator[Case]:
    """All sizes; long ones with one head, or one group."""
    for heads, kv_heads in HEADS:
        for width in WIDTHS:
            for tokens in LENGTHS:
                for causal in (True, False):
                    shared = (heads // kv_heads, 1) if tokens >= LONG else (heads, kv_heads)
                    yield Case(*shared, width, tokens, causal)


def row(case: Case, matmul: float | None) -> str:
    """What each pass takes ÷ what the best of SDPA does, with its share of the matrix product's speed."""
    torch._dynamo.reset()  # beyond its limit of recompilations it would run FlexAttention dense
    q, k, v = inputs(case)
    matrix = softmap.AttentionMatrix(q, k, mask=mask_of(case))
    ours: dict[str, tuple[Call, int]] = {  # and how many products it makes
        "rows": (partial(matrix.summary, v, **ROWS_ALONE), 2),
        "all": (partial(matrix.summary, v, **ALL), 3),
        "without": (partial(matrix.summary, **ALL), 2),
        "received": (partial(matrix.summary, **RECEIVED_ALONE), 2),
    }
    best, seconds, peer = fastest_sdpa(case, q, k, v)
    others = {"two FlexAttention calls": flex_received(case, q, k)} | colreduce_received(case, q, k)
    received = matrix.summary(**RECEIVED_ALONE).received
    for call in others.values():
        torch.testing.assert_close(received, call()[0].float(), rtol=0.02, atol=0.02)
    taken = in_turn({name: call for name, (call, _) in ours.items()} | {"sdpa": peer} | others)
    shares = {
        name: f" ({products * case.product / taken[name] / matmul:.0%})" if matmul else ""
        for name, (_, products) in ours.items()
    }
    if DRY:
        return f"| {case} | {best} | ran | ran | ran | ran |"
    cells = [f"{taken[name] / taken['sdpa']:.2f}{shares[name]}" for name in ("rows", "all", "without")]
    fastest = min(others, key=lambda name: taken[name])
    against = f"{taken['received'] / taken[fastest]:.2f}{shares['received']}, {fastest}"
    return f"| {case} | {best}, {seconds * 1e3:,.2f} ms | {' | '.join(cells)} | {against} |"


def inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Random q, k and v."""
    torch.manual_seed(case.tokens + case.width)
    shapes = [(count, case.tokens, case.width) for count in (case.heads, case.kv_heads, case.kv_heads)]
    q, k, v = (torch.randn(shape, device=DEVICE, dtype=DTYPE) for shape in shapes)
    return q, k, v


def mask_of(case: Case) -> Mask:
    return masks.causal() if case.causal else masks.full()


def fastest_sdpa(case: Case, q: Tensor, k: Tensor, v: Tensor) -> tuple[str, float, Call]:
    """The back end that is fastest at this size, and what it takes alone."""
    grouped = case.heads != case.kv_heads

    def call(backend: SDPBackend) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q[None], k[None], v[None], is_causal=case.causal, enable_gqa=grouped)

    found: dict[SDPBackend, float] = {}
    for backend in (SDPBackend.MATH,) if DRY else BACKENDS:
        try:
            found[backend] = in_turn({"it": partial(call, backend)})["it"]
        except RuntimeError:  # this one does not serve such inputs
            continue
    best = min(found, key=lambda backend: found[backend])
    return best.name.lower(), found[best], partial(call, best)


def flex_received(case: Case, q: Tensor, k: Tensor) -> Callable[[], Tensor]:
    """What each key receives by two FlexAttention calls: the rows' logsumexp, then the keys', q and k changing places."""
    flex: Any = flex_attention if DRY else torch.compile(flex_attention)
    group = case.heads // case.kv_heads
    wide = k.repeat_interleave(group, 0)[None]
    nothing = torch.zeros_like(q[None, :, :, :16])

    def earlier(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key <= query

    def later(batch: Tensor, head: Tensor, key: Tensor, query: Tensor) -> Tensor:
        return query >= key

    sides = (None, None, case.tokens, case.tokens)
    by_block: Any = create_block_mask if DRY else torch.compile(create_block_mask)  # uncompiled: N x N booleans
    blocks = [by_block(seen, *sides, device=DEVICE) if case.causal else None for seen in (earlier, later)]

    def call() -> Tensor:
        _, of_rows = flex(q[None], wide, nothing, block_mask=blocks[0], return_aux=AuxRequest(lse=True))
        rows = of_rows.lse

        def less_row(score: Tensor, batch: Tensor, head: Tensor, key: Tensor, query: Tensor) -> Tensor:
            less: Tensor = score - rows[batch, head, query]
            return less

        aux = AuxRequest(lse=True)
        _, of_keys = flex(wide, q[None], nothing, score_mod=less_row, block_mask=blocks[1], return_aux=aux)
        found: Tensor = of_keys.lse.exp()
        return found

    return call


def colreduce_received(case: Case, q: Tensor, k: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same by flash-colreduce, which knows no shared key heads; nothing where it is not there, or does not run."""
    if DRY or find_spec("flash_colreduce") is None:
        return {}
    from flash_colreduce import flash_colreduce

    wide = k.repeat_interleave(case.heads // case.kv_heads, 0)[None]

    def call() -> Tensor:
        found: Tensor = flash_colreduce(q[None], wide, reduction="sum", is_causal=case.causal)
        return found

    try:
        call()
    except Exception as error:  # whatever Triton says of it
        print(f"flash-colreduce is left out: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        return {}
    return {"flash-colreduce": call}


def in_turn(calls: Mapping[str, Call]) -> dict[str, float]:
    """The median of what each takes, in seconds, warm, one after the other so that a slow moment meets all."""
    for call in calls.values() if not DRY else ():
        call(), call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            taken[name].append(_time(call))
    return {name: statistics.median(times) for name, times in taken.items()}


def _time(call: Call) -> float:
    if DRY:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    elapsed: float = begin.elapsed_time(end)
    return elapsed / 1e3


def _matmul() -> float:
    """Operations a second of a plain matrix product."""
    side = 8192
    one, other = (torch.randn(side, side, device=DEVICE, dtype=DTYPE) for _ in range(2))
    return 2 * side**3 / in_turn({"it": lambda: one @ other})["it"]


def peak() -> int:
    """Bytes that a sweep of one head takes at most, above what is given and what it gives."""
    q, k, v = inputs(Case(1, 1, 64, LENGTHS[-1], causal=True))
    matrix = softmap.AttentionMatrix(q, k)
    matrix.summary(v)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found: Any = matrix.summary(v)
    torch.cuda.synchronize()
    kept = torch.cuda.memory_allocated() - before
    del found
    return torch.cuda.max_memory_allocated() - before - kept


def _where() -> str:
    import triton

    versions = f"torch {torch.__version__}, Triton {triton.__version__}"
    if DRY:
        return f"{versions}, in Triton's interpreter: these are no figures"
    asked = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    return f"{versions}; {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"


if __name__ == "__main__":
    main()
