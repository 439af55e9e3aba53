"""Pieces become words, weights are added up by the rule, a word is found, and a label can be printed."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.decoders import ByteLevel
from vocabularies import BACKENDS

from softmap.errors import RowError
from softmap.tokens import Tokens, tokenize
from softmap.words import (
    Unit,
    attention_from,
    attention_to,
    find_row,
    printable,
    token_label,
    units_of_tokens,
    units_of_words,
)


@st.composite
def stochastic_matrices(draw):
    """A random matrix whose rows sum to 1, and a random way to cut its tokens into words."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    units = tuple(Unit("word", start, start + size) for start, size in zip(starts, sizes, strict=True))
    scores = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).normal(scale=4, size=(sum(sizes), sum(sizes)))
    weights = np.exp(scores)
    return weights / weights.sum(axis=1, keepdims=True), units


def labels(units):
    return [unit.label for unit in units]


def words_of(text, loaded):
    """The labels of a text's words, without those of special tokens."""
    return [unit.label for unit in units_of_words(tokenize(loaded, text)) if not unit.special]


@given(stochastic_matrices())
def test_attention_to_a_word_is_the_sum_and_from_it_the_mean(matrix):
    weights, units = matrix
    by_words = attention_from(attention_to(weights, units), units)
    for i, row in enumerate(units):
        for j, column in enumerate(units):
            block = weights[row.start : row.stop, column.start : column.stop]
            assert by_words[i, j] == pytest.approx(block.sum() / len(block), abs=1e-12)
    assert by_words.sum(axis=1) == pytest.approx(1)
    assert (by_words >= 0).all()


@given(stochastic_matrices(), st.data())
def test_rows_of_some_words_alone_are_merged_alike(matrix, data):
    weights, units = matrix
    first = data.draw(st.integers(0, len(units) - 1))
    some = units[first : data.draw(st.integers(first + 1, len(units)))]
    rows = weights[some[0].start : some[-1].stop]
    expected = attention_from(weights, units)[first : first + len(some)]
    np.testing.assert_allclose(attention_from(rows, some, some[0].start), expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I love Learning", ["I", "love", "Learning"]),
        ("Unbelievability!", ["Unbelievability", "!"]),
        ("don't", ["don", "'", "t"]),
        ("Café ÅNGSTRÖM", ["Café", "ÅNGSTRÖM"]),
        ("I 🙂 you👩‍🚀", ["I", "🙂", "you👩‍🚀"]),
        ("我爱学习。", ["我", "爱", "学", "习", "。"]),
        ("我love学习", ["我", "love", "学", "习"]),
        ("3.14 km²", ["3", ".", "14", "km²"]),
        ("two\n words", ["two", "words"]),
        ("the [MASK] sat", ["the", "[MASK]", "sat"]),
    ],
)
def test_words_are_labelled_as_the_text_has_them(bundled, text, words):
    assert words_of(text, bundled) == words


def test_word_holds_all_its_pieces_and_a_special_token_stands_alone(bundled):
    units = units_of_words(tokenize(bundled, "Unbelievability [SEP] cat"))
    assert units == (
        Unit("[CLS]", 0, 1, special=True),
        Unit("Unbelievability", 1, 6),
        Unit("[SEP]", 6, 7, special=True),
        Unit("cat", 7, 8),
        Unit("[SEP]", 8, 9, special=True),
    )
    assert [unit.pieces for unit in units] == [1, 5, 1, 1, 1]


