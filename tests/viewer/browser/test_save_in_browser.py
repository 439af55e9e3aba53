"""Saving what is shown as a file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread
from viewer.browser.hostile import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"


def save(reader, what, kind):
    """The file that the menu gives, its name and its bytes."""
    reader.page.locator(".save summary").click()
    group = reader.page.get_by_role("group", name=what)
    with reader.page.expect_download() as waiting:
        group.get_by_role("button", name=kind).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def texts(svg):
    """All text of a drawing that parses."""
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_map_as_svg_has_its_words_and_weights_as_text(show, sentence):
    name, svg = save(show(sentence, "words=0&layer=3&head=1&query=2&key=3"), "The map", "SVG")
    assert name == "softmap-layer3-head1.svg"
    found = texts(svg)
    assert [found.count(label) for label in ("[CLS]", "I", "love", "learning", "[SEP]")] == [2] * 5
    weights = [f"{weight:.2f}" for weight in sentence[3, 1].dense().flatten().tolist()]
    numbers = [text for text in found if text[1:2] == "."]
    assert np.abs(np.array(numbers, float) - np.array(weights, float)).max() < 0.0101
    assert "Layer 3, head 1" in found
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}image"))) == 1


def test_map_as_png_is_a_picture_of_some_colours(show, sentence):
    name, png = save(show(sentence, "words=0&layer=3&head=1"), "The map", "PNG")
    assert name == "softmap-layer3-head1.png"
    pixels = imread(BytesIO(png))
    assert min(pixels.shape[:2]) > 400
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1])[::97], axis=0)) > 5


def test_part_of_a_map_says_which(show, decoder):
    _, svg = save(show(decoder, "words=0&layer=0&head=0&box=100,50,40"), "The map", "SVG")
    assert any("keys 100 to 1" in text and "of 300" in text for text in texts(svg))


@pytest.mark.parametrize("all_heads", [False, True])
def test_sentence(show, sentence, all_heads):
    reader = show(sentence, "view=sentence&words=0&layer=3&head=1&query=2")
    reader.page.locator(".sentence .word").first.wait_for()
    if all_heads:
        reader.page.get_by_role("radio", name="all heads of the layer").click()
    name, svg = save(reader, "The sentence", "SVG")
    assert name == ("softmap-layer3-sentence.svg" if all_heads else "softmap-layer3-head1-sentence.svg")
    found = texts(svg)
    assert [found.count(label) for label in ("[CLS]", "I", "love", "learning", "[SEP]")] == [2] * 5
    assert b"class=" not in svg
    paths = list(ElementTree.fromstring(svg).iter(f"{SVG}path"))
    assert len({path.get("stroke") for path in paths}) >= (12 if all_heads else 1)
    name, png = save(reader, "The sentence", "PNG")
    assert name.endswith("sentence.png")
    assert imread(BytesIO(png)).std() > 0.01


def test_dark_page_saves_light_pictures(show, sentence):
    reader = show(sentence, "view=sentence&words=0&theme=dark&query=2")
    reader.page.locator(".sentence .word").first.wait_for()
    for what in ("The map", "The sentence"):
        _, png = save(reader, what, "PNG")
        assert imread(BytesIO(png))[:3, :3, :3].min() > 0.98
        reader.page.keyboard.press("Escape")


@pytest.mark.parametrize("what", ["The map", "The sentence"])
def test_hostile_words_are_text_in_the_file(show, hostile, what):
    reader = show(hostile, "view=sentence&words=0&layer=0&head=0&query=1")
    reader.page.locator(".sentence .word").first.wait_for()
    _, svg = save(reader, what, "SVG")
    root = ElementTree.fromstring(svg)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg",
        "g",
        "title",
        "rect",
        "text",
        "path",
        "image",
    }
    assert not any(name.startswith("on") for element in root.iter() for name in element.attrib)
    assert any(HOSTILE[0][:9] in text for text in texts(svg))
    page = reader.context.new_page()
    page.on("dialog", reader.refuse_dialog)
    page.goto("data:text/html,")
    page.set_content(svg.decode())
    assert page.locator("svg script, svg img").count() == 0


def test_without_weights_saving_says_so(show, statistics):
    reader = show(statistics)
    reader.page.locator(".notice button").click()
    reader.page.locator(".save summary").click()
    reader.page.get_by_role("group", name="The map").get_by_role("button", name="SVG").click()
    reader.page.locator(".notice").get_by_text("q and k").wait_for()
    reader.expect_trouble("409", "q and k")
