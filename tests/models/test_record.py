"""Recording a text for its story: what is kept, what it costs, what is refused, and that the model is left alone."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import softmap
from softmap.errors import ModelError, RecordingError, SoftmapError
from softmap.matrix.lookup import STRIP
from softmap.models import LoadedModel
from softmap.models.comparing import SAMPLE
from softmap.models.record import record_inside
from softmap.shares import measure_shares, tellable
from softmap.telling import compare, steps_of
from softmap.tokens import tokenize
from softmap.words import units_of_words

TEXT = "The cat sat on the unbelievable mat."


class LargestTensor(TorchDispatchMode):
    """How many numbers the largest tensor has that torch makes in the meantime."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(made, torch.Tensor):
                self.numbers = max(self.numbers, made.numel())
        return result


def state_of(model):
    """Everything about a model that recording could change."""
    hooks = {
        name: [list(getattr(module, kind)) for kind in vars(module) if kind.endswith("_hooks")]
        for name, module in model.named_modules()
    }
    return {
        "attention": model.config._attn_implementation,
        "config": model.config.to_dict(),
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": hooks,
        "weights": {name: value.tolist() for name, value in model.state_dict().items()},
        "gradients": {name: (value.requires_grad, value.grad) for name, value in model.named_parameters()},
        "recording gradients": torch.is_grad_enabled(),
    }


def difference(layer, head):
    """How far a head's output is from that of the model's own function."""
    steps, _ = steps_of(layer, head, range(layer.shape[1]))
    return compare(layer, head, steps)[0]


