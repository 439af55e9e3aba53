"""What a model is given beside ids: a tokenizer's own words about its text, arrays of NumPy, numbers that are none."""

from __future__ import annotations

import pytest
import torch
from decoders import ids_of

import softmap
from softmap.errors import ModelError

TEXT = "I love learning"


@pytest.mark.parametrize("asked", ["offsets_mapping", "special_tokens_mask", "length", "overflowing_tokens"])
def test_what_a_tokenizer_says_beside_its_ids_is_let_pass(bundled, asked):
    encoded = bundled.tokenizer(TEXT, return_tensors="pt", **{f"return_{asked}": True})
    assert len(encoded) > 3
    expected, rec = softmap.record(TEXT, bundled), softmap.record(encoded, bundled)
    torch.testing.assert_close(rec[3].dense(), expected[3].dense())


@pytest.mark.parametrize("texts", [TEXT, [TEXT, "I"]])
def test_arrays_of_numpy_are_read_as_tensors_are(bundled, texts):
    arrays, tensors = (
        softmap.record(bundled.tokenizer(texts, padding=True, return_tensors=kind), bundled) for kind in ("np", "pt")
    )
    torch.testing.assert_close(arrays.batch(0)[3].dense(), tensors.batch(0)[3].dense())
    assert len(arrays.sequences) == len(tensors.sequences)


def test_argument_that_no_attention_takes_is_refused_with_what_to_do(llama):
    with pytest.raises(ModelError, match=r"got foo\. .* Leave out what you gave the model that it has no use for"):
        softmap.record({"input_ids": ids_of(4), "foo": 1}, llama)


def test_v_that_is_no_number_is_named(make_decoder):
    model = make_decoder()
    model.model.layers[1].self_attn.v_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"layers\.1\.self_attn: expected finite numbers in v, got NaN"):
        softmap.record(ids_of(5), model)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_scores_beyond_float32_are_the_models_own_fault(make_decoder, implementation):
    model = make_decoder()
    model.set_attn_implementation(implementation)
    for projection in ("q_proj", "k_proj"):
        getattr(model.model.layers[1].self_attn, projection).weight.data *= 1e20
    with pytest.raises(ModelError, match=r"expected scores and an output that float32 holds"):
        softmap.record(ids_of(5), model)


def test_run_that_only_traces_is_refused_as_such(make_decoder):
    model = make_decoder(use_cache=False)
    with pytest.raises(ModelError, match="one that only traces"), softmap.recording(model):
        torch.export.export(model, (ids_of(5),), strict=False)


def test_try_after_one_that_failed_is_refused_at_once_by_the_true_reason(llama):
    failing = llama.model.layers[1].register_forward_pre_hook(_fail)
    with pytest.raises(ModelError, match="one after one that failed"), softmap.recording(llama):  # noqa: PT012
        try:
            llama(ids_of(7))
        except MemoryError:
            failing.remove()
        llama(ids_of(5))


def _fail(*_):
    raise MemoryError
