"""What the tests of recordings share: the sizes of small models, their inputs, and what eager attention gives."""

from __future__ import annotations

import torch

VOCABULARY = 60
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}


def ids_of(count, batch=1):
    return torch.randint(1, VOCABULARY, (batch, count), generator=torch.Generator().manual_seed(count))


def eager(model, **inputs):
    with torch.no_grad():
        return model(**inputs, output_attentions=True, use_cache=False)


def assert_same_weights(rec, attentions, item=0, real=slice(None)):
    assert len(rec) == len(attentions)
    for layer, weights in zip(rec, attentions, strict=True):
        torch.testing.assert_close(layer.dense(), weights[item, :, real, real], atol=2e-6, rtol=0)
