"""Capturing a model's attention: what is kept, what it costs, what is refused, and that the model is left alone."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from softmap.errors import ModelError, SoftmapError
from softmap.shares import measure_shares
from softmap.mechanism import PAGE
from softmap.models import LoadedModel
from softmap.models.capture import capture
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
    """Everything about a model that capturing could change."""
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
def long_text(make_model, make_tokenizer):
    """A model with 4,100 positions, and a text of 4,006 tokens."""
    tokenizer = make_tokenizer(limit=4100)
    loaded = make_model("xlm-roberta", tokenizer=tokenizer, max_position_embeddings=4102)
    return loaded, tokenize(loaded, "I love the unbelievable cat on a mat, " * 364)  # 11 tokens each


def test_layers_come_in_order_with_their_paths_and_shapes(bundled, run_through):
    run = run_through(bundled, TEXT)
    tokens = len(run.tokens)
    assert run.shape == (6, 12)
    assert [layer.module for layer in run.layers] == [f"encoder.layer.{i}.attention.self" for i in range(6)]
    for layer in run.layers:
        assert layer.x.shape == (tokens, 384)
        assert layer.output.shape == (12, tokens, 32)
        assert layer.scale == pytest.approx(32**-0.5)
        assert not layer.output.requires_grad


def test_x_is_what_enters_each_layer(bundled, run_through):
    run = run_through(bundled, TEXT)
    with torch.no_grad():
        states = bundled.model(torch.tensor([run.tokens.ids]), output_hidden_states=True).hidden_states
    for layer, state in zip(run.layers, states, strict=False):
        torch.testing.assert_close(layer.x, state[0], rtol=0, atol=1e-6)


def test_layer_that_runs_twice_is_kept_twice(make_model, run_through):
    run = run_through(make_model("albert", embedding_size=16), TEXT)
    first, second = run.layers
    assert first.module == second.module
    assert not torch.equal(first.x, second.x)


def test_weights_of_a_head_are_its_own_columns(bundled, run_through):
    attention = bundled.model.encoder.layer[3].attention.self
    head = run_through(bundled, TEXT).head(3, 7)
    own = slice(7 * 32, 8 * 32)
    for letter, linear in zip("qkv", (attention.query, attention.key, attention.value), strict=True):
        assert torch.equal(getattr(head, f"w_{letter}"), linear.weight.T[:, own])
        assert torch.equal(getattr(head, f"b_{letter}"), linear.bias[own])


def test_biases_of_a_model_without_are_none(make_model, run_through):
    loaded = make_model()
    for layer in loaded.model.encoder.layer:
        for name in ("query", "key", "value"):
            getattr(layer.attention.self, name).bias = None
    head = run_through(loaded, TEXT).head(0, 0)
    assert (head.b_q, head.b_k, head.b_v) == (None, None, None)
    assert head.difference(head.steps(), slice(None)) <= 2e-6


def test_scale_of_the_models_own_is_kept(make_model, run_through):
    loaded = make_model()
    loaded.model.encoder.layer[1].attention.self.scaling = 0.125  # not 8 ** -0.5
    run = run_through(loaded, TEXT)
    assert [layer.scale for layer in run.layers] == [pytest.approx(8**-0.5), 0.125]
    head = run.head(1, 3)
    assert head.difference(head.steps(), slice(None)) <= 2e-6


def test_attention_class_of_ones_own_is_captured(make_model, run_through):
    loaded = make_model()
    for layer in loaded.model.encoder.layer:
        attention = layer.attention.self
        attention.__class__ = type("OwnAttention", (type(attention),), {"__module__": __name__})
    for implementation in ("sdpa", "eager"):
        loaded.model.set_attn_implementation(implementation)
        head = run_through(loaded, TEXT).head(1, 2)
        assert head.difference(head.steps(), slice(None)) <= 2e-6


def test_model_with_a_task_on_top_is_captured(make_model, run_through):
    from transformers import BertForSequenceClassification

    small = make_model()
    loaded = LoadedModel(BertForSequenceClassification(small.model.config).eval(), small.tokenizer, "a classifier")
    run = run_through(loaded, TEXT)
    assert [layer.module for layer in run.layers] == [f"bert.encoder.layer.{i}.attention.self" for i in range(2)]


def test_model_is_left_as_it_was_found(half_trained, run_through):
    found = state_of(half_trained.model)
    run_through(half_trained, TEXT)
    assert state_of(half_trained.model) == found


def test_model_is_left_as_it_was_found_when_its_run_fails(half_trained, run_through):
    layer = half_trained.model.encoder.layer[1]
    layer.output.dense = torch.nn.Linear(63, 32)  # 64 come in
    found = state_of(half_trained.model)
    with pytest.raises(Exception, match="shapes cannot be multiplied"):
        run_through(half_trained, TEXT)
    assert state_of(half_trained.model) == found
    layer.output.dense = torch.nn.Linear(64, 32)
    assert run_through(half_trained, TEXT).shape == (2, 4)


def test_run_that_fails_is_a_model_error_with_its_reason(half_trained, run_through):
    half_trained.model.encoder.layer[1].output.dense = torch.nn.Linear(63, 32)
    with pytest.raises(ModelError, match=r"RuntimeError: .*shapes cannot be multiplied"):
        run_through(half_trained, TEXT)


def test_dropout_is_off_while_a_model_in_training_is_captured(half_trained, run_through):
    model, ids = half_trained.model, torch.tensor([tokenize(half_trained, TEXT).ids])
    assert not torch.equal(model(ids)[0], model(ids)[0])  # it drops out
    training = run_through(half_trained, TEXT)
    model.eval()
    evaluation = run_through(half_trained, TEXT)
    for one, other in zip(training.layers, evaluation.layers, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.output, other.output)


def test_captures_in_several_threads_do_not_disturb_each_other(make_model):
    loaded = make_model(num_hidden_layers=6)
    texts = [TEXT, "I love learning", "It is a cat! " * 4, "the mat"] * 6
    expected = [capture(loaded, tokenize(loaded, text)).layers[-1].output for text in texts]
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda text: capture(loaded, tokenize(loaded, text)), texts))
    assert loaded.model.config._attn_implementation == "sdpa"
    assert [len(run.layers) for run in runs] == [6] * len(texts)
    for run, output in zip(runs, expected, strict=True):
        torch.testing.assert_close(run.layers[-1].output, output)


def test_model_can_be_run_by_others_while_it_is_captured(make_model):
    loaded = make_model(num_hidden_layers=4)
    tokens = tokenize(loaded, TEXT)
    ids = torch.tensor([tokens.ids])
    expected = loaded.model(ids)[0]
    with ThreadPoolExecutor(2) as pool:
        captures = pool.submit(lambda: [capture(loaded, tokens) for _ in range(40)])
        runs = 0
        while not captures.done() or runs < 20:
            torch.testing.assert_close(loaded.model(ids)[0], expected)
            runs += 1
    for run in captures.result():
        assert run.shape == (4, 4)
        assert run.tokens is tokens


def test_one_page_is_one_strip_with_x(make_model, run_through):
    head = run_through(make_model(), TEXT).head(0, 0)
    ((rows, steps),) = head.strips()
    assert rows == slice(0, head.tokens)
    assert steps.x is not None
    assert torch.equal(steps.weights, head.steps().weights)


def test_strips_of_a_long_text_give_the_weights_of_the_whole_matrix(long_text):
    loaded, tokens = long_text
    head = capture(loaded, tokens).head(1, 2)
    assert head.tokens == 4006 > 7 * PAGE
    q, k, v = (
        head.x.double() @ getattr(head, f"w_{letter}").double() + getattr(head, f"b_{letter}").double()
        for letter in "qkv"
    )
    seen = []
    for rows, steps in head.strips():
        seen += range(*rows.indices(head.tokens))
        assert steps.x is None
        assert steps.weights.shape == (rows.stop - rows.start, head.tokens)
        assert rows.stop - rows.start <= PAGE
        whole = (q[rows] @ k.T * head.scale).softmax(-1)
        assert (steps.weights - whole).abs().max() <= 1e-7
        assert (steps.output - whole @ v).abs().max() <= 2e-5
        assert head.difference(steps, rows) <= 2e-5
    assert seen == list(range(4006))


def test_strips_of_some_rows_hold_these_alone(long_text):
    head = capture(*long_text).head(0, 0)
    strips = list(head.strips(slice(1000, 1600)))
    assert [rows for rows, _ in strips] == [slice(1000, 1512), slice(1512, 1600)]
    (whole,) = [steps for rows, steps in head.strips() if rows.start == 1024]
    torch.testing.assert_close(strips[0][1].weights[24:], whole.weights[:488], rtol=0, atol=1e-7)


@pytest.mark.slow
def test_memory_stays_linear_in_a_long_text(long_text):
    loaded, tokens = long_text
    with LargestTensor() as largest:
        run = capture(loaded, tokens)
    widest = 64  # of the numbers a token has: those between the two layers of its perceptron
    assert largest.numbers <= len(tokens) * widest
    with LargestTensor() as largest:
        measure_shares(run, units_of_words(tokens))
    assert largest.numbers == len(tokens) * PAGE


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        pytest.param("gpt2", {}, id="causal, one map to q, k and v"),
        pytest.param("llama", {}, id="causal, rotary"),
        pytest.param("qwen3", {"head_dim": 8, "num_key_value_heads": 2}, id="causal, grouped heads"),
        pytest.param("bert", {"is_decoder": True}, id="BERT as a decoder"),
        pytest.param("clip_text_model", {}, id="causal text tower"),
        pytest.param("bart", {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64}, id="encoder-decoder"),
        pytest.param("whisper", {"decoder_attention_heads": 4}, id="encoder-decoder of speech"),
        pytest.param("modernbert", {}, id="encoder, rotary"),
        pytest.param("esm", {"position_embedding_type": "rotary"}, id="encoder, scaled before rotary"),
        pytest.param("mobilebert", {}, id="encoder, narrow queries"),
        pytest.param("mpnet", {}, id="position bias, beside the interface"),
        pytest.param("deberta-v2", {}, id="disentangled, beside the interface"),
    ],
)
def test_model_beyond_plain_self_attention_is_refused(make_model, run_through, architecture, changes, implementation):
    loaded = make_model(architecture, **changes)
    if implementation != loaded.model.config._attn_implementation:
        loaded.model.set_attn_implementation(implementation)
    found = state_of(loaded.model)
    with pytest.raises(ModelError) as refusal:
        run_through(loaded, TEXT)
    assert refusal.value.subject.startswith(f"a small {architecture}")
    assert "BERT family" in refusal.value.hint
    assert "Error" not in refusal.value.got  # known for what it is, not by how it fails
    assert state_of(loaded.model) == found


def test_causal_attention_is_refused_by_the_path_of_its_layer(make_model, run_through):
    with pytest.raises(ModelError, match=r"encoder\.layer\.0\.attention\.self: .*every token to every token"):
        run_through(make_model(is_decoder=True), TEXT)


def test_mask_of_a_model_is_refused(make_model, run_through):
    loaded = make_model()
    loaded.model.register_forward_pre_hook(
        lambda model, args, kwargs: (args, {**kwargs, "attention_mask": kwargs["attention_mask"].tril(-1)}),
        with_kwargs=True,
    )  # leaves the first token unseen
    with pytest.raises(ModelError, match="every token to every token"):
        run_through(loaded, TEXT)


def test_encoder_decoder_is_refused_by_name(make_model, run_through):
    with pytest.raises(ModelError, match="encoder of the BERT family, got T5Model, an encoder-decoder"):
        run_through(make_model("t5", d_kv=8, d_ff=64), TEXT)


def test_model_with_one_layer_beside_the_interface_is_refused(make_model, run_through):
    class Mean(torch.nn.Module):
        def forward(self, hidden_states, *args, **kwargs):
            return hidden_states.mean(1, keepdim=True).expand_as(hidden_states), None

    loaded = make_model()
    loaded.model.encoder.layer[1].attention.self = Mean()
    with pytest.raises(ModelError, match=r"expected 2 attention layers .*, got 1 in BertModel"):
        run_through(loaded, TEXT)


def test_position_bias_is_refused_by_name(make_model, run_through):
    from transformers import T5EncoderModel

    small = make_model("t5", d_kv=8, d_ff=64)
    encoder = LoadedModel(T5EncoderModel(small.model.config), small.tokenizer, "an encoder of T5")
    with pytest.raises(ModelError, match=r"block\.0.*position bias"):
        run_through(encoder, TEXT)


@pytest.mark.parametrize("architecture", ["vit", "clip"])
def test_model_of_pictures_is_refused(make_tokenizer, run_through, architecture):
    from transformers import AutoConfig, AutoModel

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    parts = {"text_config": {**small, "vocab_size": 27, "eos_token_id": 2}, "vision_config": small}
    config = AutoConfig.for_model(architecture, **(parts if architecture == "clip" else small))
    model = AutoModel.from_config(config)
    with pytest.raises(SoftmapError, match=f"a model of {architecture}"):
        run_through(LoadedModel(model, make_tokenizer(), f"a model of {architecture}"), TEXT)


def test_nothing_is_logged_while_capturing(make_model, run_through, caplog):
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
