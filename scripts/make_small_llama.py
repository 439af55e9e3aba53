"""Train a small Llama, for trying softmap on a decoder.

python scripts/make_small_llama.py small-llama      about two minutes; with a text of 16,384 tokens

It learns one thing that all language models learn: to go on as a passage went on before. For that it grows heads that
look for what came after an earlier occurrence of the present token (Olsson et al., 2022, "In-context Learning and
Induction Heads"). What it reads is drawn at random and repeated, so that there is nothing else to learn.
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
LENGTH, BATCH = 128, 16
log = logging.getLogger(__name__)


def main() -> None:
    """Train it and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a step is too small to be shared
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    train(model, arguments.steps)
    model.save_pretrained(arguments.directory)
    tokenizer.save_pretrained(arguments.directory)
    text = a_text(tokenizer)
    (arguments.directory / "text.txt").write_text(text, encoding="utf-8")
    (arguments.directory / "twice.txt").write_text(2 * passage_of(text), encoding="utf-8")


def a_text(tokenizer: PreTrainedTokenizerFast, tokens: int = 16_384) -> str:
    """A text of that many tokens, from the beginning of a topic."""
    for name in sorted(topics):
        text = TEXT[TEXT.index(topics[name]) :]
        offsets = tokenizer(text, return_offsets_mapping=True, verbose=False).offset_mapping
        text = text[: offsets[tokens][0]]
        if len(tokenizer(text, verbose=False).input_ids) == tokens:
            return text
    raise AssertionError("every topic is cut within a word")


def passage_of(text: str) -> str:
    """A passage of a few sentences."""
    start = text.index("The simple form")
    return text[start : start + 120].rpartition(" ")[0] + "\n"


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
    """Two layers of four heads on two key heads."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=131_072,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def train(model: LlamaForCausalLM, steps: int) -> None:
    """Predict the next token of passages that are repeated, from their second time on."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / 100))
    for step in range(steps):
        period = int(torch.randint(8, 40, ()))
        passage = torch.randint(model.config.vocab_size, (BATCH, period))
        batch = passage.repeat(1, LENGTH // period + 1)[:, :LENGTH]
        labels = batch.clone()
        labels[:, : period + 1] = -100  # what is read for the first time can't be known
        loss = model(input_ids=batch, labels=labels).loss
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
