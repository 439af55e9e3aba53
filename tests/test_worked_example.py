"""The worked example: every claim of the text it comes from holds in numbers that can be computed."""

from __future__ import annotations

import json
import math
import runpy
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import softmap

WEIGHTS = ("w_q", "w_k", "w_v")


@pytest.fixture(scope="module")
def steps():
    return softmap.self_attention(*softmap.example())


# The text's claims


def test_the_sentence_has_three_words():
    assert softmap.example().tokens == ("I", "love", "learning")


def test_q_k_and_v_are_computed_from_one_embedding_a_word_with_three_weight_matrices(steps):
    example = softmap.example()
    assert example.x.shape == (3, 4)
    for stage, weight in zip("qkv", WEIGHTS, strict=True):
        assert (getattr(steps, stage) == example.x @ getattr(example, weight)).all()


def test_query_of_i_is_most_similar_to_the_key_of_i(steps):
    q1, (k1, k2, k3) = steps.q[0], steps.k
    assert q1 @ k1 > q1 @ k2 > q1 @ k3


@pytest.mark.parametrize("row", [0, 1, 2])
def test_each_word_is_most_related_to_itself(steps, row):
    others = np.delete(steps.weights[row], row)
    assert steps.scores[row].argmax() == row
    assert steps.weights[row, row] > others.max()


def test_scores_are_divided_by_eight(steps):
    assert (steps.d_k, math.sqrt(steps.d_k)) == (64, 8)
    assert (steps.scaled == steps.scores / 8).all()


def test_i_is_related_90_percent_to_itself_7_to_love_and_3_to_learning(steps):
    assert (100 * steps.weights[0]).round().tolist() == [90, 7, 3]


def test_weights_lie_between_0_and_1_and_each_row_sums_to_one(steps):
    assert ((steps.weights > 0) & (steps.weights < 1)).all()
    np.testing.assert_allclose(steps.weights.sum(axis=1), 1, rtol=0, atol=1e-15)


def test_whole_percents_of_each_row_sum_to_100(steps):
    assert (100 * steps.weights).round().sum(axis=1).tolist() == [100, 100, 100]


def test_output_of_i_is_the_values_weighted_by_its_row(steps):
    v1, v2, v3 = steps.v
    rounding = 3 * 0.005 * np.abs(steps.v).max()  # of three weights, to whole percents
    np.testing.assert_allclose(steps.output[0], 0.90 * v1 + 0.07 * v2 + 0.03 * v3, rtol=0, atol=rounding)


# Small enough to check by hand


def test_embeddings_are_zeros_and_ones():
    assert set(softmap.example().x.flat) == {0, 1}


@pytest.mark.parametrize("name", WEIGHTS)
def test_learned_weights_are_whole_numbers_from_minus_3_to_3(name):
    weight = getattr(softmap.example(), name)
    assert weight.shape == (4, 64)
    assert set(weight.flat) <= {-3, -2, -1, 0, 1, 2, 3}


def test_scores_are_whole_numbers(steps):
    assert steps.scores.tolist() == [[110, 90, 83], [75, 99, 69], [88, 80, 100]]


# The same, always


def test_example_is_in_float64():
    assert {array.dtype for array in softmap.example()} == {np.dtype(np.float64)}


def test_every_call_gives_the_same_numbers():
    for one, other in zip(softmap.example(), softmap.example(), strict=True):
        assert (one == other).all()


def test_changing_an_example_does_not_change_the_next():
    changed, untouched = softmap.example(), softmap.example()
    for array in changed:
        array[...] = 9
    for array, before in zip(softmap.example(), untouched, strict=True):
        assert (array == before).all()


def test_shipped_numbers_are_those_the_script_makes():
    script = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "make_example.py"))
    shipped = files("softmap").joinpath("data", "example.json").read_text(encoding="utf-8")
    assert script["as_text"](script["make_example"]()) == shipped
    assert json.loads(shipped)["tokens"] == ["I", "love", "learning"]
