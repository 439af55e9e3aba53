"""Random matrices for every kernel, what they must agree to, and how closely."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from hypothesis import strategies as st

from softmap import biases, masks
from softmap.kernels import gpu, reference
from softmap.kernels.contract import Grid, Problem, Statistics, Wanted

GPU = "cpu" if gpu.interpreted() else "cuda"  # where the GPU's kernels take arrays: in the interpreter, here
NARROW = (torch.float32, torch.float16, torch.bfloat16)
DTYPES = (*NARROW, torch.float64)
SIZES = st.one_of(
    st.sampled_from([size + step for size in (1, 16, 64, 128, 256) for step in (-1, 0, 1) if size + step]),
    st.integers(1, 300),
)
WIDTHS = st.one_of(st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64]), st.sampled_from([80, 128, 192, 256]))
SMALL = {"sizes": st.integers(1, 70), "widths": st.sampled_from([1, 3, 8, 16, 17, 33])}  # for what is slow
LOGITS = st.sampled_from([0.0, 0.3, 3.0, 3.0, 30.0, 1000.0])  # how far from 0 the scaled scores are, typically
MAGNITUDES = st.sampled_from([1.0, 1.0, 1e-3, 1e4])
CAPS = st.none() | st.sampled_from([0.5, 30.0, 50.0])


def moved(given, device):
    """A problem, what is wanted of it, or what was found, with its tensors on a device."""
    if torch.is_tensor(given):
        return given.to(device)
    if isinstance(given, tuple) and any(map(torch.is_tensor, given)):
        return type(given)(*(moved(each, device) for each in given))
    if not is_dataclass(given) or not isinstance(given, Problem | Wanted | Statistics):
        return given
    parts = {field.name: moved(getattr(given, field.name), device) for field in fields(given)}
    return replace(given, **parts)


@st.composite
def problems(draw, dtypes=DTYPES, sizes=SIZES, widths=WIDTHS) -> tuple[Problem, Wanted]:
    """A matrix of any shape, dtype, mask and extras, and any statistics of it."""
    queries, keys, d_k = draw(sizes), draw(sizes), draw(widths)
    queries = keys if draw(st.booleans()) else queries
    kv_heads, group = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (1, 4), (2, 3)]))
    offset = draw(st.sampled_from([0, keys - queries, 5, -5, keys + 3]))
    dtype, seed, size = draw(st.sampled_from(dtypes)), draw(st.integers(0, 1 << 30)), draw(MAGNITUDES)
    logit = draw(LOGITS)
    scale = draw(st.sampled_from([1, -1])) * logit / (size * size * math.sqrt(d_k))
    random = torch.Generator().manual_seed(seed)
    problem = Problem(
        q=(torch.randn(kv_heads * group, queries, d_k, generator=random) * size).to(dtype),
        k=(torch.randn(kv_heads, keys, d_k, generator=random) * size).to(dtype),
        mask=draw(masks_of(queries, keys, offset)),
        scale=scale if draw(st.booleans()) or size > 1 else 1 / math.sqrt(d_k),
        softcap=draw(CAPS),
        sinks=draw(st.none() | st.just(torch.randn(kv_heads * group, generator=random) * (logit + 1))),
        bias=draw(st.none() | biases_of(kv_heads * group, queries, keys, offset)),
    )
    return problem, draw(wanted_of(problem, widths))


@st.composite
def wanted_of(draw, problem: Problem, widths=WIDTHS) -> Wanted:
    """Any statistics of a matrix."""
    _, queries, keys = problem.shape
    random = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    d_v = draw(st.none() | widths)
    v = None if d_v is None else torch.randn(problem.k.shape[0], keys, d_v, generator=random).to(problem.q.dtype)
    flag = st.sampled_from([True, True, False])
    return Wanted(
        v=v,
        top=draw(st.sampled_from([0, 1, 2, 3, 8, 8, 31, 64])),
        entropy=draw(flag),
        distance=draw(flag),
        received=draw(flag),
        cells=draw(st.none() | st.builds(Grid, edges_of(queries), edges_of(keys))),
    )


@st.composite
def edges_of(draw, tokens: int) -> tuple[int, ...]:
    """Cells of about one size, as many as there are tokens at most; or of any sizes."""
    cells = min(tokens, draw(st.sampled_from([1, 2, 7, 64, 300])))
    if draw(st.booleans()):
        return tuple(number * tokens // cells for number in range(cells + 1))
    inner = draw(st.sets(st.integers(1, max(1, tokens - 1)), max_size=5)) - {tokens}
    return (0, *sorted(inner), tokens)


def masks_of(queries: int, keys: int, offset: int) -> st.SearchStrategy[masks.Mask]:
    """Every kind of mask, alone and composed."""
    return st.recursive(
        simple_masks(queries, keys, offset),
        lambda inner: st.one_of(
            st.builds(lambda one, other: one & other, inner, inner),
            st.builds(lambda one, other: one | other, inner, inner),
            st.builds(lambda one: ~one, inner),
        ),
        max_leaves=3,
    )


@st.composite
def simple_masks(draw, queries: int, keys: int, offset: int) -> masks.Mask:
    reach = st.none() | st.sampled_from([0, 1, 5, 17, 64, 200])
    random = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    first, last = sorted((draw(st.integers(0, keys)), draw(st.integers(0, keys))))
    place = torch.arange(keys)
    query_ids, key_ids = (torch.randint(0, 6, (size,), generator=random) for size in (queries, keys))
    dense = torch.rand(queries, keys, generator=random) < draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    kinds = [
        masks.full(),
        masks.causal(offset),
        masks.sliding_window(draw(reach), draw(reach), offset),
        masks.sliding_window(draw(reach), 0, offset),
        masks.chunked(draw(st.sampled_from([1, 3, 16, 100])), offset),
        masks.padding((place >= first) & (place < last)),
        masks.padding(place % 3 != 1),
        masks.documents(query_ids, key_ids),
        masks.documents(query_ids, key_ids.sort().values),
        masks.prefix(first),
        masks.from_function(lambda query, key: (3 * query + 7 * key) % 5 < 2),
        masks.dense(dense),
    ]
    return draw(st.sampled_from(kinds))


@st.composite
def biases_of(draw, heads: int, queries: int, keys: int, offset: int) -> biases.Bias:
    """Every kind of bias."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return biases.alibi(torch.rand(heads, generator=random), offset)
    if kind == 1:
        return biases.relative(torch.randn(heads, 21, generator=random), offset=offset)
    if kind == 2:
        return biases.from_function(lambda head, query, key: torch.where((query + key) % 4 == head, -torch.inf, 0.25))
    shape = (queries, keys) if draw(st.booleans()) else (heads, queries, keys)
    return biases.dense(torch.randn(shape, generator=random))


