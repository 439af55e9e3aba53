"""Pictures in files: what is read back is what was written, and what does not fit is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from builders import assert_same, make_layer, make_picture, make_recording

from softmap.errors import RecordingError
from softmap.recorded import Picture, Place, manifest
from softmap.recorded.listing import list_layers
from softmap.recorded.storage import Writer, load


def with_pictures(*pictures, **options):
    """A recording of a batch, whose sequences all have these."""
    made = make_recording(**options)
    return replace(made, sequences=tuple(replace(each, pictures=pictures) for each in made.sequences))


def rewrite(folder, change):
    """A manifest of which something is changed, and the checksum made anew."""
    path = folder / manifest.NAME
    content = json.loads(path.read_bytes())
    for name in ("checksum", "format", "version"):
        del content[name]
    change(content)
    path.write_bytes(manifest.text_of(content))


def test_pictures_of_each_sequence_come_back_with_it(tmp_path):
    made = make_recording(batch=3)
    own = [(), (make_picture(), make_picture(seed=2)), (make_picture(11, of="tokens", grid=(1, 4)),)]
    made = replace(made, sequences=tuple(map(lambda each, has: replace(each, pictures=has), made.sequences, own)))
    made.save(tmp_path / "run")
    found = load(tmp_path / "run", verify=True)
    assert_same(found, made)
    assert [len(found.batch(i).pictures) for i in range(3)] == [0, 2, 1]
    assert list_layers(found).pictures == (0, 2, 1)
    assert "pictures   3, kept small" in str(list_layers(found))
    assert "pictures" not in str(list_layers(found.batch(0)))
    found.save(tmp_path / "again")
    assert_same(load(tmp_path / "again"), made)


def test_recording_without_pictures_has_neither_file_nor_entry(tmp_path):
    make_recording().save(tmp_path / "run")
    assert not (tmp_path / "run" / "pictures.safetensors").exists()
    assert "pictures" not in json.loads((tmp_path / "run" / manifest.NAME).read_bytes())
    assert load(tmp_path / "run").pictures == ()


def test_layer_of_another_path_text_or_size_has_no_patches():
    tower, text = make_picture(path="layers.1"), make_picture(of="tokens")
    layer = make_layer(1)
    assert tower.patches(layer, "queries").tolist() == tower.patches(layer).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert text.patches(layer) is None
    for other in (
        {"path": "layers.10.attention"},
        {"path": "other.layers.1"},
        {"shape": (4, 9, 8)},
        {"keys_of": "tokens"},
    ):
        assert tower.patches(replace(layer, **other)) is None
    assert tower.patches(replace(layer, shape=(4, 9, 8)), "queries") is not None
    assert text.patches(replace(layer, keys_of="tokens")) is not None
    assert text.patches(replace(layer, keys_of="target")) is None


def test_empty_path_is_of_all_layers():
    assert make_picture(path="").patches(make_layer(1)) is not None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"tokens": torch.tensor([[0, 9]])}, "expected tokens from 0 to 8 as patches, got 0 to 9"),
        ({"tokens": torch.tensor([[-1, 2]])}, "expected tokens from 0 to 8 as patches, got -1 to 2"),
        ({"tokens": torch.tensor([[1, 1]])}, "expected another token for each patch"),
        ({"tokens": torch.tensor([1, 2])}, r"int64 of shape \(any, any\)"),
        ({"tokens": torch.tensor([[1.0, 2.0]])}, "int64 of shape"),
        ({"tokens": torch.empty(0, 2, dtype=torch.int64)}, "expected at least one patch"),
        ({"of": "title"}, "one of tokens, target"),
        ({"of": "tokens"}, "an empty path"),
        ({"of": "tokens", "path": "", "count": 8}, "8 tokens of sequence 0, as of its pictures, got 9"),
        ({"of": "target", "path": ""}, "9 target of sequence 0, as of its pictures, got no such text"),
        ({"count": 0}, "a whole number of at least 1"),
    ],
)
def test_place_that_cannot_be_is_not_written(tmp_path, change, expected):
    picture = make_picture()
    place = picture.places[0]
    parts = {"of": place.of, "path": place.path, "count": place.count, "tokens": place.tokens}
    broken = replace(picture, places=(Place(**parts | change),))
    with pytest.raises(RecordingError, match=expected):
        with_pictures(broken).save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shape", [(449, 4, 3), (4, 449, 3), (4, 4, 4), (4, 4), (0, 4, 3)])
def test_picture_too_large_or_of_no_colours_is_refused(tmp_path, shape):
    with pytest.raises(RecordingError):
        with_pictures(Picture(torch.zeros(shape, dtype=torch.uint8), stretched=False)).save(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda it: it.update(file="../pictures.safetensors"), r"pictures\.file: expected pictures\.safetensors"),
        (lambda it: it.update(sha256="0"), "64 hexadecimal digits"),
        (lambda it: it.pop("tensors"), "an object of file, sha256, tensors, sequences"),
        (lambda it: it["sequences"].append([]), "the pictures of 1 sequences, got 2"),
        (lambda it: it["sequences"][0].pop(), "the arrays of pictures alone"),
        (lambda it: it["sequences"][0].append(it["sequences"][0][0]), r"an array 0\.2\.pixels, got none"),
        (lambda it: it["sequences"][0][0].update(stretched=1), "true or false"),
        (lambda it: it["tensors"]["0.0.pixels"].update(shape=[8, 12, 4]), "bytes|header"),
    ],
)
def test_entry_that_says_something_else_is_refused(tmp_path, change, expected):
    with_pictures(make_picture(), make_picture(seed=3)).save(tmp_path / "run")
    rewrite(tmp_path / "run", lambda content: change(content["pictures"]))
    with pytest.raises(RecordingError, match=expected):
        load(tmp_path / "run")


def test_file_that_is_missing_or_a_link_is_refused(tmp_path):
    with_pictures(make_picture()).save(tmp_path / "run")
    path = tmp_path / "run" / "pictures.safetensors"
    path.rename(tmp_path / "outside")
    with pytest.raises(RecordingError, match=r"pictures\.safetensors: expected a file, got nothing there"):
        load(tmp_path / "run")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(RecordingError, match="got a link"):
        load(tmp_path / "run")


def test_recording_that_was_cut_off_has_no_pictures(tmp_path):
    made = with_pictures(make_picture())
    with Writer(tmp_path / "run", made.origin) as writer:
        writer.add([made.layers[0]])
    assert load(tmp_path / "run", partial=True).pictures == ()
