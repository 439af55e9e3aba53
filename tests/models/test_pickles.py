"""No way of loading a model reads a pickle: each is tried with one that leaves a mark when anything unpickles it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from softmap.errors import ModelError, ParameterError
from softmap.models import load
from softmap.models.pickles import no_pickles


class Mark:
    """An object that leaves a mark when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.fixture
def directory(make_directory):
    """A model's directory whose weights are in two shards, with the index that names them."""
    directory = make_directory()
    whole = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(whole)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, own in shards.items():
        save_file({name: whole[name] for name in own}, directory / shard, metadata={"format": "pt"})
    index(directory, {name: shard for shard, own in shards.items() for name in own})
    return directory


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """The mark; after the test there is none, and nothing was given to torch's own reader of pickles."""
    read = []
    for reader in ("_load", "_legacy_load"):
        before = getattr(torch.serialization, reader)
        monkeypatch.setattr(torch.serialization, reader, lambda *a, b=before, **k: read.append(a) or b(*a, **k))
    mark = tmp_path / "mark"
    yield mark
    assert not mark.exists()
    assert not read


def index(directory, places, name="model.safetensors.index.json"):
    (directory / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


def weights_of(directory):
    return {
        name: value for file in ("one", "two") for name, value in load_file(directory / f"{file}.safetensors").items()
    }


def write_pickle(path, mark, weights=None):
    """A file that leaves a mark when it is unpickled freely, and else gives weights."""
    path.parent.mkdir(exist_ok=True, parents=True)
    if weights is None:
        path.write_bytes(pickle.dumps(Mark(mark)))
    else:
        torch.save(weights, path)


def change_config(directory, **changes):
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_shards_that_are_safetensors_are_loaded(directory, mark):
    loaded = load(directory)
    weights = weights_of(directory)
    assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())


@pytest.mark.parametrize("honest", [True, False], ids=["weights", "code"])
@pytest.mark.parametrize(
    "shard",
    [
        "weights.bin",
        "weights.pt",
        "weights",
        "inside/weights.bin",
        "../weights.bin",
        "{tmp}/weights.bin",
        "a.safetensors.bin",
    ],
)
def test_index_that_names_a_pickle_is_refused_whatever_lies_beside(directory, mark, shard, honest, tmp_path):
    shard = shard.format(tmp=tmp_path)
    weights = weights_of(directory)
    write_pickle(directory / shard, mark, weights if honest else None)
    index(directory, dict.fromkeys(weights, shard))
    for options in ({}, {"weights_only": False}, {"dtype": "auto", "weights_only": False}):
        with pytest.raises(ModelError, match="weights in safetensors") as refusal:
            load(directory, **options)
        assert shard in refusal.value.got
        assert "save_pretrained" in refusal.value.hint


def test_pickle_among_safetensors_is_refused(directory, mark):
    weights = weights_of(directory)
    places = dict.fromkeys(weights, "one.safetensors") | {sorted(weights)[1]: "weights.bin"}
    write_pickle(directory / "weights.bin", mark)
    index(directory, places)
    with pytest.raises(ModelError, match=r"weights\.bin in model\.safetensors\.index\.json"):
        load(directory)


def test_pickle_that_is_called_safetensors_is_refused(directory, mark):
    for shard in ("one", "two"):
        write_pickle(directory / f"{shard}.safetensors", mark)
    with pytest.raises(ModelError):
        load(directory)
    (directory / "weights.bin").write_bytes((directory / "one.safetensors").read_bytes())
    for shard in ("one", "two"):
        (directory / f"{shard}.safetensors").unlink()
        (directory / f"{shard}.safetensors").symlink_to(directory / "weights.bin")
    with pytest.raises(ModelError):
        load(directory)


