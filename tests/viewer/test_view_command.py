"""`softmap view`: what it shows, what it refuses, how it starts and ends."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from urllib.parse import urlencode, urlsplit

import pytest
from click.testing import CliRunner
from recorded.builders import make_recording

from softmap.cli import main

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

    def ask(self, name, **params):
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=20)
        try:
            connection.request("GET", f"/ask/{name}?{place.query}&{urlencode(params)}")
            response = connection.getresponse()
            assert response.status == 200
            return json.loads(response.read())
        finally:
            connection.close()

    def interrupt(self):
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


def test_recording_is_shown_at_the_printed_address_until_ctrl_c(folder):
    with Started(folder, "--layer", 1, "--head", 2) as shown:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", shown.url)
        about = shown.ask("about")
        assert [layer["number"] for layer in about["layers"]] == [0, 1]
        assert (about["start"]["layer"], about["start"]["head"]) == (1, 2)
        code, out, err, seconds = shown.interrupt()
        assert (code, out, err) == (0, b"", b"")
        assert seconds < 1


@pytest.mark.parametrize(
    ("arguments", "text", "labels"),
    [
        (["yes and/or no"], None, ["yes", "and", "/", "or", "no"]),
        pytest.param(["--file", "-"], "I love learning", ["I", "love", "learning"], marks=pytest.mark.slow),
    ],
)
def test_text_is_recorded_and_shown(arguments, text, labels):
    with Started(*arguments, text=text) as shown:
        count = shown.ask("about")["texts"]["tokens"]["words"]
        found = shown.ask("units", of="tokens", words=1, start=0, stop=count)["labels"]
        assert found[1:-1] == labels


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
        (["{empty}"], "manifest.json: expected a file, got nothing there"),
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
    places = {"folder": folder, "empty": tmp_path / "empty", "file": tmp_path / "text.txt"}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
