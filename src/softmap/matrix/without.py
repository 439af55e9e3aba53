"""A matrix without some of its keys, such as the first token and special tokens, which take most of the attention.

Hidden, the keys are left out, and every other weight is as it was: rows are normalised over all keys. Rescaled, the
softmax is taken over the other keys alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from softmap import masks
from softmap.errors import ParameterError
from softmap.matrix.attention import AttentionMatrix
from softmap.matrix.lookup import Lookup

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from softmap.kernels import Swept
    from softmap.kernels.contract import Known, Problem, Wanted


def without(matrix: AttentionMatrix, keys: Sequence[int], rescaled: bool) -> AttentionMatrix:
    """The same matrix with these keys out of sight.

    Args:
        matrix: a matrix, or some heads of one; where keys are hidden, the two share what is kept of rows.
        keys: numbers of keys.
        rescaled: whether the rows are normalised over the other keys; else they stay as they are, and sum to less.
    """
    problem = matrix._lookup.problem
    seen = torch.ones(problem.shape[2], dtype=torch.bool, device="cpu")
    seen[torch.tensor(keys, dtype=torch.int64, device="cpu")] = False
    rest = replace(problem, mask=problem.mask & masks.padding(seen)).as_part_of(problem)
    found = object.__new__(AttentionMatrix)
    lookup = Lookup(rest) if rescaled else _HiddenKeys(rest, matrix._lookup)
    found._set("weights", lookup, matrix._heads, matrix._flat, matrix._kind)
    return found


class _HiddenKeys(Lookup):
    """Numbers of a matrix of which keys are hidden: all is as usual but for its rows' logsumexp, the whole matrix's."""

    def __init__(self, problem: Problem, whole: Lookup) -> None:
        super().__init__(problem)
        self._whole = whole

    @property
    def nbytes(self) -> int:
        """The bytes of what is held; q and k are the whole matrix's."""
        spans = self.problem.__dict__.get("spans")
        made: int = sum(ends.nbytes for ends in (spans[:2] if spans else ()))
        return self._whole.nbytes + made

    def count_known(self, heads: Sequence[int]) -> int:
        return self._whole.count_known(heads)

    def knows(self, heads: Sequence[int]) -> bool:
        """True: no sweep of this matrix would give its rows' logsumexp."""
        return True

    def known(self, head: int, rows: range, kernel: str) -> Known | None:
        return self._whole.known(head, rows, kernel)

    def logsumexp(self, head: Int[Tensor, " n"], query: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self._whole.logsumexp(head, query)

    def sweep(self, heads: Sequence[int], wanted: Wanted) -> Swept:
        """Refused: a sweep would normalise the rows over the keys that are left."""
        raise ParameterError(
            "keys",
            "a matrix of all keys, or one rescaled to the others, for statistics",
            f"one of {len(heads)} heads in which keys are hidden",
            "Tiles, rows and blocks of it can be looked at.",
        )

    def _learn(self, head: Int[Tensor, "*shape"], query: Int[Tensor, "*shape"]) -> None:
        self._whole._learn(head, query)

    def _kept_of(self, head: Int[Tensor, "*shape"], query: Int[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
        return self._whole._kept_of(head, query)
