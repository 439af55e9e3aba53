"""What may be asked of a recording, next to the recording's own numbers; and what is refused."""

from __future__ import annotations

import json
import time
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest
import torch
from by_blocks import HALF, blocks, by_words, dense_of, make_pieces, rescale
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded.builders import make_layer, make_recording, make_tokens, make_two_texts

import softmap
from softmap import masks
from softmap.errors import ParameterError, RecordingError, SizeError, SoftmapError
from softmap.recorded import RecordedSequence, Recording
from softmap.tokens import Tokens
from softmap.viewer.answers import QUESTIONS, Answers, Numbers
from softmap.viewer.texts import Text
from softmap.words import units_of_words


def ask(answers, name, **params):
    found = answers.ask(name, {key: str(value) for key, value in params.items()})
    if isinstance(found, Numbers):
        assert found.array.flags.c_contiguous
        assert found.array.dtype.str in ("<f2", "<f4", "<i4")
        return found.array
    return json.loads(json.dumps(found, allow_nan=False))  # as it travels


@pytest.fixture(scope="module")
def of_encoder(encoder):
    return Answers(encoder)


@pytest.fixture(scope="module")
def of_decoder(decoder):
    return Answers(decoder)


@pytest.fixture(scope="module")
def of_numbers():
    """A recording of what is no text."""
    layers = (make_layer(queries=20, mask=masks.full(), part="encoder"), make_layer(1, queries=20, keys=30))
    return Answers(Recording(make_recording().origin, (RecordedSequence(layers, None),)))


@pytest.fixture(scope="module")
def of_two_texts():
    return Answers(make_two_texts())


@pytest.fixture(scope="module")
def split_character():
    """A decoder without a mark at its beginning, whose first word has four pieces, two of them of one character."""
    tokens = replace(
        make_tokens(6, "a b c d e"),
        text="a😀b c",
        pieces=("a", "\\xf0\\x9f", "\\x98\\x80", "b", "c", "</s>"),
        spans=((0, 1), (1, 2), (1, 2), (2, 3), (4, 5), (5, 5)),
        words=(0, 0, 0, 0, 1, None),
    )
    layer = make_layer(queries=6, number=0, queries_of="tokens", keys_of="tokens")
    return Answers(Recording(make_recording().origin, (RecordedSequence((layer,), tokens),)))


class TestAbout:
    def test_says_what_there_is(self, of_encoder, encoder):
        about = ask(of_encoder, "about")
        assert about["version"] == softmap.__version__
        assert about["model"] == encoder.origin.model
        assert about["title"].startswith("I love learning, and learning")
        assert len(about["title"]) == 60
        words = len(units_of_words(encoder.tokens))
        assert about["texts"] == {"tokens": {"tokens": len(encoder.tokens), "words": words, "cut": 0}, "target": None}
        assert [layer["number"] for layer in about["layers"]] == list(range(6))
        layer = about["layers"][0]
        assert (layer["heads"], layer["queries"], layer["queries_of"]) == (12, len(encoder.tokens), "tokens")
        assert (layer["kept"], layer["values"], layer["summary"]) == (True, True, True)
        assert (about["tile"], about["words_limit"], about["page"]) == (256, 4096, 512)

    def test_begins_with_the_head_that_explain_would_tell(self, of_encoder, encoder):
        source = softmap.explain(encoder, lang="en").source
        assert ask(of_encoder, "about")["start"] == {"layer": source.layer, "head": source.head, "query": 1}

    def test_begins_within_what_was_asked_for(self, encoder, decoder):
        for layer, head in ((4, 7), (2, None), (None, 3)):
            start = ask(Answers(encoder, layer=layer, head=head), "about")["start"]
            assert start["layer"] == layer or layer is None
            assert start["head"] == head or head is None
        assert ask(Answers(decoder, layer=1, head=2), "about")["start"] == {"layer": 1, "head": 2, "query": 298}

    def test_of_a_long_text_begins_with_the_head_that_looks_at_words(self):
        recording = make_recording(layers=2, queries=600, d_k=8, heads=4)
        layer = recording.layers[1]
        q, k = layer.q.clone() * 0.1, layer.k * 0.1
        q[2], k[1] = 0, 0
        q[2, :, 0], k[1, 300, 0] = 40, 40  # head 2 looks at token 300, which is no sink
        q[1, :, 1], k[0, 0, 1] = 40, 40  # head 1 at the first one, which is
        matrix = replace(layer, q=q, k=k, summary=None, logsumexp=None)
        sharp = replace(matrix, summary=matrix.matrix.summary())
        layers = (recording.layers[0], sharp)
        answers = Answers(replace(recording, sequences=(replace(recording.sequences[0], layers=layers),)))
        assert ask(answers, "about")["start"] == {"layer": 1, "head": 2, "query": 598}

    def test_of_what_is_no_text_has_no_texts_and_the_models_name(self, of_numbers):
        about = ask(of_numbers, "about")
        assert about["texts"] == {"tokens": None, "target": None}
        assert about["title"] == "a/model"
        assert about["layers"][0]["queries_of"] is None

    def test_of_two_texts(self, of_two_texts):
        about = ask(of_two_texts, "about")
        assert about["texts"]["target"]["tokens"] == 7
        assert [(each["queries_of"], each["keys_of"]) for each in about["layers"]] == [
            ("tokens", "tokens"),
            ("target", "target"),
            ("target", "tokens"),
        ]

    def test_a_batch_is_refused_and_so_is_what_has_no_layers_or_no_such_head(self, decoder):
        with pytest.raises(RecordingError, match=r"expected one sequence, got a batch of 2.*--batch 0"):
            Answers(make_recording(batch=2))
        with pytest.raises(RecordingError, match="a layer of softmax attention, got none"):
            Answers(replace(decoder, sequences=(RecordedSequence((), decoder.tokens),)))
        for of in ({"layer": 2}, {"head": 4}, {"layer": 1, "head": 9}):
            with pytest.raises(ParameterError, match="expected a number from 0 to"):
                Answers(decoder, **of)


