"""`softmap view`: what it shows, what it refuses, how it starts and ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from urllib.parse import urlencode, urlsplit

import pytest
from click.testing import CliRunner
from recorded.builders import make_recording

import softmap
from softmap.cli import main
from softmap.narrative import narrate

COMMAND = [sys.executable, "-c", "from softmap.cli import main; main()", "view", "--no-browser"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "run.softmap"
    make_recording().save(path)
    return path


def run(*arguments, **options):
    return CliRunner().invoke(main, ["view", "--no-browser", *map(str, arguments)], **options)


class Started:
    """The command in a process of its own, from the address it prints to Ctrl-C."""

    def __init__(self, *arguments, text=None):
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if text is not None:
            self.process.stdin.write(text.encode())
        self.process.stdin.close()
        self.process.stdin = None
        self.url = self.process.stdout.readline().decode().strip()
        self._cookie = None

    def said(self):
        """What stands on stderr, to the line that says what is shown."""
        lines = []
        while not lines or not lines[-1].endswith("Ctrl-C ends it."):
            line = self.process.stderr.readline().decode()
            assert line, lines
            lines.append(line.removesuffix("\n"))
        return lines

    def ask(self, name, **params):
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=20)
        try:
            if self._cookie is None:
                connection.request("GET", f"/?{place.query}")
                entered = connection.getresponse()
                self._cookie = entered.headers["set-cookie"].split(";")[0]
                assert entered.read() == b""
            connection.request("GET", f"/ask/{name}?{urlencode(params)}", headers={"cookie": self._cookie})
            response = connection.getresponse()
            assert response.status == 200
            return json.loads(response.read())
        finally:
            connection.close()

    def interrupt(self):
        if os.name != "posix":
            pytest.skip("sends Ctrl-C as POSIX does")
        start = time.perf_counter()
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err, time.perf_counter() - start

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.mark.timed
def test_recording_is_shown_at_the_printed_address_until_ctrl_c(folder):
    with Started(folder, "--layer", 1, "--head", 2) as shown:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", shown.url)
        about = shown.ask("about")
        assert [layer["number"] for layer in about["layers"]] == [0, 1]
        assert (about["start"]["layer"], about["start"]["head"]) == (1, 2)
        assert shown.said() == ["a/model, 9 tokens, 2 layers of 4 heads; layer 1, head 2. Ctrl-C ends it."]
        code, out, err, seconds = shown.interrupt()
        assert (code, out, err) == (130, b"", b"ended\n")
        assert seconds < 1


@pytest.mark.skipif(os.name != "posix", reason="makes a terminal")
def test_enter_prints_an_address_for_another_browser(folder):
    ours, theirs = os.openpty()
    streams = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*COMMAND, str(folder)], **streams) as process:
        addresses = [process.stdout.readline()]
        assert process.stderr.readline().endswith("Enter prints an address for another browser, Ctrl-C ends it.\n")
        for _ in range(2):
            os.write(ours, b"\n")
            addresses.append(process.stdout.readline())
        for address in addresses:
            place = urlsplit(address.strip())
            connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=20)
            connection.request("GET", f"/?{place.query}")
            assert connection.getresponse().status == 303
            connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    os.close(ours)
    os.close(theirs)
    assert len(set(addresses)) == 3


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads command lines")
def test_no_token_is_on_the_command_line_that_starts_a_browser(folder, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\ncat /proc/$$/cmdline > {tmp_path}/line\ncp "${{1#file://}}" {tmp_path}/page\n')
    browser.chmod(0o755)
    command = [each for each in COMMAND if each != "--no-browser"]
    environment = os.environ | {"BROWSER": f"{browser} %s"}
    with subprocess.Popen(
        [*command, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as run:
        printed = run.stdout.readline().decode().strip().partition("token=")[2]
        assert run.stderr.readline()
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == 130
    line, page = (tmp_path / "line").read_bytes(), (tmp_path / "page").read_text(encoding="utf-8")
    (given,) = set(re.findall(r"token=([\w-]+)", page))
    assert given != printed
    assert given.encode() not in line
    assert printed.encode() not in line
    place = line.split(b"file://")[1].rstrip(b"\0").decode()
    assert not os.path.exists(os.path.dirname(place))


def test_ctrl_c_ends_it_as_soon_as_the_address_is_there(folder):
    with Started(folder) as shown:
        code, out, err, _ = shown.interrupt()
        assert (code, out) == (130, b"")
        assert err.splitlines()[-1] in (b"ended", b"interrupted")  # in an import it ends at once


@pytest.mark.parametrize(
    "asked", [{}, *(pytest.param(each, marks=pytest.mark.slow) for each in ({"layer": 1}, {"head": 2}))]
)
def test_head_that_softmap_chose_is_said_with_the_reason_that_explain_gives(folder, asked):
    story = softmap.explain(softmap.load(folder), lang="en", **asked)
    options = [part for name, value in asked.items() for part in (f"--{name}", value)]
    with Started(folder, *options) as shown:
        (said,) = shown.said()
        start = shown.ask("about")["start"]
    place = f"layer {start['layer']}, head {start['head']}"
    assert (start["layer"], start["head"]) == (story.source.layer, story.source.head)
    assert said.endswith(f"; {place}: {narrate(story)[0].sentences[-1]} Ctrl-C ends it.")


@pytest.mark.slow
def test_head_that_was_chosen_otherwise_than_explain_does_is_said_without_a_reason(tmp_path):
    make_recording(queries=700).save(tmp_path / "long.softmap")
    with Started(tmp_path / "long.softmap") as shown:
        (said,) = shown.said()
    assert re.fullmatch(r"a/model, 700 tokens, 2 layers of 4 heads; layer \d, head \d\. Ctrl-C ends it\.", said)


@pytest.mark.parametrize(
    ("arguments", "text", "labels"),
    [
        (["yes and/or no"], None, ["yes", "and", "/", "or", "no"]),
        pytest.param(["--file", "-"], "I love learning", ["I", "love", "learning"], marks=pytest.mark.slow),
    ],
)
def test_text_is_recorded_and_shown(arguments, text, labels):
    with Started(*arguments, text=text) as shown:
        given = text or arguments[0]
        assert shown.said()[0] == f'recording the text "{given}" with sentence-transformers/all-MiniLM-L6-v2'
        count = shown.ask("about")["texts"]["tokens"]["words"]
        found = shown.ask("units", of="tokens", words=1, start=0, stop=count)["labels"]
        assert found[1:-1] == labels


@pytest.mark.slow
def test_port_is_taken_at_its_word_and_said_to_be_taken(folder):
    with Started(folder) as shown:
        port = urlsplit(shown.url).port
        result = run(folder, "--port", port)
        assert result.exit_code == 1
        assert f"port {port}: expected one that is free" in result.stderr
        assert "Leave it out" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give a recording, a text or --file"),
        (["a text", "--file", "a.txt"], "Give a recording, a text or --file"),
        (["a text", "--batch", "0"], "--batch and --partial are about a recording"),
        (["a text", "--partial"], "--batch and --partial are about a recording"),
        (["a text", "--port", "70000"], "70000 is not in the range"),
        (["{folder}", "--model", "m"], "leave out --model"),
        (["{folder}", "--truncate", "--trust-remote-code"], "leave out --truncate and --trust-remote-code"),
    ],
)
def test_wrong_use_is_said_and_exits_with_2(folder, arguments, message):
    result = run(*(argument.format(folder=folder) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run2.softmap"], "run2.softmap: expected a recording or a text, got a name of no folder"),
        (["my runs/two.softmap"], "expected a recording or a text"),
        (["runs/two"], "runs/two: expected a recording or a text"),
        (["run.softmpa"], "run.softmpa: expected a recording or a text, got a name of no folder. Check the name."),
        (["{empty}"], "empty: expected the folder of a recording, got a folder without a manifest.json"),
        (["{above}"], "Recordings in it: {folder}."),
        (["{file}"], "A text in a file is given as: softmap view --file"),
        (["--file", "/no/such.txt"], "/no/such.txt: expected a file that can be read"),
        (["a text", "--model", "/no/such/place"], "/no/such/place: expected a directory that exists"),
        ([""], "expected at least one word, got an empty text"),
        (["word " * 600], "expected at most 512 tokens"),
        (["{folder}", "--layer", "7"], "layer: expected a number from 0 to 1, got 7"),
        (["{folder}", "--layer", "0", "--head", "9"], "head: expected a number from 0 to 3, got 9"),
        (["{folder}", "--batch", "3"], "batch: expected a number from 0 to 0, got 3"),
    ],
)
def test_what_can_not_be_shown_is_one_message_and_exits_with_1(folder, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("a text", encoding="utf-8")
    places = {"folder": folder, "above": folder.parent, "empty": tmp_path / "empty", "file": tmp_path / "text.txt"}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 1, result.output
    assert message.format(**places) in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["run", "run.softmpa", "{parent}/run", "{parent}/rnu", "{parent}/Run.sfotmap"])
def test_name_like_that_of_a_recording_is_not_taken_for_a_text(folder, monkeypatch, name):
    monkeypatch.chdir(folder.parent)
    result = run(name.format(parent=folder.parent))
    assert result.exit_code == 1
    meant = folder if "/" in name else folder.name
    hint = "A text that is written so comes from standard input, with --file -."
    assert f"Did you mean {meant}? {hint}" in result.stderr


@pytest.mark.parametrize("word", ["ran", "rnu", "Run"])
def test_word_that_only_resembles_the_name_of_a_recording_is_a_text(folder, monkeypatch, word):
    monkeypatch.chdir(folder.parent)
    result = run(word, "--model", "/no/such/place")
    assert result.stderr.startswith(f'recording the text "{word}"')


def test_sequences_of_a_batch_are_named_to_who_names_none(tmp_path):
    make_recording(batch=5).save(tmp_path / "batch.softmap")
    result = run(tmp_path / "batch.softmap")
    assert result.exit_code == 1
    assert "--batch: expected a number from 0 to 4, got none. It holds 5 sequences: " in result.stderr
    assert '0 is "word0 word1 word2 word3 word4…", 1 is "word0' in result.stderr
    assert "and 2 more. Take one, as in --batch 0." in result.stderr
