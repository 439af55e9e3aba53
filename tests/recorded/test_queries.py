"""What a recording is asked about: layers by their number in the model, words of one text or of two."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import ORIGIN, make_layer, make_recording, make_tokens

import softmap
from softmap import masks
from softmap.errors import ParameterError, RecordingError, RowError
from softmap.recorded import RecordedSequence, Recording


def two_texts():
    """An encoder-decoder's: the encoder read "le chat a vu le 7", the decoder "the cat saw le nord"."""
    source, target = make_tokens(text="le chat a vu le 7"), make_tokens(text="the cat saw le nord")
    n, m = len(source), len(target)
    layers = (
        make_layer(0, queries=n, queries_of="tokens", keys_of="tokens", mask=masks.full(), part="encoder"),
        make_layer(1, queries=n, queries_of="tokens", keys_of="tokens", mask=masks.full(), part="encoder"),
        make_layer(2, queries=m, queries_of="target", keys_of="target"),
        make_layer(3, queries=m, keys=n, queries_of="target", keys_of="tokens", mask=masks.full(), kind="cross"),
    )
    layers = tuple(replace(layer, number=i) for i, layer in enumerate(layers))
    return Recording(ORIGIN, (RecordedSequence(layers, source, target),))


def some_layers(*numbers):
    rec = make_recording(layers=len(numbers))
    layers = tuple(replace(layer, number=number) for number, layer in zip(numbers, rec.layers, strict=True))
    return replace(rec, sequences=(replace(rec.sequences[0], layers=layers),))


def test_layer_is_its_number_in_the_model_wherever_it_is_named():
    rec = some_layers(1, 3)
    assert rec.numbers == (1, 3)
    assert rec[3] is rec.layers[1].matrix
    assert {each.layer for each in rec.top("word0")} == {1, 3}
    torch.testing.assert_close(rec.row("word0", layer=3), rec.layers[1].matrix[:, 0])
    for layer in (0, 2):
        with pytest.raises(ParameterError, match="one of the layers that were kept, 1, 3"):
            rec.row("word0", layer=layer)


def test_layers_without_numbers_are_named_by_their_place():
    rec = make_recording(layers=2)
    layers = tuple(replace(layer, number=None) for layer in rec.layers)
    rec = replace(rec, sequences=(replace(rec.sequences[0], layers=layers),))
    assert rec.numbers == (0, 1)
    assert rec[1] is layers[1].matrix


def test_number_of_a_token_means_its_word_where_words_are_told(bundled):
    rec = softmap.record("Unbelievability and unbelievability", model=bundled)
    word = rec.words()[3]
    assert (word.label, word.pieces) == ("unbelievability", 5)
    whole = rec.top(
        tuple(rec.tokens.spans[i][side] for i, side in ((word.start, 0), (word.stop - 1, 1))), layer=3, head=1
    )
    assert rec.top(word.start, layer=3, head=1) == rec.top(word.stop - 1, layer=3, head=1) == whole
    first, second = (rec.top(i, layer=3, head=1, words=False) for i in (word.start, word.start + 1))
    assert first != second


def test_what_is_looked_at_is_named_by_its_tokens(bundled):
    rec = softmap.record("Unbelievability and learning loves learning", model=bundled)
    row = rec.row("loves", layer=3, head=1)
    found = rec.top("loves", 20, layer=3, head=1)
    assert {each.stop - each.key for each in found} == {1, 5}
    for each in found:
        assert each.weight == pytest.approx(float(row[each.key : each.stop].sum()), rel=1e-5)


def test_word_of_two_texts_is_looked_for_in_the_encoders_first():
    rec = two_texts()
    assert {each.layer for each in rec.top("chat")} == {0, 1}
    torch.testing.assert_close(rec.row("chat"), torch.stack([layer.matrix[:, 1] for layer in rec.layers[:2]]))
    with pytest.raises(RowError, match=r"occurs 2 times\. Give its token's number: :0 or :4\."):
        rec.top("le")  # not the decoder's, in which it occurs once
    assert rec.top("7") == rec.top(5, layer=0) + rec.top(5, layer=1)  # a word that looks like a number


def test_word_of_the_decoders_text_alone_is_looked_for_in_its_layers():
    rec = two_texts()
    found = rec.top("cat", 2)
    assert {each.layer for each in found} == {2, 3}
    assert found == rec.top(1, 2, layer=2) + rec.top(1, 2, layer=3)
    texts = {2: rec.target, 3: rec.tokens}
    assert all(each.label == texts[each.layer].pieces[each.key] for each in found)


@pytest.mark.parametrize("where", [0, ":0", "3", (0, 3)])
def test_number_says_not_of_which_text_it_is_until_a_layer_is_named(where):
    rec = two_texts()
    for ask in (rec.row, rec.top):
        with pytest.raises(ParameterError, match=r"queries are of several texts.*name a layer, layer=0 \(--layer 0\)"):
            ask(where)
        assert len(ask(where, layer=2)) > 0


def test_word_that_stands_in_neither_text_is_refused():
    with pytest.raises(RowError, match="row 'dog': expected a word of the text or a token's number, got neither"):
        two_texts().top("dog")


def test_words_of_texts_that_are_not_known_are_refused():
    rec = two_texts()
    rec = replace(rec, sequences=(RecordedSequence(rec.layers, None),))
    with pytest.raises(RecordingError, match="expected the tokens of a text, got none"):
        rec.top("chat")


def test_layers_whose_queries_are_no_text_are_left_out_where_a_word_is_asked_for():
    rec = two_texts()
    layers = (replace(rec.layers[0], queries_of=None), replace(rec.layers[1], queries_of=None), *rec.layers[2:])
    rec = replace(rec, sequences=(replace(rec.sequences[0], layers=layers, tokens=None),))
    assert {each.layer for each in rec.top("cat")} == {2, 3}


def test_index_written_as_text_is_the_number_of_a_token():
    rec = make_recording()
    assert rec.top(":3") == rec.top("3") == rec.top(3)
    with pytest.raises(RowError, match="expected a number from 0 to 8, got 9"):
        rec.top(":9")


@pytest.mark.parametrize("where", [(1,), (0, 1, 2), ("a", "b"), (2, None), (), (0.5, 2), (True, 2), (-5, 3)])
def test_characters_that_are_no_pair_of_numbers_are_refused(where):
    rec = make_recording()
    for ask in (rec.row, rec.top):
        with pytest.raises(RowError, match=r"characters: expected \(start, stop\), two whole numbers from 0, got \("):
            ask(where)


def test_recording_without_layers_is_refused():
    rec = make_recording(layers=0)
    for ask in (rec.row, rec.top):
        with pytest.raises(RecordingError, match="expected a layer of softmax attention, got none"):
            ask(0)


@pytest.mark.usefixtures("cuda")
def test_layers_on_several_devices_give_rows_on_one():
    rec = make_recording()
    first, second = rec.layers
    moved = replace(second, q=second.q.cuda(), k=second.k.cuda(), logsumexp=second.logsumexp.cuda())
    spread = replace(rec, sequences=(replace(rec.sequences[0], layers=(first, moved)),))
    torch.testing.assert_close(spread.row("word1"), rec.row("word1"), rtol=0, atol=1e-5)
    assert spread.row("word1", layer=1).is_cuda