class TestTexts:
    def test_units_with_their_gaps_are_the_text(self, of_encoder, encoder):
        words = ask(
            of_encoder,
            "units",
            of="tokens",
            words=1,
            start=0,
            stop=ask(of_encoder, "starts", of="tokens", words=1).size - 1,
        )
        assert (
            "".join(
                gap + label
                for gap, label, special in zip(words["gaps"], words["labels"], words["special"], strict=True)
                if not special
            )
            == encoder.tokens.text
        )
        assert words["labels"][0] == "[CLS]"
        assert words["starts"] == [unit.start for unit in units_of_words(encoder.tokens)]

    def test_tokens_are_labelled_by_their_piece_or_as_the_text_has_them(self, of_encoder, encoder):
        count = len(encoder.tokens)
        tokens = ask(of_encoder, "units", of="tokens", start=0, stop=count)
        assert tokens["labels"][:4] == ["[CLS]", "I", "love", "learning"]
        assert any(label.startswith("##") for label in tokens["labels"])
        assert tokens["starts"] == list(range(count))
        np.testing.assert_array_equal(ask(of_encoder, "starts", of="tokens"), range(count + 1))

    def test_starts_end_with_the_number_of_tokens(self, of_encoder, encoder):
        starts = ask(of_encoder, "starts", of="tokens", words=1)
        assert starts.dtype == np.int32
        assert starts.tolist() == [*(unit.start for unit in units_of_words(encoder.tokens)), len(encoder.tokens)]

    def test_white_space_is_kept(self):
        tokens = replace(make_tokens(4, "a b c"), text="a\n\n b  c", spans=((0, 1), (4, 5), (7, 8), (8, 8)))
        recording = make_recording(queries=4)
        recording = replace(recording, sequences=(replace(recording.sequences[0], tokens=tokens),))
        assert ask(Answers(recording), "units", of="tokens", words=1, start=1, stop=4)["gaps"] == ["\n\n ", "  ", ""]

    @pytest.mark.parametrize(
        ("text", "words", "found"),
        [
            ("learning", 1, 2),
            ("LEARNING, and", 1, 1),
            ("new  york", 1, 2),
            ("york is", 1, 1),
            ("[cls]", 1, 1),
            ("##", 0, 4),
            ("unbelievably", 0, 1),
            ("zebra", 1, 0),
            ("ork", 1, 2),
        ],
    )
    def test_search_spans_units_in_any_case(self, of_encoder, text, words, found):
        answer = ask(of_encoder, "find", of="tokens", words=words, text=text)
        assert answer["total"] == len(answer["units"]) == found
        for unit in answer["units"]:
            label = ask(of_encoder, "units", of="tokens", words=words, start=unit, stop=unit + 1)["labels"][0]
            first = text.casefold().split()[0]
            assert first in label.casefold() or first.startswith(label.casefold().strip("#"))

    @settings(max_examples=100, deadline=None)
    @given(
        words=st.lists(st.sampled_from(["a", "aa", "ab", "Straße", "İ", "x"]), min_size=1, max_size=12),
        wanted=st.sampled_from(["a", "aa", "a a", "ab a", "STRASSE", "asse", "i̇", "a x", "aaa"]),
    )
    def test_search_finds_every_unit_in_which_the_text_begins(self, words, wanted):
        recording = make_recording(layers=1, queries=len(words) + 1)
        tokens = make_tokens(text=" ".join(words))
        answers = Answers(replace(recording, sequences=(replace(recording.sequences[0], tokens=tokens),)))
        folded = [*(word.casefold() for word in words), "</s>"]
        rest = [" ".join(folded[i:]) for i in range(len(words))]
        within = [
            any(rest[i].startswith(wanted.casefold(), j) for j in range(len(folded[i]))) for i in range(len(words))
        ]
        assert ask(answers, "find", of="tokens", words=1, text=wanted)["units"] == np.flatnonzero(within).tolist()

    def test_search_reads_a_character_of_several_tokens_once(self, split_character):
        for text, words, found in (
            ("a😀b", 0, [0]),
            ("😀B", 0, [1]),
            ("b c", 0, [3]),
            ("a😀b c", 1, [0]),
            ("😀", 0, [1]),
        ):
            assert ask(split_character, "find", of="tokens", text=text, words=words)["units"] == found

    def test_a_text_of_thousands_of_marks_is_told_in_a_moment(self):
        count = 20_000
        tokens = Tokens(
            text="a",
            ids=tuple(range(count)),
            pieces=("<image>",) * (count - 1) + ("a",),
            spans=((0, 0),) * (count - 1) + ((0, 1),),
            words=(None,) * (count - 1) + (0,),
            special=(True,) * (count - 1) + (False,),
            unknown=(False,) * count,
        )
        text, began = Text(tokens), time.perf_counter()
        assert set(text.described(range(count), False)["gaps"]) == {""}
        assert text.context(count - 2, False) == ["", "<image>", "a"]
        assert time.perf_counter() - began < 5  # a look back from each of them would take minutes

    def test_search_gives_a_thousand_at_a_time_and_their_number(self):
        recording = make_recording(layers=1, queries=1501, keep=("qk",))
        answers = Answers(recording)
        first = ask(answers, "find", of="tokens", words=1, text="word")
        assert (len(first["units"]), first["total"]) == (1000, 1500)
        assert ask(answers, "find", of="tokens", words=1, text="word", start=1000)["units"] == list(range(1000, 1500))

    def test_other_texts_and_too_many_units_are_refused(self, of_encoder, of_numbers, encoder):
        with pytest.raises(ParameterError, match="of: expected tokens, got 'target'"):
            ask(of_encoder, "units", of="target", start=0, stop=1)
        with pytest.raises(ParameterError, match="of: expected no text, for the recording has none"):
            ask(of_numbers, "units", of="tokens", start=0, stop=1)
        with pytest.raises(ParameterError, match="of: expected tokens or target"):
            ask(of_encoder, "starts", of="text")
        with pytest.raises(ParameterError, match=f"stop: expected a whole number from 0 to {len(encoder.tokens)}"):
            ask(of_encoder, "units", of="tokens", start=0, stop=9999)
        with pytest.raises(ParameterError, match="text: expected something to look for"):
            ask(of_encoder, "find", of="tokens", text=" ")


