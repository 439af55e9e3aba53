"""The matrix's exact numbers at any places, and each row's logsumexp, which is kept once it is known.

    weights = exp(scaled − logsumexp)     at any places, without the rest of their rows
    logsumexp = peak + log_total          the row's largest number, and the log of Σ exp(scaled − peak)

The two are kept and taken off one by one, for their sum would round log_total away beside a large peak. Both come from
the tiles' own numbers. A sweep's logsumexp serves where scores are small: a kernel rounds them in its own way, and where
they are large the rounding is too large to be mixed. Rows of large scores are computed in float64, however narrow q is,
and of huge ones in slices (kernels/sizes.py), so that what was asked before changes no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from softmap import kernels
from softmap.errors import NonFiniteError
from softmap.forking import Lock
from softmap.kernels import Swept, tile
from softmap.kernels.contract import Known, Statistics, Wanted
from softmap.kernels.part import of_heads
from softmap.kernels.sizes import LARGE, SWEPT, row_sizes
from softmap.matrix.known import REUSED, SweptRows
from softmap.tensors import joint_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, Int
    from numpy.typing import NDArray
    from torch import Tensor

    from softmap.kernels.contract import Problem
    from softmap.masks import Spans

Stage = Literal["scores", "scaled", "weights"]
STRIP = 1 << 22
"""How many numbers are computed at once: 16 MiB of float32."""
_PAIRS = 1 << 19  # single places that are computed at once: 4 MiB for each of the numbers that say where they are
_KEEPING = Lock()  # of all matrices, for it is held for a moment, and keeps none of them from being copied


class Lookup:
    """Numbers of one problem's matrix.

    Attributes:
        problem: the matrix, as its ingredients.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        # (2, heads, queries): each row's peak, NaN where unknown, and its log_total. Of NumPy, for a tensor that is made
        # in torch's inference mode could not be written to outside of it.
        self._kept: NDArray[np.float64] | None = None
        self._found: list[tuple[Sequence[int], Tensor]] = []  # logsumexp of sweeps, not yet sorted into `_kept`
        self._swept: set[int] = set()  # heads whose rows a sweep has given, where it could
        self._given: dict[int, Tensor] = {}  # their logsumexp, not yet looked at for passes
        self._of_heads: dict[int, SweptRows] = {}  # of heads that passes were made of
        self._head_problems: dict[int, Problem] = {}
        self._sizes: dict[int, NDArray[np.float64]] = {}  # of each head's rows, as `row_sizes` gives them

    @property
    def nbytes(self) -> int:
        """The bytes of what is held: q, k, the sinks, what is kept of rows, and what was made of q, k and the mask."""
        spans: Spans | None = self.problem.__dict__.get("spans")
        held = [self.problem.q, self.problem.k, self.problem.sinks, *(spans[:2] if spans else ())]
        kept = self._keeping().nbytes if self._knows else 0
        kept += sum(rows.nbytes for rows in list(self._given.values()))
        kept += sum(rows.nbytes for rows in list(self._of_heads.values()))
        kept += sum(sizes.nbytes for sizes in list(self._sizes.values()))
        made: int = sum(tensor.numel() * tensor.element_size() for tensor in held if tensor is not None)
        return kept + made

    def count_known(self, heads: Sequence[int]) -> int:
        """Of how many rows of these heads the logsumexp is kept."""
        return len((~np.isnan(self._keeping()[0, list(heads)])).nonzero()[0]) if self._knows else 0

    @torch.no_grad()
    def values(
        self, stage: Stage, head: Int[Tensor, "*shape"], query: Int[Tensor, "*shape"], key: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """The numbers at index tensors that broadcast, in `Problem.dtype`; work beyond the result is linear.

        Raises:
            NonFiniteError: a bias of NaN or +∞ that is met; scores or scaled beyond the range of the dtype.
        """
        shape = joint_shape(head, query, key)
        head, query, key = (
            index.reshape((1,) * (len(shape) - index.ndim) + index.shape) for index in (head, query, key)
        )
        of_keys = [d for d, size in enumerate(shape) if head.shape[d] == query.shape[d] == 1 and key.shape[d] == size]
        of_rows = [d for d in range(len(shape)) if d not in of_keys]
        if any(key.shape[d] > 1 for d in of_rows):
            return self._pairs(stage, shape, head, query, key)
        order = of_rows + of_keys
        rows = [shape[d] for d in of_rows] + [1] * len(of_keys)
        head, query = (index.permute(order).expand(rows).reshape(-1) for index in (head, query))
        table = self._tile(stage, head, query, key.permute(order).reshape(-1))  # (rows, keys)
        back = [order.index(d) for d in range(len(shape))]
        return table.reshape([shape[d] for d in order]).permute(back).contiguous()

    @torch.no_grad()
    def logsumexp(self, head: Int[Tensor, " n"], query: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The logsumexp of rows, float64 on the CPU; those not yet known are computed and kept."""
        self._learn(head, query)
        peak, log_total = self._kept_of(head, query)
        return peak.where(peak.isinf(), peak + log_total)  # ∞ − ∞ is no number, and the row's logsumexp is ∞

    def of_head(self, head: int) -> Problem:
        """One head's matrix: kept, since it finds the largest of its q and k when it is first asked."""
        found = self._head_problems.get(head)
        if found is None:
            found = self._head_problems.setdefault(head, of_heads(self.problem, range(head, head + 1)))
        return found

    def known(self, head: int, rows: range, kernel: str) -> Known | None:
        """What a pass of this kernel takes off the scores of a head's rows; None where that does not serve it."""
        if kernel == "strips":  # computes as tiles do
            query = torch.arange(rows.start, rows.stop, device="cpu")
            own = torch.full_like(query, head)
            self._learn(own, query)
            return Known(*(each[None] for each in self._kept_of(own, query)))
        found = self.swept_rows(head, rows).of(rows)
        if found is not None:
            pair = np.stack([each.numpy() for each in found])
            query = torch.arange(rows.start, rows.stop, device="cpu")
            self._keep([head], query, self._small([head], query, pair))
        return found

    def knows(self, heads: Sequence[int]) -> bool:
        """Whether the logsumexp of all rows of these heads is known."""
        return self._swept.issuperset(heads) or self.count_known(heads) == len(heads) * self.problem.shape[1]

    def swept_rows(self, head: int, rows: range) -> SweptRows:
        """A head's rows as sweeps give them, with all that is known of these ones."""
        found = self._of_heads.get(head)
        if found is None:
            sizes = None if self._all_small else self.sizes_of(head)
            found = self._of_heads.setdefault(head, SweptRows(self.of_head(head), sizes))
        given = self._given.pop(head, None)
        if given is not None:
            found.give(given.double().numpy(), range(len(given)))
        if self._knows:
            kept = self._keeping()[:, head, rows.start : rows.stop]
            small = self._small([head], torch.arange(rows.start, rows.stop, device="cpu"), kept[:, None])[:, 0]
            found.give(np.where(np.isneginf(kept[0]), kept[0], small.sum(0)), rows)
        return found

    def sweep(self, heads: Sequence[int], wanted: Wanted) -> Swept:
        """Statistics of some heads, in one pass, whose logsumexp is kept; `wanted.v` has all the key heads."""
        sizes = [self._largest(head) for head in heads]
        steep = [size > SWEPT for size in sizes]  # only tiles' arithmetic serves these
        if list(heads) == list(range(self.problem.shape[0])) and len(set(steep)) == 1:
            self.problem.__dict__.setdefault("size", max(sizes))
            swept = kernels.sweep(self.problem, wanted)
        else:
            runs = _runs(heads, self.problem.group, steep)
            parts = [kernels.sweep(of_heads(self.problem, run), self._wanted(run, wanted)) for run in runs]
            swept = Swept(_joined([part.statistics for part in parts]), *_ran(parts))
        self.keep_swept(heads, swept.statistics.logsumexp)
        return swept

    def _tile(self, stage: Stage, head: Tensor, query: Tensor, key: Tensor) -> Float[Tensor, "rows keys"]:
        """Every one of these rows (head[n], query[n]) with every one of these keys."""
        table = torch.empty(len(query), len(key), dtype=self.problem.dtype, device=self.problem.q.device)
        if not table.numel():
            return table
        if stage == "weights":
            self._learn(head, query)
        keys = as_range(key)
        for dtype, chosen in self._by_dtype(stage, head, query):
            for heads, rows, places in _groups(head[chosen], query[chosen]):
                step = _height(len(heads) * len(key))
                for part, place in zip(rows.split(step), chosen[places].split(step, dim=1), strict=True):
                    numbers = tile.scores(self.problem, as_range(part), keys, heads, dtype)
                    if stage != "scores":
                        numbers = tile.scaled(self.problem, numbers, as_range(part), keys, heads)
                    if stage == "weights":
                        numbers = tile.weighed(numbers, *self._kept_of(head[place], query[place]))
                    table[place.to(table.device)] = self._narrow(stage, numbers)
        return table

    def _pairs(self, stage: Stage, shape: tuple[int, ...], *indices: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Single places: heads, queries and keys that broadcast to the shape, which are never laid out whole."""
        found = torch.empty(shape, dtype=self.problem.dtype, device=self.problem.q.device)
        if stage == "weights":
            self._learn(*indices[:2])
        step = max(1, min(STRIP, _PAIRS))
        for start in range(0, found.numel(), step):
            flat = np.arange(start, min(start + step, found.numel()))
            places = tuple(map(torch.from_numpy, np.unravel_index(flat, shape)))
            head, query, key = (index.expand(shape)[places] for index in indices)
            for dtype, chosen in self._by_dtype(stage, head, query):
                at = head[chosen], query[chosen], key[chosen]
                numbers = tile.scores_at(self.problem, *at, dtype)
                if stage != "scores":
                    numbers = tile.scaled_at(self.problem, numbers, *at)
                if stage == "weights":
                    numbers = tile.weighed(numbers[:, None], *self._kept_of(*at[:2]))[:, 0]
                found.view(-1)[(start + chosen).to(found.device)] = self._narrow(stage, numbers)
        return found

    def _by_dtype(self, stage: Stage, head: Tensor, query: Tensor) -> Iterator[tuple[torch.dtype, Int[Tensor, " n"]]]:
        """Which of the rows (head[n], query[n]) are computed in which dtype; known ones where weights are wanted."""
        narrow = tile.dtype_for(self.problem, torch.inf)
        large = self._large(head, query)
        if stage == "weights" and self.problem.bias is not None:
            peak = self._kept_of(head, query)[0].numpy()
            large |= np.isfinite(peak) & (np.abs(peak) > LARGE)
        every = torch.arange(len(head), device="cpu")
        if narrow == torch.float64 or not large.any() or self.problem.q.device.type == "mps":
            yield narrow, every
            return
        for dtype, chosen in ((narrow, ~large), (torch.float64, large)):
            if chosen.any():
                yield dtype, every[torch.from_numpy(chosen)]

    def _large(self, head: Tensor, query: Tensor) -> NDArray[np.bool_]:
        """Of which of the rows (head[n], query[n]) the scores are large."""
        found = np.zeros(len(head), dtype=bool)
        if self._all_small:
            return found
        for each in head.unique().tolist():
            if self._largest(each) > LARGE:
                own = (head == each).numpy()
                found[own] = self.sizes_of(each)[query.numpy()[own]] > LARGE
        return found

    def _largest(self, head: int) -> float:
        """The size of the largest of a head's rows; 0 where it is known that it is not large."""
        return 0.0 if self._all_small else float(self.sizes_of(head).max())

    @property
    def _all_small(self) -> bool:
        """Whether no score of any head can be large, at a glance."""
        return self.problem.rough_size <= LARGE

    def sizes_of(self, head: int) -> NDArray[np.float64]:
        """How large the scores of a head's rows may be."""
        found = self._sizes.get(head)
        if found is None:
            found = self._sizes.setdefault(head, row_sizes(self.of_head(head))[0].numpy())
        return found

    def _small(self, heads: Sequence[int], rows: Int[Tensor, " n"], pair: NDArray[np.float64]) -> NDArray[np.float64]:
        """Peak and log_total of rows, (2, heads, n), NaN where they are too large to be those of several roundings."""
        small = np.abs(pair.sum(0)) <= REUSED
        head = torch.tensor(heads, device="cpu").repeat_interleave(len(rows))
        large = self._large(head, rows.repeat(len(heads))).reshape(len(heads), -1)
        return np.where(small & ~large, pair, np.nan)

    def _learn(self, head: Int[Tensor, "*shape"], query: Int[Tensor, "*shape"]) -> None:
        """Compute and keep what is not yet known of rows (head, query): index tensors that broadcast."""
        unknown = self._unknown(head, query)
        swept = [self._learn_by_sweep(group.heads, group.rows) for group in unknown]
        if any(swept):
            unknown = self._unknown(head, query)
        for heads, rows, _ in unknown:
            for part in rows.split(_height(len(heads) * self.problem.shape[2])):
                self._keep(heads, part, self._peak_and_log_total(heads, part))

    def _unknown(self, head: Int[Tensor, "*shape"], query: Int[Tensor, "*shape"]) -> list[_Group]:
        """Those of rows (head, query) of which nothing is kept."""
        queries, kept = self.problem.shape[1], self._keeping()
        unknown = torch.from_numpy(np.isnan(kept[0, head.numpy(), query.numpy()]))
        if not bool(unknown.any()):
            return []
        rows = (head * queries + query)[unknown].unique()
        return _groups(rows // queries, rows % queries)

    def _learn_by_sweep(self, heads: Sequence[int], rows: Int[Tensor, " n"]) -> bool:
        """Whether a sweep was made, as for most rows of a large matrix, where it gives most of what tiles can use."""
        _, queries, keys = self.problem.shape
        height = _height(len(heads) * keys)
        if len(rows) <= height or 2 * len(rows) < queries or self._swept.issuperset(heads):
            return False
        sample = rows[:: -(-len(rows) // height)]
        found = self._peak_and_log_total(heads, sample)
        self._keep(heads, sample, found)
        usable = bool((~np.isnan(self._small(heads, sample, found)[0])).mean() > 0.5)
        if usable:
            self.sweep(heads, Wanted())
        return usable

    def _peak_and_log_total(self, heads: Sequence[int], rows: Int[Tensor, " n"]) -> NDArray[np.float64]:
        """(2, heads, n), from all keys of these rows."""
        found = np.full((2, len(heads), len(rows)), np.nan)
        head, query = torch.tensor(heads, device="cpu").repeat_interleave(len(rows)), rows.repeat(len(heads))
        flat = found.reshape(2, -1)
        for dtype, chosen in self._by_dtype("scaled", head, query):
            for own, part, places in _groups(head[chosen], query[chosen]):
                flat[:, chosen[places].numpy()] = self._of_rows(own, part, dtype)
        large = np.isfinite(flat[0]) & (np.abs(flat[0]) > LARGE)
        if self.problem.bias is not None and self.problem.q.device.type != "mps":  # which made them so
            for own, part, places in _groups(head[large], query[large]):
                flat[:, torch.from_numpy(large.nonzero()[0])[places].numpy()] = self._of_rows(own, part, torch.float64)
        return found

    def _of_rows(self, heads: Sequence[int], rows: Int[Tensor, " n"], dtype: torch.dtype) -> NDArray[np.float64]:
        """The same, in one dtype."""
        keys = self.problem.spans.key_range(rows) or range(1)
        scores = tile.scores(self.problem, as_range(rows), keys, heads, dtype)
        scaled = tile.scaled(self.problem, scores, as_range(rows), keys, heads, self.problem.spans)
        peak = scaled.amax(-1)
        sinks = None if self.problem.sinks is None else self.problem.sinks[list(heads)].to(peak.dtype)[:, None]
        peak = peak if sinks is None else peak.maximum(sinks)
        nothing = peak == -torch.inf  # a row that sees nothing: exp(−∞ − 0) = 0
        from_here = peak.masked_fill(nothing, 0)
        total = (scaled - from_here[..., None]).exp_().sum(-1)
        total = total if sinks is None else total + (sinks - from_here).exp()
        log_total = total.cpu().double().log().masked_fill(nothing.cpu(), 0)
        return np.stack((peak.cpu().double().numpy(), log_total.numpy()))

    @property
    def _knows(self) -> bool:
        """Whether anything is kept of any row."""
        return self._kept is not None or bool(self._found)

    def keep_swept(self, heads: Sequence[int], logsumexp: Float[Tensor, "heads queries"]) -> None:
        """Keep a sweep's logsumexp as it is; what tiles can use of it is put in order when one is looked at."""
        with _KEEPING:
            if not self._swept.issuperset(heads):
                self._swept.update(heads)
                kept = logsumexp.cpu().clone()
                self._found.append((heads, kept))
                self._given.update(zip(heads, kept, strict=True))

    def _sort_found(self, heads: Sequence[int], logsumexp: Float[Tensor, "heads queries"]) -> None:
        """Keep of a sweep what tiles can use; NaN, as of rows that are unknown, stands for the rest."""
        found = logsumexp.double().numpy()
        rows = torch.arange(self.problem.shape[1], device="cpu")
        found = self._small(heads, rows, found[None])[0]
        high = found.astype(np.float64 if self.problem.dtype == torch.float64 else np.float32).astype(np.float64)
        self._keep(heads, rows, np.stack((high, found - high)))

    def _keep(self, heads: Sequence[int], rows: Int[Tensor, " n"], found: NDArray[np.float64]) -> None:
        """Keep what was not known: what is kept never changes, so that tiles taken at any time agree."""
        highs, lows = self._keeping()
        place = np.array(heads)[:, None], rows.numpy()
        with _KEEPING:
            known = np.stack((highs[place], lows[place]))
            high, low = np.where(np.isnan(known[0]), found, known)
            lows[place] = low  # the peak comes last: a row is known by it, and readers take no lock
            highs[place] = high

    def _kept_of(self, head: Int[Tensor, "*shape"], query: Int[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
        """Peak and log_total of rows that are known."""
        kept = self._keeping()[:, head.numpy(), query.numpy()]
        return torch.from_numpy(kept[0]), torch.from_numpy(kept[1])

    def _keeping(self) -> NDArray[np.float64]:
        """The table of what is kept, made when it is first needed."""
        with _KEEPING:
            if self._kept is None:
                self._kept = np.full((2, *self.problem.shape[:2]), np.nan)
            found, self._found = self._found, []
        for heads, logsumexp in found:
            self._sort_found(heads, logsumexp)
        return self._kept

    def _narrow(self, stage: Stage, numbers: Tensor) -> Tensor:
        """Numbers computed in float64 so as not to overflow, in the result's dtype."""
        narrow = numbers.to(self.problem.dtype)
        if numbers.dtype == narrow.dtype or self.problem.nan or bool((narrow.isinf() == numbers.isinf()).all()):
            return narrow
        largest = float(numbers[narrow.isinf() & ~numbers.isinf()][0])
        hint = "Give q and k in float64; weights and statistics do not need it."
        raise NonFiniteError(stage, f"numbers within {self.problem.dtype}", f"{largest:.3g}", hint)

    def _wanted(self, heads: range, wanted: Wanted) -> Wanted:
        return replace(wanted, v=None if wanted.v is None else wanted.v[self._shared(heads)])

    def _shared(self, heads: range) -> slice:
        """The key heads of a run of heads."""
        return slice(heads.start // self.problem.group, (heads.stop - 1) // self.problem.group + 1)


class _Group(NamedTuple):
    """Heads of which the same rows are looked at, and where row (head, query) stands in the list they came from."""

    heads: list[int]
    rows: Int[Tensor, " rows"]
    places: Int[Tensor, "heads rows"]


def _groups(head: Int[Tensor, " n"], query: Int[Tensor, " n"]) -> list[_Group]:
    """A list of rows (head[n], query[n]) as few groups: one, where all heads have the same rows."""
    order = torch.argsort(head, stable=True)
    heads, counts = torch.unique_consecutive(head[order], return_counts=True)
    places = order.split(counts.tolist())
    rows = [query[place] for place in places]
    if rows and all(torch.equal(each, rows[0]) for each in rows):
        return [_Group(heads.tolist(), rows[0], torch.stack(places))]
    return [_Group([head], row, place[None]) for head, row, place in zip(heads.tolist(), rows, places, strict=True)]


def as_range(index: Int[Tensor, " n"]) -> range | Int[Tensor, " n"]:
    """A range where the index is one: it takes a view, not a copy."""
    if len(index) == 0 or not bool((index.diff() == 1).all()):
        return index
    return range(int(index[0]), int(index[-1]) + 1)


def _height(width: int) -> int:
    """How many rows of so many numbers one strip has."""
    return max(1, STRIP // max(1, width))


def _runs(heads: Sequence[int], group: int, steep: Sequence[bool]) -> Iterator[range]:
    """The heads as runs of neighbours that one sweep can take: whole groups, or heads of one group, all alike steep."""
    after = range(1, len(heads))
    cuts = [n for n in after if heads[n] != heads[n - 1] + 1 or steep[n] != steep[n - 1]]
    for start, stop in pairwise([0, *cuts, len(heads)]):
        first, last = heads[start], heads[stop - 1] + 1
        whole = -(-first // group) * group, last // group * group  # where the whole groups among them begin and end
        yield from (range(*pair) for pair in pairwise(sorted({first, min(whole[0], last), max(whole[1], first), last})))


def _ran(parts: Sequence[Swept]) -> tuple[str, str]:
    """The kernels that ran, and why not faster ones: each reason with its kernel, where there are several."""
    names = list(dict.fromkeys(part.kernel for part in parts))
    reasons = [part.why if len(names) == 1 else f"{part.kernel}: {part.why}" for part in parts if part.why]
    return " and ".join(names), " and ".join(dict.fromkeys(reasons))


def _joined(parts: Sequence[Statistics]) -> Statistics:
    """The statistics of several heads as one."""
    names = [field.name for field in fields(Statistics)]
    return Statistics(**{name: _cat([getattr(part, name) for part in parts]) for name in names})


def _cat(values: list[Any]) -> Any:
    if values[0] is None:
        return None
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)
    return type(values[0])(*(torch.cat(parts) for parts in zip(*values, strict=True)))
