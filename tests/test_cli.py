from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from softmap.cli import main


def softmap(*arguments, **options):
    return CliRunner().invoke(main, ["explain", *arguments], **options)


def test_example_says_90_7_and_3_percent():
    result = softmap("--example", "--lang", "en")
    assert result.exit_code == 0
    assert "`I`: 90% itself, 7% `love`, 3% `learning`." in result.stdout


def test_sentence_is_explained_on_the_bundled_model():
    result = softmap("I love learning", "--lang", "en")
    assert result.exit_code == 0
    for words in (
        "all-MiniLM-L6-v2",
        "softmap chose it from all heads",
        "Step 1",
        "Step 2",
        "Step 3",
        "Step 4",
        "Agreement:",
    ):
        assert words in result.stdout


def test_layer_head_row_and_tokens_are_taken():
    result = softmap(
        "The embeddings", "--layer", "2", "--head", "5", "--row", "the", "--tokens", "--lang", "en", "--json"
    )
    data = json.loads(result.stdout)
    assert (data["source"]["layer"], data["source"]["head"]) == (2, 5)
    assert data["words"][data["row"]]["label"] == "the"
    assert "##" in "".join(word["label"] for word in data["words"])


def test_language_follows_the_locale_and_the_option_wins(monkeypatch):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "第一步" in softmap("--example").stdout
    assert "Step 1" in softmap("--example", "--lang", "en").stdout


def test_text_comes_from_a_file_or_standard_input(tmp_path):
    (tmp_path / "text.txt").write_text("我爱学习", encoding="utf-8")
    from_file = softmap("--file", str(tmp_path / "text.txt"), "--layer", "0", "--head", "0", "--json")
    from_stdin = softmap("--file", "-", "--layer", "0", "--head", "0", "--json", input="我爱学习".encode())
    assert json.loads(from_file.stdout)["text"] == "我爱学习" == json.loads(from_stdin.stdout)["text"]


def test_files_are_written_together_and_the_story_is_not_printed(tmp_path):
    names = {kind: str(tmp_path / f"story.{kind}") for kind in ("html", "svg", "png", "pdf")}
    result = softmap("--example", *(part for kind, name in names.items() for part in (f"--{kind}", name)))
    assert result.exit_code == 0
    assert result.stdout == ""
    assert sorted(os.listdir(tmp_path)) == ["story.html", "story.pdf", "story.png", "story.svg"]
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["writing", "wrote"] * 4


@pytest.mark.parametrize("name", ["picture", "picture.draft"])
def test_figure_option_says_the_format_where_the_ending_says_none(tmp_path, name):
    softmap("--example", "--png", str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_stages_are_said_beside_the_story_and_json_stays_alone_on_stdout():
    result = softmap("I love learning", "--json")
    assert result.stderr.splitlines() == ["loading the model", "running the model", "measuring heads"]
    assert json.loads(result.stdout)["text"] == "I love learning"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either TEXT or --file"),
        (["a text", "--file", "a.txt"], "Give either TEXT or --file"),
        (["--example", "a text"], "leave out TEXT"),
        (["--example", "--revision", "main"], "leave out --revision"),
        (["I", "love", "learning"], 'Put the text in quotes: softmap explain "I love learning"'),
        (["--example", "--png", "a.svg"], "--png writes PNG, not .svg; give --svg a.svg"),
        (["--example", "--svg", "a.jpg"], "--svg writes SVG, not .jpg, which no option writes; give --png a.png"),
        (["--example", "--html", "a.txt"], "--html writes HTML, not .txt, which no option writes; give --html a.html"),
        (["a text", "--lang", "de"], "'de' is not one of 'en', 'zh'"),
        (["a text", "--layer", "first"], "'first' is not a valid integer"),
    ],
)
def test_wrong_use_is_said_and_exits_with_2(arguments, message):
    result = softmap(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "text: expected at least one word, got an empty text."),
        (["  \n "], "text: expected at least one word, got an empty text."),
        (["[SEP] [CLS]"], "of which only special tokens are left"),
        (["again and again", "--row", "again"], "occurs 2 times. Give its token's number: :1 or :3."),
        (["--example", "--layer", "1"], "the worked example: expected row and lang alone, got layer"),
        (
            ["--example", "--tokens", "--truncate"],
            "the worked example: expected row and lang alone, got words and truncate",
        ),
        (["one", "--head", "12"], "head: expected a number from 0 to 11, got 12."),
        (["one", "--model", "/no/such/place"], "/no/such/place: expected a directory that exists"),
        (["word " * 600], "expected at most 512 tokens for sentence-transformers/all-MiniLM-L6-v2, got 602 tokens"),
        (["--example", "--html", "/no/such/place/story.html"], "expected a file that can be written"),
        (["--file", "/no/such/file.txt"], "/no/such/file.txt: expected a file that can be read"),
    ],
)
def test_what_softmap_cannot_do_is_one_message_and_exits_with_1(arguments, message):
    result = softmap(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_name_is_not_taken_for_a_text(tmp_path, monkeypatch):
    (tmp_path / "README").write_text("I love learning", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for text, said in (
        ("README", "README: expected a text, got a file. Give it so: softmap explain --file README"),
        ("notes.txt", "notes.txt: expected a text, got what looks like a name. Check the name."),
    ):
        result = softmap(text)
        assert (result.exit_code, result.stdout) == (1, "")
        assert said in result.stderr


def test_file_that_is_not_utf_8_is_refused_with_the_byte_and_its_place(tmp_path):
    (tmp_path / "text.txt").write_bytes("café".encode("latin-1"))
    result = softmap("--file", str(tmp_path / "text.txt"))
    assert result.exit_code == 1
    assert "expected UTF-8 text, got the byte 0xe9 at position 3." in result.stderr


def test_truncate_cuts_a_long_text_and_says_so():
    result = softmap("word " * 600, "--truncate", "--layer", "0", "--head", "0", "--lang", "en")
    assert result.exit_code == 0
    assert "its last 90 tokens were not read" in result.stdout


@pytest.mark.timed
def test_help_is_there_in_under_0_3_seconds():
    def run():
        start = time.perf_counter()
        code = "from softmap.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
        assert "explain" in done.stdout
        return time.perf_counter() - start

    assert min(run() for _ in range(5)) < 0.3


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom softmap.cli import main\n"
        "try: main(['explain', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy', 'matplotlib', 'rich', 'jinja2'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_example_needs_neither_torch_nor_transformers():
    code = (
        "import sys\nfrom softmap.cli import main\n"
        "try: main(['explain', '--example'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_output_survives_a_terminal_that_knows_no_unicode():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", "from softmap.cli import main; main()", "explain", "--example"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"90% itself" in done.stdout


def test_closed_pipe_is_no_traceback():
    command = f"{sys.executable} -c 'from softmap.cli import main; main()' explain --example | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "I love learning\n"
    assert done.stderr == ""
