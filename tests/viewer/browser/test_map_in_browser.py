"""The map: every weight of a head, at any zoom, and what lies around it."""

from __future__ import annotations

import numpy as np
import pytest
from by_blocks import HALF, blocks, by_words, dense_of, rescale
from matplotlib import colormaps
from playwright.sync_api import expect
from viewer.browser.reading import MAP, number_of, said

from softmap.words import units_of_words

PHONE = {"viewport": {"width": 844, "height": 390}}
"""A phone held sideways, on which 300 tokens have less than a pixel each."""


def expected(recording, place, head, *, sinks="shown", words=False):
    """The weights of one head, NaN where nothing is shown, as float16."""
    layer = recording.layers[place]
    left_out = [] if sinks == "shown" else sorted({0, *np.flatnonzero(recording.tokens.special)})
    weights, seen = dense_of(layer, head, left_out)
    if sinks == "rescaled":
        weights = np.where(seen, rescale(layer, head, left_out), 0)
    if words:
        starts = [*(unit.start for unit in units_of_words(recording.tokens)), len(recording.tokens)]
        weights, seen = by_words(weights, starts, starts), by_words(seen.astype(float), starts, starts) > 0
    return weights, seen


def shown(weights, seen):
    return np.where(seen, weights, np.nan)


class TestWeights:
    @pytest.mark.parametrize("head", [0, 11])
    def test_of_all_cells_are_those_of_the_recording(self, show, sentence, head):
        reader = show(sentence, f"layer=2&head={head}&words=0")
        found = reader.weights(range(5), range(5))
        np.testing.assert_array_equal(found, sentence[2, head].dense().numpy().astype(np.float16))

    def test_that_may_not_be_seen_are_none_and_transparent(self, show, causal):
        reader = show(causal, "words=0&layer=0&head=1")
        found = reader.weights(range(40), range(40))
        np.testing.assert_allclose(found, shown(*expected(causal, 0, 1)), **HALF)
        colours = reader.colours([(3, 20), (20, 3)], (40, 40))
        assert colours[:, 3].tolist() == [0, 255]

    @pytest.mark.parametrize("sinks", ["shown", "hidden", "rescaled"])
    @pytest.mark.parametrize("words", [False, True])
    def test_of_words_and_without_sinks(self, show, encoder, sinks, words):
        reader = show(encoder, f"layer=3&head=1&words={int(words)}&sinks={sinks}")
        weights, seen = expected(encoder, 3, 1, sinks=sinks, words=words)
        found = reader.weights(*map(range, weights.shape))
        np.testing.assert_allclose(found, shown(weights, seen), rtol=2e-3, atol=6e-8)
        notes = reader.page.locator(".mapNotes").inner_text()
        assert notes.startswith({"shown": "", "hidden": "Without the first", "rescaled": "Without the first"}[sinks])
        assert ("rescaled" in notes) == (sinks == "rescaled")
        assert notes == "" or sinks != "shown"

    @pytest.mark.parametrize("how", ["max", "mean"])
    def test_of_blocks_where_the_map_is_larger_than_its_pane(self, show, decoder, how):
        reader = show(decoder, f"words=0&layer=1&head=2&how={how}", **PHONE)
        assert reader.zoom > 0
        places = range(0, 300, 1 << reader.zoom)
        np.testing.assert_allclose(
            reader.weights(places, places), blocks(*expected(decoder, 1, 2), reader.zoom)[how], **HALF
        )

    @pytest.mark.parametrize("palette", ["viridis", "cividis"])
    @pytest.mark.parametrize("scale", ["linear", "log"])
    def test_are_in_the_palettes_colours(self, show, sentence, palette, scale):
        reader = show(sentence, f"words=0&layer=3&head=1&palette={palette}&scale={scale}")
        weights = sentence[3, 1].dense().numpy().astype(np.float16).astype(float)
        cells = list(np.ndindex(5, 5))
        found = reader.colours(cells, (5, 5))
        share = weights if scale == "linear" else np.clip(1 - np.log(np.maximum(weights, 0.01)) / np.log(0.01), 0, 1)
        assert np.abs(found[:, :3] - 255 * colormaps[palette](share.ravel())[:, :3]).max() <= 4
        assert (found[:, 3] == 255).all()

    def test_of_one_hue_differ_in_light_and_dark(self, show, sentence):
        reader = show(sentence, "words=0&palette=ink&theme=light")
        light = reader.colours([(0, 0)], (5, 5))
        reader.choose("Theme", "dark")
        dark = reader.colours([(0, 0)], (5, 5))
        assert light[0, :3].mean() > 120 > dark[0, :3].mean()


