"""What a name stands for, as the commands take it."""

from __future__ import annotations

import pytest

from softmap.commands.naming import listed, looks_like_a_name, meant_by, recordings_in


@pytest.mark.parametrize("name", ["run.softmap", "run.softmpa", "notes.txt", "a/b", "./a", "my runs/one.softmap"])
def test_slash_or_ending_makes_a_name(name):
    assert looks_like_a_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "Hello.",
        "I love learning",
        "yes and/or no",
        "3.14",
        "e.g.",
        "Wait...",
        "love",
        "学习。",
        "",
        "U.S.A",
        "me@site.com",
        "Hello.World",
        "我喜欢Vue.js框架",
        "我喜欢学习。他/她也是",
    ],
)
def test_words_and_sentences_are_texts(text):
    assert not looks_like_a_name(text)


@pytest.fixture
def runs(tmp_path):
    """Folders of which some are recordings."""
    for name in ("run.softmap", "rum.softmap", "walk", "empty.softmap"):
        (tmp_path / name).mkdir()
        if name != "empty.softmap":
            (tmp_path / name / "manifest.json").touch()
    return tmp_path


def test_recordings_are_the_folders_with_a_manifest(runs):
    assert [each.name for each in recordings_in(runs)] == ["rum.softmap", "run.softmap", "walk"]
    assert recordings_in(runs / "nowhere") == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("run", ["run.softmap"]),
        ("runs", ["run.softmap"]),
        ("wlak.softmap", ["walk"]),
        ("empty", []),
        ("softmap", []),
        ("other.softmap", []),
    ],
)
def test_recordings_are_meant_whose_names_are_alike_without_their_endings_the_closest_first(runs, name, meant):
    assert [each.name for each in meant_by(runs / name)] == meant


def test_list_names_three_and_counts_the_others():
    assert listed(["a"]) == "a"
    assert listed(["a", "b"], "or") == "a or b"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
