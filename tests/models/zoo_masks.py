"""Models of the zoo that do something unusual with their masks, their attention function, or their batch."""

from __future__ import annotations

from typing import Any

import torch
from makers import (
    ANSWER,
    GROUPED,
    LENGTH,
    PICTURE,
    SIZES,
    TEXT,
    VISION,
    VOCABULARY,
    WINDOW,
    Entry,
    Example,
    an_answer,
    build,
    configure,
    text,
    two_texts,
)

LATENT = {
    **{"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16},
    **{"qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6},
}
ROUTED = {
    **{"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1},
    **{"moe_intermediate_size": 16, "first_k_dense_replace": 1},
}
INDEXER = {"index_topk": 4, "index_n_heads": 2, "index_head_dim": 8}


def boxes() -> dict[str, Any]:
    """Two texts, each of their tokens in a box on its page."""
    corner = torch.randint(0, 40, (2, LENGTH, 2))
    return {**two_texts("right"), "bbox": torch.cat([corner, corner + 9], -1)}


def paths() -> dict[str, Any]:
    """Two texts, each of their tokens at a place in its page's tree."""
    of = {f"xpath_{part}_seq": torch.randint(0, 9, (2, LENGTH, 50)) for part in ("tags", "subs")}
    return {**two_texts("right"), **of}


def kosmos2_text() -> Example:
    """The text model of Kosmos-2, two texts padded on the left."""
    from transformers import Kosmos2Config
    from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2TextModel

    sizes = {"embed_dim": 32, "layers": 2, "ffn_dim": 64, "attention_heads": 4, "vocab_size": VOCABULARY}
    config = Kosmos2Config(text_config={**sizes, "max_position_embeddings": 64, "pad_token_id": 0}).text_config
    return Example(build("kosmos-2", config, kind=Kosmos2TextModel), two_texts("left"))


def t5gemma2() -> Example:
    """A decoder whose attention looks at its own text and the encoder's in one."""
    types = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
    part = {**TEXT, **GROUPED, **types, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0}
    vision = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
    encoder = {"text_config": {**part, "model_type": "t5gemma2_text"}, "vision_config": vision}
    config = configure("t5gemma2", encoder=encoder, decoder=part, vocab_size=VOCABULARY)
    return Example(build("t5gemma2", config), two_texts("right") | an_answer())


def timesfm() -> Example:
    """A model of time series."""
    series = {"patch_length": 4, "context_length": 64, "horizon_length": 8, "freq_size": 3, "head_dim": 8}
    inputs = {"past_values": torch.randn(2, 32), "past_values_padding": torch.zeros(2, 32)}
    model = build("timesfm", configure("timesfm", **SIZES, **series))
    return Example(model, {**inputs, "freq": torch.zeros(2, 1).long()})


def phi4_pictures() -> Example:
    """The model of pictures of Phi-4, which has an attention function of its own beside that of its text."""
    from transformers.models.phi4_multimodal import modeling_phi4_multimodal as phi4

    config = phi4.Phi4MultimodalVisionConfig(**VISION)
    model = build("phi4_multimodal", config, kind=phi4.Phi4MultimodalVisionModel)
    seen = torch.ones(2, 3, 3, dtype=torch.bool)
    return Example(model, {"pixel_values": torch.randn(2, 3, 12, 12), "patch_attention_mask": seen})


def lasr() -> Example:
    """A model of sound that hides frames in its convolutions by its mask."""
    front = {"num_mel_bins": 8, "subsampling_conv_channels": 4, "num_key_value_heads": 4, "conv_kernel_size": 3}
    model = build("lasr_encoder", configure("lasr_encoder", **SIZES, **front))
    return Example(model, {"input_features": torch.randn(2, 90, 8), "attention_mask": torch.ones(2, 90).long()})


def florence2(texts: int = 1) -> Example:
    """Pictures in windows, and channels that look at channels, before an encoder and a decoder of text."""
    stages = {"embed_dim": [16, 32], "num_heads": [2, 4], "num_groups": [2, 4], "depths": [1, 1], "window_size": 4}
    patches = {"patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1], "patch_prenorm": [False, True]}
    vision = {"model_type": "florence_vision", "projection_dim": 32, "drop_path_rate": 0.0, **stages, **patches}
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in {"layers": 1, "ffn_dim": 32}.items()}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "d_model": 32, "vocab_size": VOCABULARY}
    words = {"model_type": "bart", "max_position_embeddings": 96, "pad_token_id": 0, **sizes, **heads}
    model = build("florence2", configure("florence2", vision_config=vision, text_config=words, image_token_id=PICTURE))
    ids = torch.randint(3, 90, (texts, 23))
    ids[:, :17] = PICTURE  # 4 x 4 patches and one for all
    answer = torch.randint(3, 90, (texts, ANSWER))
    pixels = torch.randn(texts, 3, 32, 32)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    return Example(model, {**inputs, "decoder_input_ids": answer})


UNUSUAL = (
    text("layoutlm", "", "both ways; a mask of numbers", inputs=boxes, max_2d_position_embeddings=64),
    text("markuplm", "", "both ways; a mask of numbers", inputs=paths),
    Entry("kosmos-2, its text", "causal; a mask of numbers", kosmos2_text),
    text("deepseek_v32", "right", "causal; an indexer chooses keys for each query", **INDEXER, **LATENT, **ROUTED),
    text("glm_moe_dsa", "left", "causal; an indexer chooses keys for each query", **INDEXER, **LATENT, **ROUTED),
    text("doge", "right", "causal; GQA, a bias made of values", num_key_value_heads=2),
    Entry(
        "t5gemma2",
        "GQA, soft cap, window; a decoder sees its own text and the other in one",
        t5gemma2,
        others="SiglipVisionModel",
    ),
    Entry("timesfm", "time series, causal", timesfm),
    Entry("lasr_encoder", "sound, both ways", lasr),
    Entry(
        "phi4_multimodal, its pictures",
        "both ways",
        phi4_pictures,
        others="Phi4MultimodalVisionMultiheadAttentionPoolingHead",
    ),
    Entry("florence2", "pictures in windows and by channels, cross attention of text", florence2),
)
