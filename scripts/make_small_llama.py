"""Train a small Llama on the text that every Python brings (pydoc's topics), for trying softmap on a decoder.

python scripts/make_small_llama.py small-llama      about three minutes on two cores

It learns little English, but two things that all language models learn: heads that look at the token before, and heads
that look for what came after an earlier occurrence of the present token (Olsson et al., 2022, "In-context Learning and
Induction Heads"). Half of what it reads is repeated, which makes them appear early.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "\n".join(topics[name] for name in sorted(topics))
LENGTH, BATCH = 256, 8
log = logging.getLogger(__name__)


def main() -> None:
    """Train it and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    train(model, torch.tensor(tokenizer(TEXT, verbose=False).input_ids), arguments.steps)
    model.save_pretrained(arguments.directory)
    tokenizer.save_pretrained(arguments.directory)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 1,024 pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1024, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_model(vocabulary: int) -> LlamaForCausalLM:
    """Four layers of four heads on two key heads."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=131_072,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def train(model: LlamaForCausalLM, ids: torch.Tensor, steps: int) -> None:
    """Predict the next token, of plain text and of passages that are repeated."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        starts = torch.randint(len(ids) - LENGTH, (BATCH,)).tolist()
        batch = torch.stack([ids[start : start + LENGTH] for start in starts])
        period = int(torch.randint(16, LENGTH // 2, ()))
        batch[::2] = batch[::2, :period].repeat(1, LENGTH // period + 1)[:, :LENGTH]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            log.info("step %d, loss %.2f", step + 1, float(loss.detach()))
    model.eval()


if __name__ == "__main__":
    main()