@pytest.fixture
def half_trained(make_model):
    """A model set to eager attention, in training mode but for one frozen part, with a hook of its own."""
    loaded = make_model(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    loaded.model.set_attn_implementation("eager")
    loaded.model.train()
    loaded.model.embeddings.eval()
    loaded.model.encoder.layer[1].attention.self.register_forward_pre_hook(lambda module, args: None)
    return loaded


@pytest.fixture
def make_long_text(make_model, make_tokenizer):
    """A model with 4,100 positions, and a text of 4,006 tokens."""

    def make(architecture="xlm-roberta", **changes):
        tokenizer = make_tokenizer(limit=4100)
        loaded = make_model(architecture, tokenizer=tokenizer, max_position_embeddings=4102, **changes)
        return loaded, tokenize(loaded, "I love the unbelievable cat on a mat, " * 364)  # 11 tokens each

    return make


def test_layers_come_in_order_with_their_paths_and_shapes(bundled, run_through):
    rec = run_through(bundled, TEXT)
    tokens = len(rec.tokens)
    assert [layer.path for layer in rec.layers] == [f"encoder.layer.{i}.attention.self" for i in range(6)]
    for layer in rec.layers:
        assert layer.shape == (12, tokens, tokens)
        assert layer.inside.x.shape == (tokens, 384)
        assert layer.inside.output.shape == (12, tokens, 32)
        assert layer.inside.rows.tolist() == list(range(tokens))
        assert layer.inside.biases == ("q", "k", "v")
        assert layer.scale == pytest.approx(32**-0.5)
        assert not any(array.requires_grad for array in (layer.q, layer.v, layer.inside.x, layer.inside.output))


def test_x_is_what_enters_each_layer(bundled, run_through):
    rec = run_through(bundled, TEXT)
    own = bundled.model.config._attn_implementation
    bundled.model.set_attn_implementation("eager")
    with torch.no_grad():
        states = bundled.model(torch.tensor([rec.tokens.ids]), output_hidden_states=True).hidden_states
    bundled.model.set_attn_implementation(own)
    for layer, state in zip(rec.layers, states, strict=False):
        torch.testing.assert_close(layer.inside.x, state[0], rtol=0, atol=1e-6)


def test_output_is_the_models_own_eager_functions(bundled, run_through):
    rec = run_through(bundled, TEXT)
    for layer in rec.layers:
        expected = (layer.q @ layer.k.mT * layer.scale).softmax(-1) @ layer.v
        torch.testing.assert_close(layer.inside.output, expected, rtol=0, atol=2e-6)


def test_what_is_inside_is_kept_for_stories_alone(bundled):
    assert all(layer.inside is None for layer in softmap.record(TEXT, bundled).layers)


def test_layer_that_runs_twice_is_kept_twice(make_model, run_through):
    first, second = run_through(make_model("albert", embedding_size=16), TEXT).layers
    assert first.path == second.path
    assert not torch.equal(first.inside.x, second.inside.x)


def test_q_k_and_v_of_a_head_are_its_own_columns_of_the_projections(bundled, run_through):
    attention, layer = bundled.model.encoder.layer[3].attention.self, run_through(bundled, TEXT).layers[3]
    own = slice(7 * 32, 8 * 32)
    with torch.no_grad():
        for stage, linear in zip("qkv", (attention.query, attention.key, attention.value), strict=True):
            torch.testing.assert_close(getattr(layer, stage)[7], linear(layer.inside.x)[:, own], rtol=0, atol=2e-6)


def test_biases_that_a_model_has_are_named(make_model, run_through):
    loaded = make_model()
    for layer in loaded.model.encoder.layer:
        layer.attention.self.query.bias = layer.attention.self.value.bias = None
    assert [layer.inside.biases for layer in run_through(loaded, TEXT).layers] == [("k",)] * 2


def test_scale_of_the_models_own_is_kept(make_model, run_through):
    loaded = make_model()
    loaded.model.encoder.layer[1].attention.self.scaling = 0.125  # not 8 ** -0.5
    rec = run_through(loaded, TEXT)
    assert [layer.scale for layer in rec.layers] == [pytest.approx(8**-0.5), 0.125]
    assert difference(rec.layers[1], 3) <= 2e-6


def test_attention_class_of_ones_own_is_recorded(make_model, run_through):
    loaded = make_model()
    for layer in loaded.model.encoder.layer:
        attention = layer.attention.self
        attention.__class__ = type("OwnAttention", (type(attention),), {"__module__": __name__})
    for implementation in ("sdpa", "eager"):
        loaded.model.set_attn_implementation(implementation)
        assert difference(run_through(loaded, TEXT).layers[1], 2) <= 2e-6


def test_model_with_a_task_on_top_is_recorded(make_model, run_through):
    from transformers import BertForSequenceClassification

    small = make_model()
    loaded = LoadedModel(BertForSequenceClassification(small.model.config).eval(), small.tokenizer, "a classifier")
    rec = run_through(loaded, TEXT)
    assert [layer.path for layer in rec.layers] == [f"bert.encoder.layer.{i}.attention.self" for i in range(2)]


def test_model_is_left_as_it_was_found(half_trained, run_through):
    found = state_of(half_trained.model)
    run_through(half_trained, TEXT)
    assert state_of(half_trained.model) == found


def test_model_is_left_as_it_was_found_when_its_run_fails(half_trained, run_through):
    layer = half_trained.model.encoder.layer[1]
    layer.output.dense = torch.nn.Linear(63, 32)  # 64 come in
    found = state_of(half_trained.model)
    with pytest.raises(ModelError, match=r"RuntimeError: .*shapes cannot be multiplied"):
        run_through(half_trained, TEXT)
    assert state_of(half_trained.model) == found
    layer.output.dense = torch.nn.Linear(64, 32)
    assert len(run_through(half_trained, TEXT)) == 2


def test_dropout_is_off_while_a_model_in_training_is_recorded(half_trained, run_through):
    model, ids = half_trained.model, torch.tensor([tokenize(half_trained, TEXT).ids])
    assert not torch.equal(model(ids)[0], model(ids)[0])  # it drops out
    training = run_through(half_trained, TEXT)
    model.eval()
    evaluation = run_through(half_trained, TEXT)
    for one, other in zip(training.layers, evaluation.layers, strict=True):
        assert torch.equal(one.inside.x, other.inside.x)
        assert torch.equal(one.inside.output, other.inside.output)


def test_recordings_in_several_threads_do_not_disturb_each_other(make_model):
    loaded = make_model(num_hidden_layers=6)
    texts = [TEXT, "I love learning", "It is a cat! " * 4, "the mat"] * 6
    expected = [record_inside(loaded, tokenize(loaded, text)).layers[-1].inside.output for text in texts]
    with ThreadPoolExecutor(4) as pool:
        recordings = list(pool.map(lambda text: record_inside(loaded, tokenize(loaded, text)), texts))
    assert loaded.model.config._attn_implementation == "sdpa"
    assert [len(rec) for rec in recordings] == [6] * len(texts)
    for rec, output in zip(recordings, expected, strict=True):
        torch.testing.assert_close(rec.layers[-1].inside.output, output)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_model_can_be_run_and_trained_by_others_while_it_is_recorded(make_model, architecture, implementation):
    loaded = make_model(architecture, num_hidden_layers=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    loaded.model.set_attn_implementation(implementation)
    tokens = tokenize(loaded, TEXT)
    ids = torch.tensor([tokens.ids])
    expected = loaded.model(ids)[0]
    with ThreadPoolExecutor(2) as pool:
        recordings = pool.submit(lambda: [record_inside(loaded, tokens) for _ in range(20)])
        runs = 0
        while not recordings.done() or runs < 20:
            output = loaded.model(ids)[0]
            torch.testing.assert_close(output, expected)
            assert output.requires_grad
            runs += 1
    for rec in recordings.result():
        assert len(rec) == 4
        assert rec.tokens is tokens


def test_of_a_long_text_some_rows_are_compared_the_last_among_them(make_long_text):
    rec = record_inside(*make_long_text())
    for layer in rec.layers:
        rows = layer.inside.rows
        assert (len(rows), int(rows[-1])) == (SAMPLE, 4005)
        weights = (layer.q[:, rows].double() @ layer.k.double().mT * layer.scale).softmax(-1)
        torch.testing.assert_close(layer.inside.output.double(), weights @ layer.v.double(), rtol=0, atol=2e-5)
        assert layer.inside.x.shape == (4006, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "most"),
    [
        ("xlm-roberta", 4006 * 64),  # 64: the most numbers a token has, between the two layers of its perceptron
        ("gemma2", STRIP),  # windows and soft caps are swept, a strip at a time
    ],
)
def test_memory_stays_linear_in_a_long_text(make_long_text, architecture, most):
    loaded, tokens = make_long_text(architecture)
    with LargestTensor() as largest:
        rec = record_inside(loaded, tokens)
    assert largest.numbers <= most
    with LargestTensor() as largest:
        measure_shares(rec.layers, units_of_words(tokens))
    assert largest.numbers <= STRIP < len(tokens) ** 2


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        pytest.param("gpt2", {}, id="causal, one map to q, k and v"),
        pytest.param("llama", {"num_key_value_heads": 2}, id="causal, rotary, grouped heads"),
        pytest.param("gemma2", {"head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 5.0}, id="soft cap"),
        pytest.param("bert", {"is_decoder": True}, id="BERT as a decoder"),
        pytest.param("clip_text_model", {}, id="causal text tower"),
        pytest.param("bart", {"encoder_layers": 2, "decoder_layers": 1}, id="encoder-decoder"),
        pytest.param("t5", {"d_kv": 8, "d_ff": 64}, id="position bias"),
        pytest.param("modernbert", {}, id="encoder, rotary"),
        pytest.param("esm", {"position_embedding_type": "rotary"}, id="encoder, scaled before rotary"),
        pytest.param("mobilebert", {}, id="encoder, narrow queries"),
    ],
)
def test_models_beyond_plain_self_attention_are_recorded(
    make_model, run_through, architecture, changes, implementation
):
    loaded = make_model(architecture, **changes)
    if implementation == "eager":
        loaded.model.set_attn_implementation("eager")
    found = state_of(loaded.model)
    rec = run_through(loaded, TEXT)
    assert state_of(loaded.model) == found
    for number in tellable(rec):
        layer = rec.layers[number]
        size = float(layer.inside.output.abs().max())
        assert all(difference(layer, head) <= 5e-6 * size for head in range(layer.heads))


def test_decoder_that_starts_with_the_token_of_padding_is_recorded(make_tokenizer, run_through):
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    part = {**sizes, "head_dim": 8, "intermediate_size": 64, "vocab_size": 30, "pad_token_id": 0}
    parts = {"encoder": part, "decoder": {**part, "cross_attention_hidden_size": 32}}
    config = AutoConfig.for_model("t5gemma", **parts, vocab_size=30, decoder_start_token_id=0)
    rec = run_through(LoadedModel(AutoModel.from_config(config).eval(), make_tokenizer(), "a small t5gemma"), TEXT)
    assert [(layer.part, layer.kind) for layer in rec.layers] == [
        ("encoder", "self"),
        ("decoder", "self"),
        ("decoder", "cross"),
    ]
    assert tellable(rec) == (0,)


def test_plain_projections_are_told_from_positions_and_norms(make_model, run_through):
    plain = {"bert": True, "t5": True, "llama": False, "gpt2": False}
    for architecture, is_plain in plain.items():
        layer = run_through(make_model(architecture), TEXT).layers[0]
        assert (layer.inside.x is not None) == is_plain


@pytest.mark.parametrize("architecture", ["mpnet", "deberta-v2"])
def test_model_with_attention_beside_the_interface_is_refused(make_model, run_through, architecture):
    loaded = make_model(architecture)
    found = state_of(loaded.model)
    with pytest.raises(ModelError, match=rf"a small {architecture}: .*would not be seen: encoder\.layer\.0\.attention"):
        run_through(loaded, TEXT)
    assert state_of(loaded.model) == found


class Mean(torch.nn.Module):
    def forward(self, hidden_states, *args, **kwargs):
        return hidden_states.mean(1, keepdim=True).expand_as(hidden_states), None


class Softmax(torch.nn.Module):
    def forward(self, hidden_states, *args, **kwargs):
        return (hidden_states @ hidden_states.mT).softmax(-1) @ hidden_states, None


def test_model_with_one_attention_layer_beside_the_interface_is_refused(make_model, run_through):
    loaded = make_model()
    loaded.model.encoder.layer[1].attention.self = Softmax()
    with pytest.raises(ModelError, match=r"would not be seen: encoder\.layer\.1\.attention \("):
        run_through(loaded, TEXT)


def test_layer_that_takes_the_mean_in_the_place_of_attention_is_listed(make_model, run_through):
    loaded = make_model()
    loaded.model.encoder.layer[1].attention.self = Mean()
    others = run_through(loaded, TEXT).others
    assert [(other.path, other.why) for other in others] == [("encoder.layer.1.attention", "no softmax attention")]


def test_attention_that_computes_something_else_is_refused_by_its_path(make_model, run_through, monkeypatch):
    loaded = make_model()
    attention = loaded.model.encoder.layer[1].attention.self
    home = sys.modules[type(attention).__module__]
    eager = home.eager_attention_forward

    def doubled(module, *args, **kwargs):
        output, weights = eager(module, *args, **kwargs)
        return (2 if module is attention else 1) * output, weights

    monkeypatch.setattr(home, "eager_attention_forward", doubled)
    with pytest.raises(ModelError, match=r"encoder\.layer\.1\.attention\.self: expected the output of the model's own"):
        run_through(loaded, TEXT)


def test_weights_that_are_no_numbers_are_refused_by_the_layer(make_model, run_through):
    loaded = make_model()
    loaded.model.encoder.layer[1].attention.self.key.weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"encoder\.layer\.1\.attention\.self: expected finite numbers in q and k"):
        run_through(loaded, TEXT)


