"""What the README and the documentation say is run here."""

from __future__ import annotations

import doctest
import importlib.util
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from softmap.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_PYTHON = [page for page in PAGES if ">>>" in page.read_text(encoding="utf-8")]
COMMANDS = {
    page: re.findall(r"^\$ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for page in PAGES
    if re.search(r"^\$ softmap ", page.read_text(encoding="utf-8"), re.MULTILINE)
}


def test_there_is_something_to_run():
    assert len(WITH_PYTHON) >= 4
    assert sum(map(len, COMMANDS.values())) >= 6


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_of_the_page_gives_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(blocks, {}, page.name, str(page), 0)
    told: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=told.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(told)


LONG = ("record.md", "see.md")
"""Pages with commands that take ten seconds and more."""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.name in LONG)) for page in COMMANDS],
    ids=[str(page.relative_to(ROOT)) for page in COMMANDS],
)
def test_commands_of_the_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS[page]:
        program, *arguments = shlex.split(command)
        if program == "python":  # a script that takes minutes: as much of it as shows that it runs
            (script,) = (ROOT / argument for argument in arguments[:1])
            subprocess.run([sys.executable, script, *arguments[1:], "--steps", "2"], check=True)
            continue
        if arguments[:1] == ["view"]:
            look(arguments)
            continue
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{command}\n{result.output}"


def look(arguments: list[str]) -> None:
    """Start the viewer, open what it prints, and end it as Ctrl-C does."""
    command = [sys.executable, "-m", "softmap", *arguments, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as viewer:
        address = next(found[0] for line in viewer.stdout if (found := re.search(r"http://\S+", line)))
        with urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(address) as page:
            assert "<title>softmap" in page.read().decode()
        viewer.send_signal(signal.SIGINT)
        assert viewer.wait(20) == 130


def test_reference_of_the_command_line_is_what_help_says():
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    make_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_docs)
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert page == make_docs.cli_reference(), "run `make pictures`"


def test_code_on_the_page_about_the_mechanism_is_the_code():
    page = (ROOT / "docs" / "explanation" / "mechanism.md").read_text(encoding="utf-8")
    source = (ROOT / "src" / "softmap" / "mechanism.py").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for line in filter(None, block.splitlines()):
        assert line in source


def test_table_of_the_json_page_names_what_the_schema_names():
    import json

    schema = json.loads((ROOT / "src" / "softmap" / "data" / "story.schema.json").read_text(encoding="utf-8"))
    table = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(\w+)`", table))
    assert set(schema["properties"]) <= names
    assert set(schema["properties"]["steps"]["properties"]) <= names


def test_files_the_readme_links_to_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", text) if not t.startswith(("http", "#"))]
    assert targets
    for target in targets:
        assert (ROOT / target.partition("#")[0]).exists(), target
