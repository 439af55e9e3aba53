"""A head's map at every zoom, next to the blocks of the dense matrix."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest
import torch
from by_blocks import HALF, blocks, by_words, dense_of
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded.builders import make_layer

from softmap import masks
from softmap.viewer.headmap import TILE, HeadMap, Level
from softmap.viewer.sight import Sight
from softmap.viewer.sources import Tokens, Words, in_words

MASKS = {
    "causal": lambda queries, keys: masks.causal(keys - queries),
    "full": lambda queries, keys: masks.full(),
    "window": lambda queries, keys: masks.sliding_window(20, 3, offset=0),
    "padded": lambda queries, keys: masks.causal(keys - queries) & masks.padding([i % 5 != 0 for i in range(keys)]),
    "every third": lambda queries, keys: masks.from_function(lambda query, key: (key - query) % 3 == 0),
}


def make_map(layer, head=1, left_out=()):
    return HeadMap(Tokens(layer.matrix[head], Sight(layer.mask, *layer.shape[1:], left_out)))


def whole(shown, zoom, how):
    """All tiles of a zoom side by side."""
    down, across = (-(-pixels // TILE) for pixels in shown.pixels(zoom))
    return np.block([[getattr(shown.tile(zoom, row, column), how) for column in range(across)] for row in range(down)])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("queries", "keys"), [(300, 300), (70, 300), (257, 513)])
def test_every_pixel_is_the_maximum_and_the_mean_of_its_block(mask, queries, keys):
    layer = make_layer(queries=queries, keys=keys, mask=MASKS[mask](queries, keys), keep=("qk",))
    shown, dense = make_map(layer, head=3), dense_of(layer, 3)
    for zoom in range(shown.top + 1):
        wanted = blocks(*dense, zoom)
        for how in ("max", "mean"):
            np.testing.assert_allclose(whole(shown, zoom, how), wanted[how], **HALF)


@settings(max_examples=40, deadline=None)
@given(
    queries=st.integers(1, 90),
    keys=st.integers(1, 90),
    zoom=st.integers(0, 7),
    mask=st.sampled_from(sorted(MASKS)),
    seed=st.integers(0, 9),
)
def test_any_size_at_any_zoom(queries, keys, zoom, mask, seed):
    keys = max(keys, queries) if mask in ("causal", "padded") else keys
    layer = make_layer(seed, queries=queries, keys=keys, mask=MASKS[mask](queries, keys), keep=("qk",))
    shown = make_map(layer)
    zoom = min(zoom, shown.top)
    wanted = blocks(*dense_of(layer, 1), zoom)
    assert shown.pixels(shown.top) == (1, 1)
    for how in ("max", "mean"):
        np.testing.assert_allclose(whole(shown, zoom, how), wanted[how], **HALF)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    ends=st.data(),
    mask=st.sampled_from(sorted(MASKS)),
)
def test_a_cell_is_seen_where_any_pair_of_it_is(sizes, ends, mask):
    queries, keys = sizes[0], max(sizes)
    made = MASKS[mask](queries, keys)
    left_out = ends.draw(st.sets(st.integers(0, keys - 1), max_size=4))
    seen = made.strip(range(queries), range(keys)).numpy().copy()
    seen[:, list(left_out)] = False
    rows, columns = (np.array(sorted(ends.draw(st.sets(st.integers(0, size), min_size=2)))) for size in (queries, keys))
    found = Sight(made, queries, keys, left_out).cells(rows, columns)
    for i, j in np.ndindex(found.shape):
        assert found[i, j] == seen[rows[i] : rows[i + 1], columns[j] : columns[j + 1]].any()


def test_pixels_in_words_are_blocks_of_the_matrix_in_words(decoder):
    layer = decoder.layers[0]
    starts = np.array([0, *range(1, 299, 3), 299, 300])
    (weights, seen) = dense_of(layer, 2)
    shown = HeadMap(Words(layer.matrix[2], Sight(layer.mask, 300, 300), starts, starts))
    dense = by_words(weights, starts, starts), by_words(seen.astype(float), starts, starts) > 0
    for zoom in range(shown.top + 1):
        wanted = blocks(*dense, zoom)
        for how in ("max", "mean"):
            np.testing.assert_allclose(whole(shown, zoom, how), wanted[how], **HALF)


def test_a_word_of_many_pieces_is_summed_up_in_strips(decoder, monkeypatch):
    monkeypatch.setattr("softmap.viewer.sight.STRIP", 900)
    starts = np.array([0, 200, 201, 300])
    found = in_words(decoder.layers[0].matrix[0], starts, starts, lambda: False)
    np.testing.assert_allclose(found, by_words(dense_of(decoder.layers[0], 0)[0], starts, starts), rtol=1e-5)


@pytest.mark.parametrize("zoom", [0, 3, 6, 9])
def test_block_says_where_its_largest_weight_is(decoder, zoom):
    layer, (weights, seen) = decoder.layers[0], dense_of(decoder.layers[0], 1)
    shown = make_map(layer)
    for row, column in np.ndindex(*(min(4, pixels) for pixels in shown.pixels(zoom))):
        found = shown.block(zoom, row, column)
        inside = np.ix_(found.rows, found.columns)
        if not seen[inside].any():
            assert (found.mean, found.at) == (None, None)
            continue
        assert found.mean == pytest.approx(weights[inside].mean(), rel=1e-5)
        assert weights[found.at] == weights[inside].max()
        assert seen[found.at]


def test_block_looks_where_the_kept_blocks_say(decoder, monkeypatch):
    monkeypatch.setattr("softmap.viewer.headmap.TILE", 0)  # as if every block were too large to look at whole
    weights, _ = dense_of(decoder.layers[0], 1)
    assert weights[make_map(decoder.layers[0]).block(7, 1, 0).at] == weights[128:256, :128].max()


def test_block_whose_weights_are_too_small_to_be_told_from_0_names_one_that_may_be_seen(monkeypatch):
    monkeypatch.setattr("softmap.viewer.headmap.TILE", 0)
    mask = masks.from_function(lambda query, key: (query >= 40) | (key >= 40))
    layer = make_layer(queries=300, d_k=1, mask=mask, keep=("qk",), heads=1, kv_heads=1)
    k = torch.where(torch.arange(300) < 128, -1000.0, 0.0)[None, :, None]
    layer = replace(layer, q=torch.ones_like(layer.q), k=k, scale=1.0, largest=(1.0, 1000.0))
    found = make_map(layer, head=0).block(7, 0, 0)
    assert found.mean == 0
    assert max(found.at) >= 40
    assert dense_of(layer, 0)[1][found.at]


def test_what_is_filled_ahead_of_time_is_what_would_be_computed(decoder):
    ahead, later = make_map(decoder.layers[0]), make_map(decoder.layers[0])
    assert ahead.fill()
    while ahead.fill():
        pass
    ahead._source = None  # nothing is computed any more
    (level,) = ahead._levels
    assert not level.missing.any()
    later.block(later.top, 0, 0)
    np.testing.assert_array_equal(level.max, later._levels[0].max)
    np.testing.assert_array_equal(level.sum, later._levels[0].sum)


def test_blocks_that_are_kept_are_bounded_whatever_the_length():
    class Long:
        shape = 1 << 24, 1 << 23

    shown = HeadMap(Long())
    (level,) = shown._levels
    assert level.sum.shape == (4096, 2048)
    assert level.sum.dtype == level.max.dtype == np.float32
    assert shown.nbytes <= 64 << 20


def test_of_weights_that_differ_in_their_last_digits_alone_the_largest_is_named(monkeypatch):
    class Alike:
        shape = 1 << 16, 1 << 16

        def cells(self, rows, columns, zoom, cancelled):
            size = -(-len(rows) >> zoom), -(-len(columns) >> zoom)
            weights = np.full(size, 0.99, np.float32)
            for row, column, more in ((9_000, 70, 1e-5), (60_000, 50_000, 2e-5)):
                if row in rows and column in columns:
                    weights[(row - rows.start) >> zoom, (column - columns.start) >> zoom] += more
            return weights, weights

        def seen(self, rows, columns, zoom, cancelled):
            return np.ones((-(-len(rows) >> zoom), -(-len(columns) >> zoom)), bool)

    shown = HeadMap(Alike())
    assert shown.block(shown.top, 0, 0).at == (60_000, 50_000)


def test_pieces_that_were_computed_before_a_question_was_cancelled_stay(decoder, monkeypatch):
    monkeypatch.setattr("softmap.viewer.headmap.PIECE", 64)  # 5 x 5 pieces
    shown, asked = make_map(decoder.layers[0]), iter([False] * 7 + [True] * 99)
    with pytest.raises(CancelledError):
        shown.tile(shown.top, 0, 0, lambda: next(asked))
    (level,) = shown._levels
    assert 0 < level.missing.sum() < level.missing.size
    wanted = blocks(*dense_of(decoder.layers[0], 1), shown.top)
    np.testing.assert_allclose(shown.tile(shown.top, 0, 0).mean, wanted["mean"], **HALF)


def test_known_blocks_are_not_computed():
    sums, maxima = np.arange(12.0, dtype=np.float32).reshape(3, 4), np.ones((3, 4), np.float32)

    class Unknown:
        shape = 3 * 64, 4 * 64

        def seen(self, rows, columns, zoom, cancelled):
            return np.ones((-(-len(rows) >> zoom), -(-len(columns) >> zoom)), bool)

    shown = HeadMap(Unknown(), Level.known(6, sums, maxima))
    np.testing.assert_allclose(shown.tile(6, 0, 0).mean, sums / 64**2, **HALF)
    assert shown.tile(8, 0, 0).mean == pytest.approx(sums.sum() / (3 * 64 * 4 * 64), rel=1e-3)
