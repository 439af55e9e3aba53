"""All layers and heads as small pictures, asked for as they come on screen."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import expect
from recorded.builders import make_recording
from viewer.browser.reading import said

import softmap
from softmap import masks
from softmap.roles import NAMED_BY


@pytest.fixture(scope="module")
def many():
    """2,048 heads in 64 layers."""
    return make_recording(layers=64, heads=32, kv_heads=8, queries=6, mask=masks.full(), part="encoder")


def cell(reader, layer, head):
    return reader.page.locator(f'.cell[data-layer="{layer}"][data-head="{head}"]')


def pixels(reader, layer, head):
    """The size of a head's picture, and whether each of its pixels is opaque."""
    width, height, alphas = (
        cell(reader, layer, head)
        .locator("canvas")
        .evaluate(
            """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return [canvas.width, canvas.height, [...data].filter((_, i) => i % 4 === 3)];
        }"""
        )
    )
    return np.array(alphas).reshape(height, width)


def test_every_head_has_a_picture_of_its_matrix(show, causal):
    reader = show(causal, "words=0")
    reader.page.wait_for_load_state("networkidle")
    assert reader.page.locator(".cell").count() == 8
    expected = causal.layers[1].mask.strip(range(40), range(40)).numpy()
    assert np.array_equal(pixels(reader, 1, 3) > 0, expected)


def test_only_layers_on_screen_are_asked_for(show, many):
    reader = show(many)
    reader.page.wait_for_load_state("networkidle")
    assert reader.page.locator(".cell").count() == 2048
    first = {params["layer"] for params in reader.questions("thumbs")}
    assert 0 < len(first) < 12
    reader.page.locator(".grid").evaluate("(grid) => { grid.scrollTop = grid.scrollHeight; }")
    cell(reader, 63, 0).wait_for()
    reader.page.wait_for_function(
        "() => document.querySelector('.cell[data-layer=\"63\"] canvas').width > 1", timeout=10_000
    )
    asked = {params["layer"] for params in reader.questions("thumbs")}
    assert "63" in asked
    assert len(asked) < 24


def test_chosen_head_is_on_screen_from_the_start(show, many):
    reader = show(many, "layer=40&head=3")
    expect(cell(reader, 40, 3)).to_be_in_viewport()
    assert cell(reader, 40, 3).get_attribute("aria-selected") == "true"


def test_what_heads_do_is_shown_as_softmap_heads_says(show, encoder):
    told = next(head for head in softmap.heads(encoder).rows if head.role)
    reader = show(encoder, f"layer={told.layer}&head={told.head}")
    place = f"layer {told.layer}, head {told.head}: {told.role}, "
    expect(cell(reader, told.layer, told.head)).to_have_attribute("aria-label", re.compile(re.escape(place)))
    label = cell(reader, told.layer, told.head).get_attribute("aria-label")
    assert said(label.removeprefix(place)) == getattr(told, NAMED_BY[told.role])
    assert told.role in reader.page.locator(".heads .legend").inner_text()


class TestChoosing:
    @pytest.fixture
    def reader(self, show, encoder):
        return show(encoder, "words=0&layer=2&head=3")

    def test_by_a_click(self, reader, encoder):
        cell(reader, 2, 5).click()
        reader.settle()
        assert reader.page.locator(".mapHeading b").inner_text() == "Layer 2, head 5"
        count = len(encoder.tokens)
        expected = encoder[2, 5].dense().numpy().astype(np.float16)
        np.testing.assert_allclose(reader.weights(range(count), range(count)), expected, rtol=1e-3, atol=6e-8)

    def test_by_keys(self, reader):
        cell(reader, 2, 3).focus()
        for key in ("ArrowRight", "ArrowDown", "Home", "End", "ArrowLeft", "Enter"):
            reader.page.keyboard.press(key)
        assert (reader.state["layer"], reader.state["head"]) == ("3", "10")

    def test_keys_stop_at_the_edges(self, reader):
        title = reader.page.locator(".mapHeading b")
        cell(reader, 0, 0).focus()
        for key in ("ArrowUp", "ArrowLeft", "Enter"):
            reader.page.keyboard.press(key)
        expect(title).to_have_text("Layer 0, head 0")
        cell(reader, 5, 11).focus()
        for key in ("ArrowDown", "ArrowRight", "Enter"):
            reader.page.keyboard.press(key)
        expect(title).to_have_text("Layer 5, head 11")


def test_several_are_picked_for_the_mean_and_let_go(show, encoder):
    reader = show(encoder, "words=0&layer=2&head=3&query=3")
    reader.page.get_by_role("button", name="Pick", exact=True).click()
    for head in (1, 4):
        cell(reader, 2, head).click()
    cell(reader, 2, 6).focus()
    reader.page.keyboard.press("x")
    assert reader.state["picked"] == "2.1,2.4,2.6"
    assert reader.page.locator(".mapHeading b").inner_text() == "Layer 2, head 3"
    assert "picked" in cell(reader, 2, 4).get_attribute("aria-label")
    heads = reader.questions("row")[-1]["heads"]
    assert heads == "2.1,2.4,2.6"
    cell(reader, 2, 4).click()
    assert reader.state["picked"] == "2.1,2.6"
    reader.page.keyboard.press("Escape")
    cell(reader, 1, 5).click()
    assert (reader.state["layer"], reader.state["head"], reader.state["picked"]) == ("1", "5", "2.1,2.6")
    reader.page.get_by_role("button", name="Clear 2").click()
    assert "picked" not in reader.state
    assert reader.page.get_by_role("radio", name="head", exact=True).get_attribute("aria-checked") == "true"