class TestHeads:
    @pytest.mark.parametrize(
        ("options", "long"),
        [
            ({"queries": 200, "summary": {"cells": 100}}, False),  # edges of which every second is a block's
            ({"queries": 300, "summary": {"cells": 19}}, True),  # edges of no blocks
            ({"queries": 70, "keep": ("qk",)}, True),
            (
                {"queries": 5, "keys": 300, "keep": ("qk",), "mask": masks.full(), "kind": "cross", "keys_of": None},
                True,
            ),
            ({"queries": 64}, False),
        ],
    )
    def test_thumbs_are_the_coarsest_pixels_of_the_map(self, options, long):
        recording = make_recording(**options)
        answers = Answers(recording)
        thumbs, zoom = ask(answers, "thumbs", layer=1), ask(answers, "about")["layers"][1]["thumb"]
        for head in range(4):
            expected = blocks(*dense_of(recording.layers[1], head), zoom)["max"]
            assert 32 < max(expected.shape) <= 64
            np.testing.assert_allclose(thumbs[head], expected, **HALF)
        assert answers.takes_long("thumbs", {"layer": "1"}) == long

    def test_thumbs_of_recorded_cells_alone_are_no_finer_than_these(self):
        recording = make_recording(queries=128, summary={"cells": 8}, mask=masks.full())
        told = Answers(make_recording(queries=128, summary={"cells": 8}, mask=masks.full(), keep=("summary",)))
        assert ask(told, "about")["layers"][0]["thumb"] == 4
        np.testing.assert_allclose(
            ask(told, "thumbs", layer=0)[2], blocks(*dense_of(recording.layers[0], 2), 4)["max"], **HALF
        )

    def test_what_was_not_recorded_takes_long(self):
        without = Answers(make_recording(summary={"cells": None, "received": False}))
        for name in ("thumbs", "received"):
            assert without.takes_long(name, {})
            assert not Answers(make_recording()).takes_long(name, {})

    def test_roles_are_those_of_heads(self, of_encoder, encoder):
        table = softmap.heads(encoder)
        for number in (0, 3):
            answer = ask(of_encoder, "roles", layer=number)["heads"]
            heads = [head for head in table.rows if head.layer == number]
            assert [each["role"] for each in answer] == [head.role for head in heads]
            assert [each["scores"]["previous"] for each in answer] == pytest.approx([head.previous for head in heads])
        assert of_encoder.takes_long("roles", {"layer": "0"})

    def test_statistics_alone_give_thumbs_roles_and_what_is_received(self):
        answers = Answers(make_recording(keep=("summary",)))
        assert ask(answers, "thumbs", layer=0).shape == (4, 9, 9)
        assert ask(answers, "roles", layer=0)["heads"][0]["scores"]["entropy"] > 0
        assert ask(answers, "received", heads="0.1").shape == (9,)
        assert ask(answers, "about")["layers"][0]["kept"] is False
        place = {"layer": 0, "head": 1}
        for name, params in {
            "tile": place | {"zoom": 0, "row": 0, "column": 0},
            "pixel": place | {"zoom": 0, "row": 0, "column": 0},
            "row": {"heads": "0.1", "unit": 0},
            "matrix": {"layer": 0},
            "steps": place | {"query": 0, "key": 0},
        }.items():
            with pytest.raises(RecordingError, match="expected q and k in the recording, got statistics alone"):
                ask(answers, name, **params)


