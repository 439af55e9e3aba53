"""A text's tokens: where each stands, which are special, how many a model takes, and texts that are refused.

And the tokens of ids alone, which are those of the text that they stand for.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import WORDS

from softmap.decoding import LONGEST, tokens_of_ids
from softmap.errors import ModelError, TextError
from softmap.limits import UNLIMITED, token_limit
from softmap.models import LoadedModel
from softmap.tokens import tokenize
from softmap.words import find_row, units_of_words

KINDS = ("wordpiece", "byte level", "metaspace", "byte fallback", "byte fallback split", "word level")
OF_BYTES = ("byte level", "byte fallback", "byte fallback split")  # any text comes out as it went in


@pytest.fixture(scope="module")
def of_kind(make_model, make_tokenizer):
    """A model without a limit, and a tokenizer of this kind."""
    made = {kind: make_model("llama", tokenizer=make_tokenizer(kind, limit=10**30)) for kind in KINDS}
    return made.__getitem__


def labels(tokens):
    return [unit.label for unit in units_of_words(tokens) if not unit.special]


def read_again(loaded, text):
    return tokens_of_ids(loaded.tokenizer(text).input_ids, loaded.tokenizer)


def assert_in_order(tokens):
    """Spans rise and lie within the text, and words rise; special tokens have none."""
    starts, stops = zip(*tokens.spans, strict=True)
    assert list(starts) == sorted(starts)
    assert list(stops) == sorted(stops)
    assert all(0 <= start <= stop <= len(tokens.text) for start, stop in tokens.spans)
    assert [word is None for word in tokens.words] == list(tokens.special)
    words = [word for word in tokens.words if word is not None]
    assert words == sorted(words)


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


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text("aé学🙂 \n'.,", max_size=30)
PLAIN = TEXTS.filter(lambda text: text.strip() and not set(text) & set("\ufffd▁["))  # a space, and [SEP], are no text
SENTENCES = st.lists(st.sampled_from([*WORDS, ",", "."]), min_size=1, max_size=12).map(" ".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(text=TEXTS)
def test_ids_alone_give_the_tokens_of_their_text(of_kind, kind, text):
    loaded = of_kind(kind)
    tokens = read_again(loaded, text)
    assert_in_order(tokens)
    try:
        known = tokenize(loaded, text)
    except TextError:  # nothing is left of it
        return
    assert (tokens.ids, tokens.pieces) == (known.ids, known.pieces)
    assert (tokens.special, tokens.unknown) == (known.special, known.unknown)


@pytest.mark.parametrize("kind", OF_BYTES)
@settings(deadline=None)
@given(text=PLAIN)
def test_ids_of_bytes_give_the_text_back_and_its_words(of_kind, kind, text):
    loaded = of_kind(kind)
    tokens = read_again(loaded, text)
    assert tokens.text.strip() == text.strip()
    assert labels(tokens) == labels(tokenize(loaded, text))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(text=SENTENCES)
def test_ids_alone_give_the_words_of_their_text(of_kind, kind, text):
    loaded = of_kind(kind)
    tokens = read_again(loaded, text)
    assert tokens.text == text
    assert labels(tokens) == labels(tokenize(loaded, text))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_ids_in_any_order_give_tokens_in_order(of_kind, kind, data):
    tokenizer = of_kind(kind).tokenizer
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) + 3), min_size=1, max_size=60))
    tokens = tokens_of_ids(ids, tokenizer)
    assert tokens.ids == tuple(ids)
    assert_in_order(tokens)
    units_of_words(tokens)


@pytest.mark.parametrize("kind", OF_BYTES)
@pytest.mark.parametrize("word", ["café", "习", "👩‍🚀", "Ελλάδα"])
def test_word_of_split_characters_is_found_and_its_pieces_share_their_spans(of_kind, kind, word):
    loaded = of_kind(kind)
    tokens = read_again(loaded, f"i love {word} on a mat")
    unit = units_of_words(tokens)[find_row(units_of_words(tokens), word)]
    assert unit.pieces > len(word)
    stands = {span for span in tokens.spans[unit.start : unit.stop] if tokens.text[slice(*span)].strip()}
    assert "".join(tokens.text[slice(*span)] for span in sorted(stands)).strip() == word


def test_words_of_a_vocabulary_without_a_decoder_keep_their_spaces(of_kind):
    tokens = read_again(of_kind("word level"), "I love learning and you")
    assert tokens.text == "I love learning and you"
    assert labels(tokens) == ["I", "love", "learning", "and", "you"]


@pytest.mark.parametrize("kind", ["byte fallback", "byte fallback split"])
def test_words_end_at_white_space_where_the_tokenizer_does_not_split(of_kind, kind):
    assert labels(tokenize(of_kind(kind), "i love  it,\nthe cat")) == ["i", "love", "it,", "the", "cat"]


def test_bytes_that_are_no_text_stay_apart_from_what_follows(of_kind):
    tokenizer = of_kind("byte fallback").tokenizer
    broken, a, space = tokenizer.convert_tokens_to_ids(["<0xFF>", "a", "▁"])
    tokens = tokens_of_ids([a, broken, broken, a, space, a], tokenizer)
    assert tokens.text == "a\ufffd\ufffda a"
    assert tokens.spans == ((0, 1), (1, 3), (1, 3), (3, 4), (4, 5), (5, 6))
    long = tokens_of_ids([broken] * (3 * LONGEST + 1), tokenizer)
    assert long.text == "\ufffd" * (3 * LONGEST + 1)


def test_character_is_cut_by_a_special_token_or_the_end(of_kind):
    tokenizer = of_kind("byte level").tokenizer
    ids = tokenizer("é", add_special_tokens=False).input_ids
    assert len(ids) == 2
    tokens = tokens_of_ids([ids[0], tokenizer.sep_token_id, *ids, ids[0]], tokenizer)
    assert tokens.text == "\ufffdé\ufffd"
    assert tokens.spans == ((0, 1), (1, 1), (1, 2), (1, 2), (2, 3))
    assert tokens.special == (False, True, False, False, False)


def test_piece_that_was_added_is_a_word_of_its_own(make_model, make_tokenizer):
    tokenizer = make_tokenizer("byte level")
    tokenizer.add_tokens(["catsat"])
    loaded = make_model(tokenizer=tokenizer)
    tokens = read_again(loaded, "the catsaton mat")
    assert labels(tokens) == labels(tokenize(loaded, "the catsaton mat")) == ["the", "catsat", "on", "mat"]


def test_special_token_of_any_kind_is_special_in_a_text_and_in_ids(make_model, make_tokenizer):
    from tokenizers import AddedToken

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken("<turn>", special=True)])
    assert tokenizer.convert_tokens_to_ids("<turn>") not in tokenizer.all_special_ids
    loaded = make_model(tokenizer=tokenizer)
    text = "the <turn> cat [MASK] 🙂 [SEP] sat"
    tokens = read_again(loaded, text)
    assert tokens.special == tokenize(loaded, text).special
    assert [piece for piece, mark in zip(tokens.pieces, tokens.special, strict=True) if not mark] == [
        "the",
        "cat",
        "[MASK]",
        "[UNK]",
        "sat",
    ]


def test_what_a_tokenizer_puts_around_a_text_is_special_though_it_does_not_name_it(make_model, make_tokenizer):
    from transformers import PreTrainedTokenizerFast

    nameless = PreTrainedTokenizerFast(tokenizer_object=make_tokenizer().backend_tokenizer)
    tokens = read_again(make_model(tokenizer=nameless), "the cat")
    assert tokens.special == (True, False, False, True)


def test_end_of_text_is_special_where_its_name_for_unknown_words_is_never_used(make_model, make_tokenizer):
    tokenizer = make_tokenizer("byte level")
    tokenizer.eos_token = tokenizer.unk_token  # as GPT-2 has it, whose bytes lack no word
    loaded = make_model(tokenizer=tokenizer)
    for tokens in (tokenize(loaded, "the[UNK] cat"), read_again(loaded, "the[UNK] cat")):
        assert labels(tokens) == ["the", "cat"]
        assert not any(tokens.unknown)


def test_id_that_the_vocabulary_lacks_is_called_by_its_number(of_kind):
    tokenizer = of_kind("byte level").tokenizer
    cat = tokenizer(" cat", add_special_tokens=False).input_ids
    tokens = tokens_of_ids([*cat, 5000], tokenizer)
    assert tokens.pieces[-1] == "5000"
    assert tokens.text == " cat"


def test_ids_without_a_tokenizer_are_numbers():
    tokens = tokens_of_ids([5, 17, 5])
    assert (tokens.pieces, tokens.ids) == (("5", "17", "5"), (5, 17, 5))
    assert labels(tokens) == ["5", "17", "5"]
    assert not any(tokens.special + tokens.unknown)


@pytest.mark.parametrize("tokenizer", [None, "byte level"])
def test_no_ids_are_no_tokens(of_kind, tokenizer):
    tokens = tokens_of_ids([], tokenizer and of_kind(tokenizer).tokenizer)
    assert (len(tokens), tokens.text) == (0, "")


def test_tokenizer_written_in_python_gives_words():
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    tokens = tokens_of_ids(tokenizer("i love café 学习, 🙂").input_ids, tokenizer)
    assert tokens.text == "i love café 学习, 🙂"
    assert labels(tokens) == ["i", "love", "café", "学", "习", ",", "🙂"]
    assert tokens.special == (*[False] * (len(tokens) - 1), True)
    assert_in_order(tokens)


@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
@pytest.mark.parametrize("text", ["i love café 学习 🙂", "\ufffd"])
def test_time_grows_with_the_number_of_tokens_alone(of_kind, kind, text):
    tokenizer = of_kind(kind).tokenizer
    ids = tokenizer(text, add_special_tokens=False).input_ids * 3000

    def seconds(count):
        start = time.process_time()
        tokens_of_ids(ids[:count], tokenizer)
        return time.process_time() - start

    few = min(seconds(1000) for _ in range(3))
    assert min(seconds(8000) for _ in range(3)) < 24 * few  # 64 times, if each token looked at all before it
