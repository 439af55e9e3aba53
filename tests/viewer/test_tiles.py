"""Which maps and tiles are held, what the recorded statistics give of them, and maps without sinks."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
from by_blocks import HALF, blocks, by_words, dense_of, rescale
from recorded.builders import make_recording

from softmap import masks
from softmap.matrix import Cells
from softmap.viewer.texts import Texts
from softmap.viewer.tiles import Kept, Tiles, Which, known_level


def make_tiles(recording):
    return Tiles(recording.layers, Texts(recording))


def whole(tiles, which, zoom, how):
    down, across = (-(-pixels // 256) for pixels in tiles.map(which).pixels(zoom))
    return np.block(
        [[getattr(tiles.tile(which, zoom, row, column), how) for column in range(across)] for row in range(down)]
    )


@pytest.mark.parametrize("sinks", ["shown", "hidden", "rescaled"])
@pytest.mark.parametrize("head", [0, 3])
def test_maps_with_and_without_sinks(decoder, sinks, head):
    tiles, layer = make_tiles(decoder), decoder.layers[1]
    left_out = () if sinks == "shown" else (0, 299)
    weights, seen = dense_of(layer, head, left_out)
    weights = rescale(layer, head, left_out) if sinks == "rescaled" else weights
    which = Which(1, head, sinks)
    for zoom in range(tiles.map(which).top + 1):
        wanted = blocks(weights, seen, zoom)
        for how in ("max", "mean"):
            np.testing.assert_allclose(whole(tiles, which, zoom, how), wanted[how], **HALF)


@pytest.mark.parametrize("sinks", ["shown", "hidden", "rescaled"])
def test_maps_in_words_with_and_without_sinks(decoder, sinks):
    tiles, layer = make_tiles(decoder), decoder.layers[0]
    starts = Texts(decoder).text("tokens").starts(True)
    left_out = () if sinks == "shown" else (0, 299)
    weights, seen = dense_of(layer, 1, left_out)
    weights = rescale(layer, 1, left_out) if sinks == "rescaled" else weights
    dense = by_words(weights, starts, starts), by_words(seen.astype(float), starts, starts) > 0
    which = Which(0, 1, sinks, words=True)
    for zoom in range(tiles.map(which).top + 1):
        np.testing.assert_allclose(whole(tiles, which, zoom, "max"), blocks(*dense, zoom)["max"], **HALF)


@pytest.mark.parametrize("mask", [masks.sliding_window(40, 0), masks.full()])
def test_sinks_of_a_model_with_windows_soft_caps_and_learnt_sinks(mask):
    recording = make_recording(queries=150, mask=mask, softcap=2.0, sinks=True)
    tiles, layer = make_tiles(recording), recording.layers[0]
    weights, seen = rescale(layer, 2, (0, 149)), dense_of(layer, 2, (0, 149))[1]
    for zoom in (0, 3, 6):
        wanted = blocks(weights, seen, zoom)
        np.testing.assert_allclose(whole(tiles, Which(0, 2, "rescaled"), zoom, "mean"), wanted["mean"], **HALF)


def cells_of(weights, rows, keys):
    """Statistics of cells with these edges, by hand."""
    import torch

    parts = [[weights[a:b, c:d] for c, d in pairwise(keys)] for a, b in pairwise(rows)]
    sums, maxima = (torch.tensor([[[float(of(part)) for part in row] for row in parts]]) for of in (np.sum, np.max))
    return Cells(sums, maxima, tuple(rows), tuple(keys))


class TestWhatTheStatisticsGive:
    @pytest.mark.parametrize(
        ("rows", "keys", "zoom"),
        [
            ((0, 16, 32, 48, 50), (0, 16, 32, 48, 60), 4),
            ((0, 8, 16, 20, 24, 32, 40, 48, 50), (0, 16, 32, 48, 60), 4),
            ((0, 50), (0, 32, 60), 6),
        ],
    )
    def test_blocks_of_the_finest_power_of_two(self, rows, keys, zoom):
        weights = np.random.default_rng(0).random((50, 60))
        cells = cells_of(weights, rows, keys)
        level = known_level(cells, 0)
        if zoom == 6:
            assert level is None
            return
        wanted = blocks(weights, weights >= 0, zoom)
        assert level.zoom == zoom
        np.testing.assert_allclose(level.max, wanted["max"], rtol=1e-6)
        np.testing.assert_allclose(level.sum.sum(), weights.sum(), rtol=1e-6)

    def test_other_edges_give_none(self):
        cells = cells_of(np.ones((300, 300)), range(0, 301, 60), range(0, 301, 60))
        assert known_level(cells, 0) is None

    def test_are_the_map_s_coarse_pixels(self):
        recording = make_recording(queries=128, summary={"cells": 8})
        tiles = make_tiles(recording)
        assert recording.layers[0].summary.cells.row_edges == tuple(range(0, 129, 16))
        wanted = blocks(*dense_of(recording.layers[0], 1), 5)
        np.testing.assert_allclose(whole(tiles, Which(0, 1), 5, "max"), wanted["max"], **HALF)
        assert not tiles.fill()

    @pytest.mark.parametrize("sinks", ["hidden", "rescaled"])
    def test_do_not_count_where_keys_are_left_out(self, sinks):
        recording = make_recording(queries=128, summary={"cells": 8})
        tiles, layer = make_tiles(recording), recording.layers[0]
        weights, seen = dense_of(layer, 1, (0, 127))
        weights = rescale(layer, 1, (0, 127)) if sinks == "rescaled" else weights
        for zoom in (4, 6):
            wanted = blocks(weights, seen, zoom)
            for how in ("max", "mean"):
                np.testing.assert_allclose(whole(tiles, Which(0, 1, sinks), zoom, how), wanted[how], **HALF)


class TestWhatIsHeld:
    def test_is_bounded_and_the_least_lately_used_goes(self):
        kept, made = Kept[str](10), []

        def get(key):
            return kept.get(key, lambda: made.append(key) or key, lambda value: 4)

        for key in "aababcab":
            assert get(key) == key
            assert kept.held <= 10
        assert made == ["a", "b", "c", "a", "b"]
        assert kept.latest() == ["b", "a"]

    def test_one_that_was_just_used_outlives_one_that_was_made_later(self):
        kept, made = Kept[str](10), []
        for key in "abaca":
            kept.get(key, lambda key=key: made.append(key) or key, lambda value: 4)
        assert made == ["a", "b", "c"]
        assert kept.latest() == ["a", "c"]

    def test_map_counts_as_used_by_a_tile_that_is_kept(self, decoder, monkeypatch):
        size = make_tiles(decoder).map(Which(0, 0)).nbytes
        monkeypatch.setattr("softmap.viewer.tiles.MAPS", 2 * size)
        tiles = make_tiles(decoder)
        maps = {}
        for head in (0, 1, 0, 2):
            tiles.tile(Which(0, head), 0, 0, 0)
            maps.setdefault(head, tiles.map(Which(0, head)) if head not in maps else None)
        assert tiles.map(Which(0, 0)) is maps[0]

    def test_one_that_is_too_large_is_held_alone(self):
        kept = Kept[str](10)
        for key, size in (("a", 4), ("b", 99), ("c", 4)):
            kept.get(key, lambda key=key: key, lambda value, size=size: size)
        assert kept.latest() == ["c"]
        assert kept.held == 4

    def test_tiles_of_many_heads_stay_within_their_bytes(self, decoder, monkeypatch):
        monkeypatch.setattr("softmap.viewer.tiles.TILES", 1 << 20)
        monkeypatch.setattr("softmap.viewer.tiles.MAPS", 1 << 10)
        tiles = make_tiles(decoder)
        for layer, head, zoom in np.ndindex(2, 4, 9):
            tiles.tile(Which(layer, head), zoom, 0, 0)
        assert tiles.nbytes < (1 << 20) + (1 << 11)

    def test_may_be_asked_by_several_threads(self, decoder):
        tiles, found = make_tiles(decoder), []

        def ask():
            for head, zoom in np.ndindex(4, 9):
                found.append(((head, zoom), tiles.tile(Which(0, head), zoom, 0, 0).max))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alone = make_tiles(decoder)
        assert len(found) == 4 * 36
        for (head, zoom), tile in found:
            np.testing.assert_array_equal(tile, alone.tile(Which(0, head), zoom, 0, 0).max)


def test_the_map_looked_at_last_is_filled_first(decoder):
    tiles = make_tiles(decoder)
    first, last = tiles.map(Which(0, 0)), tiles.map(Which(0, 1))
    assert tiles.fill()
    assert not last._levels[-1].missing.any()
    assert first._levels[-1].missing.any()
    assert tiles.fill()
    assert not tiles.fill()