def test_other_colours_scales_and_themes_ask_nothing(show, encoder):
    reader = show(encoder, "words=0")
    reader.page.wait_for_function("() => document.querySelectorAll('.heads .legend li').length")
    reader.page.wait_for_load_state("networkidle")
    cells, size = [(4, 4), (2, 7)], (len(encoder.tokens),) * 2
    before, asked = reader.colours(cells, size), len(reader.asked)
    for group, name in (("Colours", "cividis"), ("Scale", "log"), ("Theme", "dark"), ("Colours", "ink")):
        reader.choose(group, name)
        after = reader.colours(cells, size)
        assert (after != before).any() or group == "Theme", (group, name)
        before = after
    assert len(reader.asked) == asked


def test_maximum_and_mean_are_chosen_in_the_menu(show, decoder):
    reader = show(decoder, "words=0&layer=0&head=0", **PHONE)
    reader.choose("A pixel is", "mean")
    assert "mean weight per" in reader.page.locator(".mapLegend").inner_text()
    assert reader.state["how"] == "mean"
    places = range(0, 300, 1 << reader.zoom)
    found = reader.weights(places, places)
    np.testing.assert_allclose(found, blocks(*expected(decoder, 0, 0), reader.zoom)["mean"], **HALF)


class TestMoving:
    @pytest.fixture
    def reader(self, show, decoder):
        return show(decoder, "words=0&layer=0&head=0")

    def test_wheel_zooms_around_the_pointer(self, reader):
        x, y = reader.place(100, 200, (300, 300))
        reader.page.mouse.move(x, y)
        for _ in range(6):
            reader.page.mouse.wheel(0, -200)
        reader.page.wait_for_timeout(400)
        reader.settle()
        assert reader.seen()[2] < 150
        assert np.abs(np.subtract(reader.place(100, 200, (300, 300)), (x, y))).max() < 3
        assert "box" in reader.state

    def test_buttons_zoom_in_and_out_and_show_all(self, reader):
        whole = reader.seen()[2]
        reader.page.get_by_role("button", name="Zoom in").click()
        reader.page.get_by_role("button", name="Zoom in").click()
        assert reader.seen()[2] == pytest.approx(whole / 4, rel=0.01)
        reader.page.get_by_role("button", name="Zoom out").click()
        assert reader.seen()[2] == pytest.approx(whole / 2, rel=0.01)
        reader.page.get_by_role("button", name="All of it").click()
        assert reader.seen() == pytest.approx([0, 0, whole], abs=0.01)
        assert "box" not in reader.state

    def test_keys_zoom_pan_and_show_all(self, reader):
        whole = reader.seen()[2]
        reader.page.locator(".board").focus()
        for key in "+++":
            reader.page.keyboard.press(key)
        row, column, width = reader.seen()
        assert width == pytest.approx(whole / 8, rel=0.01)
        reader.page.keyboard.press("Shift+ArrowRight")
        reader.page.keyboard.press("Shift+ArrowDown")
        reader.page.keyboard.press("-")
        row_after, column_after, width = reader.seen()
        assert width == pytest.approx(whole / 4, rel=0.01)
        assert (row_after + width / 2, column_after + width / 2) > (row, column)
        reader.page.keyboard.press("0")
        assert reader.seen() == pytest.approx([0, 0, whole], abs=0.01)

    def test_dragging_moves_the_map_and_holds_nothing(self, reader):
        reader.go(words=0, layer=0, head=0, query=7, key=3, box="100,100,60")
        row, key, width = reader.seen()
        x, y = reader.place(130, 130, (300, 300))
        reader.page.mouse.move(x, y)
        reader.page.mouse.down()
        reader.page.mouse.move(x + 40, y + 30, steps=4)
        reader.page.mouse.up()
        reader.page.wait_for_timeout(300)
        pixels = width / reader.page.locator(".map .pane").bounding_box()["width"]
        assert reader.seen() == pytest.approx([row - 30 * pixels, key - 40 * pixels, width], abs=1.5 * pixels)
        assert (reader.state["query"], reader.state["key"]) == ("7", "3")

    def test_map_stays_within_its_pane(self, reader):
        reader.go(words=0, layer=0, head=0, box="0,0,60")
        x, y = reader.place(20, 20, (300, 300))
        reader.page.mouse.move(x, y)
        reader.page.mouse.down()
        reader.page.mouse.move(x + 200, y + 200, steps=4)
        reader.page.mouse.up()
        reader.page.wait_for_timeout(400)
        assert reader.seen()[:2] == pytest.approx([0, 0], abs=0.05)

    def test_weights_are_exact_wherever_one_goes(self, reader, decoder):
        weights = shown(*expected(decoder, 0, 0))
        for box in ("270,270,40", "10.5,100.25,33", "250,0,60"):
            reader.go(words=0, layer=0, head=0, box=box)
            row, key = (int(np.ceil(start)) for start in reader.seen()[:2])
            rows, keys = range(row, min(row + 20, 300)), range(key, min(key + 20, 300))
            np.testing.assert_allclose(reader.weights(rows, keys), weights[np.ix_(rows, keys)], **HALF)

    def test_minimap_is_there_only_where_the_map_is_larger_than_its_pane(self, reader):
        reader.go(words=0, layer=0, head=0, box="20,20,40")
        assert reader.page.locator(".minimap").is_hidden()


