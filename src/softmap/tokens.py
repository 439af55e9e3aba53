"""A text -> the tokens a model reads, with where each stands in the text and which word it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softmap.errors import ModelError, TextError
from softmap.limits import UNLIMITED, token_limit, vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softmap.models import LoadedModel


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
    text = loaded.prompt + text
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
    special = special_flags(tokenizer, encoding["input_ids"], encoding["special_tokens_mask"])
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
        special = special_flags(tokenizer, encoding["input_ids"], encoding["special_tokens_mask"])
    ids = tuple(encoding["input_ids"])
    spans = tuple((start, stop) for start, stop in encoding["offset_mapping"])
    return Tokens(
        text=text,
        ids=ids,
        pieces=pieces_of(tokenizer, ids),
        spans=spans,
        words=words_of(text, spans, special, encoding.word_ids()),
        special=special,
        unknown=unknown_flags(tokenizer, ids),
        cut=length - len(ids),
    )


def words_of(
    text: str, spans: Sequence[tuple[int, int]], special: Sequence[bool], split: Sequence[int | None]
) -> tuple[int | None, ...]:
    """The index of each token's word: as the tokenizer split them, and at white space, which some do not split at."""
    words: list[int | None] = []
    count = 0
    for i, mark in enumerate(special):
        begins = i == 0 or special[i - 1] or split[i] != split[i - 1] or _are_apart(text, spans[i - 1], spans[i])
        count += begins and not mark
        words.append(None if mark else count - 1)
    return tuple(words)


def _are_apart(text: str, before: tuple[int, int], here: tuple[int, int]) -> bool:
    """Whether a word ends between two tokens: at white space, which goes with the word behind it."""
    if here[0] < before[1]:
        return False  # two pieces of the same character
    ending = text[slice(*before)]
    ended = ending.strip() != "" and ending[-1].isspace()
    return ended or any(char.isspace() for char in text[before[1] : here[0] + 1])


def pieces_of(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """What the vocabulary calls each id; its number where it has no name, as in a table with rows to spare."""
    names = tokenizer.convert_ids_to_tokens(list(ids))
    return tuple(str(i) if name is None else str(name) for i, name in zip(ids, names, strict=True))


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


def special_flags(tokenizer: Any, ids: Sequence[int], added: Sequence[int] = ()) -> tuple[bool, ...]:
    """Special: what stands for no word, whether written out or, as `added` flags, put in by the tokenizer."""
    marks = _special_ids(tokenizer)
    return tuple(bool(flag) or i in marks for i, flag in zip(ids, added or [0] * len(ids), strict=True))


def _special_ids(tokenizer: Any) -> set[int]:
    """All the vocabulary has of marks such as ``[SEP]``. [UNK] and [MASK] are none of them: they stand for words."""
    marks = set(tokenizer.all_special_ids)
    marks |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    if tokenizer.is_fast:
        around = tokenizer.backend_tokenizer.encode("")
        marks |= {i for i, flag in zip(around.ids, around.special_tokens_mask, strict=True) if flag}
    return marks - {_unknown_id(tokenizer), tokenizer.mask_token_id}


def unknown_flags(tokenizer: Any, ids: Sequence[int]) -> tuple[bool, ...]:
    """Which tokens stand for words that the vocabulary lacks."""
    unknown = _unknown_id(tokenizer)
    return tuple(i == unknown for i in ids)


def _unknown_id(tokenizer: Any) -> int | None:
    """The token of words that the vocabulary lacks.

    None where it lacks no word and the name only repeats another mark's, as in GPT-2, whose unk_token ends a text.
    """
    unknown: int | None = tokenizer.unk_token_id
    names = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "pad_token_id")
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    lacks_none = getattr(model, "unk_token", "") is None
    return None if lacks_none and unknown in [getattr(tokenizer, name, None) for name in names] else unknown


def _refuse_foreign_ids(loaded: LoadedModel, ids: list[int]) -> None:
    rows = vocabulary(loaded.model)
    if rows == UNLIMITED:
        hint = "softmap explains models of text; this one reads something else."
        raise ModelError(loaded.name, "a table of token embeddings", f"none in {type(loaded.model).__name__}", hint)
    if max(ids) >= rows:
        raise ModelError(
            loaded.name,
            f"token ids below {rows}, the size of the model's vocabulary",
            str(max(ids)),
            "The tokenizer belongs to another model; load the one that was saved with the weights.",
        )
