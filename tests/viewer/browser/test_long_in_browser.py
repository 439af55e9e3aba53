"""A map of 65,536 tokens: all of it, every cell of it, in little memory."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from by_blocks import HALF, make_pieces
from playwright.sync_api import expect
from recorded.builders import ORIGIN, make_layer
from viewer.browser.reading import number_of, said

from softmap.recorded import RecordedSequence, Recording

COUNT = 65_536


@pytest.fixture(scope="module")
def long():
    """Two heads of a decoder."""
    of = {"queries": COUNT, "queries_of": "tokens", "keys_of": "tokens", "d_k": 16, "d_v": 4, "heads": 2, "kv_heads": 2}
    layer = make_layer(0, number=0, scale=0.25, summary={"cells": 256, "top": 4}, difference=1e-6, **of)
    return Recording(ORIGIN, (RecordedSequence((layer,), make_pieces(COUNT)),))


@pytest.fixture
def reader(show, long):
    return show(long, "words=0&layer=0&head=1&query=-1")


def memory(browser):
    """MiB that the largest of the browser's pages has for itself alone."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    places = [Path(f"/proc/{each['id']}/smaps_rollup") for each in processes if each["type"] == "renderer"]
    own = [re.findall(r"Private_\w+: +(\d+) kB", place.read_text(encoding="ascii")) for place in places]
    return max(sum(map(int, each)) for each in own) / 1024


def test_whole_map_is_shown_soon(reader):
    assert reader.zoom >= 7
    side = 1 << reader.zoom
    found = reader.weights(range(0, COUNT, 64 * side), range(0, COUNT, 64 * side))
    assert np.isnan(found[0, -1])
    assert (found[-1][np.isfinite(found[-1])] > 0).all()


def test_that_tiles_are_on_their_way_is_said_no_longer_than_they_are(show, long):
    reader = show(long, "words=0&layer=0&head=1&query=-1&box=60000,60000,40")
    expect(reader.page.locator(".loading")).to_be_hidden()


def test_cells_are_exact_wherever_one_zooms(reader, long):
    for row, key in ((60_000, 777), (65_500, 65_480), (200, 100)):
        reader.go(words=0, layer=0, head=1, query=row, key=key, box=f"{key - 8},{row - 6},16")
        rows, keys = range(row - 4, row + 4), range(key - 6, key + 6)
        expected = long[0, 1][rows.start : rows.stop, keys.start : keys.stop].numpy()
        seen = np.subtract.outer(rows, keys) >= 0
        np.testing.assert_allclose(reader.weights(rows, keys), np.where(seen, expected, np.nan), **HALF)


def test_blocks_are_exact_at_every_zoom(reader, long):
    matrix = long[0, 1]
    for width in (1200, 8000):
        reader.go(words=0, layer=0, head=1, query=-1, box=f"20000,50000,{width}")
        side = 1 << reader.zoom
        row, key = 50_176, 20_480
        block = matrix[row : row + side, key : key + side]
        assert reader.weights([row], [key])[0, 0] == pytest.approx(float(block.max()), rel=1e-3)


def test_card_finds_the_largest_weight_of_a_block_of_thousands(reader, long):
    reader.point(50_000, 20_000, (COUNT, COUNT))
    largest, mean = reader.card()
    side = 1 << reader.zoom
    row, key = 50_000 // side * side, 20_000 // side * side
    block = long[0, 1][row : row + side, key : key + side]
    assert said(largest) == float(block.max())
    assert said(mean) == pytest.approx(float(block.double().mean()), rel=0.02)


def test_one_goes_to_a_cell_by_its_numbers_and_is_told_it(reader, long):
    reader.go(words=0, layer=0, head=1, query=-1, box="0,0,40")
    field = reader.page.get_by_role("searchbox")
    field.fill("61234,60011")
    field.press("Enter")
    facts = reader.page.locator(".status .fact")
    expect(facts.first).to_be_visible()
    texts = facts.evaluate_all("(all) => all.map((each) => each.lastChild.textContent)")
    matrix = long[0, 1]
    assert said(texts[0]) == float(matrix[61_234, 60_011])
    assert number_of(texts[1]) == pytest.approx(float(matrix.scores[61_234, 60_011]), rel=1e-3)
    reader.rest()
    row, key, width = reader.seen()
    assert row < 61_234
    assert key < 60_011 < key + width


def test_words_are_said_to_be_too_many(show, long):
    reader = show(long, "words=1&layer=0&head=0")
    expect(reader.page.locator(".mapNotes")).to_contain_text(
        "Shown by tokens: words are put together up to 4\u202f096 tokens"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_little_memory_is_taken_however_much_one_looks_at(reader, browser):
    random = torch.Generator().manual_seed(0)
    for _ in range(10):
        row, key, size = (int(each) for each in torch.randint(0, 50_000, (3,), generator=random))
        reader.go(words=0, layer=0, head=1, query=-1, box=f"{key},{row},{50 + size // 20}")
    reader.go(words=0, layer=0, head=1, query=-1)
    assert memory(browser) < 300
    assert reader.page.evaluate("document.querySelectorAll('*').length") < 3000
