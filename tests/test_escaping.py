"""Text from elsewhere: whatever a recording says, nothing of it moves a cursor, hides or turns what stands around it."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from recorded.builders import ORIGIN, make_layer, make_tokens

import softmap
from softmap.cli import main
from softmap.console import TextConsole
from softmap.errors import ParameterError, RecordingError
from softmap.escaping import escaped, is_hidden, json_text
from softmap.recorded import OtherLayer, RecordedSequence, Recording
from softmap.render.heads import as_html
from softmap.tokens import Tokens

HOSTILE = (
    "\x1b]0;pwned\x07\x1b]8;;http://evil.test\x1b\\me\x1b]8;;\x1b\\\x1b[2J\x9b31m\x00\x7f\x08\r"
    "\u202e\u2066\u200b\u2028\u2029\ufeff\u00ad\ud800\uffff\U000e0041\u3164[bold][link=http://evil.test]a[/] :smile: 我"
)
NAME = HOSTILE.replace("\x00", "").replace("\ud800", "\udc9b")
"""As the system hands over a name whose bytes are no UTF-8."""
SGR = re.compile(r"\x1b\[[0-9;]*m")


def hidden_in(text, allowed="\n"):
    return sorted({char for char in text if is_hidden(char) and char not in allowed})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 我 ##ing [SEP] Ġthe ▁the \u00a0", "naïve 我 ##ing [SEP] Ġthe ▁the \u00a0"),
        ("\x1b[31m\x07\x00\x7f\x9b", "\\x1b[31m\\x07\\x00\\x7f\\x9b"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        (
            "\u202e\u2066\u200e\u200b\ufeff\xad\u2028\u2029\x85",
            "\\u202e\\u2066\\u200e\\u200b\\ufeff\\xad\\u2028\\u2029\\x85",
        ),
        ("\ud800\uffff\U0001ffff\ufdd0\U000e0041", "\\ud800\\uffff\\U0001ffff\\ufdd0\\U000e0041"),
        ("\u3164\u115f\u034f", "\\u3164\\u115f\\u034f"),
        ("👩‍🚀 می‌خواهم", "👩‍🚀 می‌خواهم"),
        ("pay\u200dpal", "pay\\u200dpal"),
        ("", ""),
    ],
)
def test_what_does_not_show_is_written_as_an_escape(text, shown):
    assert escaped(text) == shown
    assert escaped(shown) == shown


def test_characters_that_are_meant_stay():
    assert escaped("a\n\tb\x1b", "\n\t") == "a\n\tb\\x1b"


def test_json_hides_nothing_loses_nothing_and_leaves_scripts_readable():
    value = {HOSTILE: [HOSTILE, {"我": "é👩‍🚀"}]}
    for options in ({}, {"indent": 2}):
        text = json_text(value, **options)
        assert json.loads(text) == value
        assert not hidden_in(text, "\n\u200d")
        text.encode()
        assert "我" in text
        assert "é" in text


def test_error_shows_what_it_quotes():
    error = RecordingError(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    assert not hidden_in(str(error), "")
    assert error.got == HOSTILE


@pytest.fixture(scope="module")
def hostile():
    """A recording whose every text is hostile."""
    layers = tuple(
        replace(
            make_layer(n, number=n, queries=9, queries_of="tokens", keys_of="tokens", part="encoder"),
            path=f"{HOSTILE}.{n}",
            difference=1e-6,
        )
        for n in range(2)
    )
    layers = tuple(replace(one, summary=replace_named(one.summary, kernel=HOSTILE, why=HOSTILE)) for one in layers)
    plain = make_tokens(9, " ".join([HOSTILE.replace(" ", "")] + [f"w{i}{HOSTILE.replace(' ', '')}" for i in range(7)]))
    tokens = Tokens(**{**vars(plain), "pieces": tuple(f"{HOSTILE}{i}" for i in range(9)), "unknown": (True,) * 9})
    origin = replace(
        ORIGIN,
        **dict.fromkeys(("model", "architecture", "revision", "dtype", "stored"), HOSTILE),
        versions={HOSTILE: HOSTILE},
    )
    return Recording(origin, (RecordedSequence(layers, tokens),), (OtherLayer(HOSTILE, HOSTILE, HOSTILE),))


def replace_named(summary, **changes):
    return replace(summary, **changes) if hasattr(summary, "__dataclass_fields__") else summary._replace(**changes)


@pytest.fixture(scope="module")
def folder(hostile, tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "run.softmap"
    hostile.save(path)
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


COMMANDS = {
    "info": ["info", "{}"],
    "info as JSON": ["info", "{}", "--json"],
    "heads": ["heads", "{}"],
    "heads as JSON": ["heads", "{}", "--json"],
    "top": ["top", "{}", "--row", ":1"],
    "top of a head": ["top", "{}", "--row", ":1", "--layer", "0", "--head", "1", "--tokens"],
    "top as JSON": ["top", "{}", "--row", ":1", "--json"],
    "top of no such word": ["top", "{}", "--row", NAME],
    "explain": ["explain", "--recording", "{}", "--lang", "en"],
    "explain, in Chinese": ["explain", "--recording", "{}", "--lang", "zh", "--tokens"],
    "explain as JSON": ["explain", "--recording", "{}", "--json"],
    "no such layer": ["explain", "--recording", "{}", "--layer", "7"],
    "no such command": [HOSTILE],
    "no such option": ["info", f"--{HOSTILE}"],
    "no such recording": ["info", NAME],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_nothing_hostile_reaches_the_terminal(folder, command):
    result = run(*(folder if part == "{}" else part for part in command))
    assert (result.exit_code == 0) == ("{}" in command and "7" not in command and NAME not in command)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for said in (result.stdout, result.stderr):
        assert not hidden_in(said), said
    assert "evil.test" in result.output or "7" in command
    if "--json" in command:
        json.loads(result.stdout)


@pytest.mark.parametrize(
    "option", ["html", "svg", *(pytest.param(each, marks=pytest.mark.slow) for each in ("png", "pdf"))]
)
@pytest.mark.parametrize("command", ["explain", "export"])
@pytest.mark.filterwarnings("ignore:No font is installed")
def test_nothing_hostile_reaches_a_file(folder, tmp_path, command, option):
    file = tmp_path / f"a\u202e.{option}"
    start = ["explain", "--recording", folder] if command == "explain" else ["export", folder]
    result = run(*start, f"--{option}", file)
    assert result.exit_code == 0, result.output
    assert not hidden_in(result.output)
    if option in ("html", "svg"):
        text = file.read_text(encoding="utf-8")
        assert not hidden_in(re.sub("<script.*?</script>|<style.*?</style>", "", text, flags=re.S), "\n\t")
    if option == "svg":
        ElementTree.fromstring(text)


def test_codes_on_a_terminal_are_softmaps_own(folder):
    opened = softmap.load(folder)
    from softmap.recorded.listing import list_layers
    from softmap.render.top import TopPage

    pages = [list_layers(opened), softmap.heads(opened), softmap.explain(opened, lang="en"), HOSTILE]
    pages.append(TopPage(HOSTILE, opened.top(1, layer=0)))
    for page in pages:
        file = io.StringIO()
        TextConsole(file=file, width=100, force_terminal=True, color_system="truecolor").print(page)
        assert not hidden_in(SGR.sub("", file.getvalue())), page
        assert "]8;" not in SGR.sub("", file.getvalue()).replace("\\x1b]8;", "")
        assert "[link=" in file.getvalue() or page is not HOSTILE
        assert not hidden_in(str(page)) or page is HOSTILE
    assert "evil" not in re.sub(
        r"\\x1b|\[link=http://evil.test\]|;http://evil.test", "", as_html(softmap.heads(opened))
    )


def test_view_says_what_it_shows_without_hostile_text(folder, monkeypatch):
    from softmap.viewer.launch import View

    monkeypatch.setattr(View, "wait", lambda self: None)
    result = run("view", "--no-browser", folder)
    assert result.exit_code == 0, result.output
    assert "Ctrl-C ends it." in result.stderr
    assert not hidden_in(result.output)


def test_answers_to_the_page_can_be_sent_and_read(hostile):
    from softmap.viewer.answers import Answers
    from softmap.viewer.parameters import as_json

    answers = Answers(hostile)
    asked = [
        ("about", {}),
        ("units", {"of": "tokens", "words": "1", "start": "0", "stop": "3"}),
        ("units", {"of": "tokens", "words": "0", "start": "0", "stop": "9"}),
        ("find", {"of": "tokens", "words": "0", "text": "w1"}),
        ("roles", {"layer": "0"}),
        ("steps", {"layer": "0", "head": "0", "query": "1", "key": "1", "words": "0", "lang": "en"}),
    ]
    for question, params in asked:
        told = json.dumps(answers.ask(question, params), ensure_ascii=False)
        told.encode()
        assert not hidden_in(told)
    assert not hidden_in(json.dumps(as_json(ParameterError(HOSTILE, HOSTILE, HOSTILE, HOSTILE)), ensure_ascii=False))


def test_tables_hold_what_arrow_can_hold(hostile):
    table = hostile.to_arrow()
    for column in ("path", "piece"):
        for name in table[column].unique().to_pylist():
            assert not hidden_in(name, "\n\t")
    assert "evil.test" in str(hostile.to_pandas().piece[0])


def test_hostile_text_is_saved_and_read_as_it_is(hostile, folder, tmp_path):
    opened = softmap.load(folder)
    assert opened.origin == hostile.origin
    assert opened.tokens == hostile.tokens
    opened.save(tmp_path / "again")
    assert softmap.load(tmp_path / "again").tokens == hostile.tokens


@pytest.mark.parametrize("piped", [True, False])
def test_progress_shows_names_as_they_are_safe(monkeypatch, piped):
    from softmap.commands.common import progress

    class Stderr(io.StringIO):
        def isatty(self):
            return not piped

    file = Stderr()
    monkeypatch.setattr("sys.stderr", file)
    with progress() as show:
        show(f"writing {HOSTILE}", 1, 2, part=HOSTILE)
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert not hidden_in(said, "\n\r")


def test_models_error_that_names_a_foreign_class_is_shown_safely(make_directory):
    directory = make_directory()
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"model_type": HOSTILE, "architectures": [HOSTILE]}))
    result = run("explain", "the cat", "--model", directory)
    assert result.exit_code == 1
    assert not hidden_in(result.output)