def test_what_follows_a_special_token_is_another_word_even_where_the_tokenizer_counts_one():
    spans = ((0, 5), (5, 7), (7, 9))
    tokens = Tokens(
        "[SEP]cats", (2, 8, 9), ("[SEP]", "ca", "##ts"), spans, (0, 0, 0), (True, False, False), (False,) * 3
    )
    assert labels(units_of_words(tokens)) == ["[SEP]", "cats"]


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("byte level", "I love learning", ["I", "love", "learning"]),
        ("byte level", "don't", ["don", "'t"]),
        ("byte level", "a 🙂 unbelievability", ["a", "🙂", "unbelievability"]),
        ("byte level", "👍🏽 👩‍🚀", ["👍🏽", "👩‍🚀"]),
        ("byte level", "我爱学习", ["我", "爱", "学", "习"]),
        ("byte level", "I 我爱", ["I", "我", "爱"]),
        ("metaspace", "I love learning", ["I", "love", "learning"]),
        ("metaspace", "don't 🙂", ["don't", "🙂"]),
        ("metaspace", "我爱你", ["我", "爱", "你"]),
        ("metaspace", "我爱学习", ["我", "爱", "学习"]),  # 学习 is one piece
        ("metaspace", "你好 我爱你", ["你", "好", "我", "爱", "你"]),
        ("metaspace", "I我爱", ["I", "我", "爱"]),
        ("metaspace", "我I学", ["我", "I", "学"]),
    ],
)
def test_words_of_other_kinds_of_tokenizers(make_model, make_tokenizer, kind, text, words):
    assert words_of(text, make_model(tokenizer=make_tokenizer(kind))) == words


@pytest.mark.parametrize("kind", ["wordpiece", "byte level", "metaspace"])
@pytest.mark.parametrize(
    "text", ["I love learning.", "我爱学习。你好吗？", "don't 🙂👍🏽, 我I  学\tthe unbelievable cat [SEP] a"]
)
def test_every_token_is_in_one_word(make_model, make_tokenizer, kind, text):
    tokens = tokenize(make_model(tokenizer=make_tokenizer(kind)), text)
    units = units_of_words(tokens)
    assert [i for unit in units for i in range(unit.start, unit.stop)] == list(range(len(tokens)))
    assert all(unit.label.strip() for unit in units)


def test_tokens_are_labelled_by_their_pieces(bundled):
    tokens = tokenize(bundled, "I love Unbelievability")
    pieces = ["[CLS]", "i", "love", "un", "##bel", "##ie", "##va", "##bility", "[SEP]"]
    assert labels(units_of_tokens(tokens)) == pieces
    assert [unit.special for unit in units_of_tokens(tokens)] == [True, *[False] * 7, True]
    assert [(unit.start, unit.stop) for unit in units_of_tokens(tokens)] == [(i, i + 1) for i in range(9)]
    pieces[1] = "I"
    assert labels(units_of_tokens(tokens, as_in_text=True)) == pieces


UNITS = tuple(Unit(label, i, i + 1) for i, label in enumerate(["[CLS]", "The", "cat", "sat", "the", "7", "MAT", "cat"]))


@pytest.mark.parametrize(
    ("wanted", "row"),
    [
        ("sat", 3),
        ("The", 1),  # as written, although "the" is there too
        ("the", 4),
        ("mat", 6),
        ("SAT", 3),
        ("[cls]", 0),
        ("7", 5),  # the word, not the token
        ("2", 2),
        (":7", 7),  # the token, not the word
        (7, 7),
        (0, 0),
        (np.int64(3), 3),
    ],
)
def test_row_is_found_by_word_or_by_token(wanted, row):
    assert find_row(UNITS, wanted) == row


def test_word_is_found_by_any_of_its_tokens():
    units = (Unit("[CLS]", 0, 1), Unit("unbelievably", 1, 4), Unit("cats", 4, 5))
    assert [find_row(units, token) for token in range(5)] == [0, 1, 1, 1, 2]
    with pytest.raises(RowError, match="Tokens count from 0 to 4"):
        find_row(units, 5)


