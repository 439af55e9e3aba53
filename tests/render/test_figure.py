from __future__ import annotations

import dataclasses
import io
import itertools
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import softmap
from softmap.render import figure as renderer
from softmap.render.figure import as_figure, save_figure
from softmap.sections import percent, write
from softmap.words import Unit

ROOT = Path(__file__).parents[2]

MATRICES = ("scores", "scaled", "weights")
SENTENCE = "The animal didn't cross the street because it was unbelievably tired, and nobody minded that."


@pytest.fixture(scope="module")
def example():
    return softmap.explain(softmap.example(), lang="en")


@pytest.fixture(scope="module")
def sentence(bundled):
    return softmap.explain(SENTENCE, bundled, layer=3, head=1, row="it", lang="en")


@pytest.fixture(scope="module")
def ten_tokens(bundled):
    return softmap.explain("That is unbelievably good", bundled, layer=2, head=3, row="unbelievably", lang="en")


@pytest.fixture(scope="module")
def long(bundled):
    return softmap.explain("one two three " * 100, bundled, layer=3, head=1, row=150, lang="en")


@pytest.fixture(scope="module")
def very_long(make_model, make_tokenizer):
    loaded = make_model("xlm-roberta", max_position_embeddings=1024, tokenizer=make_tokenizer(limit=1000))
    return softmap.explain("unbelievable cat " * 200, loaded, layer=0, head=0, row=1, lang="en")


@pytest.fixture
def fonts_of_this_machine_do_not_matter(monkeypatch):
    monkeypatch.setattr(renderer, "choose_fonts", lambda characters: ["DejaVu Sans"])


def axes_of(figure, name):
    return next(axes for axes in figure.axes if axes.get_label() == name)


def texts_of(artist):
    return [text.get_text() for text in artist.findobj(Text) if text.get_text()]


def lines_of(figure):
    return {patch.get_label(): patch for patch in axes_of(figure, "sentence").patches}


def matrix_of(axes):
    (drawn,) = [*axes.collections, *axes.images]
    return np.ma.filled(drawn.get_array().astype(float), np.nan)


def frame_of(axes):
    """The rows that the frame encloses, first and count."""
    (frame,) = [patch for patch in axes.patches if patch.get_label() == "row"]
    return frame.get_y(), frame.get_height()


def saved(story, format):
    file = io.BytesIO()
    save_figure(story, file, format)
    return file.getvalue()


def called(story, label):
    """The story with another first word."""
    units = tuple(dataclasses.replace(unit, label=label) if unit is story.words[0] else unit for unit in story.words)
    return dataclasses.replace(story, units=units, words=units)


def test_example_says_how_much_i_relates_to_each_word(example):
    texts = texts_of(axes_of(as_figure(example), "sentence"))
    assert "“I” relates to every word" in texts
    assert all(texts.count(word) == 2 for word in ("I", "love", "learning"))
    assert {"90%", "7%", "3%"} <= set(texts)


def test_lines_lead_to_all_words_as_wide_as_their_weights(example):
    lines = lines_of(as_figure(example))
    assert list(lines) == ["I", "love", "learning"]
    widths = [line.get_linewidth() for line in lines.values()]
    assert widths[0] / widths[1] == pytest.approx(example.weights[0, 0] / example.weights[0, 1])
    alphas = [line.get_alpha() for line in lines.values()]
    assert alphas == sorted(alphas, reverse=True)


@pytest.mark.parametrize("name", ["example", "sentence", "long", "very_long"])
def test_matrices_are_those_of_the_story(name, request):
    story = request.getfixturevalue(name)
    figure = as_figure(story)
    for stage, expected in zip(MATRICES, (story.steps.scores, story.steps.scaled, story.weights), strict=True):
        np.testing.assert_array_equal(matrix_of(axes_of(figure, stage)), expected.astype(float))


def test_cells_hold_the_numbers_as_they_are_written_elsewhere(example):
    figure = as_figure(example)
    assert {"110", "90", "83"} <= set(texts_of(axes_of(figure, "scores")))
    assert {"13.75", "11.25", "10.38"} <= set(texts_of(axes_of(figure, "scaled")))
    assert {write(float(w), "weight") for w in example.weights.flat} <= set(texts_of(axes_of(figure, "weights")))


def test_numbers_of_ten_tokens_have_room_one_matrix_below_another(ten_tokens):
    assert len(ten_tokens.units) == 10
    figure = as_figure(ten_tokens)
    assert figure.get_figwidth() < 8
    for name, values in (("scores", ten_tokens.steps.scores), ("weights", ten_tokens.weights)):
        style = "weight" if name == "weights" else "number"
        assert {write(float(value), style) for value in values.flat} <= set(texts_of(axes_of(figure, name)))


def test_sentence_of_25_words_is_drawn_whole(bundled):
    text = "When the committee finally published its long awaited report last Tuesday, nobody in the whole building "
    text += "could understand why it had taken them so very many years."
    story = softmap.explain(text, bundled, layer=2, head=5, lang="en")
    assert len(story.words) > 25
    assert len(lines_of(as_figure(story))) == len({word.label for word in story.words})


