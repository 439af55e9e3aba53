"""Make src/softmap/data/example.json, the worked example "I love learning".

The text this example comes from gives scores, and says that they are made up for understanding. Here they
come out of real products, so that everything it says can be computed:

1. The scores to reach were chosen by hand, whole numbers (SCORES below): row by row largest on the diagonal,
   and such that row 1, divided by √64 = 8 and put through softmax, is 90%, 7%, 3% in whole percent.
2. x (3 x 4) holds the three embeddings in zeros and ones: one dimension for each word, one shared by all.
3. W_k and W_v (4 x 64) are drawn from {-2, ..., 2} with a fixed seed.
4. W_q (4 x 64) is searched for, one row at a time, among small whole numbers: x W_q (x W_k)ᵀ must be SCORES
   exactly. A row starts with numbers drawn from {-1, 0, 1} plus the rounded least-squares solution for what
   they leave missing; then it is changed by ±1 in two places at a time, never beyond ±3, each time the change
   that leaves the smallest difference, until its three dot products are what they have to be.

Run ``python scripts/make_example.py``: it prints nothing and writes the same file every time; a test runs it.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, Any]

SENTENCE = ("I", "love", "learning")
SCORES = np.array([[110, 90, 83], [75, 99, 69], [88, 80, 100]])
X = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]])
D_K = 64
SHARED = np.array([88, 84, 80])  # the part of each column of SCORES that the shared dimension brings
TARGET = Path(__file__).parents[1] / "src" / "softmap" / "data" / "example.json"


def make_example() -> dict[str, Any]:
    random = np.random.default_rng(2017)  # the year of "Attention Is All You Need"
    w_k = random.integers(-2, 3, size=(4, D_K))
    w_v = random.integers(-2, 3, size=(4, D_K))
    keys = X @ w_k  # (3, 64)
    targets = np.vstack([SCORES - SHARED, SHARED])  # (4, 3): what each row of W_q must give with the three keys
    start = random.integers(-1, 2, size=(4, D_K))
    w_q = np.array([_row_with_products(keys, row, target) for row, target in zip(start, targets, strict=True)])
    return {"tokens": SENTENCE, "x": X.tolist(), "w_q": w_q.tolist(), "w_k": w_k.tolist(), "w_v": w_v.tolist()}


def _row_with_products(keys: Numbers, start: Numbers, target: Numbers) -> Numbers:
    """A row of small whole numbers whose dot products with the three keys are exactly `target`."""
    row: Numbers = start + np.rint(np.linalg.lstsq(keys, target - keys @ start, rcond=None)[0]).astype(int)
    changes = [(i, sign) for i in range(D_K) for sign in (-1, 1)]
    while (missing := target - keys @ row).any():
        _, best = min(
            (int(np.abs(missing - sum(sign * keys[:, i] for i, sign in pair)).sum()), pair)
            for pair in itertools.combinations(changes, 2)
            if all(abs(row[i] + sign) <= 3 for i, sign in pair)
        )
        for i, sign in best:
            row[i] += sign
    return row


def as_text(example: dict[str, Any]) -> str:
    """JSON with one row of a matrix a line, so that a person can read it and a diff stays small."""
    lines = []
    for name, value in example.items():
        if name == "tokens":
            lines.append(f'  "{name}": {json.dumps(value)}')
        else:
            rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
            lines.append(f'  "{name}": [\n{rows}\n  ]')
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(as_text(make_example()), encoding="utf-8")
