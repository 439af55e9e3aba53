"""The keys that an indexer chooses for each query, as a mask: (queries, chosen) numbers of keys, in any order.

Models with sparse attention hand them to the attention function beside their mask (DeepSeek's sparse attention,
https://arxiv.org/abs/2512.02556). What is kept of them is each query's runs of keys, linear in how many are chosen.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch

from softmap.masks.kinds import Runs
from softmap.models.masking import Rule, both

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor, nn

    from softmap.masks import Mask


def chosen_rule(rule: Rule, chosen: Int[Tensor, "queries chosen"], rows: range, keys: range) -> Rule:
    """A rule, of which each query is left the keys that were chosen for it.

    Args:
        rule: what the mask says.
        chosen: the numbers of keys within `keys`; negative ones stand for none.
        rows: the positions of the queries.
        keys: the positions of the keys.
    """
    chosen = chosen.cpu().long()

    def build(some_rows: range, some_keys: range) -> Mask:
        mine = chosen[some_rows.start - rows.start : some_rows.stop - rows.start] - (some_keys.start - keys.start)
        return both(rule.build(some_rows, some_keys), runs_of(mine, len(some_keys)))

    return Rule(("and", rule.name, ("chosen", id(chosen))), build)


def runs_of(chosen: Int[Tensor, "queries chosen"], keys: int) -> Mask:
    """Each query's chosen keys as runs; numbers that are no key's are left out."""
    queries, width = len(chosen), keys + 1
    places = (torch.arange(queries)[:, None] * width + chosen)[(chosen >= 0) & (chosen < keys)].unique()
    first = torch.ones(len(places), dtype=torch.bool)
    first[1:] = places[1:] != places[:-1] + 1
    last = first.roll(-1)  # the last run ends at the end, where the first one begins
    return Runs(torch.stack((places[first], places[last] + 1), 1).view(-1), queries, keys)


def names_option(module: nn.Module, name: str) -> bool:
    """Whether a module's class itself hands its attention function an argument of that name."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and any(isinstance(names, tuple) and name in names for names in code.co_consts)


def chosen_strip(chosen: Int[Tensor, "queries chosen"], rows: Int[Tensor, " n"], keys: int) -> Bool[Tensor, "n keys"]:
    """Which keys were chosen for some queries."""
    mine = chosen[rows.to(chosen.device)].long()
    strip = torch.zeros(len(rows), keys + 1, dtype=torch.bool, device=chosen.device)
    strip.scatter_(1, mine.where((mine >= 0) & (mine < keys), keys), True)
    return strip[:, :keys].cpu()
