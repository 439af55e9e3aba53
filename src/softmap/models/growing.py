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
from softmap.masks.stacked import Run, Stacked
from softmap.models.attending import Piece, bias_of, table_by_distance
from softmap.models.masking import both, join, mentions_causal

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor, nn

    from softmap.biases import Bias
    from softmap.kernels import Swept
    from softmap.masks import Mask

AGAIN = (
    "Record each run of the model by itself; of generation, with one beam and one sequence for each prompt "
    "(num_beams=1, num_return_sequences=1)."
)


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

    def add(self, piece: Piece, path: str, *, keep: bool, values: bool, copy: bool) -> None:
        """Take another call, whose queries come right after those that are there; only its positions unless `keep`.

        Raises:
            ModelError: they do not, or the keys that were there have changed.
        """
        if self.pieces and (piece.rows.start != self.rows.stop or piece.keys.start > self.keys.stop):
            got = f"queries {piece.rows.start} to {piece.rows.stop} on keys {piece.keys.start} to {piece.keys.stop}"
            expected = f"queries that continue at {self.rows.stop}, on keys that continue at {self.keys.stop}"
            raise ModelError(path, expected, got, AGAIN)
        new = piece.keys.start if not self.pieces else self.keys.stop
        if not self._continues(piece):
            raise ModelError(path, "the same keys of earlier tokens in each call", "others", AGAIN)
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
                raise ModelError(path, "a bias for each distance", "another in one of several calls", AGAIN)
            first = piece.keys.start - piece.rows.stop + 1
            for i in range(table.shape[1]):
                known = numbers.setdefault(first + i, table[:, i])
                if not torch.equal(known, table[:, i]):
                    raise ModelError(path, "one bias for each distance", f"two for {first + i}", AGAIN)
        distances, heads = sorted(numbers), len(self.q[0])
        offset = self.rows.start - self.keys.start
        table = torch.stack([numbers[d] for d in distances], 1).expand(heads, -1)
        return biases.relative(table, zero=-distances[0], offset=offset)

    def _continues(self, piece: Piece) -> bool:
        """Whether the keys that were there are still what they were, up to rounding: some models make them anew.

        Of each key a fingerprint is kept, one number that any change of it moves.
        """
        prints = _fingerprints(piece.k)  # (keys of the piece)
        first = self.keys.start if self.pieces else piece.keys.start
        both = range(max(piece.keys.start, first), min(piece.keys.stop, first + len(self.prints)))
        known = self.prints[both.start - first : both.stop - first]
        now = prints[both.start - piece.keys.start : both.stop - piece.keys.start]
        fresh = max(0, first + len(self.prints) - piece.keys.start)
        self.prints = torch.cat([self.prints, prints[fresh:]])
        if not len(known):
            return True
        most = max(1e-4, torch.finfo(piece.k.dtype).eps) * float(known.abs().max())
        return float((known - now).abs().max()) <= most


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
            raise ModelError(self.path, "no bias where several pictures are seen apart", "one", AGAIN)
        masks_of = [block.mask() for block in self.blocks]
        if all(repr(mask) == "full()" for mask in masks_of):
            sizes = [[len(block.rows) for block in self.blocks], [len(block.keys) for block in self.blocks]]
            ids = torch.arange(len(self.blocks))
            of_rows, of_keys = (ids.repeat_interleave(torch.tensor(counts)) for counts in sizes)
            return masks.documents(of_rows, None if sizes[0] == sizes[1] else of_keys)
        runs, first = [], 0
        for block, mask in zip(self.blocks, masks_of, strict=True):
            keys = range(first, first + len(block.keys))
            runs.append(Run(len(block.rows), keys, mask))
            first = keys.stop
        return Stacked(tuple(runs), offset=0 if all(len(run.keys) == run.queries for run in runs) else None)


def _taken(x: Tensor, copy: bool) -> Tensor:
    """An array that nothing else writes to, and that does not hold more than itself."""
    part_of_more = x.untyped_storage().nbytes() > x.numel() * x.element_size()
    return x.detach().clone() if copy or part_of_more else x.detach()


def _fingerprints(k: Float[Tensor, "kv_heads keys d_k"]) -> Float[Tensor, " keys"]:
    """One number for each key, on the CPU: its product with a fixed random vector."""
    heads, _, width = k.shape
    vector = torch.randn(heads, width, generator=torch.Generator().manual_seed(0)).to(k.device)
    return torch.einsum("hnd,hd->n", k.float(), vector).cpu()


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
