"""How closely every head's four steps agree with transformers' own eager attention, and with float64.

python -m benchmarks.agreement
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from softmap import models
from softmap.mechanism import Steps
from softmap.models.record import record_inside
from softmap.telling import compare, steps_of
from softmap.tokens import tokenize

if TYPE_CHECKING:
    from softmap.recorded import RecordedLayer

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
        recording = record_inside(loaded, tokens)
        weights = output = double = 0.0
        for layer, attention in zip(recording.layers, eager, strict=True):
            double = max(double, _difference_in_float64(layer))
            for head in range(layer.heads):
                steps, _ = steps_of(layer, head, range(len(tokens)))
                weights = max(weights, float(np.abs(steps.weights - attention[0, head].numpy()).max()))
                output = max(output, compare(layer, head, steps)[0] or 0.0)
        print(f"{name:14}{len(tokens):8}{weights:12.1e}{output:12.1e}{double:36.1e}")


def _difference_in_float64(layer: RecordedLayer) -> float:
    """Between the four steps and torch's scaled_dot_product_attention on the layer's own q, k and v in float64."""
    assert layer.q is not None
    assert layer.k is not None
    assert layer.v is not None
    q, k, v = (stage.double() for stage in (layer.q, layer.k, layer.v))
    peer = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], scale=layer.scale)[0]
    outputs = [Steps.from_qkv(q[i], k[i], v[i], scale=layer.scale).output for i in range(layer.heads)]
    return max(float((output - own).abs().max()) for output, own in zip(outputs, peer, strict=True))


if __name__ == "__main__":
    main()
