"""What the passes share: one tile of the matrix, in registers.

Scaled scores are in units of log2, in which the hardware's exponential is: what steps 1 and 2 give, times log2(e).
"""

from __future__ import annotations

import triton
import triton.language as tl

PARTS = tl.constexpr(4)  # of a block's keys
CHOICES = tl.constexpr(2**4)  # of some of them, a bit for each


@triton.jit
def load_rows(base, rows, stop, stride, width: tl.constexpr, padded: tl.constexpr):
    """Rows of q, k or v, (rows, padded): zeros beyond the last row and beyond their width."""
    column = tl.arange(0, padded)
    there = (rows < stop)[:, None] & (column < width)[None, :]
    return tl.load(base + rows.to(tl.int64)[:, None] * stride + column[None, :], mask=there, other=0.0)


@triton.jit
def load_spans(start_of, stop_of, rows, stop):
    """The keys that each row may see, from one up to another; none beyond the last row."""
    there = rows < stop
    return tl.load(start_of + rows, mask=there, other=0), tl.load(stop_of + rows, mask=there, other=0)


@triton.jit
def added_at(base, rows, keys, last_key):
    """Where in a strip of whole rows a tile stands, whichever way its rows and keys do."""
    return base + rows.to(tl.int64) * last_key + keys


@triton.jit
def largest_by_part(scaled, ROWS: tl.constexpr, KEYS: tl.constexpr):
    """Of each row the largest in each part of a block's keys, (rows, parts).

    A part is what one thread has of a row when tensor cores have made a product, two keys of every eight: it can be
    gone through with no word to another thread.
    """
    return tl.max(tl.max(tl.reshape(scaled, [ROWS, KEYS // (2 * PARTS), PARTS, 2]), 3), 1)


@triton.jit
def keys_of_part(part, lane):
    """Which keys of a block a part has, as `largest_by_part` takes them: its first, second and so on by `lane`."""
    return lane // 2 * (2 * PARTS) + 2 * part + lane % 2


@triton.jit
def tanh(x):
    """The hyperbolic tangent; near 0 by a polynomial, where the other form would lose its digits.

    Its coefficients are those of Cephes' tanhf (S. Moshier, https://www.netlib.org/cephes/).
    """
    z = x * x
    near = ((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1
    near = (near * z - 3.33332819422e-1) * z * x + x
    far = 1 - 2 / (tl.exp2(x * 2.8853900817779268) + 1)
    return tl.where(tl.abs(x) < 0.625, near, far)


@triton.jit
def step_2(score, factor, cap, CAPPED: tl.constexpr):
    """Scaled scores, in units of log2, before anything is added.

    Args:
        score: step 1.
        factor: what scores are multiplied by; with a cap, before it.
        cap: the cap.
        CAPPED: whether there is a cap.
    """
    scaled = score * factor
    if CAPPED:
        scaled = cap * tanh(scaled)
    return scaled


@triton.jit
def masked(scaled, keys, start, stop, seen, added, HAS_SEEN: tl.constexpr, HAS_ADDED: tl.constexpr):
    """What is added to a tile's scaled scores; −∞ where masked. Rows and keys may stand either way.

    Args:
        scaled: step 2 of the tile.
        keys: which keys they are, in the tile's shape or as a row or a column of it; likewise all that follows.
        start: the first key that each row may see.
        stop: one after the last, which the matrix has.
        seen: which keys any row sees, (keys of the matrix,), and 0 for a tile beyond them.
        added: where what is added to the tile stands.
        HAS_SEEN: whether `seen` is given.
        HAS_ADDED: whether `added` is.
    """
    visible = (keys >= start) & (keys < stop)
    if HAS_ADDED:
        scaled += tl.load(added, mask=visible, other=0.0) * 1.4426950408889634
    if HAS_SEEN:
        visible = visible & (tl.load(seen + keys) != 0)
    return tl.where(visible, scaled, float("-inf"))
