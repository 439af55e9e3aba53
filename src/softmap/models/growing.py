"""One attention layer on one sequence while the model runs: the pieces of its calls, put together.

A call may continue what is there (a cache of keys, of which each new token adds a query), or stand beside it (a picture of
several, each of which sees itself alone). Keys are kept once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from softmap import biases, masks
from softmap.errors import ModelError
from softmap.kernels.contract import Problem
from softmap.masks.stacked import Run as Stretch
from softmap.masks.stacked import Stacked
from softmap.models.attending import Piece, bias_of, table_by_distance
from softmap.models.continuing import ONE_BY_ONE, WHOLE, Run
from softmap.models.masking import both, join, mentions_causal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int
    from torch import Tensor, nn

    from softmap.biases import Bias
    from softmap.kernels import Swept
    from softmap.masks import Mask


@dataclass(eq=False)
class Block:
    """Queries that see the same keys, from one call or from several that continue each other.

    Attributes:
        pieces: what the calls said, in their order; of all but the first without q, k and v.
        q: the queries of each call, (heads, queries, d_k).
        k: the keys that each call brought, (kv_heads, keys, d_k).
        v: their values, (kv_heads, keys, d_v); none where they are not kept.
        prints: a fingerprint of each key so far, (keys).
    """

    pieces: list[Piece] = field(default_factory=list)
    q: list[Tensor] = field(default_factory=list)
    k: list[Tensor] = field(default_factory=list)
    v: list[Tensor] = field(default_factory=list)
    prints: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def rows(self) -> range:
        """The positions of all queries so far."""
        return range(self.pieces[0].rows.start, self.pieces[-1].rows.stop)

    @property
    def keys(self) -> range:
        """The positions of all keys so far."""
        return range(self.pieces[0].keys.start, max(piece.keys.stop for piece in self.pieces))

    def check(self, piece: Piece, path: str, run: Run, others: Sequence[Block]) -> None:
        """Refuse another call whose queries do not come right after those that are there, or whose keys have changed.

        Args:
            piece: the call.
            path: the layer, as errors name it.
            run: the run of the model that it is made in.
            others: what there is of the batch's other sequences.

        Raises:
            ModelError: they do not, with the reason.
        """
        if not self.pieces:
            return
        if piece.rows.start != self.rows.stop or piece.keys.start > self.keys.stop:
            expected = f"queries that continue at {self.rows.stop}, on keys that continue at {self.keys.stop}"
            raise ModelError(path, expected, *run.refuse_order(piece.rows, piece.keys, self.rows))
        prints = _fingerprints(piece.k)
        if not self._agrees(piece, prints):
            known = len(self.prints)  # others may have got their new key by now
            moved = any(other._agrees(piece, prints[: known + self.keys.start - piece.keys.start]) for other in others)
            raise ModelError(path, "the same keys of earlier tokens in each call", *run.refuse_keys(moved))

    def add(self, piece: Piece, *, keep: bool, values: bool, copy: bool) -> None:
        """Take another call, whose queries come right after those that are there; only its positions unless `keep`."""
        new = piece.keys.start if not self.pieces else self.keys.stop
        self.prints = torch.cat([self.prints, _fingerprints(piece.k)[max(0, new - piece.keys.start) :]])
        fresh = slice(new - piece.keys.start if keep else len(piece.keys), None)
        self.q.append(_taken(piece.q[:, 0 if keep else len(piece.rows) :], copy=False))
        self.k.append(_taken(piece.k[:, fresh], copy))
        if values:
            self.v.append(_taken(piece.v[:, fresh], copy))
        self.pieces.append(piece.without_arrays())

    def mask(self) -> Mask:
        """Which of these keys each of these queries sees."""
        rules = [(piece.rows, range(self.keys.start, piece.keys.stop), piece.rule) for piece in self.pieces]
        return both(join(rules, self.keys), self.pieces[-1].padding(self.keys))

    def bias(self, path: str) -> Bias | None:
        """What is added to their scaled scores.

        Raises:
            ModelError: biases of several calls that are not one number for each distance.
        """
        added = [piece.added for piece in self.pieces]
        if all(one is None for one in added):
            return None
        if len(added) == 1 and added[0] is not None:
            return bias_of(added[0], len(self.q[0]))
        numbers: dict[int, Tensor] = {}
        for piece in self.pieces:
            table = None if piece.added is None else table_by_distance(piece.added)
            if table is None:
                raise ModelError(path, "a bias for each distance", "another in one of several calls", WHOLE)
            first = piece.keys.start - piece.rows.stop + 1
            for i in range(table.shape[1]):
                known = numbers.setdefault(first + i, table[:, i])
                if not torch.equal(known, table[:, i]):
                    raise ModelError(path, "one bias for each distance", f"two for {first + i}", WHOLE)
        distances, heads = sorted(numbers), len(self.q[0])
        offset = self.rows.start - self.keys.start
        table = torch.stack([numbers[d] for d in distances], 1).expand(heads, -1)
        return biases.relative(table, zero=-distances[0], offset=offset)

    def crop(self, stop: int, *, keys: bool) -> None:
        """Drop the queries from a position on, and their keys where these are the same tokens."""
        while self.pieces and self.pieces[-1].rows.start >= stop:
            for parts in (self.pieces, self.q, self.k, self.v):
                parts[-1:] = []
        if not self.pieces:
            self.prints = self.prints[:0]
            return
        last = self.pieces[-1]
        excess_rows = max(0, last.rows.stop - stop)
        excess_keys = max(0, last.keys.stop - stop) if keys else 0
        self.pieces[-1] = last.cropped(len(last.rows) - excess_rows, len(last.keys) - excess_keys)
        self.q[-1] = self.q[-1][:, : len(last.rows) - excess_rows]
        for parts in (self.k, self.v):
            parts[-1:] = [part[:, : max(0, part.shape[1] - excess_keys)] for part in parts[-1:]]
        self.prints = self.prints[: len(self.keys)]

    def may_have(self, position: int, key: Float[Tensor, "kv_heads 1 d_k"]) -> bool:
        """Whether this may be the key of a position: not where another was seen there."""
        alike = key.shape[0] == self.k[0].shape[0] and key.shape[2] == self.k[0].shape[2]
        if position not in self.keys or not alike:
            return True
        known = self.prints[position - self.keys.start].reshape(1)
        return _same(known, _fingerprints(key), key.dtype)

    def _agrees(self, piece: Piece, prints: Float[Tensor, " keys"]) -> bool:
        """Whether the keys that were there are still what they were, up to rounding: some models make them anew.

        A fingerprint of each key is kept, one number that any change of it moves.
        """
        first = self.keys.start
        both = range(max(piece.keys.start, first), min(piece.keys.start + len(prints), first + len(self.prints)))
        known = self.prints[both.start - first : both.stop - first]
        now = prints[both.start - piece.keys.start : both.stop - piece.keys.start]
        return not len(known) or _same(known, now, piece.k.dtype)


@dataclass(eq=False)
class Growing:
    """One attention layer on one sequence.

    Attributes:
        module: the attention layer.
        path: its path in the model.
        blocks: queries that see keys of their own, one after the other; one where there are no such.
        swept: the statistics of the only call, as long as there is no other.
        difference: how far the output was from the model's own function, or None where there was nothing to compare.
        own: the output of the model's own function at the rows that were compared, (heads, n, d_v), where it is kept.
        compared: which rows these are, (n,), likewise.
        x: what entered the layer, (tokens, d_model), likewise.
    """

    module: nn.Module
    path: str
    blocks: list[Block] = field(default_factory=list)
    swept: Swept | None = None
    difference: float | None = None
    own: Float[Tensor, "heads n d_v"] | None = None
    compared: Int[Tensor, " n"] | None = None
    x: Tensor | None = None

    def crop(self, stop: int, *, keys: bool) -> None:
        """Drop what was recorded from a position on: tokens that the model's cache has dropped."""
        if self.blocks and self.blocks[-1].rows.stop > stop:
            self.swept = None
            self.blocks[-1].crop(stop, keys=keys)
            if not self.blocks[-1].pieces:
                self.blocks.pop()

    def forget(self) -> None:
        """Let go of everything: it is kept elsewhere by now."""
        self.swept = self.own = self.x = None
        self.blocks.clear()

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return sum(len(block.pieces) for block in self.blocks)

    @property
    def is_decoders(self) -> bool:
        """Whether it is a decoder's, by what its module says of itself, or by its mask."""
        pieces = [piece for block in self.blocks for piece in block.pieces]
        return bool(getattr(self.module, "is_causal", False)) or all(mentions_causal(piece.rule) for piece in pieces)

    def problem(self) -> Problem:
        """The matrix of all calls."""
        first, q, k = self.blocks[0].pieces[0], *self.qk()
        if len(self.blocks) == 1:
            mask, bias = self.blocks[0].mask(), self.blocks[0].bias(self.path)
        else:
            mask, bias = self._stacked(), None
        return Problem(q, k, mask, first.scale, first.softcap, first.sinks, bias)

    def qk(self) -> tuple[Tensor, Tensor]:
        """All queries, (heads, queries, d_k), and all keys, (kv_heads, keys, d_k)."""
        return (
            _joined([part for block in self.blocks for part in block.q]),
            _joined([part for block in self.blocks for part in block.k]),
        )

    def values(self) -> Tensor | None:
        """All values, (kv_heads, keys, d_v); None where they were not kept."""
        parts = [part for block in self.blocks for part in block.v]
        return _joined(parts) if parts else None

    def _stacked(self) -> Mask:
        if any(block.bias(self.path) is not None for block in self.blocks):
            raise ModelError(self.path, "no bias where several pictures are seen apart", "one", f"{ONE_BY_ONE}.")
        masks_of = [block.mask() for block in self.blocks]
        if all(repr(mask) == "full()" for mask in masks_of):
            sizes = [[len(block.rows) for block in self.blocks], [len(block.keys) for block in self.blocks]]
            ids = torch.arange(len(self.blocks))
            of_rows, of_keys = (ids.repeat_interleave(torch.tensor(counts)) for counts in sizes)
            return masks.documents(of_rows, None if sizes[0] == sizes[1] else of_keys)
        runs, first = [], 0
        for block, mask in zip(self.blocks, masks_of, strict=True):
            keys = range(first, first + len(block.keys))
            runs.append(Stretch(len(block.rows), keys, mask))
            first = keys.stop
        return Stacked(tuple(runs), offset=0 if all(len(run.keys) == run.queries for run in runs) else None)


def _taken(x: Tensor, copy: bool) -> Tensor:
    """An array that nothing else writes to, and that does not hold more than itself."""
    part_of_more = x.untyped_storage().nbytes() > x.numel() * x.element_size()
    return x.detach().clone() if copy or part_of_more else x.detach()


def _fingerprints(k: Float[Tensor, "kv_heads keys d_k"]) -> Float[Tensor, " keys"]:
    """One number for each key, on the CPU: its product with a fixed random vector."""
    heads, _, width = k.shape
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(heads, width, dtype=torch.float32, generator=generator).to(k.device)
    return torch.einsum("hnd,hd->n", k.float(), vector).cpu()


def _same(known: Tensor, now: Tensor, dtype: torch.dtype) -> bool:
    """Whether fingerprints are the same up to rounding."""
    most = max(1e-4, torch.finfo(dtype).eps) * float(known.abs().max())
    return float((known - now).abs().max()) <= most


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
