"""Masks of runs of queries, against the matrix that they are meant to be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softmap import masks
from softmap.errors import ShapeError
from softmap.masks.stacked import Run, Stacked


@st.composite
def stacks(draw):
    """A stack of runs, and its booleans put together by hand."""
    keys = draw(st.integers(1, 40))
    runs, blocks = [], []
    for _ in range(draw(st.integers(1, 4))):
        queries = draw(st.integers(1, 9))
        start = draw(st.integers(0, keys - 1))
        seen = range(start, draw(st.integers(start + 1, keys)))
        offset = draw(st.integers(-3, 20))
        kinds = [
            masks.full(),
            masks.causal(offset),
            masks.sliding_window(draw(st.integers(0, 5)), draw(st.integers(0, 5)), offset),
            masks.prefix(draw(st.integers(0, 50))),
            masks.from_function(lambda query, key: (query + key) % 3 == 0),
        ]
        mask = draw(st.sampled_from(kinds))
        block = torch.zeros(queries, keys, dtype=torch.bool)
        block[:, seen.start : seen.stop] = mask.strip(range(queries), range(len(seen)))
        runs.append(Run(queries, seen, mask))
        blocks.append(block)
    return Stacked(tuple(runs)), torch.cat(blocks)


@given(stacks())
@settings(max_examples=150, deadline=None)
def test_stack_is_its_blocks_one_below_the_other(case):
    mask, expected = case
    queries, keys = expected.shape
    assert torch.equal(mask.strip(range(queries), range(keys)), expected)


@given(stacks())
@settings(max_examples=150, deadline=None)
def test_spans_hold_every_visible_key_and_exact_ones_no_other(case):
    mask, expected = case
    queries, keys = expected.shape
    start, stop, exact = mask.spans(queries, keys)
    index = torch.arange(keys)
    inside = (index >= start[:, None]) & (index < stop[:, None])
    assert not bool((expected & ~inside).any())
    if exact:
        assert torch.equal(inside, expected)


def test_matrix_of_another_size_is_refused():
    mask = Stacked((Run(3, range(4), masks.full()), Run(2, range(2, 6), masks.full())))
    mask.check(5, 6)
    for size in ((4, 6), (5, 5)):
        with pytest.raises(ShapeError, match="5 queries and 6 keys"):
            mask.check(*size)
