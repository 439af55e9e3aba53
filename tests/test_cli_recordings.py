"""The commands that make recordings and look at them."""

from __future__ import annotations

import io
import json
import sys

import pytest
import torch
from click.testing import CliRunner

import softmap
from softmap.cli import main
from softmap.commands.common import progress
from softmap.recorded.writer import Writer

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


class Terminal(io.StringIO):
    """A stderr on which progress is shown."""

    def isatty(self):
        return True


@pytest.fixture(scope="module")
def two_texts(tmp_path_factory, make_model):
    """A recording of an encoder-decoder; its decoder read the token before each of the encoder's, after [SEP]."""
    path = tmp_path_factory.mktemp("recordings") / "bart.softmap"
    loaded = make_model("bart", encoder_layers=2, decoder_layers=1, decoder_start_token_id=2)
    ids = loaded.tokenizer("the cat sat", return_tensors="pt").input_ids
    target = loaded.tokenizer("i love learning", return_tensors="pt").input_ids
    softmap.record({"input_ids": ids, "decoder_input_ids": target}, loaded).save(path)
    return path


@pytest.fixture(scope="module")
def batch(tmp_path_factory, bundled):
    """A recording of two sequences."""
    path = tmp_path_factory.mktemp("recordings") / "batch.softmap"
    softmap.record(torch.tensor([[101, 1045, 102], [101, 2293, 102]]), bundled).save(path)
    return path


@pytest.mark.parametrize(
    ("place", "words"), [("taken", ("a name that is not taken",)), ("no/run", ("to be a folder", "mkdir -p"))]
)
def test_place_for_a_recording_is_checked_before_the_model_is_loaded(tmp_path, monkeypatch, place, words):
    def load(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("softmap.models.load", load)
    (tmp_path / "taken").mkdir()
    result = run("record", TEXT, "-o", tmp_path / place)
    assert result.exit_code == 1
    assert "failed" not in result.output
    assert all(word in result.output for word in (*words, str(tmp_path / place)))


def test_float64_is_kept_where_it_is_asked_for(tmp_path):
    result = run("record", "I love", "-o", tmp_path / "a", "--dtype", "float64", "--layers", "0")
    assert result.exit_code == 0, result.output
    assert softmap.load(tmp_path / "a").layers[0].q.dtype == torch.float64


def test_text_that_is_cut_is_said_to_be(tmp_path):
    result = run("record", "word " * 600, "-o", tmp_path / "a", "--truncate", "--layers", "0", "--no-values")
    assert result.exit_code == 0, result.output
    cut = softmap.load(tmp_path / "a").tokens.cut
    assert cut > 0
    assert f"tokens ({cut} more were cut off)" in result.stdout
    assert f"tokens ({cut} more were cut off): word word" in run("info", tmp_path / "a").stdout
    assert json.loads(run("info", tmp_path / "a", "--json").stdout)["cut"] == [cut]


def test_text_that_is_whole_is_not_said_to_be_cut(folder):
    assert "cut off" not in run("info", folder).stdout
    assert json.loads(run("info", folder, "--json").stdout)["cut"] == [0]


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


def test_progress_is_shown_on_a_terminal(folder, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    main(["heads", str(folder)], standalone_mode=False)
    assert "measuring layers" in sys.stderr.getvalue()
    assert "6/6" in sys.stderr.getvalue()
    assert "previous token" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ({"doing": "writing [bold]a.html", "part": "layer 3"}, "writing [bold]a.html: layer 3"),
        ({"doing": "measuring", "done": 2, "total": 6}, "2/6"),
    ],
)
def test_progress_on_a_terminal_says_what_is_being_done_as_it_is_named(monkeypatch, shown, said):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress() as show:
        show("before")
        show(**shown)
    assert said in sys.stderr.getvalue()


def test_stages_are_lines_where_stderr_is_no_terminal(folder, tmp_path):
    assert run("heads", folder, "--json").stderr == "measuring layers\n"
    result = run("record", TEXT, "-o", tmp_path / "a", "--layers", "0", "--json")
    assert result.stderr.splitlines() == ["loading the model", "recording"]
    assert json.loads(result.stdout)["path"] == str(tmp_path / "a")


