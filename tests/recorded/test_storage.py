"""Recordings written and read back, whole and cut off, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import (
    ORIGIN,
    OTHERS,
    assert_same,
    assert_same_array,
    assert_same_layers,
    make_layer,
    make_recording,
    make_tokens,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from softmap import biases, masks
from softmap.errors import ParameterError, RecordingError
from softmap.recorded import RecordedSequence, Recording, manifest, reader
from softmap.recorded.storage import Writer, load
from softmap.tokens import Tokens

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)


@pytest.fixture
def folder(tmp_path):
    """A small recording in files."""
    make_recording(layers=3, batch=2).save(tmp_path / "run.softmap")
    return tmp_path / "run.softmap"


def content_of(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def rewrite(folder, change):
    """Change a manifest and give it the checksum that it then has."""
    content = content_of(folder)
    change(content)
    for name in ("checksum", "format", "version"):
        content.pop(name)
    (folder / "manifest.json").write_bytes(manifest.text_of(content))


# There and back


@st.composite
def tokens_of(draw, count):
    """Tokens of any text, whose attributes are of any size that they may have."""
    text = draw(TEXTS)
    place = st.integers(0, len(text))
    return Tokens(
        text=text,
        ids=tuple(draw(st.lists(st.integers(0, 1 << 40), min_size=count, max_size=count) | st.just([]))),
        pieces=tuple(draw(st.lists(TEXTS, min_size=count, max_size=count))),
        spans=tuple(tuple(sorted((draw(place), draw(place)))) for _ in range(count)),
        words=tuple(draw(st.lists(st.none() | st.integers(0, 99), min_size=count, max_size=count))),
        special=tuple(draw(st.lists(st.booleans(), min_size=count, max_size=count))),
        unknown=tuple(draw(st.lists(st.booleans(), min_size=count, max_size=count))),
        cut=draw(st.integers(0, 9)),
    )


@st.composite
def recordings(draw):
    """A recording of any batch, with layers of any shape and extras."""
    sequences = []
    count = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 3))):
        queries, keys = draw(st.integers(1, 12)), draw(st.integers(1, 12))
        layers = tuple(draw(layers_of(queries, keys)) for _ in range(count))
        tokens, target = draw(st.none() | tokens_of(keys)), draw(st.none() | tokens_of(queries))
        sequences.append(RecordedSequence(layers, tokens, target))
    origin = replace(
        ORIGIN, model=draw(TEXTS), revision=draw(st.none() | TEXTS), versions=draw(st.dictionaries(TEXTS, TEXTS))
    )
    return Recording(origin, tuple(sequences), draw(st.sampled_from([(), OTHERS])))


@st.composite
def layers_of(draw, queries, keys):
    kv_heads, group = draw(st.sampled_from([(1, 1), (2, 1), (2, 2), (1, 3)]))
    heads, offset = kv_heads * group, keys - queries
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    mask = draw(
        st.sampled_from([masks.full(), masks.causal(offset), masks.padding(torch.rand(keys, generator=random) < 0.7)])
    )
    added = [
        biases.alibi(torch.rand(heads, generator=random), offset),
        biases.relative(torch.randn(heads, 7, generator=random, dtype=torch.float64), 2, offset),
        biases.dense(torch.randn(heads, queries, keys, generator=random)),
    ]
    summary = {"top": draw(st.sampled_from([0, 1, 20])), "cells": draw(st.sampled_from([0, 1, 4]))}
    summary |= {"entropy": draw(st.booleans()), "distance": draw(st.sampled_from([None, False]))}
    return make_layer(
        draw(st.integers(0, 99)),
        heads=heads,
        kv_heads=kv_heads,
        queries=queries,
        keys=keys,
        d_k=draw(st.integers(1, 9)),
        d_v=draw(st.integers(1, 9)),
        dtype=draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])),
        mask=mask,
        bias=draw(st.none() | st.sampled_from(added)),
        sinks=draw(st.booleans()),
        softcap=draw(st.none() | st.just(30.0)),
        scale=draw(st.floats(-1, 1)),
        keep=draw(st.sampled_from([("qk", "v", "summary"), ("qk",), ("summary",), ("qk", "summary"), ()])),
        summary=summary | {"received": draw(st.booleans())},
        kind=draw(st.sampled_from(["self", "cross"])),
        part=draw(st.sampled_from(["encoder", "decoder"])),
        queries_of=draw(st.sampled_from(["target", None])),
        keys_of=draw(st.sampled_from(["tokens", None])),
        number=draw(st.none() | st.integers(0, 99)),
        difference=draw(st.none() | st.floats(0, 1)),
    )


@settings(max_examples=40, deadline=None)
@given(recordings())
def test_what_is_written_is_read_back_to_the_last_bit(schema, recording):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.softmap"
        recording.save(path)
        assert_same(load(path), recording)
        schema.validate(content_of(path))


def test_weights_of_what_was_read_are_those_of_what_was_written(tmp_path):
    recording = make_recording(d_k=16)
    recording.save(tmp_path / "run")
    for first, second in zip(recording, load(tmp_path / "run"), strict=True):
        assert torch.equal(first[:, 2:5], second[:, 2:5])
        assert torch.equal(first.summary().received, second.summary().received)


def test_text_of_odd_characters_comes_back(tmp_path):
    text = 'I \u2028 "love" \\ learning \x00 🤖👩‍👩‍👧 العربية e\u0301 \ud800'
    recording = make_recording(layers=1, queries=len(text.split(" ")) + 1)
    sequence = replace(recording.sequences[0], tokens=make_tokens(text=text))
    replace(recording, sequences=(sequence,)).save(tmp_path / "run")
    assert load(tmp_path / "run").tokens == sequence.tokens


def test_arrays_that_share_memory_or_are_strided_are_written(tmp_path):
    layer = make_layer(heads=4, kv_heads=4, d_v=5)
    packed = torch.stack((layer.q, layer.k, layer.v), 2)  # as of a model that computes the three at once
    strided = replace(layer, q=packed[:, :, 0], k=packed[:, :, 1], v=packed[:, :, 0], largest=(9.0, 9.0))
    Recording(ORIGIN, (RecordedSequence((strided,), None),)).save(tmp_path / "run")
    (back,) = load(tmp_path / "run").layers
    assert torch.equal(back.q, layer.q)
    assert torch.equal(back.k, layer.k)
    assert torch.equal(back.v, layer.q)


def test_infinite_magnitudes_come_back(tmp_path):
    layer = replace(make_layer(), largest=(float("inf"), 2.5))
    Recording(ORIGIN, (RecordedSequence((layer,), None),)).save(tmp_path / "run")
    assert load(tmp_path / "run").layers[0].largest == (float("inf"), 2.5)


def test_layer_files_are_safetensors(folder):
    found = load_file(folder / "layer-001.safetensors")
    layers = [sequence.layers[1] for sequence in make_recording(layers=3, batch=2).sequences]
    for i, layer in enumerate(layers):
        assert_same_array(found[f"{i}.q"], layer.q)
        assert_same_array(found[f"{i}.summary.top.keys"], layer.summary.top.keys)
    assert {name.split(".")[0] for name in found} == {"0", "1"}


def test_folder_holds_a_manifest_and_a_file_for_each_layer(folder):
    assert sorted(os.listdir(folder)) == [*(f"layer-00{i}.safetensors" for i in range(3)), "manifest.json"]


def test_what_is_written_to_arrays_stays_in_memory(folder):
    changed = load(folder)
    changed.sequences[0].layers[0].q.zero_()
    assert_same(load(folder), make_recording(layers=3, batch=2))


def test_recording_moves_with_its_folder(folder, tmp_path):
    shutil.move(folder, tmp_path / "elsewhere")
    assert_same(load(str(tmp_path / "elsewhere")), make_recording(layers=3, batch=2))


# The writer


def test_writer_gives_the_layers_that_it_was_given(tmp_path):
    recording = make_recording(layers=2, batch=2)
    with Writer(tmp_path / "run") as writer:
        for number in range(2):
            layers = [sequence.layers[number] for sequence in recording.sequences]
            assert_same_layers(writer.add(layers), layers)
        finished = writer.finish(recording.origin, recording.sequences, recording.others)
    assert_same(finished, recording)
    assert_same(load(tmp_path / "run"), recording)


def test_nothing_is_written_over(folder, tmp_path):
    for taken in (folder, folder / "manifest.json", tmp_path / "link"):
        if taken.name == "link":
            taken.symlink_to(tmp_path / "nowhere")
        with pytest.raises(RecordingError, match=r"expected a name that is not taken, got something there already"):
            make_recording().save(taken)
    assert_same(load(folder), make_recording(layers=3, batch=2))


def test_folder_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/run"):
        make_recording().save(tmp_path / "nowhere" / "run")


def test_layers_on_another_number_of_sequences_are_refused(tmp_path):
    with Writer(tmp_path / "run") as writer:
        with pytest.raises(RecordingError, match="layers: expected at least one, got 0"):
            writer.add([])
        writer.add([make_layer(), make_layer(1)])
        with pytest.raises(RecordingError, match="layers: expected 2, as before, got 1"):
            writer.add([make_layer()])


def test_sequences_that_are_not_those_that_were_added_are_refused(tmp_path):
    recording = make_recording(layers=1)
    with Writer(tmp_path / "run") as writer:
        with pytest.raises(RecordingError, match="sequences: expected the 0 layers that were added, got 1"):
            writer.finish(ORIGIN, recording.sequences)
        writer.add(recording.layers)
        with pytest.raises(RecordingError, match=r"sequences: expected as many sequences as each layer .* got 2"):
            writer.finish(ORIGIN, recording.sequences * 2)
        longer = replace(recording.sequences[0], tokens=make_tokens(10))
        with pytest.raises(RecordingError, match=r"sequences: expected 9 tokens of sequence 0, .* got 10"):
            writer.finish(ORIGIN, [longer])


def test_writer_that_was_left_writes_no_more(tmp_path):
    with Writer(tmp_path / "run") as writer:
        pass
    with pytest.raises(RecordingError, match="expected a recording that is being written"):
        writer.add([make_layer()])


def test_sequences_of_different_numbers_of_layers_are_refused(tmp_path):
    sequences = tuple(RecordedSequence((make_layer(),) * count, None) for count in (1, 2))
    with pytest.raises(RecordingError, match=r"sequences with the same layers, got \[1, 2\] layers"):
        Recording(ORIGIN, sequences).save(tmp_path / "run")


def test_layer_that_could_not_be_read_is_not_written(tmp_path):
    broken = [
        replace(make_layer(), shape=(4, 9, 8)),
        replace(make_layer(), k=make_layer().k.double()),
        replace(make_layer(), k=None),
        replace(make_layer(), v=torch.zeros(1, 9, 3)),
        replace(make_layer(), q=make_layer().q.to(torch.complex64)),
        replace(make_layer(), scale=float("nan")),
        replace(make_layer(), path=None),
        replace(make_layer(), queries_of="words"),
    ]
    with Writer(tmp_path / "run") as writer:
        for layer in broken:
            with pytest.raises(RecordingError):
                writer.add([layer])
        assert os.listdir(tmp_path / "run") == ["manifest.json"]
        writer.add([make_layer()])
    assert_same_layers(load(tmp_path / "run", partial=True).layers, [make_layer()])


def test_saving_that_fails_leaves_nothing(tmp_path):
    recording = make_recording(layers=2)
    broken = replace(recording.layers[1], bias=biases.from_function(lambda h, q, k: q * 1.0))
    sequence = replace(recording.sequences[0], layers=(recording.layers[0], broken))
    with pytest.raises(RecordingError, match="expected a bias of numbers"):
        replace(recording, sequences=(sequence,)).save(tmp_path / "run")
    assert os.listdir(tmp_path) == []


# Cut off


@pytest.fixture
def cut(tmp_path):
    """A recording that was cut off after two layers of which the writer was told, and its layers."""
    layers = make_recording(layers=2, batch=2).sequences
    with Writer(tmp_path / "cut") as writer:
        for number in range(2):
            writer.add([sequence.layers[number] for sequence in layers])
    return tmp_path / "cut"


def test_recording_that_was_cut_off_is_named_and_its_layers_open(cut, schema):
    with pytest.raises(RecordingError, match=r"cut off after 2 complete layers.* and the tokens") as caught:
        load(cut)
    assert caught.value.hint == f"softmap.load({str(cut)!r}, partial=True) opens its complete layers."
    opened = load(cut, partial=True)
    assert (
        opened.partial
        == "cut off after 2 complete layers; what came later is missing, and the tokens; so is the model's name"
    )
    assert opened.origin.model == "unknown"
    for sequence, whole in zip(opened.sequences, make_recording(layers=2, batch=2).sequences, strict=True):
        assert (sequence.tokens, sequence.target) == (None, None)
        assert_same_layers(sequence.layers, whole.layers)
    schema.validate(content_of(cut))


def test_recording_that_was_cut_off_names_a_model_that_was_known(tmp_path):
    with Writer(tmp_path / "run", ORIGIN) as writer:
        writer.add([make_layer()])
    opened = load(tmp_path / "run", partial=True)
    assert opened.origin == ORIGIN
    assert opened.partial == "cut off after 1 complete layer; what came later is missing, and the tokens"


def test_recording_that_was_cut_off_is_saved_as_such(cut, tmp_path):
    opened = load(cut, partial=True)
    opened.save(tmp_path / "again")
    assert content_of(tmp_path / "again")["complete"] is False
    again = load(tmp_path / "again", partial=True)
    for one, other in zip(opened.sequences, again.sequences, strict=True):
        assert_same_layers(one.layers, other.layers)


def test_recording_without_a_complete_layer_is_refused(tmp_path):
    with Writer(tmp_path / "run"):
        pass
    with pytest.raises(RecordingError, match="at least one complete layer, got none before it was cut off"):
        load(tmp_path / "run", partial=True)


def test_whole_recording_opens_as_always_with_partial(folder):
    assert_same(load(folder, partial=True), make_recording(layers=3, batch=2))


# What is none


def test_what_is_no_folder_is_refused(folder, tmp_path):
    for path, got in ((tmp_path / "nothing", "nothing there"), (folder / "manifest.json", "a file")):
        with pytest.raises(RecordingError, match=f"expected the folder of a recording, got {got}"):
            load(path)
    with pytest.raises(RecordingError, match=r"expected a folder that can be read, got .*File name too long"):
        load("x" * 5000)
    with pytest.raises(RecordingError, match=r"expected (the|a) folder"):  # as the version of Python has it
        load("a\0b")


def test_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(RecordingError, match=r"manifest\.json: expected a file, got nothing there"):
        load(tmp_path)
    for text in ("", "{}", '{"format": "another"}', "\x00" * 100):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(RecordingError, match="expected the manifest of a recording, got another file"):
            load(tmp_path)


def test_file_that_is_missing_is_named(folder):
    (folder / "layer-001.safetensors").unlink()
    with pytest.raises(RecordingError, match=r"layer-001\.safetensors: expected a file, got nothing there"):
        load(folder)


@pytest.mark.parametrize("name", ["manifest.json", "layer-001.safetensors"])
def test_link_folder_or_pipe_in_the_place_of_a_file_is_refused(folder, tmp_path, name, posix):
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(RecordingError, match=f"{name}: expected a file in the recording's own folder, got a link"):
        load(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(RecordingError, match=f"{name}: expected a file .* got something that is no file"):
        load(folder)
    (folder / name).rmdir()
    os.mkfifo(folder / name)
    with pytest.raises(RecordingError, match=f"{name}: expected a file .* got something that is no file"):
        load(folder)


def test_file_that_cannot_be_opened_is_named(folder, posix):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(RecordingError, match=r"manifest\.json: expected a file that can be read, got Too many"):
            load(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("name", ["../layer-000.safetensors", "/etc/passwd", "layer-000.safetensors", "a/b", ""])
def test_name_that_is_not_the_layers_own_is_refused(folder, name):
    rewrite(folder, lambda content: content["layers"][1].update(file=name))
    with pytest.raises(RecordingError, match=r"layers\[1\]\.file: expected layer-001\.safetensors, got"):
        load(folder)


def test_newer_format_asks_for_a_newer_softmap(folder, monkeypatch):
    monkeypatch.setattr(manifest, "VERSION", 2)
    rewrite(folder, lambda content: None)
    monkeypatch.undo()
    with pytest.raises(RecordingError, match=r"expected version 1 of the format, got 2\. Install a newer softmap"):
        load(folder)


def test_manifest_that_was_changed_is_refused(folder):
    text = (folder / "manifest.json").read_text().replace('"scale": 0.4', '"scale": 0.5')
    (folder / "manifest.json").write_text(text)
    with pytest.raises(RecordingError, match=r"expected the SHA-256 .* so that it is damaged or was changed"):
        load(folder)


# Checksums


def flip_last_byte(path):
    numbers = bytearray(path.read_bytes())
    numbers[-1] ^= 1
    path.write_bytes(numbers)


def test_checksums_of_a_small_recording_are_read_unless_told_otherwise(folder):
    flip_last_byte(folder / "layer-002.safetensors")
    for verify in (None, True):
        with pytest.raises(
            RecordingError, match=r"layer-002\.safetensors: expected the SHA-256 .* so that it is damaged"
        ):
            load(folder, verify=verify)
    assert len(load(folder, verify=False).batch(0)) == 3


def test_checksums_of_a_large_recording_are_read_when_told_to(folder, monkeypatch):
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    flip_last_byte(folder / "layer-002.safetensors")
    monkeypatch.setattr(reader, "VERIFIED", size - 1)
    assert len(load(folder).batch(0)) == 3
    with pytest.raises(RecordingError, match="SHA-256"):
        load(folder, verify=True)
    monkeypatch.setattr(reader, "VERIFIED", size)
    with pytest.raises(RecordingError, match="SHA-256"):
        load(folder)


def test_file_whose_header_names_other_arrays_is_refused_without_its_checksum(folder):
    path = folder / "layer-000.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"0.q"', b'"0.v"', 1))
    with pytest.raises(RecordingError, match="expected a header that names the arrays of the manifest"):
        load(folder, verify=False)


def test_verify_is_true_false_or_none(folder):
    with pytest.raises(ParameterError, match="verify: expected True, False or None, got 'yes'"):
        load(folder, verify="yes")
