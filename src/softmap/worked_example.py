"""The worked example: "I love learning", small enough to check by hand."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float


class Example(NamedTuple):
    """What `self_attention` takes, for the three words of the sentence.

    Attributes:
        x: one embedding a word, (3, 4), zeros and ones.
        w_q: the query weights, (4, 64), whole numbers from -3 to 3.
        w_k: the key weights, (4, 64), whole numbers from -2 to 2.
        w_v: the value weights, (4, 64), whole numbers from -2 to 2.
    """

    x: Float[np.ndarray[Any, Any], "tokens d_model"]
    w_q: Float[np.ndarray[Any, Any], "d_model d_k"]
    w_k: Float[np.ndarray[Any, Any], "d_model d_k"]
    w_v: Float[np.ndarray[Any, Any], "d_model d_v"]

    @property
    def tokens(self) -> tuple[str, ...]:
        """The words, one for each row of x."""
        return tuple(_read()["tokens"])


def example() -> Example:
    """The sentence "I love learning" with d_k = 64, in float64.

    Its scores are whole numbers; divided by √64 = 8 and put through softmax, row 1 is 90%, 7%, 3%.
    How it was built stands in ``scripts/make_example.py``, which makes the same file every time.

    Examples:
        >>> import softmap
        >>> steps = softmap.self_attention(*softmap.example())
        >>> steps.scores
        array([[110.,  90.,  83.],
               [ 75.,  99.,  69.],
               [ 88.,  80., 100.]])
        >>> (100 * steps.weights[0]).round()
        array([90.,  7.,  3.])
    """
    data = _read()
    return Example(*(np.array(data[name], dtype=np.float64) for name in Example._fields))


def _read() -> dict[str, Any]:
    text = files("softmap").joinpath("data").joinpath("example.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data
