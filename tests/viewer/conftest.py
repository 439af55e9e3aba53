"""Small recordings whose maps are looked at, and what a map is, written out."""

from __future__ import annotations

import pytest
from by_blocks import make_pieces
from recorded.builders import ORIGIN, make_layer

from softmap.recorded import RecordedSequence, Recording

POEM = "I love learning, and learning loves me unbelievably. New York is a city; a new york minute is short."


@pytest.fixture(scope="session")
def encoder(bundled):
    """all-MiniLM-L6-v2 on two sentences, with words of several pieces."""
    import softmap

    return softmap.record(POEM, model=bundled)


@pytest.fixture(scope="session")
def decoder():
    """Two causal layers of grouped heads on 300 tokens, some words of which have several pieces."""
    tokens = make_pieces(300)
    of = {"queries_of": "tokens", "keys_of": "tokens", "queries": 300, "d_k": 8, "summary": {"cells": 19}}
    layers = tuple(make_layer(n, number=n, difference=1e-6, **of) for n in range(2))
    return Recording(ORIGIN, (RecordedSequence(layers, tokens),))