def test_minimap_shows_where_one_is_and_leads_elsewhere(show, decoder):
    reader = show(decoder, "words=0&layer=0&head=0&box=20,20,40", viewport={"width": 1000, "height": 480})
    reader.page.locator(".minimap").wait_for()
    box = reader.page.locator(".minimap").bounding_box()
    here = reader.page.locator(".minimap .here").bounding_box()
    assert here["x"] - box["x"] == pytest.approx(20 / 300 * box["width"], abs=4)
    reader.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.8 * box["height"])
    reader.settle()
    row, key, width = reader.seen()
    assert (width, key) == pytest.approx((40, 130), abs=4)
    assert row > 200
    assert "key" not in reader.state  # it holds nothing


def test_two_fingers_zoom(show, decoder):
    reader = show(decoder, "words=0&layer=0&head=0", has_touch=True)
    whole, held = reader.seen()[2], reader.state["query"]
    x, y = reader.place(150, 150, (300, 300))
    client = reader.context.new_cdp_session(reader.page)

    def touch(kind, apart):
        points = [] if kind == "touchEnd" else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 30)
    for apart in range(40, 101, 10):
        touch("touchMove", apart)
        reader.page.wait_for_timeout(20)
    touch("touchEnd", 0)
    reader.page.wait_for_timeout(400)
    assert reader.seen()[2] < whole / 2
    assert reader.state["query"] == held  # where two fingers were, nothing is held


def test_finger_holds_the_cell_under_it(show, sentence):
    reader = show(sentence, "words=0&layer=3&head=1", has_touch=True)
    reader.page.touchscreen.tap(*reader.place(2, 3, (5, 5)))
    assert (reader.state["query"], reader.state["key"]) == ("2", "3")


