"""The sentence: words and the lines between them."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import expect
from viewer.browser.reading import said


@pytest.fixture
def reader(show, sentence):
    reader = show(sentence, "view=sentence&words=0&layer=3&head=1&query=-1")
    reader.page.locator(".sentence .stage > svg").wait_for()
    return reader


def word(reader, side, at):
    return reader.page.locator(f'.sentence .word[data-side="{side}"][data-at="{at}"]')


def numbers(reader, group):
    """What stands beside the words of a column."""
    return reader.page.locator(".sentence svg .numbers").nth(group).locator("text").all_text_contents()


def assert_said(texts, weights):
    """Each number is its weight, small ones said to be so."""
    assert len(texts) == len(weights)
    for text, weight in zip(texts, weights, strict=True):
        if weight < 0.001:
            assert text == "<0.1%"
        else:
            assert said(text) == weight


def test_words_stand_in_two_columns_with_a_line_for_each_weight(reader, sentence):
    labels = reader.page.locator(".sentence .word .label").all_text_contents()
    assert labels == ["[CLS]", "I", "love", "learning", "[SEP]"] * 2
    weights = sentence[3, 1].dense().numpy()
    drawn = reader.page.locator(".sentence .lines path").count()
    assert 0 < drawn <= (weights >= 0.01).sum()


def test_pointing_at_a_word_tells_what_it_looks_at(reader, sentence):
    word(reader, "query", 2).hover()
    reader.rest()
    assert_said(numbers(reader, 1), sentence[3, 1][2].numpy())
    assert reader.page.locator(".sentence .focus path").count() >= 4
    word(reader, "key", 3).hover()
    reader.rest()
    assert_said(numbers(reader, 0), sentence[3, 1][:, 3].numpy())


def test_wider_lines_are_larger_weights(reader, sentence):
    word(reader, "query", 1).hover()
    reader.rest()
    widths = reader.page.locator(".sentence .focus path").evaluate_all(
        "(all) => all.map((each) => Number(each.getAttribute('stroke-width')))"
    )
    assert widths == sorted(widths)
    assert max(widths) > 2 * min(widths)
    assert len(widths) <= 5


def test_one_word_is_held_and_let_go(reader, sentence):
    word(reader, "query", 2).click()
    assert reader.state["query"] == "2"
    reader.page.mouse.move(5, 5)
    reader.rest()
    expect(word(reader, "query", 2)).to_have_attribute("aria-pressed", "true")
    assert_said(numbers(reader, 1), sentence[3, 1][2].numpy())
    word(reader, "query", 2).click()
    expect(word(reader, "query", 2)).to_have_attribute("aria-pressed", "false")


def test_arrows_walk_over_the_words_and_enter_holds(reader):
    word(reader, "query", 0).focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowDown", "ArrowLeft", "Enter"):
        reader.page.keyboard.press(key)
    assert reader.page.evaluate("document.activeElement.dataset.at") == "3"
    assert reader.state["query"] == "3"


def test_words_once_with_arcs(reader, sentence):
    reader.page.get_by_role("radio", name="arcs").click()
    assert reader.page.locator(".sentence .word").count() == 5
    word(reader, "query", 2).hover()
    reader.rest()
    assert_said(numbers(reader, 0), sentence[3, 1][2].numpy())


class TestAllHeads:
    @pytest.fixture
    def reader(self, reader):
        reader.page.get_by_role("radio", name="all heads of the layer").click()
        reader.rest()
        return reader

    def test_are_drawn_in_a_colour_each(self, reader):
        groups = reader.page.locator(".sentence .lines > g")
        assert groups.count() == 12
        colours = groups.evaluate_all("(all) => all.map((each) => getComputedStyle(each).color)")
        assert len(set(colours)) == 12

    def test_numbers_are_their_means(self, reader, sentence):
        word(reader, "query", 2).hover()
        reader.rest()
        assert_said(numbers(reader, 1), sentence[3][:, 2].numpy().mean(0))

    def test_can_be_switched_off_and_on(self, reader, sentence):
        reader.page.get_by_role("button", name="none", exact=True).click()
        expect(reader.page.locator(".sentence .lines path")).to_have_count(0)
        reader.page.get_by_role("button", name="head 4", exact=True).click()
        reader.page.get_by_role("button", name="head 7", exact=True).click()
        word(reader, "query", 2).hover()
        reader.rest()
        assert_said(numbers(reader, 1), sentence[3][:, 2].numpy()[[4, 7]].mean(0))
        reader.page.get_by_role("button", name="all", exact=True).click()
        expect(reader.page.locator(".sentence .lines > g")).to_have_count(12)

    def test_one_is_shown_alone_while_it_is_pointed_at(self, reader):
        reader.page.get_by_role("button", name="head 4", exact=True).hover()
        expect(reader.page.locator(".sentence .lines > g.away")).to_have_count(11)


def test_is_described_to_those_who_do_not_see_it(reader, sentence):
    said = word(reader, "query", 2).get_attribute("aria-label")
    best = sentence.tokens.pieces[int(sentence[3, 1][2].argmax())]
    assert said.startswith(f"love looks at {best} {float(sentence[3, 1][2].max()):.0%}")


def test_of_words_puts_their_pieces_together(show, encoder):
    reader = show(encoder, "view=sentence&words=1&layer=3&head=1&query=-1")
    reader.page.locator(".sentence .word").first.wait_for()
    labels = reader.page.locator('.sentence .word[data-side="query"] .label').all_text_contents()
    assert "unbelievably" in labels


def test_of_a_long_text_says_so_and_leads_to_the_text(show, decoder):
    reader = show(decoder, "view=sentence&words=0")
    reader.page.get_by_text("This view is for texts of up to 64 words or tokens. Here there are 300.").wait_for()
    reader.page.get_by_role("button", name="Open the text").click()
    reader.page.locator(".reader").wait_for()


def test_of_two_texts_has_one_in_each_column(show, two_texts):
    reader = show(two_texts, "view=sentence&words=0&layer=2&head=1&query=-1")
    reader.page.locator(".sentence .word").first.wait_for()
    assert reader.page.locator('.sentence .word[data-side="query"]').count() == 7
    assert reader.page.locator('.sentence .word[data-side="key"]').count() == 12
    word(reader, "query", 1).hover()
    reader.rest()
    assert_said(numbers(reader, 1), two_texts[2, 1][1].numpy())
    assert reader.page.get_by_role("radio", name="arcs").count() == 0


@pytest.mark.parametrize("sinks", ["hidden", "rescaled"])
def test_without_sinks_says_so(show, sentence, sinks):
    reader = show(sentence, f"view=sentence&words=0&layer=3&head=1&query=2&sinks={sinks}")
    reader.page.get_by_text("Without the sinks").wait_for()
    weights = sentence[3, 1][2].numpy().copy()
    weights[[0, -1]] = np.nan
    if sinks == "rescaled":
        weights /= np.nansum(weights)
    texts = numbers(reader, 1)
    assert (texts[0], texts[-1]) == ("", "")
    assert_said(texts[1:-1], weights[1:-1])
