from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

import softmap
from softmap.render.lines import break_lines
from softmap.render.terminal import Page, as_text

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-\d+)?")


def printed(story, width=80, **options):
    file = io.StringIO()
    Console(file=file, width=width, legacy_windows=False, **options).print(Page(story))
    return file.getvalue()


@pytest.fixture(scope="module")
def example():
    return softmap.explain(softmap.example(), lang="en")


@pytest.fixture(scope="module")
def sentence(bundled):
    return softmap.explain("I love learning", bundled, layer=3, head=1, lang="en")


@pytest.fixture(scope="module")
def paragraph(bundled):
    text = "The committee, which had met twice before, finally agreed that the old bridge should be rebuilt."
    return softmap.explain(text, bundled, layer=3, head=1, row="bridge", lang="en")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_worked_example_prints_as_it_always_did(lang):
    text = str(softmap.explain(softmap.example(), lang=lang))
    assert text == (GOLDEN / f"example.{lang}.txt").read_text(encoding="utf-8")


def test_real_model_prints_as_it_always_did_to_the_last_digit(sentence):
    """Digits may differ by one in the last place between processors; every other character is the same."""
    text, golden = str(sentence), (GOLDEN / "model.en.txt").read_text(encoding="utf-8")

    def shape_of(told):
        return [re.sub(r"[▁-█]+", "▁", re.sub(r" +", " ", NUMBER.sub("#", line))) for line in told.splitlines()]

    assert shape_of(text) == shape_of(golden)
    for line, wanted in zip(text.splitlines(), golden.splitlines(), strict=True):
        if "within" in wanted or "e-" in wanted:
            continue  # rounding of the last bit, told in scientific notation
        numbers = [[float(number) for number in NUMBER.findall(told)] for told in (line, wanted)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.011), wanted


def test_golden_text_would_notice_another_head(bundled):
    other = str(softmap.explain("I love learning", bundled, layer=3, head=2, lang="en"))
    assert other != (GOLDEN / "model.en.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(example, sentence, paragraph, width):
    for story in (example, sentence, paragraph):
        for line in printed(story, width).splitlines():
            assert cell_len(line) <= width


def test_chinese_and_emoji_lines_stay_within_80_columns(bundled):
    story = softmap.explain("我爱学习，因为世界很大🤖。", bundled, layer=3, head=1, lang="zh")
    for line in printed(story).splitlines():
        assert cell_len(line) <= 80


def test_piped_output_has_no_escape_codes(sentence):
    assert "\x1b" not in as_text(sentence)


def test_no_color_prints_strips_as_blocks(monkeypatch, sentence):
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(sentence, force_terminal=True, color_system="truecolor")
    assert "48;2" not in text
    assert "▇" in text


def test_terminal_with_colour_shades_the_cells(sentence):
    text = printed(sentence, force_terminal=True, color_system="truecolor")
    assert "48;2" in text  # a background
    assert "▇" not in text


def test_colour_changes_no_number(sentence):
    colored = re.sub(r"\x1b\[[\d;]*m", "", printed(sentence, force_terminal=True, color_system="truecolor"))
    plain = as_text(sentence)
    assert NUMBER.findall(colored) == NUMBER.findall(plain)


def test_shaded_numbers_set_both_ink_and_ground(sentence):
    """Whatever the terminal's own ground, a cell's number reads on the cell's."""
    text = printed(sentence, force_terminal=True, color_system="truecolor")
    for style in re.findall(r"\x1b\[([\d;]+)m\s*-?\d+\.\d\d ", text):
        assert "38;2" in style or "97" in style or "30" in style
        assert "48;2" in style


def test_matrix_too_wide_shows_the_pointed_out_row_its_top_keys_and_what_is_left_out(paragraph):
    text = str(paragraph)
    step_3 = text[text.index("Step 3") : text.index("Step 4")]
    row = paragraph.weights[paragraph.row]
    best = paragraph.words[row.argmax()].label
    first = step_3[step_3.index("▸") :].splitlines()[1]
    assert best in first
    assert f"{row.max():.2f}" in first
    others = len(paragraph.words) - 1
    assert f"Left out: {others} other rows, {others + 1 - 8} other keys." in " ".join(step_3.split())
    assert f"{others} more rows can be read with --row or --json." in " ".join(step_3.split())


def test_same_matrix_is_whole_on_a_wide_terminal(sentence):
    narrow, wide = printed(sentence, 40), printed(sentence, 100)
    assert "Too large for this page" in narrow
    assert "Too large for this page" not in wide


def test_table_of_heads_is_never_cut(bundled):
    story = softmap.explain("I love learning", bundled, lang="en")
    table = printed(story, 50)
    table = table[table.index("  0 ") : table.index("The tokens")]
    shares = story.source.shares.to_special
    for number in {f"{100 * share:.0f}%" for share in shares.ravel()}:
        assert number in table
    assert len(re.findall(r"\d+%", table)) == shares.size


def test_terminal_escapes_in_the_text_are_not_obeyed(bundled):
    story = softmap.explain("good \x1b[31mred\x07 day", bundled, layer=0, head=0, lang="en")
    assert "\x1b" not in str(story)
    assert "\\x1b" in str(story)


def test_markup_in_the_text_is_text(bundled):
    story = softmap.explain("[bold]not bold[/bold]", bundled, layer=0, head=0, lang="en")
    assert "[bold]not bold[/bold]" in str(story)


def test_long_text_is_told_in_the_headline_on_one_line(bundled):
    story = softmap.explain("one\ntwo\nthree " * 60, bundled, layer=0, head=0, lang="en")
    headline = as_text(story, 300).splitlines()[0]
    assert headline.startswith("one two three one")
    assert headline.endswith("…")


def wrapped(text, width):
    return break_lines(text, lambda line: cell_len(line) <= width)


def test_wrapped_lines_lose_nothing_but_spaces():
    text = "The keys have d_k = 32 dimensions，所以每个分数都除以 √32（约 5.657）。Why: gradients."
    for width in range(12, 60):
        lines = wrapped(text, width)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert all(cell_len(line) <= width for line in lines)


def test_no_wrapped_line_begins_with_closing_punctuation():
    lines = wrapped("每个标记以一行进入这一层，三个矩阵把它变成查询（它要找什么）、键和值。" * 3, 21)
    assert not any(line[0] in "，。）、" for line in lines)