class TestTheMap:
    @pytest.mark.parametrize("how", ["max", "mean"])
    def test_tiles_are_float16(self, of_decoder, decoder, how):
        wanted = blocks(*dense_of(decoder.layers[1], 3), 1)[how]
        tile = ask(of_decoder, "tile", layer=1, head=3, zoom=1, row=0, column=0, how=how)
        assert tile.dtype == np.float16
        np.testing.assert_allclose(tile, wanted, **HALF)
        second = ask(of_decoder, "tile", layer=1, head=3, zoom=0, row=1, column=0, how=how)
        np.testing.assert_allclose(second, blocks(*dense_of(decoder.layers[1], 3), 0)[how][256:, :256], **HALF)

    def test_a_pixel_of_zoom_0_is_one_cell_with_its_numbers(self, of_encoder, encoder):
        matrix = encoder[3, 1]
        cell = ask(of_encoder, "pixel", layer=3, head=1, zoom=0, row=2, column=3)
        assert (cell["rows"], cell["keys"]) == ([2, 3], [3, 4])
        at = cell["at"]
        assert (at["query"], at["key"], at["query_label"], at["key_label"]) == (2, 3, "love", "learning")
        assert at["weight"] == cell["max"] == float(matrix[2, 3])
        assert cell["mean"] == pytest.approx(at["weight"])
        assert at["score"] == float(matrix.scores[2, 3])
        assert at["scaled"] == float(matrix.scaled[2, 3])
        assert at["hidden"] == ""
        assert at["query_context"] == ["I ", "love", " learning, and learning loves me unbelie"]

    def test_a_pixel_that_may_not_be_seen(self, of_decoder, decoder):
        cell = ask(of_decoder, "pixel", layer=0, head=1, zoom=0, row=3, column=7)
        assert (cell["mean"], cell["max"], cell["at"]["hidden"], cell["at"]["scaled"]) == (None, None, "masked", None)
        assert cell["at"]["weight"] == 0
        assert cell["at"]["score"] == float(decoder[0, 1].scores[3, 7])
        assert ask(of_decoder, "pixel", layer=0, head=1, zoom=4, row=3, column=7)["at"] is None

    @pytest.mark.parametrize("sinks", ["shown", "hidden", "rescaled"])
    def test_a_coarse_pixel_says_where_its_largest_weight_is(self, of_decoder, decoder, sinks):
        left_out = () if sinks == "shown" else (0, 299)
        weights, seen = dense_of(decoder.layers[0], 2, left_out)
        weights = rescale(decoder.layers[0], 2, left_out) if sinks == "rescaled" else weights
        pixel = ask(of_decoder, "pixel", layer=0, head=2, zoom=7, row=2, column=0, sinks=sinks)
        block = weights[256:300, :128]
        at = np.unravel_index(np.where(seen[256:300, :128], block, -1).argmax(), block.shape)
        assert (pixel["rows"], pixel["keys"]) == ([256, 300], [0, 128])
        assert (pixel["at"]["query"], pixel["at"]["key"]) == (256 + at[0], at[1])
        assert pixel["max"] == pytest.approx(block.max(), rel=1e-5)
        assert pixel["mean"] == pytest.approx(block.mean(), rel=1e-4)

    def test_a_left_out_key_is_not_seen_and_keeps_its_score(self, of_decoder, decoder):
        for sinks in ("hidden", "rescaled"):
            cell = ask(of_decoder, "pixel", layer=0, head=2, zoom=0, row=5, column=0, sinks=sinks)
            assert (cell["mean"], cell["at"]["hidden"], cell["at"]["weight"]) == (None, "left_out", 0)
            assert cell["at"]["score"] == float(decoder[0, 2].scores[5, 0])
            last = ask(of_decoder, "pixel", layer=0, head=2, zoom=0, row=5, column=299, sinks=sinks)
            assert last["at"]["hidden"] == "masked"  # a special token, which the mask hides anyway

    def test_a_pixel_in_words_has_the_weight_between_words(self, of_encoder, encoder):
        starts = ask(of_encoder, "starts", of="tokens", words=1)
        units = units_of_words(encoder.tokens)
        weights, _ = dense_of(encoder.layers[3], 1)
        in_words = by_words(weights, starts, starts)
        row = next(i for i, unit in enumerate(units) if unit.pieces > 1)
        cell = ask(of_encoder, "pixel", layer=3, head=1, zoom=0, row=row, column=2, words=1)
        assert cell["max"] == cell["at"]["weight"] == pytest.approx(in_words[row, 2], rel=1e-5)
        assert cell["at"]["query_label"] == units[row].label == "unbelievably"
        assert units[row].start <= cell["at"]["query"] < units[row].stop
        tile = ask(of_encoder, "tile", layer=3, head=1, zoom=0, row=0, column=0, words=1)
        np.testing.assert_allclose(tile, in_words, **HALF)

    def test_a_pixel_of_a_word_of_many_pieces_is_looked_at_in_strips(self, split_character, monkeypatch):
        whole = ask(split_character, "pixel", layer=0, head=1, zoom=0, row=0, column=0, words=1)
        monkeypatch.setattr("softmap.viewer.sight.STRIP", 4)  # one row
        assert ask(split_character, "pixel", layer=0, head=1, zoom=0, row=0, column=0, words=1)["at"] == {
            **whole["at"],
            "weight": pytest.approx(whole["at"]["weight"], rel=1e-6),
        }

    def test_places_outside_are_refused_with_what_there_is(self, of_decoder):
        place = {"layer": 0, "head": 0, "zoom": 0, "row": 0, "column": 0}
        for changed, said in {
            "layer": "from 0 to 1",
            "head": "from 0 to 3",
            "zoom": "from 0 to 9",
            "row": "from 0 to 1",
            "column": "from 0 to 1",
        }.items():
            with pytest.raises(ParameterError, match=f"{changed}: expected a whole number {said}, got '10'"):
                ask(of_decoder, "tile", **place | {changed: 10})
        with pytest.raises(ParameterError, match="row: expected 0, the only one, got '1'"):
            ask(of_decoder, "tile", **place | {"zoom": 3, "row": 1})
        with pytest.raises(ParameterError, match="how: expected max or mean"):
            ask(of_decoder, "tile", **place | {"how": "sum"})
        with pytest.raises(ParameterError, match="sinks: expected shown or hidden or rescaled"):
            ask(of_decoder, "tile", **place | {"sinks": "gone"})
        with pytest.raises(ParameterError, match="column: expected a whole number from 0 to 299, got '300'"):
            ask(of_decoder, "pixel", **place | {"column": 300})

    def test_a_long_text_has_no_map_in_words(self, monkeypatch, of_decoder):
        monkeypatch.setattr("softmap.viewer.answers.WORDS_LIMIT", 299)
        for name in ("tile", "pixel"):
            with pytest.raises(SizeError, match="map in words: expected at most 299 tokens a side, got 300"):
                ask(of_decoder, name, layer=0, head=0, zoom=0, row=0, column=0, words=1)

    def test_layers_are_named_by_their_numbers_in_the_model(self, decoder):
        kept = tuple(replace(layer, number=number) for layer, number in zip(decoder.layers, (3, 7), strict=True))
        answers = Answers(replace(decoder, sequences=(replace(decoder.sequences[0], layers=kept),)))
        cell = ask(answers, "pixel", layer=7, head=0, zoom=0, row=9, column=4)
        assert cell["max"] == float(decoder[1, 0][9, 4])
        with pytest.raises(ParameterError, match="layer: expected one of the layers that were kept, 3, 7, got 5"):
            ask(answers, "thumbs", layer=5)

    def test_nobody_waits(self, of_decoder):
        with pytest.raises(CancelledError):
            of_decoder.ask("about", {}, lambda: True)


