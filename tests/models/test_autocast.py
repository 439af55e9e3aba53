"""Recordings under torch.autocast, and under other settings of torch's that change what is computed in."""

from __future__ import annotations

import contextlib

import pytest
import torch
from decoders import ids_of

import softmap

IDS = ids_of(12)
KINDS = [
    ("llama", {}),
    ("qwen3", {"head_dim": 8}),
    ("gemma2", {"head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 5.0}),
    ("gpt_oss", {"sliding_window": 8, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}),
]


def halves(dtype=torch.bfloat16):
    return torch.autocast("cpu", dtype=dtype)


@pytest.mark.parametrize(("kind", "changes"), KINDS)
def test_under_autocast_the_weights_are_the_models_to_the_rounding_of_its_dtype(make_decoder, kind, changes):
    model = make_decoder(kind, **changes)
    with halves():
        with torch.no_grad():
            expected = model(IDS, output_attentions=True, use_cache=False)
        with softmap.recording(model) as rec:
            output = model(IDS, use_cache=False)
        for layer, weights in zip(rec.layers, expected.attentions, strict=True):
            torch.testing.assert_close(layer.matrix.dense(), weights[0].float(), atol=0.02, rtol=0)
    assert torch.equal(output.logits, expected.logits)
    assert {layer.q.dtype for layer in rec.layers} == {layer.k.dtype for layer in rec.layers} == {torch.bfloat16}
    assert all(layer.difference < 1e-5 for layer in rec.layers)
    assert (rec.origin.dtype, rec.origin.stored) == ("bfloat16", "bfloat16")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["sdpa", "eager", "softmap"])
def test_every_way_to_record_is_exact_under_autocast(make_decoder, tmp_path, dtype, implementation):
    model = make_decoder()
    model.set_attn_implementation(implementation)
    with halves(dtype):
        ways = [
            softmap.record(IDS, model),
            softmap.record(IDS, model, chunk=5),
            softmap.record(IDS, model, out=tmp_path / "run.softmap"),
        ]
        with softmap.recording(model) as inside:
            model(IDS)
        ways.append(inside.recording)
    with softmap.recording(model) as outside, halves(dtype):
        model.generate(IDS[:, :8], max_new_tokens=4, min_new_tokens=4, do_sample=False)
    ways += [outside.recording, softmap.load(tmp_path / "run.softmap")]
    for rec in ways:
        assert all(layer.difference < 0.02 for layer in rec.layers)  # what a run of a cache continues is rounded
        assert rec.origin.stored == str(dtype).removeprefix("torch.")
        for layer in rec.layers:  # the numbers of q and k as they are kept, with nothing rounded on the way
            scaled = layer.q.double() @ layer.k.double().repeat_interleave(2, 0).mT * layer.scale
            hidden = torch.ones(scaled.shape[1:]).triu(1).bool()
            weights = scaled.masked_fill(hidden, -torch.inf).softmax(-1)
            torch.testing.assert_close(layer.matrix.dense().double(), weights, atol=1e-5, rtol=0)


def test_float64_stays_float64_under_autocast(make_decoder):
    with halves():
        layer = softmap.record(IDS, make_decoder().double()).layers[1]
    assert layer.q.dtype == torch.float64


def test_encoder_decoder_and_padded_batch_are_recorded_under_autocast(make_seq2seq):
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    inputs = {"input_ids": ids_of(9, batch=2), "attention_mask": mask, "decoder_input_ids": ids_of(4, batch=2)}
    for kind in ("bart", "t5"):
        with halves():
            rec = softmap.record(inputs, make_seq2seq(kind))
        assert all(layer.difference < 1e-5 for item in range(2) for layer in rec.batch(item).layers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_story_is_told_under_autocast(bundled, dtype):
    with halves(dtype):
        story = softmap.explain("I love learning", model=bundled, layer=2, head=3)
    assert story.source.dtype == str(dtype).removeprefix("torch.")
    assert story.source.difference < 1e-5
    assert story.steps.x is not None
    assert story.biases == ("q", "k", "v")
    plain = softmap.explain("I love learning", model=bundled, layer=2, head=3)
    assert abs(story.steps.weights - plain.steps.weights).max() < 0.05
    assert abs(story.steps.weights.sum(1) - 1).max() < 1e-6


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_default_dtype_changes_no_number(make_decoder, make_seq2seq, bundled, dtype):
    models = [make_decoder(), make_decoder("mistral", sliding_window=4), make_seq2seq("t5")]
    long = ids_of(600)
    recordings = []
    for settings in (contextlib.nullcontext(), default_dtype(dtype)):
        with settings:
            of = [softmap.record(IDS, model) for model in models]
            of += [softmap.record(long, models[0]), softmap.record(IDS, models[0], chunk=5)]
            of += [softmap.record("I love learning", bundled)]
            recordings.append([layer for rec in of for layer in rec.layers])
    for one, other in zip(*recordings, strict=True):
        assert torch.equal(one.q, other.q)
        assert one.difference == other.difference
        assert torch.equal(one.summary.received, other.summary.received)


def test_the_default_device_is_not_where_softmap_computes(make_decoder):
    model = make_decoder()
    with softmap.recording(model) as rec, torch.device("meta"):
        model(IDS)
    assert torch.equal(rec.layers[1].matrix.dense(), softmap.record(IDS, model).layers[1].matrix.dense())
