"""The attention matrix that is never stored: any number of it, exactly, from q and k, when somebody looks.

    scores  = q kᵀ                                    step 1
    scaled  = softcap(scores · scale) + bias          step 2, −∞ where masked
    weights = exp(scaled − logsumexp)                 step 3: a tile of them needs its rows' logsumexp, not its rows
    output  = weights v                               step 4

A row's logsumexp takes one look at all its keys, and is kept; memory stays linear in the number of tokens.

Milakov and Gimelshein, 2018, "Online normalizer calculation for softmax", https://arxiv.org/abs/1805.02867;
Dao et al., 2022, "FlashAttention", section 3.1, https://arxiv.org/abs/2205.14135
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from softmap.errors import ParameterError, ShapeError, SizeError, TileError
from softmap.kernels.contract import Distance, Top, Wanted
from softmap.matrix.blocks import How, Rectangle, cells_of
from softmap.matrix.indexing import expand, places
from softmap.matrix.inputs import kind_of, read_count, read_distance, read_grid, read_problem, read_values
from softmap.matrix.lazy import LIMIT, LazyMatrix, StageView
from softmap.matrix.lookup import STRIP, Lookup
from softmap.matrix.summary import Summary, in_dtype, summarize
from softmap.mechanism import PAGE, Steps
from softmap.tensors import joint_shape

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from softmap.arrays import Array
    from softmap.biases import Bias
    from softmap.kernels import Swept
    from softmap.kernels.contract import Problem
    from softmap.masks import Mask
    from softmap.matrix.lookup import Stage


class AttentionMatrix(LazyMatrix):
    """The attention weights of q and k, as an array that is computed where it is looked at.

    Indexing is NumPy's. An index of heads alone gives a matrix again, at no cost: `m[2]` is head 2's, of shape
    (queries, keys). Whatever touches queries or keys gives the exact weights there: `m[2, 100:200, :50]`. Rows sum to
    1 over the keys that a query sees, and to less by the share of a sink.

    All of it is `m.dense()`, an array of q's kind, and `numpy.asarray(m)`; `torch.as_tensor` looks for an array in
    memory and finds none, so give it `m.dense()`.

    q and k are held as they are, without a copy: who changes them must make a new matrix.

    Args:
        q: the queries, (heads, queries, d_k), or (queries, d_k) for one head. A NumPy array, a torch tensor, or an array
            of any library with `__dlpack__`; float16, bfloat16, float32 or float64.
        k: the keys, (kv_heads, keys, d_k), or (keys, d_k); kv_heads divides heads, and heads / kv_heads neighbours
            share a key head. Of q's library, device and dtype.
        mask: which query may see which key, made by `softmap.masks`; every query sees every key unless given.
        scale: what multiplies the scores; 1/√d_k unless given.
        softcap: scaled scores become softcap · tanh(scaled / softcap), as in Gemma 2
            (https://arxiv.org/abs/2408.00118, section 2); none unless given.
        sinks: one extra logit for each head that takes a share of every row, (heads,), as in gpt-oss
            (https://arxiv.org/abs/2508.10925); none unless given.
        bias: what is added to the scaled scores, made by `softmap.biases`; none unless given.
        nan: "refuse" NaN and infinity, or "propagate" them as NumPy would.

    Raises:
        ArrayKindError: not an array; arrays of two libraries or devices.
        DtypeError: not floating point; q and k of two dtypes.
        ShapeError: sizes that do not fit, nothing at all, or an axis of batches; a mask or bias of another size.
        NonFiniteError: NaN or infinity, with the position of the first.
        ParameterError: an option outside the values that it may take.

    Examples:
        >>> import softmap
        >>> x, w_q, w_k, w_v = softmap.example()
        >>> m = softmap.AttentionMatrix(x @ w_q, x @ w_k, mask=softmap.masks.causal())
        >>> m
        AttentionMatrix(shape (3, 3), float64, mask causal(), scale 0.125, logsumexp of 0 of 3 rows kept)
        >>> m[1, :2].round(2)
        array([0.05, 0.95])
    """

    def __init__(
        self,
        q: Float[Array, "heads queries d_k"],
        k: Float[Array, "kv_heads keys d_k"],
        *,
        mask: Mask | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: Float[Array, " heads"] | None = None,
        bias: Bias | None = None,
        nan: str = "refuse",
    ) -> None:
        problem, kind, flat = read_problem(
            q, k, mask=mask, scale=scale, softcap=softcap, sinks=sinks, bias=bias, nan=nan
        )
        self._set("weights", Lookup(problem), torch.arange(problem.shape[0], device="cpu"), flat, kind)

    @classmethod
    def _of(cls, problem: Problem, logsumexp: Float[Tensor, "heads queries"] | None) -> AttentionMatrix:
        """The matrix of a problem that was read and checked before, in torch; its rows' logsumexp where it is known."""
        matrix, lookup = object.__new__(cls), Lookup(problem)
        if logsumexp is not None:
            lookup.keep_swept(range(problem.shape[0]), logsumexp)
        matrix._set("weights", lookup, torch.arange(problem.shape[0], device="cpu"), False, kind_of(problem.q))
        return matrix

    def __repr__(self) -> str:
        problem = self._lookup.problem
        added = {"softcap": problem.softcap, "sinks": problem.sinks, "bias": problem.bias}
        parts = [
            f"shape {self.shape}",
            f"{self.dtype}",
            f"mask {problem.mask!r}",
            f"scale {problem.scale:g}",
            *(f"with {name}" for name, value in added.items() if value is not None),
            f"logsumexp of {self._lookup.count_known(self._heads.tolist())} of {self.heads * self.queries} rows kept",
        ]
        return f"AttentionMatrix({', '.join(parts)})"

    def _repr_html_(self) -> str | None:
        from softmap.viewer.stills import as_html

        return as_html(self)

    @property
    def nbytes(self) -> int:
        """The bytes of what is held: q, k, the sinks, and what is kept of rows; a matrix of some heads shares them."""
        return self._lookup.nbytes

    @property
    def mask(self) -> Mask:
        """Which query may see which key."""
        return self._lookup.problem.mask

    @property
    def scale(self) -> float:
        """What multiplies the scores."""
        return self._lookup.problem.scale

    @property
    def scores(self) -> StageView:
        """Step 1, q kᵀ, indexed as the matrix is."""
        return self._view("scores")

    @property
    def scaled(self) -> StageView:
        """Step 2, softcap(scores · scale) + bias, −∞ where a query may not see a key; indexed as the matrix is."""
        return self._view("scaled")

    def summary(
        self,
        v: Float[Array, "kv_heads keys d_v"] | None = None,
        *,
        top: int = 8,
        cells: int | tuple[int, int] | None = 64,
        entropy: bool = True,
        distance: bool | None = None,
        received: bool = True,
    ) -> Summary:
        """Exact statistics of the whole matrix, in one pass.

        Args:
            v: the values, (kv_heads, keys, d_v), or (keys, d_v) of one head, where the output is wanted. Of some heads,
                as `m[2:].summary(v)`, it is the whole matrix's v still, with all key heads.
            top: how many of the largest weights of each row; 0 for none.
            cells: a grid of so many cells each way over the matrix, whatever its size, or (rows, keys) of them; 0 for
                none.
            entropy: whether each row's entropy is wanted, nats.
            distance: whether each row's mean distances are wanted, tokens. Unless given, they are where it is known at
                which key query 0 stands: as many queries as keys, or a mask or bias that was given an offset.
            received: whether the keys' column sums are wanted.

        Raises:
            SoftmapError: v that does not fit k; top or cells that is no whole number of at least 0.
            ParameterError: distances wanted where it is not known at which key query 0 stands.
            SizeError: a top or cells of more than 1 GiB.

        Examples:
            >>> import softmap
            >>> x, w_q, w_k, w_v = softmap.example()
            >>> s = softmap.AttentionMatrix(x @ w_q, x @ w_k).summary(x @ w_v, top=1)
            >>> s.top.keys[:, 0], s.entropy.round(2)
            (array([0, 1, 2]), array([0.4 , 0.29, 0.68]))
        """
        grid = read_grid(cells, self.queries, self.keys)
        if grid is not None:
            self._refuse_large((self.heads, 2, len(grid.row_edges) - 1, len(grid.key_edges) - 1))
        wanted = Wanted(
            v=None if v is None else read_values(v, self._lookup.problem, self._kind, self._flat),
            top=self._read_top("top", top, 0),
            entropy=bool(entropy),
            distance=read_distance(distance, self._lookup.problem),
            received=bool(received),
            cells=grid,
        )
        return summarize(self._sweep(wanted), grid, self._lookup.problem.dtype, self._give)

    def row(self, i: int) -> Float[Array, "heads keys"]:
        """The weights with which query i looks at every key."""
        return self[(slice(None),) * (self.ndim - 2) + (i,)]

    def top(self, k: int = 8) -> Top:
        """The k largest weights of each row, and their keys, as in `Summary.top`.

        Raises:
            ParameterError: k that is no whole number of at least 1.
            SizeError: a result of more than 1 GiB.
        """
        top: Top = self._summary(top=self._read_top("k", k, 1)).top
        return top

    def received(self) -> Float[Array, "heads keys"]:
        """How much attention each key receives, Σ_i w_ij, in queries."""
        return self._summary(received=True).received

    def entropy(self) -> Float[Array, "heads queries"]:
        """How widely each row's weights are spread, −Σ_j w_ij ln w_ij, in nats."""
        return self._summary(entropy=True).entropy

    def distance(self) -> Distance:
        """How far each row looks, in tokens, as in `Summary.distance`.

        Raises:
            ParameterError: it is not known at which key query 0 stands.
        """
        distance: Distance = self._summary(distance=read_distance(True, self._lookup.problem)).distance
        return distance

    def logsumexp(self) -> Float[Array, "heads queries"]:
        """Each row's ln Σ_j exp(scaled_ij), a sink's logit included, in nats; kept once it is known.

        In float64 where float32 does not hold it, as of scores beyond 3e38.
        """
        head = self._heads.repeat_interleave(self.queries)
        query = torch.arange(self.queries, device="cpu").repeat(self.heads)
        found = self._lookup.logsumexp(head, query)
        problem = self._lookup.problem
        return self._give(in_dtype(found.reshape(self.heads, -1), problem.dtype).to(problem.q.device))

    def diagonal(self, offset: int = 0) -> Float[Array, "heads n"]:
        """The weights at (i, i + offset), as `numpy.diagonal`: with a positive offset of later keys.

        Raises:
            ParameterError: an offset that is no whole number.
            SizeError: a result of more than 1 GiB.
        """
        offset = read_count("offset", offset, None, "It is how many keys after the query's number to look.")
        offset = max(-self.queries, min(offset, self.keys))  # beyond them all there is nothing
        first = max(0, -offset)
        query = torch.arange(first, max(first, min(self.queries, self.keys - offset)), device="cpu")
        return self._kind.give(self._values_at(query, query + offset))

    def at(self, rows: Int[Array, " n"], keys: Int[Array, " n"]) -> Float[Array, "heads n"]:
        """The weights of single places (rows[n], keys[n]): whole numbers, or arrays of them that broadcast.

        Raises:
            TileError: places outside the matrix, or no whole numbers.
            SizeError: a result of more than 1 GiB.
        """
        read = expand((rows, keys), self.shape[-2:], ("queries", "keys"))
        if any(isinstance(entry, slice) for entry in read.entries):
            raise TileError("rows and keys", "whole numbers, or arrays of them", "a slice", "Take m[..., rows, keys].")
        return self._kind.give(self._values_at(*places(read, self.shape[-2:])))

    def blocks(
        self,
        cell: int | tuple[int, int],
        how: How = "sum",
        *,
        rows: slice | None = None,
        keys: slice | None = None,
    ) -> Float[Array, "heads down across"]:
        """The sum or maximum of the weights in each cell of a rectangle.

        Args:
            cell: how many queries and keys a cell has each way, or (queries, keys). Cells are counted from the
                rectangle's corner; the last ones are smaller where the size does not divide.
            how: "sum", probability mass, or "max", probability.
            rows: the rectangle's queries, without a step; all of them unless given.
            keys: the rectangle's keys, likewise.

        Raises:
            ParameterError: a cell below 1, or another `how`; SOFTMAP_KERNEL names a kernel that cannot serve.
            TileError: a rectangle with a step, or without a place in it.
            SizeError: a result of more than 1 GiB.
        """
        if how not in ("sum", "max"):
            raise ParameterError("how", '"sum" or "max"', repr(how), "It says what a cell tells of its weights.")
        rectangle = self._rectangle(cell, rows, keys)
        self._refuse_large((self.heads, *rectangle.shape))
        found = cells_of(self._lookup, self._heads.tolist(), rectangle)
        return self._give(found.sum if how == "sum" else found.max)

    def steps(self, rows: Any = None, keys: Any = None, v: Float[Array, "keys d_v"] | None = None) -> Steps:
        """The four steps for a page of tokens of one head, with the matrix's own weights.

        Args:
            rows: which queries, a slice or an array of whole numbers, at most 512; all of them unless given.
            keys: which keys, likewise. Weights are shares of all keys, so that those of some sum to less than 1.
            v: the values of all keys, (keys, d_v), where the output is wanted; it sums over all keys.

        Raises:
            ShapeError: a matrix of several heads.
            SizeError: more than 512 queries or keys.
            SoftmapError: as indexing and `summary`; and as `Steps`.

        Examples:
            >>> import softmap
            >>> x, w_q, w_k, w_v = softmap.example()
            >>> softmap.AttentionMatrix(x @ w_q, x @ w_k).steps(rows=[0]).scores
            array([[110.,  90.,  83.]])
        """
        if self.heads > 1:
            hint = "Take one head: m[0].steps()."
            raise ShapeError("steps", "a matrix of one head", f"shape {self.shape}", hint)
        problem, head = self._lookup.problem, int(self._heads[0])
        values = None if v is None else read_values(v, problem, self._kind, self._flat)[head // problem.group]
        query, key = _page("rows", rows, self.queries), _page("keys", keys, self.keys)
        give = self._kind.give
        stages = {
            name: give(self._lookup.values(name, self._heads[0], query[:, None], key))
            for name in ("scores", "scaled", "weights")
        }
        return Steps(
            x=None,
            q=give(self._tokens(problem.q[head], query)),
            k=give(self._tokens(problem.k[head // problem.group], key)),
            v=None if values is None else give(self._tokens(values, key)),
            **stages,
            output=None if values is None else give(self._output(query, values)),
            d_k=problem.q.shape[2],
            scale=problem.scale,
        )

    def _rectangle(self, cell: int | tuple[int, int], rows: slice | None, keys: slice | None) -> Rectangle:
        """The arguments of `blocks`, checked: no cell is larger than the rectangle."""
        pair = tuple(cell) if isinstance(cell, tuple | list) else (cell, cell)
        hint = "It is how many queries and keys a cell has: cell=16, or cell=(16, 64)."
        if len(pair) != 2:
            raise ParameterError("cell", "a whole number, or a pair (queries, keys)", repr(cell), hint)
        down, across = (read_count("cell", size, 1, hint) for size in pair)
        over = _side("rows", rows, self.queries), _side("keys", keys, self.keys)
        return Rectangle(*over, min(down, len(over[0])), min(across, len(over[1])))

    def _view(self, stage: Stage) -> StageView:
        view = object.__new__(StageView)
        view._set(stage, self._lookup, self._heads, self._flat, self._kind)
        return view

    def _summary(self, **wanted: Any) -> Any:
        return summarize(self._sweep(Wanted(**wanted)), None, self._lookup.problem.dtype, self._give)

    def _sweep(self, wanted: Wanted) -> Swept:
        return self._lookup.sweep(self._heads.tolist(), wanted)

    def _give(self, tensor: Tensor) -> Array:
        """A result with an axis of heads, as the caller gets it."""
        return self._kind.give(tensor[0] if self._flat else tensor)

    def _values_at(self, query: Tensor, key: Tensor) -> Tensor:
        """The weights at places that are the same in every head."""
        rank = max(query.ndim, key.ndim)
        head = self._heads[0] if self._flat else self._heads.reshape(-1, *[1] * rank)
        self._refuse_large(joint_shape(head, query, key))
        return self._lookup.values("weights", head, query, key)

    def _read_top(self, name: str, value: Any, least: int) -> int:
        """How many of the largest weights: as many as `LIMIT` holds, or d_k, for they are then no larger than q."""
        count = read_count(name, value, least, "It is how many of the largest weights of each row to give.")
        problem = self._lookup.problem
        most = max(LIMIT // (self.heads * self.queries * problem.dtype.itemsize), problem.q.shape[2])
        if count > most:
            hint = (
                f"More are above 1 GiB, and a row has {self.keys} of them. One head at a time, as m[0], may have more."
            )
            raise SizeError(name, f"at most {most} weights of each row", str(count), hint)
        return count

    def _tokens(self, tensor: Float[Tensor, "tokens d"], index: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        return tensor[index.to(tensor.device)].to(self._lookup.problem.dtype)

    def _output(self, query: Int[Tensor, " rows"], values: Float[Tensor, "keys d_v"]) -> Float[Tensor, "rows d_v"]:
        """Step 4 of some rows, over all keys."""
        key, wide = torch.arange(self.keys, device="cpu"), values.to(self._lookup.problem.dtype)
        strips = query.split(max(1, STRIP // self.keys))
        with torch.autocast(wide.device.type, enabled=False):
            return torch.cat(
                [self._lookup.values("weights", self._heads[0], rows[:, None], key) @ wide for rows in strips]
            )


def _side(name: str, given: slice | None, size: int) -> range:
    """One side of a rectangle."""
    hint = f"It is a slice of at least one of {size}, as in {name}=slice(0, {min(size, 64)})."
    if given is not None and not isinstance(given, slice):
        raise TileError(name, "a slice", type(given).__name__, hint)
    (entry,) = expand(slice(None) if given is None else given, (size,), (name,)).entries
    assert isinstance(entry, slice)
    side = range(*entry.indices(size))
    if side.step != 1 or len(side) == 0:
        raise TileError(name, "a slice without a step, of at least one", repr(given), hint)
    return side


def _page(name: str, given: Any, size: int) -> Int[Tensor, " n"]:
    """The queries or keys of a page."""
    entries = expand(slice(None) if given is None else given, (size,), (name,))
    (index,) = places(entries, (size,))
    hint = f"Take some of them, as in {name}=slice(0, {min(size, PAGE)})."
    if index.ndim != 1 or len(index) == 0:
        raise TileError(name, "a slice or a list of at least one", f"shape {tuple(index.shape)}", hint)
    if len(index) > PAGE:
        raise SizeError("steps", f"a page of at most {PAGE} {name}", f"{len(index)}", hint)
    return index