def test_layers_that_see_less_than_the_text_are_not_told(make_model, run_through):
    loaded = make_model()

    def hide_the_last(model, args, kwargs):
        kwargs["attention_mask"][:, -1] = 0

    loaded.model.register_forward_pre_hook(hide_the_last, with_kwargs=True)
    with pytest.raises(RecordingError, match="a layer in which the tokens of the text look at each other, got none"):
        tellable(run_through(loaded, TEXT))


@pytest.mark.parametrize("architecture", ["vit", "clip"])
def test_model_of_pictures_is_refused(make_tokenizer, run_through, architecture):
    from transformers import AutoConfig, AutoModel

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    parts = {"text_config": {**small, "vocab_size": 27, "eos_token_id": 2}, "vision_config": small}
    config = AutoConfig.for_model(architecture, **(parts if architecture == "clip" else small))
    model = AutoModel.from_config(config)
    with pytest.raises(SoftmapError, match=f"a model of {architecture}"):
        run_through(LoadedModel(model, make_tokenizer(), f"a model of {architecture}"), TEXT)


def test_nothing_is_logged_while_recording(make_model, run_through, caplog):
    mpnet, bert = make_model("mpnet"), make_model()
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        run_through(bert, TEXT)
        with pytest.raises(ModelError):
            run_through(mpnet, TEXT)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.messages == []
