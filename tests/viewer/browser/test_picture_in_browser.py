"""The pictures of a model that sees, shaded by what a patch looks at."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from playwright.sync_api import expect
from recorded.builders import ORIGIN, make_layer, make_picture, make_tokens
from viewer.browser.reading import said

from softmap import masks
from softmap.recorded import RecordedSequence, Recording
from softmap.viewer.export import export_html

COLUMNS, ROWS, FIRST = 3, 2, 1


@pytest.fixture(scope="module")
def seen():
    """A tower that saw a picture of two rows of three patches, and a layer of a text without it."""
    tower = make_layer(0, number=0, path="tower.0", queries=9, mask=masks.full(), part="encoder")
    text = make_layer(1, number=1, path="text.1", queries=9, queries_of="tokens", keys_of="tokens")
    return Recording(ORIGIN, (RecordedSequence((tower, text), make_tokens(9), None, (make_picture(path="tower"),)),))


@pytest.fixture
def reader(show, seen):
    reader = show(seen, "view=picture&layer=0&head=2&query=-1")
    reader.page.locator(".patches canvas").wait_for()
    reader.page.wait_for_load_state("networkidle")
    return reader


def place(reader, patch):
    """The middle of a patch on the page."""
    box = reader.page.locator(".patches canvas").bounding_box()
    row, column = divmod(patch, COLUMNS)
    return box["x"] + (column + 0.5) / COLUMNS * box["width"], box["y"] + (row + 0.5) / ROWS * box["height"]


def test_pointing_at_a_patch_tells_how_much_goes_to_patches_and_to_all_else(reader, seen):
    reader.page.mouse.move(*place(reader, 4))
    expect(reader.page.locator(".picture .strip b")).to_have_text("row 2, column 2")
    row = seen[0, 2][FIRST + 4].double()
    patches = float(row[FIRST : FIRST + 6].sum())
    told = reader.page.locator(".picture .strip i").all_inner_texts()
    assert [said(text) for text in told] == [patches, float(row.sum()) - patches]


def test_patch_is_held_and_the_others_tell_what_it_looks_at_them_with(reader, seen):
    reader.page.mouse.click(*place(reader, 4))
    assert reader.state["query"] == str(FIRST + 4)
    reader.page.mouse.move(*place(reader, 0))
    tag = reader.page.locator(".patches .tag")
    expect(tag).to_contain_text("row 1, column 1")
    expect(tag).to_contain_text("row 2, column 2 →")
    assert said(tag.inner_text().split()[-1]) == float(seen[0, 2][FIRST + 4, FIRST])


def test_other_tokens_stand_beside_it_with_their_weights(reader, seen):
    reader.page.mouse.move(*place(reader, 4))
    expect(reader.page.locator(".picture .strip b")).to_have_text("row 2, column 2")
    chips = reader.page.locator(".picture .chips .chip")
    weights = chips.locator("i").all_inner_texts()
    assert [said(text) for text in weights] == [float(seen[0, 2][FIRST + 4, token]) for token in (0, 7, 8)]


def test_arrows_walk_over_the_patches(reader):
    reader.page.locator(".patches").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        reader.page.keyboard.press(key)
    expect(reader.page.locator(".picture .strip b")).to_contain_text("row 2")


def test_layers_without_a_picture_have_no_view_of_it(reader):
    expect(reader.page.get_by_role("tab", name="Picture")).to_be_visible()
    reader.page.locator('.cell[data-layer="1"][data-head="0"]').click()
    expect(reader.page.get_by_role("tab", name="Picture")).to_be_hidden()
    expect(reader.page.get_by_role("tab", name="Text", selected=True)).to_be_visible()
    reader.page.locator(".reader .unit").first.wait_for()


def test_what_a_file_does_not_hold_is_said_in_its_place(show, seen, tmp_path):
    path = tmp_path / "map.html"
    export_html(seen, path)
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r'<script [^>]*data-piece="(q|received)/0.2".*?</script>', "", text), encoding="utf-8")
    reader = show(None, "view=picture&layer=0&head=1&query=2&sinks=rescaled", view=SimpleNamespace(url=path.as_uri()))
    reader.page.locator(".picture .strip i").first.wait_for()
    reader.page.locator('.cell[data-layer="0"][data-head="2"]').click()
    expect(reader.page.locator(".picture .strip")).to_contain_text("the file holds the weights alone")
    expect(reader.page.locator(".notice")).to_be_hidden()
