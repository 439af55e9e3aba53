"""Pass one, over the queries: what a row's keys add up to, in the manner of FlashAttention.

    for each block of keys that the rows may see
        scaled = steps 1 and 2                             (tiles.py)
        largest' = max(largest, its own), p = 2^(scaled − largest')
        all sums so far times 2^(largest − largest'), plus the block's own
        of the blocks with the largest maxima, the best few, and which parts of them: there stand the largest weights
                                                           (top.py)

The sums: Σ p, Σ p v, Σ p (scaled − largest), Σ p (i − j), Σ p |i − j|. (Milakov and Gimelshein, 2018, "Online normalizer
calculation for softmax", https://arxiv.org/abs/1805.02867; Dao, 2023, "FlashAttention-2", section 3.1,
https://arxiv.org/abs/2307.08691.)
"""

from __future__ import annotations

import triton
import triton.language as tl

from softmap.kernels.gpu.tiles import CHOICES, PARTS, added_at, largest_by_part, load_rows, load_spans, masked, step_2

LEAST = tl.constexpr(-1000.0)  # a masked score of −∞ as a number, of which 2 to the power is 0 too


@triton.jit
def rows_pass(
    q,
    k,
    v,
    sinks,
    start_of,
    stop_of,
    seen,
    added,
    largest_to,
    total_to,
    output_to,
    entropy_to,
    signed_to,
    absolute_to,
    blocks_to,
    q_head,
    q_row,
    k_head,
    k_row,
    v_head,
    v_row,
    added_head,
    first_row,
    last_row,
    queries,
    last_key,
    offset,
    group,
    factor,
    cap,
    d_k: tl.constexpr,
    d_v: tl.constexpr,
    K_WIDTH: tl.constexpr,
    V_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    BEST: tl.constexpr,
    UNIT: tl.constexpr,
    CAPPED: tl.constexpr,
    HAS_SEEN: tl.constexpr,
    HAS_ADDED: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    HAS_OUTPUT: tl.constexpr,
    HAS_ENTROPY: tl.constexpr,
    HAS_DISTANCE: tl.constexpr,
    HAS_AHEAD: tl.constexpr,
    HAS_TOP: tl.constexpr,
):
    """One block of rows of one head. Sums are divided by their row's total at last; −∞ and 0 where a row sees nothing.

    Args:
        q: queries (heads, queries, d_k); k and v likewise, of key heads; each row without gaps, in steps of `q_row`.
        sinks: a logit for each head, in units of log2.
        start_of: the first key that each row may see, (queries,); `stop_of` one after the last.
        seen: which keys any row sees, (keys,), and 0 for a tile beyond them.
        added: what is added to the scaled scores of the rows from `first_row` on, (1 or heads, rows, keys), nats.
        largest_to: the largest scaled score of each row, in units of log2, (heads, queries).
        total_to: Σ 2^(scaled − largest), the sink's share included, (heads, queries).
        output_to: step 4, (heads, queries, d_v).
        entropy_to: −Σ w ln w, (heads, queries), nats.
        signed_to: Σ w (i − j), (heads, queries); `absolute_to` of |i − j|.
        UNIT: what a weight of 1 is in v's dtype, so that small ones keep their digits in float16.
        blocks_to: the blocks of `KEYS` keys with the largest maxima, and the parts of each that may hold one of the
            largest weights, as `block * CHOICES + bits`; −1 for none, (heads, queries, BEST), in any order.
    """
    head = tl.program_id(1).to(tl.int64)
    rows = first_row + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    start, stop = load_spans(start_of, stop_of, rows, last_row)
    own_q = load_rows(q + head * q_head, rows, last_row, q_row, d_k, K_WIDTH)

    largest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float64)  # over thousands of blocks float32's rounding would add up
    if HAS_SINKS:
        largest = tl.zeros([ROWS], tl.float32) + tl.load(sinks + head)
        total += 1
    output = tl.zeros([ROWS, V_WIDTH], tl.float32)
    surprise = tl.zeros([ROWS], tl.float64)
    signed = tl.zeros([ROWS], tl.float64)
    absolute = tl.zeros([ROWS], tl.float64)
    slot, part = tl.arange(0, BEST)[None, :], tl.arange(0, PARTS)[None, :]
    best = tl.full([ROWS, BEST], float("-inf"), tl.float32)
    none = tl.cdiv(last_key, KEYS)
    block_of = (tl.zeros([ROWS, BEST], tl.int32) + none + slot) * CHOICES  # from `none` on: not taken yet

    empty = start >= stop
    first = tl.min(tl.where(empty, last_key, start)) // KEYS
    last = tl.cdiv(tl.max(tl.where(empty, 0, stop)), KEYS)
    whole_from = tl.cdiv(tl.max(start), KEYS)  # blocks of which each row sees every key
    whole_to = 0 if HAS_SEEN else tl.min(tl.where(rows < last_row, stop, last_key)) // KEYS
    for block in range(first, last):
        keys = block * KEYS + tl.arange(0, KEYS)
        own_k = load_rows(k + head // group * k_head, keys, last_key, k_row, d_k, K_WIDTH)
        at = keys[None, :]
        if HAS_ADDED:
            at = added_at(added + head * added_head, (rows - first_row)[:, None], keys[None, :], last_key)
        scaled = step_2(tl.dot(own_q, tl.trans(own_k), input_precision="ieee"), factor, cap, CAPPED)
        if (block < whole_from) | (block >= whole_to) | HAS_ADDED:
            scaled = masked(scaled, keys[None, :], start[:, None], stop[:, None], seen, at, HAS_SEEN, HAS_ADDED)

        of_part = largest_by_part(scaled, ROWS, KEYS)
        of_block = tl.max(of_part, 1)
        next_largest = tl.maximum(largest, of_block)
        level = tl.where(next_largest == float("-inf"), 0.0, next_largest)
        shifted = scaled - level[:, None]
        p = tl.exp2(shifted)
        moved = tl.where(largest == float("-inf"), 0.0, largest - level)
        shrunk = tl.where(largest == float("-inf"), 0.0, tl.exp2(moved))
        if HAS_ENTROPY:
            added_up = surprise + tl.maximum(moved, LEAST) * total
            surprise = added_up * shrunk + tl.sum(p * tl.maximum(shifted, LEAST), 1)
        total = total * shrunk + tl.sum(p, 1)
        if HAS_DISTANCE:
            behind = (rows[:, None] + offset - keys[None, :]).to(tl.float32)  # i − j
            signed = signed * shrunk + tl.sum(p * behind, 1)
            if HAS_AHEAD:
                absolute = absolute * shrunk + tl.sum(p * tl.abs(behind), 1)
        if HAS_OUTPUT:
            own_v = load_rows(v + head // group * v_head, keys, last_key, v_row, d_v, V_WIDTH)
            output = output * shrunk[:, None] + tl.dot((p * UNIT).to(own_v.dtype), own_v, input_precision="ieee")
        if HAS_TOP:  # of equal maxima the earlier block stays, whose keys are lower
            worst = tl.min(best, 1)
            given_up = tl.max(tl.where(best == worst[:, None], block_of, -1), 1)
            replaced = (block_of == given_up[:, None]) & (of_block > worst)[:, None]
            bits = tl.sum(tl.where(of_part > worst[:, None], 1 << part, 0), 1)  # the rest is beaten already
            best = tl.where(replaced, of_block[:, None], best)
            block_of = tl.where(replaced, block * CHOICES + bits[:, None], block_of)
        largest = next_largest

    there = rows < last_row
    place = head * queries + rows
    tl.store(largest_to + place, largest, mask=there)
    tl.store(total_to + place, total, mask=there)
    over = tl.where(total > 0, 1 / total, 0.0).to(tl.float32)
    if HAS_ENTROPY:
        kept = 1.0  # of the row's weights, what the sink leaves
        if HAS_SINKS:
            kept = 1 - tl.exp2(tl.load(sinks + head) - largest) * over
            surprise -= (tl.load(sinks + head) - largest) * tl.exp2(tl.load(sinks + head) - largest)
        entropy = 0.6931471805599453 * (kept * tl.log2(tl.maximum(total.to(tl.float32), 1.0)) - surprise * over)
        tl.store(entropy_to + place, tl.maximum(entropy, 0.0), mask=there)
    if HAS_DISTANCE:
        tl.store(signed_to + place, signed * over, mask=there)
        tl.store(absolute_to + place, (absolute if HAS_AHEAD else signed) * over, mask=there)
    if HAS_OUTPUT:
        column = tl.arange(0, V_WIDTH)[None, :]
        at = output_to + place.to(tl.int64)[:, None] * d_v + column
        tl.store(at, output * (over / UNIT)[:, None], mask=there[:, None] & (column < d_v))
    if HAS_TOP:
        at = blocks_to + place.to(tl.int64)[:, None] * BEST + slot
        tl.store(at, tl.where(block_of < none * CHOICES, block_of, -1), mask=there[:, None])
