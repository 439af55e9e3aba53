"""What softmap records of a model is what its own eager attention gives, architecture by architecture."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
from functools import cache
from pathlib import Path

import pytest
import torch
from verify import (
    Verdict,
    implementations,
    largest_difference,
    mean_difference,
    real_weights,
    run_eagerly,
    verify,
    weights_of,
)
from zoo import ENTRIES

import softmap
from softmap.errors import ParameterError

ROOT = Path(__file__).parents[2]
BY_NAME = {entry.name: entry for entry in ENTRIES}
RECORDED = [entry.name for entry in ENTRIES if not entry.refused]
REFUSED = [entry.name for entry in ENTRIES if entry.refused]
HYBRIDS = [entry.name for entry in ENTRIES if entry.others and "causal" in entry.remarks]
WEIGHTS = 3e-6
"""How far a weight may be from eager attention's, in float32: both round scores of up to about 20."""
OUTPUT = 4e-6
"""Likewise the model's output, relative to its largest number: rounding, after two layers of everything."""
CHECKED = 1e-5
"""Likewise of the model's output, under sdpa too, which sums in another order."""
PEAK = 1.5
"""How much more than the average key the first key of the median row has, at the least."""
NARROW = 1.1
"""How far bfloat16 weights may be from float32's, in the mean, relative to how far eager attention's are."""
CACHED = "gpt2 opt llama mistral qwen2 gemma2 gemma3_text phi3 gpt_oss deepseek_v3 minicpm3 llama4_text"


def unpadded(inputs):
    """The inputs of a model, all tokens real and of one kind, as it is called on a text by itself."""
    real = {
        key: torch.ones_like(x) if key.endswith("attention_mask") and x.ndim == 2 else x for key, x in inputs.items()
    }
    return {key: x for key, x in real.items() if key != "token_type_ids"}


@cache
def verdict(name: str) -> Verdict:
    return verify(BY_NAME[name])


def test_zoo_has_each_name_once():
    assert len(BY_NAME) == len(ENTRIES)
    assert len(RECORDED) >= 45
    assert len(REFUSED) >= 10


@pytest.mark.parametrize("name", RECORDED)
def test_weights_are_those_of_eager_attention(name):
    found = verdict(name)
    assert found.refusal is None
    assert found.weights <= WEIGHTS


@pytest.mark.parametrize("name", RECORDED)
def test_output_of_the_model_is_that_of_eager_attention(name):
    assert verdict(name).output <= OUTPUT


@pytest.mark.parametrize("name", RECORDED)
def test_every_attention_layer_is_recorded_in_its_order(name):
    found = verdict(name)
    assert len(found.paths) == len(found.eager_paths) > 0
    if all(found.eager_paths):
        assert found.paths == found.eager_paths


@pytest.mark.parametrize("name", RECORDED)
def test_weights_that_the_model_returns_are_among_those_compared(name):
    others = {"minimax": 1, "t5gemma2": 4}  # of linear attention, which it returns too; parts of those it has in one
    assert verdict(name).missed == others.get(name, 0)


@pytest.mark.parametrize("name", [name for name in RECORDED if BY_NAME[name].remarks.endswith("cross")])
def test_layers_are_told_apart_as_the_model_does(name):
    found = verdict(name)
    assert found.kinds == found.eager_kinds


@pytest.mark.parametrize("name", RECORDED)
def test_attention_of_the_zoo_is_far_from_uniform(name):
    assert verdict(name).peak >= PEAK


@pytest.mark.parametrize("name", RECORDED)
def test_layers_without_attention_are_listed(name):
    expected = BY_NAME[name].others
    assert verdict(name).others == ((expected,) if expected else ())


@pytest.mark.parametrize("name", REFUSED)
def test_model_that_cannot_be_seen_into_is_refused_by_what_would_be_missed(name):
    refusal = verdict(name).refusal
    assert refusal is not None
    assert BY_NAME[name].refused in str(refusal)