class TestRows:
    @pytest.mark.parametrize("sinks", ["shown", "hidden", "rescaled"])
    @pytest.mark.parametrize("words", [0, 1])
    @pytest.mark.parametrize("direction", ["gives", "receives"])
    def test_rows_and_columns_of_one_head_and_the_mean_of_several(self, of_decoder, decoder, sinks, words, direction):
        starts, unit = ask(of_decoder, "starts", of="tokens", words=words), 40
        left_out = () if sinks == "shown" else (0, 299)
        dense = {}
        for layer, head in ((0, 1), (0, 2), (1, 1)):
            weights, seen = dense_of(decoder.layers[layer], head, left_out)
            weights = rescale(decoder.layers[layer], head, left_out) if sinks == "rescaled" else weights
            numbers, some = by_words(weights, starts, starts), by_words(seen.astype(float), starts, starts) > 0
            dense[f"{layer}.{head}"] = np.where(some, numbers, np.nan)
        for heads in (["0.1"], ["0.1", "0.2", "1.1"]):
            wanted = np.mean([dense[head] for head in heads], axis=0)
            wanted = wanted[unit] if direction == "gives" else wanted[:, unit]
            found = ask(
                of_decoder, "row", heads=",".join(heads), unit=unit, words=words, direction=direction, sinks=sinks
            )
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)

    def test_received_is_the_sum_of_columns(self, of_decoder, decoder):
        starts = ask(of_decoder, "starts", of="tokens", words=1)
        weights = np.mean([dense_of(decoder.layers[0], head)[0] for head in (1, 2)], axis=0).sum(0)
        np.testing.assert_allclose(ask(of_decoder, "received", heads="0.1,0.2"), weights, rtol=1e-4)
        in_words = ask(of_decoder, "received", heads="0.1,0.2", words=1)
        np.testing.assert_allclose(in_words, np.add.reduceat(weights, starts[:-1]), rtol=1e-4)

    def test_received_without_sinks(self, of_decoder, decoder):
        for sinks in ("hidden", "rescaled"):
            weights, _ = dense_of(decoder.layers[0], 1, (0, 299))
            weights = rescale(decoder.layers[0], 1, (0, 299)) if sinks == "rescaled" else weights
            found = ask(of_decoder, "received", heads="0.1", sinks=sinks)
            assert np.isnan(found[[0, 299]]).all()
            np.testing.assert_allclose(found[1:299], weights.sum(0)[1:299], rtol=1e-4)
        assert of_decoder.takes_long("received", {"sinks": "rescaled"})
        assert not of_decoder.takes_long("received", {"sinks": "hidden"})

    @pytest.mark.parametrize("sinks", ["shown", "hidden", "rescaled"])
    def test_a_word_that_begins_with_a_left_out_key_has_what_its_other_pieces_receive(self, split_character, sinks):
        rows = np.diff(ask(split_character, "starts", of="tokens", words=1))
        matrix = ask(split_character, "matrix", layer=0, words=1, sinks=sinks)[1]
        wanted = np.nansum(matrix * rows[:, None], 0)
        received = ask(split_character, "received", heads="0.1", words=1, sinks=sinks)
        np.testing.assert_allclose(np.nan_to_num(received), wanted, rtol=1e-5)

    def test_columns_take_long_where_no_logsumexp_was_recorded(self, of_decoder):
        without = Answers(make_recording(keep=("qk",)))
        for answers, long in ((of_decoder, False), (without, True)):
            assert answers.takes_long("row", {"direction": "receives"}) is long
            assert not answers.takes_long("row", {"direction": "gives"})
        assert of_decoder.takes_long("row", {"direction": "receives", "sinks": "rescaled"})

    def test_a_sentence_has_its_matrices_in_full(self, of_encoder, encoder):
        starts = ask(of_encoder, "starts", of="tokens", words=1)
        found = ask(of_encoder, "matrix", layer=2, words=1)
        wanted = np.stack([by_words(dense_of(encoder.layers[2], head)[0], starts, starts) for head in range(12)])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)
        hidden = ask(of_encoder, "matrix", layer=2, sinks="hidden")
        assert np.isnan(hidden[:, :, [0, -1]]).all()

    def test_longer_texts_have_not(self, of_decoder):
        with pytest.raises(SizeError, match="matrix: expected at most 64 units a side, of at most 512 tokens, got 300"):
            ask(of_decoder, "matrix", layer=0)

    def test_of_two_texts_each_side_has_its_own(self, of_two_texts):
        assert ask(of_two_texts, "row", heads="2.0", of="target", unit=6).shape == (12,)
        assert ask(of_two_texts, "row", heads="2.0", of="tokens", unit=11, direction="receives").shape == (7,)
        assert ask(of_two_texts, "received", heads="2.0,2.1").shape == (12,)
        with pytest.raises(ParameterError, match="of: expected target, got 'tokens'"):
            ask(of_two_texts, "row", heads="2.0", of="tokens", unit=0)
        with pytest.raises(ParameterError, match="unit: expected a whole number from 0 to 6, got '7'"):
            ask(of_two_texts, "row", heads="2.0", unit=7)
        with pytest.raises(ParameterError, match="heads: expected layers with the same queries and keys"):
            ask(of_two_texts, "row", heads="0.0,2.0", unit=0)
        with pytest.raises(ParameterError, match="head: expected a number from 0 to 3, got 9"):
            ask(of_two_texts, "row", heads="0.9", unit=0)

    def test_what_is_no_text_is_numbered(self, of_numbers):
        assert ask(of_numbers, "row", heads="1.0", unit=19, words=1).shape == (30,)
        at = ask(of_numbers, "pixel", layer=1, head=0, zoom=0, row=4, column=2, words=1)["at"]
        assert (at["query_label"], at["key_context"]) == ("4", ["", "2", ""])


