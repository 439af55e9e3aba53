"""The manifest, its JSON Schema and the page that describes both say the same."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import ORIGIN, make_layer, make_picture, make_recording

from softmap import biases, masks
from softmap.recorded import RecordedSequence, Recording
from softmap.recorded.arrayfile import DTYPES
from softmap.recorded.forms import _COMPOSED, _READ
from softmap.recorded.tables import to_arrow

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "recording.md"
MASKS = [
    masks.full(),
    masks.causal(),
    masks.sliding_window(3, None),
    masks.chunked(4),
    masks.padding([1] * 8 + [0]),
    masks.documents([0] * 9),
    masks.documents([0] * 9, [0, 1, 2] * 3),
    masks.prefix(3),
    masks.dense(torch.rand(9, 9) < 0.5),
    masks.from_function(lambda query, key: (query + key) % 2 == 0),
    (masks.causal(0) & masks.prefix(3)) | ~masks.chunked(2, 0),
]
BIASES = [biases.alibi([0.1] * 4), biases.relative(torch.randn(4, 3)), biases.dense(torch.randn(9, 9))]


def manifest_of(layer, path):
    Recording(ORIGIN, (RecordedSequence((layer,), None),)).save(path)
    return json.loads((path / "manifest.json").read_text(encoding="utf-8"))


def test_every_kind_of_mask_and_bias_follows_the_schema(schema, tmp_path):
    layers = [make_layer(mask=mask) for mask in MASKS] + [make_layer(bias=bias) for bias in BIASES]
    layers += [make_layer(keep=()), make_layer(summary={"cells": 0}), make_layer(softcap=3.0, sinks=True)]
    written = [manifest_of(layer, tmp_path / str(i)) for i, layer in enumerate(layers)]
    for content in written:
        schema.validate(content)
    kinds = {content["layers"][0]["sequences"][0]["mask"]["kind"] for content in written}
    assert kinds == {*_READ, "or"}


@pytest.fixture
def content(tmp_path):
    made = make_recording(bias=BIASES[0])
    sequence = replace(made.sequences[0], pictures=(make_picture(), make_picture(of="tokens")))
    replace(made, sequences=(sequence,)).save(tmp_path / "run")
    return json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(user="me"),
        lambda content: content.pop("checksum"),
        lambda content: content.update(version=2),
        lambda content: content.update(origin=None),
        lambda content: content.update(sequences=[]),
        lambda content: content["layers"][0].update(file="../layer-000.safetensors"),
        lambda content: content["layers"][0]["tensors"].update({"0.w": {"dtype": "F32", "shape": [1]}}),
        lambda content: content["layers"][0]["tensors"]["0.q"].update(dtype="F8_E4M3"),
        lambda content: content["layers"][0]["sequences"][0].update(temperature=1.0),
        lambda content: content["layers"][0]["sequences"][0].update(mask={"kind": "sorted"}),
        lambda content: content["layers"][0]["sequences"][0].update(mask={"kind": "causal"}),
        lambda content: content["layers"][0]["sequences"][0]["bias"].update(kind="function"),
        lambda content: content["sequences"][0]["tokens"].pop("starts"),
        lambda content: content["pictures"].update(file="layer-000.safetensors"),
        lambda content: content["pictures"]["tensors"].update({"0.0.depth": {"dtype": "U8", "shape": [1]}}),
        lambda content: content["pictures"]["sequences"][0][0].pop("stretched"),
        lambda content: content["pictures"]["sequences"][0][1]["places"][0].update(of="vision"),
    ],
)
def test_schema_refuses_what_is_not_of_the_format(schema, content, change):
    schema.validate(content)
    change(content)
    assert not schema.is_valid(content)


def test_page_names_what_the_schema_names(schema):
    named = set(re.findall(r"`([\w.]+)`", PAGE.read_text(encoding="utf-8")))
    parts = schema.schema["$defs"]
    assert set(schema.schema["properties"]) <= named
    for part in ("origin", "tokens", "file", "layer", "pictures", "picture", "place"):
        assert set(parts[part]["properties"]) <= named, part
    assert set(parts["layer"]["properties"]["summary"]["oneOf"][1]["properties"]) <= named
    assert {*_READ, *_COMPOSED, "alibi", "relative"} <= named
    assert set(parts["file"]["properties"]["tensors"]["additionalProperties"]["properties"]["dtype"]["enum"]) == set(
        DTYPES
    )


def test_page_names_the_columns_of_the_table():
    table = PAGE.read_text(encoding="utf-8").partition("## The table")[2]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == to_arrow(make_recording(batch=2)).column_names
