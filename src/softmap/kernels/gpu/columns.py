"""Pass two, over the keys, where each row's logsumexp is known: what is added up, or the largest, down the columns.

A band is some rows, as those of a row of cells: each program has a block of keys of one band and goes down its rows in
order, so that no sum depends on which program was first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from softmap.kernels.gpu.tiles import added_at, load_rows, masked, step_2


@triton.jit
def columns_pass(
    q,
    k,
    start_of,
    stop_of,
    seen,
    added,
    high_of,
    low_of,
    band_edges,
    first_of,
    last_of,
    latest_start,
    earliest_stop,
    sum_to,
    max_to,
    q_head,
    q_row,
    k_head,
    k_row,
    added_head,
    first_row,
    queries,
    last_key,
    group,
    factor,
    cap,
    d_k: tl.constexpr,
    K_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    CAPPED: tl.constexpr,
    HAS_SEEN: tl.constexpr,
    HAS_ADDED: tl.constexpr,
    HAS_MAX: tl.constexpr,
):
    """One block of keys of one band of one head.

    Args:
        q: queries (heads, queries, d_k), and k, of key heads; each row without gaps, in steps of `q_row`.
        start_of: the first key that each row may see, (queries,); `stop_of` one after the last.
        seen: which keys any row sees, (keys,), and 0 for a tile beyond them.
        added: what is added to the scaled scores of the rows from `first_row` on, (1 or heads, rows, keys), nats.
        high_of: each row's logsumexp in units of log2, its larger part, (heads, queries), finite, and readable for a
            tile beyond the last row; `low_of` the rest.
        band_edges: the bands' first rows, and one after the last.
        first_of: the first row that may see a key of each block of keys, (blocks,); `last_of` one after the last.
        latest_start: of each block of rows the latest start, (row blocks,); `earliest_stop` the earliest stop.
        sum_to: the sum of each band's weights by key, (heads, bands, keys).
        max_to: the largest of them.
    """
    block, band, head = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    keys = block * KEYS + tl.arange(0, KEYS)
    own_k = load_rows(k + head // group * k_head, keys, last_key, k_row, d_k, K_WIDTH)
    first = tl.maximum(tl.load(band_edges + band), tl.load(first_of + block))
    last = tl.minimum(tl.load(band_edges + band + 1), tl.load(last_of + block))

    total = tl.zeros([KEYS], tl.float64)
    largest = tl.zeros([KEYS], tl.float32)
    for row_block in range(first // ROWS, tl.cdiv(last, ROWS)):
        rows = row_block * ROWS + tl.arange(0, ROWS)
        own_q = load_rows(q + head * q_head, rows, last, q_row, d_k, K_WIDTH)
        # keys down, rows across: so a warp adds up its own keys, and waits for no other
        scaled = step_2(tl.dot(own_k, tl.trans(own_q), input_precision="ieee"), factor, cap, CAPPED)
        all_see = (tl.load(latest_start + row_block) <= block * KEYS) & (
            tl.load(earliest_stop + row_block) >= (block + 1) * KEYS
        )
        whole = (row_block * ROWS >= first) & ((row_block + 1) * ROWS <= last) & (all_see != 0)
        if (whole == 0) | HAS_SEEN | HAS_ADDED:
            there = (rows >= first) & (rows < last)
            start = tl.load(start_of + rows, mask=there, other=0)[None, :]
            stop = tl.load(stop_of + rows, mask=there, other=0)[None, :]
            at = keys[:, None]
            if HAS_ADDED:
                at = added_at(added + head * added_head, (rows - first_row)[None, :], keys[:, None], last_key)
            scaled = masked(scaled, keys[:, None], start, stop, seen, at, HAS_SEEN, HAS_ADDED)
        high, low = tl.load(high_of + head * queries + rows), tl.load(low_of + head * queries + rows)
        weights = tl.exp2(scaled - high[None, :] - low[None, :])
        total += tl.sum(weights, 1).to(tl.float64)
        if HAS_MAX:
            largest = tl.maximum(largest, tl.max(weights, 1))

    place = (head * tl.num_programs(1) + band) * last_key + keys
    tl.store(sum_to + place, total.to(tl.float32), mask=keys < last_key)
    if HAS_MAX:
        tl.store(max_to + place, tl.minimum(largest, 1.0), mask=keys < last_key)


@triton.jit
def cells_pass(sum_of, max_of, key_edges, sum_to, max_to, last_key, KEYS: tl.constexpr):
    """One cell of one band of one head, from what its columns have: (heads, bands, keys) -> (heads, bands, cells)."""
    cell, band = tl.program_id(0), tl.program_id(1).to(tl.int64)  # bands of all heads
    first, stop = tl.load(key_edges + cell), tl.load(key_edges + cell + 1)
    total = tl.zeros([KEYS], tl.float64)
    largest = tl.zeros([KEYS], tl.float32)
    for key in range(first, stop, KEYS):
        keys = key + tl.arange(0, KEYS)
        total += tl.load(sum_of + band * last_key + keys, mask=keys < stop, other=0.0).to(tl.float64)
        largest = tl.maximum(largest, tl.load(max_of + band * last_key + keys, mask=keys < stop, other=0.0))
    place = band * tl.num_programs(0) + cell
    tl.store(sum_to + place, tl.sum(total, 0).to(tl.float32))
    tl.store(max_to + place, tl.max(largest, 0))
