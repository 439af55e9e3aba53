"""The largest weights of each row, in two steps: pass one found the blocks of keys that have them; here they are taken.

The n largest stand in the n blocks with the largest maxima, ties by the lower key: each of these blocks has a key at
least as good as any of another block. Of such a block those parts alone are scored once more in which a key beat the
n-th of the maxima known when the block was met.
"""

from __future__ import annotations

import triton
import triton.language as tl

from softmap.kernels.gpu.tiles import CHOICES, PARTS, added_at, keys_of_part, load_spans, masked, step_2


@triton.jit
def top_pass(
    q,
    k,
    start_of,
    stop_of,
    seen,
    added,
    largest_of,
    total_of,
    blocks_of,
    weights_to,
    keys_to,
    q_head,
    q_row,
    k_head,
    k_row,
    added_head,
    first_row,
    last_row,
    queries,
    last_key,
    group,
    factor,
    cap,
    top,
    d_k: tl.constexpr,
    K_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    BEST: tl.constexpr,
    STEP: tl.constexpr,
    CAPPED: tl.constexpr,
    HAS_SEEN: tl.constexpr,
    HAS_ADDED: tl.constexpr,
):
    """A few rows of one head, each with blocks of its own.

    Args:
        q: queries (heads, queries, d_k), and k, of key heads; each row without gaps, in steps of `q_row`.
        start_of: the first key that each row may see, (queries,); `stop_of` one after the last.
        seen: which keys any row sees, (keys,), and 0 for a tile beyond them.
        added: what is added to the scaled scores of the rows from `first_row` on, (1 or heads, rows, keys), nats.
        largest_of: what pass one gave, as `total_of` and `blocks_of`.
        STEP: how many columns of q and k are multiplied at a time.
        weights_to: the largest weights in falling order, 0 for none, (heads, queries, top).
        keys_to: where they are, −1 for none.
    """
    head = tl.program_id(1).to(tl.int64)
    rows = first_row + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = rows < last_row
    start, stop = load_spans(start_of, stop_of, rows, last_row)
    place = head * queries + rows
    lane, slot = tl.arange(0, KEYS // PARTS), tl.arange(0, BEST * PARTS)
    scaled = tl.full([ROWS, BEST * PARTS, KEYS // PARTS], float("-inf"), tl.float32)
    for taken in range(BEST):
        entry = tl.load(blocks_of + place * BEST + taken, mask=there, other=-1)
        for part in range(PARTS):
            chosen = (entry >= 0) & ((entry >> part) & 1 == 1)
            if tl.max(chosen.to(tl.int32)) > 0:
                block = tl.maximum(entry, 0) // CHOICES
                keys = block[:, None] * KEYS + keys_of_part(part, lane)[None, :]  # of each row its own
                real = chosen[:, None] & (keys < last_key)
                score = tl.zeros([ROWS, KEYS // PARTS], tl.float32)
                for first in tl.static_range(0, K_WIDTH, STEP):
                    column = first + tl.arange(0, STEP)
                    inside = column < d_k
                    at = q + head * q_head + rows.to(tl.int64)[:, None] * q_row + column[None, :]
                    own_q = tl.load(at, mask=there[:, None] & inside[None, :], other=0.0).to(tl.float32)
                    at = k + head // group * k_head + keys.to(tl.int64)[:, :, None] * k_row + column[None, None, :]
                    own_k = tl.load(at, mask=real[:, :, None] & inside[None, None, :], other=0.0).to(tl.float32)
                    score += tl.sum(own_q[:, None, :] * own_k, 2)
                at = keys
                if HAS_ADDED:
                    at = added_at(added + head * added_head, (rows - first_row)[:, None], keys, last_key)
                own = step_2(score, factor, cap, CAPPED)
                own = masked(own, keys, start[:, None], stop[:, None], seen, at, HAS_SEEN, HAS_ADDED)
                own = tl.where(chosen[:, None], own, float("-inf"))
                scaled = tl.where((slot == taken * PARTS + part)[None, :, None], own[:, None, :], scaled)

    entries = tl.load(blocks_of + place[:, None] * BEST + slot[None, :] // PARTS, mask=there[:, None], other=-1)
    keys = (entries // CHOICES)[:, :, None] * KEYS + keys_of_part((slot % PARTS)[:, None], lane[None, :])[None, :, :]
    keys = tl.reshape(keys, [ROWS, BEST * KEYS])
    scaled = tl.reshape(scaled, [ROWS, BEST * KEYS])
    largest = tl.load(largest_of + place, mask=there, other=0.0)
    total = tl.load(total_of + place, mask=there, other=1.0)
    largest = tl.where(largest == float("-inf"), 0.0, largest)
    over, last = 1 / tl.maximum(total, 1.0), tl.full([ROWS], 1.0, tl.float32)
    for i in range(top):
        value = tl.max(scaled, 1)
        key = tl.min(tl.where(scaled == value[:, None], keys, last_key), 1)
        found = value > float("-inf")
        weight = tl.where(found, tl.minimum(tl.exp2(value - largest) * over, last), 0.0)
        last = weight  # of neighbouring floats the lower one's power may be rounded up
        tl.store(weights_to + place * top + i, weight, mask=there)
        tl.store(keys_to + place * top + i, tl.where(found, key, -1).to(tl.int64), mask=there)
        scaled = tl.where(keys == key[:, None], float("-inf"), scaled)