@pytest.mark.parametrize("name", BY_NAME)
def test_attention_functions_of_the_model_are_put_back(name):
    assert verdict(name).restored


@pytest.mark.parametrize("name", ["bert", "t5", "llava", "qwen2_vl", "encoder-decoder"])
def test_attention_functions_are_put_back_after_an_exception(name):
    model, inputs = BY_NAME[name].make()
    found = implementations(model)
    with pytest.raises(ZeroDivisionError), softmap.recording(model):  # noqa: PT012  # what is raised is in the block
        assert implementations(model) != found
        model(**inputs)
        raise ZeroDivisionError
    assert implementations(model) == found


@pytest.mark.parametrize("name", ["bert", "mistral", "qwen3_next", "t5", "vit", "gemma3", "qwen2_5_vl"])
def test_record_gives_what_recording_gives(name):
    model, inputs = BY_NAME[name].make()
    with softmap.recording(model) as watched:
        model(**inputs)
    recorded = softmap.record(inputs, model)
    for one, other in zip(recorded.sequences, watched.sequences, strict=True):
        assert [layer.path for layer in one.layers] == [layer.path for layer in other.layers]
        assert all(
            torch.equal(a.q, b.q) and torch.equal(a.k, b.k) for a, b in zip(one.layers, other.layers, strict=True)
        )


@pytest.mark.parametrize("name", RECORDED)
def test_record_checked_against_the_model_as_it_is_loaded(name):
    model, inputs = BY_NAME[name].make()
    with contextlib.suppress(ValueError):  # some models know eager attention only
        model.set_attn_implementation("sdpa")
    assert softmap.record(unpadded(inputs), model, check=True).origin.checked <= CHECKED


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECORDED if "indexer" not in BY_NAME[name].remarks])
def test_bfloat16_is_as_close_to_exact_weights_as_eager_attention_is(name):
    model, inputs = BY_NAME[name].make()
    exact, _ = run_eagerly(copy.deepcopy(model.to(torch.bfloat16)).float(), inputs)
    inputs = {key: x.bfloat16() if torch.is_tensor(x) and x.is_floating_point() else x for key, x in inputs.items()}
    eager, _ = run_eagerly(model, inputs)
    with softmap.recording(model) as recorded:
        model(**inputs)
    apart = BY_NAME[name].sinks_apart
    ours = mean_difference(weights_of(recorded, sinks_apart=apart), real_weights(exact, inputs))
    assert ours <= NARROW * mean_difference(real_weights(eager, inputs), real_weights(exact, inputs))


@pytest.mark.parametrize("chunk", [8, 3])
@pytest.mark.parametrize("name", CACHED.split())
def test_weights_with_a_cache_are_those_of_one_run(name, chunk):
    model, inputs = BY_NAME[name].make()
    seen, _ = run_eagerly(model, inputs)
    recorded = softmap.record(inputs, model, chunk=chunk)
    assert largest_difference(weights_of(recorded), real_weights(seen, inputs)) <= WEIGHTS


@pytest.mark.parametrize("name", [*HYBRIDS, "bert", "gemma3_text, both ways"])
def test_chunks_are_refused_where_the_model_would_compute_something_else(name):
    model, inputs = BY_NAME[name].make()
    with pytest.raises(ParameterError, match="decoder of text"):
        softmap.record(inputs, model, chunk=8)


def test_page_on_models_lists_the_zoo():
    spec = importlib.util.spec_from_file_location("make_models_table", ROOT / "scripts" / "make_models_table.py")
    make_models_table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_models_table)
    page = (ROOT / "docs" / "reference" / "models.md").read_text(encoding="utf-8")
    expected = make_models_table.page(BY_NAME, {name: verdict(name) for name in BY_NAME})
    without_numbers = make_models_table.without_numbers
    assert without_numbers(page) == without_numbers(expected), "run scripts/make_models_table.py"
