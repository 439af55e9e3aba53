"""The text: shaded by a row or a column of the map, at any length."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from by_blocks import by_words, make_pieces
from playwright.sync_api import expect
from recorded.builders import ORIGIN, make_layer
from viewer.browser.reading import said

from softmap.recorded import RecordedSequence, Recording
from softmap.words import units_of_words


@pytest.fixture(scope="module")
def long():
    """65,536 tokens, without statistics: only rows are asked for."""
    count = 65_536
    layer = make_layer(
        0, number=0, queries=count, queries_of="tokens", keys_of="tokens", d_k=4, d_v=1, heads=2, keep=("qk",)
    )
    return Recording(ORIGIN, (RecordedSequence((layer,), make_pieces(count)),))


def starts_of(recording):
    return [*(unit.start for unit in units_of_words(recording.tokens)), len(recording.tokens)]


def named(reader):
    """What the line over the text says: the word, and the words with the largest weights."""
    strip = reader.page.locator(".strip")
    strip.locator("b").wait_for()
    reader.rest()
    pairs = strip.locator("button").evaluate_all(
        "(all) => all.map((each) => [each.firstChild.textContent, each.lastChild.textContent])"
    )
    return strip.locator("b").inner_text(), [(label, said(text)) for label, text in pairs]


def assert_named(reader, word, labels, weights):
    """It says the largest of these weights, in their order."""
    reader.page.locator(".strip b").get_by_text(word, exact=True).wait_for()
    _, told = named(reader)
    order = np.argsort(-weights, kind="stable")[: len(told)]
    assert len(told) == min(5, int((weights > 0).sum()))
    assert [label for label, _ in told] == [labels[i] for i in order]
    assert [share for _, share in told] == weights[order].tolist()


class TestShading:
    def test_pointing_at_a_word_shades_by_its_row(self, show, encoder):
        reader = show(encoder, "words=0&layer=3&head=1&scale=linear&query=-1")
        reader.unit(3).hover()
        row = encoder[3, 1][3].numpy()
        assert_named(reader, "learning", [unit.inner_text() for unit in reader.page.locator(".unit").all()], row)
        others = np.delete(row, 3)
        expected = np.where(row / others.max() > 0.004, 0.62 * np.minimum(row / others.max(), 1), 0)
        shades = reader.shades()
        assert [shades[i] for i in range(len(row))] == pytest.approx(expected.tolist(), abs=1e-3)

    def test_pointing_at_a_word_shades_by_its_column_where_that_is_chosen(self, show, encoder):
        reader = show(encoder, "words=0&layer=3&head=1&direction=receives")
        reader.unit(3).hover()
        labels = [unit.inner_text() for unit in reader.page.locator(".unit").all()]
        assert_named(reader, "learning", labels, encoder[3, 1][:, 3].numpy())
        assert reader.page.locator(".strip .arrow").inner_text() == "←"

    def test_words_take_the_mean_of_their_rows_and_the_sum_of_their_columns(self, show, encoder):
        reader = show(encoder, "words=1&layer=3&head=1&query=-1")
        weights = by_words(encoder[3, 1].dense().numpy().astype(float), starts_of(encoder), starts_of(encoder))
        labels = [unit.label for unit in units_of_words(encoder.tokens)]
        at = labels.index("unbelievably")
        reader.unit(at).hover()
        assert_named(reader, "unbelievably", labels, weights[at])

    def test_mean_of_a_layer_and_of_picked_heads(self, show, encoder):
        reader = show(encoder, "words=0&layer=3&head=1&query=3")
        labels = [unit.inner_text() for unit in reader.page.locator(".unit").all()]
        reader.page.get_by_role("radio", name="layer", exact=True).click()
        reader.rest()
        assert_named(reader, "learning", labels, encoder[3][:, 3].numpy().mean(0))
        reader.page.get_by_role("radio", name="picked", exact=True).click()
        reader.page.get_by_text("No heads are picked.").wait_for()
        for layer, head in ((0, 4), (2, 7)):
            reader.page.locator(f'.cell[data-layer="{layer}"][data-head="{head}"]').click(modifiers=["Control"])
        reader.rest()
        assert_named(reader, "learning", labels, (encoder[0, 4][3] + encoder[2, 7][3]).numpy() / 2)
        assert reader.state["picked"] == "0.4,2.7"

    def test_names_over_the_text_are_those_that_fit_whole(self, show, encoder):
        reader = show(encoder, "words=0&layer=3&head=1&query=3")
        reader.page.locator(".strip button").first.wait_for()
        line = reader.page.locator(".strip").bounding_box()
        boxes = [button.bounding_box() for button in reader.page.locator(".strip button:visible").all()]
        assert 3 <= len(boxes) <= 5
        for box in boxes:
            assert line["x"] <= box["x"]
            assert box["x"] + box["width"] <= line["x"] + line["width"]
            assert line["y"] <= box["y"]
            assert box["y"] + box["height"] <= line["y"] + line["height"]

    def test_without_sinks(self, show, encoder):
        reader = show(encoder, "words=0&layer=3&head=1&query=3&sinks=hidden")
        weights = encoder[3, 1][3].numpy().copy()
        weights[[0, -1]] = 0
        labels = [unit.inner_text() for unit in reader.page.locator(".unit").all()]
        assert_named(reader, "learning", labels, weights)

    def test_nothing_pointed_at_or_held_shades_by_what_is_received(self, show, encoder):
        reader = show(encoder, "words=1&layer=3&head=1&query=-1&scale=linear")
        reader.page.get_by_title("Shaded by the attention each word receives.").wait_for()
        received = encoder[3, 1].dense().numpy().sum(0)
        received = np.add.reduceat(received, starts_of(encoder)[:-1])
        shades = reader.shades()
        top = np.argsort(-received)
        assert shades[top[0]] == max(shades.values())
        assert all(shades[i] >= shades[j] for i, j in pairwise(top))
        assert len(shades) == len(received)

    def test_causal_rows_shade_nothing_that_comes_later(self, show, causal):
        reader = show(causal, "words=0&layer=0&head=0&query=10&scale=linear")
        reader.page.locator(".strip b").wait_for()
        shades = reader.shades()
        assert all(shade == 0 for i, shade in shades.items() if i > 10)
        assert any(shade > 0 for i, shade in shades.items())


class TestHolding:
    def test_click_holds_a_word_and_another_lets_go(self, show, sentence):
        reader = show(sentence, "words=0&query=-1")
        reader.unit(2).click()
        reader.page.mouse.move(5, 5)
        assert reader.state["query"] == "2"
        assert reader.unit(2).get_attribute("data-mark").split()[0] == "held"
        reader.unit(2).click()
        expect(reader.unit(2)).not_to_have_attribute("data-mark", re.compile("held"))

    def test_number_beside_another_word_is_what_the_held_one_looks_at_it_with(self, show, sentence):
        reader = show(sentence, "words=0&layer=3&head=1&query=2")
        reader.unit(3).hover()
        reader.page.locator(".tag").get_by_text("love → learning").wait_for()
        tag = reader.page.locator(".tag").inner_text()
        assert said(tag.split()[-1]) == float(sentence[3, 1][2, 3])

    def test_number_beside_another_word_says_who_looks_where_words_are_looked_at(self, show, sentence):
        reader = show(sentence, "words=0&layer=3&head=1&query=-1&key=2&direction=receives")
        reader.unit(3).hover()
        reader.page.locator(".tag").get_by_text("learning → love").wait_for()
        assert said(reader.page.locator(".tag").inner_text().split()[-1]) == float(sentence[3, 1][3, 2])

    def test_held_word_is_held_on_where_it_is_asked_who_looks_at_it(self, show, sentence):
        reader = show(sentence, "words=0&layer=3&head=1&query=2")
        labels = [unit.inner_text() for unit in reader.page.locator(".unit").all()]
        reader.page.get_by_role("radio", name="seen by").click()
        assert_named(reader, "love", labels, sentence[3, 1][:, 2].numpy())
        expect(reader.page.locator(".strip .arrow")).to_have_text("←")
        assert (reader.state["query"], reader.state["key"]) == ("-1", "2")
        reader.page.get_by_role("radio", name="looks at").click()
        expect(reader.page.locator(".strip .arrow")).to_have_text("→")
        assert_named(reader, "love", labels, sentence[3, 1][2].numpy())

    def test_click_on_a_word_holds_the_word_and_no_cell(self, show, sentence):
        reader = show(sentence, "words=0&layer=3&head=1&query=2&key=3")
        reader.unit(1).click()
        assert reader.state["query"] == "1"
        assert "key" not in reader.state
        reader.page.get_by_role("radio", name="seen by").click()
        reader.unit(4).click()
        assert (reader.state["query"], reader.state["key"]) == ("-1", "4")

    def test_arrows_walk_and_enter_opens_the_steps(self, show, sentence):
        reader = show(sentence, "words=0&layer=3&head=1&query=1")
        reader.page.locator(".reader").focus()
        reader.page.keyboard.press("ArrowRight")
        reader.page.locator(".strip b").get_by_text("love").wait_for()
        assert reader.state["query"] == "2"
        reader.rest()
        reader.page.keyboard.press("Enter")
        reader.page.locator(".told h2").wait_for()
        assert reader.page.locator(".told h2").inner_text().startswith("love")

    def test_words_and_tokens_are_chosen_in_the_bar(self, show, encoder):
        reader = show(encoder)
        assert reader.page.locator(".unit").count() == len(units_of_words(encoder.tokens))
        reader.page.get_by_role("radio", name="tokens", exact=True).click()
        reader.settle()
        assert reader.page.locator(".unit").count() == len(encoder.tokens)
        assert reader.page.locator(".unit.chip").all_inner_texts() == ["[CLS]", "[SEP]"]

    def test_text_stands_as_it_was_written(self, show, encoder):
        reader = show(encoder)
        lines = reader.page.locator(".reader .line").all_text_contents()
        text = " ".join(" ".join(lines).split())
        assert text == f"[CLS]{encoder.tokens.text}[SEP]"


def test_two_texts_are_read_beside_each_other(show, two_texts):
    reader = show(two_texts, "layer=2&head=1&words=0&query=1")
    assert reader.page.locator(".page .heading").all_inner_texts() == [
        "Queries: these look",
        "Keys: these are looked at",
    ]
    labels = reader.page.locator(".page").nth(1).locator(".unit").all_inner_texts()
    assert labels[:3] == ["word0", "word1", "word2"]
    assert_named(reader, "another", labels, two_texts[2, 1][1].numpy())
    reader.page.locator(".page").nth(1).locator(".unit").nth(4).click()
    assert reader.state["key"] == "4"


def test_without_a_text_there_are_numbers(show, textless):
    reader = show(textless, "query=3&layer=0&head=2")
    assert_named(reader, "3", [str(i) for i in range(30)], textless[0, 2][3].numpy())


class TestLong:
    """A text of 65,536 tokens."""

    @pytest.fixture
    def reader(self, show, long):
        return show(long, "words=0&layer=0&head=0&query=60000")

    def test_only_what_is_on_screen_is_in_the_document(self, reader):
        reader.unit(60_000).wait_for()
        assert reader.page.evaluate("document.querySelectorAll('*').length") < 3000

    def test_is_shaded_by_its_row(self, reader, long):
        row = long[0, 0][60_000].numpy()
        reader.page.locator(".strip b").wait_for()
        _, told = named(reader)
        assert [share for _, share in told] == sorted(row.tolist(), reverse=True)[:5]

    def test_scrolls_to_its_end_and_back(self, reader):
        element = reader.page.locator(".reader")
        for place in ("element.scrollHeight", "element.scrollHeight"):  # what was guessed becomes exact on the way
            element.evaluate(f"(element) => {{ element.scrollTop = {place}; }}")
            reader.rest()
        reader.unit(65_535).wait_for()
        assert reader.unit(65_535).inner_text() == "</s>"
        assert reader.page.evaluate("document.querySelectorAll('*').length") < 3000
        element.evaluate("(element) => { element.scrollTop = 0; }")
        reader.unit(0).wait_for()
        assert reader.unit(0).inner_text() == "<s>"

    def test_names_over_the_text_lead_to_the_words(self, reader, long):
        best = int(long[0, 0][60_000].argmax())
        button = reader.page.locator(".strip button").first
        button.click()
        reader.unit(best).wait_for()
        assert reader.unit(best).is_visible()

    def test_strip_beside_it_leads_anywhere(self, reader):
        heat = reader.page.locator(".heat")
        heat.wait_for()
        box = heat.bounding_box()
        reader.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 0.25 * box["height"])
        reader.rest()
        units = [int(unit.get_attribute("data-unit")) for unit in reader.page.locator(".unit").all()]
        assert 0.2 * 65_536 < np.median(units) < 0.3 * 65_536
