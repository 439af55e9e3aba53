"""How many tokens a model knows, and how many it takes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from softmap.models import LoadedModel

UNLIMITED = 10**9
"""Tokenizers that know no limit give a number far beyond this."""
POSITIONS = ("position_embeddings", "wpe", "embed_positions")
"""What tables of positions are called: BERT's and its kin's, GPT-2's, BART's and OPT's."""


def token_limit(loaded: LoadedModel) -> int:
    """How many tokens a model takes, special ones included: its positions' and its tokenizer's limit."""
    limits = [] if loaded.tokenizer is None else [int(loaded.tokenizer.model_max_length)]
    return min([*limits, positions_of(loaded.model).limit, UNLIMITED])


class Positions(NamedTuple):
    """What a model's table of positions serves.

    Attributes:
        limit: how many tokens; UNLIMITED where there is no such table, or none that is known.
        padding: the token that takes no position, or None.
    """

    limit: int
    padding: int | None


def positions_of(model: PreTrainedModel) -> Positions:
    """The table of positions of the part that reads token ids: of an encoder-decoder, its encoder.

    Some start counting behind rows of their own: RoBERTa's 514 serve 512 tokens, OPT's 2,050 serve 2,048.
    """
    for name, module in _reader(model).named_modules():
        if name.rpartition(".")[2] in POSITIONS and hasattr(module, "num_embeddings"):
            padding = getattr(module, "padding_idx", None)
            first = getattr(module, "offset", 0) if padding is None else padding + 1
            return Positions(module.num_embeddings - first, padding)
    return Positions(UNLIMITED, None)


def _reader(model: PreTrainedModel) -> Any:
    """The module that reads token ids, and no other tower's."""
    if model.config.is_encoder_decoder:
        return model.get_encoder()
    table = _table(model)
    return next((each for each in model.modules() if any(child is table for child in each.children())), model)


def _table(model: PreTrainedModel) -> Any:
    """The table of token embeddings; None where there is none, as in a model of several towers."""
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None


def vocabulary(model: PreTrainedModel) -> int:
    """How many tokens a model knows; UNLIMITED where it has no table of them."""
    table = _table(model)
    return int(table.weight.shape[0]) if hasattr(table, "weight") else UNLIMITED
