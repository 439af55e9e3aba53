"""The cells that a recording keeps are a level of the map: squares of a power of two of tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import softmap
from softmap import masks
from softmap.errors import ParameterError
from softmap.kernels.contract import Problem
from softmap.matrix.inputs import level_grid
from softmap.models.keeping import wanted_of

sizes = st.integers(1, 5000)
counts = st.integers(1, 300)


@given(queries=sizes, keys=sizes, down=counts, across=counts)
def test_cells_are_the_smallest_squares_of_which_there_are_few_enough(queries, keys, down, across):
    grid = level_grid((down, across), queries, keys)
    fitting = (1 << b for b in range(14) if queries <= down << b and keys <= across << b)
    size = min(fitting)
    assert grid == ((*range(0, queries, size), queries), (*range(0, keys, size), keys))


def cells_of(queries: int, keys: int, **options: object) -> tuple[int, int, int] | None:
    q, k = torch.zeros(1, queries, 1), torch.zeros(1, keys, 1)
    grid = wanted_of(options, Problem(q, k, masks.full(), 1.0), None).cells
    return grid and (grid.key_edges[1], len(grid.row_edges) - 1, len(grid.key_edges) - 1)


@pytest.mark.parametrize(
    ("tokens", "size", "count"),
    [(1, 1, 1), (64, 1, 64), (65, 2, 33), (8192, 128, 64), (8193, 128, 65), (16_384, 128, 128), (131_072, 128, 1024),
     (131_073, 256, 513), (1 << 20, 1024, 1024)],
)  # fmt: skip
def test_a_recording_keeps_64_cells_each_way_or_those_of_128_tokens(tokens, size, count):
    assert cells_of(tokens, tokens) == (size, count, count)


def test_cells_are_square_where_queries_are_fewer_than_keys():
    assert cells_of(3, 5000) == (128, 1, 40)
    assert cells_of(3, 5000, cells=5000) == (1, 3, 5000)
    assert cells_of(1000, 1000, cells=100) == (16, 63, 63)
    assert cells_of(1000, 1000, cells=(4, 100)) == (256, 4, 4)
    assert cells_of(1000, 1000, cells=0) is None
    assert cells_of(1000, 1000, cells=None) is None


def test_a_recorded_summary_has_these_edges_and_a_matrix_s_own_a_grid(llama):
    ids = torch.arange(70) % 50
    recorded = softmap.record(ids, llama).layers[0]
    assert recorded.summary.cells.key_edges == (*range(0, 70, 2), 70)
    assert recorded.matrix.summary(cells=64).cells.key_edges == tuple(i * 70 // 64 for i in range(65))
    few = softmap.record(ids, llama, summary={"cells": 10}).layers[0].summary.cells
    assert few.row_edges == (*range(0, 70, 8), 70)
    torch.testing.assert_close(few.max, recorded.matrix.blocks(8, "max"), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("cells", [-1, 2.5, "many", (1, 2, 3), (0, 4)])
def test_cells_that_are_no_count_are_refused_before_the_model_runs(cells, llama):
    with pytest.raises(ParameterError, match="cells: expected a whole number"):
        softmap.record(torch.arange(9), llama, summary={"cells": cells})
