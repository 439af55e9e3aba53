from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

import softmap
from softmap.errors import ParameterError
from softmap.render.files import save


@pytest.fixture(scope="module")
def story():
    return softmap.explain(softmap.example(), lang="en")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("story.html", b"<!doctype html>"),
        ("story.svg", b"<?xml"),
        ("story.png", b"\x89PNG"),
        ("story.PDF", b"%PDF"),
        ("story.json", b'{"format": "softmap.story"'),
        ("story.txt", b"I love learning"),
    ],
)
def test_ending_says_what_is_written(story, tmp_path, name, start):
    story.save(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert os.listdir(tmp_path) == [name]


def test_text_file_is_utf_8_whatever_the_locale(story, tmp_path):
    story.save(str(tmp_path / "story.txt"))
    assert (tmp_path / "story.txt").read_text(encoding="utf-8") == str(story)


def test_another_ending_is_refused_with_those_there_are(story, tmp_path):
    with pytest.raises(ParameterError, match=r"path: expected a file name that ends in \.svg.*got .*story\.docx"):
        story.save(tmp_path / "story.docx")
    assert os.listdir(tmp_path) == []


def test_failure_leaves_the_old_file_and_no_draft(story, tmp_path, monkeypatch):
    target = tmp_path / "story.json"
    target.write_text("old")
    broken = type("Broken", (), {"json": lambda self: json.dumps(object())})()
    with pytest.raises(TypeError):
        save(broken, target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["story.json"]


def test_file_gets_the_permissions_any_new_file_gets(story, tmp_path):
    (tmp_path / "plain").touch()
    story.save(tmp_path / "story.txt")
    assert stat.S_IMODE((tmp_path / "story.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_link_stays_a_link_and_its_target_is_written(story, tmp_path):
    (tmp_path / "target.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "target.txt")
    story.save(tmp_path / "link.txt")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "target.txt").read_text(encoding="utf-8") == str(story)


def test_pipe_is_written_to_and_not_replaced(story, tmp_path, posix):
    os.mkfifo(tmp_path / "pipe.json")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe.json").read_text, encoding="utf-8")
        story.save(tmp_path / "pipe.json")
        assert read.result(timeout=10) == story.json()
    assert stat.S_ISFIFO((tmp_path / "pipe.json").stat().st_mode)


def test_folder_that_is_not_there_is_an_error_of_the_system(story, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/story\.html'$"):
        story.save(tmp_path / "nowhere" / "story.html")
