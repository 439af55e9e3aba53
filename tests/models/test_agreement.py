"""softmap's numbers are the model's own: against transformers' eager attention, in every layer and head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from softmap.telling import compare, steps_of

LICENSE = Path(__file__).parents[2] / "LICENSE"
LATENT = {
    **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6},
    **{"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1},
    **{"moe_intermediate_size": 16, "first_k_dense_replace": 1},
}
"""DeepSeek's attention: q and k have 12 dimensions, v has 6."""
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
QUICK = ("accents", "no spaces", "a separator", "white space", "a page of prose")


@pytest.fixture(scope="module")
def largest(request):
    """The largest difference found, by kind, printed at the end."""
    found = {}
    yield found
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print("\nlargest difference:", ", ".join(f"{kind} {value:.2g}" for kind, value in found.items()))


@pytest.fixture
def with_attention(run_through):
    """Record a text with the model set to an attention function; then, from the model itself, its eager weights."""

    def run(loaded, text, implementation="eager"):
        found = loaded.model.config._attn_implementation
        try:
            loaded.model.set_attn_implementation(implementation)
            rec = run_through(loaded, text, truncate=True)
            loaded.model.set_attn_implementation("eager")
            ids = torch.tensor([rec.tokens.ids])
            with torch.no_grad():
                weights = loaded.model(ids, output_attentions=True).attentions
            return rec, [layer[0] for layer in weights]  # (heads, tokens, tokens) of each layer
        finally:
            loaded.model.set_attn_implementation(found)

    return run


def differences(rec, attentions):
    """The largest absolute differences in weights and in output over all heads: of the steps that a story tells."""
    weights = output = 0.0
    for layer, attention in zip(rec.layers, attentions, strict=True):
        for head in range(layer.heads):
            steps, _ = steps_of(layer, head, range(layer.shape[1]))
            weights = max(weights, float(np.abs(steps.weights - attention[head].float().numpy()).max()))
            output = max(output, float(np.abs(steps.output - layer.inside.output[head].numpy()).max()))
    return weights, output


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "text",
    [pytest.param(text, id=name, marks=[pytest.mark.slow] * (name not in QUICK)) for name, text in TEXTS.items()],
)
def test_weights_and_output_are_those_of_eager_attention(bundled, with_attention, largest, text, implementation):
    rec, attentions = with_attention(bundled, text, implementation)
    assert len(rec) == 6
    weights, output = differences(rec, attentions)
    largest["weights"] = max(weights, largest.get("weights", 0))
    largest["output"] = max(output, largest.get("output", 0))
    assert weights <= 2e-6
    assert output <= 2e-6


def test_longest_text_fills_the_model_to_its_limit(bundled, run_through):
    rec = run_through(bundled, TEXTS["a page of prose"], truncate=True)
    assert len(rec.tokens) == 512
    assert all(len(layer.inside.rows) == 512 for layer in rec.layers)


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
        ("gpt2", {}),
        ("llama", {"num_key_value_heads": 2}),
        ("gemma2", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 5, "attn_logit_softcapping": 5.0}),
        (
            "gpt_oss",
            {
                "num_key_value_heads": 2,
                "head_dim": 8,
                "sliding_window": 5,
                "num_local_experts": 2,
                "num_experts_per_tok": 1,
            },
        ),
        ("deepseek_v3", {"num_key_value_heads": 4, **LATENT}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_architectures_agree(make_model, with_attention, largest, architecture, changes):
    loaded = make_model(architecture, **changes)
    rec, attentions = with_attention(loaded, "The cat sat on the unbelievable mat. It didn't 🙂!")
    assert [layer.heads for layer in rec.layers] == [4, 4]
    assert max(float(weights.max()) for weights in attentions) > 0.5  # not all alike, with which much would agree
    weights, output = differences(rec, attentions)
    largest[architecture] = max(weights, output)
    assert weights <= 2e-6
    assert output <= 2e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_steps_of_a_half_precision_model_are_float32_of_its_own_q_k_and_v(make_model, run_through, dtype):
    layer = run_through(make_model(dtype=dtype), "The cat sat on the unbelievable mat.").layers[1]
    assert {layer.q.dtype, layer.inside.x.dtype} == {dtype}
    for head in range(4):
        steps, _ = steps_of(layer, head, range(layer.shape[1]))
        assert {steps.x.dtype, steps.q.dtype, steps.weights.dtype, steps.output.dtype} == {np.dtype("float32")}
        q, k, v = (stage[head].double() for stage in (layer.q, layer.k, layer.v))
        weights = (q @ k.T / 8**0.5).softmax(-1)
        np.testing.assert_allclose(steps.weights, weights, rtol=0, atol=1e-6)
        np.testing.assert_allclose(steps.output, weights @ v, rtol=0, atol=1e-5)
        assert compare(layer, head, steps)[0] <= 2e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision_model_agrees_within_its_rounding(make_model, with_attention, dtype):
    rec, attentions = with_attention(make_model(dtype=dtype), "The cat sat on the unbelievable mat.")
    weights, _ = differences(rec, attentions)
    assert weights <= 16 * torch.finfo(dtype).eps
