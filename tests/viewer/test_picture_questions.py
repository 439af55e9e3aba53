"""The answers about pictures: where patches stand in a layer, and how the pictures look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from recorded.builders import ORIGIN, make_layer, make_picture, make_tokens

from softmap import masks
from softmap.errors import ParameterError, RecordingError
from softmap.recorded import RecordedSequence, Recording
from softmap.viewer.answers import Answers


def make_seen():
    """A tower of two pictures, a text with them in it, and a layer of the text that looks at the tower."""
    text = {"queries_of": "tokens", "keys_of": "tokens"}
    layers = (
        make_layer(0, number=0, path="tower.0", queries=15, mask=masks.full()),
        make_layer(1, number=1, path="text.1", queries=9, **text),
        make_layer(2, number=2, path="tower.2", queries=9, keys=15, mask=masks.full(), queries_of="tokens"),
        make_layer(3, number=3, path="sound.3", queries=20, mask=masks.full()),
    )
    first, second = make_picture(15, path="tower"), make_picture(15, path="tower", first=8, seed=1)
    in_text = make_picture(of="tokens", grid=(1, 3), first=4).places
    first = replace(first, places=(*first.places, *in_text))
    return Recording(ORIGIN, (RecordedSequence(layers, make_tokens(9), None, (first, second)),))


@pytest.fixture(scope="module")
def seen():
    return make_seen()


@pytest.fixture(scope="module")
def answers(seen):
    return Answers(seen)


def test_layers_with_pictures_are_told_at_the_beginning(answers):
    assert answers.ask("about", {})["pictures"] == [0, 1, 2]


def test_patches_of_a_tower_are_queries_and_keys(answers):
    found = answers.ask("pictures", {"layer": "0"})["pictures"]
    assert [(each["index"], each["side"], each["first"], each["grid"]) for each in found] == [
        (0, "both", 1, [2, 3]),
        (1, "both", 8, [2, 3]),
    ]
    assert found[1]["tokens"] == [8, 9, 10, 11, 12, 13]
    assert [(each["width"], each["height"], each["stretched"]) for each in found] == [(12, 8, False), (12, 8, True)]


def test_patches_in_a_text_have_a_grid_of_their_own(answers):
    (found,) = answers.ask("pictures", {"layer": "1"})["pictures"]
    assert (found["index"], found["side"], found["grid"], found["tokens"]) == (0, "both", [1, 3], [4, 5, 6])


def test_patches_that_a_text_looks_at_are_keys_alone(answers):
    found = answers.ask("pictures", {"layer": "2"})["pictures"]
    assert {(each["index"], each["side"], each["first"]) for each in found} >= {(0, "keys", 1), (1, "keys", 8)}


def test_layer_that_sees_none_has_none(answers):
    assert answers.ask("pictures", {"layer": "3"}) == {"pictures": []}


@pytest.mark.parametrize("index", [0, 1])
def test_pixels_are_red_green_and_blue_in_one_number(answers, seen, index):
    array = answers.ask("pixels", {"index": str(index)}).array
    assert (array.dtype, array.shape) == (np.dtype("<i4"), (8, 12))
    colours = torch.from_numpy(np.stack([array >> 16, array >> 8 & 255, array & 255], -1).astype(np.uint8))
    assert torch.equal(colours, seen.pictures[index].pixels)


def test_picture_that_there_is_not_is_refused(answers):
    with pytest.raises(ParameterError, match="index: expected a whole number from 0 to 1, got '2'"):
        answers.ask("pixels", {"index": "2"})
    without = Recording(ORIGIN, (replace(make_seen().sequences[0], pictures=()),))
    with pytest.raises(RecordingError, match="expected pictures, got none"):
        Answers(without).ask("pixels", {"index": "0"})
    assert Answers(without).ask("about", {})["pictures"] == []
