from __future__ import annotations

import string

import pytest

from softmap.errors import ParameterError
from softmap.language import LANGUAGES, SENTENCES, choose_language, say


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_sentence_exists_in_every_language_with_the_same_blanks(sentence):
    texts = SENTENCES[sentence]
    assert set(texts) == set(LANGUAGES)
    blanks = {
        language: {name for _, name, _, _ in string.Formatter().parse(text) if name} for language, text in texts.items()
    }
    assert blanks["en"] == blanks["zh"]


def test_blanks_are_filled_in():
    assert say("en", "left_out_rows", count=3) == "3 other rows"
    assert say("zh", "left_out_rows", count=3) == "其余 3 行"


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_TW"}, "zh"),
        ({"LANG": "en_GB.UTF-8"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
    ],
)
def test_language_follows_the_locale(monkeypatch, environment, language):
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert choose_language(None) == language


def test_language_asked_for_wins_over_the_locale(monkeypatch):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert choose_language("en") == "en"


def test_language_without_sentences_is_refused():
    with pytest.raises(ParameterError, match="lang: expected en or zh, got 'de'"):
        choose_language("de")
