"""The page in both languages, light and dark, on small and large screens."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from playwright.sync_api import expect

SIZES = {"phone sideways": (844, 390), "phone": (390, 844), "laptop": (1280, 720), "large": (1920, 1080)}
VIEWS = ["text", "sentence", "steps"]


def boxes(reader, *parts):
    found = {}
    for part in parts:
        element = reader.page.locator(part).first
        box = element.bounding_box()
        assert box, part
        found[part] = box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]
    return found


def overlap(one, other):
    """Pixels that two boxes share, the shorter way."""
    return min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])


class TestLanguages:
    def test_of_the_browser_is_the_usual_one(self, show, sentence):
        reader = show(sentence, locale="zh-CN")
        assert reader.page.get_by_role("tab").all_inner_texts()[:3] == ["文本", "句子", "步骤"]
        assert reader.page.locator(".softmap").get_attribute("lang") == "zh"
        assert show(sentence, locale="de-DE").page.get_by_role("tab").first.inner_text() == "Text"

    @pytest.mark.parametrize("view", VIEWS)
    def test_nothing_is_left_in_the_other_one(self, show, sentence, view):
        reader = show(sentence, f"view={view}&words=0&layer=3&head=1&query=2&key=3&sinks=hidden")
        reader.page.wait_for_load_state("networkidle")
        reader.choose("Language", "中文")
        reader.page.wait_for_timeout(700)  # what is said aloud comes last
        said = reader.page.evaluate("""() => {
          const own = (each) => [...each.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join("");
          const names = ["title", "aria-label", "placeholder"];
          const all = [...document.querySelectorAll(".softmap *")].filter((each) => !each.closest(
            ".reader, .math, .title, .layerTitle, details.menu:not([open]) > .sheet"));
          return all.flatMap((each) => [own(each), ...names.map((name) => each.getAttribute(name) ?? "")]);
        }""")
        english = {
            "is",
            "the",
            "head",
            "layer",
            "at",
            "looks",
            "of",
            "and",
            "key",
            "query",
            "zoom",
            "rows",
            "weight",
            "all",
        }
        left = [text for text in said if english & set(text.lower().replace(",", " ").split())]
        assert left == []

    def test_is_changed_and_changed_back_without_losing_anything(self, show, sentence):
        reader = show(sentence, "view=steps&words=0&layer=3&head=1&query=2&key=3")
        reader.page.locator(".told").wait_for()
        reader.page.wait_for_load_state("networkidle")  # what each head does comes last
        before = reader.page.locator(".softmap").inner_text()
        reader.choose("Language", "中文")
        expect(reader.page.locator(".told h3").first).to_contain_text("分数")
        reader.choose("语言", "English")
        expect(reader.page.locator(".told h3").first).to_contain_text("Scores")
        assert reader.page.locator(".softmap").inner_text() == before


class TestThemes:
    COLOURS = """() => [".softmap", ".bar", ".heads", ".panel", ".status"].map((part) => {
      const { color, backgroundColor } = getComputedStyle(document.querySelector(part));
      return [color, backgroundColor];
    })"""

    def colours(self, reader):
        return reader.page.evaluate(self.COLOURS)

    def test_follow_the_system_and_can_be_chosen(self, show, sentence):
        light = show(sentence, color_scheme="light")
        dark = show(sentence, color_scheme="dark")
        bright, dim = self.colours(light), self.colours(dark)
        assert all(one != other for one, other in zip(bright, dim, strict=True))
        light.choose("Theme", "dark")
        assert self.colours(light) == dim
        dark.choose("Theme", "light")
        assert self.colours(dark) == bright

    def test_change_with_the_system_while_the_page_is_open(self, show, causal):
        reader = show(causal, "words=0&palette=ink", color_scheme="light")
        before = self.colours(reader), reader.colours([(20, 3)], (40, 40))
        reader.page.emulate_media(color_scheme="dark")
        reader.page.wait_for_timeout(300)
        after = self.colours(reader), reader.colours([(20, 3)], (40, 40))
        assert before[0] != after[0]
        assert (before[1] != after[1]).any()


class TestSizes:
    @pytest.mark.parametrize("size", SIZES)
    def test_panes_do_not_overlap_and_the_page_does_not_scroll(self, show, encoder, size):
        width, height = SIZES[size]
        reader = show(encoder, "layer=3&head=1&query=3", viewport={"width": width, "height": height})
        document = reader.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        assert document == [width, height]
        panes = boxes(reader, ".bar", ".heads", ".map", ".panel", ".status")
        for one, other in combinations(panes, 2):
            assert min(overlap(panes[one], panes[other])) <= 1, (one, other)
        for left, top, right, bottom in panes.values():
            assert min(left, top) >= -1
            assert right <= width + 1
            assert bottom <= height + 1

    @pytest.mark.parametrize("view", VIEWS)
    @pytest.mark.parametrize("size", ["phone sideways", "laptop"])
    def test_every_pane_is_of_use(self, show, encoder, size, view):
        width, height = SIZES[size]
        reader = show(encoder, f"layer=3&head=1&query=3&key=2&view={view}", viewport={"width": width, "height": height})
        reader.page.wait_for_load_state("networkidle")
        content = {"text": ".reader", "sentence": ".sentence .stage", "steps": ".told"}[view]
        found = boxes(reader, ".map .pane", content, ".heads .grid", ".search input")
        least = {"phone sideways": (150, 120), "laptop": (300, 300)}[size]
        for part, (left, top, right, bottom) in found.items():
            if part in (".map .pane", content):
                assert (right - left) >= least[0], part
                assert (bottom - top) >= least[1], part
        assert reader.page.locator(".cell").first.bounding_box()["width"] >= 24
        parts = boxes(reader, ".mapHeading", ".board", ".mapLegend", ".tabs", ".view")
        for one, other in combinations(parts, 2):
            assert min(overlap(parts[one], parts[other])) <= 1, (one, other)

    @pytest.mark.parametrize("size", ["phone sideways", "laptop"])
    @pytest.mark.parametrize("lang", ["en", "zh"])
    def test_controls_of_the_bar_are_all_there_side_by_side(self, show, encoder, size, lang):
        width, height = SIZES[size]
        reader = show(encoder, f"lang={lang}", viewport={"width": width, "height": height})
        parts = boxes(
            reader, ".brand", ".search input", ".bar > .slot", ".bar > .menu:not(.save) summary", ".save summary"
        )
        for one, other in combinations(parts, 2):
            assert min(overlap(parts[one], parts[other])) <= 1, (one, other)
        for _, _, right, bottom in parts.values():
            assert right <= width
            assert bottom <= boxes(reader, ".bar")[".bar"][3]

    @pytest.mark.parametrize("size", ["phone sideways", "laptop"])
    def test_menus_open_within_the_window(self, show, encoder, size):
        width, height = SIZES[size]
        reader = show(encoder, viewport={"width": width, "height": height})
        for menu in (".menu:not(.save)", ".save"):
            reader.page.locator(f"{menu} summary").click()
            left, top, right, bottom = boxes(reader, f"{menu} .sheet")[f"{menu} .sheet"]
            assert left >= 0
            assert top >= 0
            assert right <= width
            assert bottom <= height
            reader.page.keyboard.press("Escape")
            expect(reader.page.locator(f"{menu} .sheet")).to_be_hidden()

    def test_twelve_heads_stand_side_by_side_on_an_upright_phone(self, show, sentence):
        reader = show(sentence, "layer=3&head=1", viewport={"width": 390, "height": 844})
        heads = reader.page.locator('.layer:has([aria-selected="true"]) .cell')
        expect(heads).to_have_count(12)
        reader.rest()
        pane = reader.page.locator(".grid").bounding_box()
        places = [each.bounding_box() for each in heads.all()]
        assert len({round(each["y"]) for each in places}) == 1
        assert all(each["y"] + each["height"] <= pane["y"] + pane["height"] + 1 for each in places)

    def test_map_follows_when_the_window_changes(self, show, causal):
        reader = show(causal, "words=0&layer=0&head=0")
        reader.page.set_viewport_size({"width": 844, "height": 390})
        reader.settle()
        pane = reader.page.locator(".map .pane").bounding_box()
        x, y = reader.place(39, 39, (40, 40))
        assert x < pane["x"] + pane["width"]
        assert y < pane["y"] + pane["height"]
        weights = reader.weights(range(40), range(40))
        assert np.isfinite(weights).sum() == 820

    def test_sharp_screens_get_sharp_pictures(self, show, causal):
        reader = show(causal, "words=0&layer=0&head=0", device_scale_factor=2)
        wide = reader.page.evaluate(
            "[...document.querySelectorAll('.map .pane canvas')].map((canvas) => canvas.width / canvas.clientWidth)"
        )
        assert wide
        assert all(abs(each - 2) < 0.02 for each in wide)
        assert reader.colours([(3, 20), (20, 3)], (40, 40))[:, 3].tolist() == [0, 255]
