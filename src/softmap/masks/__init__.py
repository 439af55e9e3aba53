"""Which query may see which key: small objects, evaluated strip by strip, never queries x keys.

A mask answers two questions. `visible(query, key)`: for index tensors of any shapes that broadcast, whether those
queries see those keys. `spans(queries, keys)`: for each query, the range of keys that can matter, and whether it sees
all of that range. Where it sees one range of keys, the spans are exact (causal, windows, chunks, padding at the ends,
packed documents), so that a kernel skips whole blocks and needs no booleans at all.

    masks.causal() & masks.padding(valid)
    masks.causal() | masks.prefix(16)
    masks.sliding_window(1023, 0)             the token itself and 1,023 before it

`&`, `|` and `~` compose; all objects are immutable. An offset, the key at which query 0 stands, is given once: it holds
for the whole composition.

Examples:
    >>> from softmap import masks
    >>> packed = masks.causal() & masks.documents([0, 0, 0, 1, 1])
    >>> packed.strip(range(5), range(5)).int()
    tensor([[1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0],
            [0, 0, 0, 1, 0],
            [0, 0, 0, 1, 1]], dtype=torch.int32)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from softmap.errors import DtypeError, ShapeError
from softmap.masks import kinds
from softmap.masks.base import Block, Mask, Spans
from softmap.masks.reading import check_function, read_count, read_ids, read_offset, read_valid
from softmap.tensors import read_tensor

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Block",
    "Mask",
    "Spans",
    "causal",
    "chunked",
    "dense",
    "documents",
    "from_function",
    "full",
    "padding",
    "prefix",
    "sliding_window",
]


def full() -> Mask:
    """Every query sees every key."""
    return kinds.Full()


def causal(offset: int | None = None) -> Mask:
    """A query sees the key it stands at and all before it: query i sees keys j ≤ i + offset.

    Vaswani et al., 2017, "Attention Is All You Need", section 3.2.3, https://arxiv.org/abs/1706.03762.

    Args:
        offset: the key at which query 0 stands. 0 where there are as many queries as keys; with a cache of past keys,
            keys − queries. It must be given where queries and keys differ in number.

    Raises:
        ParameterError: an offset that is not a whole number.
    """
    return kinds.Window("causal()", None, 0, read_offset(offset))


def sliding_window(left: int | None, right: int | None = 0, offset: int | None = None) -> Mask:
    """A query sees `left` keys before the one it stands at, that one, and `right` keys after it.

    Beltagy et al., 2020, "Longformer", section 3.1, https://arxiv.org/abs/2004.05150.

    Args:
        left: how many keys before it, at least 0; None for all. A model's window of w tokens is left = w − 1.
        right: how many keys after it, at least 0; None for all. The default, 0, is causal.
        offset: the key at which query 0 stands; must be given where queries and keys differ in number.

    Raises:
        ParameterError: a number that is not whole, or a negative left or right.
    """
    before = None if left is None else read_count("left", left)
    after = None if right is None else read_count("right", right)
    return kinds.Window(f"sliding_window({left}, {right})", before, after, read_offset(offset))


def chunked(size: int, offset: int | None = None) -> Mask:
    """A query sees the keys of its own chunk: (i + offset) // size equals j // size. Combine with causal() by &.

    Llama 4's local layers, https://ai.meta.com/blog/llama-4-multimodal-intelligence/.

    Args:
        size: how many tokens a chunk has, at least 1.
        offset: the key at which query 0 stands; must be given where queries and keys differ in number.

    Raises:
        ParameterError: a number that is not whole, or a size below 1.
    """
    return kinds.Chunked(read_count("size", size, least=1), read_offset(offset))


def padding(valid: Any) -> Mask:
    """Every query sees the keys that are real tokens.

    Args:
        valid: booleans, or integers 0 and 1 as a tokenizer's attention_mask has them, (keys,).

    Raises:
        ArrayKindError: not an array or a list.
        ShapeError: not one dimension, or empty.
        DtypeError: neither booleans nor integers.
        ParameterError: an integer other than 0 and 1.
    """
    return kinds.Padding(read_valid(valid))


def documents(ids: Any, key_ids: Any = None) -> Mask:
    """A query sees the keys of its own document, as in packed sequences.

    Args:
        ids: the document each query belongs to, integers (queries,), in any order.
        key_ids: the same for the keys, (keys,); as ids unless given.

    Raises:
        ArrayKindError: not an array or a list.
        ShapeError: not one dimension, or empty.
        DtypeError: not integers.
    """
    queries = read_ids("ids", ids)
    return kinds.Documents(queries, queries if key_ids is None else read_ids("key_ids", key_ids))


def prefix(n: int) -> Mask:
    """Every query sees the first keys, as in a prefix language model together with causal().

    Raffel et al., 2020, "Exploring the Limits of Transfer Learning" (T5), section 3.2.1,
    https://arxiv.org/abs/1910.10683.

    Args:
        n: how many keys, at least 0.

    Raises:
        ParameterError: a number that is not whole, or a negative one.
    """
    return kinds.Prefix(read_count("n", n))


def from_function(f: Callable[[Tensor, Tensor], Tensor]) -> Mask:
    """A mask of one's own.

    Args:
        f: f(query_index, key_index) over index tensors that broadcast, giving booleans. It is asked for one strip at a
            time, so it must work by index, and not hold a matrix. Several threads may ask at once.

    Raises:
        ArrayKindError: not a function.
        ParameterError: a function of other arguments.

    Examples:
        >>> from softmap import masks
        >>> every_other = masks.from_function(lambda query, key: (query - key) % 2 == 0)
        >>> every_other.strip(range(1), range(5))
        tensor([[ True, False,  True, False,  True]])
    """
    hint = "Of a mask_mod(b, h, q, k) of FlexAttention, give lambda q, k: mask_mod(0, 0, q, k)."
    check_function(f, ("query_index", "key_index"), hint)
    return kinds.FromFunction(f)


def dense(visible: Any) -> Mask:
    """A matrix of booleans that one already has. It is looked at, not copied.

    Args:
        visible: True where a query sees a key, (queries, keys).

    Raises:
        ArrayKindError: not an array.
        DtypeError: not booleans.
        ShapeError: not two dimensions.
    """
    matrix = read_tensor("visible", visible)
    if matrix.dtype != torch.bool:
        hint = "True means visible: give mask == 0 for a mask of 0 and −inf to add, mask.bool() for 0 and 1."
        raise DtypeError("visible", "booleans", str(matrix.dtype), hint)
    if matrix.ndim != 2:
        hint = "One matrix for all heads; heads that differ are matrices of their own."
        raise ShapeError("visible", "2 dimensions (queries, keys)", f"shape {tuple(matrix.shape)}", hint)
    return kinds.Dense(matrix)
