"""Small random models, by the name of their architecture."""

from __future__ import annotations

import pytest
import torch
from decoders import SIZES, VOCABULARY


@pytest.fixture(scope="session")
def make_decoder():
    """A small random decoder, by the name of its architecture."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    def make(kind="llama", **changes):
        torch.manual_seed(0)
        config = CONFIG_MAPPING[kind](**SIZES | changes)
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()

    return make


@pytest.fixture(scope="session")
def llama(make_decoder):
    return make_decoder()


@pytest.fixture(scope="session")
def make_seq2seq():
    """A small random encoder-decoder, by the name of its architecture."""
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    bart = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "init_std": 0.3}
    bart |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": VOCABULARY}
    bart |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    bart |= {"forced_eos_token_id": None}
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    t5 |= {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sounds = {"num_mel_bins": 8, "max_source_positions": 10, "begin_suppress_tokens": None, "suppress_tokens": None}

    def make(kind):
        torch.manual_seed(0)
        settings = t5 if kind == "t5" else bart | (sounds if kind == "whisper" else {})
        auto = AutoModelForSpeechSeq2Seq if kind == "whisper" else AutoModelForSeq2SeqLM
        return auto.from_config(CONFIG_MAPPING[kind](**settings), attn_implementation="eager").eval()

    return make
