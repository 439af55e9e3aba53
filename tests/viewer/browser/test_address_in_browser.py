"""The page's address: it opens the page as it was."""

from __future__ import annotations

from io import BytesIO
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from matplotlib.image import imread
from playwright.sync_api import expect

from softmap.viewer.answers import Answers

STATE = {
    "layer": "1",
    "head": "2",
    "query": "120",
    "key": "101",
    "mean": "picked",
    "view": "steps",
    "how": "mean",
    "scale": "linear",
    "palette": "cividis",
    "sinks": "hidden",
    "direction": "receives",
    "lang": "zh",
    "theme": "dark",
    "words": "0",
    "picked": "0.1,1.3",
    "box": "90.25,110.5,40",
}


def picture(reader):
    """All that can be seen, as pixels."""
    reader.page.mouse.move(0, 0)
    reader.page.evaluate("document.activeElement.blur()")
    reader.page.wait_for_load_state("networkidle")
    reader.settle()
    return imread(BytesIO(reader.page.screenshot(animations="disabled")))


def test_state_is_as_it_was_in_a_new_page(show, decoder):
    first = show(decoder, urlencode(STATE))
    state = first.state
    assert state == STATE
    second = show(decoder, urlsplit(first.page.url).fragment)
    assert second.state == STATE
    assert second.seen() == pytest.approx(first.seen(), abs=0.02)
    np.testing.assert_allclose(picture(first), picture(second), atol=0.02)  # edges of letters vary a little


def test_address_says_where_one_is_though_all_is_as_usual(show, decoder):
    start = Answers(decoder).ask("about", {})["start"]
    assert show(decoder).state == {name: str(start[name]) for name in ("layer", "head", "query")}


def test_what_a_reader_does_is_in_the_address(show, sentence):
    reader = show(sentence)
    reader.choose("Colours", "ink")
    reader.choose("Sinks", "hidden")
    reader.choose("Scale", "log")
    reader.tab("Sentence")
    reader.page.locator('.cell[data-layer="0"][data-head="4"]').click()
    state = reader.state
    assert {"palette": "ink", "sinks": "hidden", "scale": "log", "view": "sentence"}.items() <= state.items()
    assert reader.page.locator(".mapHeading b").inner_text() == "Layer 0, head 4"
    other = show(sentence, urlsplit(reader.page.url).fragment)
    assert other.state == state


@pytest.mark.parametrize(
    "address",
    [
        "layer=99&head=-5&query=abc&key=1e9&view=<b>&palette=;&box=1,2&picked=a.b,7.7,,0.1",
        "%ff%fe&&&=&layer=%",
        "box=NaN,Infinity,-1",
        "words=maybe&sinks=%00&theme=javascript:alert(1)",
        "layer=1" * 2000,
    ],
)
def test_broken_address_opens_the_page_as_usual(show, decoder, address):
    reader = show(decoder, address)
    expect(reader.page.locator(".notice")).to_be_hidden()
    assert reader.weights([0], [0]) == 1  # of a causal mask the first query sees itself alone


@pytest.mark.parametrize("state", ["query=5000&key=7", "query=7&key=5000", "query=999999999&key=999999999"])
@pytest.mark.parametrize("view", ["text", "steps"])
def test_address_of_a_cell_that_is_not_there_breaks_nothing(show, decoder, state, view):
    reader = show(decoder, f"{state}&view={view}")
    reader.page.wait_for_load_state("networkidle")
    assert reader.weights([0], [0]) == 1
    assert reader.page.locator(".notice").is_hidden()


def test_what_is_held_is_let_go_where_another_layer_has_it_not(show, two_texts):
    reader = show(two_texts, "layer=0&head=1&words=0&query=10&key=11")
    reader.page.locator('.cell[data-layer="2"][data-head="1"]').click()
    reader.page.wait_for_load_state("networkidle")
    assert reader.page.locator(".notice").is_hidden()
    state = reader.state
    assert (state["query"], state["key"]) == ("-1", "11")


def test_address_that_is_edited_is_followed(show, decoder):
    reader = show(decoder, "layer=0&head=0&words=0")
    reader.go(layer=1, head=3, words=0, theme="dark", box="200,200,50")
    assert reader.page.locator(".mapHeading b").inner_text() == "Layer 1, head 3"
    assert reader.seen() == pytest.approx([200, 200, 50], abs=0.1)
    assert reader.page.locator(".softmap").get_attribute("data-theme") == "dark"


def test_back_and_forward_lead_through_edited_addresses(show, decoder):
    reader = show(decoder, "layer=0&head=1&words=0")
    reader.go(layer=1, head=2, words=0)
    reader.page.evaluate("history.back()")
    expect(reader.page.locator(".mapHeading b")).to_have_text("Layer 0, head 1")
    reader.page.evaluate("history.forward()")
    expect(reader.page.locator(".mapHeading b")).to_have_text("Layer 1, head 2")


def test_reloading_keeps_the_state_and_needs_no_token(show, decoder):
    reader = show(decoder, urlencode(STATE))
    assert "token" not in reader.page.url
    reader.page.reload()
    reader.page.wait_for_selector(".softmap:not([aria-busy]) .map")
    reader.settle()
    assert reader.state == STATE


def test_link_is_copied(show, decoder):
    reader = show(decoder, "layer=1&head=3", permissions=["clipboard-read", "clipboard-write"])
    reader.page.locator(".save summary").click()
    reader.page.get_by_role("button", name="Copy", exact=True).click()
    expect(reader.page.get_by_role("button", name="Copied")).to_be_visible()
    assert reader.page.evaluate("navigator.clipboard.readText()") == reader.page.url