@dataclass(frozen=True)
class Tolerance:
    """How far a kernel may be from the reference.

    A dot product of d_k numbers in a precision u is off by about √d_k · u · Σ|q||k|; what is then done to it, by a few u
    of its size. So each scaled score is off by at most `score`, and each weight, whose logsumexp is off as well, by a
    factor e^(±2·score): by `relative` of itself. To that comes `rounding` for the exponential and for sums of hundreds
    of numbers. Absolute errors there are two: `tiny`, of weights that a precision flushes to 0, and `place`, of distances
    that a kernel counts from the edge of a block of keys (512 at most), to take them from there to the query at last.
    """

    score: float
    rounding: float
    tiny: float
    place: float

    @property
    def relative(self) -> float:
        return math.expm1(2 * self.score) + self.rounding

    @classmethod
    def of(cls, problem: Problem, scaled: torch.Tensor) -> Tolerance:
        unit = torch.finfo(problem.dtype).eps / 2
        k = problem.k.double().abs().repeat_interleave(problem.group, 0)
        products = float((problem.q.double().abs() @ k.mT).max()) * abs(problem.scale)
        sizes = float(scaled[scaled > -torch.inf].abs().max()) if bool((scaled > -torch.inf).any()) else 0.0
        sizes += problem.softcap or 0.0
        if problem.bias is not None:
            added = problem.bias.strip(*(range(size) for size in problem.shape))
            sizes += float(added[added > -torch.inf].abs().max()) if bool((added > -torch.inf).any()) else 0.0
        if problem.sinks is not None:
            sizes += float(problem.sinks.abs().max())
        score = unit * ((math.sqrt(problem.q.shape[2]) + 8) * products + 8 * sizes)
        narrow = problem.dtype == torch.float32
        return cls(score, rounding=32 * unit, tiny=1e-30 if narrow else 1e-290, place=512 * unit)


