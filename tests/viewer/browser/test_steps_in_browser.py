"""The steps: one cell's row in four steps, with the model's own numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from viewer.browser.reading import number_of, said

import softmap
from softmap.narrative import narrate


@pytest.fixture
def open_steps(show):
    def open_steps(recording, **state):
        address = "&".join(f"{name}={value}" for name, value in {"view": "steps", "words": 0, **state}.items())
        reader = show(recording, address)
        reader.page.locator(".told").wait_for()
        return reader

    return open_steps


def results(reader):
    """The number at the end of each equation."""
    return reader.page.locator(".told .equations strong").all_inner_texts()


def rows(reader, table=0):
    """The lines of a table of bars: what is named, and its numbers."""
    lines = reader.page.locator(".told table").nth(table).locator("tbody tr")
    return [
        (line.locator("th").inner_text().replace("\n", " "), line.locator("td:not(.gauge)").all_inner_texts())
        for line in lines.all()
    ]


def test_numbers_are_those_of_the_recording(open_steps, sentence):
    reader = open_steps(sentence, layer=3, head=1, query=2, key=3)
    matrix = sentence[3, 1]
    score, scaled, weight, share = results(reader)
    assert number_of(score) == pytest.approx(float(matrix.scores[2, 3]), rel=1e-3)
    assert number_of(scaled) == pytest.approx(float(matrix.scaled[2, 3]), rel=1e-3)
    assert said(weight) == float(matrix[2, 3])
    v = sentence.layers[3].v[1].numpy()
    brought = matrix[2].numpy() * np.linalg.norm(v, axis=1)
    assert said(share) == brought[3] / brought.sum()
    assert said(reader.page.locator(".told .total").inner_text()) == float(matrix[2, 3])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_sentences_are_those_of_explain(open_steps, sentence, lang):
    reader = open_steps(sentence, layer=3, head=1, query=2, key=3, words=1, lang=lang)
    story = softmap.explain(sentence, layer=3, head=1, row=2, lang=lang)
    told = [re.sub(r"\s", "", text) for text in reader.page.locator(".told > ol > li > p").all_text_contents()]
    expected = [
        re.sub(r"[`\s]", "", text)
        for section in narrate(story)
        if section.name in ("scores", "scaled", "weights", "output")
        for text in section.sentences
    ]
    assert expected
    plain = [text.replace("d_k", "dk") for text in expected]  # it is set as a formula, without its underscore
    assert [text for text in plain if text not in told] == []


def test_largest_weights_come_in_their_order_and_the_row_sums_to_all(open_steps, decoder):
    reader = open_steps(decoder, layer=0, head=1, query=200, key=5)
    weights = decoder[0, 1][200].numpy()
    told = rows(reader)
    keys = [int(re.search(r":(\d+)$", name)[1]) for name, _ in told[:-2]]
    order = [int(key) for key in np.argsort(-weights, kind="stable")[:12]]
    assert keys == [*order, 5]
    assert [said(numbers[1]) for _, numbers in told[:-2]] == weights[keys].tolist()
    name, (others,) = told[-2]
    assert name == f"and {201 - 13} others together"
    assert said(others) == float(np.delete(weights, keys).sum())
    assert told[-1][1] == ["100%"]


def test_keys_can_be_clicked(open_steps, sentence):
    reader = open_steps(sentence, layer=3, head=1, query=2, key=3)
    reader.page.locator(".told table").first.get_by_role("button").nth(1).click()
    order = np.argsort(-sentence[3, 1][2].numpy())
    assert reader.state["key"] == str(order[1])
    label = reader.page.locator(".told h2").inner_text().split("→")[1].strip()
    assert label == ["[CLS]", "I", "love", "learning", "[SEP]"][order[1]]
    pressed = reader.page.locator('.told table button[aria-pressed="true"]').first
    assert label in pressed.inner_text()


def test_without_a_key_the_largest_is_taken_and_that_is_said(open_steps, sentence):
    reader = open_steps(sentence, layer=3, head=1, query=2)
    reader.page.get_by_text("No key is held, so this is the one that love looks at most.").wait_for()
    best = int(sentence[3, 1][2].argmax())
    assert f"key {best}" in reader.page.locator(".told header").inner_text()


def test_without_a_query_what_to_do_is_said(show, sentence):
    reader = show(sentence, "view=steps&query=-1")
    reader.page.get_by_text("Click a cell of the map, or a word.").wait_for()


def test_what_may_not_be_seen_is_minus_infinity(open_steps, causal):
    reader = open_steps(causal, layer=0, head=0, query=3, key=20)
    assert results(reader)[:3][-1] in ("−∞", "0%")
    assert "−∞" in results(reader)
    assert reader.page.locator(".told .total").inner_text() == "0%"
    assert "may not be seen" in reader.page.locator(".told").inner_text()
    assert "NaN" not in reader.page.locator(".told").inner_text()


def test_soft_cap_and_learnt_sink_have_their_lines(open_steps, causal):
    reader = open_steps(causal, layer=1, head=2, query=10, key=4)
    matrix = causal[1, 2]
    assert "soft cap" in reader.page.locator(".told").inner_text()
    score, divided, capped = (number_of(text) for text in results(reader)[:3])
    assert capped == pytest.approx(float(matrix.scaled[10, 4]), rel=1e-3)
    assert divided == pytest.approx(score * 0.4, rel=2e-3)
    told = dict(rows(reader))
    (sink,) = told["the sink, which is no token"]
    assert said(sink) == 1 - float(matrix[10].sum())
    assert told["the row"] == ["100%"]


def test_of_two_texts_tells_what_can_be_told(open_steps, two_texts):
    reader = open_steps(two_texts, layer=2, head=1, query=1, key=2)
    assert reader.page.locator(".told h2").inner_text().split() == ["another", "→", "word2"]
    assert number_of(results(reader)[0]) == pytest.approx(float(two_texts[2, 1].scores[1, 2]), rel=1e-3)


def test_follows_what_is_held(open_steps, sentence):
    reader = open_steps(sentence, layer=3, head=1, query=2, key=3)
    reader.page.mouse.click(*reader.place(1, 0, (5, 5)))
    reader.page.locator(".told h2").get_by_text("CLS").wait_for()
    assert number_of(results(reader)[0]) == pytest.approx(float(sentence[3, 1].scores[1, 0]), rel=1e-3)


@pytest.mark.parametrize("sinks", ["hidden", "rescaled"])
def test_steps_beside_a_map_without_sinks_say_that_they_are_the_models(open_steps, sentence, sinks):
    reader = open_steps(sentence, layer=3, head=1, query=2, key=3, sinks=sinks)
    assert said(results(reader)[2]) == float(sentence[3, 1][2, 3])
    reader.page.get_by_text("As the model computes it, with the first and the special tokens").wait_for()