class TestSteps:
    @pytest.mark.parametrize("words", [0, 1])
    def test_numbers_are_those_of_the_cell(self, of_encoder, encoder, words):
        matrix, v = encoder[3, 1], encoder.layers[3].v[1].numpy()
        told = ask(of_encoder, "steps", layer=3, head=1, query=2, key=3, words=words)
        numbers = {section["name"]: section["number"] for section in told["sections"]}
        assert (told["query_label"], told["key_label"], told["title"]) == ("love", "learning", "love → learning")
        assert (told["d_k"], told["scale"]) == (32, pytest.approx(32**-0.5))
        row = matrix[2].numpy()
        brought = row * np.linalg.norm(v, axis=1)
        assert numbers == {
            "scores": float(matrix.scores[2][3]),
            "scaled": float(matrix.scaled[2][3]),
            "weights": float(row[3]),
            "output": pytest.approx(brought[3] / brought.sum(), rel=1e-5),
        }
        assert told["logsumexp"] == pytest.approx(float(matrix.logsumexp()[2]), rel=1e-6)
        assert [each["key"] for each in told["top"][:12]] == np.argsort(-row, kind="stable")[:12].tolist()
        assert sum(each["weight"] for each in told["top"]) + told["rest"]["weight"] == pytest.approx(1, rel=1e-5)
        assert len(told["top"]) + told["rest"]["count"] == len(row)
        assert sum(each["share"] for each in told["top"]) <= 1 + 1e-6

    def test_sentences_are_those_of_explain(self, of_encoder, encoder):
        story = softmap.explain(encoder, layer=3, head=1, row="love", lang="en")
        said = ask(of_encoder, "steps", layer=3, head=1, query=2, key=3, words=1)
        from softmap.narrative import narrate

        sections = {section.name: section for section in narrate(story)}
        for section in said["sections"]:
            own = sections[section["name"]]
            assert section["title"] == own.title
            assert section["sentences"][: len(own.sentences)] == list(own.sentences)
        readings = {section["name"]: section["sentences"][-1] for section in said["sections"]}
        assert readings["weights"].startswith("`love`: 80% `learning` (:3), ")
        assert said["agreement"] == sections["agreement"].sentences[0]

    def test_other_keys_of_a_row_are_told_with_its_sentences(self, of_encoder, encoder):
        first, second = (ask(of_encoder, "steps", layer=3, head=1, query=2, key=key, words=1) for key in (3, 5))
        assert [each["sentences"] for each in first["sections"]] == [each["sentences"] for each in second["sections"]]
        assert second["sections"][0]["number"] == float(encoder[3, 1].scores[2][5])
        other = ask(of_encoder, "steps", layer=3, head=1, query=3, key=5, words=1)
        assert other["sections"][0]["sentences"] != second["sections"][0]["sentences"]

    def test_in_chinese(self, of_encoder):
        told = ask(of_encoder, "steps", layer=3, head=1, query=2, key=3, words=1, lang="zh")
        assert told["sections"][0]["title"].startswith("第一步")

    def test_a_key_that_is_not_seen_has_a_score_alone(self, of_decoder, decoder):
        told = ask(of_decoder, "steps", layer=0, head=1, query=5, key=200)
        assert [section["number"] for section in told["sections"]] == [float(decoder[0, 1].scores[5][200]), None, 0, 0]
        assert [each["key"] for each in told["top"]][-1] == 200
        assert len(told["top"]) + told["rest"]["count"] == 6 + 1
        assert told["added"]["mask"] == "causal(offset=0)"

    def test_of_layers_of_which_no_story_is_told(self, of_two_texts, of_numbers):
        told = ask(of_two_texts, "steps", layer=2, head=0, query=3, key=4)
        assert (told["query_label"], told["key_label"]) == ("it", "word4")
        assert all(section["sentences"] for section in told["sections"])
        assert "not compared" in told["agreement"]
        assert ask(of_numbers, "steps", layer=1, head=0, query=3, key=4)["title"] == "3 → 4"

    def test_without_values_and_with_a_sink(self):
        recording = make_recording(keep=("qk", "summary"), sinks=True, softcap=3.0)
        told = ask(Answers(recording), "steps", layer=0, head=2, query=4, key=1)
        assert told["sections"][3]["number"] is None
        assert told["top"][0]["share"] is None
        assert told["added"]["softcap"] == 3.0
        assert told["added"]["sink"] == pytest.approx(float(recording.layers[0].sinks[2]))
        assert told["logsumexp"] == pytest.approx(float(recording[0, 2].logsumexp()[4]), rel=1e-5)


