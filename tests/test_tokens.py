"""A text's tokens: where each stands, which are special, how many a model takes, and texts that are refused."""

from __future__ import annotations

import pytest

from softmap.errors import ModelError, TextError
from softmap.models import LoadedModel
from softmap.tokens import UNLIMITED, token_limit, tokenize


@pytest.fixture
def limited(make_model, make_tokenizer):
    """A BERT of 12 positions."""
    return make_model(tokenizer=make_tokenizer(limit=10**30), max_position_embeddings=12)


def test_tokens_know_their_place_in_the_text(bundled):
    tokens = tokenize(bundled, "I love  unbelievability!")
    assert tokens.text == "I love  unbelievability!"
    assert tokens.pieces == ("[CLS]", "i", "love", "un", "##bel", "##ie", "##va", "##bility", "!", "[SEP]")
    assert tokens.ids[0] == bundled.tokenizer.cls_token_id
    assert bundled.tokenizer.convert_ids_to_tokens(list(tokens.ids)) == list(tokens.pieces)
    surfaces = [tokens.text[start:stop] for start, stop in tokens.spans]
    assert surfaces == ["", "I", "love", "un", "bel", "ie", "va", "bility", "!", ""]
    assert tokens.words == (None, 0, 1, 2, 2, 2, 2, 2, 3, None)
    assert tokens.special == (True, *[False] * 8, True)
    assert (tokens.cut, tokens.cut_text) == (0, "")
    assert len(tokens) == 10


@pytest.mark.parametrize(
    ("text", "special"),
    [
        ("the 🙂 sat", ()),  # an emoji becomes [UNK]
        ("the [UNK] sat", ()),
        ("the [MASK] sat", ()),
        ("the [SEP] sat", (2,)),
        ("[CLS] the cat", (1,)),
        ("the cat [PAD]", (3,)),
    ],
)
def test_special_tokens_are_those_that_stand_for_no_text(bundled, text, special):
    tokens = tokenize(bundled, text)
    last = len(tokens) - 1
    assert [i for i, flag in enumerate(tokens.special) if flag] == [0, *special, last]