@pytest.mark.parametrize(
    ("wanted", "got", "hint"),
    [
        ("cat", "one that occurs 2 times", "Give its token's number: :2 or :7."),
        ("CAT", "one that occurs 2 times", "Give its token's number: :2 or :7."),
        ("THE", "one that occurs 2 times", "Give its token's number: :1 or :4."),
        ("dog", "neither", "Tokens count from 0 to 7, and the words are [CLS], The, cat, sat, the, 7, MAT, cat."),
        ("", "neither", "Tokens count from 0 to 7"),
        ("8", "neither", "Tokens count from 0 to 7"),
        ("-1", "neither", "Tokens count from 0 to 7"),
        (8, "neither", "Tokens count from 0 to 7"),
        (-1, "neither", "Tokens count from 0 to 7"),
        (1.0, "neither", "Tokens count from 0 to 7"),
    ],
)
def test_row_that_is_not_one_word_is_refused(wanted, got, hint):
    with pytest.raises(RowError) as refusal:
        find_row(UNITS, wanted)
    assert refusal.value.subject == f"row {wanted!r}"
    assert refusal.value.got == got
    once = "a word that occurs once"
    assert refusal.value.expected == (once if "occurs" in got else "a word of the text or a token's number")
    assert hint in refusal.value.hint


def test_refusal_of_a_row_lists_a_dozen_words_and_eight_places():
    many = tuple(Unit("buffalo", i, i + 1) for i in range(30))
    with pytest.raises(RowError, match=r":0 or :1 or :2 or :3 or :4 or :5 or :6 or :7 \.\.\.\."):
        find_row(many, "buffalo")
    with pytest.raises(RowError, match=r"Tokens count from 0 to 29, and the words are (buffalo, ){12}\.\.\.\.$"):
        find_row(many, "cow")


def test_refusal_of_a_row_has_dots_only_where_something_is_left_out():
    many = tuple(Unit("buffalo", i, i + 1) for i in range(13))
    with pytest.raises(RowError, match=r"or :7\.$"):
        find_row(many[:8], "buffalo")
    with pytest.raises(RowError, match=r"or :7 \.\.\.\.$"):
        find_row(many[:9], "buffalo")
    with pytest.raises(RowError, match=r"are (buffalo, ){11}buffalo\.$"):
        find_row(many[:12], "cow")
    with pytest.raises(RowError, match=r"are (buffalo, ){12}\.\.\.\.$"):
        find_row(many, "cow")


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("cat", "cat"),
        ("naïve 我 ##ing [SEP] Ġthe ▁the", "naïve 我 ##ing [SEP] Ġthe ▁the"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\u200b\ufeff\xad", "\\u200b\\ufeff\\xad"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\ud800", "\\ud800"),
        ("👩‍🚀", "👩‍🚀"),
        ("\u200d\u200c", "\\u200d\\u200c"),  # nothing but joiners
        ("می‌خواهم", "می‌خواهم"),  # held apart by a zero-width non-joiner
    ],
)
def test_label_can_be_printed_and_is_never_invisible(label, shown):
    assert printable(label) == shown


def test_word_with_a_hidden_character_is_labelled_with_its_escape(bundled):
    assert words_of("pass\u202eword", bundled) == ["pass\\u202eword"]


BYTE_LEVEL = BACKENDS["byte level"]()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_tokens_of_bytes_are_shown_by_their_characters_and_white_space_by_signs(text):
    found = BYTE_LEVEL.encode(text)
    tokens = plain_tokens(text, found.tokens, found.offsets)
    signs = str.maketrans({" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"})
    read = [ByteLevel().decode([piece]) for piece in found.tokens]
    for i, characters in enumerate(read):
        if found.tokens[i] == text[slice(*found.offsets[i])]:
            assert token_label(tokens, i) == printable(found.tokens[i])  # also ¡, whose second byte is written ¡
        elif "\ufffd" in characters and "\ufffd" not in text:
            assert re.fullmatch(r"(\\x[0-9a-f]{2})+", token_label(tokens, i))
        elif "\ufffd" not in characters:
            assert token_label(tokens, i) == printable(characters.translate(signs))


def plain_tokens(text, pieces, spans):
    none = (False,) * len(pieces)
    return Tokens(text, (), tuple(pieces), tuple(spans), tuple(range(len(pieces))), none, none)


