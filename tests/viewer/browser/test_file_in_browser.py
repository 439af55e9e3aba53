"""An exported file of a long text, which does not hold all heads: what it has of the others, and that it says so."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from by_blocks import HALF, blocks, dense_of, make_pieces
from playwright.sync_api import expect
from recorded.builders import ORIGIN, make_layer
from viewer.browser.reading import MAP, said
from viewer.browser.test_save_in_browser import save, texts
from viewer.pages import SOURCES

from softmap.recorded import RecordedSequence, Recording
from softmap.viewer.export import export_html

SIZE = (700, 700)
SOME = range(0, 700, 23)
DRAWN = f"""() => {{
  const canvas = {MAP.removesuffix(".softmapMap")}.querySelector("canvas.overlay");
  const empty = Object.assign(document.createElement("canvas"), {{ width: canvas.width, height: canvas.height }});
  return canvas.toDataURL() !== empty.toDataURL();
}}"""
"""Whether there is anything over the map: lines, frames or numbers."""


@pytest.fixture
def open_at(show, file):
    """The file at an address; nothing of it may need a notice."""
    readers = []

    def open_at(address=""):
        readers.append(show(None, address, view=file))
        return readers[-1]

    yield open_at
    for reader in readers:
        expect(reader.page.locator(".notice")).to_be_hidden()
        expect(reader.page.locator(".board.missing")).to_have_count(0)


def pixels_of(recording, layer, head, zoom, how="max"):
    """What the map has to show at each token: the block that it is in."""
    weights, seen = dense_of(recording.layers[layer], head)
    found = blocks(weights, seen, zoom)[how].repeat(1 << zoom, 0).repeat(1 << zoom, 1)
    return found[: len(weights), : len(weights)]


def assert_shows(reader, expected):
    np.testing.assert_allclose(reader.weights(SOME, SOME), expected[np.ix_(SOME, SOME)], **HALF)


def cell(reader, layer, head):
    return reader.page.locator(f'.cell[data-layer="{layer}"][data-head="{head}"]')


def notes(reader):
    return reader.page.locator(".mapNotes").inner_text()


@pytest.mark.parametrize(
    ("lang", "thumb", "part"),
    [
        ("en", "not in this file; only its thumbnail", "not whole in this file; only some of it"),
        ("zh", "不在此文件中，只有缩略图", "未完整保存在此文件中，只有一部分"),
    ],
)
def test_heads_that_are_not_whole_are_marked_and_say_so(open_at, lang, thumb, part):
    reader = open_at(f"lang={lang}")
    for place, words in {(0, 2): thumb, (1, 3): thumb, (0, 1): part}.items():
        expect(cell(reader, *place)).to_have_attribute("title", re.compile(f"\n{words}$"))
        expect(cell(reader, *place)).to_have_attribute("aria-label", re.compile(f", {words}$"))
        expect(cell(reader, *place).locator(".frame")).to_have_css("border-top-style", "dashed")
    for attribute in ("title", "aria-label"):
        assert thumb not in cell(reader, 1, 2).get_attribute(attribute)
    expect(cell(reader, 1, 2).locator(".frame")).to_have_css("border-top-style", "none")
    assert reader.page.locator(".cell.absent").count() == 7


def test_choosing_one_shows_its_thumbnail_as_what_it_is(open_at, long):
    reader = open_at()
    assert reader.page.locator(".mapNotes .preview").count() == 0
    cell(reader, 0, 2).click()
    reader.settle()
    assert_shows(reader, pixels_of(long, 0, 2, 4))
    assert reader.zoom == 4
    assert "Each pixel is the largest of 16 × 16 weights." in notes(reader)
    assert reader.page.locator(".mapNotes code").inner_text() == "softmap export RECORDING --html FILE --heads 0.2"
    assert reader.page.locator(".mapLegend .caption").inner_text() == "largest weight per 16 × 16"
    colours = reader.colours([(403, 307), (412, 316), (500, 300)], SIZE)
    assert (colours[0] == colours[1]).all()
    assert (colours[:, 3] == 255).all()
    assert (reader.colours([(100, 300), (699, 0)], SIZE)[:, 3] == 0).all()  # which no query of the block may see


def test_from_a_thumbnail_to_a_whole_head_and_back_what_is_seen_stays(open_at, long):
    reader = open_at("layer=1&head=2&box=300,400,200")
    before, part = reader.seen(), range(420, 480)
    cell(reader, 1, 3).click()
    reader.settle()
    assert reader.seen() == pytest.approx(before)
    expected = pixels_of(long, 1, 3, 4)[np.ix_(part, part)]
    np.testing.assert_allclose(reader.weights(part, part), expected, **HALF)
    cell(reader, 1, 2).click()
    reader.settle()
    expected = pixels_of(long, 1, 2, reader.zoom)[np.ix_(part, part)]
    np.testing.assert_allclose(reader.weights(part, part), expected, **HALF)


def test_nothing_else_than_the_thumbnail_is_said_of_it(open_at, long):
    reader = open_at("layer=0&head=2&how=mean&sinks=hidden&query=-1&box=300,400,8")
    part = range(402, 407)
    np.testing.assert_allclose(
        reader.weights(part, range(301, 307)), pixels_of(long, 0, 2, 4)[np.ix_(part, range(301, 307))], **HALF
    )
    assert not reader.page.evaluate(DRAWN)  # neither numbers nor lines of cells
    assert "the largest of 16 × 16 weights. The first and the special tokens are in it." in notes(reader)
    assert "Without" not in notes(reader)
    reader.go(layer=1, head=2, query=-1, box="300,400,8")
    assert reader.page.evaluate(DRAWN)


def test_the_card_says_what_is_known(open_at, long):
    reader = open_at("layer=0&head=2&query=-1")
    card = reader.page.locator(".mapCard")
    reader.point(405, 310, SIZE)
    (largest,) = reader.card()
    assert said(largest.removeprefix("largest")) == pytest.approx(pixels_of(long, 0, 2, 4)[405, 310], rel=2e-3)
    assert "rows 400–415 × keys 304–319" in card.inner_text()
    reader.point(405, 600, SIZE)
    expect(card).to_contain_text("may not be seen")
    reader.point(699, 640, SIZE)
    expect(card).to_contain_text("rows 688–699 × keys 640–655")
    expect(card).not_to_contain_text("may not be seen")


def test_a_held_cell_is_said_not_to_be_there(open_at):
    reader = open_at("layer=0&head=2&query=500&key=300")
    expect(reader.page.locator(".status")).to_have_text("The weights are not in this file.")
    cell(reader, 1, 2).click()
    expect(reader.page.locator(".status")).to_contain_text("weight")


@pytest.mark.parametrize("how", ["max", "mean"])
def test_an_overview_is_shown_down_to_its_finest_pixels(open_at, long, how):
    reader = open_at(f"layer=0&head=1&how={how}&box=300,400,100")
    part = range(410, 440)
    expected = pixels_of(long, 0, 1, 3, how)[np.ix_(part, part)]
    np.testing.assert_allclose(reader.weights(part, part), expected, **HALF)
    assert f"Each pixel is the {'largest' if how == 'max' else 'mean'} of 8 × 8 weights." in notes(reader)


@pytest.mark.parametrize(
    ("view", "told"),
    [
        ("text", "This file does not hold this row of layer 0, head 2."),
        ("steps", "This file does not hold the steps of layer 0, head 2. It holds those of 1.2."),
        ("sentence", "This view is for texts of up to 64 words or tokens. Here there are 700."),
    ],
)
def test_other_views_say_what_is_missing_in_their_place(open_at, view, told):
    reader = open_at(f"layer=1&head=2&view={view}")
    cell(reader, 0, 2).click()
    expect(reader.page.locator(".panel")).to_contain_text(told)
    if view == "text":
        reader.unit(645).hover()
        expect(reader.page.locator(".strip")).to_have_text(told)
        cell(reader, 1, 2).click()
        expect(reader.page.locator(".strip")).to_contain_text("%")


def test_a_row_that_is_held_is_shown(open_at, long):
    reader = open_at("layer=0&head=1&query=650&words=0")
    weights = long[0, 1].dense()[650].numpy()
    first = reader.page.locator(".strip button").first
    expect(first).to_contain_text(f"word{weights.argmax()}")
    assert said(first.locator("i").inner_text()) == pytest.approx(weights.max(), rel=1e-3)
    reader.go(layer=0, head=1, query=9, words=0)
    row = "This file does not hold this row of layer 0, head 1. It holds those of the tokens 7, 650."
    expect(reader.page.locator(".strip")).to_have_text(row)


@pytest.fixture(scope="module")
def short():
    """Sixty tokens in four large heads."""
    of = {"queries": 60, "d_k": 512, "queries_of": "tokens", "keys_of": "tokens"}
    return Recording(ORIGIN, (RecordedSequence((make_layer(**of, number=0, difference=1e-6),), make_pieces(60)),))


@pytest.fixture
def open_short(show, short, tmp_path):
    """They in a file that none of them fits: thumbnails have every weight."""
    page = sum(each.stat().st_size for each in SOURCES.parent.joinpath("static").glob("softmap.*"))
    export_html(short, tmp_path / "map.html", limit=(page + 120_000) / 1e6)
    return lambda address: show(None, address, view=SimpleNamespace(url=(tmp_path / "map.html").as_uri()))


class TestWeightsWithoutSteps:
    def test_weights_are_said_and_their_steps_are_not(self, open_short, short):
        row = short[0, 2][33].half()
        best, least = int(row.argmax()), int(row[:34].argmin())
        reader = open_short(f"layer=0&head=2&words=0&query=33&key={best}")
        status = reader.page.locator(".status .fact")
        assert status.count() == 1
        assert said(status.inner_text().removeprefix("weight ")) == float(row[best])
        reader.point(33, best, (60, 60))
        assert [said(told.removeprefix("weight")) for told in reader.card()] == [float(row[best])]
        reader.point(33, least, (60, 60))
        expect(reader.page.locator(".mapCard .facts")).to_have_text("weight<0.0061%")
        assert reader.page.locator(".mapNotes p").count() == 0
        title = re.compile("not whole in this file; only its weights in float16, without their steps$")
        expect(cell(reader, 0, 2)).to_have_attribute("title", title)
        reader.tab("Steps")
        expect(reader.page.locator(".panel")).to_contain_text(
            "does not hold the steps of layer 0, head 2. It holds those"
        )

    def test_are_words_too_with_and_without_sinks_but_not_rescaled(self, open_short, short):
        reader = open_short("layer=0&head=2&words=1&query=33&sinks=hidden")
        strip = reader.page.locator(".strip")
        expect(strip).to_contain_text("%")
        assert "Without" in notes(reader)
        reader.go(layer=0, head=2, words=0, query=33, sinks="rescaled")
        expect(strip).to_contain_text("choose sinks shown or hidden")
        assert "The first and the special tokens are in it." in notes(reader)
        np.testing.assert_allclose(reader.weights(range(60), range(60)), pixels_of(short, 0, 2, 0), **HALF)

    def test_all_heads_are_drawn_as_a_sentence(self, open_short):
        reader = open_short("layer=0&head=2&words=0&view=sentence&query=33")
        reader.page.locator(".sentence .lines path").first.wait_for()


def test_what_is_missing_is_said_in_the_language_that_is_chosen(open_at):
    reader = open_at("layer=0&head=2&query=500&lang=en")
    holds, strip = reader.page.locator(".holds"), reader.page.locator(".strip")
    expect(holds).to_contain_text("This file holds 1 of 8 heads whole: 1.2.")
    expect(strip).to_have_text("This file does not hold this row of layer 0, head 2.")
    reader.choose("Language", "中文")
    expect(holds).to_contain_text("此文件完整保存了 8 个头中的 1 个：1.2。")
    expect(strip).to_have_text("此文件没有第 0 层第 2 头的这一行。")
    reader.page.get_by_role("tab", name="步骤").click()
    expect(reader.page.locator(".panel")).to_contain_text("用 --heads、--rows 和 --limit 可导出更多")


def test_of_a_short_text_a_thumbnail_is_by_tokens_too(show, tmp_path):
    of = {"queries": 300, "d_k": 64, "queries_of": "tokens", "keys_of": "tokens"}
    recording = Recording(ORIGIN, (RecordedSequence((make_layer(**of, number=0, difference=1e-6),), make_pieces(300)),))
    size = export_html(recording, tmp_path / "all.html")
    export_html(recording, tmp_path / "map.html", limit=(size - 50_000) / 1e6)
    reader = show(None, "layer=0&head=0&words=1", view=SimpleNamespace(url=(tmp_path / "map.html").as_uri()))
    (absent,) = reader.page.locator(".cell.absent").evaluate_all("(cells) => cells.map((cell) => cell.dataset.head)")
    cell(reader, 0, absent).click()
    reader.settle()
    part = range(200, 230)
    expected = pixels_of(recording, 0, int(absent), 3)[np.ix_(part, part)]
    np.testing.assert_allclose(reader.weights(part, part), expected, **HALF)
    assert reader.page.locator(".mapNotes p").count() == 1
    assert "largest of 8 × 8 weights" in notes(reader)


def test_a_thumbnail_is_saved_as_one(open_at):
    _, svg = save(open_at("layer=0&head=2&how=mean"), "The map", "SVG")
    assert any("16 × 16" in text for text in texts(svg))