def test_unknown_word_stands_for_text_where_its_token_also_ends_one(make_model, make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.eos_token = tokenizer.unk_token  # as GPT-2 has it
    tokens = tokenize(make_model(tokenizer=tokenizer), "the 🙂 sat")
    assert tokens.pieces[2] == "[UNK]"
    assert tokens.special == (True, False, False, False, True)


def test_spaces_belong_to_no_token_or_the_one_behind_them(make_model, make_tokenizer):
    for kind in ("byte level", "metaspace"):
        loaded = make_model(tokenizer=make_tokenizer(kind))
        tokens = tokenize(loaded, "I love learning")
        joined = "".join(tokens.text[start:stop] for start, stop in tokens.spans)
        assert joined == "I love learning"
        assert list(dict.fromkeys(tokens.words)) == [None, 0, 1, 2]


@pytest.mark.parametrize(
    ("architecture", "rows", "limit"),
    [
        ("bert", 514, 514),
        ("distilbert", 514, 514),
        ("roberta", 514, 512),  # its positions count from the padding index, 1, onwards
        ("xlm-roberta", 514, 512),
    ],
)
def test_limit_is_that_of_the_position_table(make_model, make_tokenizer, architecture, rows, limit):
    tokenizer = make_tokenizer(limit=10**30)
    loaded = make_model(architecture, tokenizer=tokenizer, max_position_embeddings=rows)
    assert token_limit(loaded) == limit


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_model_runs_at_its_limit_and_one_more_token_is_refused(make_model, make_tokenizer, run_through, architecture):
    loaded = make_model(architecture, tokenizer=make_tokenizer(limit=10**30), max_position_embeddings=20)
    limit = token_limit(loaded)
    assert len(run_through(loaded, "cat " * (limit - 2)).tokens) == limit
    with pytest.raises(TextError, match=f"at most {limit} tokens"):
        tokenize(loaded, "cat " * (limit - 1))


def test_tokenizer_with_the_lower_limit_decides(make_model, make_tokenizer):
    assert token_limit(make_model(tokenizer=make_tokenizer(limit=16))) == 16


def test_model_without_a_position_table_has_no_limit(make_model, make_tokenizer):
    assert token_limit(make_model("llama", tokenizer=make_tokenizer(limit=10**30))) == UNLIMITED


def test_text_too_long_is_refused_with_both_lengths(limited):
    with pytest.raises(TextError) as refusal:
        tokenize(limited, "the cat sat on a mat. " * 3)
    assert refusal.value.expected == "at most 12 tokens for a small bert"
    assert refusal.value.got == "23 tokens"
    assert "truncate=True" in refusal.value.hint


@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_keeps_the_beginning_and_counts_what_was_cut(limited, side):
    limited.tokenizer.truncation_side = side  # a tokenizer's own, which cuts the beginning where it is left
    text = "The cat sat on the mat, I love learning. Is it unbelievable?"
    tokens = tokenize(limited, text, truncate=True)
    assert len(tokens) == 12
    assert " ".join(tokens.pieces) == "[CLS] the cat sat on the mat , i love learning [SEP]"
    assert tokens.text == text
    assert tokens.cut == 7  # . is it un ##believ ##able ?
    assert tokens.cut_text == ". Is it unbelievable?"
    assert limited.tokenizer.truncation_side == side


def test_truncation_may_cut_a_word(limited):
    tokens = tokenize(limited, "I love a cat on the mat, unbelievable mat", truncate=True)
    assert tokens.pieces[-3:] == ("un", "##believ", "[SEP]")
    assert (tokens.cut, tokens.cut_text) == (2, "able mat")


def test_truncation_leaves_a_short_text_whole_and_the_next_text_alone(limited):
    text = "cat " * 20
    assert tokenize(limited, text, truncate=True).cut == 12 - 2
    short = tokenize(limited, "the cat", truncate=True)
    assert (short.cut, short.cut_text) == (0, "")
    with pytest.raises(TextError):  # the tokenizer does not go on truncating
        tokenize(limited, text)


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000"])
def test_empty_text_is_refused(bundled, text):
    with pytest.raises(TextError, match="at least one word, got an empty text"):
        tokenize(bundled, text)


@pytest.mark.parametrize("text", ["[CLS]", "[SEP] [SEP]", "[PAD][CLS]"])
def test_text_of_special_tokens_alone_is_refused(bundled, text):
    with pytest.raises(TextError, match="only special tokens"):
        tokenize(bundled, text)


@pytest.mark.parametrize("text", ["\u200b", "\x00\x01", "\ufffd"])
def test_text_of_which_the_tokenizer_keeps_nothing_is_refused(bundled, text):
    with pytest.raises(TextError, match="at least one word"):
        tokenize(bundled, text)


@pytest.mark.parametrize(("text", "place"), [("ok \ud800", 3), ("\udce9t\udce9", 0), ("\ud83d\ude42", 0)])
def test_lone_surrogate_is_refused_with_its_place(bundled, text, place):
    with pytest.raises(TextError, match="valid Unicode") as refusal:
        tokenize(bundled, text)
    assert f"at character {place}" in refusal.value.got
    str(refusal.value).encode("utf-8")  # it can be printed


@pytest.mark.parametrize("text", [b"I love learning", None, ["I love learning"], 7])
def test_what_is_no_string_is_refused_by_its_type(bundled, text):
    with pytest.raises(TextError, match=f"a string, got {type(text).__name__}"):
        tokenize(bundled, text)


def test_tokenizer_of_another_model_is_refused(bundled, make_model):
    foreign = LoadedModel(make_model().model, bundled.tokenizer, "a small bert")
    with pytest.raises(ModelError, match=r"below 27, .*got 8671.*another model"):
        tokenize(foreign, "unbelievability cat")


def test_tokenizer_that_does_not_know_where_its_tokens_stand_is_refused(make_model):
    from transformers import ByT5Tokenizer

    slow = LoadedModel(make_model().model, ByT5Tokenizer(), "a small bert")
    with pytest.raises(ModelError, match=r"fast tokenizer.*ByT5Tokenizer"):
        tokenize(slow, "I love learning")