def test_index_that_a_configuration_or_an_option_names_is_refused(directory, mark):
    weights = weights_of(directory)
    write_pickle(directory / "weights.bin", mark, weights)
    index(directory, dict.fromkeys(weights, "weights.bin"), "model.safetensors.index.fp16.json")
    with pytest.raises(ModelError):
        load(directory, variant="fp16")
    (directory / "inside").mkdir()
    for file in ("config.json", "weights.bin"):
        shutil.copy(directory / file, directory / "inside" / file)
    index(directory / "inside", dict.fromkeys(weights, "weights.bin"))
    with pytest.raises(ModelError, match="weights in safetensors"):
        load(directory, subfolder="inside")
    index(directory, dict.fromkeys(weights, "weights.bin"), "other.safetensors.index.json")
    change_config(directory, transformers_weights="other.safetensors.index.json")
    with pytest.raises(ModelError, match="weights in safetensors"):
        load(directory)
    (directory / "other.safetensors.index.json").unlink()
    write_pickle(directory / "adapter_model.bin", mark, weights)
    change_config(directory, transformers_weights="adapter_model.bin")
    with pytest.raises(ModelError, match="weights in safetensors"):
        load(directory)


@pytest.mark.parametrize("honest", [True, False], ids=["weights", "code"])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # between peft and transformers
@pytest.mark.parametrize("apart", [True, False], ids=["adapter apart", "beside its model"])
def test_adapter_in_a_pickle_is_refused(directory, mark, tmp_path, apart, honest):
    from peft import LoraConfig, get_peft_model

    adapter = tmp_path / "adapter"
    get_peft_model(load(directory).model, LoraConfig(r=2, target_modules=["query"])).save_pretrained(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(directory)}))
    home = adapter if apart else directory
    if apart:
        for file in directory.glob("tokenizer*"):
            shutil.copy(file, adapter / file.name)
    else:
        for file in adapter.iterdir():
            shutil.copy(file, directory / file.name)
    load(home)  # in safetensors it is read
    write_pickle(home / "adapter_model.bin", mark, load_file(home / "adapter_model.safetensors") if honest else None)
    (home / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"adapter_model\.bin"):
        load(home)


def test_downloaded_pickles_are_refused(directory, mark):
    """A model of the hub is held to the same, whatever was downloaded."""
    from huggingface_hub.constants import HF_HUB_CACHE

    commit = "0123456789abcdef0123456789abcdef01234567"
    weights = weights_of(directory)
    cases = {
        "index": lambda where: index(where, dict.fromkeys(weights, "weights.bin")),
        "plain": lambda where: (where / "model.safetensors.index.json").unlink(),
    }
    for name, change in cases.items():
        repository = Path(HF_HUB_CACHE) / f"models--softmap--pickle-{name}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        where = repository / "snapshots" / commit
        shutil.copytree(directory, where)
        for file in ("weights.bin", "pytorch_model.bin"):
            write_pickle(where / file, mark, weights)
        change(where)
        with pytest.raises(ModelError) as refusal:
            load(f"softmap/pickle-{name}")
        assert "save_pretrained" in refusal.value.hint


def test_options_can_not_let_a_pickle_in(directory, mark):
    weights = weights_of(directory)
    write_pickle(directory / "pytorch_model.bin", mark, weights)
    with pytest.raises(ParameterError, match="use_safetensors: expected True"):
        load(directory, use_safetensors=False)
    with pytest.raises(ParameterError, match="ignore_mismatched_sizes"):
        load(directory, ignore_mismatched_sizes=False)
    load(directory, use_safetensors=True)


def test_other_threads_read_what_they_like_meanwhile(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "own.pt")
    before, found = torch.load, []
    with no_pickles("a model"):
        thread = threading.Thread(target=lambda: found.append(torch.load(tmp_path / "own.pt")))
        thread.start()
        thread.join()
    assert torch.equal(found[0]["a"], torch.ones(2))
    assert torch.load is torch.serialization.load is before


def test_pickle_that_was_asked_for_is_refused_though_the_library_went_on(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "own.pt")
    with pytest.raises(ModelError, match=r"own\.pt"), no_pickles("a model"), contextlib.suppress(Exception):
        torch.load(tmp_path / "own.pt")
