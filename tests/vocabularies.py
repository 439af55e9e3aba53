"""Small vocabularies of every kind, without a model."""

from __future__ import annotations

from functools import partial

MARKS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")  # padding at 1, as RoBERTa has it
TEXT = "the cat sat on a mat i love learning it is un ##believ ##able ##ability don t ' . , ! ?"
CORPUS = [
    "The cat sat on the mat, and I love learning.",
    "unbelievable unbelievability don't",
    "我爱学习。 你好吗？",
] * 4
WORDS = ["the", "cat", "sat", "on", "a", "mat", "i", "love", "learning", "it", "is", "unbelievable"]


def _wordpiece():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {piece: i for i, piece in enumerate([*MARKS, *TEXT.split()])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _byte_level():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(MARKS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS[:2], trainer)
    return tokenizer


def _metaspace():
    from tokenizers import Tokenizer, models, pre_tokenizers

    singles = sorted({char for text in CORPUS for char in text if not char.isspace()})
    pieces = [*MARKS, "▁", "▁I", "▁love", "ing", "学习", *singles]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def _byte_fallback(*, split):
    """As Llama's: what the vocabulary lacks is written in bytes; the text is one word, or split at its spaces."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    merges = [("▁", "l"), ("▁l", "o"), ("i", "n"), ("in", "g")]
    pieces = [*MARKS, *(f"<0x{i:02X}>" for i in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz.,'学"]
    pieces += ["".join(pair) for pair in merges]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="[UNK]", fuse_unk=True, byte_fallback=True))
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _word_level():
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate([*MARKS, *WORDS, ",", ".", "and", "you", "I"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


BACKENDS = {
    "wordpiece": _wordpiece,
    "byte level": _byte_level,
    "metaspace": _metaspace,
    "byte fallback": partial(_byte_fallback, split=False),
    "byte fallback split": partial(_byte_fallback, split=True),
    "word level": _word_level,
}
