"""Stories of numbers that come with no model: the worked example, and steps of one's own."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import array_api_strict
import jsonschema
import numpy as np
import pytest
import torch

import softmap
from softmap.errors import ParameterError, RowError, TextError

WORDS = ["the", "New York", "cat"]


def own(causal=False, **options):
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 3, 4))
    return softmap.explain(softmap.Steps.from_qkv(q, k, v, causal=causal), tokens=WORDS, lang="en", **options)


def test_steps_of_ones_own_are_told_word_by_word():
    story = own(row="New York")
    assert story.text == "the New York cat"
    assert story.row == 1
    np.testing.assert_array_equal(story.weights, story.steps.weights)
    told = str(story)
    assert "Given numbers, no model's, with d_k = 4." in told
    assert "z(`New York`) = " in told
    assert "from those that were given" in told
    assert "x W_q" not in told  # how q came about was not given
    assert "worked example" not in told
    assert "numbers of your own" in repr(story)


def test_a_causal_mask_is_told():
    assert "each token sees itself and the tokens before it" in str(own(causal=True))
    assert "+ mask" not in str(own())


def test_steps_from_scores_alone_are_told_as_far_as_they_go():
    scores = np.array([[110.0, 90.0], [70.0, 99.0]])
    told = str(softmap.explain(softmap.Steps.from_scores(scores, d_k=64), tokens=["a", "b"], lang="en"))
    assert "What came before the scores was not given." in told
    assert "There are no values v here" in told
    steps = softmap.Steps.from_scores(scores, d_k=64, v=np.eye(2))
    assert "was not given; each token's value" in str(softmap.explain(steps, tokens=["a", "b"], lang="en"))
    assert "`a`: 92% itself, 8% `b`." in told


def test_steps_in_torch_are_told_like_those_in_numpy():
    arrays = [torch.tensor(array, requires_grad=True) for array in softmap.example()]
    one = softmap.explain(softmap.self_attention(*arrays), tokens=["a", "b", "c"], lang="en")
    other = softmap.explain(softmap.self_attention(*softmap.example()), tokens=["a", "b", "c"], lang="en")
    assert isinstance(one.steps.output, np.ndarray)
    assert str(one) == str(other)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_such_a_story_is_written_as_every_kind_of_file(tmp_path, lang):
    story = softmap.explain(softmap.self_attention(*softmap.example()), tokens=["a", "b", "a"], row=":2", lang=lang)
    for ending in ("html", "svg", "json", "txt") if lang == "en" else ("html", "json", "txt"):  # fonts
        story.save(tmp_path / f"story.{ending}")
    data = json.loads((tmp_path / "story.json").read_text(encoding="utf-8"))
    schema = json.loads(files("softmap").joinpath("data/story.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(data, schema)
    assert (data["source"], data["row"]) == (None, 2)
    assert data["steps"]["scores"][0] == [110, 90, 83]
    assert "(:2)" in (tmp_path / "story.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("tokens", [None, 5, ["a", "b"], ["a", "b", "c", "d"], "abc", ["a", "b", 3], ["a", "", "c"]])
def test_words_that_do_not_fit_are_refused(tokens):
    with pytest.raises(ParameterError, match="tokens: expected 3 words, one for each row, got") as caught:
        softmap.explain(softmap.self_attention(*softmap.example()), tokens=tokens)
    assert repr(tokens) in str(caught.value)


def test_queries_that_are_not_the_keys_are_refused():
    steps = softmap.Steps.from_scores(np.ones((2, 3)), d_k=4)
    with pytest.raises(ParameterError, match="expected as many queries as keys, at most 512, got 2 and 3"):
        softmap.explain(steps, tokens=["a", "b"])


def matrix(**options):
    q, k = torch.randn((2, 2, 4, 8), generator=torch.Generator().manual_seed(0))
    return softmap.AttentionMatrix(q, k, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"softcap": 1.0},
        {"sinks": torch.ones(2)},
        {"bias": softmap.biases.alibi([0.5, 0.25])},
        {"mask": softmap.masks.sliding_window(2)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_more_than_the_four_steps_is_not_told_as_them(options):
    steps = matrix(**options)[0].steps()
    with pytest.raises(ParameterError, match=r"as of a soft cap.*softmap\.explain\(recording, layer="):
        softmap.explain(steps, tokens=["a", "b", "c", "d"])


def test_a_part_of_a_matrix_is_not_told_as_the_whole():
    with pytest.raises(ParameterError, match="or a part"):
        softmap.explain(matrix()[0].steps(rows=slice(1, 3), keys=slice(0, 2)), tokens=["a", "b"])


def test_a_whole_matrix_of_the_four_steps_is_told():
    story = softmap.explain(matrix(mask=softmap.masks.causal())[1].steps(), tokens=["a", "b", "c", "d"], lang="en")
    assert "+ mask" in str(story)


def test_steps_of_any_array_library_are_told():
    arrays = [array_api_strict.asarray(array) for array in softmap.example()]
    story = softmap.explain(softmap.self_attention(*arrays), tokens=(word for word in "abc"), lang="en")
    np.testing.assert_array_equal(story.steps.scores, softmap.self_attention(*softmap.example()).scores)


def test_options_of_models_are_refused_with_steps():
    with pytest.raises(ParameterError, match="got layer and words"):
        own(layer=0, words=False)
    with pytest.raises(ParameterError, match="got tokens"):
        softmap.explain("I love learning", tokens=["I", "love", "learning"])
    with pytest.raises(RowError, match="'dog'"):
        own(row="dog")
    with pytest.raises(TextError, match="steps"):
        softmap.explain(np.ones((3, 3)))


@pytest.mark.parametrize("changed", [{"x": np.ones((4, 4))}, {"w_v": np.zeros((4, 64))}])
def test_other_numbers_are_not_told_as_the_worked_example(changed):
    with pytest.raises(ParameterError, match=r"softmap\.explain\(softmap\.self_attention\(.*tokens="):
        softmap.explain(softmap.example()._replace(**changed))


@pytest.mark.parametrize(
    "changed", [{"weights": np.ones((3, 3)) / 3}, {"output": np.zeros((3, 64))}, {"q": np.ones((3, 64))}]
)
def test_stages_that_do_not_follow_from_each_other_are_not_told(changed):
    steps = replace(softmap.self_attention(*softmap.example()), **changed)
    with pytest.raises(ParameterError, match="expected the four steps alone"):
        softmap.explain(steps, tokens=["a", "b", "c"])
