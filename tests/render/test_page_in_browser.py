"""The page in a real browser, offline."""

from __future__ import annotations

import pytest

import softmap


@pytest.fixture
def show(browser, tmp_path):
    """Open a story's page; its errors and requests are kept, and looked at when the test is over."""
    pages, troubles = [], []

    def show(story, **options):
        story.save(tmp_path / "story.html")
        page = browser.new_page(**options)
        pages.append(page)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        address = (tmp_path / "story.html").as_uri()
        page.on(
            "request",
            lambda request: (
                None if request.url == address or request.url[:5] == "data:" else troubles.append(request.url)
            ),
        )
        page.goto(address)
        return page

    yield show
    for page in pages:
        page.close()
    assert troubles == []


@pytest.fixture(scope="module")
def sentence(bundled):
    return softmap.explain("I love learning", bundled, layer=3, head=1, lang="en")


def visible_shares(page):
    return page.locator("svg.lines g.pointed text").all_text_contents()


def test_first_word_is_pointed_out_on_opening(show, sentence):
    page = show(sentence)
    assert page.locator("li.pointed").first.inner_text().startswith("I's query")
    assert page.locator('button[aria-pressed="true"]').inner_text() == "I"
    assert page.locator("#weights tr.pointed th").inner_text() == "I"


def test_choosing_a_word_points_its_rows_lines_and_sentences_out(show, sentence):
    page = show(sentence)
    before = visible_shares(page)
    assert "53%" in before
    page.get_by_role("button", name="love").click()
    assert page.locator("#weights li.pointed").inner_text().startswith("love: 96% learning")
    assert page.locator("#scores tr.pointed th").inner_text() == "love"
    assert visible_shares(page) != before
    assert "96%" in visible_shares(page)


def test_row_of_a_matrix_can_be_clicked(show, sentence):
    page = show(sentence)
    page.locator("#scaled .grid tbody tr").nth(3).click()
    assert page.locator("#weights tr.pointed th").inner_text() == "learning"


def test_words_can_be_chosen_by_keyboard(show, sentence):
    page = show(sentence)
    page.get_by_role("button", name="learning").focus()
    page.keyboard.press("Enter")
    assert page.locator("#weights tr.pointed th").inner_text() == "learning"


def test_hostile_text_is_shown_as_text_and_runs_nothing(show, bundled):
    text = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> ##set"
    page = show(softmap.explain(text, bundled, layer=0, head=0, lang="en"))
    assert page.locator("h1").inner_text() == text
    assert page.locator("script").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_in_light_and_dark(show, sentence, scheme):
    page = show(sentence, color_scheme=scheme)
    ink, ground = page.evaluate(
        """() => [getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]
             .map(c => c.match(/\\d+/g).slice(0, 3).reduce((sum, n) => sum + Number(n), 0) / 3)"""
    )
    assert (ink < 60 and ground > 200) if scheme == "light" else (ink > 200 and ground < 60)


def test_nothing_but_matrices_scrolls_sideways_on_a_phone(show, sentence):
    page = show(sentence, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_page_of_512_tokens_stands_still_quickly(show, bundled):
    story = softmap.explain("A dot product is a similarity between two vectors. " * 80, bundled, truncate=True)
    page = show(story)
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert 0 < loaded < 2000
