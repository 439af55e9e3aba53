"""The page without a mouse, and for those who do not see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

AXE = Path(__file__).parents[3] / "node_modules/axe-core/axe.min.js"
VIEWS = {
    "text": "view=text",
    "sentence": "view=sentence",
    "steps": "view=steps",
}
FOCUSED = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const shown = at.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const name = at.getAttribute("aria-label") || at.textContent.trim() || at.placeholder || at.title;
  const { outlineStyle, outlineWidth } = getComputedStyle(at);
  const inside = at.querySelector(".stage, .hit");
  const marks = [at, inside].filter(Boolean).map((each) => getComputedStyle(each));
  const seen = marks.some((style) => (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.stroke !== "none");
  const part = at.closest(".bar, .heads, .map, .panel")?.classList[0];
  return { shown, name, seen, part, role: at.getAttribute("role"), tag: at.tagName, classes: at.className.baseVal ?? at.className };
}"""


def findings(reader):
    """What axe finds that is serious or critical: the rule, and where."""
    reader.page.wait_for_load_state("networkidle")
    reader.page.add_script_tag(path=AXE)
    found = reader.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        (each["id"], node["html"][:120], node["any"][0]["message"] if node["any"] else node["failureSummary"])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(show, encoder, view, scheme):
    address = f"layer=3&head=1&query=3&key=2&{VIEWS[view]}"
    assert findings(show(encoder, address, color_scheme=scheme, bypass_csp=True)) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_menus_and_notices(show, sentence, scheme):
    reader = show(sentence, "sinks=hidden&query=2&picked=0.1,0.2&mean=picked", color_scheme=scheme, bypass_csp=True)
    reader.page.get_by_role("searchbox").fill("love")
    reader.page.locator(".menu:not(.save) summary").click()
    expect(reader.page.locator(".search output")).to_have_text("1 found")
    assert findings(reader) == []
    reader.page.keyboard.press("Escape")
    reader.page.locator(".save summary").click()
    assert findings(reader) == []


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_axe_finds_nothing_serious_in_two_texts_and_either_language(show, two_texts, lang):
    reader = show(two_texts, f"layer=2&head=1&query=1&lang={lang}", bypass_csp=True)
    assert findings(reader) == []


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_where_a_file_does_not_hold_a_head(show, file, scheme, lang):
    address = f"layer=0&head=2&view=steps&lang={lang}"
    assert findings(show(None, address, view=file, color_scheme=scheme, bypass_csp=True)) == []


@pytest.mark.parametrize("form", ["arcs", "all heads of the layer"])
def test_axe_finds_nothing_serious_in_the_sentence(show, sentence, form):
    reader = show(sentence, "view=sentence&query=2", bypass_csp=True)
    reader.page.get_by_role("radio", name=form).click()
    assert findings(reader) == []


@pytest.mark.parametrize("view", VIEWS)
def test_everything_is_reached_by_tab_in_the_order_of_the_page_and_can_be_seen(show, sentence, view):
    reader = show(sentence, f"layer=3&head=1&query=2&key=3&{VIEWS[view]}")
    reader.page.wait_for_load_state("networkidle")
    stops = []
    for _ in range(80):
        reader.page.keyboard.press("Tab")
        stop = reader.page.evaluate(FOCUSED)
        if stop is None:
            break
        stops.append(stop)
    assert stop is None, "Tab does not leave the page"
    assert [stop for stop in stops if not (stop["shown"] and stop["name"] and stop["seen"])] == []
    parts = [stop["part"] for stop in stops]
    assert list(dict.fromkeys(parts)) == ["bar", "heads", "map", "panel"]
    assert parts == sorted(parts, key=["bar", "heads", "map", "panel"].index)
    assert [stop["classes"] for stop in stops if "board" in stop["classes"]] == ["board"]
    assert sum("cell" in stop["classes"].split() for stop in stops) == 1
    inside = {"text": "reader", "sentence": "word", "steps": "steps"}[view]
    assert any(inside in stop["classes"].split() for stop in stops)


def test_roles_and_names(show, sentence):
    reader = show(sentence, "layer=3&head=1&words=0")
    page = reader.page
    expect(
        page.get_by_role("application", name="Attention map of layer 3, head 1: 5 queries by 5 keys.")
    ).to_be_visible()
    expect(page.get_by_role("grid", name="Layers and heads")).to_be_visible()
    expect(page.get_by_role("tab", name="Text", selected=True)).to_be_visible()
    expect(page.get_by_role("tabpanel", name="Text")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="Point at a cell")).to_be_visible()
    expect(page.get_by_role("main")).to_be_visible()
    expect(page.get_by_role("heading", level=1, name="softmap")).to_be_visible()
    expect(page.get_by_role("searchbox", name="Search the text")).to_be_visible()


def test_tabs_and_choices_are_walked_by_arrows(show, sentence):
    reader = show(sentence, "layer=3&head=1&words=0")
    reader.page.get_by_role("tab", name="Text").focus()
    reader.page.keyboard.press("ArrowRight")
    expect(reader.page.get_by_role("tab", name="Sentence")).to_be_focused()
    reader.page.locator(".sentence .word").first.wait_for()
    reader.page.keyboard.press("ArrowRight")
    reader.page.keyboard.press("ArrowRight")
    expect(reader.page.get_by_role("tab", name="Text")).to_be_focused()
    reader.page.get_by_role("radio", name="tokens", exact=True).focus()
    reader.page.keyboard.press("ArrowRight")
    expect(reader.page.get_by_role("radio", name="words", exact=True)).to_be_focused()
    assert reader.page.get_by_role("radio", name="words", exact=True).get_attribute("aria-checked") == "true"


def test_language_is_changed_by_keys_without_losing_ones_place(show, sentence):
    reader = show(sentence)
    reader.page.locator(".menu:not(.save) summary").focus()
    reader.page.keyboard.press("Enter")
    reader.page.get_by_role("radio", name="English").focus()
    reader.page.keyboard.press("ArrowRight")
    expect(reader.page.get_by_role("radio", name="中文")).to_be_focused()
    reader.page.keyboard.press("Escape")
    expect(reader.page.locator(".menu:not(.save) summary")).to_be_focused()
    expect(reader.page.get_by_role("radio", name="中文")).to_be_hidden()


def test_what_is_looked_at_is_said_after_a_while(show, sentence):
    reader = show(sentence, "layer=3&head=1&words=0&query=2")
    best = sentence.tokens.pieces[int(sentence[3, 1][2].argmax())]
    expect(reader.page.locator(".aloud")).to_contain_text(f"love looks at {best}")


def test_nothing_moves_where_that_is_not_wanted(show, decoder):
    reader = show(decoder, "words=0&layer=0&head=0", reduced_motion="reduce")
    whole = reader.seen()[2]
    reader.page.get_by_role("button", name="Zoom in").click()
    now = "document.querySelector('.softmap .map').softmapMap.viewer.viewport.getBounds(true).width * 300"
    assert reader.page.evaluate(now) == pytest.approx(whole / 2, rel=0.01)
