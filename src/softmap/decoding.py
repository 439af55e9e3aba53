"""Token ids whose text is not known -> tokens, with the text that they make: what generation and models given ids need."""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from softmap.tokens import Tokens, pieces_of, special_flags, unknown_flags, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LONGEST = 16
"""How many tokens are held back for a character to become whole. One has 4 bytes, but a token may end one and begin the
next."""


def tokens_of_ids(ids: list[int], tokenizer: Any = None) -> Tokens:
    """The tokens of ids whose text is not known: it is put together from what they stand for.

    Tokens that make a character only together, such as the bytes of an emoji, all get the span of that character.

    Args:
        ids: vocabulary indices, (tokens).
        tokenizer: what knows their names; without it they are numbers.
    """
    if tokenizer is None:
        return _numbers(ids)
    special = special_flags(tokenizer, ids)
    surfaces: list[str] = []
    spans: list[tuple[int, int]] = []
    end = 0
    for count, surface in _decoded(_decoder(tokenizer), ids, special):
        surfaces.append(surface)
        spans += [(end, end + len(surface))] * count
        end += len(surface)
    text = "".join(surfaces)
    added = tokenizer.added_tokens_decoder
    alone = [mark or i in added for i, mark in zip(ids, special, strict=True)]
    return Tokens(
        text=text,
        ids=tuple(ids),
        pieces=pieces_of(tokenizer, ids),
        spans=tuple(spans),
        words=words_of(text, spans, special, _split_again(tokenizer, text, spans, alone)),
        special=special,
        unknown=unknown_flags(tokenizer, ids),
    )


def _numbers(ids: list[int]) -> Tokens:
    pieces = tuple(str(i) for i in ids)
    text = "".join(f" {piece}" for piece in pieces)
    no = (False,) * len(ids)
    spans: list[tuple[int, int]] = []
    for piece in pieces:
        start = spans[-1][1] if spans else 0
        spans.append((start, start + 1 + len(piece)))
    return Tokens(text, tuple(ids), pieces, tuple(spans), tuple(range(len(ids))), no, no)


def _decoded(
    decode: Callable[[list[int]], str], ids: Sequence[int], special: Sequence[bool]
) -> Iterator[tuple[int, str]]:
    """Decode token by token: how many tokens, and the text that they make together. Special ones make none.

    What a token adds is seen behind the tokens before it, since many decoders drop the space at the beginning. Tokens
    are held back while they add nothing or end inside a character, for which decoders give U+FFFD.
    """
    context: list[int] = []
    held: list[int] = []
    before, added = "", [""]  # the context's text, and what held[:0], held[:1], ... add to it
    for token, mark in zip(ids, special, strict=True):
        if not mark:
            held.append(token)
            both = decode(context + held)
            added.append(both[len(before) :] if both.startswith(before) else decode(held))
            if (not added[-1] or added[-1].endswith("\ufffd")) and len(held) < LONGEST:
                continue
            context, before = held, decode(held)
        yield from _settled(added)
        held, added = [], [""]
        if mark:
            yield 1, ""
    yield from _settled(added)


def _settled(added: list[str]) -> Iterator[tuple[int, str]]:
    """Tokens held back, all as one; but bytes that stay U+FFFD, whatever follows, are apart from what follows."""
    whole, count = added[-1], len(added) - 1
    cut = max((i for i, text in enumerate(added) if text and text != whole and whole.startswith(text)), default=0)
    if cut:
        yield cut, added[cut]
    if count:
        yield count - cut, whole[len(added[cut]) :]


def _decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    """Ids -> text, nothing left out and nothing tidied up."""
    if not tokenizer.is_fast:
        return partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    backend = tokenizer.backend_tokenizer
    decoder = None if backend.decoder is not None else _usual_decoder(backend)
    if decoder is None:
        return partial(backend.decode, skip_special_tokens=False)
    return lambda ids: str(decoder.decode([name for i in ids if (name := backend.id_to_token(i)) is not None]))


def _usual_decoder(backend: Any) -> Any:
    """The decoder of this kind of vocabulary, for a tokenizer that was made without one; None where spaces will do."""
    from tokenizers import decoders, pre_tokenizers

    splitter = backend.pre_tokenizer
    steps = {type(step) for step in (splitter if hasattr(splitter, "__getitem__") else [splitter])}  # one or a sequence
    if pre_tokenizers.ByteLevel in steps:
        return decoders.ByteLevel()
    if pre_tokenizers.Metaspace in steps:
        return decoders.Metaspace()
    prefix = getattr(backend.model, "continuing_subword_prefix", None)
    return decoders.WordPiece(prefix=prefix, cleanup=False) if prefix else None


def _split_again(tokenizer: Any, text: str, spans: Sequence[tuple[int, int]], alone: Sequence[bool]) -> list[int]:
    """The word of each token, as the tokenizer would split the text: at added tokens, and between them as ever."""
    splitter = tokenizer.backend_tokenizer.pre_tokenizer if tokenizer.is_fast else None
    words: list[int] = []
    count = 0
    for by_itself, run in groupby(range(len(spans)), key=alone.__getitem__):
        places = list(run)
        if by_itself:
            words += range(count, count + len(places))
            count += len(places)
            continue
        start, stop = spans[places[0]][0], spans[places[-1]][1]
        split = splitter.pre_tokenize_str(text[start:stop]) if splitter else []
        starts = [start + offset for _, (offset, _) in split]
        words += [count + bisect_right(starts, _first_letter(text, spans[i])) for i in places]
        count += len(starts) + 1
    return words


def _first_letter(text: str, span: tuple[int, int]) -> int:
    """Where a token's text begins, behind the white space that some splitters leave out."""
    surface = text[slice(*span)].lstrip()
    return span[1] - len(surface) if surface else span[0]
