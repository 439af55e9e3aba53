"""How closely every head's four steps agree with transformers' own eager attention, and with float64.

python -m benchmarks.agreement
"""

from __future__ import annotations

import torch

from softmap import models
from softmap.mechanism import self_attention
from softmap.models.capture import capture
from softmap.tokens import tokenize

TEXTS = {
    "three words": "I love learning",
    "one word": "attention",
    "punctuation": "?!... --- ;;; ()",
    "emoji": "I ❤️ learning 🤖🚀",
    "Chinese": "我爱学习，因为世界很大。",
    "paragraph": "The committee, which had met twice before, finally agreed that the bridge should be rebuilt. " * 4,
    "512 tokens": "A dot product is a similarity, so the row says how similar the query is to every key. " * 40,
}


def main() -> None:
    """Print the largest absolute differences over all layers and heads, text by text."""
    loaded = models.load()
    loaded.model.set_attn_implementation("eager")
    print(f"{loaded.name}, float32, all layers and heads; largest absolute difference")
    print(f"{'text':14}{'tokens':>8}{'weights':>12}{'output':>12}{'output, from torch SDPA in float64':>36}")
    for name, text in TEXTS.items():
        tokens = tokenize(loaded, text, truncate=True)
        with torch.no_grad():
            eager = loaded.model(input_ids=torch.tensor([tokens.ids]), output_attentions=True).attentions
        run = capture(loaded, tokens)
        weights = output = double = 0.0
        for layer in range(run.shape[0]):
            for index in range(run.shape[1]):
                head = run.head(layer, index)
                steps = head.steps()
                weights = max(weights, float((steps.weights - eager[layer][0, index]).abs().max()))
                output = max(output, head.difference(steps, slice(None)))
                double = max(double, _difference_in_float64(head.x, head.w_q, head.w_k, head.w_v, head.scale))
        print(f"{name:14}{len(tokens):8}{weights:12.1e}{output:12.1e}{double:36.1e}")


def _difference_in_float64(
    x: torch.Tensor, w_q: torch.Tensor, w_k: torch.Tensor, w_v: torch.Tensor, scale: float
) -> float:
    """Between `self_attention` and torch's scaled_dot_product_attention on the same weights in float64."""
    steps = self_attention(x.double(), w_q.double(), w_k.double(), w_v.double(), scale=scale)
    q, k, v = (stage[None, None] for stage in (steps.q, steps.k, steps.v) if isinstance(stage, torch.Tensor))
    peer = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)[0, 0]
    return float((steps.output - peer).abs().max())  # type: ignore[operator]  # v was given


if __name__ == "__main__":
    main()
