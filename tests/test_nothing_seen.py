"""Layers in which no query sees a key: told, drawn and answered like any other."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from recorded.builders import ORIGIN, make_layer, make_tokens

import softmap
from softmap import masks
from softmap.cli import main
from softmap.recorded import RecordedSequence, Recording
from softmap.viewer.answers import Answers
from softmap.viewer.export import export_html


def make(count, *seen, **options):
    of = {"queries": count, "queries_of": "tokens", "keys_of": "tokens"} | options
    layers = tuple(make_layer(n, number=n, mask=mask, **of) for n, mask in enumerate(seen))
    return Recording(ORIGIN, (RecordedSequence(layers, make_tokens(count)),))


def nothing(count):
    return masks.dense(torch.zeros(count, count, dtype=torch.bool))


@pytest.mark.parametrize(("count", "language"), [(2, "zh"), (9, "en"), (40, "en")])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.filterwarnings("ignore:No font is installed")
def test_story_of_a_layer_in_which_nothing_is_seen_says_so(tmp_path, count, language, sinks):
    story = softmap.explain(make(count, nothing(count), sinks=sinks), lang=language)
    word = f"`{story.words[story.row].label}`"
    said = f"{word} may see no key." if language == "en" else f"{word} 看不到任何键。"
    assert said in " ".join(str(story).split())
    assert not story.weights.any()
    story.html()
    assert json.loads(story.json())["by_word"]["weights"][0] == [0.0] * len(story.words)
    story.save(tmp_path / "story.svg")


def test_layer_in_which_nothing_is_seen_beside_another(tmp_path):
    rec = make(9, nothing(9), masks.causal())
    assert softmap.explain(rec, lang="en").source.layer == 1
    assert "Step 3" in str(softmap.explain(rec, layer=0, head=1, lang="en"))
    assert {each.layer for each in rec.top(3)} == {1}


@pytest.mark.parametrize("count", [9, 600])
def test_commands_and_answers_about_it(tmp_path, count):
    rec, folder = make(count, nothing(count)), tmp_path / "run.softmap"
    rec.save(folder)
    for command in (
        ["top", folder, "--row", ":1"],
        ["top", folder, "--row", ":1", "--json"],
        ["heads", folder],
        ["explain", "--recording", folder, "--layer", "0", "--head", "0"],
    ):
        result = CliRunner().invoke(main, [str(part) for part in command])
        assert result.exit_code == 0, result.output
    shown = CliRunner().invoke(main, ["top", str(folder), "--row", ":1"]).stdout
    assert shown == "word1 (:1) looks at nothing: it may see no key\n"
    answers = Answers(rec)
    for question, params in (
        ("thumbs", {"layer": "0"}),
        ("row", {"heads": "0.0", "unit": "0", "words": "1", "direction": "gives"}),
        ("steps", {"layer": "0", "head": "0", "query": "0", "key": "0", "words": "0", "lang": "en"}),
    ):
        answers.ask(question, params)
    assert export_html(rec, tmp_path / "map.html") > 0