def test_small_weights_without_numbers_can_be_seen(bundled, example):
    story = softmap.explain(" ".join(f"word{i}" for i in range(10)), bundled, layer=0, head=3, words=False, lang="en")
    (mesh,) = axes_of(as_figure(story), "weights").collections[:1]
    assert float(mesh.norm(0.04)) == pytest.approx(0.2)  # its root
    (mesh,) = axes_of(as_figure(example), "weights").collections[:1]
    assert float(mesh.norm(0.04)) == pytest.approx(0.04)  # beside its number


def test_each_step_is_told_of_in_its_words(example):
    texts = texts_of(as_figure(example))
    assert {"Step 1", "Step 2", "Step 3", "scores = q kᵀ", "scaled = scores / √d_k"} <= set(texts)
    assert "The keys have d_k = 64 dimensions" in " ".join(texts)


def test_step_2_names_a_scale_that_is_not_the_usual(example):
    steps = softmap.self_attention(*softmap.example(), scale=0.5)
    assert "scaled = scores × scale" in texts_of(as_figure(dataclasses.replace(example, steps=steps)))


@pytest.mark.parametrize("row", [0, 1, 2])
def test_frame_is_around_the_pointed_out_row(example, row):
    figure = as_figure(dataclasses.replace(example, row=row))
    assert [frame_of(axes_of(figure, name)) for name in MATRICES] == [(row, 1)] * 3


def test_frame_is_around_all_pieces_of_a_word_and_around_the_word(bundled):
    story = softmap.explain("Embeddings disagreed", bundled, layer=3, head=1, row="Embeddings", lang="en")
    word = story.words[story.row]
    assert word.pieces > 1
    figure = as_figure(story)
    assert frame_of(axes_of(figure, "scores")) == (word.start, word.pieces)
    assert frame_of(axes_of(figure, "weights")) == (story.row, 1)


def test_row_of_a_large_matrix_is_pointed_at_from_both_sides(long):
    figure = as_figure(long)
    for name in MATRICES:
        marks = [line for line in axes_of(figure, name).lines if line.get_label() == "row"]
        assert [mark.get_ydata()[0] for mark in marks] == [long.row + 0.5] * 2


def test_special_tokens_are_muted_and_the_pointed_out_word_stands_out(sentence):
    figure = as_figure(sentence)
    for label, color in (("[CLS]", renderer.MUTED), ("animal", renderer.INK)):
        labels = [text for text in axes_of(figure, "scores").texts if text.get_text() == label]
        assert [text.get_color() for text in labels] == [color, color]  # of its row and its column
    queries = [text for text in axes_of(figure, "sentence").texts if text.get_text() == "it"]
    assert [text.get_color() for text in queries] == [renderer.ACCENT, renderer.INK]


@pytest.mark.parametrize("name", ["example", "ten_tokens", "sentence", "long", "very_long"])
def test_no_text_runs_into_another(name, request):
    texts = [text for text in as_figure(request.getfixturevalue(name)).findobj(Text) if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    grounds = [box.expanded(0.98, 0.8) for box in boxes]  # a box is higher than most letters
    assert not [
        (texts[i].get_text(), texts[j].get_text())
        for i, j in itertools.combinations(range(len(texts)), 2)
        if grounds[i].overlaps(grounds[j])
    ]


def test_text_of_300_words_names_the_largest_keys_and_how_many_it_left_out(long):
    assert len(long.words) == 302
    figure = as_figure(long)
    texts = texts_of(figure)
    assert len(texts) < 100
    caption = next(text for text in texts if text.startswith("Lines to the top"))
    assert "top 12 keys" in caption
    assert "290 other keys" in caption
    largest = {percent(float(share)) for share in np.sort(long.weights[long.row])[-12:]}
    assert largest <= set(texts)


def test_lines_of_a_long_text_add_up_to_the_whole(long):
    lines = lines_of(as_figure(long))
    assert lines["…"].get_edgecolor() != lines["[CLS]"].get_edgecolor()
    rest = 1 - np.sort(long.weights[long.row])[-12:].sum()
    assert f"{percent(float(rest))} the other 290" in texts_of(as_figure(long))


def test_text_longer_than_a_page_is_drawn_as_strips_one_below_another(very_long):
    assert len(very_long.queries) < len(very_long.units)
    assert len(very_long.units) > 512
    figure = as_figure(very_long)
    spots = [axes_of(figure, name).get_position() for name in MATRICES]
    assert len({round(spot.x0, 6) for spot in spots}) == 1
    assert spots[0].y0 > spots[1].y1 > spots[1].y0 > spots[2].y1
    assert f"{len(very_long.words) - 12} other keys" in " ".join(texts_of(figure))


def test_key_that_may_not_be_seen_is_left_blank(example):
    steps = softmap.self_attention(*softmap.example(), causal=True)
    axes = axes_of(as_figure(dataclasses.replace(example, steps=steps)), "scaled")
    np.testing.assert_array_equal(np.isnan(matrix_of(axes)), ~np.tri(3, dtype=bool))
    assert not [text for text in texts_of(axes) if "∞" in text]
    assert axes.patches[0].get_hatch()


def test_scores_that_are_all_the_same_can_be_drawn(example):
    steps = softmap.Steps.from_scores(np.zeros((3, 3)), d_k=64, v=np.ones((3, 2)))
    assert matrix_of(axes_of(as_figure(dataclasses.replace(example, steps=steps)), "scores")).max() == 0


def test_text_of_one_token_can_be_drawn(example):
    unit = (Unit("I", 0, 1),)
    steps = softmap.Steps.from_scores(np.ones((1, 1)), d_k=64, v=np.ones((1, 2)))
    story = dataclasses.replace(example, units=unit, words=unit, steps=steps, queries=range(1))
    assert "100%" in texts_of(as_figure(story))


def test_dollar_signs_are_drawn_as_they_are(example):
    story = called(example, "$x$")
    svg = saved(story, "svg").decode()
    assert svg.count(">$x$<") >= 2


def test_label_that_is_long_loses_its_end(example):
    texts = texts_of(as_figure(called(example, "Donaudampfschifffahrt")))
    assert "Donaudampfs…" in texts
    assert not [text for text in texts if "Donaudampfschiff" in text]


@pytest.mark.usefixtures("fonts_of_this_machine_do_not_matter")
def test_chinese_story_has_chinese_captions(example):
    texts = texts_of(as_figure(dataclasses.replace(example, language="zh")))
    assert {"“I” 与每个词的关系", "第一步", "scores = q kᵀ"} <= set(texts)


def test_characters_without_a_font_are_named_once_with_the_remedy(example):
    story = called(example, "\U000f0000\U000f0001")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        saved(story, "png")
    (warning,) = caught
    assert "\U000f0000 \U000f0001" in str(warning.message)
    assert "Install one, such as Noto Sans CJK" in str(warning.message)


def test_svg_is_well_formed_and_keeps_text_as_text(sentence):
    root = ElementTree.fromstring(saved(sentence, "svg"))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"[CLS]", "animal", "unbelievably", "scores = q kᵀ", "“it” relates to every word"} <= set(texts)