class TestPointing:
    def test_card_and_status_line_tell_the_cell(self, show, encoder):
        reader = show(encoder, "words=0&layer=3&head=1")
        reader.point(2, 3, (len(encoder.tokens),) * 2)
        weight, score, scaled = reader.card()
        matrix = encoder[3, 1]
        assert said(weight) == float(matrix[2, 3])
        found = number_of(score), number_of(scaled)
        assert found == pytest.approx((float(matrix.scores[2, 3]), float(matrix.scaled[2, 3])), rel=1e-3)
        card = reader.page.locator(".mapCard")
        assert card.locator(".pair b").all_inner_texts() == ["love", "learning"]
        assert card.locator(".context").count() == 0  # all of the text is beside the map
        reader.page.locator(".status").get_by_text("learning").wait_for()
        facts = reader.page.locator(".status .fact")
        told = facts.evaluate_all("(all) => all.map((each) => each.lastChild.textContent)")
        assert told == [weight, score, scaled]

    def test_card_of_a_cell_in_a_long_text_quotes_it(self, show, decoder):
        reader = show(decoder, "words=0&layer=0&head=1&box=0,0,20")
        reader.point(12, 7, (300, 300))
        reader.card()
        contexts = reader.page.locator(".mapCard .context").all_inner_texts()
        for context, token in zip(contexts, (12, 7), strict=True):
            start, stop = decoder.tokens.spans[token]
            assert context.startswith(f":{token} ")
            assert decoder.tokens.text[start - 8 : start].strip() in context
            assert decoder.tokens.text[stop : stop + 5].strip() in context

    def test_status_line_of_two_words_tells_what_the_card_tells(self, show, encoder):
        reader = show(encoder, "words=1&layer=3&head=1&query=-1")
        weights, _ = expected(encoder, 3, 1, words=True)
        at = [unit.label for unit in units_of_words(encoder.tokens)].index("unbelievably")
        reader.point(at, 3, weights.shape)
        card = reader.card()
        facts = reader.page.locator(".status .fact")
        facts.first.wait_for()
        assert facts.evaluate_all("(all) => all.map((each) => each.lastChild.textContent)") == card

    def test_key_that_is_left_out_is_said_to_be(self, show, encoder):
        reader = show(encoder, "words=0&layer=3&head=1&sinks=hidden&query=2&key=0")
        reader.page.locator(".status").get_by_text("left out").wait_for()
        reader.point(3, len(encoder.tokens) - 1, (len(encoder.tokens),) * 2)
        assert reader.card()[0] == "left out"

    def test_weight_without_sinks_is_called_rescaled(self, show, encoder):
        reader = show(encoder, "words=0&layer=3&head=1&sinks=rescaled&query=2&key=3")
        weights, _ = expected(encoder, 3, 1, sinks="rescaled")
        reader.page.locator(".status").get_by_text("weight, rescaled").wait_for()
        assert said(reader.page.locator(".status .fact").first.inner_text().split()[-1]) == pytest.approx(
            weights[2, 3], abs=1e-3
        )

    def test_keys_that_are_pressed_put_what_is_held_before_what_is_under_the_mouse(self, show, sentence):
        reader = show(sentence, "words=0&layer=3&head=1&query=2&key=1")
        reader.page.locator(".board").focus()
        reader.point(4, 4, (5, 5))
        reader.card()
        reader.page.keyboard.press("ArrowRight")
        expect(reader.page.locator(".mapCard")).to_be_hidden()
        expect(reader.page.locator(".status b").first).to_have_text("love")
        expect(reader.page.locator(".status b").last).to_have_text("love")
        reader.page.mouse.move(*[place + 3 for place in reader.place(4, 4, (5, 5))])
        expect(reader.page.locator(".status b").last).to_have_text("[SEP]")

    def test_card_of_a_block_tells_its_rows_and_its_largest_weight(self, show, decoder):
        reader = show(decoder, "words=0&layer=0&head=1", **PHONE)
        reader.point(200, 100, (300, 300))
        facts, side = reader.card(), 1 << reader.zoom
        row, key = 200 // side * side, 100 // side * side
        text = reader.page.locator(".mapCard").inner_text()
        assert text.startswith(f"rows {row}–{row + side - 1} × keys {key}–{key + side - 1}")
        block = decoder[0, 1][row : row + side, key : key + side]
        assert [said(fact) for fact in facts] == [float(block.max()), float(block.mean())]

    def test_card_of_two_words_tells_the_weight_between_them(self, show, encoder):
        reader = show(encoder, "words=1&layer=3&head=1&query=-1")
        weights, _ = expected(encoder, 3, 1, words=True)
        labels = [unit.label for unit in units_of_words(encoder.tokens)]
        at = labels.index("unbelievably")
        reader.point(at, 3, weights.shape)
        assert said(reader.card()[0]) == weights[at, 3]
        assert reader.page.locator(".mapCard .pair b").all_inner_texts() == ["unbelievably", labels[3]]

    def test_what_may_not_be_seen_is_said(self, show, causal):
        reader = show(causal, "words=0&layer=0&head=0")
        reader.point(3, 20, (40, 40))
        reader.page.locator(".mapCard").get_by_text("may not be seen").wait_for()
        status = reader.page.locator(".status")
        expect(status).to_contain_text("may not be seen")
        assert "NaN" not in status.inner_text()
        assert "weight" not in status.inner_text()  # it is the key that may not be seen

    def test_click_holds_and_escape_lets_go(self, show, sentence):
        reader = show(sentence, "words=0&layer=3&head=1&query=-1")
        reader.page.mouse.click(*reader.place(2, 3, (5, 5)))
        assert (reader.state["query"], reader.state["key"]) == ("2", "3")
        reader.page.mouse.move(5, 5)
        assert "learning" in reader.page.locator(".status").inner_text()
        reader.page.keyboard.press("Escape")
        assert reader.page.locator(".status").inner_text() == "Point at a cell or a word. Click holds it."

    def test_arrows_walk_from_cell_to_cell_and_enter_explains(self, show, sentence):
        reader = show(sentence, "words=0&layer=3&head=1&query=2&key=1")
        reader.page.locator(".board").focus()
        for key in ("ArrowRight", "ArrowDown", "Home", "End", "ArrowLeft"):
            reader.page.keyboard.press(key)
        assert (reader.state["query"], reader.state["key"]) == ("3", "3")
        reader.page.keyboard.press("Enter")
        reader.page.locator(".told h2").get_by_text("learning").first.wait_for()

    def test_brackets_and_buttons_change_the_head(self, show, sentence):
        reader = show(sentence, "words=0&layer=1&head=11")
        reader.page.locator(".board").focus()
        reader.page.keyboard.press("]")
        reader.settle()
        assert reader.page.locator(".mapHeading b").inner_text() == "Layer 2, head 0"
        np.testing.assert_array_equal(
            reader.weights(range(5), range(5)), sentence[2, 0].dense().numpy().astype(np.float16)
        )
        reader.page.get_by_role("button", name="Head before").click()
        reader.settle()
        assert reader.page.locator(".mapHeading b").inner_text() == "Layer 1, head 11"

    def test_words_pointed_at_elsewhere_are_marked_on_the_map(self, show, sentence):
        reader = show(sentence, "words=1&layer=3&head=1")
        drawn = f"{MAP.removesuffix('.softmapMap')}.querySelector('canvas.overlay').toDataURL()"
        before = reader.page.evaluate(drawn)
        reader.unit(2).hover()
        reader.page.wait_for_timeout(300)
        assert reader.page.evaluate(drawn) != before


