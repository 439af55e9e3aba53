"""softmap's numbers are the model's own: against transformers' eager attention, in every layer and head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

LICENSE = Path(__file__).parents[2] / "LICENSE"
TEXTS = {
    "three words": "I love learning",
    "one word": "attention",
    "one character": "a",
    "punctuation": "?!... -- ;:",
    "emoji": "🙂🚀 👨‍👩‍👧",
    "Chinese": "我爱学习，因为学习让人快乐。",
    "English and Chinese": "self-attention 就是自注意力 (Vaswani et al., 2017)",
    "one word again and again": "buffalo " * 24,
    "upper and lower case": "Polish POLISH polish",
    "numbers": "3.14159 1e-9 42 1,000,000 0x1F -273.15",
    "a URL": "https://arxiv.org/abs/1706.03762?context=cs.CL#section.3",
    "code": "def f(x): return {k: v ** 2 for k, v in x.items() if k != '\\n'}",
    "one long word": "pneumonoultramicroscopicsilicovolcanoconiosis",
    "no spaces": "thequickbrownfoxjumpsoverthelazydog",
    "accents": "Le cœur déçu mais l'âme plutôt naïve, Ångström, İstanbul",
    "right to left": "שלום עולם and مرحبا بالعالم",
    "Cyrillic and Greek": "Съешь же ещё этих мягких французских булок; ξεσκεπάζω",
    "Hangul and Kana": "안녕하세요 こんにちは カタカナ",
    "a mask": "The capital of France is [MASK].",
    "a separator": "How are you? [SEP] Fine, thank you.",
    "contractions": "don't can't I'd've y'all'd",
    "white space": " \t two\n\nlines   of  text \u3000",
    "two sentences": "The animal didn't cross the street because it was too tired. It was late.",
    "mathematics": "softmax(q·kᵀ / √d_k) ≤ 1 ∀ i, j ∈ ℕ",
    "a garden path": "The horse raced past the barn fell.",
    "a page of prose": LICENSE.read_text(),
}


@pytest.fixture(scope="module")
def largest(request):
    """The largest difference found, by kind, printed at the end."""
    found = {}
    yield found
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print("\nlargest difference:", ", ".join(f"{kind} {value:.2g}" for kind, value in found.items()))


@pytest.fixture
def with_attention(run_through):
    """Capture a text with the model set to another attention function; then, from the model itself, its weights."""

    def run(loaded, text, implementation):
        found = loaded.model.config._attn_implementation
        loaded.model.set_attn_implementation(implementation)
        try:
            capture = run_through(loaded, text, truncate=True)
            if implementation != "eager":
                return capture, None
            with torch.no_grad():
                weights = loaded.model(torch.tensor([capture.tokens.ids]), output_attentions=True).attentions
            return capture, torch.stack(weights)[:, 0]  # (layers, heads, tokens, tokens)
        finally:
            loaded.model.set_attn_implementation(found)

    return run


def differences(capture, attentions=None):
    """The largest absolute differences in weights and in output over all layers and heads."""
    weights = output = 0.0
    for layer in range(capture.shape[0]):
        for head in range(capture.shape[1]):
            told = capture.head(layer, head)
            steps = told.steps()
            output = max(output, float((steps.output - told.output).abs().max()))
            if attentions is not None:
                weights = max(weights, float((steps.weights - attentions[layer, head]).abs().max()))
    return weights, output


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_weights_and_output_are_those_of_eager_attention(bundled, with_attention, largest, text):
    capture, attentions = with_attention(bundled, text, "eager")
    assert attentions.shape == (*capture.shape, len(capture.tokens), len(capture.tokens))
    weights, output = differences(capture, attentions)
    largest["weights, eager"] = max(weights, largest.get("weights, eager", 0))
    largest["output, eager"] = max(output, largest.get("output, eager", 0))
    assert weights <= 2e-6
    assert output <= 2e-6


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_output_is_that_of_the_fused_kernel(bundled, with_attention, largest, text):
    capture, _ = with_attention(bundled, text, "sdpa")
    _, output = differences(capture)
    largest["output, sdpa"] = max(output, largest.get("output, sdpa", 0))
    assert output <= 5e-6


def test_longest_text_fills_the_model_to_its_limit(bundled, run_through):
    capture = run_through(bundled, TEXTS["a page of prose"], truncate=True)
    assert len(capture.tokens) == 512


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("bert", {}),
        ("roberta", {}),
        ("xlm-roberta", {}),
        ("camembert", {}),
        ("distilbert", {}),
        ("electra", {"embedding_size": 16}),
        ("albert", {"embedding_size": 16}),
        ("ernie", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_architectures_of_the_family_agree(make_model, with_attention, largest, architecture, changes):
    loaded = make_model(architecture, **changes)
    capture, attentions = with_attention(loaded, "The cat sat on the unbelievable mat. It didn't 🙂!", "eager")
    assert capture.shape == (2, 4)
    assert attentions.max() > 0.5  # no head of equal weights, with which much would agree
    weights, output = differences(capture, attentions)
    largest[architecture] = max(weights, output)
    assert weights <= 2e-6
    assert output <= 2e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision_model_gives_float32_steps_within_its_rounding(make_model, with_attention, dtype):
    loaded = make_model(dtype=dtype)
    capture, attentions = with_attention(loaded, "The cat sat on the unbelievable mat.", "eager")
    rounding = torch.finfo(dtype).eps
    for layer in range(2):
        for head in range(4):
            told = capture.head(layer, head)
            steps = told.steps()
            assert {steps.x.dtype, steps.q.dtype, steps.weights.dtype, steps.output.dtype} == {torch.float32}
            assert (steps.weights - attentions[layer, head].float()).abs().max() <= 8 * rounding
            assert (steps.output - told.output.float()).abs().max() <= 8 * rounding * steps.v.abs().max()
            assert steps.weights.sum(axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_steps_of_a_half_precision_model_are_rounded_as_float32(make_model, run_through, dtype):
    told = run_through(make_model(dtype=dtype), "The cat sat on the unbelievable mat.").head(1, 2)
    x, w_q, w_k, w_v = (array.double() for array in (told.x, told.w_q, told.w_k, told.w_v))
    scaled = (x @ w_q + told.b_q.double()) @ (x @ w_k + told.b_k.double()).T / 8**0.5
    output = scaled.softmax(-1) @ (x @ w_v + told.b_v.double())
    assert (told.steps().output - output).abs().max() <= 1e-5
