"""The zoo: tiny random models of many architectures, which softmap records or refuses (docs/reference/models.md)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from makers import (
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
    encoder_decoder,
    packed_texts,
    pictures,
    pictures_in_text,
    prefixed_texts,
    qwen_pictures,
    text,
    two_texts,
    two_towers,
)
from zoo_masks import UNUSUAL

TYPES = ["sliding_attention", "full_attention"]
MIXED = {"layer_types": TYPES, "sliding_window": WINDOW}
SLIDING = {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": WINDOW}
SCALED = {"query_pre_attn_scalar": 2}
CAPPED = {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
RANKS = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16}
LATENT = {**RANKS, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}
GROUPS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1}
ROUTED = {**GROUPS, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 8}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
T5 = {
    **{"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4},
    **{"vocab_size": VOCABULARY, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16},
    **{"pad_token_id": 0, "decoder_start_token_id": 0},
}
BART = {
    **{"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64},
    **{"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "vocab_size": VOCABULARY},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2},
}
MOONSHINE = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
LLAMA = {"model_type": "llama"}
PER_LAYER = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}
SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False}


def _whisper() -> Example:
    settings = {**BART, "num_mel_bins": 8, "max_source_positions": 15, "max_target_positions": 32}
    model = build("whisper", configure("whisper", **settings))
    return Example(model, {"input_features": torch.randn(2, 8, 30)} | an_answer())


def _moonshine() -> Example:
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in MOONSHINE.items()}
    config = configure(
        "moonshine", hidden_size=32, intermediate_size=64, vocab_size=VOCABULARY, pad_token_id=0, **sizes
    )
    return Example(build("moonshine", config), {"input_values": torch.randn(2, 4000)} | an_answer())


def _wav2vec2() -> Example:
    front = {"conv_dim": [8, 8], "conv_kernel": [4, 4], "conv_stride": [2, 2], "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "apply_spec_augment": False}
    model = build("wav2vec2", configure("wav2vec2", **SIZES, **front, **positions))
    return Example(model, {"input_values": torch.randn(2, 90)})


def _parakeet() -> Example:
    front = {"num_mel_bins": 8, "subsampling_conv_channels": 4, "conv_kernel_size": 3}
    model = build("parakeet_encoder", configure("parakeet_encoder", **SIZES, **front))
    return Example(model, {"input_features": torch.randn(2, 90, 8), "attention_mask": torch.ones(2, 90).long()})


def _swin() -> Example:
    sizes = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 4}
    return Example(build("swin", configure("swin", **sizes)), {"pixel_values": torch.randn(2, 3, 16, 16)})


def _videomae() -> Example:
    model = build("videomae", configure("videomae", **VISION, num_frames=4, tubelet_size=2))
    return Example(model, {"pixel_values": torch.randn(2, 4, 3, 12, 12)})


def _bert_to_bert() -> Example:
    from transformers import EncoderDecoderConfig, EncoderDecoderModel

    config = EncoderDecoderConfig.from_encoder_decoder_configs(configure("bert", **TEXT), configure("bert", **TEXT))
    model = build("encoder-decoder", config, kind=EncoderDecoderModel)
    return Example(model, two_texts("right") | an_answer())


def _t5gemma() -> Example:
    part = {**TEXT, **GROUPED, **MIXED, **CAPPED}
    parts = {"encoder": part, "decoder": {**part, "cross_attention_hidden_size": 32}}
    return Example(
        build("t5gemma", configure("t5gemma", **parts, vocab_size=VOCABULARY)), two_texts("right") | an_answer()
    )


def _mllama() -> Example:
    sizes = {"hidden_size": 16, "attention_heads": 2, "num_hidden_layers": 2, "num_global_layers": 1}
    tiles = {"image_size": 8, "patch_size": 4, "supported_aspect_ratios": [[1, 1], [1, 2]], "max_num_tiles": 2}
    vision = {**sizes, **tiles, "intermediate_size": 32, "vision_output_dim": 32, "intermediate_layers_indices": [0]}
    rotary = {"rope_type": "default", "rope_theta": 1e4}
    words = {**TEXT, **GROUPED, "cross_attention_layers": [1], "rope_parameters": rotary}
    model = build("mllama", configure("mllama", text_config=words, vision_config=vision, image_token_index=PICTURE))
    inputs: dict[str, Any] = two_texts("left", 24, 20)
    inputs["input_ids"][[0, 1], [2, 6]] = PICTURE
    inputs |= {"pixel_values": torch.randn(2, 1, 2, 3, 8, 8), "cross_attention_mask": torch.ones(2, 24, 1, 2).long()}
    inputs |= {"aspect_ratio_ids": torch.tensor([[1], [2]]), "aspect_ratio_mask": torch.tensor([[[1, 0]], [[1, 1]]])}
    return Example(model, inputs)


def _siglip2(**head: bool) -> Example:
    sizes = {**SIZES, "patch_size": 4, "num_patches": 9}
    model = build("siglip2", configure("siglip2_vision_model", **sizes, **head))
    patches = {"pixel_values": torch.randn(2, 9, 48), "spatial_shapes": torch.tensor([[3, 3], [3, 2]])}
    return Example(model, patches | {"pixel_attention_mask": torch.tensor([[1] * 9, [1] * 6 + [0] * 3])})


def _pixtral() -> Example:
    parts = {"text_config": {**TEXT, **GROUPED, **LLAMA}, "vision_config": {**VISION, "model_type": "pixtral"}}
    features = {"image_token_id": PICTURE, "vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    model = build("pixtral", configure("llava", **parts, **features))
    ids = torch.randint(3, 90, (1, LENGTH))
    ids[0, 1:10] = ids[0, 12:18] = PICTURE
    pixels = {"pixel_values": torch.randn(2, 3, 12, 12), "image_sizes": torch.tensor([[12, 12], [8, 12]])}
    return Example(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | pixels)


def _phi4_multimodal() -> Example:
    sound = {**SIZES, "num_blocks": 2, "input_size": 16, "nemo_conv_channels": 8, "ext_pw_out_channel": 32}
    sound |= {"depthwise_separable_out_channel": 32, "bias_max_distance": 10, "nemo_activation": "relu"}
    parts = {"vision_config": {**VISION, "crop_size": 12}, "audio_config": sound}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "num_key_value_heads": 2}
    return Example(build("phi4_multimodal", configure("phi4_multimodal", **TEXT, **ends, **parts)), two_texts("left"))


def _after_the_prefix(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"token_type_ids": (torch.arange(ids.shape[1]) >= 16).long().expand(len(ids), -1)}


def _in_a_picture(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"token_type_ids": (ids == PICTURE).long()}


ENTRIES = (
    # Encoders
    text("bert", "right", "both ways"),
    text("roberta", "right", "both ways"),
    text("distilbert", "right", "both ways", hidden_dim=64),
    text("electra", "right", "both ways", embedding_size=16),
    text("albert", "right", "both ways; one module runs as every layer", embedding_size=16),
    text("esm", "right", "both ways; scales q before it rotates", position_embedding_type="rotary"),
    text("mobilebert", "right", "both ways; narrow q and k", width=0.16, embedding_size=16, intra_bottleneck_size=16),
    text("modernbert", "right", "both ways; window in some layers", layer_types=TYPES, local_attention=WINDOW),
    # Decoders
    text("bert as a decoder", "left", "causal", architecture="bert", is_decoder=True),
    text("gpt2", "left", "causal"),
    text(
        "gpt2 with scales of layers",
        "right",
        "causal; scale by the number of the layer, own float32 attention beside eager's",
        architecture="gpt2",
        scale_attn_by_inverse_layer_idx=True,
        reorder_and_upcast_attn=True,
    ),
    text("gpt_bigcode", "right", "causal; one key head for all"),
    text("gpt_neox", "left", "causal; rotates a part of each head", rotary_pct=0.5),
    text("opt", "right", "causal; scales q itself", ffn_dim=64, word_embed_proj_dim=32),
    text("llama", "left", "causal; GQA", **GROUPED),
    text("llama, packed", "", "causal in each of several texts", architecture="llama", inputs=packed_texts, **GROUPED),
    text("llama, prefix", "", "a mask of numbers", architecture="llama", width=0.2, inputs=prefixed_texts, **GROUPED),
    text("mistral", "right", "causal; GQA, window", sliding_window=WINDOW, **GROUPED),
    text("mixtral", "left", "causal; GQA, window, experts", sliding_window=WINDOW, **LOCAL_EXPERTS, **GROUPED),
    text("qwen2", "right", "causal; GQA, window in some layers", **SLIDING, **GROUPED),
    text("qwen3", "left", "causal; GQA, norms of q and k, window in some layers", **SLIDING, **GROUPED),
    text("qwen3_moe", "right", "causal; GQA, experts", **EXPERTS, **GROUPED),
    text("gemma", "left", "causal; GQA", **GROUPED),
    text("gemma2", "right", "causal; GQA, soft cap, window in some layers", **CAPPED, **MIXED, **GROUPED),
    text("gemma3_text", "left", "causal; GQA, norms of q and k, window in some layers", **SCALED, **MIXED, **GROUPED),
    text(
        "gemma3_text, both ways",
        "right",
        "both ways; GQA, window in some layers",
        architecture="gemma3_text",
        use_bidirectional_attention=True,
        **SCALED,
        **MIXED,
        **GROUPED,
    ),
    text("vaultgemma", "left", "causal; GQA, soft cap, window in some layers", **CAPPED, **MIXED, **GROUPED),
    text("phi", "left", "causal; GQA, norms of q and k", num_key_value_heads=2, qk_layernorm=True),
    text("phi3", "right", "causal; GQA, window", num_key_value_heads=2, sliding_window=WINDOW),
    text("stablelm", "left", "causal; GQA, norms of each head", num_key_value_heads=2, qk_layernorm=True),
    text("olmo2", "right", "causal; GQA, norms of q and k", num_key_value_heads=2),
    text("olmo3", "left", "causal; GQA, norms of q and k, window in some layers", num_key_value_heads=2, **MIXED),
    text("cohere", "left", "causal; GQA, norms of q and k", num_key_value_heads=2, use_qk_norm=True),
    text("cohere2", "right", "causal; GQA, window in some layers", num_key_value_heads=2, **MIXED),
    text("glm4", "left", "causal; GQA, rotates a part of each head", partial_rotary_factor=0.5, **GROUPED),
    text("granite", "right", "causal; GQA, scale of its own", num_key_value_heads=2, attention_multiplier=0.3),
    text("starcoder2", "left", "causal; GQA, window", num_key_value_heads=2, sliding_window=WINDOW),
    text("gpt_oss", "right", "causal; GQA, sinks, window in some layers, experts", **LOCAL_EXPERTS, **MIXED, **GROUPED),
    text(
        "deepseek_v3",
        "left",
        "causal; values narrower than keys, scale of YaRN, experts",
        rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "mscale_all_dim": 1.0},
        **LATENT,
        **ROUTED,
    ),
    text("minicpm3", "right", "causal; values narrower than keys", **LATENT),
    text(
        "llama4_text",
        "left",
        "causal; GQA, chunks in some layers, scale by position in others",
        attention_chunk_size=WINDOW,
        layer_types=["chunked_attention", "full_attention"],
        no_rope_layers=[1, 0],
        intermediate_size_mlp=64,
        floor_scale=4,
        num_local_experts=2,
        **GROUPED,
    ),
    text("smollm3", "right", "causal; GQA, no positions in some layers", num_key_value_heads=2, no_rope_layers=[1, 0]),
    text("nemotron", "left", "causal; GQA", width=0.15, **GROUPED),
    text("ernie4_5", "right", "causal; GQA", **GROUPED),
    text("exaone4", "left", "causal; GQA, norms of q and k, window in some layers", **MIXED, **GROUPED),
    text("helium", "right", "causal; GQA", **GROUPED),
    text(
        "granite_swa",
        "left",
        "causal; GQA, sinks after attention, window in some layers",
        sinks_apart=True,
        attention_multiplier=0.35,
        **MIXED,
        **GROUPED,
    ),
    text(
        "mimo_v2_flash",
        "right",
        "causal; GQA, sinks and window in some layers, narrow values, experts",
        v_head_dim=4,
        **{**ROUTED, "n_group": 1},
        **MIXED,
        **GROUPED,
    ),
    text("modernbert-decoder", "left", "causal; window in some layers", layer_types=TYPES, local_attention=WINDOW),
    text(
        "gemma3n_text",
        "right",
        "causal; GQA, the last layer has an earlier one's keys",
        num_hidden_layers=3,
        layer_types=[*TYPES, "full_attention"],
        sliding_window=WINDOW,
        num_kv_shared_layers=1,
        altup_num_inputs=2,
        laurel_rank=4,
        activation_sparsity_pattern=[0.0] * 3,
        **PER_LAYER,
        **GROUPED,
    ),
    text(
        "gemma4_text",
        "left",
        "causal; GQA, wider heads in some layers, window in others",
        global_head_dim=16,
        num_kv_shared_layers=0,
        **PER_LAYER,
        **MIXED,
        **GROUPED,
    ),
    text("biogpt", "right", "causal"),
    text("ctrl", "left", "causal", dff=64),
    text("glm4_moe", "right", "causal; GQA, experts", **{**ROUTED, "n_group": 1}, **GROUPED),
    # Hybrids
    text(
        "qwen3_next",
        "left",
        "causal; GQA, gated",
        others="Qwen3NextGatedDeltaNet",
        layer_types=["linear_attention", "full_attention"],
        **DELTA,
        **EXPERTS,
        **GROUPED,
        shared_expert_intermediate_size=16,
    ),
    text(
        "jamba",
        "right",
        "causal; GQA",
        others="JambaMambaMixer",
        num_key_value_heads=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=2,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    text("bamba", "left", "causal; GQA", others="BambaMixer", num_key_value_heads=2, attn_layer_indices=[1], **MAMBA),
    text("falcon_h1", "right", "causal; GQA, beside a state space in every layer", mamba_d_ssm=64, **MAMBA, **GROUPED),
    text(
        "lfm2",
        "left",
        "causal; GQA",
        others="Lfm2ShortConv",
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
    ),
    text(
        "recurrent_gemma",
        "right",
        "causal; window, one key head",
        others="RecurrentGemmaRecurrentBlock",
        num_key_value_heads=1,
        head_dim=8,
        block_types=["recurrent", "attention"],
        attention_window_size=WINDOW,
        lru_width=32,
    ),
    text(
        "minimax",
        "right",
        "causal; GQA, experts",
        others="MiniMaxLightningAttention",
        layer_types=["linear_attention", "full_attention"],
        num_local_experts=2,
        block_size=8,
        **GROUPED,
    ),
    text(
        "granitemoehybrid",
        "left",
        "causal; GQA, experts",
        others="GraniteMoeHybridMambaLayer",
        num_key_value_heads=2,
        layer_types=["mamba", "attention"],
        num_local_experts=2,
        num_experts_per_tok=1,
        shared_intermediate_size=32,
        attention_multiplier=0.35,
        **MAMBA,
    ),
    text(
        "zamba2",
        "right",
        "causal; one module runs in several layers",
        others="Zamba2MambaMixer",
        width=0.15,
        num_hidden_layers=3,
        layer_types=["mamba", "hybrid", "hybrid"],
        num_mem_blocks=1,
        hybrid_layer_ids=[1, 2],
        n_mamba_heads=4,
        mamba_d_state=4,
        mamba_ngroups=1,
        mamba_headdim=16,
        chunk_size=8,
        attention_head_dim=16,
        use_mem_rope=True,
        use_mamba_kernels=False,
    ),
    text(
        "kimi_linear",
        "left",
        "causal; values narrower than keys, experts",
        others="KimiLinearDeltaAttention",
        layer_types=["linear_attention", "full_attention"],
        **{**LATENT, "q_lora_rank": None},
    ),
    # Encoders and decoders
    encoder_decoder("t5", "position bias, no scale; cross", width=0.15, **T5),
    encoder_decoder("mt5", "position bias, no scale; cross", width=0.15, **T5),
    encoder_decoder("umt5", "position bias in every layer, no scale; cross", width=0.15, **T5),
    encoder_decoder("bart", "cross", **BART),
    encoder_decoder("mbart", "cross", **BART),
    encoder_decoder("marian", "cross", **BART),
    encoder_decoder("pegasus", "cross", **BART),
    encoder_decoder("m2m_100", "cross", **BART),
    Entry("t5gemma", "GQA, soft cap, window in some layers; cross", _t5gemma),
    Entry("encoder-decoder", "two BERTs; cross", _bert_to_bert),
    Entry("whisper", "sound; cross", _whisper),
    Entry("moonshine", "sound, rotary; cross", _moonshine),
    Entry("wav2vec2", "sound, both ways", _wav2vec2),
    Entry("parakeet_encoder", "sound, both ways; positions in the scores, which come as a mask of numbers", _parakeet),
    # Pictures
    pictures("vit", "both ways"),
    pictures("deit", "both ways"),
    pictures("dinov2", "both ways"),
    pictures("dinov3_vit", "both ways; rotary"),
    pictures("beit", "both ways; position bias", use_relative_position_bias=True),
    pictures("siglip_vision_model", "both ways", others="SiglipMultiheadAttentionPoolingHead"),
    pictures("clip_vision_model", "both ways"),
    Entry("siglip2_vision_model", "both ways; padded", partial(_siglip2, vision_use_head=False)),
    Entry("videomae", "both ways", _videomae),
    two_towers("clip", "causal text, pictures both ways"),
    two_towers("siglip", "text and pictures both ways", others="SiglipMultiheadAttentionPoolingHead"),
    pictures_in_text(
        "llava",
        "causal text, pictures both ways",
        words=LLAMA,
        vision={"model_type": "clip_vision_model"},
        patches=9,
        vision_feature_layer=-1,
    ),
    pictures_in_text(
        "paligemma",
        "a prefix with its picture is seen both ways",
        words={"model_type": "gemma"},
        vision=SIGLIP,
        patches=9,
        kinds=_after_the_prefix,
        projection_dim=32,
        hidden_size=32,
    ),
    pictures_in_text(
        "gemma3",
        "pictures are seen both ways in causal text; window in some layers",
        words={"model_type": "gemma3_text", **SCALED, **MIXED},
        vision={**SIGLIP, "image_size": 16},
        patches=4,
        shape=(2, 3, 16, 16),
        kinds=_in_a_picture,
        mm_tokens_per_image=4,
    ),
    pictures_in_text(
        "idefics3",
        "causal text, pictures both ways",
        words=LLAMA,
        vision={"image_size": 16},
        patches=4,
        shape=(2, 1, 3, 16, 16),
        scale_factor=2,
    ),
    pictures_in_text(
        "smolvlm",
        "causal text, pictures both ways",
        words=LLAMA,
        vision={"image_size": 16},
        patches=4,
        shape=(2, 1, 3, 16, 16),
        scale_factor=2,
    ),
    Entry("llava with pixtral", "pictures side by side in one sequence; a mask of numbers", _pixtral),
    Entry("mllama", "text that looks at pictures; a mask of numbers for tiles", _mllama),
    qwen_pictures("qwen2_vl", "each picture by itself", embed_dim=32, mlp_ratio=2),
    qwen_pictures(
        "qwen2_5_vl",
        "each picture by itself, in windows in some layers",
        out_hidden_size=32,
        intermediate_size=64,
        window_size=16,
        fullatt_block_indexes=[1],
    ),
    qwen_pictures(
        "qwen3_vl",
        "each picture by itself",
        out_hidden_size=32,
        intermediate_size=64,
        num_position_embeddings=16,
        deepstack_visual_indexes=[0],
    ),
    Entry(
        "phi4_multimodal, text",
        "causal; GQA; no pictures and no sound",
        _phi4_multimodal,
        others="Phi4MultimodalFeatureEmbedding",
    ),
    Entry(
        "siglip2_vision_model with its head",
        "both ways; padded, a head that uses the mask too",
        _siglip2,
        others="Siglip2MultiheadAttentionPoolingHead",
    ),
    *UNUSUAL,
    # Refused
    text("deberta", "right", "positions inside the scores", refused="DebertaAttention"),
    text("deberta-v2", "right", "positions inside the scores", refused="DebertaV2Attention"),
    text("mpnet", "right", "position bias, code of its own", refused="MPNetAttention"),
    text("longformer", "right", "code of its own", attention_window=WINDOW, refused="LongformerAttention"),
    text("convbert", "right", "code of its own", embedding_size=32, head_ratio=1, refused="ConvBertAttention"),
    text("bloom", "left", "position bias, code of its own", refused="BloomAttention"),
    text("falcon", "right", "code of its own", refused="FalconAttention"),
    text("mpt", "right", "position bias, code of its own", refused="MptAttention"),
    text(
        "gpt_neo",
        "left",
        "code of its own",
        attention_types=[[["global", "local"], 1]],
        window_size=WINDOW,
        refused="GPTNeoAttention",
    ),
    text("gptj", "right", "code of its own", rotary_dim=4, refused="GPTJAttention"),
    text("diffllama", "left", "the difference of two softmaxes", num_key_value_heads=2, refused="DiffLlamaAttention"),
    Entry("swin", "windows in place of sequences", _swin, "expected no bias where several pictures are seen apart"),
    encoder_decoder("longt5", "blocks, code of its own", width=0.15, refused="LongT5LayerLocalSelfAttention", **T5),
    text("mamba", "left", "no softmax attention", refused="MambaModel"),
    text("fnet", "", "no softmax attention", refused="FNetModel"),
)