def test_cross_attention_has_the_rows_of_one_text_and_the_columns_of_the_other(show, two_texts):
    reader = show(two_texts, "layer=2&head=1&words=0")
    assert reader.page.locator(".mapHeading .muted").inner_text().startswith("7 × 12")
    np.testing.assert_allclose(
        reader.weights(range(7), range(12)), two_texts[2, 1].dense().numpy().astype(float), **HALF
    )
    reader.point(1, 2, (7, 12))
    reader.card()
    assert reader.page.locator(".mapCard .pair b").all_inner_texts() == ["another", "word2"]


def test_without_a_text_rows_and_columns_are_numbered(show, textless):
    reader = show(textless)
    np.testing.assert_allclose(
        reader.weights(range(20), range(30)), textless[0, 0].dense().numpy().astype(float), **HALF
    )
    reader.point(3, 17, (20, 30))
    reader.card()
    assert reader.page.locator(".mapCard .pair b").all_inner_texts() == ["3", "17"]


@pytest.mark.parametrize("view", ["text", "sentence", "steps"])
def test_of_statistics_alone_what_is_missing_is_said_and_the_rest_is_there(show, statistics, view):
    reader = show(statistics, f"layer=0&head=1&words=0&query=-1&view={view}")
    expect(reader.page.locator(".notice")).to_contain_text("expected q and k in the recording, got statistics alone")
    reader.page.wait_for_function("() => document.querySelector('.cell canvas').width === 30")
    reader.tab("Text")
    expect(reader.page.locator(".strip")).to_have_text("Shaded by the attention each token receives.")
    received = statistics.layers[0].summary.received[1].numpy()
    shades = reader.shades()
    assert shades[int(received.argmax())] == max(shades.values()) > 0
    assert len(reader.questions("tile")) < 4
    reader.expect_trouble("409", "q and k")