def test_pdf_embeds_its_fonts_as_outlines(example):
    pdf = saved(example, "pdf")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


@pytest.mark.parametrize("format", ["png", "svg", "pdf"])
def test_same_story_gives_the_same_bytes(example, format):
    assert saved(example, format) == saved(example, format)


def test_png_is_fine_enough_to_print(example):
    width = int.from_bytes(saved(example, "png")[16:20], "big")
    assert width >= 1400


def test_nothing_global_is_changed_nor_heeded(example):
    with matplotlib.rc_context(
        {"figure.facecolor": "black", "font.size": 30, "text.color": "red", "svg.fonttype": "path"}
    ):
        before = dict(matplotlib.rcParams)
        svg = saved(example, "svg")
        assert dict(matplotlib.rcParams) == before
    assert svg == saved(example, "svg")


def test_figure_is_one_of_its_own_that_pyplot_does_not_know(example):
    figure = example.figure()
    assert isinstance(figure, Figure)
    assert isinstance(figure.canvas, FigureCanvasAgg)
    assert not Gcf.get_all_fig_managers()


def drawn(svg):
    """What an SVG draws, without the names it gives to things: its marks and its numbers."""
    svg = re.sub(r'(id="|url\(#|href="#)\w+', r"\1", svg)
    number = re.compile(r"-?\d+(?:\.\d+)?")
    return number.sub("#", svg).split(), [float(n) for n in number.findall(svg)]


@pytest.mark.parametrize("name", ["tests/golden/example.en.svg", "docs/images/figure.svg"])
def test_figure_is_drawn_as_it_always_was(name, bundled, tmp_path):
    """Numbers may differ by rounding, half a point at most; a change that is meant is made with `make pictures`."""
    drawn_by = re.search(r"^matplotlib==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)[1]
    if matplotlib.__version__ != drawn_by:
        pytest.skip(f"the pictures were drawn by matplotlib {drawn_by}; here is {matplotlib.__version__}")
    story = (
        softmap.explain(softmap.example(), lang="en")
        if "example" in name
        else softmap.explain("I love learning", bundled, layer=3, head=1, row="love", lang="en")
    )
    story.save(tmp_path / "figure.svg")
    marks, numbers = drawn((tmp_path / "figure.svg").read_text(encoding="utf-8"))
    golden_marks, golden_numbers = drawn((ROOT / name).read_text(encoding="utf-8"))
    assert marks == golden_marks
    assert numbers == pytest.approx(golden_numbers, abs=0.5)


def test_golden_figure_would_notice_another_row(tmp_path):
    softmap.explain(softmap.example(), row="love", lang="en").save(tmp_path / "figure.svg")
    marks, _ = drawn((tmp_path / "figure.svg").read_text(encoding="utf-8"))
    assert marks != drawn((ROOT / "tests/golden/example.en.svg").read_text(encoding="utf-8"))[0]
