"""The pages of other viewers: python -m benchmarks.viewer.pages VIEWER RECORDING FILE

Each is made from all the weights of a recording, which is what they take, in a process of its own.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 14 << 30
REQUIRE = '<script src="https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js"></script>'

Weights = list[Any]
"""A tensor (1, heads, tokens, tokens) for each layer."""


def head_view(weights: Weights, tokens: list[str]) -> str:
    """bertviz's view of one layer at a time."""
    import bertviz

    page: str = bertviz.head_view(weights, tokens, html_action="return").data
    return page


def model_view(weights: Weights, tokens: list[str]) -> str:
    """bertviz's view of all layers and heads."""
    import bertviz

    page: str = bertviz.model_view(weights, tokens, html_action="return").data
    return page


def attention_heads(weights: Weights, tokens: list[str]) -> str:
    """circuitsvis's view of the heads of one layer."""
    from circuitsvis.attention import attention_heads as draw

    page: str = draw(tokens=tokens, attention=weights[0][0]).local_src
    return page


def attention(weights: Weights, tokens: list[str]) -> str:
    """inspectus's view of all layers and heads, which it hands to a notebook."""
    import inspectus
    import IPython.display

    shown: list[Any] = []
    IPython.display.display = lambda *pieces, **_: shown.extend(pieces)
    inspectus.attention(weights, [token.replace("#", "") for token in tokens])  # a ## leaves its page blank
    return "".join(piece.data for piece in shown)


VIEWERS: dict[str, tuple[str, Callable[[Weights, list[str]], str]]] = {
    "bertviz head_view": ("bertviz", head_view),
    "bertviz model_view": ("bertviz", model_view),
    "circuitsvis, one layer": ("circuitsvis", attention_heads),
    "inspectus": ("inspectus", attention),
}
"""Its name, the package it needs, and what makes its page."""


def main(viewer: str, path: str, file: str) -> None:
    """Write the page."""
    import softmap

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    recording = softmap.load(path)
    assert recording.tokens is not None
    weights = [matrix.dense()[None] for matrix in recording]
    body = VIEWERS[viewer][1](weights, list(recording.tokens.pieces))
    Path(file).write_text(f'<!doctype html><meta charset="utf-8">{REQUIRE}<body>{body}</body>', encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
