"""The commands that make recordings and look at them."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

import softmap
from softmap.cli import main

TEXT = "I love learning, and learning loves me."


def run(*arguments, **options):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recording of a sentence by the bundled model, made by the command."""
    path = tmp_path_factory.mktemp("recordings") / "run.softmap"
    result = run("record", TEXT, "-o", path)
    assert result.exit_code == 0, result.output
    assert "6 layers, 11 tokens" in result.stdout
    return path


def test_recording_made_by_the_command_is_the_one_made_in_python(folder):
    opened, made = softmap.load(folder), softmap.record(TEXT)
    for one, other in zip(opened.layers, made.layers, strict=True):
        assert torch.equal(one.q, other.q)
    assert opened.tokens == made.tokens


def test_text_comes_from_a_file_or_standard_input(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("我爱学习", encoding="utf-8")
    assert run("record", file, "-o", tmp_path / "a").exit_code == 0
    assert run("record", "-", "-o", tmp_path / "b", input="我爱学习".encode()).exit_code == 0
    assert softmap.load(tmp_path / "a").tokens.text == softmap.load(tmp_path / "b").tokens.text == "我爱学习"


def test_what_is_kept_is_chosen(tmp_path):
    chosen = "--layers", "0,3-4", "--dtype", "float16", "--no-values", "--top", "2", "--cells", "0"
    result = run("record", TEXT, "-o", tmp_path / "a", *chosen, "--json")
    assert result.exit_code == 0, result.output
    rec = softmap.load(tmp_path / "a")
    assert [layer.number for layer in rec.layers] == [0, 3, 4]
    assert rec.layers[0].q.dtype == torch.float16
    assert rec.layers[0].v is None
    assert rec.layers[0].summary.top.weights.shape[-1] == 2
    assert json.loads(result.stdout)["origin"]["stored"] == "float16"
    assert run("record", TEXT, "-o", tmp_path / "b", "--statistics-only").exit_code == 0
    assert softmap.load(tmp_path / "b").layers[0].q is None


def test_place_that_is_taken_is_refused_before_the_model_runs(folder):
    result = run("record", TEXT, "-o", folder)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert str(folder) in result.output


@pytest.mark.parametrize("layers", ["", "x", "1-", "1;2"])
def test_layers_that_are_no_list_are_a_usage_error(tmp_path, layers):
    result = run("record", TEXT, "-o", tmp_path / "a", "--layers", layers)
    assert result.exit_code == 2
    assert "0,5,10-12" in result.output


def test_heads_are_told_as_a_map_and_as_json(folder):
    result = run("heads", folder)
    assert result.exit_code == 0, result.output
    assert "previous token" in result.stdout
    rows = json.loads(run("heads", folder, "--json").stdout)
    assert rows == json.loads(softmap.heads(softmap.load(folder)).json())


def test_top_tells_what_a_word_looks_at(folder):
    result = run("top", folder, "--row", "love", "--layer", 3, "--head", 1, "-k", 3)
    assert result.exit_code == 0, result.output
    expected = softmap.load(folder).top("love", 3, 3, 1)
    assert expected[0].label == "learning"
    assert "learning" in result.stdout.splitlines()[2]
    data = json.loads(run("top", folder, "--row", "love", "--layer", 3, "--head", 1, "-k", 3, "--json").stdout)
    assert [each["label"] for each in data["top"]] == [each.label for each in expected]


def test_top_without_a_head_tells_all_of_them(folder):
    lines = [line for line in run("top", folder, "--row", ":2", "-k", 2).stdout.splitlines() if "%" in line]
    assert len(lines) == 72


def test_words_that_read_the_same_are_told_with_their_number(folder):
    stdout = run("top", folder, "--row", "love", "--layer", 3, "--head", 1).stdout
    assert "learning :3" in stdout
    assert "learning :6" in stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--row", "learning"), "occurs 2 times"),
        (("--row", "nothing"), "neither"),
        (("--row", "love", "--layer", 9), "from 0 to 5"),
        (("--row", "love", "--layer", 0, "--head", 12), "from 0 to 11"),
        (("--row", "love", "--batch", 1), "from 0 to 0"),
    ],
)
def test_what_a_recording_has_not_is_told_in_one_message(folder, arguments, words):
    result = run("top", folder, *arguments)
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_info_tells_what_a_recording_holds(folder):
    result = run("info", folder, "--verify")
    assert result.exit_code == 0, result.output
    for words in ("all-MiniLM-L6-v2", "11 tokens: I love learning", "encoder self", "11 x 11", "q, k, v, statistics"):
        assert words in result.stdout
    data = json.loads(run("info", folder, "--json").stdout)
    assert data["lines"][0]["heads"] == 12
    assert data["origin"]["model"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_head_of_a_recording_is_explained(folder):
    result = run("explain", "--recording", folder, "--layer", 3, "--head", 1, "--row", "love", "--lang", "en")
    assert result.exit_code == 0, result.output
    assert "Step 3" in result.stdout
    assert run("explain", TEXT, "--recording", folder).exit_code == 2


@pytest.mark.parametrize("command", ["heads", "top", "info"])
def test_what_is_no_recording_is_refused(tmp_path, command):
    arguments = ("--row", "a") if command == "top" else ()
    result = run(command, tmp_path / "nothing", *arguments)
    assert result.exit_code == 1
    assert "nothing" in result.output
    assert "Traceback" not in result.output


def test_traceback_is_shown_to_who_asks_for_it(tmp_path):
    result = run("--debug", "info", tmp_path / "nothing")
    assert isinstance(result.exception, softmap.SoftmapError)


def test_failure_of_our_own_is_one_message_and_exit_code_1(folder, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("softmap.roles.heads", fail)
    result = run("heads", folder)
    assert result.exit_code == 1
    assert "ZeroDivisionError: a fault" in result.output
    assert "--debug" in result.output