@pytest.mark.parametrize(
    ("text", "piece", "shown"),
    [
        ("for", "for", "for"),
        (" for", "Ġfor", "␣for"),
        ("\n\n", "ĊĊ", "⏎⏎"),
        ("é", "Ã©", "é"),
        ("😀", "ðŁĺ", r"\xf0\x9f\x98"),
        ("Ġfor", "Ġfor", "Ġfor"),  # the text has it so
        ("Ã©", "Ã©", "Ã©"),
        ("caf\u0065\u0301", "cafÃ©", "café"),  # a tokenizer that composes
        ("CAFÉ", "cafÃ©", "café"),
        ("caf\u0065\u0301", "Ã", r"\xc3"),  # one that composes, and cuts what it composed
        ("I \ufffd", "ðŁĺ", r"\xf0\x9f\x98"),  # a text that ends within a character
        ("naïve", "naive", "naive"),  # a vocabulary that takes accents away
        ("ing", "##ing", "##ing"),
        (" for", "▁for", "▁for"),
        ("é", "<0xC3>", "<0xC3>"),
        ("xyz", "Ã", "Ã"),  # a letter of the vocabulary, not a byte: the text has no such character
        ("of", "Ġfor", "Ġfor"),  # and no such word
    ],
)
def test_token_is_shown_as_its_vocabulary_calls_it_but_bytes_as_the_text_has_them(text, piece, shown):
    assert token_label(plain_tokens(text, [piece], [(0, len(text))]), 0) == shown


def test_special_token_is_shown_as_it_is_though_it_could_be_bytes():
    tokens = Tokens("", (), ("Ġ",), ((0, 0),), (None,), (True,), (False,))
    assert token_label(tokens, 0) == "Ġ"


def test_special_token_is_labelled_by_its_piece_and_what_has_no_text_too():
    tokens = replace(plain_tokens("<S>", ["</s>", "▁"], [(0, 3), (3, 3)]), special=(True, False))
    assert labels(units_of_words(tokens)) == ["</s>", "▁"]


@pytest.mark.parametrize("wanted", ["for", "Ġfor", "␣for"])
def test_token_of_bytes_is_found_without_the_sign_of_its_space(wanted):
    assert find_row((Unit("form", 0, 1), Unit("␣for", 1, 2)), wanted) == 1


def test_word_that_is_there_as_typed_comes_before_one_in_another_case():
    units = (Unit("The", 0, 1), Unit("␣cat", 1, 2), Unit("␣the", 2, 3), Unit("⏎", 3, 4))
    assert [find_row(units, wanted) for wanted in ("the", "The", "CAT", "␣THE", "Ċ")] == [2, 0, 1, 2, 3]


@pytest.mark.parametrize("special", [False, True], ids=["at the end", "before a special token"])
@pytest.mark.parametrize("white", [" ", "\n", " \n\n", "\u3000"])
def test_white_space_at_the_end_of_a_text_goes_with_the_word_before(white, special):
    """It is a token of its own, and a word of its own to the tokenizer."""
    text = f"one two{white}"
    tokens = plain_tokens(text, ["one", "Ġtwo", white], [(0, 3), (3, 7), (7, len(text))])
    if special:
        end = plain_tokens(text, [*tokens.pieces, "</s>"], [*tokens.spans, (len(text), len(text))])
        tokens = replace(end, special=(False, False, False, True), words=(0, 1, 2, None))
    found = units_of_words(tokens)
    assert [(unit.label, unit.start, unit.stop) for unit in found[:2]] == [("one", 0, 1), ("two", 1, 3)]
    assert len(found) == 2 + special


@pytest.mark.parametrize("middle", [" ", "\ue000"], ids=["white space", "a character without a name"])
def test_token_inside_a_word_is_no_word_of_its_own_where_it_is_no_ideograph(middle):
    tokens = replace(plain_tokens(f"a{middle}b", ["a", middle, "b"], [(0, 1), (1, 2), (2, 3)]), words=(0, 0, 0))
    assert [(unit.start, unit.stop) for unit in units_of_words(tokens)] == [(0, 3)]