class TestHostileQuestions:
    def test_unknown_questions_and_parameters_are_refused(self, of_decoder):
        with pytest.raises(ParameterError, match=r"question: expected one of about, units, .* got 'ask'"):
            ask(of_decoder, "ask")
        with pytest.raises(ParameterError, match="parameters: expected none, got 'x'"):
            ask(of_decoder, "about", x=1)
        with pytest.raises(ParameterError, match="parameters: expected none but layer, got 'head'"):
            ask(of_decoder, "thumbs", layer=1, head=1)
        with pytest.raises(ParameterError, match=r"layer: expected a value, got none\. Say which: layer=…"):
            ask(of_decoder, "thumbs")

    @settings(max_examples=300, deadline=None)
    @given(data=st.data(), name=st.sampled_from([*QUESTIONS, "__init__", "ask", ""]))
    def test_any_text_is_answered_or_refused_in_words(self, of_decoder, data, name):
        _, known = QUESTIONS.get(name, (None, ("layer",)))
        value = st.one_of(
            st.text(max_size=12),
            st.integers(-2, 320).map(str),
            st.sampled_from(
                ["0.1", "1.3,0.0", "tokens", "max", "hidden", "rescaled", "receives", "zh", "1e3", "٣", "0x1"]
            ),
        )
        params = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(known, value)))
        try:
            answer = of_decoder.ask(name, params)
        except SoftmapError as error:
            refused = error
        else:
            assert isinstance(answer, Numbers) or json.dumps(answer, allow_nan=False)
            return
        assert len(str(refused)) < 1000
        assert all((refused.subject, refused.expected, refused.got, refused.hint))


def test_a_long_text_is_described_without_its_matrix():
    """131,072 tokens: what a page asks for first takes work and memory in their number alone."""
    recording, count = make_recording(layers=1), 131_072
    q, k = torch.randn(2, 4, count, 5, generator=torch.Generator().manual_seed(0))
    of = {"shape": (4, count, count), "q": q, "k": k, "v": None, "summary": None, "logsumexp": None, "largest": (6, 6)}
    sequence = RecordedSequence((replace(recording.layers[0], **of),), make_pieces(count))
    answers = Answers(replace(recording, sequences=(sequence,)))
    words = ask(answers, "about")["texts"]["tokens"]["words"]
    assert words == ask(answers, "starts", of="tokens", words=1).size - 1
    assert len(ask(answers, "units", of="tokens", words=1, start=words - 2000, stop=words)["labels"]) == 2000
    row = ask(answers, "row", heads="0.0", unit=131_000)
    assert np.nansum(row) == pytest.approx(1, rel=1e-5)
    assert np.isnan(row[131_001:]).all()
