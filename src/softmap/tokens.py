"""A text -> the tokens a model reads, with where each stands in the text and which word it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from softmap.errors import ModelError, TextError

if TYPE_CHECKING:
    from softmap.models import LoadedModel

UNLIMITED = 10**9
"""Tokenizers that know no limit give a number far beyond this."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of one text, in the order the model reads them.

    Attributes:
        text: the text as given, whole, also where its end was cut off.
        ids: the vocabulary indices, (tokens); none for a text that came without a vocabulary.
        pieces: what the vocabulary calls them, such as ``##ing`` or ``[CLS]``.
        spans: the characters of `text` each one stands for, start and stop.
        words: the index of the word each one belongs to; None for special tokens.
        special: whether the tokenizer added it, or it means no text, such as ``[SEP]``.
        unknown: whether the vocabulary lacks it, so that the model reads the same ``[UNK]`` for all such.
        cut: how many tokens of the text were left out at the end, 0 unless truncation was asked for.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    words: tuple[int | None, ...]
    special: tuple[bool, ...]
    unknown: tuple[bool, ...]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def cut_text(self) -> str:
        """The end of the text that the model did not read; empty unless truncation was asked for."""
        return self.text[max(stop for _, stop in self.spans) :] if self.cut else ""


def tokenize(loaded: LoadedModel, text: str, *, truncate: bool = False) -> Tokens:
    """Tokenize a text for a model, special tokens included.

    Args:
        loaded: the model and its tokenizer.
        text: the text.
        truncate: whether a text longer than the model's limit is cut at its end. What was cut is counted.

    Raises:
        TextError: a model without a tokenizer, no text, none but special tokens, or more tokens than the model takes.
        ModelError: a tokenizer without character offsets, or one of another model.
    """
    _refuse_unless_text(text)
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        hint = "Give softmap.models.LoadedModel(model, tokenizer, name), or token ids."
        raise TextError("text", "a model with its tokenizer", f"{loaded.name} alone", hint)
    limit = token_limit(loaded)
    if not tokenizer.is_fast:
        raise ModelError(
            loaded.name,
            "a fast tokenizer, which knows where in the text each token stands",
            type(tokenizer).__name__,
            "Convert it: AutoTokenizer.from_pretrained(..., use_fast=True) and save_pretrained.",
        )
    encoding = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    special = _special_flags(tokenizer, encoding)
    if all(special):
        got = "an empty text" if not text.strip() else f"{text[:40]!r}, of which only special tokens are left"
        raise TextError("text", "at least one word", got, "Give a sentence, such as 'I love learning'.")
    _refuse_foreign_ids(loaded, encoding["input_ids"])
    length = len(special)
    if length > limit and not truncate:
        raise TextError(
            "text",
            f"at most {limit} tokens for {loaded.name}",
            f"{length} tokens",
            "Shorten it, take a model with a higher limit, or cut its end with truncate=True (--truncate).",
        )
    if length > limit:
        encoding = _first_tokens(tokenizer, text, limit)
    return Tokens(
        text=text,
        ids=tuple(encoding["input_ids"]),
        pieces=tuple(tokenizer.convert_ids_to_tokens(encoding["input_ids"])),
        spans=tuple((start, stop) for start, stop in encoding["offset_mapping"]),
        words=tuple(encoding.word_ids()),
        special=_special_flags(tokenizer, encoding),
        unknown=tuple(i == tokenizer.unk_token_id for i in encoding["input_ids"]),
        cut=length - len(encoding["input_ids"]),
    )


