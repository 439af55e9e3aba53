from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import softmap
from softmap.narrative import narrate


@pytest.fixture(scope="module")
def schema():
    schema = json.loads(files("softmap").joinpath("data").joinpath("story.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture(scope="module")
def story(bundled):
    return softmap.explain("The embeddings disagreed.", bundled, lang="en")


def test_every_kind_of_story_follows_the_schema(schema, story, bundled):
    causal = replace(story, source=None, steps=softmap.self_attention(*softmap.example(), causal=True))
    causal = replace(softmap.explain(softmap.example()), steps=causal.steps)
    chosen = softmap.explain("attention", bundled, layer=0, head=0, words=False, lang="zh")
    for told in (story, chosen, softmap.explain(softmap.example()), causal):
        schema.validate(json.loads(told.json()))


@pytest.mark.parametrize(
    ("architecture", "changes", "added"),
    [
        ("llama", {}, {"mask": "causal(offset=0)"}),
        ("t5", {"d_kv": 8, "d_ff": 64}, {"bias": "relative(4 heads, 21 distances, offset=0)"}),
        ("gpt_oss", {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}, None),
        ("bart", {"encoder_layers": 2, "decoder_layers": 1}, {}),
    ],
)
def test_story_of_any_model_follows_the_schema(schema, make_model, architecture, changes, added):
    story = softmap.explain("The unbelievable cat sat on it.", make_model(architecture, **changes), lang="en")
    data = json.loads(story.json())
    schema.validate(data)
    nothing = dict.fromkeys(("softcap", "bias", "mask", "sink"))
    assert data["added"] == nothing | (
        added if added is not None else {"mask": "causal(offset=0)", "sink": story.added.sink}
    )
    assert len(data["source"]["shares"]["to_others"]) == len(data["source"]["told"])


def test_story_of_a_recording_follows_the_schema(schema, bundled):
    rec = softmap.record("The embeddings disagreed.", bundled, layers=[1, 4], keep_values=False)
    data = json.loads(softmap.explain(rec, lang="en").json())
    schema.validate(data)
    assert (data["steps"]["x"], data["steps"]["v"], data["by_word"]["norms"]) == (None, None, None)
    assert data["source"]["told"] == [1, 4]
    assert data["source"]["layer"] in (1, 4)
    assert data["source"]["compared"] is None


def test_schema_refuses_a_name_it_does_not_know(schema, story):
    data = json.loads(story.json())
    data["steps"]["logits"] = data["steps"].pop("scores")
    assert not schema.is_valid(data)


def test_numbers_come_back_to_the_last_bit(story):
    data = json.loads(story.json())
    for name in ("x", "q", "k", "v", "scores", "scaled", "weights", "output"):
        stage = getattr(story.steps, name)
        np.testing.assert_array_equal(np.array(data["steps"][name], dtype=stage.dtype), stage)
    np.testing.assert_array_equal(np.array(data["by_word"]["weights"]), story.weights)


def test_masked_scores_are_null():
    story = softmap.explain(softmap.example())
    story = replace(story, steps=softmap.self_attention(*softmap.example(), causal=True))
    assert json.loads(story.json())["steps"]["scaled"][0][1:] == [None, None]


def test_sentences_are_the_ones_that_are_printed(story):
    sections = json.loads(story.json())["sections"]
    assert [s["sentences"] for s in sections] == [list(section.sentences) for section in narrate(story)]


def test_text_keeps_its_characters(bundled):
    text = '我爱 <b>"learning"</b> \\ 🤖'
    data = json.loads(softmap.explain(text, bundled, layer=0, head=0).json())
    assert data["text"] == text