def test_top_of_two_texts_tells_whose_word_it_is(two_texts):
    result = run("top", two_texts, "--row", "cat", "-k", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("cat (read by the encoder) looks at\n")
    result = run("top", two_texts, "--row", ":2", "--layer", 3, "--head", 0)
    assert result.stdout.startswith("love (:2) (read by the decoder) looks at, in layer 3, head 0\n")
    data = json.loads(run("top", two_texts, "--row", "love", "--json").stdout)
    assert data["text"] == "target"
    assert {each["layer"] for each in data["top"]} == {2, 3}


def test_top_of_two_texts_asks_for_the_layer_of_a_number(two_texts):
    result = run("top", two_texts, "--row", ":0")
    assert result.exit_code == 1
    assert "name a layer, layer=0 (--layer 0)" in result.output


def test_top_of_one_text_does_not_say_who_read_it(folder):
    assert "read by" not in run("top", folder, "--row", "love").stdout
    assert json.loads(run("top", folder, "--row", "love", "--json").stdout)["text"] == "tokens"


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


def test_number_of_a_word_is_the_one_that_row_takes(tmp_path):
    softmap.record("unbelievability and learning loves learning").save(tmp_path / "a")
    rec = softmap.load(tmp_path / "a")
    first, second = (i for i, piece in enumerate(rec.tokens.pieces) if piece == "learning")
    assert len(rec.words()) < len(rec.tokens)
    stdout = run("top", tmp_path / "a", "--row", "loves", "--layer", 3, "--head", 1).stdout
    assert f"learning :{first}" in stdout
    assert f"learning :{second}" in stdout
    assert f"learning (:{second}) looks at" in run("top", tmp_path / "a", "--row", f":{second}", "--layer", 3).stdout
    explained = ("explain", "--recording", tmp_path / "a", "--layer", 3, "--head", 1, "--lang", "en", "--row")
    assert f"Give its token's number: :{first} or :{second}." in run(*explained, "learning").output
    assert f"`learning` (:{second})" in run(*explained, f":{second}").stdout
    data = json.loads(run("top", tmp_path / "a", "--row", "loves", "--layer", 3, "--head", 1, "--json").stdout)
    assert {first, second} <= {each["key"] for each in data["top"]}


def test_a_word_that_occurs_again_where_it_is_not_looked_at_is_told_with_its_number(folder):
    stdout = run("top", folder, "--row", "love", "--layer", 3, "--head", 1, "-k", 1).stdout
    assert "learning :3" in stdout


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
    assert result.stdout.endswith("All files that it lists are as they were written.\n")
    assert "All files that it lists" not in run("info", folder).stdout
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


def test_sequence_of_a_batch_is_explained(batch):
    result = run("explain", "--recording", batch, "--batch", 1, "--layer", 3, "--head", 1, "--lang", "en")
    assert result.exit_code == 0, result.output
    assert "love" in result.stdout
    refused = run("explain", "--recording", batch)
    assert refused.exit_code == 1
    assert "--batch: expected a number from 0 to 1, got none" in refused.output
    assert '0 is "i" and 1 is "love". Take one, as in --batch 0.' in refused.output


def test_recording_that_was_cut_off_is_opened_to_be_explained_where_that_is_asked_for(tmp_path, folder):
    with Writer(tmp_path / "cut") as writer:
        writer.add([softmap.load(folder).layers[0]])
    assert "a recording that was finished" in run("explain", "--recording", tmp_path / "cut").output
    result = run("explain", "--recording", tmp_path / "cut", "--partial")
    assert result.exit_code == 1
    assert "A text is written last, and this recording was cut off" in result.output


@pytest.mark.parametrize("option", [("--batch", 0), ("--partial",)])
def test_options_of_a_recording_without_one_are_a_usage_error(option):
    result = run("explain", TEXT, *option)
    assert result.exit_code == 2
    assert "--recording" in result.output


@pytest.mark.parametrize("command", [("heads",), ("top", "--row", "a"), ("info",), ("explain", "--recording")])
def test_what_is_no_recording_is_refused(folder, tmp_path, command):
    said = {
        tmp_path / "nothing": "got nothing of that name. Check the name.",
        tmp_path: "got a folder without a manifest.json. Give the folder that softmap record wrote.",
        folder.parent: f"Recordings in it: {folder}.",
        folder.with_name("rum.softmap"): f"Did you mean {folder}?",
        folder / "manifest.json": "give the folder, not a file in it",
        "a text": "softmap record 'a text' --output run.softmap",
    }
    for place, hint in said.items():
        result = run(*command, place)
        assert result.exit_code == 1
        assert hint in result.output
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


@pytest.mark.parametrize("text", ["./nofile.txt", "nofile.md", "nofile.xtt", "folder/nofile", "."])
def test_name_of_no_file_is_not_taken_for_a_text(tmp_path, text):
    result = run("record", text, "-o", tmp_path / "a")
    assert result.exit_code == 1
    assert "standard input" in result.output


def test_recording_that_is_explained_as_a_text_is_a_usage_error(folder):
    result = run("explain", folder)
    assert result.exit_code == 2
    assert "--recording" in result.output