def tokens_of_ids(ids: list[int], tokenizer: Any = None) -> Tokens:
    """The tokens of ids whose text is not known: it is put together from what each of them stands for.

    Args:
        ids: vocabulary indices, (tokens).
        tokenizer: what knows their names; without it they are numbers.
    """
    if tokenizer is None:
        pieces = surfaces = [f" {i}" for i in ids]
        special, unknown = [False] * len(ids), [False] * len(ids)
    else:
        pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
        marks = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id, tokenizer.mask_token_id}
        special, unknown = [i in marks for i in ids], [i == tokenizer.unk_token_id for i in ids]
        surfaces = [
            "" if mark else _surface(tokenizer, i, piece) for i, piece, mark in zip(ids, pieces, special, strict=True)
        ]
    ends = list(accumulate(len(surface) for surface in surfaces))
    words = list(
        accumulate(int(mark or surface[:1].isspace()) for surface, mark in zip(surfaces, special, strict=True))
    )
    return Tokens(
        text="".join(surfaces),
        ids=tuple(ids),
        pieces=tuple(piece.strip() if tokenizer is None else piece for piece in pieces),
        spans=tuple((end - len(surface), end) for end, surface in zip(ends, surfaces, strict=True)),
        words=tuple(None if mark else word for word, mark in zip(words, special, strict=True)),
        special=tuple(special),
        unknown=tuple(unknown),
    )


def _surface(tokenizer: Any, token: int, piece: str) -> str:
    """What a token stands for in a text, with the space before a word: each kind of vocabulary marks it in its own way."""
    text = str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    if piece.startswith("##"):
        return text.removeprefix("##")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    of_words = piece.startswith(("▁", "Ġ")) or type(getattr(backend, "model", None)).__name__ == "WordPiece"
    return f" {text.lstrip()}" if of_words else text


def token_limit(loaded: LoadedModel) -> int:
    """How many tokens a model takes, special ones included: its position embeddings' and its tokenizer's limit.

    Position embeddings with a padding index start counting behind it (RoBERTa's 514 rows serve 512 tokens).
    """
    limits = [] if loaded.tokenizer is None else [int(loaded.tokenizer.model_max_length)]
    for name, module in loaded.model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and hasattr(module, "num_embeddings"):
            padding = getattr(module, "padding_idx", None)
            limits.append(module.num_embeddings - (0 if padding is None else padding + 1))
    limit = min(limits, default=UNLIMITED)
    return limit if limit < UNLIMITED else UNLIMITED


def _refuse_unless_text(text: Any) -> None:
    if not isinstance(text, str):
        raise TextError("text", "a string", type(text).__name__, "Decode bytes first, as in data.decode('utf-8').")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # a lone surrogate: a Python string that is no text
        got = f"{text[error.start]!r} at character {error.start}"
        raise TextError("text", "valid Unicode", got, "Decode the file as UTF-8, without surrogateescape.") from error


def _first_tokens(tokenizer: Any, text: str, limit: int) -> Any:
    """The encoding of a text's beginning, whichever side the tokenizer is set to cut."""
    side, tokenizer.truncation_side = tokenizer.truncation_side, "right"
    try:
        return tokenizer(
            text, return_offsets_mapping=True, return_special_tokens_mask=True, truncation=True, max_length=limit
        )
    finally:
        tokenizer.truncation_side = side


def _special_flags(tokenizer: Any, encoding: Any) -> tuple[bool, ...]:
    """Special: what the tokenizer added, and separators written out in the text. [UNK] and [MASK] stand for words."""
    names = ("cls_token_id", "sep_token_id", "pad_token_id", "bos_token_id", "eos_token_id")
    marks = {getattr(tokenizer, name, None) for name in names} - {tokenizer.unk_token_id, tokenizer.mask_token_id}
    added = encoding["special_tokens_mask"]
    return tuple(bool(flag) or i in marks for i, flag in zip(encoding["input_ids"], added, strict=True))


def _refuse_foreign_ids(loaded: LoadedModel, ids: list[int]) -> None:
    try:
        table: Any = loaded.model.get_input_embeddings()
    except NotImplementedError:  # a model of several towers
        table = None
    if not hasattr(table, "weight"):
        hint = "softmap explains models of text; this one reads something else."
        raise ModelError(loaded.name, "a table of token embeddings", f"none in {type(loaded.model).__name__}", hint)
    rows = int(table.weight.shape[0])
    if max(ids) >= rows:
        raise ModelError(
            loaded.name,
            f"token ids below {rows}, the size of the model's vocabulary",
            str(max(ids)),
            "The tokenizer belongs to another model; load the one that was saved with the weights.",
        )