def assert_agree(statistics: Statistics, problem: Problem, wanted: Wanted, *, in_dtype: bool = False) -> None:
    """Every statistic that is wanted is there and the reference's own, to rounding; what is not wanted is None.

    Args:
        statistics: what a kernel gave.
        problem: what it was given.
        wanted: what was wanted.
        in_dtype: whether it rounds the weights, of the row's largest, to v's dtype before they meet the values.
    """
    expected = reference.sweep(problem, wanted)
    scaled = reference.step_2(problem)
    allowed = Tolerance.of(problem, scaled)
    for field in fields(Statistics):
        got, want = getattr(statistics, field.name), getattr(expected, field.name)
        assert (got is None) == (want is None), field.name

    _assert_close("logsumexp", statistics.logsumexp, expected.logsumexp, allowed.score + allowed.rounding)
    weights = (scaled - expected.logsumexp[:, :, None]).exp().nan_to_num(0)
    if wanted.v is not None:
        v = wanted.v.double().repeat_interleave(problem.group, 0).abs()
        bound = allowed.relative * (weights @ v) + allowed.tiny * float(v.max())
        if in_dtype:
            kept = torch.finfo(wanted.v.dtype)
            bound += kept.eps / 2 * (weights @ v) + kept.smallest_normal * kept.eps / 2 * v.sum(1, keepdim=True) / 2**15
        _assert_close("output", statistics.output, expected.output, bound)
    if wanted.entropy:
        bound = 2 * allowed.score + allowed.relative * (expected.entropy + 1)
        _assert_close("entropy", statistics.entropy, expected.entropy, bound)
    if wanted.distance:
        bound = allowed.relative * expected.distance.absolute + allowed.place
        _assert_close("signed distance", statistics.distance.signed, expected.distance.signed, bound)
        _assert_close("absolute distance", statistics.distance.absolute, expected.distance.absolute, bound)
    for name in ("received", "cells.sum", "cells.max"):
        if getattr(expected, name.split(".")[0]) is not None:
            got, want = _field(statistics, name), _field(expected, name)
            _assert_close(name, got, want, allowed.relative * want + allowed.tiny * problem.shape[1])
    if wanted.top:
        _assert_top(statistics, scaled, weights, allowed, wanted.top)
    assert statistics.logsumexp.dtype == torch.float64
    for tensor in tensors(statistics):
        assert tensor is statistics.logsumexp or tensor.dtype in (problem.dtype, torch.int64)


def tensors(statistics: Statistics) -> list[torch.Tensor]:
    """All that were given."""
    found = []
    for field in fields(Statistics):
        value = getattr(statistics, field.name)
        found += [] if value is None else [value] if isinstance(value, torch.Tensor) else list(value)
    return found


def _field(statistics: Statistics, name: str) -> torch.Tensor:
    value = statistics
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _assert_top(statistics, scaled, weights, allowed, count) -> None:
    """The keys are as good as the reference's own (near ties may fall either way), and the weights are theirs."""
    got, keys = statistics.top
    best = scaled.sort(-1, descending=True).values[:, :, :count]
    best = torch.nn.functional.pad(best, (0, count - best.shape[-1]), value=-torch.inf)
    listed = best > -torch.inf
    assert torch.equal(keys >= 0, listed), "as many keys are listed as are seen"
    assert bool((keys[~listed] == -1).all())
    assert bool((got[~listed] == 0).all())
    ordered = keys.sort(-1).values
    assert not bool(((ordered[:, :, 1:] == ordered[:, :, :-1]) & (ordered[:, :, 1:] >= 0)).any()), "no key comes twice"
    assert bool((got[:, :, 1:] <= got[:, :, :-1]).all()), "weights fall"
    own = scaled.gather(-1, keys.clamp(min=0))[listed]
    _assert_close("scaled scores of the top", own, best[listed], torch.tensor(2 * allowed.score))
    own = weights.gather(-1, keys.clamp(min=0))[listed]
    _assert_close("weights of the top", got[listed], own, allowed.relative * own + allowed.tiny)


def _assert_close(name, got, want, bound) -> None:
    assert got.shape == want.shape, name
    error = (got.double() - want).abs()
    wrong = ~((got == want) | (error <= bound))  # NaN is always wrong
    if bool(wrong.any()):
        place = tuple(int(i) for i in wrong.nonzero()[0])
        bound = torch.as_tensor(bound, dtype=torch.float64).expand_as(error)[place]
        raise AssertionError(
            f"{name}{list(place)}: {float(got[place])!r}, the reference has {float(want[place])!r}, "
            f"allowed is {float(bound):.2g} ({int(wrong.sum())} of {wrong.numel()} are off)"
        )
