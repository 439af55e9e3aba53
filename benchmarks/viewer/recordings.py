"""What the viewers are shown: python -m benchmarks.viewer.recordings TOKENS FOLDER

Up to 512 tokens all-MiniLM-L6-v2 (6 layers of 12 heads); beyond, a Llama with random weights (4 layers of 8 heads on 2 key
heads), both on the same text.
"""

from __future__ import annotations

import logging
import sys

import torch
from scripts.make_small_llama import TEXT, a_text, make_tokenizer
from transformers import LlamaConfig, LlamaModel

import softmap

LONGEST = 512
"""What MiniLM reads."""


def main(tokens: int, folder: str) -> None:
    """Record it."""
    logging.disable()
    if tokens <= LONGEST:
        loaded = softmap.models.load()
        assert loaded.tokenizer is not None
        ids = loaded.tokenizer(TEXT, truncation=True, max_length=tokens, return_offsets_mapping=True)
        text = TEXT[: max(stop for _, stop in ids["offset_mapping"])]
        softmap.record(text, loaded, truncate=True, out=folder)
        return
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=131_072,
    )
    model = LlamaModel(config).eval()
    softmap.record(a_text(tokenizer, tokens), model, tokenizer=tokenizer, out=folder)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
