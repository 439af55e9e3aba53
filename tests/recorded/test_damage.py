"""Recordings that are damaged, by chance and on purpose: they are refused, and never give wrong numbers or crash."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace

import pytest
import torch
from builders import assert_same, make_layer, make_picture, make_recording, make_tokens

from softmap import biases, masks
from softmap.errors import RecordingError, SoftmapError
from softmap.recorded import RecordedSequence, Recording, manifest
from softmap.recorded.storage import load

ODD = (
    None,
    True,
    -1,
    0,
    1,
    3,
    1 << 70,
    0.5,
    -1e400,
    "",
    "full",
    "F32",
    "tokens",
    [],
    [0],
    [1, 2],
    {},
    {"kind": "full"},
)


FILES = ("manifest.json", "pictures.safetensors", *(f"layer-00{i}.safetensors" for i in range(5)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recording with something of everything in it."""
    path = tmp_path_factory.mktemp("damage") / "run.softmap"
    everything = make_recording(layers=2, sinks=True, softcap=20.0, bias=biases.alibi([0.5, 0.2, 0.1, 0.0], 0))
    cross = {"kind": "cross", "queries": 6, "keys": 9, "queries_of": "target", "keys_of": "tokens"}
    valid = masks.padding(torch.arange(9) > 2)
    others = (
        make_layer(2, mask=valid & masks.documents([0] * 6, [0, 1] * 4 + [0]), **cross),
        make_layer(
            3, mask=masks.from_function(lambda query, key: (query + key) % 3 == 0), dtype=torch.float16, **cross
        ),
        make_layer(4, mask=masks.dense(torch.rand(6, 9) < 0.5), bias=biases.dense(torch.randn(6, 9)), **cross),
    )
    pictures = (make_picture(), make_picture(of="tokens", seed=1))
    sequence = RecordedSequence((*everything.layers, *others), make_tokens(9), make_tokens(6), pictures)
    replace(everything, sequences=(sequence,)).save(path)
    return path


def damaged(numbers, chance):
    """Bytes with one thing wrong with them, as disks and copies make it."""
    numbers, place = bytearray(numbers), chance.randrange(len(numbers))
    kind = chance.choice(["flip", "flip", "byte", "cut", "cut block", "more", "zeros", "twice", "lost"])
    if kind == "flip":
        numbers[place] ^= 1 << chance.randrange(8)
    elif kind == "byte":
        numbers[place] = (numbers[place] + chance.randrange(1, 256)) % 256
    elif kind == "cut":
        del numbers[place:]
    elif kind == "cut block":
        del numbers[place // 512 * 512 :]
    elif kind == "more":
        numbers += bytes(chance.randrange(1, 100))
    elif kind == "zeros":
        stop = min(len(numbers), place + chance.randrange(1, 600))
        numbers[place:stop] = bytes(stop - place)
    elif kind == "twice":
        numbers[place:place] = numbers[place : place + 8]
    else:
        del numbers[place : place + chance.randrange(1, 9)]
    return bytes(numbers)


@pytest.mark.parametrize("name", FILES)
def test_whatever_is_damaged_is_refused(folder, name):
    whole = (folder / name).read_bytes()
    chance, cases = random.Random(name), 0
    try:
        for _ in range(150):
            broken = damaged(whole, chance)
            if broken == whole:  # zeros where there were zeros
                continue
            (folder / name).write_bytes(broken)
            with pytest.raises(RecordingError):
                load(folder)
            cases += 1
    finally:
        (folder / name).write_bytes(whole)
    assert cases > 120
    load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_without_checksums_the_form_is_still_what_the_manifest_says(folder, name):
    whole, expected = (folder / name).read_bytes(), load(folder)
    shapes = [layer.shape for layer in expected.layers]
    chance, opened = random.Random(name), 0
    try:
        for _ in range(60):
            (folder / name).write_bytes(damaged(whole, chance))
            try:
                found = load(folder, verify=False)
            except RecordingError:
                continue
            opened += 1
            assert [layer.shape for layer in found.layers] == shapes
            use(found)
    finally:
        (folder / name).write_bytes(whole)
    assert (opened == 0) == (name == "manifest.json")  # whose own checksum is always read


def use(recording):
    """Look at everything: what is not refused when it is opened gives numbers, or an error of softmap's own."""
    for layer in recording.layers:
        try:
            repr(layer.matrix[:, :2])
            layer.matrix.summary()
            repr(layer)
        except SoftmapError:
            pass
    for sequence in recording.sequences:
        for tokens in (sequence.tokens, sequence.target):
            repr(tokens)
        for picture in sequence.pictures:
            assert max(picture.pixels.shape) <= 448
            assert all(
                0 <= int(place.tokens.min()) <= int(place.tokens.max()) < place.count for place in picture.places
            )
            assert all(picture.patches(layer) is None or layer.shape[2] for layer in sequence.layers)


def places(content, path=()):
    """The way to every entry of a manifest; of long lists to the first two."""
    if path:
        yield path
    if isinstance(content, dict):
        inner = content.items()
    elif isinstance(content, list):
        inner = list(enumerate(content))[:2]
    else:
        return
    for name, value in inner:
        yield from places(value, (*path, name))


def changed(content, path, value):
    """A manifest's content with another value at a place; without the place where the value is `...`."""
    content = copy.deepcopy(content)
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


def test_manifest_that_says_anything_else_is_refused_or_means_what_it_says(folder):
    """Every entry is left out, or something odd put in its place, and the manifest's checksum made anew."""
    path = folder / manifest.NAME
    whole = path.read_bytes()
    content = {
        name: value for name, value in json.loads(whole).items() if name not in ("checksum", "format", "version")
    }
    chance, refused, opened = random.Random(0), 0, 0
    try:
        for place in places(content):
            for odd in (..., *chance.sample(ODD, 2)):
                if odd == -1e400:
                    text = manifest.text_of(changed(content, place, 0.0)).replace(b"0.0", b"NaN", 1)
                    path.write_bytes(text)
                else:
                    path.write_bytes(manifest.text_of(changed(content, place, odd)))
                try:
                    found = load(folder, partial=True)
                except RecordingError:
                    refused += 1
                    continue
                opened += 1
                use(found)
    finally:
        path.write_bytes(whole)
    assert refused > 800
    assert opened > 10


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b"1" + b"0" * 5000,
        b'{"complete": NaN}',
        b'"\\ud800',
        b"\xff\xfe",
        b"{}",
        b"null",
    ],
)
def test_manifest_that_is_no_json_or_none_of_a_recording_is_refused(tmp_path, text):
    signed = manifest.text_of({"complete": "here"}).replace(b'"here"', text, 1)
    unsigned = signed.replace(signed[14:78], b"0" * 64, 1)
    checksum = manifest.hashlib.sha256(unsigned).hexdigest().encode()
    (tmp_path / "manifest.json").write_bytes(unsigned.replace(b"0" * 64, checksum, 1))
    with pytest.raises(RecordingError):
        load(tmp_path, partial=True)


def test_undamaged_recording_with_everything_in_it_opens(folder):
    first, again = load(folder), load(folder, verify=True)
    assert_same(first, again)
    assert isinstance(first, Recording)
