from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

import softmap
from softmap.narrative import narrate

HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> ##set `tick` {{ 7*7 }} & \"quote'"


@pytest.fixture(scope="module")
def sentence(bundled):
    return softmap.explain("I love learning", bundled, layer=3, head=1, lang="en")


@pytest.fixture(scope="module")
def long_text(bundled):
    return softmap.explain("A dot product is a similarity between two vectors. " * 20, bundled, lang="en")


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in ("meta", "img", "path", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page):
    tags = Tags()
    tags.feed(page)
    return tags


def test_page_is_well_formed(sentence, long_text):
    for story in (sentence, long_text, softmap.explain(softmap.example())):
        assert parsed(story.html()).open == []


def test_page_asks_for_nothing_outside_itself(sentence, long_text):
    for story in (sentence, long_text):
        page = story.html()
        assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
        assert not re.findall(r"@import|url\(", page)
        assert "default-src 'none'" in page


def test_page_says_what_the_story_says(sentence):
    page = html.unescape(re.sub(r"</?b>", "`", sentence.html()))
    for section in narrate(sentence):
        for sentence_ in (*section.sentences, *(reading.text for reading in section.readings)):
            assert sentence_ in page


def test_every_number_of_the_matrices_is_on_the_page(sentence):
    cells = re.findall(r"<td style=[^>]*>([^<]*)</td>", sentence.html())
    for weight in sentence.steps.weights.ravel():
        assert f"{weight:.2f}" in cells
    for score in sentence.steps.scores.ravel():
        assert (f"{score:.2f}" if abs(score) < 100 else f"{score:.1f}") in cells


def test_text_is_never_taken_for_markup(bundled):
    page = softmap.explain(HOSTILE, bundled, layer=0, head=0).html()
    tags = parsed(page)
    assert tags.tags.count("script") == 1
    assert "onerror" not in tags.attributes
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", page)[0]
    assert html.escape("</script><script>", quote=False) in page


def test_large_matrix_is_a_picture_with_the_top_keys_of_one_row(long_text):
    page = long_text.html()
    assert len(page) < 2_000_000
    assert page.count('class="matrix"') == 4  # scores, scaled, weights, contributions
    assert "other rows" in page


def test_page_of_512_tokens_stays_small(bundled):
    story = softmap.explain("word " * 600, bundled, truncate=True)
    assert len(story.html()) < 5_000_000


def test_notebook_shows_the_page_in_a_frame_of_its_own(sentence):
    frame = sentence._repr_html_()
    (page,) = re.findall(r'srcdoc="([^"]*)"', frame)
    assert html.unescape(page) == sentence.html()
    assert 'sandbox="allow-scripts"' in frame


def test_lines_of_the_sentence_are_well_formed_svg_with_the_weights(sentence):
    (picture,) = re.findall(r"<svg.*?</svg>", sentence.html(), re.DOTALL)
    root = ElementTree.fromstring(picture)
    pointed = [g for g in root.findall("g") if g.get("data-word") == str(sentence.row)]
    shares = [g.find("text").text for g in pointed]
    assert shares == [f"{100 * w:.0f}%" for w in sentence.weights[sentence.row] if w >= 0.005]


def test_page_in_chinese_says_so():
    page = softmap.explain(softmap.example(), lang="zh").html()
    assert '<html lang="zh">' in page
    assert "第一步" in page
