"""The search: a word, a token by its number, a cell."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect


@pytest.fixture
def reader(show, encoder):
    return show(encoder, "words=1&query=-1")


def type_in(reader, text):
    field = reader.page.get_by_role("searchbox")
    field.fill(text)
    return field


def count(reader):
    return reader.page.locator(".search output")


def test_word_is_counted_and_gone_through(reader):
    field = type_in(reader, "new york")
    expect(count(reader)).to_have_text("2 found")
    field.press("Enter")
    expect(count(reader)).to_have_text("1 of 2")
    labels = reader.page.locator(".unit").all_inner_texts()
    first, second = (i for i, label in enumerate(labels) if label.casefold() == "new")
    expect(reader.page.locator('.unit[data-mark~="held"]')).to_have_attribute("data-unit", str(first))
    field.press("Enter")
    expect(count(reader)).to_have_text("2 of 2")
    expect(reader.page.locator('.unit[data-mark~="held"]')).to_have_attribute("data-unit", str(second))
    field.press("Enter")
    expect(count(reader)).to_have_text("1 of 2")
    field.press("Shift+Enter")
    expect(count(reader)).to_have_text("2 of 2")
    reader.page.get_by_role("button", name="Previous (Shift+Enter)").click()
    expect(count(reader)).to_have_text("1 of 2")
    reader.page.get_by_role("button", name="Next (Enter)").click()
    expect(count(reader)).to_have_text("2 of 2")


def test_what_is_not_there_is_said(reader):
    type_in(reader, "zebra").press("Enter")
    expect(count(reader)).to_have_text("not found")
    expect(reader.page.locator('.unit[data-mark~="held"]')).to_have_count(0)


def test_token_and_cell_by_their_numbers(reader, encoder):
    type_in(reader, ":5").press("Enter")
    assert reader.state["query"] == "5"
    type_in(reader, "7, 3").press("Enter")
    assert (reader.state["query"], reader.state["key"]) == ("7", "3")
    type_in(reader, f":{len(encoder.tokens)}").press("Enter")
    expect(count(reader)).to_have_text(f"only 0 to {len(encoder.tokens) - 1}")
    assert reader.state["query"] == "7"
    type_in(reader, ":5").press("Enter")  # a row of its own, not one with the key that was held before
    reader.rest()
    assert (reader.state["query"], reader.state.get("key", "-1")) == ("5", "-1")


def test_a_key_that_is_found_is_that_of_the_row_held(reader, encoder):
    type_in(reader, ":7").press("Enter")
    reader.page.locator(".search").get_by_role("button", name="row").click()
    type_in(reader, "city").press("Enter")
    expect(count(reader)).to_have_text("1 of 1")
    reader.rest()
    assert reader.state["query"] == "7"
    assert encoder.tokens.pieces[int(reader.state["key"])] == "city"


def test_what_is_found_may_become_the_key(reader, encoder):
    field = type_in(reader, "city")
    expect(count(reader)).to_have_text("1 found")
    reader.page.locator(".search").get_by_role("button", name="row").click()
    field.press("Enter")
    expect(count(reader)).to_have_text("1 of 1")
    state = reader.state
    assert state["query"] == "-1"
    assert encoder.tokens.pieces[int(state["key"])] == "city"


def test_slash_leads_to_it_and_escape_empties_it(reader):
    reader.page.locator(".board").focus()
    reader.page.keyboard.press("/")
    field = reader.page.get_by_role("searchbox")
    expect(field).to_be_focused()
    reader.page.keyboard.type("love")
    expect(count(reader)).to_have_text("2 found")
    reader.page.keyboard.press("Escape")
    expect(field).to_have_value("")
    expect(count(reader)).to_be_hidden()


def test_map_goes_where_something_is_found(show, decoder):
    reader = show(decoder, "words=0&layer=0&head=0&query=-1&box=10,10,30")
    type_in(reader, ":250").press("Enter")
    reader.rest()
    row, _, width = reader.seen()
    assert row < 250 < row + width


def test_without_a_text_that_is_said_and_numbers_work(show, textless):
    reader = show(textless, "query=-1")
    type_in(reader, "love").press("Enter")
    expect(count(reader)).to_have_text("there is no text")
    type_in(reader, "3,29").press("Enter")
    assert (reader.state["query"], reader.state["key"]) == ("3", "29")
