"""The schema of a recording's manifest."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator


@pytest.fixture(scope="session")
def schema():
    text = files("softmap").joinpath("data").joinpath("recording.schema.json").read_text(encoding="utf-8")
    Draft202012Validator.check_schema(json.loads(text))
    return Draft202012Validator(json.loads(text))
